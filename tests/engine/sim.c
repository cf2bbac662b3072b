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
        ASSERT_STATUS(TSR_OK, tsr_rank_batch_open(&s->state[r].shape, &s->batch[r]));
        s->cache[r] = calloc((size_t)plan->limits.kv_blocks * (size_t)plan->limits.kv_block_tokens,
                             sizeof(int32_t));
        assert_non_null(s->cache[r]);
    }
}

void sim_close(sim *s)
{
    for (int32_t r = 0; r < s->plan.ranks; r++) {
        tsr_rank_state_close(&s->state[r]);
        tsr_rank_batch_close(&s->batch[r]);
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
            if (state->block_owner[i] >= 0)
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
        if (state->sequence[i].known > 0 && state->sequence[i].last_token >= 0 &&
            !mentions(step, (uint32_t)rank, (uint32_t)i))
            s->starved = true;
    }
}

/* Writes the batch's tokens into the cache; hash_of[row] is what the cache holds up to each row. */
static void compute(const sim *s, int32_t rank, uint64_t *hash_of)
{
    const tsr_batch *b = &s->batch[rank].batch;
    const int32_t block_tokens = s->plan.limits.kv_block_tokens;

    for (int32_t q = 0; q < b->sequences; q++) {
        const tsr_attention_sequence *seq = &b->sequence[q];
        const int32_t *blocks = b->blocks + seq->first_block;
        const int32_t end = seq->first_position + seq->rows;
        uint64_t h = 1;

        for (int32_t i = 0; i < seq->rows; i++) {
            const int32_t p = seq->first_position + i;
            assert_int_equal(p, b->position[seq->first_row + i]);
            s->cache[rank][blocks[p / block_tokens] * block_tokens + p % block_tokens] =
                b->token[seq->first_row + i];
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

static void sample(sim *s, int32_t rank, const uint64_t *hash_of)
{
    const tsr_rank_batch *b = &s->batch[rank];

    for (int32_t i = 0; i < b->sampled_count; i++) {
        const uint64_t hash = hash_of[b->logit_row[b->sampled[i].logit_row]];
        const int32_t token =
            token_of(hash, b->sampling[i].seed, b->sampling[i].output_index) % SIM_VOCAB;
        s->state[rank].sequence[b->sampled[i].slot].last_token = token;
        assert_in_range(s->rows, 0, SIM_ROWS - 1);
        s->row[s->rows++] = (tsr_token_row){.slot = (uint32_t)b->sampled[i].slot, .token = token};
    }
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
    const size_t bytes = tsr_step_plan_bytes(step->header->entries, step->header->blocks,
                                             step->header->admission_bytes);
    uint64_t hash_of[SIM_ROWS];

    s->rows = 0;
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
        ASSERT_STATUS(TSR_OK, tsr_rank_batch_fill(&s->batch[r], &s->state[r], &own));
        assert_in_range(s->batch[r].batch.tokens, 0, SIM_ROWS);
        compute(s, r, hash_of);
        sample(s, r, hash_of);
        score(s, r, &own, hash_of);
        free(copy);
    }
    s->stopped = (step->header->flags & TSR_STEP_STOP) != 0;
}
