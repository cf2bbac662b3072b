/* The exchange that a local group brings, for comm_local.c's table; exchange.h says what it does. */
#ifndef TSR_COMM_EXCHANGE_LOCAL_H
#define TSR_COMM_EXCHANGE_LOCAL_H

#include "comm/exchange_ops.h"

/* Collective. TSR_ERR_MEMORY, TSR_ERR_TIMEOUT, TSR_ERR_PEER, TSR_ERR_MISMATCH */
TSR_MUST_USE tsr_status tsr_exchange_local_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                                tsr_exchange **ret_exchange);

#endif
