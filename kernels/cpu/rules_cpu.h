/* Rules of a request, followed on a row of logits. */
#ifndef TSR_KERNELS_CPU_RULES_CPU_H
#define TSR_KERNELS_CPU_RULES_CPU_H

#include "runtime/base/token_rules.h"

/* Rules out every id whose bit is not in the mask. */
void tsr_keep_masked(const uint32_t *mask, float *x, int32_t count);

/*
 * Bends x as token_rules.h says; what is ruled out becomes -FLT_MAX, and nothing else does. Ids from
 * `count` on are passed over.
 *
 *   text  [position] prompt and outputs before the token that is to come
 *   seen  [count] scratch
 */
void tsr_bend(const tsr_token_rules *rules, const int32_t *text, int32_t position, float *x,
              int32_t count, int32_t *seen);

#endif
