/*
 * What an exchange is: one table, every entry required but where it says NULL, and a struct that
 * whoever opens one extends. Nothing else is assumed about it, so that exchanges can be made over any
 * group:
 *
 *   exchange.h --> exchange.c   front doors: arguments, order, step and stage
 *                     |
 *                  the table ----> exchange_self    one rank
 *                     |----------> exchange_local   threads
 *                     |----------> exchange_mpi     processes
 *                     |----------> exchange_device  one rank, rows on a device
 *                     '----------> exchange_nccl    a GPU each
 *
 * The front doors write what stands in the base before they call an entry, and abort the group when
 * one fails. Entries that start something may leave its errors to `wait`.
 */
#ifndef TSR_COMM_EXCHANGE_OPS_H
#define TSR_COMM_EXCHANGE_OPS_H

#include "comm/comm_ops.h"

typedef struct tsr_exchange_ops {
    const char *name;
    tsr_status (*begin)(tsr_exchange *exchange, tsr_stream stream); /* `step` is new */
    tsr_status (*dispatch)(tsr_exchange *exchange, tsr_stream stream);
    tsr_status (*return_answers)(tsr_exchange *exchange, tsr_stream stream);
    /* NULL: answers are always returned */
    bool (*hand_over)(tsr_exchange *exchange, tsr_exchange_coming *ret_coming);
    tsr_status (*wait)(tsr_exchange *exchange, tsr_stream stream);
    tsr_status (*poll)(tsr_exchange *exchange); /* never waits */
    /* never waits; returns the stage */
    int32_t (*text)(const tsr_exchange *exchange, size_t capacity, char *text);
    const int64_t *(*waited_ns)(tsr_exchange *exchange);
    void (*drain)(tsr_exchange *exchange, tsr_stream stream);
    void (*close)(tsr_exchange *exchange); /* nothing is pending, or the group is spent */
} tsr_exchange_ops;

/*
 *         begin         dispatch          wait            return           wait
 *  OPENED ----> STANDING ----> DISPATCHED ----> ARRIVED ----> RETURNING ----> STANDING
 */
typedef enum tsr_exchange_phase {
    TSR_PHASE_OPENED,
    TSR_PHASE_STANDING,
    TSR_PHASE_DISPATCHED,
    TSR_PHASE_ARRIVED,
    TSR_PHASE_RETURNING,
} tsr_exchange_phase;

enum { TSR_NO_STAGE = -1 };

/* First member of every exchange. Whoever opens it fills in what stands above the line. */
struct tsr_exchange {
    const tsr_exchange_ops *ops;
    tsr_comm *comm;
    tsr_exchange_shape shape;
    tsr_exchange_buffers buffers;
    int32_t number;     /* among the group's exchanges */
    int64_t *waited_ns; /* [size] in the exchange's memory; NULL: nobody is waited for */
    /* ---- */
    tsr_exchange_phase phase;
    uint64_t step;
    int32_t stage;    /* of the last dispatch, or TSR_NO_STAGE in this step */
    int32_t tokens;   /* of the last dispatch */
    int32_t most;     /* that any rank has sent in it */
    int32_t expected; /* likewise, of the next ones */
};

/* For openers. Checks a shape against the group. TSR_ERR_ARG, logged */
TSR_MUST_USE tsr_status tsr_exchange_check_shape(const tsr_comm *comm,
                                                 const tsr_exchange_shape *shape);

/* The base of a new exchange of the group, without buffers. */
tsr_exchange tsr_exchange_base(tsr_comm *comm, const tsr_exchange_ops *ops,
                               const tsr_exchange_shape *shape);

/* Logs that more than max_arrivals rows come to this rank. TSR_ERR_CAPACITY */
TSR_MUST_USE tsr_status tsr_exchange_overflow(const tsr_exchange *exchange, int64_t rows);

/* For the tables of exchanges whose calls run when they are made: nothing to do; whether the group
 * has ended; nothing to wait for; where the base stands; what it has waited. */
tsr_status tsr_exchange_begin_nothing(tsr_exchange *exchange, tsr_stream stream);
tsr_status tsr_exchange_poll_group(tsr_exchange *exchange);
void tsr_exchange_drain_nothing(tsr_exchange *exchange, tsr_stream stream);
int32_t tsr_exchange_text_base(const tsr_exchange *exchange, size_t capacity, char *text);
const int64_t *tsr_exchange_waited_base(tsr_exchange *exchange);

#endif
