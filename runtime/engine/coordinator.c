/*
 * Rank 0's loop. Step N+1 is planned, sent and launched before step N is landed, where the device
 * takes two; what ends a request then takes effect one step late, which the scheduler plans for.
 *
 *   take requests -> schedule N+1 -> broadcast -> launch N+1 -> land N -> absorb N -> give tokens
 *
 * An idle engine waits in the source, for as long as the other ranks may wait for a step.
 */
#include "runtime/engine/coordinator.h"

#include "runtime/base/clock.h"
#include "runtime/base/ending.h"
#include "runtime/engine/scheduler.h"
#include "runtime/engine/step_broadcast.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* Well below any deadline that is worth having; admission holds up those that run, too. */
enum { DEFAULT_IDLE_MS = 250, ADMISSION_MS = 50, WHY_BYTES = 192 };

static_assert((int)TSR_MAX_FLIGHTS <= (int)TSR_STEPS_IN_FLIGHT,
              "the scheduler plans for every step that may be under way");

typedef struct coordinator {
    tsr_rank_step *rank_step;
    const tsr_engine_args *args;
    tsr_scheduler *scheduler;
    bool ended; /* nothing more comes from the source */
    int64_t first_step_ns;
    int64_t last_step_ns;
} coordinator;

static tsr_status give(const coordinator *c, const tsr_output *output, bool *ret_cancel)
{
    return c->args->sink->token(c->args->sink->context, output, ret_cancel);
}

static tsr_status submit(coordinator *c, const tsr_request *request)
{
    const char *refusal = NULL;
    bool cancel = false;

    const tsr_status st = tsr_scheduler_submit(c->scheduler, request, tsr_clock_ns(), &refusal);
    if (st == TSR_OK && refusal == NULL)
        return TSR_OK;
    if (st != TSR_OK && st != TSR_ERR_MEMORY)
        return st;

    const tsr_output output = {.id = request->id,
                               .token = -1,
                               .finish = TSR_FINISH_REFUSED,
                               .prompt_tokens = request->prompt_tokens,
                               .refusal = st == TSR_OK ? refusal : tsr_status_text(st),
                               .cause = st};
    return give(c, &output, &cancel);
}

static bool draining(const coordinator *c)
{
    return c->args->options->drain != NULL && *c->args->options->drain != 0;
}

/* Ends what the source does not want any more. */
static tsr_status drop_withdrawn(coordinator *c)
{
    const tsr_source *source = c->args->source;
    tsr_status st = TSR_OK;
    bool cancel = false;
    uint64_t id = 0;

    while (st == TSR_OK && source->withdrawn != NULL && source->withdrawn(source->context, &id)) {
        tsr_output last;
        if (tsr_scheduler_cancel(c->scheduler, id, &last))
            st = give(c, &last, &cancel);
    }
    return st;
}

/* Takes what the source has, as far as there is room and for as long as the ranks may wait; an idle
 * engine waits for the first request until `idle_ms` are over. */
static tsr_status take_requests(coordinator *c)
{
    const tsr_source *source = c->args->source;
    const int32_t idle_ms =
        c->args->options->idle_ms > 0 ? c->args->options->idle_ms : DEFAULT_IDLE_MS;
    const int64_t start_ms = tsr_clock_ms();
    const int64_t until_ms = start_ms + idle_ms;
    const int64_t enough_ms = start_ms + ADMISSION_MS;

    while (!c->ended && tsr_scheduler_wants_more(c->scheduler)) {
        const int64_t left_ms = tsr_scheduler_idle(c->scheduler) ? until_ms - tsr_clock_ms() : 0;
        tsr_request request;
        bool more = false;

        if (draining(c)) {
            c->ended = true;
            return TSR_OK;
        }
        tsr_status st = source->next(source->context, left_ms > 0 ? (int32_t)left_ms : 0, &request,
                                     &more, &c->ended);
        if (st == TSR_OK && more)
            st = submit(c, &request);
        if (st != TSR_OK)
            return st;
        if (!more && left_ms <= 0)
            return TSR_OK;
        if (tsr_clock_ms() > (tsr_scheduler_idle(c->scheduler) ? until_ms : enough_ms))
            return TSR_OK;
    }
    return TSR_OK;
}

/* Index of the first that is NaN or infinite, `count` when all are finite. */
static size_t first_not_finite(const float *logits, size_t count)
{
    size_t i = 0;
    while (i < count && isfinite(logits[i]))
        i++;
    return i;
}

/* Ends the scored request that these rows belong to; the others go on. */
static tsr_status fail_scored(const coordinator *c, uint64_t id, int32_t position, int32_t token)
{
    char why[WHY_BYTES];
    tsr_output last;
    bool cancel = false;

    (void)snprintf(why, sizeof(why),
                   "position %" PRId32 ": the logit of id %" PRId32
                   " is NaN or infinite: a weight or a scale of the checkpoint is damaged, or an "
                   "activation overflows",
                   position, token);
    if (!tsr_scheduler_fail(c->scheduler, id, why, &last))
        return TSR_OK;
    return give(c, &last, &cancel);
}

static tsr_status take_logits(void *context, uint32_t entry, int32_t first_position, int32_t rows,
                              const float *logits)
{
    const coordinator *c = context;
    const tsr_sink *sink = c->args->sink;
    const size_t vocab = (size_t)c->rank_step->vocab;
    const size_t count = (size_t)rows * vocab;
    uint64_t id;

    if (sink->logits == NULL || !tsr_scheduler_owner(c->scheduler, entry, &id))
        return TSR_OK;
    const size_t wrong = first_not_finite(logits, count);
    if (wrong < count)
        return fail_scored(c, id, first_position + (int32_t)(wrong / vocab),
                           (int32_t)(wrong % vocab));
    return sink->logits(sink->context, id, first_position, rows, logits);
}

static tsr_status give_output(coordinator *c, const tsr_output *output)
{
    tsr_output last;
    bool cancel = false;

    const tsr_status st = give(c, output, &cancel);
    if (st != TSR_OK || !cancel || output->finish != TSR_FINISH_NONE)
        return st;
    if (!tsr_scheduler_cancel(c->scheduler, output->id, &last))
        return TSR_OK;
    return give(c, &last, &cancel);
}

static tsr_status give_outputs(coordinator *c, uint32_t token_rows)
{
    tsr_absorbed absorbed;

    tsr_status st = tsr_scheduler_absorb(c->scheduler, c->rank_step->arrived, token_rows,
                                         tsr_clock_ns(), &absorbed);
    if (st != TSR_OK)
        return st;
    for (int32_t i = 0; i < absorbed.count && st == TSR_OK; i++)
        st = give_output(c, &absorbed.output[i]);
    return st;
}

/* Plans, sends and launches the next step. */
static tsr_status start_step(coordinator *c)
{
    const bool stop = c->ended && tsr_scheduler_idle(c->scheduler);
    void *buffer = tsr_rank_step_buffer(c->rank_step);
    tsr_step_plan step;

    tsr_status st = tsr_scheduler_schedule(c->scheduler, stop, buffer, &step);
    if (st != TSR_OK)
        return st;
    const size_t bytes = tsr_step_plan_bytes(step.header->entries, step.header->blocks,
                                             step.header->admission_bytes);
    if (step.header->max_rank_tokens > 0 && c->first_step_ns == 0)
        c->first_step_ns = tsr_clock_ns();
    st = tsr_step_send(c->args->comm, buffer, bytes);
    return st == TSR_OK ? tsr_rank_step_launch(c->rank_step, bytes) : st;
}

/* Lands the oldest step and gives what came of it. */
static tsr_status finish_step(coordinator *c, bool *ret_stop)
{
    const tsr_logits_taker taker = {.take = take_logits, .context = c};
    tsr_landed_step landed;

    tsr_status st = tsr_rank_step_land(c->rank_step, &taker, &landed);
    if (st == TSR_OK)
        st = give_outputs(c, landed.token_rows);
    if (st != TSR_OK)
        return st;
    if (landed.computed)
        c->last_step_ns = tsr_clock_ns();
    *ret_stop = landed.stop;
    return TSR_OK;
}

tsr_status tsr_coordinator_run(tsr_rank_step *rank_step, tsr_engine_stats *ret_stats)
{
    const tsr_engine_args *args = rank_step->args;
    const tsr_schedule_options options = {.spread = args->options->spread,
                                          .seed = args->options->seed,
                                          .prefill_chunk = args->options->prefill_chunk};
    coordinator c = {.rank_step = rank_step, .args = args};
    bool stopped = false;

    tsr_status st = tsr_scheduler_open(args->plan, &options, &c.scheduler);
    if (st != TSR_OK)
        return st;
    while (st == TSR_OK && !stopped) {
        st = tsr_ending_status();
        if (st == TSR_OK)
            st = drop_withdrawn(&c);
        if (st == TSR_OK)
            st = take_requests(&c);
        if (st == TSR_OK)
            st = start_step(&c);
        while (st == TSR_OK && tsr_rank_step_due(rank_step))
            st = finish_step(&c, &stopped);
    }

    *ret_stats = tsr_scheduler_stats(c.scheduler);
    ret_stats->run_ns = c.last_step_ns - c.first_step_ns;
    tsr_scheduler_close(c.scheduler);
    return st;
}
