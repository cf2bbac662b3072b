/*
 * One rank's steps. Every call below that meets other ranks is made by all of them in the same
 * order: the broadcast of step N+1 comes before the gathers of step N wherever two are under way.
 */
#include "runtime/engine/rank_step.h"

#include "runtime/base/sizes.h"

#include <stdlib.h>

static tsr_status take_result_memory(tsr_rank_step *s)
{
    const tsr_step_shape *shape = &s->state.shape;
    const size_t rows = (size_t)shape->logit_rows;
    const size_t ranks = (size_t)shape->ranks;
    const bool coordinates = s->rank == 0;
    const size_t arrived = coordinates ? ranks * rows : 1;
    const size_t staged = (size_t)tsr_model_staged_rows(s->args->model) * (size_t)s->vocab;

    s->sent = calloc(rows, sizeof(*s->sent));
    s->arrived = calloc(arrived, sizeof(*s->arrived));
    s->arrived_top = calloc(arrived * TSR_MOST_TOP, sizeof(*s->arrived_top));
    s->arrived_logits = calloc(coordinates && ranks > 1 ? staged : 1, sizeof(*s->arrived_logits));
    s->bytes_of = calloc(ranks, sizeof(*s->bytes_of));
    if (s->sent == NULL || s->arrived == NULL || s->arrived_top == NULL ||
        s->arrived_logits == NULL || s->bytes_of == NULL)
        return TSR_ERR_MEMORY;
    return TSR_OK;
}

static tsr_status take_buffers(tsr_rank_step *s)
{
    for (int32_t f = 0; f < s->flights; f++) {
        s->flight[f].buffer = calloc(1, s->state.shape.step_bytes);
        if (s->flight[f].buffer == NULL)
            return TSR_ERR_MEMORY;
    }
    return TSR_OK;
}

tsr_status tsr_rank_step_open(const tsr_engine_args *args, tsr_rank_step *ret_step)
{
    tsr_rank_step s = {
        .args = args,
        .rank = tsr_comm_rank(args->comm),
        .vocab = args->plan->model.vocab,
        .flights = tsr_model_flights(args->model),
    };

    tsr_status st = tsr_rank_state_open(args->plan, s.rank, &s.state);
    if (st != TSR_OK)
        return st;
    st = take_buffers(&s);
    if (st == TSR_OK)
        st = take_result_memory(&s);
    if (st == TSR_OK && args->counts_experts)
        st = tsr_expert_load_open(args->plan, args->model, &s.experts);
    if (st != TSR_OK) {
        tsr_rank_step_close(&s);
        return st;
    }
    *ret_step = s;
    return TSR_OK;
}

void tsr_rank_step_close(tsr_rank_step *rank_step)
{
    tsr_rank_step *s = rank_step;

    for (int32_t f = 0; f < s->flights; f++)
        free(s->flight[f].buffer);
    free(s->sent);
    free(s->arrived);
    free(s->arrived_top);
    free(s->arrived_logits);
    free(s->bytes_of);
    tsr_expert_load_close(&s->experts);
    tsr_rank_state_close(&s->state);
}

static int32_t next_flight(const tsr_rank_step *s)
{
    return (s->oldest + s->out) % s->flights;
}

static bool computes(const tsr_rank_flight *flight)
{
    return flight->step.header->max_rank_tokens > 0;
}

void *tsr_rank_step_buffer(const tsr_rank_step *rank_step)
{
    return rank_step->flight[next_flight(rank_step)].buffer;
}

static tsr_status launch_batch(tsr_rank_step *s, int32_t number)
{
    tsr_rank_flight *flight = &s->flight[number];
    const tsr_step_header *header = flight->step.header;
    tsr_batch_sizes count;
    const tsr_step_facts facts = {.epoch = header->epoch,
                                  .max_rank_tokens = (int32_t)header->max_rank_tokens};
    tsr_batch batch;

    tsr_status st = tsr_rank_batch_count(&s->state, &flight->step, &count);
    if (st == TSR_OK)
        st = tsr_model_batch(s->args->model, number, &count, &batch);
    if (st != TSR_OK)
        return st;
    tsr_rank_batch_fill(&s->state, &flight->step, &batch);
    flight->samples = count.samples;
    flight->tops = count.tops;
    return tsr_model_launch(s->args->model, number, &facts);
}

tsr_status tsr_rank_step_launch(tsr_rank_step *rank_step, size_t bytes)
{
    tsr_rank_step *s = rank_step;
    const tsr_step_bounds bounds = tsr_rank_state_bounds(&s->state);
    const int32_t number = next_flight(s);
    tsr_rank_flight *flight = &s->flight[number];

    flight->samples = 0;
    flight->tops = 0;
    tsr_status st = tsr_step_plan_open(flight->buffer, bytes, &bounds, &flight->step);
    if (st == TSR_OK)
        st = tsr_rank_state_apply(&s->state, &flight->step);
    if (st == TSR_OK && computes(flight))
        st = launch_batch(s, number);
    if (st == TSR_OK)
        s->out++;
    return st;
}

bool tsr_rank_step_due(const tsr_rank_step *rank_step)
{
    const tsr_rank_step *s = rank_step;

    if (s->out == 0)
        return false;
    const tsr_rank_flight *newest = &s->flight[(s->oldest + s->out - 1) % s->flights];
    return s->out == s->flights || !computes(newest) ||
           (newest->step.header->flags & TSR_STEP_LAND) != 0;
}

/* Brings what each rank sends of every entry, as the step tells all of them, to rank 0. Nothing is
 * exchanged where nobody sends. */
static tsr_status gather_parts(tsr_rank_step *s, const tsr_rank_flight *flight,
                               uint32_t (*count_of)(uint32_t flags, uint32_t tokens), size_t bytes,
                               const void *sent, void *arrived)
{
    const tsr_step_plan *step = &flight->step;
    bool any = false;

    for (int32_t r = 0; r < s->state.shape.ranks; r++)
        s->bytes_of[r] = 0;
    for (uint32_t i = 0; i < step->header->entries; i++) {
        const tsr_step_entry *e = &step->entry[i];
        const uint32_t count = count_of(e->flags, e->tokens);
        s->bytes_of[e->rank] += bytes * count;
        any = any || count > 0;
    }
    if (!any)
        return TSR_OK;
    return tsr_comm_gather(s->args->comm, 0, s->bytes_of[s->rank] > 0 ? sent : NULL, s->bytes_of,
                           s->rank == 0 ? arrived : NULL);
}

static tsr_status gather_results(tsr_rank_step *s, int32_t number, tsr_step_results *ret_results)
{
    const tsr_rank_flight *flight = &s->flight[number];
    const tsr_step_plan *step = &flight->step;
    tsr_step_results results = {.row = s->arrived, .top = s->arrived_top};

    tsr_status st =
        gather_parts(s, flight, tsr_entry_results, sizeof(*s->sent), s->sent, s->arrived);
    if (st == TSR_OK)
        st = gather_parts(s, flight, tsr_entry_tops, sizeof(*s->arrived_top),
                          tsr_model_top(s->args->model, number), s->arrived_top);
    if (st != TSR_OK || s->rank != 0)
        return st;
    for (uint32_t i = 0; i < step->header->entries; i++) {
        results.rows += tsr_entry_results(step->entry[i].flags, step->entry[i].tokens);
        results.tops += tsr_entry_tops(step->entry[i].flags, step->entry[i].tokens);
    }
    *ret_results = results;
    return TSR_OK;
}

/* Makes this rank's tokens ready to send: those of each entry, in order of the entries. */
static void collect_tokens(tsr_rank_step *s, const tsr_rank_flight *flight,
                           const tsr_sampled *sampled)
{
    const tsr_step_plan *step = &flight->step;
    int32_t count = 0;

    for (uint32_t i = 0; i < step->header->entries; i++) {
        const tsr_step_entry *e = &step->entry[i];
        const uint32_t results =
            e->rank == (uint32_t)s->rank ? tsr_entry_results(e->flags, e->tokens) : 0;
        for (uint32_t n = 0; n < results; n++, count++)
            s->sent[count] = (tsr_token_row){
                .slot = e->slot, .token = sampled[count].token, .logprob = sampled[count].logprob};
    }
}

/* Rows of an entry's logits on their way to rank 0. */
typedef struct logit_piece {
    uint32_t from;     /* the rank that has them */
    int32_t first_row; /* among that rank's rows of logits */
    int32_t rows;
} logit_piece;

/* *ret_rows is for rank 0, which has its own rows without sending them. */
static tsr_status bring_rows(tsr_rank_step *s, int32_t number, const logit_piece *p,
                             const float **ret_rows)
{
    const size_t bytes = (size_t)p->rows * (size_t)s->vocab * sizeof(float);
    const bool own = p->from == (uint32_t)s->rank;
    const float *rows = NULL;
    tsr_status st = TSR_OK;

    if (own)
        st = tsr_model_logits(s->args->model, number, p->first_row, p->rows, &rows);
    if (st != TSR_OK || p->from == 0) {
        *ret_rows = rows;
        return st;
    }
    for (int32_t r = 0; r < s->state.shape.ranks; r++)
        s->bytes_of[r] = (uint32_t)r == p->from ? bytes : 0;
    *ret_rows = s->arrived_logits;
    return tsr_comm_gather(s->args->comm, 0, rows, s->bytes_of,
                           s->rank == 0 ? s->arrived_logits : NULL);
}

/* All rows of one entry, piece by piece; `first_row` is the first among its rank's. */
static tsr_status bring_entry(tsr_rank_step *s, int32_t number, uint32_t index, int32_t first_row,
                              const tsr_logits_taker *taker)
{
    const tsr_step_entry *e = &s->flight[number].step.entry[index];
    const int32_t at_once = tsr_model_staged_rows(s->args->model);
    const int32_t total = (int32_t)e->tokens;
    tsr_status st = TSR_OK;

    for (int32_t row = 0; row < total && st == TSR_OK; row += at_once) {
        const logit_piece piece = {.from = e->rank,
                                   .first_row = first_row + row,
                                   .rows = tsr_smaller(at_once, total - row)};
        const float *rows = NULL;
        st = bring_rows(s, number, &piece, &rows);
        if (st == TSR_OK && taker != NULL)
            st = taker->take(taker->context, index, (int32_t)e->first_position + row, piece.rows,
                             rows);
    }
    return st;
}

static tsr_status gather_logits(tsr_rank_step *s, int32_t number, const tsr_logits_taker *taker)
{
    const tsr_step_plan *step = &s->flight[number].step;
    uint32_t rank = 0;
    int32_t first_row = 0; /* of the entry, among its rank's: entries are ordered by rank */
    tsr_status st = TSR_OK;

    for (uint32_t i = 0; i < step->header->entries && st == TSR_OK; i++) {
        const tsr_step_entry *e = &step->entry[i];
        if (e->rank != rank)
            first_row = 0;
        rank = e->rank;
        if ((e->flags & TSR_ENTRY_LOGITS) != 0)
            st = bring_entry(s, number, i, first_row, taker);
        first_row += (int32_t)tsr_step_entry_logit_rows(e);
    }
    return st;
}

static tsr_status land_batch(tsr_rank_step *s, int32_t number, const tsr_logits_taker *taker,
                             tsr_step_results *ret_results)
{
    const tsr_rank_flight *flight = &s->flight[number];
    const tsr_sampled *sampled = NULL;

    tsr_status st = tsr_model_land(s->args->model, number, &sampled);
    if (st == TSR_OK) {
        collect_tokens(s, flight, sampled);
        st = gather_results(s, number, ret_results);
    }
    if (st == TSR_OK)
        st = gather_logits(s, number, taker);
    return st;
}

tsr_status tsr_rank_step_land(tsr_rank_step *rank_step, const tsr_logits_taker *taker,
                              tsr_landed_step *ret_landed)
{
    tsr_rank_step *s = rank_step;
    const int32_t number = s->oldest;
    const tsr_rank_flight *flight = &s->flight[number];
    tsr_landed_step landed = {.computed = computes(flight),
                              .stop = (flight->step.header->flags & TSR_STEP_STOP) != 0};

    tsr_status st = landed.computed ? land_batch(s, number, taker, &landed.results)
                                    : tsr_comm_barrier(s->args->comm);
    if (st == TSR_OK && (flight->step.header->flags & TSR_STEP_EXPERT_LOAD) != 0)
        st = tsr_expert_load_gather(&s->experts, s->args->comm);
    if (st != TSR_OK)
        return st;
    s->oldest = (s->oldest + 1) % s->flights;
    s->out--;
    *ret_landed = landed;
    return TSR_OK;
}
