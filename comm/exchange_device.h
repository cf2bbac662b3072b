/* The exchange of a group of one whose rows lie in the memory of a device. */
#ifndef TSR_COMM_EXCHANGE_DEVICE_H
#define TSR_COMM_EXCHANGE_DEVICE_H

#include "comm/exchange_ops.h"

/* In comm->memory, which is there. TSR_ERR_MEMORY, TSR_ERR_DEVICE */
TSR_MUST_USE tsr_status tsr_exchange_device_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                                 tsr_exchange **ret_exchange);

#endif
