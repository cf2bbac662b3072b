/* A rare thing, asked for by who measures: the memory is taken when it is asked for the first time,
 * not inside a step. */
#include "runtime/model/model_parts.h"

#include "runtime/base/sizes.h"

#include <stdlib.h>

const char *tsr_stage_name(tsr_stage stage)
{
    static const char *const names[TSR_STAGES] = {
        [TSR_STAGE_EMBED] = "embed",     [TSR_STAGE_ATTENTION] = "attention",
        [TSR_STAGE_DENSE] = "dense",     [TSR_STAGE_CHOOSE] = "choose",
        [TSR_STAGE_SHARED] = "shared",   [TSR_STAGE_DISPATCH] = "dispatch",
        [TSR_STAGE_ARRIVE] = "arrive",   [TSR_STAGE_EXPERTS] = "experts",
        [TSR_STAGE_RETURN] = "return",   [TSR_STAGE_COMBINE] = "combine",
        [TSR_STAGE_PREDICT] = "predict",
    };
    return names[stage];
}

static tsr_status open_clock(tsr_model *m)
{
    const tsr_engine_limits *limits = &m->plan->limits;
    const int32_t rounds =
        tsr_larger(1, tsr_pieces(limits->max_batched_tokens, limits->exchange_tokens));
    tsr_stage_clock *c = &m->clock;

    c->capacity = TSR_STAGES * (1 + m->plan->model.layers * rounds);
    const size_t bytes = ((size_t)c->capacity + 1) * sizeof(uint64_t);
    c->stage = calloc((size_t)c->capacity, sizeof(*c->stage));
    tsr_status st = c->stage != NULL ? TSR_OK : TSR_ERR_MEMORY;
    if (st == TSR_OK)
        st = tsr_device_alloc(m->device, bytes, &c->at_ns);
    if (st == TSR_OK)
        st = tsr_device_host_alloc(m->device, bytes, &c->brought);
    if (st != TSR_OK)
        tsr_stage_clock_close(c, m->device);
    return st;
}

tsr_status tsr_model_time_next(tsr_model *model, tsr_stage_times *times)
{
    const tsr_status st = model->clock.brought == NULL ? open_clock(model) : TSR_OK;

    if (st == TSR_OK) {
        *times = (tsr_stage_times){.done = false};
        model->clock.times = times;
    }
    return st;
}

static tsr_status look(const tsr_model *m, tsr_stream s)
{
    return tsr_device_clock(m->device, (uint64_t *)m->clock.at_ns + m->clock.count, s);
}

static tsr_status stage_ends(void *context, int32_t layer, tsr_stage stage, tsr_stream s)
{
    tsr_model *m = context;

    (void)layer;
    if (m->clock.count == m->clock.capacity)
        return TSR_ERR_INTERNAL;
    m->clock.stage[m->clock.count++] = stage;
    return look(m, s);
}

static tsr_status read_clock(tsr_model *m)
{
    const tsr_stage_clock *c = &m->clock;
    const uint64_t *at_ns = c->brought;

    tsr_status st = tsr_device_get(m->device, c->brought, c->at_ns,
                                   ((size_t)c->count + 1) * sizeof(uint64_t), m->stream);
    if (st == TSR_OK)
        st = tsr_device_mark(m->device, m->read, m->stream);
    if (st == TSR_OK)
        st = tsr_wait_for_mark(m, m->read, 0);
    for (int32_t i = 0; st == TSR_OK && i < c->count; i++)
        c->times->ns[c->stage[i]] += (int64_t)(at_ns[i + 1] - at_ns[i]);
    return st;
}

tsr_status tsr_forward_timed(tsr_model *model, const tsr_flight *flight,
                             const tsr_step_facts *facts)
{
    const tsr_stage_watch watch = {.put = stage_ends, .context = model};

    model->clock.count = 0;
    tsr_status st = look(model, model->stream);
    model->ep.watch = &watch;
    if (st == TSR_OK)
        st = tsr_forward(model, flight, facts);
    model->ep.watch = NULL;
    if (st == TSR_OK)
        st = read_clock(model);
    model->clock.times->done = st == TSR_OK;
    model->clock.times = NULL;
    return st;
}

void tsr_stage_clock_close(tsr_stage_clock *clock, tsr_device *device)
{
    tsr_device_free(device, clock->at_ns);
    tsr_device_host_free(device, clock->brought);
    free(clock->stage);
    *clock = (tsr_stage_clock){0};
}
