/* Launching and landing. */
#include "runtime/model/model_parts.h"

#include "runtime/base/log.h"

#include <inttypes.h>

/* Nobody waits for a rank that has left. */
static tsr_status ended(const tsr_model *m, tsr_status status)
{
    if (status != TSR_OK)
        tsr_comm_abort(m->comm, status);
    return status;
}

int32_t tsr_model_flights(const tsr_model *model)
{
    return model->flights;
}

/* The flight, or NULL, logged, when it is none or not as it must be. */
static tsr_flight *flight_of(tsr_model *m, int32_t flight, bool out)
{
    if (flight >= 0 && flight < m->flights && m->flight[flight].out == out)
        return &m->flight[flight];
    tsr_log(TSR_LOG_ERROR, "flight %" PRId32 " of %" PRId32 " is %s", flight, m->flights,
            out ? "not under way" : "still under way, or there is none");
    return NULL;
}

tsr_status tsr_model_batch(tsr_model *model, int32_t flight, const tsr_batch_sizes *count,
                           tsr_batch *ret_batch)
{
    tsr_flight *f = flight_of(model, flight, false);
    if (f == NULL)
        return TSR_ERR_ARG;
    const tsr_status st = tsr_flight_lay_out(f, model->plan, count);
    if (st == TSR_OK)
        *ret_batch = f->batch;
    return st;
}

/* The forward pass, played from a recording where the device has one of such a step. */
static tsr_status run(tsr_model *m, tsr_flight *f, const tsr_step_facts *facts)
{
    const tsr_batch_sizes *batch = &f->batch.count;
    const tsr_step_sizes sizes = {
        .flight = (int32_t)(f - m->flight),
        .tokens = batch->tokens,
        .logit_rows = batch->logit_rows,
        .samples = batch->samples,
        .is_bent = batch->bent > 0,
        .max_rank_tokens = facts->max_rank_tokens,
    };
    bool again = false;

    if (m->count.tally != NULL)
        return tsr_forward_counted(m, f, facts);
    if (m->clock.times != NULL)
        return tsr_forward_timed(m, f, facts);
    if (tsr_is_watched(m, facts))
        return tsr_forward_watched(m, f, facts);
    if (tsr_is_counted(m, facts))
        return tsr_forward_counting(m, f, facts);
    if (!tsr_is_recordable(batch))
        return tsr_forward(m, f, facts);
    tsr_recorded_step *step = tsr_recordings_find(&m->recordings, m->device, &sizes, &again);
    if (!again)
        return tsr_forward(m, f, facts);
    if (step->recording == NULL) {
        tsr_status st = tsr_device_record(m->device, m->stream);
        if (st == TSR_OK)
            st = tsr_forward(m, f, facts);
        if (st == TSR_OK)
            st = tsr_device_recorded(m->device, m->stream, &step->recording);
        if (st != TSR_OK || step->recording == NULL)
            return st;
    }
    return tsr_device_replay(m->device, step->recording, m->stream);
}

static tsr_status launch(tsr_model *m, tsr_flight *f, const tsr_step_facts *facts)
{
    const tsr_engine_limits *limits = &m->plan->limits;
    const tsr_text_table text = {
        .ids = tsr_step_shared_array(&m->step, TSR_STEP_TEXT),
        .slots = limits->max_num_seqs,
        .positions = limits->max_model_len,
    };
    if (facts->max_rank_tokens < f->batch.count.tokens ||
        facts->max_rank_tokens > limits->max_batched_tokens) {
        tsr_log(TSR_LOG_ERROR, "step: max_rank_tokens is %" PRId32 ", this rank brings %" PRId32,
                facts->max_rank_tokens, f->batch.count.tokens);
        return TSR_ERR_ARG;
    }
    tsr_status st = tsr_flight_put(
        f, m->plan, &text, tsr_step_shared_array(&m->step, TSR_STEP_RULES), m->putting, m->stream);
    if (st == TSR_OK)
        st = tsr_exchange_begin(m->ep.exchange, facts->epoch, m->stream);
    if (st == TSR_OK)
        st = run(m, f, facts);
    if (st == TSR_OK)
        st = tsr_device_mark(m->device, f->mark, m->stream);
    return st;
}

tsr_status tsr_model_launch(tsr_model *model, int32_t flight, const tsr_step_facts *facts)
{
    tsr_flight *f = flight_of(model, flight, false);
    const tsr_status st = f != NULL ? launch(model, f, facts) : TSR_ERR_ARG;
    if (st == TSR_OK) {
        f->out = true;
        f->epoch = facts->epoch;
        f->rounds = tsr_ep_layer_rounds(&model->ep, facts);
    }
    return ended(model, st);
}

tsr_status tsr_model_land(tsr_model *model, int32_t flight, const tsr_sampled **ret_sampled)
{
    tsr_flight *f = flight_of(model, flight, true);
    tsr_status st = f != NULL ? tsr_wait_for_mark(model, f->mark, f->epoch) : TSR_ERR_ARG;
    if (st == TSR_OK)
        st = tsr_exchange_poll(model->ep.exchange); /* before what a fault of it may lead to */
    if (st == TSR_OK)
        st = tsr_device_fault(model->device);
    if (st == TSR_OK) {
        f->out = false;
        *ret_sampled = f->results;
    }
    return ended(model, st);
}

const tsr_token_logprob *tsr_model_top(const tsr_model *model, int32_t flight)
{
    return model->flight[flight].top_results;
}

int32_t tsr_model_staged_rows(const tsr_model *model)
{
    return tsr_staged_rows(&model->plan->model, &model->plan->limits);
}

tsr_status tsr_model_logits(tsr_model *model, int32_t flight, int32_t first_row, int32_t rows,
                            const float **ret_rows)
{
    const size_t vocab = (size_t)model->plan->model.vocab;
    tsr_flight *f = flight_of(model, flight, false);
    if (f == NULL || first_row < 0 || rows < 1 || rows > tsr_model_staged_rows(model) ||
        rows > f->batch.count.logit_rows - first_row)
        return ended(model, TSR_ERR_ARG);

    tsr_status st =
        tsr_device_get(model->device, model->staged, f->logits + (size_t)first_row * vocab,
                       (size_t)rows * vocab * sizeof(float), model->reading);
    if (st == TSR_OK)
        st = tsr_device_mark(model->device, model->read, model->reading);
    if (st == TSR_OK)
        st = tsr_wait_for_mark(model, model->read, f->epoch);
    if (st == TSR_OK)
        *ret_rows = model->staged;
    return ended(model, st);
}
