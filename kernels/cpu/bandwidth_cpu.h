/* How fast all threads together read memory; the contract is tsr_device_read_bandwidth's. */
#ifndef TSR_KERNELS_CPU_BANDWIDTH_CPU_H
#define TSR_KERNELS_CPU_BANDWIDTH_CPU_H

#include "kernels/device_ops.h"

tsr_status tsr_read_bandwidth_cpu(tsr_device *device, uint64_t bytes, double *ret_bytes_per_s);

#endif
