/* What the command line asks of the plan. */
#ifndef TSR_LAUNCH_PLAN_PLAN_REQUEST_H
#define TSR_LAUNCH_PLAN_PLAN_REQUEST_H

#include "launch/cli/backends.h"
#include "launch/cli/config.h"
#include "runtime/plan/plan_build.h"

/* `target_name` is a target's name or an amount of memory; NULL: what the backend computes on.
 * TSR_ERR_ARG, TSR_ERR_DEVICE, logged */
TSR_MUST_USE tsr_status tsr_plan_request_read(const tsr_config *config, const tsr_backend *backend,
                                              const char *target_name, int32_t ranks,
                                              tsr_plan_request *ret_request);

#endif
