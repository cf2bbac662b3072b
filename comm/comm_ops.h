/*
 * What a backend of comm is: one table, every entry required, and two structs it extends.
 *
 * The front doors of comm.c check arguments and order once, so that no backend does, and abort the
 * group when an entry fails, so that a backend just returns. Entries that start something may leave
 * its errors to `wait`.
 */
#ifndef TSR_COMM_COMM_OPS_H
#define TSR_COMM_COMM_OPS_H

#include "comm/comm.h"

#include <stdbool.h>

typedef struct tsr_comm_ops {
    const char *name;
    tsr_status (*broadcast)(tsr_comm *comm, int32_t root, void *data, size_t bytes);
    tsr_status (*gather)(tsr_comm *comm, int32_t root, const void *send, const size_t *bytes_of,
                         void *recv);
    tsr_status (*barrier)(tsr_comm *comm);
    void (*abort)(tsr_comm *comm, tsr_status cause); /* again: keeps the first cause */
    tsr_status (*cause)(tsr_comm *comm);
    void (*close)(tsr_comm *comm);

    tsr_status (*exchange_open)(tsr_comm *comm, const tsr_exchange_shape *shape,
                                tsr_exchange **ret_exchange);
    tsr_status (*dispatch)(tsr_exchange *exchange, tsr_stream stream);
    tsr_status (*return_answers)(tsr_exchange *exchange, tsr_stream stream);
    tsr_status (*wait)(tsr_exchange *exchange, tsr_stream stream);
    void (*exchange_close)(tsr_exchange *exchange); /* nothing is pending, or the group is spent */
} tsr_comm_ops;

/* First member of every backend's own group. */
struct tsr_comm {
    const tsr_comm_ops *ops;
    int32_t rank;
    int32_t size;
    int32_t deadline_ms;
    int32_t exchanges; /* opened so far: the next one's number */
};

/*
 *     dispatch          wait            return           wait
 *  IDLE ----> DISPATCHED ----> ARRIVED ----> RETURNING ----> IDLE
 */
typedef enum tsr_exchange_phase {
    TSR_PHASE_IDLE,
    TSR_PHASE_DISPATCHED,
    TSR_PHASE_ARRIVED,
    TSR_PHASE_RETURNING,
} tsr_exchange_phase;

/* First member of every backend's own exchange. The backend fills in comm, shape, buffers and
 * number when it opens it, the front doors the rest. */
struct tsr_exchange {
    tsr_comm *comm;
    tsr_exchange_shape shape;
    tsr_exchange_buffers buffers;
    tsr_exchange_phase phase;
    tsr_exchange_mark mark; /* of the last dispatch */
    int32_t tokens;         /* of the last dispatch */
    int32_t number;         /* among the group's exchanges */
};

#endif
