/*
 * Launching and landing: the only file here that waits while steps run, and it does so in one
 * place.
 */
#include "runtime/model/model_parts.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

/* A device is done within microseconds or within milliseconds: after some turns without news the
 * core is left to others. */
enum { EAGER_TURNS = 200, REST_NS = 20000, TEXT_BYTES = 160 };

static void rest(int32_t turns)
{
    const struct timespec a_while = {.tv_nsec = REST_NS};
    if (turns < EAGER_TURNS)
        (void)sched_yield();
    else
        (void)nanosleep(&a_while, NULL);
}

/* The layer whose exchange has this stage in the step under way; -1: none. */
static int32_t layer_of_stage(const tsr_model *m, uint64_t epoch, int32_t stage)
{
    int32_t rounds = 0;

    for (int32_t f = 0; f < m->flights; f++) {
        if (m->flight[f].out && m->flight[f].epoch == epoch)
            rounds = m->flight[f].rounds;
    }
    int32_t sparse = rounds > 0 && stage >= 0 ? stage / rounds : -1;
    for (int32_t l = 0; l < m->plan->model.layers && sparse >= 0; l++) {
        if (m->weights.layer[l].sparse && sparse-- == 0)
            return l;
    }
    return -1;
}

static tsr_status time_out_step(const tsr_model *m, uint64_t epoch, int32_t deadline_ms)
{
    char at[TEXT_BYTES];
    char in[TEXT_BYTES] = "";
    const int32_t stage = tsr_exchange_text(m->ep.exchange, sizeof(at), at);
    const int32_t layer = layer_of_stage(m, epoch, stage);

    if (layer >= 0)
        (void)snprintf(in, sizeof(in), " of layer %" PRId32, layer);
    tsr_log(TSR_LOG_ERROR,
            "step %" PRIu64 ": %s is not done with it after %" PRId32
            " ms, with the %s exchange%s at the %s",
            epoch, tsr_device_name(m->device), deadline_ms, tsr_exchange_name(m->ep.exchange), in,
            at);
    return TSR_ERR_TIMEOUT;
}

tsr_status tsr_wait_for_mark(const tsr_model *model, tsr_mark *mark, uint64_t epoch)
{
    const int32_t deadline_ms = tsr_comm_deadline_ms(model->comm);
    const int64_t until_ms = tsr_clock_ms() + deadline_ms;
    bool passed = false;

    tsr_status st = tsr_device_passed(model->device, mark, &passed);
    for (int32_t turns = 0; st == TSR_OK && !passed; turns++) {
        st = tsr_exchange_poll(model->ep.exchange);
        if (st == TSR_OK && tsr_clock_ms() > until_ms)
            st = time_out_step(model, epoch, deadline_ms);
        if (st == TSR_OK) {
            rest(turns);
            st = tsr_device_passed(model->device, mark, &passed);
        }
    }
    return st;
}

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
        .max_rank_tokens = facts->max_rank_tokens,
    };
    bool again = false;

    if (m->count.tally != NULL)
        return tsr_forward_counted(m, f, facts);
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
    tsr_status st = tsr_flight_put(f, m->plan, &text, m->stream);
    if (st == TSR_OK)
        st = tsr_exchange_begin(m->ep.exchange, facts->epoch, m->stream);
    if (st == TSR_OK)
        st = run(m, f, facts);
    if (st == TSR_OK)
        st = tsr_flight_get(f, m->stream);
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
