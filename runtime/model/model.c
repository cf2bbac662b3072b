/* Opening and closing a model: memory first, then the exchange, then the weights, all ranks in
 * step. */
#include "runtime/model/model.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/model/load_weights.h"
#include "runtime/model/model_parts.h"
#include "runtime/model/rotary_table.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    FIRST_BLOCK_BYTES = 1 << 16,
    SLICE_MS = 500, /* ranks meet this often while they load: far below any deadline */
    READ_PART = 4,  /* a read may take the deadline less one part in so many: then the line that
                       names the file comes before a peer's that only names this rank */
};

/* Whether every rank has loaded everything. Collective; the barrier is what names a rank that does
 * not come: in a gather only rank 0 would know. */
static tsr_status all_done(tsr_model *m, bool done, bool *ret_all)
{
    const int32_t size = tsr_comm_size(m->comm);
    int32_t mine = done ? 1 : 0;
    int32_t all = 1;
    size_t *bytes_of = calloc((size_t)size, sizeof(*bytes_of));
    int32_t *of_rank = calloc((size_t)size, sizeof(*of_rank));
    tsr_status st =
        bytes_of != NULL && of_rank != NULL ? tsr_comm_barrier(m->comm) : TSR_ERR_MEMORY;

    if (st == TSR_OK) {
        for (int32_t r = 0; r < size; r++)
            bytes_of[r] = sizeof(mine);
        st = tsr_comm_gather(m->comm, 0, &mine, bytes_of, of_rank);
    }
    if (st == TSR_OK) {
        for (int32_t r = 0; r < size; r++)
            all = all && of_rank[r];
        st = tsr_comm_broadcast(m->comm, 0, &all, sizeof(all));
    }
    if (st == TSR_OK)
        *ret_all = all != 0;
    free(bytes_of);
    free(of_rank);
    return st;
}

static void report(const tsr_load_progress *progress, const tsr_loader *loader)
{
    if (progress != NULL && progress->report != NULL)
        progress->report(progress->context, tsr_loader_bytes(loader), tsr_loader_total(loader));
}

/* Slice by slice, so that a rank with a fast disk does not wait for one with a slow disk longer
 * than the deadline allows. */
static tsr_status load_slices(tsr_model *m, tsr_loader *loader, const tsr_load_progress *progress)
{
    bool done = false;
    bool all = false;
    tsr_status st = TSR_OK;
    while (st == TSR_OK && !all) {
        if (!done) {
            st = tsr_loader_run(loader, tsr_clock_ms() + SLICE_MS, &done);
            report(progress, loader);
        }
        if (st == TSR_OK)
            st = all_done(m, done, &all);
    }
    return st;
}

static tsr_status load_model(tsr_model *m, const tsr_load_progress *progress)
{
    const int32_t deadline_ms = tsr_comm_deadline_ms(m->comm);
    const tsr_loader_args args = {
        .plan = m->plan,
        .device = m->device,
        .weights = &m->weights,
        .rank = tsr_comm_rank(m->comm),
        .deadline_ms = deadline_ms - deadline_ms / READ_PART,
        .comm = m->comm,
        .stream = m->stream,
    };
    tsr_loader *loader = NULL;
    tsr_status st = tsr_loader_open(&args, &loader);
    if (st == TSR_OK)
        st = load_slices(m, loader, progress);
    tsr_loader_close(loader);
    return st;
}

/* Waits for what was put on the stream while the model is built. */
static tsr_status settle(const tsr_model *m)
{
    const tsr_status st = tsr_device_mark(m->device, m->read, m->stream);
    return st == TSR_OK ? tsr_wait_for_mark(m, m->read, 0) : st;
}

static void scale_cache(tsr_model *m)
{
    for (int32_t l = 0; l < m->plan->model.layers; l++) {
        m->cache.layer[l].key_scale = m->weights.layer[l].key_scale;
        m->cache.layer[l].value_scale = m->weights.layer[l].value_scale;
    }
}

/* Cosines and sines of all positions, computed on the host, put in one copy each. */
static tsr_status fill_rotary(const tsr_model *m)
{
    const size_t width = (size_t)m->plan->model.rotary_dim / 2;
    const size_t positions = (size_t)m->plan->limits.max_model_len;
    const size_t bytes = positions * width * sizeof(float);
    void *memory = NULL;
    tsr_status st = tsr_device_host_alloc(m->device, 2 * bytes, &memory);
    if (st != TSR_OK)
        return st;

    float *cosines = memory;
    float *sines = cosines + positions * width;
    for (size_t p = 0; p < positions; p++)
        tsr_rotary_row(m->plan->model.rope_theta, m->plan->model.rotary_dim, (int32_t)p,
                       cosines + p * width, sines + p * width);
    st = tsr_device_put(m->device, tsr_step_shared_array(&m->step, TSR_STEP_COS), cosines, bytes,
                        m->stream);
    if (st == TSR_OK)
        st = tsr_device_put(m->device, tsr_step_shared_array(&m->step, TSR_STEP_SIN), sines, bytes,
                            m->stream);
    if (st == TSR_OK)
        st = settle(m);
    tsr_device_host_free(m->device, memory);
    return st;
}

static tsr_status make_experts(const tsr_model *m)
{
    const size_t element = tsr_device_activation_bytes(m->device);
    void *image = NULL;
    tsr_status st = tsr_device_host_alloc(
        m->device,
        tsr_step_array_bytes(TSR_STEP_EXPERTS, &m->plan->model, &m->plan->limits, element), &image);
    if (st == TSR_OK)
        st = tsr_ep_layer_make_experts(&m->ep, image, m->stream);
    if (st == TSR_OK)
        st = settle(m);
    tsr_device_host_free(m->device, image);
    return st;
}

static tsr_status take_flights(tsr_model *m)
{
    const tsr_model_facts *model = &m->plan->model;
    const size_t staged_rows = (size_t)tsr_staged_rows(model, &m->plan->limits);
    void *staged = NULL;
    tsr_status st = TSR_OK;
    for (int32_t f = 0; st == TSR_OK && f < m->flights; f++)
        st = tsr_flight_open(m->plan, &m->step, f, &m->flight[f]);
    if (st == TSR_OK)
        st = tsr_device_host_alloc(m->device, staged_rows * (size_t)model->vocab * sizeof(float),
                                   &staged);
    m->staged = staged;
    return st;
}

static uint64_t taken_since(const tsr_model *m, uint64_t before)
{
    const uint64_t now = tsr_device_memory_in_use(m->device);

    return now > before ? now - before : 0;
}

tsr_model_memory tsr_model_memory_in_use(const tsr_model *model)
{
    tsr_model_memory memory = model->taken;

    memory.rest = taken_since(model, memory.before + memory.weights + memory.kv);
    return memory;
}

static tsr_status take_model_memory(tsr_model *m)
{
    const tsr_plan *plan = m->plan;
    const int32_t rank = tsr_comm_rank(m->comm);
    tsr_work_shape work = tsr_work_shape_of(&plan->model, &plan->limits, plan->ranks);

    tsr_status st = tsr_arena_open(FIRST_BLOCK_BYTES, &m->arena);
    m->taken.before = tsr_device_memory_in_use(m->device);
    if (st == TSR_OK)
        st = tsr_weights_open(plan, m->device, rank, m->arena, &m->weights);
    m->taken.weights = taken_since(m, m->taken.before);
    if (st == TSR_OK)
        st = tsr_kv_cache_open(plan, m->device, m->arena, &m->cache);
    m->taken.kv = taken_since(m, m->taken.before + m->taken.weights);
    if (st == TSR_OK)
        st = tsr_step_open(plan, m->device, m->flights, &m->step);
    if (st == TSR_OK)
        st = take_flights(m);
    if (st == TSR_OK)
        st = tsr_device_reserve(m->device, &work);
    if (st != TSR_OK)
        tsr_log(TSR_LOG_ERROR,
                "no memory for %" PRIu64 " bytes of weights and the cache beside them: use more "
                "ranks, or plan with less",
                m->weights.bytes);
    return st;
}

static tsr_status open_streams(tsr_model *m)
{
    tsr_status st = tsr_device_stream_open(m->device, &m->stream);
    if (st == TSR_OK)
        st = tsr_device_stream_open(m->device, &m->putting);
    if (st == TSR_OK)
        st = tsr_device_stream_open(m->device, &m->reading);
    if (st == TSR_OK)
        st = tsr_device_mark_open(m->device, &m->read);
    return st;
}

/* Each step is collective from the exchange on; a rank that fails before it aborts the group, so
 * that its peers do not wait. */
static tsr_status build(tsr_model *m, const tsr_model_args *args)
{
    tsr_status st = open_streams(m);
    if (st == TSR_OK)
        st = take_model_memory(m);
    if (st == TSR_OK)
        st = tsr_ep_layer_open(args, &m->weights, &m->step, m->arena, &m->ep);
    if (st == TSR_OK)
        st = fill_rotary(m);
    if (st == TSR_OK)
        st = load_model(m, args->progress);
    if (st != TSR_OK)
        return st;
    scale_cache(m);
    return make_experts(m);
}

tsr_status tsr_model_open(const tsr_model_args *args, tsr_model **ret_model)
{
    const int32_t size = tsr_comm_size(args->comm);
    tsr_status st = TSR_OK;
    tsr_model *m = NULL;
    if (args->plan->ranks != size) {
        tsr_log(TSR_LOG_ERROR, "the plan is for %d ranks, but %d have come", args->plan->ranks,
                size);
        st = TSR_ERR_ARG;
    }
    if (st == TSR_OK) {
        m = calloc(1, sizeof(*m));
        st = m != NULL ? TSR_OK : TSR_ERR_MEMORY;
    }
    if (st == TSR_OK) {
        m->plan = args->plan;
        m->device = args->device;
        m->comm = args->comm;
        m->flights = tsr_device_flights(args->device);
        st = build(m, args);
    }
    if (st == TSR_OK) {
        *ret_model = m;
    } else {
        tsr_comm_abort(args->comm, st);
        tsr_model_close(m);
    }
    return st;
}

/* The streams go first, when nothing on them waits for a peer: what is on them works in the memory
 * of the others. Then the recordings, before the exchange whose work they hold. */
void tsr_model_close(tsr_model *model)
{
    if (model == NULL)
        return;
    if (model->ep.exchange != NULL)
        tsr_exchange_drain(model->ep.exchange, model->stream);
    tsr_device_stream_close(model->device, model->stream);
    tsr_device_stream_close(model->device, model->putting);
    tsr_device_stream_close(model->device, model->reading);
    tsr_recordings_close(&model->recordings, model->device);
    tsr_device_mark_close(model->device, model->read);
    tsr_device_host_free(model->device, model->staged);
    tsr_device_host_free(model->device, model->count.rows);
    tsr_stage_clock_close(&model->clock, model->device);
    for (int32_t f = 0; f < TSR_MAX_FLIGHTS; f++)
        tsr_flight_close(&model->flight[f]);
    tsr_ep_layer_close(&model->ep);
    tsr_step_close(&model->step);
    tsr_kv_cache_close(&model->cache);
    tsr_weights_close(&model->weights);
    tsr_arena_close(model->arena);
    free(model);
}
