/*
 * Requests as they come and go, and what the results of a step mean for them.
 *
 *               admitted                eos, stop id, length, scored
 *   WAITING --------------------> RUNNING ------------------------> ENDED -> freed
 *      ^                           |   |                              ^       when no flight
 *      '-- its blocks were taken --'   '------------ cancel ----------'       speaks of it
 *
 * A flight is a step that was planned and not yet absorbed; there may be two. Its notes say whom
 * each entry belongs to, for the entry itself has left. A request that ends gives slot and blocks
 * back at once, while a flight may still compute with them: steps run one after the other, so
 * whoever gets them next writes later. Only the request's own memory has to wait for that flight.
 */
#include "runtime/engine/scheduler.h"

#include "kernels/blocks.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/engine/prefix.h"
#include "runtime/engine/scheduler_state.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

/* Of its memory, which grows to what it needs while it is opened. */
enum { FIRST_BYTES = 65536 };

void tsr_live_list_remove(tsr_live_list *list, tsr_live *live)
{
    if (live->previous != NULL)
        live->previous->next = live->next;
    else
        list->first = live->next;
    if (live->next != NULL)
        live->next->previous = live->previous;
    else
        list->last = live->previous;
    live->next = NULL;
    live->previous = NULL;
    list->count--;
}

/* Puts `live` before `next`, or last when that is NULL. */
static void put_before(tsr_live_list *list, tsr_live *live, tsr_live *next)
{
    tsr_live *previous = next != NULL ? next->previous : list->last;

    live->next = next;
    live->previous = previous;
    if (previous != NULL)
        previous->next = live;
    else
        list->first = live;
    if (next != NULL)
        next->previous = live;
    else
        list->last = live;
    list->count++;
}

void tsr_live_list_append(tsr_live_list *list, tsr_live *live)
{
    tsr_live *previous = list->last;

    while (previous != NULL && previous->priority > live->priority)
        previous = previous->previous;
    put_before(list, live, previous != NULL ? previous->next : list->first);
}

void tsr_live_list_insert(tsr_live_list *list, tsr_live *live)
{
    tsr_live *previous = list->last;

    while (previous != NULL && tsr_live_before(live, previous))
        previous = previous->previous;
    put_before(list, live, previous != NULL ? previous->next : list->first);
}

/* Everything a scheduler holds, taken once. False when the host has no memory. */
static bool take_scheduler_memory(tsr_scheduler *s)
{
    const size_t ranks = (size_t)s->shape.ranks;
    const size_t slots = (size_t)s->shape.slots;
    const size_t entries = s->shape.entries;

    s->load = tsr_arena_array(s->memory, ranks, sizeof(*s->load));
    s->outputs = tsr_arena_array(s->memory, entries, sizeof(*s->outputs));
    s->scores = tsr_arena_array(s->memory, entries, sizeof(*s->scores));
    s->scored = tsr_arena_array(s->memory, ranks * (size_t)s->shape.logit_rows, sizeof(*s->scored));
    if (s->load == NULL || s->outputs == NULL || s->scores == NULL || s->scored == NULL)
        return false;
    for (size_t i = 0; i < TSR_STEPS_IN_FLIGHT; i++) {
        s->flight[i].note = tsr_arena_array(s->memory, entries, sizeof(tsr_step_note));
        if (s->flight[i].note == NULL)
            return false;
    }
    for (size_t r = 0; r < ranks; r++) {
        tsr_rank_load *load = &s->load[r];
        load->slot = tsr_arena_array(s->memory, slots, sizeof(tsr_live *));
        load->prompts = tsr_arena_array(s->memory, slots, sizeof(tsr_live *));
        load->release = tsr_arena_array(s->memory, slots, sizeof(bool));
        if (load->slot == NULL || load->prompts == NULL || load->release == NULL ||
            !tsr_kv_blocks_open(s->memory, s->shape.kv_blocks, &load->blocks))
            return false;
    }
    return true;
}

tsr_status tsr_scheduler_open(const tsr_plan *plan, const tsr_schedule_options *options,
                              tsr_scheduler **ret_scheduler)
{
    tsr_step_shape shape;
    tsr_arena *memory;

    tsr_status st = tsr_step_shape_of(plan, &shape);
    if (st == TSR_OK)
        st = tsr_arena_open(FIRST_BYTES, &memory);
    if (st != TSR_OK)
        return st;
    tsr_scheduler *s = tsr_arena_alloc(memory, sizeof(*s));
    if (s == NULL)
        goto undo_memory;
    *s = (tsr_scheduler){.plan = plan, .memory = memory, .options = *options, .shape = shape};
    if (getrandom(&s->key_seed, sizeof(s->key_seed), 0) != (ssize_t)sizeof(s->key_seed))
        s->key_seed = options->seed; /* an early kernel has none yet */
    if (!take_scheduler_memory(s))
        goto undo_memory;
    if (tsr_step_state_open((uint32_t)shape.ranks, (uint32_t)shape.slots, &s->state) != TSR_OK)
        goto undo_memory;

    tsr_arena_seal(memory);
    *ret_scheduler = s;
    return TSR_OK;

undo_memory:
    tsr_arena_close(memory);
    return TSR_ERR_MEMORY;
}

/* Frees an ended request that no step in flight speaks of. */
static void reap(tsr_live *live)
{
    if (live->state == TSR_LIVE_ENDED && live->in_flight == 0)
        tsr_live_close(live);
}

static void close_all(tsr_live_list *list)
{
    tsr_live *next;
    for (tsr_live *live = list->first; live != NULL; live = next) {
        next = live->next;
        tsr_live_close(live);
    }
}

/* The oldest step in flight, taken out of flight; its notes stay until the next step is planned. */
static const tsr_noted_step *land(tsr_scheduler *s)
{
    const tsr_noted_step *step = &s->flight[s->oldest_flight];

    for (uint32_t i = 0; i < step->count; i++) {
        if (step->note[i].live != NULL)
            step->note[i].live->in_flight--;
    }
    s->oldest_flight = (s->oldest_flight + 1) % TSR_STEPS_IN_FLIGHT;
    s->flights--;
    return step;
}

static void reap_all(const tsr_noted_step *step)
{
    for (uint32_t i = 0; i < step->count; i++) {
        if (step->note[i].live != NULL)
            reap(step->note[i].live);
    }
}

void tsr_scheduler_close(tsr_scheduler *scheduler)
{
    if (scheduler == NULL)
        return;
    while (scheduler->flights > 0)
        reap_all(land(scheduler));
    close_all(&scheduler->queue);
    for (int32_t r = 0; r < scheduler->shape.ranks; r++)
        close_all(&scheduler->load[r].running);
    tsr_step_state_close(&scheduler->state);
    tsr_arena_close(scheduler->memory);
}

bool tsr_scheduler_has_room(const tsr_scheduler *scheduler)
{
    const int32_t limit = scheduler->options.max_waiting;
    return scheduler->queue.count <
           (limit > 0 ? limit : scheduler->shape.ranks * scheduler->shape.slots);
}

bool tsr_scheduler_idle(const tsr_scheduler *scheduler)
{
    for (int32_t r = 0; r < scheduler->shape.ranks; r++) {
        if (scheduler->load[r].running.count > 0)
            return false;
    }
    return scheduler->queue.count == 0 && scheduler->flights == 0;
}

/* The n-th seed drawn from `seed` (splitmix64). */
static uint64_t drawn_seed(uint64_t seed, uint64_t n)
{
    uint64_t x = seed + (n + 1) * 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

tsr_status tsr_scheduler_submit(tsr_scheduler *scheduler, const tsr_request *request,
                                int64_t now_ns, const char **ret_refusal)
{
    const tsr_live_bounds bounds = {.shape = &scheduler->shape, .model = &scheduler->plan->model};
    /* A refused request has its place too: the seeds of those behind it do not depend on it. */
    const uint64_t order = scheduler->arrivals++;
    tsr_live *live;

    if (tsr_live_refused(request, &bounds, scheduler->refusal)) {
        *ret_refusal = scheduler->refusal;
        return TSR_OK;
    }
    tsr_status st = tsr_live_open(request, &bounds, &live);
    if (st != TSR_OK)
        return st;
    st = tsr_live_guide(live, request, scheduler->options.guides, bounds.model, scheduler->refusal);
    if (st != TSR_OK || scheduler->refusal[0] != '\0') {
        tsr_live_close(live);
        *ret_refusal = scheduler->refusal;
        return st;
    }

    tsr_prefix_read(scheduler, live);
    live->order = order;
    live->arrived_ns = now_ns;
    if (!request->has_seed)
        live->seed = drawn_seed(scheduler->options.seed, order);
    tsr_live_list_insert(&scheduler->queue, live);
    scheduler->stats.requests++;
    scheduler->stats.prompt_tokens += (uint64_t)live->prompt_tokens;
    *ret_refusal = NULL;
    return TSR_OK;
}

void tsr_scheduler_detach(tsr_scheduler *scheduler, tsr_live *live)
{
    tsr_rank_load *load = &scheduler->load[live->rank];

    tsr_live_list_remove(&load->running, live);
    tsr_kv_blocks_give(&load->blocks, live->block_count, live->blocks);
    live->block_count = 0;
    load->slot[live->slot] = NULL;
    load->release[live->slot] = true;
}

static tsr_output output_of(const tsr_live *live, int32_t token, tsr_finish finish)
{
    return (tsr_output){
        .id = live->id,
        .token = token,
        .finish = finish,
        .prompt_tokens = live->prompt_tokens,
        .output_tokens = live->token_count - live->prompt_tokens,
        .cached_tokens = live->cached_tokens,
        .queued_ns = live->admitted_ns != 0 ? live->admitted_ns - live->arrived_ns : 0,
        .first_ns = live->first_ns != 0 ? live->first_ns - live->arrived_ns : 0,
    };
}

/* The request's last output; it is freed by reap. */
static tsr_output end(tsr_scheduler *s, tsr_live *live, tsr_finish finish)
{
    if (live->state == TSR_LIVE_RUNNING)
        tsr_scheduler_detach(s, live);
    else
        tsr_live_list_remove(&s->queue, live);
    live->state = TSR_LIVE_ENDED;
    return output_of(live, -1, finish);
}

static tsr_live *find(const tsr_live_list *list, uint64_t id)
{
    tsr_live *live = list->first;
    while (live != NULL && live->id != id)
        live = live->next;
    return live;
}

/* What is wrong with one that fails may be in its keys and values. False when there is no live request
 * of that id. */
static bool end_one(tsr_scheduler *scheduler, uint64_t id, tsr_finish finish,
                    tsr_output *ret_output)
{
    tsr_live *live = find(&scheduler->queue, id);

    for (int32_t r = 0; r < scheduler->shape.ranks && live == NULL; r++)
        live = find(&scheduler->load[r].running, id);
    if (live == NULL)
        return false;
    if (finish == TSR_FINISH_FAILED && live->state == TSR_LIVE_RUNNING)
        tsr_prefix_forget(scheduler, live);
    *ret_output = end(scheduler, live, finish);
    reap(live);
    return true;
}

bool tsr_scheduler_cancel(tsr_scheduler *scheduler, uint64_t id, tsr_output *ret_output)
{
    return end_one(scheduler, id, TSR_FINISH_CANCELLED, ret_output);
}

bool tsr_scheduler_fail(tsr_scheduler *scheduler, uint64_t id, const char *why,
                        tsr_output *ret_output)
{
    if (!end_one(scheduler, id, TSR_FINISH_FAILED, ret_output))
        return false;
    ret_output->refusal = why;
    return true;
}

bool tsr_scheduler_owner(const tsr_scheduler *scheduler, uint32_t entry, uint64_t *ret_id)
{
    const tsr_noted_step *step = &scheduler->flight[scheduler->oldest_flight];

    if (scheduler->flights == 0 || entry >= step->count || step->note[entry].live == NULL ||
        step->note[entry].live->state == TSR_LIVE_ENDED)
        return false;
    *ret_id = step->note[entry].live->id;
    return true;
}

/* True when the results answer the notes; of any row there may be no token. */
static bool results_hold(const tsr_scheduler *s, const tsr_noted_step *step,
                         const tsr_step_results *results)
{
    uint32_t rows = 0;
    uint32_t tops = 0;

    for (uint32_t i = 0; i < step->count; i++) {
        const tsr_step_note *note = &step->note[i];
        const uint32_t end = rows + tsr_entry_results(note->flags, (uint32_t)note->tokens);
        for (; rows < end; rows++) {
            const tsr_token_row *row = &results->row[rows];
            if (rows == results->rows || row->slot != note->slot ||
                row->token < TSR_NO_TOKEN_LEFT || row->token >= s->plan->model.vocab)
                return false;
        }
        tops += tsr_entry_tops(note->flags, (uint32_t)note->tokens);
    }
    return rows == results->rows && tops == results->tops;
}

/* What the cache holds of it may be no numbers, so no other sequence begins with it. */
static tsr_output absorb_failure(tsr_scheduler *s, tsr_live *live)
{
    if (live->state == TSR_LIVE_RUNNING)
        tsr_prefix_forget(s, live);
    tsr_output output = end(s, live, TSR_FINISH_FAILED);
    output.refusal = "a logit is NaN or infinite, so there is no next token: a weight or a scale "
                     "of the checkpoint is damaged, or an activation overflows";
    return output;
}

static tsr_output absorb_stuck(tsr_scheduler *s, tsr_live *live, const char *why)
{
    tsr_output output = end(s, live, TSR_FINISH_STUCK);
    output.refusal = why;
    return output;
}

/* One sampled token of a request that still wants it. */
static tsr_output absorb_token(tsr_scheduler *s, tsr_live *live, const tsr_token_row *row,
                               int64_t now_ns)
{
    if (row->token == TSR_NO_TOKEN_LEFT)
        return absorb_stuck(s, live,
                            "allowed_token_ids, bad_words, min_tokens and the form that the answer "
                            "must have leave no token that may come next");
    if (row->token < 0)
        return absorb_failure(s, live);
    if (live->first_ns == 0) {
        live->first_ns = now_ns;
        s->stats.first_token_ns_sum += now_ns - live->arrived_ns;
        s->stats.first_tokens++;
    }
    live->tokens[live->token_count++] = row->token;
    tsr_prefix_read(s, live);
    if (live->state == TSR_LIVE_RUNNING)
        tsr_prefix_note(s, live);
    s->stats.output_tokens++;

    tsr_output output = output_of(live, row->token, TSR_FINISH_NONE);
    const char *why = live->guide != NULL ? tsr_live_ask_guide(live, &s->plan->model) : NULL;
    if (why != NULL)
        return absorb_stuck(s, live, why);
    if (tsr_live_stops_at(live, &s->plan->model, row->token))
        output = end(s, live, TSR_FINISH_STOP);
    else if (output.output_tokens == live->max_tokens)
        output = end(s, live, TSR_FINISH_LENGTH);
    output.token = row->token;
    output.logprob = row->logprob;
    return output;
}

/* Scored tokens of a prompt, the first of the note's rows. False when one of them has no score. */
static bool absorb_scores(tsr_scheduler *s, const tsr_step_note *note, const tsr_step_results *at,
                          tsr_absorbed *absorbed)
{
    const tsr_live *live = note->live;
    const int32_t first = note->end - note->tokens + 1;
    const int32_t count = tsr_smaller(note->end, live->prompt_tokens - 1) - first + 1;
    tsr_token_logprob *token = s->scored;

    for (int32_t i = 0; i < absorbed->scored; i++)
        token += absorbed->scores[i].count;
    for (int32_t i = 0; i < count; i++) {
        if (at->row[i].token == TSR_NO_TOKEN)
            return false;
        token[i] = (tsr_token_logprob){at->row[i].token, at->row[i].logprob};
    }
    if (count > 0)
        s->scores[absorbed->scored++] =
            (tsr_prompt_scores){.id = live->id,
                                .first_position = first,
                                .count = count,
                                .top_count = (int32_t)tsr_entry_score_top(note->flags),
                                .token = token,
                                .top = at->top};
    return true;
}

/* What a step's results for one request come to; they begin at `at`. */
static void absorb_note(tsr_scheduler *s, const tsr_step_note *note, const tsr_step_results *at,
                        int64_t now_ns, tsr_absorbed *absorbed)
{
    const uint32_t tokens = (uint32_t)note->tokens;
    const bool sampled = (note->flags & TSR_ENTRY_SAMPLE) != 0;
    tsr_live *live = note->live;
    tsr_output *output = &s->outputs[absorbed->count];

    if ((note->flags & TSR_ENTRY_SCORE) != 0 && !absorb_scores(s, note, at, absorbed)) {
        *output = absorb_failure(s, live);
        absorbed->count++;
    } else if (sampled) {
        const uint32_t top = tsr_entry_top(note->flags);
        *output =
            absorb_token(s, live, at->row + tsr_entry_results(note->flags, tokens) - 1, now_ns);
        if (output->token != TSR_NO_TOKEN) {
            output->top_count = (int32_t)top;
            output->top = at->top + tsr_entry_tops(note->flags, tokens) - top;
        }
        absorbed->count++;
    } else if (live->max_tokens == 0 && note->end == live->prompt_tokens) {
        *output = end(s, live, TSR_FINISH_LENGTH);
        absorbed->count++;
    }
}

tsr_status tsr_scheduler_absorb(tsr_scheduler *scheduler, const tsr_step_results *results,
                                int64_t now_ns, tsr_absorbed *ret_absorbed)
{
    if (scheduler->flights == 0 ||
        !results_hold(scheduler, &scheduler->flight[scheduler->oldest_flight], results)) {
        tsr_log(TSR_LOG_ERROR,
                "step %" PRIu64 ": the %" PRIu32 " tokens that came back do not answer it; the "
                "ranks no longer agree, start the job again",
                scheduler->state.epoch - (uint64_t)scheduler->flights, results->rows);
        return TSR_ERR_MISMATCH;
    }

    const tsr_noted_step *step = land(scheduler);
    tsr_step_results at = *results;
    tsr_absorbed absorbed = {.output = scheduler->outputs, .scores = scheduler->scores};
    for (uint32_t i = 0; i < step->count; i++) {
        const tsr_step_note *note = &step->note[i];

        if (note->live != NULL && note->live->state != TSR_LIVE_ENDED)
            absorb_note(scheduler, note, &at, now_ns, &absorbed);
        at.row += tsr_entry_results(note->flags, (uint32_t)note->tokens);
        at.top += tsr_entry_tops(note->flags, (uint32_t)note->tokens);
    }
    reap_all(step);
    *ret_absorbed = absorbed;
    return TSR_OK;
}

tsr_engine_stats tsr_scheduler_stats(const tsr_scheduler *scheduler)
{
    tsr_engine_stats stats = scheduler->stats;

    stats.waiting = scheduler->queue.count;
    for (int32_t r = 0; r < scheduler->shape.ranks; r++) {
        const tsr_rank_load *load = &scheduler->load[r];
        stats.running += load->running.count;
        stats.kv_blocks += (uint64_t)load->blocks.total;
        stats.kv_blocks_used += (uint64_t)(load->blocks.total - load->blocks.count);
    }
    return stats;
}
