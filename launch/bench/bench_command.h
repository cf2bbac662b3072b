/* `tessera bench`: how fast the engine goes with a model, and how near that is to the memory. */
#ifndef TSR_LAUNCH_BENCH_BENCH_COMMAND_H
#define TSR_LAUNCH_BENCH_BENCH_COMMAND_H

#include "launch/cli/config.h"

/* Options that need, or rule out, each other, and lists. TSR_ERR_ARG, logged */
TSR_MUST_USE tsr_status tsr_bench_command_check(const tsr_config *config);

TSR_MUST_USE tsr_status tsr_bench_command(const tsr_config *config, const tsr_launch_info *info);

#endif
