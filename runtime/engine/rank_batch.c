/* A rank's entries of a step, as the model takes them: rows of tokens by slot and position, block
 * tables, and which rows of logits become tokens. */
#include "runtime/engine/rank_batch.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <string.h>

static bool is_own(const tsr_rank_state *state, const tsr_step_entry *e)
{
    return e->rank == state->rank && tsr_step_entry_computes(e);
}

static bool is_bent(const tsr_sample_row *sampling)
{
    return (sampling->flags & TSR_SAMPLE_RULED) != 0 || sampling->min_p > 0.0F;
}

tsr_status tsr_rank_batch_count(const tsr_rank_state *state, const tsr_step_plan *step,
                                tsr_batch_sizes *ret_count)
{
    tsr_batch_sizes n = {
        .prompts = state->prompts, .prompt_ids = state->prompt_ids, .rules = state->ruled};

    for (uint32_t i = 0; i < step->header->entries; i++) {
        const tsr_step_entry *e = &step->entry[i];
        if (!is_own(state, e))
            continue;
        n.sequences++;
        n.tokens += (int32_t)e->tokens;
        n.blocks += state->sequence[e->slot].block_count;
        n.logit_rows += (int32_t)tsr_step_entry_logit_rows(e);
        n.samples += (int32_t)tsr_entry_results(e->flags, e->tokens);
        n.tops += (int32_t)tsr_entry_tops(e->flags, e->tokens);
        n.masks += (e->flags & TSR_ENTRY_MASKED) != 0;
        n.bent +=
            (e->flags & TSR_ENTRY_MASKED) != 0 ||
            ((e->flags & TSR_ENTRY_SAMPLE) != 0 && is_bent(&state->sequence[e->slot].sampling));
    }
    n.mask_words = n.masks > 0 ? tsr_mask_words(state->shape.vocab) : 0;
    if (n.logit_rows > state->shape.logit_rows || n.masks > state->shape.masks) {
        tsr_log(TSR_LOG_ERROR,
                "step %" PRIu64 " on rank %" PRIu32 ": it asks for more than %d rows of logits or "
                "%d masks; the ranks no longer agree, start the job again",
                step->header->epoch, state->rank, state->shape.logit_rows, state->shape.masks);
        return TSR_ERR_MISMATCH;
    }
    *ret_count = n;
    return TSR_OK;
}

/* Appends an entry's rows, its sequence and its block table; `n` counts what is there so far. */
static void add_rows(const tsr_rank_state *state, const tsr_step_entry *e, tsr_batch *b,
                     tsr_batch_sizes *n)
{
    const tsr_sequence *q = &state->sequence[e->slot];

    for (int32_t i = 0; i < (int32_t)e->tokens; i++) {
        b->slot[n->tokens + i] = (int32_t)e->slot;
        b->position[n->tokens + i] = (int32_t)e->first_position + i;
    }
    b->sequence[n->sequences++] =
        (tsr_attention_sequence){.first_row = n->tokens,
                                 .rows = (int32_t)e->tokens,
                                 .first_position = (int32_t)e->first_position,
                                 .first_block = n->blocks};
    memcpy(b->blocks + n->blocks, q->blocks, (size_t)q->block_count * sizeof(*b->blocks));
    n->blocks += q->block_count;
    n->tokens += (int32_t)e->tokens;
}

/* A sample of the slot from this row of logits; its place in the text is the caller's. */
static tsr_sample_row *add_sample(tsr_sample_row sample, uint32_t top_count, tsr_batch *b,
                                  tsr_batch_sizes *n)
{
    tsr_sample_row *added = &b->sample[n->samples++];

    sample.top_count = (int32_t)top_count;
    sample.first_top = n->tops;
    n->tops += sample.top_count;
    *added = sample;
    return added;
}

/* Rows whose next token the prompt has; behind a prompt that is not sampled there is none. */
static void add_scores(const tsr_rank_state *state, const tsr_step_entry *e, tsr_batch *b,
                       tsr_batch_sizes *n)
{
    const bool sampled = (e->flags & TSR_ENTRY_SAMPLE) != 0;
    const int32_t known = state->sequence[e->slot].known;

    for (int32_t i = 0; i < (int32_t)e->tokens - (sampled ? 1 : 0); i++) {
        const int32_t next = (int32_t)e->first_position + i + 1;
        const tsr_sample_row row = {
            .logit_row = n->logit_rows - (int32_t)e->tokens + i,
            .slot = (int32_t)e->slot,
            .position = next < known ? next : -1,
            .flags = TSR_SAMPLE_FORCED,
        };
        (void)add_sample(row, tsr_entry_score_top(e->flags), b, n);
    }
}

/* A mask as the step has it, as bits. */
static void add_mask(const uint32_t *mask, tsr_sample_row *sample, tsr_batch *b, tsr_batch_sizes *n)
{
    const size_t words = (size_t)b->count.mask_words;
    uint32_t *bits = b->mask + (size_t)n->masks * words;

    sample->flags |= TSR_SAMPLE_MASKED;
    sample->mask = n->masks++;
    if (mask[0] == TSR_MASK_BITS) {
        memcpy(bits, mask + 1, words * sizeof(*bits));
        return;
    }
    memset(bits, 0, words * sizeof(*bits));
    for (uint32_t i = 1; i <= mask[0]; i++)
        bits[mask[i] / 32] |= 1U << (mask[i] % 32);
}

/* The entry's rows are the last of the batch so far. */
static void add_logits(const tsr_rank_state *state, const tsr_step_entry *e, const uint32_t *mask,
                       tsr_batch *b, tsr_batch_sizes *n)
{
    const int32_t rows = (int32_t)tsr_step_entry_logit_rows(e);

    for (int32_t i = 0; i < rows; i++)
        b->logit_row[n->logit_rows++] = n->tokens - rows + i;
    if ((e->flags & TSR_ENTRY_SCORE) != 0)
        add_scores(state, e, b, n);
    if ((e->flags & TSR_ENTRY_SAMPLE) == 0)
        return;

    tsr_sample_row *sample =
        add_sample(state->sequence[e->slot].sampling, tsr_entry_top(e->flags), b, n);
    sample->output_index = e->output_index;
    sample->logit_row = n->logit_rows - 1;
    sample->slot = (int32_t)e->slot;
    sample->position = (int32_t)(e->first_position + e->tokens);
    if ((e->flags & TSR_ENTRY_MASKED) != 0)
        add_mask(mask, sample, b, n);
}

void tsr_rank_batch_fill(const tsr_rank_state *state, const tsr_step_plan *step, tsr_batch *batch)
{
    const uint32_t *mask = step->mask;
    tsr_batch_sizes n = {0};

    for (uint32_t i = 0; i < step->header->entries; i++) {
        const tsr_step_entry *e = &step->entry[i];
        if (is_own(state, e)) {
            add_rows(state, e, batch, &n);
            add_logits(state, e, mask, batch, &n);
        }
        if ((e->flags & TSR_ENTRY_MASKED) != 0)
            mask += tsr_mask_length(mask, (uint32_t)state->shape.vocab);
    }
    memcpy(batch->prompt, state->prompt, (size_t)state->prompts * sizeof(*batch->prompt));
    memcpy(batch->prompt_id, state->prompt_id,
           (size_t)state->prompt_ids * sizeof(*batch->prompt_id));
    for (int32_t i = 0; i < state->ruled; i++)
        memcpy(&batch->rules[i], &state->rules[i], tsr_rules_bytes(&state->rules[i]));
}
