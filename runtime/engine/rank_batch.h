/*
 * This rank's entries of a step as the model takes them, and which of its rows of logits become
 * tokens.
 *
 *   entries of the rank     | slot 1, 3 tokens, LOGITS | slot 4, 2 tokens | slot 6, 1 token |
 *   rows of the batch       |  0   1   2               |  3   4           |  5              |
 *   rows of logits          |  0   1   2               |      3  sampled  |  4  sampled     |
 */
#ifndef TSR_RUNTIME_ENGINE_RANK_BATCH_H
#define TSR_RUNTIME_ENGINE_RANK_BATCH_H

#include "runtime/engine/rank_state.h"
#include "runtime/model/model.h"

/* Rows of logits to sample from, one after the other. */
typedef struct tsr_sampled_row {
    int32_t logit_row; /* of the batch */
    int32_t slot;
} tsr_sampled_row;

typedef struct tsr_rank_batch {
    tsr_batch batch;                  /* views of what follows */
    int32_t *token;                   /* [max_batched_tokens] */
    int32_t *position;                /* [max_batched_tokens] */
    int32_t *blocks;                  /* [kv_blocks] */
    int32_t *logit_row;               /* [logit_rows] */
    tsr_sampled_row *sampled;         /* [sampled_count] */
    tsr_sample_row *sampling;         /* [sampled_count] */
    tsr_attention_sequence *sequence; /* [slots] */
    int32_t sampled_count;
} tsr_rank_batch;

/* Close with tsr_rank_batch_close. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_rank_batch_open(const tsr_step_shape *shape, tsr_rank_batch *ret_batch);

/*
 * Fills the batch from a step that tsr_rank_state_apply has accepted.
 *
 * TSR_ERR_MISMATCH, logged: more rows of logits than a step may have
 */
TSR_MUST_USE tsr_status tsr_rank_batch_fill(tsr_rank_batch *batch, const tsr_rank_state *state,
                                            const tsr_step_plan *step);

void tsr_rank_batch_close(tsr_rank_batch *batch);

#endif
