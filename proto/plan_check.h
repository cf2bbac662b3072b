/* The bounds a plan must keep before anybody may follow its indices. Private to proto. */
#ifndef TSR_PROTO_PLAN_CHECK_H
#define TSR_PROTO_PLAN_CHECK_H

#include "proto/plan.h"

/* Most ranks a plan may name. */
enum { TSR_PLAN_MAX_RANKS = 4096 };

/* What is out of bounds, as the end of "plan message: ..."; NULL when nothing is. */
const char *tsr_plan_check(const tsr_plan *plan);

/* The part of it that the sizes of other arrays follow from. */
const char *tsr_plan_check_model(const tsr_model_facts *model);

#endif
