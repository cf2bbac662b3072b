/* The ranks of a served job: rank 0 takes its requests from the gateway. */
#ifndef TSR_LAUNCH_SERVE_ENGINE_COMMAND_H
#define TSR_LAUNCH_SERVE_ENGINE_COMMAND_H

#include "launch/cli/config.h"

/* `fd` is rank 0's end of the gateway's socket, taken over; -1 on the others. Returns as tsr_job_run. */
TSR_MUST_USE tsr_status tsr_engine_command(const tsr_config *config, const tsr_launch_info *info,
                                           int fd);

#endif
