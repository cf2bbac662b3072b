/* A rare thing, asked for by who measures: the memory is taken when it is asked for the first time,
 * not inside a step. */
#include "runtime/model/model_parts.h"

#include "runtime/base/clock.h"
#include "runtime/base/sizes.h"

#include <string.h>

enum { PIECE_ROWS = 256, LOOK_EVERY = 64, COUNT_EVERY = 512 };

/* Where the second part of the host memory begins. */
static size_t rows_bytes(const tsr_model *m)
{
    const size_t element = tsr_device_activation_bytes(m->device);
    const tsr_model_facts *model = &m->plan->model;

    return (size_t)tsr_aligned(
        PIECE_ROWS * tsr_packed_row_bytes(element, model->hidden, model->top_k), TSR_ALIGNMENT);
}

static tsr_status open_pieces(tsr_model *m)
{
    const size_t slots_bytes =
        PIECE_ROWS * (size_t)m->plan->model.top_k * sizeof(int32_t) + sizeof(int32_t);

    if (m->count.rows != NULL)
        return TSR_OK;
    return tsr_device_host_alloc(m->device, rows_bytes(m) + slots_bytes, &m->count.rows);
}

tsr_status tsr_model_tally_next(tsr_model *model, tsr_routing_tally *tally)
{
    const tsr_status st = open_pieces(model);

    if (st == TSR_OK) {
        tally->done = false;
        model->count.tally = tally;
    }
    return st;
}

tsr_status tsr_model_watch(tsr_model *model, tsr_watched *watched)
{
    const tsr_status st = open_pieces(model);

    if (st == TSR_OK)
        model->count.watched = watched;
    return st;
}

tsr_status tsr_model_count_rows(tsr_model *model, tsr_counted_rows *counted)
{
    const tsr_status st = counted != NULL ? open_pieces(model) : TSR_OK;

    if (st == TSR_OK)
        model->count.counted = counted;
    return st;
}

const int64_t *tsr_model_waited_ns(const tsr_model *model)
{
    return tsr_exchange_waited_ns(model->ep.exchange);
}

/* Puts two gets' mark behind them and waits. */
static tsr_status settle_gets(const tsr_model *m, tsr_stream s)
{
    const tsr_status st = tsr_device_mark(m->device, m->read, s);
    return st == TSR_OK ? tsr_wait_for_mark(m, m->read, 0) : st;
}

static tsr_status get_count(tsr_model *m, tsr_stream s, int32_t *ret_count)
{
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(m->ep.exchange);

    tsr_status st =
        tsr_device_get(m->device, m->count.rows, b.arrived_count, sizeof(*ret_count), s);
    if (st == TSR_OK)
        st = settle_gets(m, s);
    if (st == TSR_OK)
        memcpy(ret_count, m->count.rows, sizeof(*ret_count));
    return st;
}

/* Ids stand behind the activations of a row; a slot without an answer is another rank's. */
static tsr_status meet_rows(tsr_model *m, int32_t first, int32_t rows, tsr_stream s)
{
    const tsr_model_facts *model = &m->plan->model;
    const tsr_exchange_buffers *b = &m->ep.buffers;
    const size_t element = tsr_device_activation_bytes(m->device);
    const size_t row_bytes = tsr_packed_row_bytes(element, model->hidden, model->top_k);
    const size_t slots = (size_t)model->top_k;
    const unsigned char *row = m->count.rows;
    unsigned char *slot = (unsigned char *)m->count.rows + rows_bytes(m);

    tsr_status st =
        tsr_device_get(m->device, m->count.rows,
                       (const unsigned char *)b->arrived_rows + (size_t)first * row_bytes,
                       (size_t)rows * row_bytes, s);
    if (st == TSR_OK)
        st = tsr_device_get(m->device, slot, b->answer_of + (size_t)first * slots,
                            (size_t)rows * slots * sizeof(int32_t), s);
    if (st == TSR_OK)
        st = settle_gets(m, s);
    for (size_t i = 0; st == TSR_OK && i < (size_t)rows * slots; i++) {
        int32_t answer;
        int32_t expert;
        memcpy(&answer, slot + i * sizeof(answer), sizeof(answer));
        memcpy(&expert,
               row + i / slots * row_bytes + (size_t)model->hidden * element +
                   i % slots * sizeof(expert),
               sizeof(expert));
        if (answer >= 0 && expert >= 0 && expert < model->experts)
            m->count.met[expert]++;
    }
    return st;
}

/* What has arrived now, by expert, into met. */
static tsr_status meet_arrivals(tsr_model *m, tsr_stream s)
{
    int32_t count = 0;

    memset(m->count.met, 0, (size_t)m->plan->model.experts * sizeof(m->count.met[0]));
    tsr_status st = get_count(m, s, &count);
    for (int32_t first = 0; st == TSR_OK && first < count; first += PIECE_ROWS)
        st = meet_rows(m, first, tsr_smaller(PIECE_ROWS, count - first), s);
    return st;
}

static tsr_status count_arrivals(void *context, int32_t layer, tsr_stage stage, tsr_stream s)
{
    tsr_model *m = context;

    if (stage != TSR_STAGE_ARRIVE)
        return TSR_OK;
    const tsr_status st = meet_arrivals(m, s);
    for (int32_t e = 0; st == TSR_OK && e < m->plan->model.experts; e++)
        m->count.tally->experts[layer] += m->count.met[e] > 0;
    return st;
}

static tsr_status count_rows(void *context, int32_t layer, tsr_stage stage, tsr_stream s)
{
    tsr_model *m = context;
    const int32_t experts = m->plan->model.experts;

    if (stage != TSR_STAGE_ARRIVE)
        return TSR_OK;
    const tsr_status st = meet_arrivals(m, s);
    for (int32_t e = 0; st == TSR_OK && e < experts; e++)
        m->count.counted->rows[layer * experts + e] += (uint64_t)m->count.met[e];
    return st;
}

bool tsr_is_counted(tsr_model *model, const tsr_step_facts *facts)
{
    tsr_counted_rows *c = model->count.counted;

    if (c == NULL || facts->max_rank_tokens == 0)
        return false;
    return c->steps++ % COUNT_EVERY == 0 || model->flights == 1;
}

tsr_status tsr_forward_counting(tsr_model *model, const tsr_flight *flight,
                                const tsr_step_facts *facts)
{
    const tsr_stage_watch watch = {.put = count_rows, .context = model};

    model->ep.watch = &watch;
    const tsr_status st = tsr_forward(model, flight, facts);
    model->ep.watch = NULL;
    model->count.counted->counted++;
    return st;
}

/* The time of a stage ends before its rows are counted, and the next one's begins behind that. */
static tsr_status watch_stage(void *context, int32_t layer, tsr_stage stage, tsr_stream s)
{
    tsr_model *m = context;
    tsr_watched *w = m->count.watched;
    const int32_t experts = m->plan->model.experts;

    tsr_status st = settle_gets(m, s);
    w->ns[stage] += tsr_clock_ns() - m->count.stage_began_ns;
    if (st == TSR_OK && stage == TSR_STAGE_ARRIVE) {
        st = meet_arrivals(m, s);
        for (int32_t e = 0; st == TSR_OK && e < experts; e++) {
            w->tokens[layer * experts + e] += m->count.met[e];
            w->reads[layer * experts + e] += m->count.met[e] > 0;
        }
    }
    m->count.stage_began_ns = tsr_clock_ns();
    return st;
}

bool tsr_is_watched(tsr_model *model, const tsr_step_facts *facts)
{
    if (model->count.watched == NULL || facts->max_rank_tokens == 0)
        return false;
    model->count.watched->steps++;
    return model->flights == 1 || facts->epoch % LOOK_EVERY == 0;
}

tsr_status tsr_forward_watched(tsr_model *model, const tsr_flight *flight,
                               const tsr_step_facts *facts)
{
    const tsr_stage_watch watch = {.put = watch_stage, .context = model};

    model->ep.watch = &watch;
    tsr_status st = settle_gets(model, model->stream);
    model->count.stage_began_ns = tsr_clock_ns();
    if (st == TSR_OK)
        st = tsr_forward(model, flight, facts);
    model->ep.watch = NULL;
    model->count.watched->looked_at++;
    return st;
}

tsr_status tsr_forward_counted(tsr_model *model, const tsr_flight *flight,
                               const tsr_step_facts *facts)
{
    const tsr_stage_watch watch = {.put = count_arrivals, .context = model};

    model->ep.watch = &watch;
    const tsr_status st = tsr_forward(model, flight, facts);
    model->ep.watch = NULL;
    model->count.tally->tokens = flight->batch.count.tokens;
    model->count.tally->done = st == TSR_OK;
    model->count.tally = NULL;
    return st;
}
