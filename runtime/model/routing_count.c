/* A rare thing, asked for by who measures: the memory is taken when it is asked for the first time,
 * not inside a step. */
#include "runtime/model/model_parts.h"

#include "runtime/base/sizes.h"

#include <string.h>

enum { PIECE_ROWS = 256 };

/* Where the second part of the host memory begins. */
static size_t rows_bytes(const tsr_model *m)
{
    const size_t element = tsr_device_activation_bytes(m->device);
    const tsr_model_facts *model = &m->plan->model;

    return (size_t)tsr_aligned(
        PIECE_ROWS * tsr_packed_row_bytes(element, model->hidden, model->top_k), TSR_ALIGNMENT);
}

tsr_status tsr_model_tally_next(tsr_model *model, tsr_routing_tally *tally)
{
    const size_t slots_bytes =
        PIECE_ROWS * (size_t)model->plan->model.top_k * sizeof(int32_t) + sizeof(int32_t);
    tsr_status st = TSR_OK;

    if (model->count.rows == NULL)
        st = tsr_device_host_alloc(model->device, rows_bytes(model) + slots_bytes,
                                   &model->count.rows);
    if (st == TSR_OK) {
        tally->done = false;
        model->count.tally = tally;
    }
    return st;
}

/* Puts two gets' mark behind them and waits. */
static tsr_status settle_gets(const tsr_model *m, tsr_stream s)
{
    const tsr_status st = tsr_device_mark(m->device, m->read, s);
    return st == TSR_OK ? tsr_wait_for_mark(m, m->read, 0) : st;
}

static tsr_status get_count(tsr_model *m, tsr_stream s, int32_t *ret_count)
{
    const tsr_exchange_buffers *b = &m->ep.buffers;

    tsr_status st =
        tsr_device_get(m->device, m->count.rows, b->arrived_count, sizeof(*ret_count), s);
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
            m->count.met[expert] = true;
    }
    return st;
}

static tsr_status count_arrivals(void *context, int32_t layer, tsr_stage stage, tsr_stream s)
{
    tsr_model *m = context;
    int32_t count = 0;

    if (stage != TSR_STAGE_ARRIVE)
        return TSR_OK;
    memset(m->count.met, 0, sizeof(m->count.met));
    tsr_status st = get_count(m, s, &count);
    for (int32_t first = 0; st == TSR_OK && first < count; first += PIECE_ROWS)
        st = meet_rows(m, first, tsr_smaller(PIECE_ROWS, count - first), s);
    for (int32_t e = 0; st == TSR_OK && e < m->plan->model.experts; e++)
        m->count.tally->experts[layer] += m->count.met[e];
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
