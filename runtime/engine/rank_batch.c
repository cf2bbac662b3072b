/* A rank's entries of a step, as the model takes them. */
#include "runtime/engine/rank_batch.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

tsr_status tsr_rank_batch_open(const tsr_step_shape *shape, tsr_rank_batch *ret_batch)
{
    const size_t tokens = (size_t)shape->max_batched_tokens;
    const size_t slots = (size_t)shape->slots;
    tsr_rank_batch b = {
        .token = calloc(tokens, sizeof(*b.token)),
        .position = calloc(tokens, sizeof(*b.position)),
        .blocks = calloc((size_t)shape->kv_blocks, sizeof(*b.blocks)),
        .logit_row = calloc((size_t)shape->logit_rows, sizeof(*b.logit_row)),
        .sampled = calloc(slots, sizeof(*b.sampled)),
        .sampling = calloc(slots, sizeof(*b.sampling)),
        .sequence = calloc(slots, sizeof(*b.sequence)),
    };
    if (b.token == NULL || b.position == NULL || b.blocks == NULL || b.logit_row == NULL ||
        b.sampled == NULL || b.sampling == NULL || b.sequence == NULL) {
        tsr_rank_batch_close(&b);
        return TSR_ERR_MEMORY;
    }
    *ret_batch = b;
    return TSR_OK;
}

void tsr_rank_batch_close(tsr_rank_batch *batch)
{
    free(batch->token);
    free(batch->position);
    free(batch->blocks);
    free(batch->logit_row);
    free(batch->sampled);
    free(batch->sampling);
    free(batch->sequence);
    *batch = (tsr_rank_batch){0};
}

static void add_rows(tsr_rank_batch *b, const tsr_sequence *q, const tsr_step_entry *e)
{
    for (uint32_t i = 0; i < e->tokens; i++) {
        const int32_t position = (int32_t)(e->first_position + i);
        const int32_t row = b->batch.tokens + (int32_t)i;
        b->token[row] = position < q->known ? q->tokens[position] : q->last_token;
        b->position[row] = position;
    }
    b->sequence[b->batch.sequences++] =
        (tsr_attention_sequence){.first_row = b->batch.tokens,
                                 .rows = (int32_t)e->tokens,
                                 .first_position = (int32_t)e->first_position,
                                 .first_block = b->batch.block_count};
    memcpy(b->blocks + b->batch.block_count, q->blocks,
           (size_t)q->block_count * sizeof(*b->blocks));
    b->batch.block_count += q->block_count;
    b->batch.tokens += (int32_t)e->tokens;
}

/* The entry's rows are the last of the batch so far. */
static void add_logits(tsr_rank_batch *b, const tsr_sequence *q, const tsr_step_entry *e)
{
    const int32_t rows = (int32_t)tsr_step_entry_logit_rows(e);

    for (int32_t i = 0; i < rows; i++)
        b->logit_row[b->batch.logit_rows++] = b->batch.tokens - rows + i;
    if ((e->flags & TSR_ENTRY_SAMPLE) == 0)
        return;

    tsr_sample_row *sampling = &b->sampling[b->sampled_count];
    *sampling = q->sampling;
    sampling->output_index = e->output_index;
    b->sampled[b->sampled_count++] =
        (tsr_sampled_row){.logit_row = b->batch.logit_rows - 1, .slot = (int32_t)e->slot};
}

tsr_status tsr_rank_batch_fill(tsr_rank_batch *batch, const tsr_rank_state *state,
                               const tsr_step_plan *step)
{
    batch->batch = (tsr_batch){.token = batch->token,
                               .position = batch->position,
                               .sequence = batch->sequence,
                               .blocks = batch->blocks,
                               .logit_row = batch->logit_row,
                               .max_rank_tokens = (int32_t)step->header->max_rank_tokens,
                               .epoch = step->header->epoch};
    batch->sampled_count = 0;
    for (uint32_t i = 0; i < step->header->entries; i++) {
        const tsr_step_entry *e = &step->entry[i];
        if (e->rank != state->rank || !tsr_step_entry_computes(e))
            continue;

        const uint32_t left = (uint32_t)(state->shape.logit_rows - batch->batch.logit_rows);
        if (tsr_step_entry_logit_rows(e) > left) {
            tsr_log(TSR_LOG_ERROR,
                    "step %" PRIu64 " on rank %" PRIu32 ": it asks for more than %d rows of "
                    "logits; the ranks no longer agree, start the job again",
                    step->header->epoch, state->rank, state->shape.logit_rows);
            return TSR_ERR_MISMATCH;
        }
        const tsr_sequence *q = &state->sequence[e->slot];
        add_rows(batch, q, e);
        add_logits(batch, q, e);
    }
    return TSR_OK;
}
