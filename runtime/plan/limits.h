/* How large the engine is built: what was asked for, and where nothing was, as much as fits. */
#ifndef TSR_RUNTIME_PLAN_LIMITS_H
#define TSR_RUNTIME_PLAN_LIMITS_H

#include "runtime/plan/budget.h"

/*
 * Chooses every limit for setting->ranks and setting->kv_format.
 *
 *   ret_fits  false: one sequence of max_model_len does not fit; the limits then hold one sequence
 *
 * TSR_ERR_ARG  a value is out of range; added to `problems`
 */
TSR_MUST_USE tsr_status tsr_limits_choose(const tsr_budget *budget, const tsr_plan_request *request,
                                          tsr_problems *problems, tsr_setting *setting,
                                          bool *ret_fits);

/* One problem line: by how much it does not fit, and settings that would make it fit. */
void tsr_limits_advise(const tsr_budget *budget, const tsr_plan_request *request,
                       const tsr_setting *setting, tsr_problems *problems);

#endif
