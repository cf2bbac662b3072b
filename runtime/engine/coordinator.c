/*
 * Rank 0's loop. Step N+1 is planned, sent and launched before step N is landed, where the device
 * takes two; what ends a request then takes effect one step late, which the scheduler plans for.
 *
 *   hear source -> schedule N+1 -> broadcast -> launch N+1 -> land N -> absorb N -> give tokens
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
enum { DEFAULT_IDLE_MS = 250, ADMISSION_MS = 50, EXPERTS_MS = 1000, WHY_BYTES = 192 };

static_assert((int)TSR_MAX_FLIGHTS <= (int)TSR_STEPS_IN_FLIGHT,
              "the scheduler plans for every step that may be under way");

typedef struct coordinator {
    tsr_rank_step *rank_step;
    const tsr_engine_args *args;
    tsr_scheduler *scheduler;
    bool ended;  /* nothing more comes from the source */
    bool drains; /* no more requests are taken from it */
    int64_t first_step_ns;
    int64_t last_step_ns;
    int64_t experts_ms;     /* when the rows of experts were last asked for */
    uint64_t experts_asked; /* and of how many steps */
} coordinator;

static tsr_status give(const coordinator *c, const tsr_output *output, bool *ret_cancel)
{
    return c->args->sink->token(c->args->sink->context, output, ret_cancel);
}

static tsr_status refuse(const coordinator *c, const tsr_request *request, tsr_status cause,
                         const char *why)
{
    const tsr_output output = {.id = request->id,
                               .token = -1,
                               .finish = TSR_FINISH_REFUSED,
                               .prompt_tokens = request->prompt_tokens,
                               .refusal = why,
                               .cause = cause};
    bool cancel = false;

    return give(c, &output, &cancel);
}

static tsr_status submit(coordinator *c, const tsr_request *request)
{
    const char *refusal = NULL;

    if (c->drains)
        return refuse(c, request, TSR_ERR_CAPACITY, "the engine takes no more requests: it drains");
    if (!tsr_scheduler_has_room(c->scheduler))
        return refuse(c, request, TSR_ERR_CAPACITY, "the queue is full; ask again later");
    const tsr_status st = tsr_scheduler_submit(c->scheduler, request, tsr_clock_ns(), &refusal);
    if (st == TSR_OK && refusal == NULL)
        return TSR_OK;
    if (st != TSR_OK && st != TSR_ERR_MEMORY)
        return st;
    return refuse(c, request, st, st == TSR_OK ? refusal : tsr_status_text(st));
}

static tsr_status cancel_request(const coordinator *c, uint64_t id)
{
    tsr_output last;
    bool cancel = false;

    if (!tsr_scheduler_cancel(c->scheduler, id, &last))
        return TSR_OK;
    return give(c, &last, &cancel);
}

/* Grants what the source wants; *ret_more true: there may be more at once. */
static tsr_status grant(coordinator *c, const tsr_wish *wish, bool *ret_more)
{
    *ret_more = wish->kind == TSR_WISH_REQUEST || wish->kind == TSR_WISH_CANCEL;
    switch (wish->kind) {
    case TSR_WISH_REQUEST:
        return submit(c, &wish->request);
    case TSR_WISH_CANCEL:
        return cancel_request(c, wish->cancel);
    case TSR_WISH_DRAIN:
        c->drains = true;
        return TSR_OK;
    case TSR_WISH_END:
        c->ended = true;
        return TSR_OK;
    case TSR_WISH_NOTHING:
    default:
        return TSR_OK;
    }
}

/* True when nothing is left to do, nor will be. */
static bool is_done(const coordinator *c)
{
    return (c->ended || c->drains) && tsr_scheduler_idle(c->scheduler);
}

static tsr_engine_stats stats_of(const coordinator *c)
{
    const tsr_expert_load *experts = &c->rank_step->experts;
    tsr_engine_stats stats = tsr_scheduler_stats(c->scheduler);

    if (experts->steps > 0) {
        stats.expert_rows = experts->total;
        stats.expert_steps = experts->steps;
    }
    return stats;
}

/* Hears what the source wants, for as long as the ranks may wait; an idle engine waits for it until
 * `idle_ms` are over. */
static tsr_status hear_source(coordinator *c)
{
    const tsr_source *source = c->args->source;
    const int32_t idle_ms =
        c->args->options->idle_ms > 0 ? c->args->options->idle_ms : DEFAULT_IDLE_MS;
    const int64_t start_ms = tsr_clock_ms();
    const int64_t until_ms = start_ms + idle_ms;
    const int64_t enough_ms = start_ms + ADMISSION_MS;

    while (!c->ended && !is_done(c)) {
        const int64_t left_ms = tsr_scheduler_idle(c->scheduler) ? until_ms - tsr_clock_ms() : 0;
        const tsr_engine_stats stats = stats_of(c);
        const tsr_question question = {.room = !c->drains && tsr_scheduler_has_room(c->scheduler),
                                       .stats = &stats,
                                       .wait_ms = left_ms > 0 ? (int32_t)left_ms : 0};
        tsr_wish wish = {0};
        bool more = false;

        tsr_status st = source->ask(source->context, &question, &wish);
        if (st == TSR_OK)
            st = grant(c, &wish, &more);
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
    bool cancel = false;

    const tsr_status st = give(c, output, &cancel);
    if (st != TSR_OK || !cancel || output->finish != TSR_FINISH_NONE)
        return st;
    return cancel_request(c, output->id);
}

static tsr_status give_outputs(coordinator *c, const tsr_step_results *results)
{
    const tsr_sink *sink = c->args->sink;
    tsr_absorbed absorbed;

    tsr_status st = tsr_scheduler_absorb(c->scheduler, results, tsr_clock_ns(), &absorbed);
    if (st != TSR_OK)
        return st;
    for (int32_t i = 0; i < absorbed.scored && st == TSR_OK && sink->scores != NULL; i++)
        st = sink->scores(sink->context, &absorbed.scores[i]);
    for (int32_t i = 0; i < absorbed.count && st == TSR_OK; i++)
        st = give_output(c, &absorbed.output[i]);
    return st;
}

/* Once a second, where steps were counted since. */
static uint32_t expert_flag(coordinator *c)
{
    const tsr_expert_load *experts = &c->rank_step->experts;
    const uint64_t counted = experts->counted != NULL ? experts->counted->counted : 0;
    const int64_t now_ms = tsr_clock_ms();

    if (counted == c->experts_asked || now_ms - c->experts_ms < EXPERTS_MS)
        return 0;
    c->experts_ms = now_ms;
    c->experts_asked = counted;
    return TSR_STEP_EXPERT_LOAD;
}

/* Plans, sends and launches the next step. */
static tsr_status start_step(coordinator *c)
{
    const uint32_t flags = (is_done(c) ? TSR_STEP_STOP : 0) | expert_flag(c);
    void *buffer = tsr_rank_step_buffer(c->rank_step);
    tsr_step_plan step;

    tsr_status st = tsr_scheduler_schedule(c->scheduler, flags, tsr_clock_ns(), buffer, &step);
    if (st != TSR_OK)
        return st;
    const tsr_step_counts counts = tsr_step_counts_of(step.header);
    const size_t bytes = tsr_step_plan_bytes(&counts);
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
        st = give_outputs(c, &landed.results);
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
                                          .owners = args->options->owners,
                                          .seed = args->options->seed,
                                          .prefill_chunk = args->options->prefill_chunk,
                                          .prefix_cache = args->options->prefix_cache,
                                          .max_waiting = args->options->max_waiting,
                                          .guides = args->options->guides};
    coordinator c = {.rank_step = rank_step, .args = args};
    bool stopped = false;

    tsr_status st = tsr_scheduler_open(args->plan, &options, &c.scheduler);
    if (st != TSR_OK)
        return st;
    while (st == TSR_OK && !stopped) {
        st = tsr_ending_status();
        if (st == TSR_OK)
            st = hear_source(&c);
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
