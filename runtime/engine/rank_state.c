/*
 * The sequences of one rank, moved on by steps. A step says what changes, never how things stand:
 *
 *   1  RELEASE slot 3            sequence[3].known = 0      one holder less for its blocks
 *   2  admission to slot 3       known = 12, sampled = 0    its ids wait for the batch
 *   3  tokens of slot 3, of 5    sampled++                  one holder more for its new blocks
 *
 * In this order, because one step may take a slot and its blocks from one sequence and give them to
 * another. What the coordinator has computed is checked here again: a rank that lost its place
 * would otherwise answer, with the wrong keys and values.
 */
#include "runtime/engine/rank_state.h"

#include "proto/admission.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* calloc, not an arena: pages of prompts that never come are never touched. */
static bool take_sequences(tsr_rank_state *s)
{
    const size_t slots = (size_t)s->shape.slots;
    const size_t tokens = (size_t)s->shape.max_model_len;
    const size_t blocks = (size_t)s->shape.sequence_blocks;

    s->sequence = calloc(slots, sizeof(*s->sequence));
    s->block = calloc((size_t)s->shape.kv_blocks, sizeof(*s->block));
    s->block_memory = calloc(slots * blocks, sizeof(*s->block_memory));
    s->prompt = calloc(slots, sizeof(*s->prompt));
    s->prompt_id = calloc((size_t)s->shape.prompt_ids, sizeof(*s->prompt_id));
    s->rules = calloc(slots, sizeof(*s->rules));
    s->arrived_tokens = calloc(tokens, sizeof(*s->arrived_tokens));
    s->arrived_rules = calloc(1, sizeof(*s->arrived_rules));
    if (s->sequence == NULL || s->block == NULL || s->block_memory == NULL || s->prompt == NULL ||
        s->prompt_id == NULL || s->rules == NULL || s->arrived_tokens == NULL ||
        s->arrived_rules == NULL)
        return false;

    for (size_t i = 0; i < slots; i++)
        s->sequence[i].blocks = s->block_memory + i * blocks;
    return true;
}

tsr_status tsr_rank_state_open(const tsr_plan *plan, int32_t rank, tsr_rank_state *ret_state)
{
    tsr_rank_state s = {.plan = plan, .rank = (uint32_t)rank};

    tsr_status st = tsr_step_shape_of(plan, &s.shape);
    if (st != TSR_OK)
        return st;
    st = tsr_step_state_open((uint32_t)s.shape.ranks, (uint32_t)s.shape.slots, &s.steps);
    if (st == TSR_OK && !take_sequences(&s))
        st = TSR_ERR_MEMORY;
    if (st != TSR_OK) {
        tsr_rank_state_close(&s);
        return st;
    }
    *ret_state = s;
    return TSR_OK;
}

void tsr_rank_state_close(tsr_rank_state *state)
{
    tsr_step_state_close(&state->steps);
    free(state->sequence);
    free(state->block);
    free(state->block_memory);
    free(state->prompt);
    free(state->prompt_id);
    free(state->rules);
    free(state->arrived_tokens);
    free(state->arrived_rules);
    *state = (tsr_rank_state){0};
}

tsr_step_bounds tsr_rank_state_bounds(const tsr_rank_state *state)
{
    return (tsr_step_bounds){
        .epoch = state->steps.epoch,
        .plan_digest = state->plan->digest,
        .state_digest = state->steps.digest,
        .rank = state->rank,
        .ranks = (uint32_t)state->shape.ranks,
        .max_num_seqs = (uint32_t)state->shape.slots,
        .max_batched_tokens = (uint32_t)state->shape.max_batched_tokens,
        .max_model_len = (uint32_t)state->shape.max_model_len,
        .kv_blocks = (uint32_t)state->shape.kv_blocks,
        .vocab = (uint32_t)state->shape.vocab,
    };
}

/* Says what is wrong with a slot; TSR_ERR_MISMATCH. */
static tsr_status disagree(const tsr_rank_state *s, uint32_t slot, const char *what)
{
    tsr_log(TSR_LOG_ERROR,
            "step %" PRIu64 " on rank %" PRIu32 ": slot %" PRIu32
            ": %s; the ranks no longer agree, start the job again",
            s->steps.epoch, s->rank, slot, what);
    return TSR_ERR_MISMATCH;
}

static tsr_status release(tsr_rank_state *s, const tsr_step_entry *e)
{
    tsr_sequence *q = &s->sequence[e->slot];

    if (q->known == 0)
        return disagree(s, e->slot, "released, but holds no sequence");
    for (int32_t i = 0; i < q->block_count; i++)
        s->block[q->blocks[i]].holders--;
    q->known = 0;
    q->block_count = 0;
    return TSR_OK;
}

static tsr_status admit_rules(tsr_rank_state *s, const tsr_admission *a)
{
    tsr_token_rules *rules = &s->rules[s->ruled++];

    if (tsr_rules_wrong(a->rules, tsr_rules_bytes(a->rules), s->plan->model.vocab) != NULL)
        return disagree(s, a->slot, "a request is admitted with rules that do not hold");
    memcpy(rules, a->rules, tsr_rules_bytes(a->rules));
    rules->slot = (int32_t)a->slot;
    return TSR_OK;
}

static tsr_status admit_sequence(tsr_rank_state *s, const tsr_admission *a)
{
    if (a->slot >= (uint32_t)s->shape.slots)
        return disagree(s, a->slot, "a request is admitted to a slot that does not exist");

    tsr_sequence *q = &s->sequence[a->slot];
    if (q->known != 0)
        return disagree(s, a->slot, "a request is admitted to a slot that holds another");
    for (uint32_t i = 0; i < a->token_count; i++) {
        if (a->tokens[i] >= s->plan->model.vocab)
            return disagree(s, a->slot, "a request is admitted with an id beyond the vocabulary");
    }
    if (a->token_count > (uint32_t)(s->shape.prompt_ids - s->prompt_ids))
        return disagree(s, a->slot, "a request is admitted beyond the ids that a step may bring");
    memcpy(s->prompt_id + s->prompt_ids, a->tokens, a->token_count * sizeof(*a->tokens));
    s->prompt_ids += (int32_t)a->token_count;
    s->prompt[s->prompts++] =
        (tsr_prompt){.slot = (int32_t)a->slot, .count = (int32_t)a->token_count};
    q->known = (int32_t)a->token_count;
    q->sampled = 0;
    q->sampling = (tsr_sample_row){.seed = a->seed,
                                   .temperature = a->temperature,
                                   .top_p = a->top_p,
                                   .min_p = a->min_p,
                                   .top_k = a->top_k,
                                   .flags = a->rules != NULL ? TSR_SAMPLE_RULED : 0};
    return a->rules != NULL ? admit_rules(s, a) : TSR_OK;
}

/* Every admission is read, so that one that is malformed is found by all ranks. */
static tsr_status admit_all(tsr_rank_state *s, const tsr_step_plan *step)
{
    tsr_admission_reader reader = {.bytes = step->admissions,
                                   .count = step->header->admission_bytes,
                                   .rules = s->arrived_rules};
    tsr_admission admission;
    bool more = true;
    tsr_status st = TSR_OK;

    s->prompts = 0;
    s->prompt_ids = 0;
    s->ruled = 0;
    while (st == TSR_OK && more) {
        st = tsr_admission_next(&reader, s->arrived_tokens, (uint32_t)s->shape.max_model_len,
                                &admission, &more);
        if (st == TSR_OK && more && admission.rank == s->rank)
            st = admit_sequence(s, &admission);
    }
    return st;
}

/* Leading blocks of an entry that hold what steps before this one have computed; all of these are full. */
static tsr_status check_shared(const tsr_rank_state *s, const tsr_step_plan *step,
                               const tsr_step_entry *e, uint32_t *ret_shared)
{
    const uint32_t block_tokens = (uint32_t)s->shape.block_tokens;
    const uint32_t shared = e->first_position / block_tokens;

    *ret_shared = 0;
    if ((e->flags & TSR_ENTRY_RESUME) == 0)
        return TSR_OK;
    if (s->sequence[e->slot].block_count > 0 || e->first_position % block_tokens != 0 ||
        shared > e->block_count)
        return disagree(s, e->slot, "it resumes where no block begins, or has begun before");
    for (uint32_t i = 0; i < shared; i++) {
        const tsr_rank_block *block = &s->block[step->block[e->first_block + i]];
        if (block->full_at == 0 || block->full_at == s->steps.epoch)
            return disagree(s, e->slot, "it resumes behind a block that no step has filled");
    }
    *ret_shared = shared;
    return TSR_OK;
}

/* Blocks that the entry's positions fill can be shared from the next step on. */
static void note_full(tsr_rank_state *s, const tsr_step_entry *e)
{
    const tsr_sequence *q = &s->sequence[e->slot];
    const int32_t block_tokens = s->shape.block_tokens;
    const int32_t end = (int32_t)(e->first_position + e->tokens) / block_tokens;

    for (int32_t i = (int32_t)e->first_position / block_tokens; i < end; i++)
        s->block[q->blocks[i]].full_at = s->steps.epoch;
}

/* New blocks of an entry, which then cover exactly its positions. */
static tsr_status add_blocks(tsr_rank_state *s, const tsr_step_plan *step, const tsr_step_entry *e)
{
    tsr_sequence *q = &s->sequence[e->slot];
    const int32_t end = (int32_t)(e->first_position + e->tokens);
    uint32_t shared = 0;

    const tsr_status st = check_shared(s, step, e, &shared);
    if (st != TSR_OK)
        return st;

    if (e->block_count > (uint32_t)(s->shape.sequence_blocks - q->block_count))
        return disagree(s, e->slot, "it is given more blocks than a sequence may have");
    for (uint32_t i = 0; i < e->block_count; i++) {
        const uint32_t block = step->block[e->first_block + i];
        if (i >= shared && s->block[block].holders > 0)
            return disagree(s, e->slot, "it is given a block that a sequence holds");
        if (i >= shared)
            s->block[block].full_at = 0;
        s->block[block].holders++;
        q->blocks[q->block_count++] = (int32_t)block;
    }
    if (q->block_count != tsr_pieces(end, s->shape.block_tokens))
        return disagree(s, e->slot, "its blocks are not those that its positions take");
    note_full(s, e);
    return TSR_OK;
}

/* Whether the text here holds the tokens that an entry computes by the time it is computed: of the
 * prompt, or the one that a step before this samples. */
static tsr_status check_tokens(const tsr_rank_state *s, const tsr_step_entry *e)
{
    const tsr_sequence *q = &s->sequence[e->slot];
    const uint32_t end = e->first_position + e->tokens;
    const uint32_t known = (uint32_t)q->known;

    if (known == 0)
        return disagree(s, e->slot, "it is given tokens, but holds no sequence");
    if (end > known &&
        (e->first_position < known || e->tokens != 1 || end > known + (uint32_t)q->sampled))
        return disagree(s, e->slot, "it is given positions whose tokens are not known here");
    if ((e->flags & TSR_ENTRY_SAMPLE) != 0 && end < known)
        return disagree(s, e->slot, "a token is sampled inside its prompt");
    if ((e->flags & TSR_ENTRY_SCORE) != 0 && end > known)
        return disagree(s, e->slot, "positions behind its prompt are scored");
    return TSR_OK;
}

tsr_status tsr_rank_state_apply(tsr_rank_state *state, const tsr_step_plan *step)
{
    tsr_status st = TSR_OK;

    for (uint32_t i = 0; i < step->header->entries && st == TSR_OK; i++) {
        const tsr_step_entry *e = &step->entry[i];
        if (e->rank == state->rank && !tsr_step_entry_computes(e))
            st = release(state, e);
    }
    if (st == TSR_OK)
        st = admit_all(state, step);
    for (uint32_t i = 0; i < step->header->entries && st == TSR_OK; i++) {
        const tsr_step_entry *e = &step->entry[i];
        if (e->rank != state->rank || !tsr_step_entry_computes(e))
            continue;
        st = check_tokens(state, e);
        if (st == TSR_OK)
            st = add_blocks(state, step, e);
        if ((e->flags & TSR_ENTRY_SAMPLE) != 0)
            state->sequence[e->slot].sampled++;
    }
    if (st == TSR_OK)
        st = tsr_step_state_apply(&state->steps, step, state->rank);
    return st;
}
