/* Ranks without a model. */
#include "tests/test.h"

#include "tests/engine/sim.h"

#include <stdlib.h>
#include <string.h>

tsr_plan sim_plan(int32_t ranks, const tsr_engine_limits *limits)
{
    return (tsr_plan){.model = {.vocab = SIM_VOCAB, .eos = {0}, .eos_count = 1},
                      .limits = *limits,
                      .ranks = ranks,
                      .digest = 0x5151};
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15U;
    return h ^ (h >> 29);
}

uint64_t sim_hash(const int32_t *tokens, int32_t count)
{
    uint64_t h = 1;
    for (int32_t i = 0; i < count; i++)
        h = mix(h, (uint64_t)tokens[i] + 1);
    return h;
}

static int32_t token_of(uint64_t hash, uint64_t seed, uint64_t output_index)
{
    return (int32_t)(mix(mix(hash, seed), output_index) >> 8) & 0x7fffffff;
}

int32_t sim_next_token(const int32_t *tokens, int32_t count, uint64_t seed, uint64_t output_index)
{
    return token_of(sim_hash(tokens, count), seed, output_index) % SIM_VOCAB;
}

void sim_open(sim *s, const tsr_plan *plan)
{
    memset(s, 0, sizeof(*s));
    s->plan = *plan;
    for (int32_t r = 0; r < plan->ranks; r++) {
        ASSERT_STATUS(TSR_OK, tsr_rank_state_open(&s->plan, r, &s->state[r]));
        s->text[r] = calloc((size_t)plan->limits.max_num_seqs * (size_t)plan->limits.max_model_len,
                            sizeof(int32_t));
        assert_non_null(s->text[r]);
        s->cache[r] = calloc((size_t)plan->limits.kv_blocks * (size_t)plan->limits.kv_block_tokens,
                             sizeof(int32_t));
        assert_non_null(s->cache[r]);
    }
}

void sim_close(sim *s)
{
    for (int32_t r = 0; r < s->plan.ranks; r++) {
        tsr_rank_state_close(&s->state[r]);
        free(s->text[r]);
        free(s->cache[r]);
    }
}

bool sim_empty(const sim *s)
{
    for (int32_t r = 0; r < s->plan.ranks; r++) {
        const tsr_rank_state *state = &s->state[r];
        for (int32_t i = 0; i < state->shape.slots; i++) {
            if (state->sequence[i].known != 0)
                return false;
        }
        for (int32_t i = 0; i < state->shape.kv_blocks; i++) {
            if (state->block[i].holders != 0)
                return false;
        }
    }
    return true;
}

/* True when the step says anything about a sequence. */
static bool mentions(const tsr_step_plan *step, uint32_t rank, uint32_t slot)
{
    for (uint32_t i = 0; i < step->header->entries; i++) {
        if (step->entry[i].rank == rank && step->entry[i].slot == slot)
            return true;
    }
    return false;
}

/* A sequence that has sampled and is not mentioned waits although it could go on. */
static void note_starved(sim *s, int32_t rank, const tsr_step_plan *step)
{
    const tsr_rank_state *state = &s->state[rank];
    for (int32_t i = 0; i < state->shape.slots; i++) {
        if (state->sequence[i].known > 0 && state->sequence[i].sampled > 0 &&
            !mentions(step, (uint32_t)rank, (uint32_t)i))
            s->starved = true;
    }
}

static int32_t *text_of(const sim *s, int32_t rank, int32_t slot)
{
    return s->text[rank] + (size_t)slot * (size_t)s->plan.limits.max_model_len;
}

static void write_prompts(const sim *s, int32_t rank, const tsr_batch *b)
{
    const int32_t *ids = b->prompt_id;

    for (int32_t i = 0; i < b->count.prompts; i++) {
        const int32_t count = b->prompt[i].count;
        memcpy(text_of(s, rank, b->prompt[i].slot), ids, (size_t)count * sizeof(*ids));
        ids += count;
    }
}

/* Writes the batch's tokens into the cache; hash_of[row] is what the cache holds up to each row. */
static void compute(const sim *s, int32_t rank, const tsr_batch *b, uint64_t *hash_of)
{
    const int32_t block_tokens = s->plan.limits.kv_block_tokens;

    for (int32_t q = 0; q < b->count.sequences; q++) {
        const tsr_attention_sequence *seq = &b->sequence[q];
        const int32_t *blocks = b->blocks + seq->first_block;
        const int32_t end = seq->first_position + seq->rows;
        uint64_t h = 1;

        for (int32_t i = 0; i < seq->rows; i++) {
            const int32_t p = seq->first_position + i;
            const int32_t row = seq->first_row + i;
            assert_int_equal(p, b->position[row]);
            s->cache[rank][blocks[p / block_tokens] * block_tokens + p % block_tokens] =
                text_of(s, rank, b->slot[row])[p];
        }
        for (int32_t p = 0; p < end; p++) {
            h = mix(h, (uint64_t)s->cache[rank][blocks[p / block_tokens] * block_tokens +
                                                p % block_tokens] +
                           1);
            if (p >= seq->first_position)
                hash_of[seq->first_row + p - seq->first_position] = h;
        }
    }
}

float sim_logprob(uint64_t hash)
{
    return -(float)(hash >> 40);
}

tsr_token_logprob sim_top(uint64_t hash, int32_t n)
{
    const tsr_token_logprob top = {(int32_t)(mix(hash, (uint64_t)n) >> 8) % SIM_VOCAB,
                                   sim_logprob(hash) - (float)n};
    return top;
}

/* The token of a row: drawn, or the one that stands there. */
static int32_t token_of_row(const sim *s, int32_t rank, const tsr_sample_row *row, uint64_t hash)
{
    const bool written = row->position >= 0 && row->position < s->plan.limits.max_model_len;
    int32_t *text = text_of(s, rank, row->slot);

    if ((row->flags & TSR_SAMPLE_FORCED) != 0)
        return written ? text[row->position] : TSR_NO_TOKEN;
    const int32_t token = token_of(hash, row->seed, row->output_index) % SIM_VOCAB;
    if (written)
        text[row->position] = token;
    return token;
}

static void sample(sim *s, int32_t rank, const tsr_batch *b, const uint64_t *hash_of)
{
    const uint32_t first_top = s->tops;

    for (int32_t i = 0; i < b->count.samples; i++) {
        const tsr_sample_row *row = &b->sample[i];
        const uint64_t hash = hash_of[b->logit_row[row->logit_row]];

        assert_in_range(s->rows, 0, SIM_ROWS - 1);
        s->row[s->rows++] = (tsr_token_row){.slot = (uint32_t)row->slot,
                                            .token = token_of_row(s, rank, row, hash),
                                            .logprob = sim_logprob(hash)};
        assert_int_equal(s->tops, first_top + (uint32_t)row->first_top);
        for (int32_t n = 0; n < row->top_count; n++)
            s->top[s->tops++] = sim_top(hash, n);
    }
    assert_int_equal(b->count.tops, s->tops - first_top);
}

tsr_status sim_absorb(tsr_scheduler *scheduler, const tsr_token_row *rows, uint32_t count,
                      tsr_absorbed *ret_absorbed)
{
    const tsr_step_results results = {.row = rows, .rows = count};
    return tsr_scheduler_absorb(scheduler, &results, 0, ret_absorbed);
}

tsr_step_results sim_results(const sim *s)
{
    return (tsr_step_results){.row = s->row, .top = s->top, .rows = s->rows, .tops = s->tops};
}

/* This rank's share of the step, in memory of the test's own. */
static void follow_batch(sim *s, int32_t rank, const tsr_step_plan *step, uint64_t *hash_of)
{
    tsr_batch_sizes count;

    ASSERT_STATUS(TSR_OK, tsr_rank_batch_count(&s->state[rank], step, &count));
    void *image = aligned_alloc(64, tsr_batch_bytes(&count) + 64);
    assert_non_null(image);
    assert_in_range(count.tokens, 0, SIM_ROWS);
    tsr_batch batch = tsr_batch_over(image, &count);
    tsr_rank_batch_fill(&s->state[rank], step, &batch);
    write_prompts(s, rank, &batch);
    compute(s, rank, &batch, hash_of);
    sample(s, rank, &batch, hash_of);
    free(image);
}

static void score(sim *s, int32_t rank, const tsr_step_plan *step, const uint64_t *hash_of)
{
    int32_t row = 0;

    for (uint32_t i = 0; i < step->header->entries; i++) {
        const tsr_step_entry *e = &step->entry[i];
        if (e->rank != (uint32_t)rank)
            continue;
        for (uint32_t t = 0; t < e->tokens && (e->flags & TSR_ENTRY_LOGITS) != 0; t++) {
            assert_in_range(s->scores, 0, SIM_ROWS - 1);
            s->score[s->scores++] = (sim_score){.entry = i,
                                                .position = (int32_t)(e->first_position + t),
                                                .hash = hash_of[row + (int32_t)t]};
        }
        row += (int32_t)e->tokens;
    }
}

void sim_follow(sim *s, const tsr_step_plan *step)
{
    const tsr_step_counts counts = tsr_step_counts_of(step->header);
    const size_t bytes = tsr_step_plan_bytes(&counts);
    uint64_t hash_of[SIM_ROWS];

    s->rows = 0;
    s->tops = 0;
    s->scores = 0;
    for (int32_t r = 0; r < s->plan.ranks; r++) {
        const tsr_step_bounds bounds = tsr_rank_state_bounds(&s->state[r]);
        tsr_step_plan own;
        void *copy = malloc(bytes);

        assert_non_null(copy);
        memcpy(copy, step->header, bytes);
        note_starved(s, r, step);
        ASSERT_STATUS(TSR_OK, tsr_step_plan_open(copy, bytes, &bounds, &own));
        ASSERT_STATUS(TSR_OK, tsr_rank_state_apply(&s->state[r], &own));
        follow_batch(s, r, &own, hash_of);
        score(s, r, &own, hash_of);
        free(copy);
    }
    s->stopped = (step->header->flags & TSR_STEP_STOP) != 0;
}
