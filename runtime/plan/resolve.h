/*
 * What the declarations say about every linear. First match decides:
 *
 *   exclusion of the module or an ancestor  ->  unquantized
 *   a key of its own                        ->  that format
 *   experts: the key of the block           ->  that format
 *   uniform checkpoint                      ->  its format
 *   otherwise                               ->  unquantized; never what a sibling has
 *
 * Afterwards all experts of a layer must have come out equal.
 */
#ifndef TSR_RUNTIME_PLAN_RESOLVE_H
#define TSR_RUNTIME_PLAN_RESOLVE_H

#include "runtime/plan/precision.h"

/*
 * Fills claims [count] for linears [count] in plan order. What is wrong is added to `problems`.
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_resolve(const tsr_checkpoint *checkpoint,
                                    const tsr_linear_plan *linears, int32_t count,
                                    tsr_problems *problems, tsr_claim *claims);

/* How keys and values are declared; fills precision->kv and kv_refused. */
void tsr_resolve_kv(const tsr_checkpoint *checkpoint, tsr_precision *precision);

/* "declared FP8 by model.layers.1.self_attn.q_proj", as it stands in a sentence. */
void tsr_claim_describe(const tsr_checkpoint *checkpoint, const tsr_claim *claim, size_t capacity,
                        char *ret_text);

#endif
