/* tessera serve: an OpenAI-compatible server in front of the ranks of a job. */
#ifndef TSR_LAUNCH_SERVE_SERVE_COMMAND_H
#define TSR_LAUNCH_SERVE_SERVE_COMMAND_H

#include "launch/cli/config.h"

TSR_MUST_USE tsr_status tsr_serve_command_check(const tsr_config *config,
                                                const tsr_launch_info *info);

/*
 * Runs this process's part to its end.
 *
 *   ret_code  its exit code
 */
void tsr_serve_command(const tsr_config *config, const tsr_launch_info *info, int *ret_code);

#endif
