/* What the command line asks of the plan. */
#ifndef TSR_LAUNCH_PLAN_REQUEST_H
#define TSR_LAUNCH_PLAN_REQUEST_H

#include "launch/config.h"
#include "runtime/plan/plan_build.h"

/* `target_name` is a target's name or an amount of memory; NULL: what --backend computes on.
 * TSR_ERR_ARG, logged */
TSR_MUST_USE tsr_status tsr_plan_request_read(const tsr_config *config, const char *target_name,
                                              int32_t ranks, tsr_plan_request *ret_request);

#endif
