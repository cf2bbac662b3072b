/* The exchange of a group of one: exchange.h says what it does. */
#ifndef TSR_COMM_EXCHANGE_SELF_H
#define TSR_COMM_EXCHANGE_SELF_H

#include "comm/exchange_ops.h"

/* Of one rank, whose arrivals are its own rows. */
uint64_t tsr_exchange_self_bytes(const tsr_exchange_shape *shape);

/* TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_exchange_self_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                               tsr_exchange **ret_exchange);

#endif
