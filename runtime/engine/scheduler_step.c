/*
 * The next step: who computes what, then the plan that says so.
 *
 *   decide   every running sequence that generates   1 token each     may take others' blocks
 *            the queue, in its order                 none yet         where the prompt fits
 *            prompts under way, shortest first       what is left     of free blocks
 *   lay out  releases and entries by rank and slot, new block ids, admissions
 *
 * Nothing here asks which token came out, so that a step is planned while the last one computes:
 *
 *   prompt of 5    planned: length 5, sampled 1    back: token_count 5      step n samples
 *                  planned: length 6, sampled 2    back: token_count 5      step n+1, on the way
 *                  planned: length 6, sampled 2    back: token_count 6      step n has come back
 *
 * A prompt takes what is left, never the token that another sequence is due in this step. Of prompts the
 * one with the least to compute goes first, so that a short one need not wait for a long one; but half of
 * what is left is the oldest's, which so is never held up for long. The order of entries is the order in which all ranks' tokens and logits come back.
 */
#include "proto/admission.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/engine/prefix.h"
#include "runtime/engine/scheduler_state.h"

#include <inttypes.h>
#include <string.h>

/* What a running sequence is taken to compute beside a new one, in tokens: what must be spared for a
 * request to go where more of them run. */
enum { SEQUENCE_TOKENS = 256 };

/* Blocks it must be given to reach `positions`. */
static int32_t missing_blocks(const tsr_scheduler *s, const tsr_live *live, int32_t positions)
{
    return tsr_pieces(positions, s->shape.block_tokens) - live->block_count;
}

/* True while every position of its prompt takes a row of logits. */
static bool scores(const tsr_live *live)
{
    return live->want_logits || (live->score_prompt && live->scored < live->prompt_tokens);
}

static uint32_t score_flags(const tsr_live *live)
{
    return TSR_ENTRY_SCORE | (uint32_t)live->score_top << TSR_ENTRY_SCORE_TOP_SHIFT;
}

/* Its first entry names all blocks it has, those it shares too. */
static void begin(tsr_scheduler *s, tsr_live *live)
{
    const bool again = live->begun_before;

    live->begun = true;
    live->begun_before = true;
    live->step.blocks = live->block_count;
    if (live->length > 0) {
        live->step.flags = TSR_ENTRY_RESUME;
        s->shared_left -= live->known;
    }
    if (again || !tsr_prefix_allowed(s, live))
        return;
    live->cached_tokens = tsr_smaller(live->length, live->prompt_tokens);
    s->stats.prefix_queries += (uint64_t)live->token_count;
    s->stats.prefix_hits += (uint64_t)live->length;
}

/* Gives `tokens` positions of this step to a running request, for which its rank has blocks. */
static void give_tokens(tsr_scheduler *s, tsr_live *live, int32_t tokens)
{
    tsr_rank_load *load = &s->load[live->rank];
    const int32_t first = live->length;
    const int32_t blocks = missing_blocks(s, live, first + tokens);
    int32_t rows = 0;

    if (!live->begun)
        begin(s, live);
    if (blocks > 0 && tsr_kv_blocks_take(&load->blocks, blocks, live->blocks + live->block_count)) {
        live->block_count += blocks;
        live->step.blocks += blocks;
    }
    live->length += tokens;
    live->step.tokens = tokens;
    if (scores(live) && first >= live->scored) {
        live->step.flags |= live->want_logits ? TSR_ENTRY_LOGITS : score_flags(live);
        live->scored = live->length;
        rows = tokens;
    }
    if (live->max_tokens > 0 && live->length >= live->goal) {
        live->step.flags |= TSR_ENTRY_SAMPLE | (uint32_t)live->top << TSR_ENTRY_TOP_SHIFT;
        if (live->guide != NULL && !live->is_free)
            live->step.flags |= TSR_ENTRY_MASKED;
        live->sampled++;
        rows = tsr_larger(rows, 1);
    }
    load->tokens_left -= tokens;
    load->rows_left -= rows;
}

/* Takes the blocks of the last on this rank, by priority and admission; it will run again. */
static void preempt_last(tsr_scheduler *s, tsr_rank_load *load)
{
    tsr_live *live = load->running.last;

    tsr_scheduler_detach(s, live);
    live->state = TSR_LIVE_WAITING;
    tsr_live_list_insert(&s->queue, live);
    load->preempted = true;
    s->stats.preemptions++;
}

/* True when its prompt is through and another token is to come. */
static bool generates(const tsr_live *live)
{
    return live->length >= live->goal && live->sampled < live->max_tokens &&
           !tsr_live_awaits_token(live);
}

/* Those who lose their blocks come later, so they have no tokens of this step yet. */
static void decide_decode(tsr_scheduler *s, tsr_rank_load *load)
{
    tsr_live *next;

    for (tsr_live *live = load->running.first; live != NULL; live = next) {
        const int32_t missing = generates(live) ? missing_blocks(s, live, live->length + 1) : 0;
        while (live->state == TSR_LIVE_RUNNING && missing > load->blocks.count)
            preempt_last(s, load);
        if (live->state != TSR_LIVE_RUNNING)
            return; /* it was the last itself */
        if (generates(live))
            give_tokens(s, live, 1);
        next = live->next;
    }
}

/* Tokens of its prompt that there is room for, of `most`. */
static int32_t chunk_of(const tsr_scheduler *s, const tsr_live *live, int32_t most)
{
    const tsr_rank_load *load = &s->load[live->rank];
    const int64_t held = ((int64_t)live->block_count + load->blocks.count) * s->shape.block_tokens;
    const int32_t remaining = live->goal - live->length;
    int32_t chunk = tsr_smaller(remaining, most);

    if (s->options.prefill_chunk > 0)
        chunk = tsr_smaller(chunk, s->options.prefill_chunk);
    if (chunk > held - live->length)
        chunk = (int32_t)(held - live->length);
    /* Rows that were sent before it lost its blocks are not sent again. */
    if (scores(live) && live->length < live->scored)
        return tsr_smaller(chunk, live->scored - live->length);
    if (scores(live))
        return tsr_smaller(tsr_smaller(chunk, live->prompt_tokens - live->length), load->rows_left);
    if (live->max_tokens == 0)
        return chunk;
    /* The last token of a prompt is sampled, which takes a row; without one it waits. */
    return chunk == remaining && load->rows_left == 0 ? chunk - 1 : chunk;
}

static int32_t remaining_of(const tsr_live *live)
{
    return live->goal - live->length;
}

/* Prompts under way on a rank, by priority, then by what they have yet to compute; those that have not
 * begun now hold what they may. Returns how many. */
static int32_t collect_prompts(tsr_scheduler *s, tsr_rank_load *load)
{
    int32_t count = 0;

    for (tsr_live *live = load->running.first; live != NULL; live = live->next) {
        if (live->length >= live->goal)
            continue;
        if (!live->begun)
            tsr_prefix_take(s, live);
        int32_t at = count++;
        for (; at > 0 && load->prompts[at - 1]->priority == live->priority &&
               remaining_of(load->prompts[at - 1]) > remaining_of(live);
             at--)
            load->prompts[at] = load->prompts[at - 1];
        load->prompts[at] = live;
    }
    return count;
}

/* True when a prompt has to wait for another step. */
static bool waits(const tsr_scheduler *s, const tsr_live *live)
{
    return !live->begun && (live->known > s->shared_left || tsr_prefix_waits(s, live));
}

/* The prompt that has been on a rank for the longest, NULL when there is none that can go on. */
static const tsr_live *oldest_prompt(const tsr_scheduler *s, const tsr_rank_load *load)
{
    const tsr_live *live = load->running.first;

    while (live != NULL && (live->length >= live->goal || waits(s, live)))
        live = live->next;
    return live;
}

static void decide_prompts(tsr_scheduler *s, tsr_rank_load *load)
{
    const int32_t count = collect_prompts(s, load);
    const tsr_live *oldest = oldest_prompt(s, load);
    int32_t kept = oldest != NULL ? chunk_of(s, oldest, (load->tokens_left + 1) / 2) : 0;

    for (int32_t i = 0; i < count; i++) {
        tsr_live *live = load->prompts[i];
        kept = live == oldest ? 0 : kept;
        const int32_t chunk = waits(s, live) ? 0 : chunk_of(s, live, load->tokens_left - kept);
        if (chunk > 0)
            give_tokens(s, live, chunk);
    }
}

/* Blocks that prompts under way on a rank have yet to take. */
static int32_t promised_blocks(const tsr_scheduler *s, const tsr_rank_load *load)
{
    int32_t blocks = 0;
    for (const tsr_live *live = load->running.first; live != NULL; live = live->next) {
        if (live->length < live->goal)
            blocks += missing_blocks(s, live, live->goal);
    }
    return blocks;
}

/* What a request would meet on a rank. */
typedef struct rank_fit {
    int64_t cost; /* in tokens: of the others' steps, less those that it need not compute */
    int32_t free; /* blocks that nobody holds or was promised */
} rank_fit;

/* Sequences on a rank that are guided. */
static int32_t guided(const tsr_rank_load *load)
{
    int32_t count = 0;

    for (const tsr_live *live = load->running.first; live != NULL; live = live->next)
        count += live->guide != NULL;
    return count;
}

/* Whether a rank takes a waiting request now. Beside others it leaves each of them one more block, so
 * that it is not sent away again at once. */
static bool takes(const tsr_scheduler *s, const tsr_rank_load *load, const tsr_live *live,
                  rank_fit *ret_fit)
{
    if (load->running.count == s->shape.slots || load->tokens_left == 0 || load->rows_left == 0 ||
        load->preempted || (live->guide != NULL && guided(load) == s->shape.masks))
        return false;
    const tsr_prefix_match match = tsr_prefix_match_of(s, load, live);
    const int32_t needed = tsr_pieces(live->token_count, s->shape.block_tokens) - match.held;
    const int32_t free = load->blocks.count - promised_blocks(s, load);
    *ret_fit = (rank_fit){.cost = (int64_t)load->running.count * SEQUENCE_TOKENS -
                                  (int64_t)match.coming * s->shape.block_tokens,
                          .free = free};
    return needed + load->running.count <= free;
}

static bool lighter(const rank_fit *a, const rank_fit *b)
{
    return a->cost != b->cost ? a->cost < b->cost : a->free > b->free;
}

/* Ranks that requests may go to: the owners, while one of them has a slot and half of its blocks. */
static int32_t open_ranks(const tsr_scheduler *s)
{
    for (int32_t r = 0; r < s->options.owners; r++) {
        const tsr_rank_load *load = &s->load[r];
        const int32_t free = load->blocks.count - promised_blocks(s, load);
        if (load->running.count < s->shape.slots && free >= load->blocks.count / 2)
            return s->options.owners;
    }
    return s->shape.ranks;
}

/* The rank that takes a waiting request, NULL when none does now. */
static tsr_rank_load *choose_rank(tsr_scheduler *s, const tsr_live *live)
{
    const int32_t ranks = open_ranks(s);
    const int32_t start = s->options.spread == TSR_SPREAD_ROUND_ROBIN ? s->next_rank : 0;
    tsr_rank_load *best = NULL;
    rank_fit best_fit = {0};

    for (int32_t i = 0; i < ranks; i++) {
        tsr_rank_load *load = &s->load[(start + i) % ranks];
        rank_fit fit;
        if (!takes(s, load, live, &fit))
            continue;
        if (best == NULL ||
            (s->options.spread == TSR_SPREAD_LEAST_LOADED && lighter(&fit, &best_fit))) {
            best = load;
            best_fit = fit;
        }
    }
    return best;
}

static tsr_admission admission_of(const tsr_live *live)
{
    return (tsr_admission){.rank = (uint32_t)live->rank,
                           .slot = (uint32_t)live->slot,
                           .seed = live->seed,
                           .temperature = live->temperature,
                           .top_p = live->top_p,
                           .min_p = live->min_p,
                           .top_k = live->top_k,
                           .token_count = (uint32_t)live->token_count,
                           .tokens = live->tokens,
                           .rules = live->rules};
}

/* Moves a waiting request to a free slot of a rank. */
static void admit(tsr_scheduler *s, tsr_rank_load *load, tsr_live *live)
{
    int32_t slot = 0;

    while (load->slot[slot] != NULL)
        slot++;
    tsr_live_list_remove(&s->queue, live);
    tsr_live_list_append(&load->running, live);
    load->slot[slot] = live;
    live->state = TSR_LIVE_RUNNING;
    live->rank = (int32_t)(load - s->load);
    live->slot = slot;
    live->begun = false;
    live->goal = live->token_count;
    tsr_prefix_take(s, live);
    if (live->admitted_ns == 0)
        live->admitted_ns = s->now_ns;
    live->step.admitted = true;
    s->next_rank = (live->rank + 1) % s->shape.ranks;
}

/* In order of the queue: who cannot be taken now is not overtaken. A request that lost its blocks
 * waits for its tokens still in flight. */
static void decide_admissions(tsr_scheduler *s)
{
    size_t room = s->shape.admission_bytes;
    int32_t ids = s->shape.prompt_ids; /* fewer than the bytes hold, where none has rules */

    for (tsr_live *live = s->queue.first; live != NULL; live = s->queue.first) {
        const size_t bytes = tsr_admission_max_bytes(
            (uint32_t)live->token_count, live->rules != NULL ? tsr_rules_bytes(live->rules) : 0);
        tsr_rank_load *load = choose_rank(s, live);
        if (load == NULL || live->in_flight > 0 || bytes > room || live->token_count > ids)
            return;
        room -= bytes;
        ids -= live->token_count;
        admit(s, load, live);
    }
}

static void decide(tsr_scheduler *s)
{
    for (int32_t r = 0; r < s->shape.ranks; r++) {
        tsr_rank_load *load = &s->load[r];
        load->tokens_left = s->shape.max_batched_tokens;
        load->rows_left = s->shape.logit_rows;
        load->preempted = false;
        for (tsr_live *live = load->running.first; live != NULL; live = live->next)
            memset(&live->step, 0, sizeof(live->step));
        decide_decode(s, load);
    }
    decide_admissions(s);
    for (int32_t r = 0; r < s->shape.ranks; r++)
        decide_prompts(s, &s->load[r]);
}

/* What this step fills is known from the next one on. */
static void note_filled(tsr_scheduler *s)
{
    for (int32_t r = 0; r < s->shape.ranks; r++) {
        for (tsr_live *live = s->load[r].running.first; live != NULL; live = live->next) {
            if (live->step.tokens > 0)
                tsr_prefix_note(s, live);
        }
    }
}

/* What is counted before, and filled in while, a step is laid out. */
typedef struct cursor {
    tsr_step_counts at;
    uint32_t max_rank_tokens;
} cursor;

/* Words of its mask: its ids, or a bit for each where that is shorter. */
static uint32_t mask_words(const tsr_scheduler *s, const tsr_live *live)
{
    return 1 + (uint32_t)tsr_smaller(live->allowed_count, tsr_guide_words(s->shape.vocab));
}

static void fill_mask(const tsr_scheduler *s, const tsr_live *live, uint32_t *mask)
{
    const uint32_t words = (uint32_t)tsr_guide_words(s->shape.vocab);
    uint32_t n = 0;

    if (live->allowed_count >= (int32_t)words) {
        mask[0] = TSR_MASK_BITS;
        memcpy(mask + 1, live->allowed, words * sizeof(*mask));
        return;
    }
    for (uint32_t w = 0; w < words; w++) {
        for (uint32_t bits = live->allowed[w]; bits != 0; bits &= bits - 1)
            mask[++n] = 32 * w + (uint32_t)__builtin_ctz(bits);
    }
    mask[0] = n;
}

static void count_live(const tsr_scheduler *s, cursor *c, const tsr_live *live)
{
    if (live->step.admitted) {
        const tsr_admission admission = admission_of(live);
        c->at.admission_bytes += (uint32_t)tsr_admission_bytes(&admission);
    }
    c->at.entries += live->step.tokens > 0;
    c->at.blocks += (uint32_t)live->step.blocks;
    if ((live->step.flags & TSR_ENTRY_MASKED) != 0)
        c->at.mask_words += mask_words(s, live);
}

static cursor count_step(const tsr_scheduler *s)
{
    cursor c = {0};

    for (int32_t r = 0; r < s->shape.ranks; r++) {
        const tsr_rank_load *load = &s->load[r];
        const uint32_t tokens = (uint32_t)(s->shape.max_batched_tokens - load->tokens_left);

        if (tokens > c.max_rank_tokens)
            c.max_rank_tokens = tokens;
        for (int32_t slot = 0; slot < s->shape.slots; slot++) {
            c.at.entries += load->release[slot];
            if (load->slot[slot] != NULL)
                count_live(s, &c, load->slot[slot]);
        }
    }
    return c;
}

static void fill_releases(tsr_scheduler *s, int32_t rank, const tsr_step_plan *step, cursor *c,
                          tsr_noted_step *noted)
{
    tsr_rank_load *load = &s->load[rank];

    for (int32_t slot = 0; slot < s->shape.slots; slot++) {
        if (!load->release[slot])
            continue;
        load->release[slot] = false;
        noted->note[c->at.entries] = (tsr_step_note){.slot = (uint32_t)slot};
        step->entry[c->at.entries++] = (tsr_step_entry){.rank = (uint32_t)rank,
                                                        .slot = (uint32_t)slot,
                                                        .flags = TSR_ENTRY_RELEASE,
                                                        .first_block = c->at.blocks};
    }
}

static void fill_live(const tsr_scheduler *s, tsr_live *live, const tsr_step_plan *step, cursor *c,
                      tsr_noted_step *noted)
{
    const uint32_t blocks = (uint32_t)live->step.blocks;

    if (live->step.admitted) {
        const tsr_admission admission = admission_of(live);
        tsr_admission_pack(&admission, step->admissions + c->at.admission_bytes);
        c->at.admission_bytes += (uint32_t)tsr_admission_bytes(&admission);
    }
    if (live->step.tokens == 0)
        return;

    noted->note[c->at.entries] = (tsr_step_note){.live = live,
                                                 .slot = (uint32_t)live->slot,
                                                 .flags = live->step.flags,
                                                 .tokens = live->step.tokens,
                                                 .end = live->length};
    live->in_flight++;
    step->entry[c->at.entries++] = (tsr_step_entry){
        .rank = (uint32_t)live->rank,
        .slot = (uint32_t)live->slot,
        .flags = live->step.flags,
        .first_position = (uint32_t)(live->length - live->step.tokens),
        .tokens = (uint32_t)live->step.tokens,
        .output_index =
            (live->step.flags & TSR_ENTRY_SAMPLE) != 0 ? (uint32_t)(live->sampled - 1) : 0,
        .first_block = c->at.blocks,
        .block_count = blocks,
    };
    memcpy(step->block + c->at.blocks, live->blocks + live->block_count - live->step.blocks,
           blocks * sizeof(*step->block));
    c->at.blocks += blocks;
    if ((live->step.flags & TSR_ENTRY_MASKED) != 0) {
        fill_mask(s, live, step->mask + c->at.mask_words);
        c->at.mask_words += mask_words(s, live);
    }
}

static void fill_step(tsr_scheduler *s, const tsr_step_plan *step, tsr_noted_step *noted)
{
    cursor c = {0};

    for (int32_t r = 0; r < s->shape.ranks; r++) {
        fill_releases(s, r, step, &c, noted);
        for (int32_t slot = 0; slot < s->shape.slots; slot++) {
            if (s->load[r].slot[slot] != NULL)
                fill_live(s, s->load[r].slot[slot], step, &c, noted);
        }
    }
    noted->count = c.at.entries;
}

/* True where nothing could be planned behind this step before its tokens have landed. */
static bool all_await_tokens(const tsr_scheduler *s)
{
    bool any = false;

    for (int32_t r = 0; r < s->shape.ranks; r++) {
        for (const tsr_live *live = s->load[r].running.first; live != NULL; live = live->next) {
            if (!tsr_live_awaits_token(live))
                return false;
            any = true;
        }
    }
    return any && s->queue.count == 0;
}

tsr_status tsr_scheduler_schedule(tsr_scheduler *scheduler, uint32_t flags, int64_t now_ns,
                                  void *buffer, tsr_step_plan *ret_step)
{
    tsr_scheduler *s = scheduler;
    tsr_step_plan step;

    if (s->flights == TSR_STEPS_IN_FLIGHT) {
        tsr_log(TSR_LOG_ERROR, "step %" PRIu64 ": planned before an earlier one came back",
                s->state.epoch);
        return TSR_ERR_INTERNAL;
    }
    s->now_ns = now_ns;
    s->shared_left = s->shape.shared_blocks;
    decide(s);
    const cursor count = count_step(s);
    if (tsr_step_plan_lay_out(buffer, s->shape.step_bytes, &count.at, &step) != TSR_OK) {
        tsr_log(TSR_LOG_ERROR, "step %" PRIu64 ": larger than the largest step", s->state.epoch);
        return TSR_ERR_INTERNAL;
    }

    fill_step(s, &step, &s->flight[(s->oldest_flight + s->flights) % TSR_STEPS_IN_FLIGHT]);
    note_filled(s);
    s->flights++;
    step.header->epoch = s->state.epoch;
    step.header->plan_digest = s->plan->digest;
    step.header->state_digest = s->state.digest;
    step.header->flags = flags | (all_await_tokens(s) ? (uint32_t)TSR_STEP_LAND : 0);
    step.header->max_rank_tokens = count.max_rank_tokens;
    /* The header holds the digest in front of this step; the state goes on behind it. */
    if (tsr_step_state_apply(&s->state, &step, 0) != TSR_OK)
        return TSR_ERR_INTERNAL;
    tsr_step_plan_seal(&step);
    s->stats.steps += count.max_rank_tokens > 0;
    *ret_step = step;
    return TSR_OK;
}
