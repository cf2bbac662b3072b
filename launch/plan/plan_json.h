/* A plan as JSON: what `tessera plan --json` prints and /server_info shows. */
#ifndef TSR_LAUNCH_PLAN_PLAN_JSON_H
#define TSR_LAUNCH_PLAN_PLAN_JSON_H

#include "runtime/plan/plan_build.h"

#include <jansson.h>

/*
 * {"kv_format", "limits", "ranks": [bytes of each], "layers": [formats and paths of each]}; NULL
 * without memory. `request` is what the plan was built for.
 */
json_t *tsr_plan_json(const tsr_plan *plan, const tsr_plan_request *request);

#endif
