/* A device's memory as exchanges see it: comm knows no device. */
#ifndef TSR_LAUNCH_JOB_EXCHANGE_MEMORY_H
#define TSR_LAUNCH_JOB_EXCHANGE_MEMORY_H

#include "comm/exchange.h"
#include "kernels/device.h"

/* As long as the device; NULL is allowed, as long as nobody asks for memory. */
tsr_exchange_memory tsr_exchange_memory_of(tsr_device *device);

/* Of a device that is a GPU, which the process sees as number `card`. */
tsr_exchange_memory tsr_exchange_memory_on_card(tsr_device *device, int32_t card, bool may_share);

#endif
