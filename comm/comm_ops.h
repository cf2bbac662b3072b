/*
 * What a group is: one table, every entry required, and a struct that a backend extends.
 *
 * The front doors (comm.c, exchange.c) check arguments and order once, so that no backend does, and
 * abort the group when an entry fails, so that a backend just returns.
 */
#ifndef TSR_COMM_COMM_OPS_H
#define TSR_COMM_COMM_OPS_H

#include "comm/comm.h"
#include "comm/exchange.h"

#include <stdbool.h>

typedef struct tsr_comm_ops {
    const char *name;
    tsr_status (*broadcast)(tsr_comm *comm, int32_t root, void *data, size_t bytes);
    tsr_status (*gather)(tsr_comm *comm, int32_t root, const void *send, const size_t *bytes_of,
                         void *recv);
    tsr_status (*barrier)(tsr_comm *comm);
    void (*abort)(tsr_comm *comm, tsr_status cause); /* again: keeps the first cause */
    tsr_status (*cause)(tsr_comm *comm);             /* never waits */
    int32_t (*ender)(const tsr_comm *comm);          /* of that cause; -1: none */
    void (*stay_behind)(tsr_comm *comm);
    void (*close)(tsr_comm *comm);

    /* Collective: the exchange through host memory that this group brings. */
    tsr_status (*exchange_open)(tsr_comm *comm, const tsr_exchange_shape *shape,
                                tsr_exchange **ret_exchange);
} tsr_comm_ops;

/* First member of every backend's own group, which fills in what stands above the line. */
struct tsr_comm {
    const tsr_comm_ops *ops;
    int32_t rank;
    int32_t size;
    int32_t deadline_ms;
    /* ---- */
    int32_t exchanges;                 /* opened so far: the next one's number */
    const tsr_exchange *pending;       /* the one that has not been waited for; NULL: none */
    const tsr_exchange_memory *memory; /* of a device, for exchanges; NULL: the host's */
};

/* For the front doors: ends the group with any error, and passes it on. */
TSR_MUST_USE tsr_status tsr_comm_passed(tsr_comm *comm, tsr_status status);

/* Logs and ends the group. TSR_ERR_ARG */
TSR_MUST_USE tsr_status tsr_comm_refused(tsr_comm *comm, const char *what);

/*
 * Whether `what` may be called now.
 *
 * TSR_ERR_ARG   logged, and the group ends: an exchange has not been waited for
 * TSR_ERR_PEER  the same, in a group that has ended
 */
TSR_MUST_USE tsr_status tsr_comm_in_turn(tsr_comm *comm, const char *what);

#endif
