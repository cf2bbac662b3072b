/* Waiting for the device: the only place here that does while steps run. */
#include "runtime/model/model_parts.h"

#include "runtime/base/clock.h"
#include "runtime/base/ending.h"
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
        if (st == TSR_OK)
            st = tsr_ending_status();
        if (st == TSR_OK && tsr_clock_ms() > until_ms)
            st = time_out_step(model, epoch, deadline_ms);
        if (st == TSR_OK) {
            rest(turns);
            st = tsr_device_passed(model->device, mark, &passed);
        }
    }
    return st;
}
