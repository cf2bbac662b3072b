/* How activations and the KV cache are kept: what is declared, what the user asks for, what the
 * target can. */
#ifndef TSR_RUNTIME_PLAN_ACTIVATIONS_H
#define TSR_RUNTIME_PLAN_ACTIVATIONS_H

#include "runtime/plan/plan_build.h"
#include "runtime/plan/precision.h"

/*
 * Turns the declared activation of each linear into the one that is computed.
 *
 * TSR_ERR_DEVICE      --activations declared, and the target cannot
 * TSR_ERR_CHECKPOINT  an input_scale that is then needed is not stored
 */
TSR_MUST_USE tsr_status tsr_activations_settle(const tsr_plan_request *request,
                                               tsr_problems *problems, tsr_precision *precision);

/* TSR_ERR_ARG: a dtype that does not exist, or not there; TSR_ERR_CHECKPOINT: declared, not
 * served */
TSR_MUST_USE tsr_status tsr_kv_settle(const tsr_plan_request *request,
                                      const tsr_precision *precision, tsr_problems *problems,
                                      tsr_kv_format *ret_format);

#endif
