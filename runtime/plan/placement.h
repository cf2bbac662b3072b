/*
 * Which rank holds which expert: consecutive experts, shared out evenly, and where that does not go
 * up, one more on each of the first ranks.
 *
 *   8 experts on 3 ranks:  0 0 0 1 1 1 2 2
 */
#ifndef TSR_RUNTIME_PLAN_PLACEMENT_H
#define TSR_RUNTIME_PLAN_PLACEMENT_H

#include "runtime/base/model_facts.h"

/* The rank of expert `expert` of `experts`, 1 <= ranks <= experts. */
int32_t tsr_placement_rank(int32_t experts, int32_t ranks, int32_t expert);

/* Fills expert_rank [layers, E]; rows of dense layers are -1. */
void tsr_placement_fill(const tsr_model_facts *model, int32_t ranks, int32_t *expert_rank);

#endif
