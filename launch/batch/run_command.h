/* tessera run: one prompt to the terminal, or a file of requests. */
#ifndef TSR_LAUNCH_BATCH_RUN_COMMAND_H
#define TSR_LAUNCH_BATCH_RUN_COMMAND_H

#include "launch/cli/config.h"

/* Exactly one of --prompt, --chat and --input, with what belongs to it. */
TSR_MUST_USE tsr_status tsr_run_command_check(const tsr_config *config);

TSR_MUST_USE tsr_status tsr_run_command(const tsr_config *config, const tsr_launch_info *info);

#endif
