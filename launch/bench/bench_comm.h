/* `tessera bench comm`: how fast rows travel between ranks, by size, beside plain copies of the same
 * bytes where rows lie on GPUs. */
#ifndef TSR_LAUNCH_BENCH_BENCH_COMM_H
#define TSR_LAUNCH_BENCH_BENCH_COMM_H

#include "launch/cli/config.h"

#include <stdio.h>

/* Starts the ranks of the job, whose device is --backend's; rank 0 writes the table. The folder of
 * the config is not looked at. */
TSR_MUST_USE tsr_status tsr_bench_comm(const tsr_config *config, const tsr_launch_info *info,
                                       FILE *out);

#endif
