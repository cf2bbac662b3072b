/*
 * This rank's entries of a step as the model takes them.
 *
 *   entries of the rank     | slot 1, 3 tokens, LOGITS | slot 4, 2 tokens | slot 6, 1 token |
 *   rows of the batch       |  0   1   2               |  3   4           |  5              |
 *   rows of logits          |  0   1   2               |      3  sampled  |  4  sampled     |
 *
 * Counted first, so that the batch can be laid out in one piece, then filled.
 */
#ifndef TSR_RUNTIME_ENGINE_RANK_BATCH_H
#define TSR_RUNTIME_ENGINE_RANK_BATCH_H

#include "runtime/engine/rank_state.h"
#include "runtime/plan/batch.h"

/*
 * Of a step that tsr_rank_state_apply has accepted, as the last one.
 *
 * TSR_ERR_MISMATCH, logged: more rows of logits or masks than a step may have
 */
TSR_MUST_USE tsr_status tsr_rank_batch_count(const tsr_rank_state *state, const tsr_step_plan *step,
                                             tsr_batch_sizes *ret_count);

/* Fills a batch that was laid out for these counts. */
void tsr_rank_batch_fill(const tsr_rank_state *state, const tsr_step_plan *step, tsr_batch *batch);

#endif
