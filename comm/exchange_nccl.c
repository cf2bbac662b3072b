/*
 * The host's side of an exchange between GPUs: memory, the order of launches, and what is said when
 * something is wrong. What moves stands in exchange_nccl_kernels.h.
 *
 *   poll    the group, and a fault in host memory: nothing is asked of the device
 *   text    copies the device's state and notices beside the work, which may be waiting; of answers
 *           that are taken as they come, the first word of each
 *   drain   waits for the stream; then one word to the device: wait for nobody any more
 */
#include "comm/exchange_nccl.h"

#include "comm/exchange_nccl_kernels.h"
#include "comm/exchange_plan.h"
#include "comm/nccl_cuda.h"
#include "comm/nccl_group.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <cuda_runtime.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_MS = 200, POLL_NS = 50000, NS_PER_MS = 1000000 };

/* Memory of the host that the device writes or reads while work is under way. */
typedef struct host_side {
    tsr_nccl_fault fault;
    tsr_nccl_state seen;
    int32_t let_go; /* what is copied to the state's */
} host_side;

typedef struct nccl_exchange {
    tsr_exchange base; /* first member */
    const tsr_exchange_memory *memory;
    tsr_nccl_group group;
    tsr_nccl_work work;
    void *block;
    host_side *host;
    unsigned char *notices; /* of the host: as text last saw them */
    int32_t *missing;       /* [ranks] scratch of text */
    uint32_t *coming;       /* [few_rows, slots] of the host: first words, as text last saw them */
    int32_t *asked;         /* [few_rows, slots] of the host: whom these are of, likewise */
    uint64_t *waited;       /* [ranks] of the host: the device's clocks, copied */
    int clock_khz;
    cudaStream_t looking; /* beside the work */
    bool faulty;          /* has been said */
} nccl_exchange;

static nccl_exchange *nccl_of(tsr_exchange *exchange)
{
    return (nccl_exchange *)(void *)exchange;
}

static tsr_nccl_state *state_of(const nccl_exchange *x)
{
    return (tsr_nccl_state *)(void *)(x->work.block + x->work.at.state);
}

/* The base as it stood where the fault was found. */
static tsr_exchange base_at(const nccl_exchange *x, const tsr_nccl_fault *fault)
{
    tsr_exchange base = x->base;

    base.step = fault->step;
    base.stage = fault->stage;
    return base;
}

static tsr_status say_fault(const nccl_exchange *x, const tsr_nccl_fault *fault)
{
    const tsr_exchange at = base_at(x, fault);
    const int32_t ranks = x->base.comm->size;

    if (fault->kind == TSR_NCCL_RANK)
        return tsr_send_plan_refuse(fault->row, fault->slot, fault->peer, ranks);
    if (fault->kind == TSR_NCCL_OVERFLOW)
        return tsr_exchange_overflow(&at, fault->row);
    const tsr_call mine = tsr_call_of_exchange(&at, TSR_CALL_DISPATCH);
    tsr_call theirs = mine;
    theirs.step = (mine.step & ~(uint64_t)UINT32_MAX) | (uint32_t)fault->row;
    theirs.stage = fault->slot;
    return tsr_call_mismatch(&mine, fault->peer, &theirs);
}

static tsr_status nccl_poll(tsr_exchange *exchange)
{
    nccl_exchange *x = nccl_of(exchange);
    const volatile tsr_nccl_fault *fault = &x->host->fault;

    if (!x->faulty && fault->kind != TSR_NCCL_NO_FAULT) {
        x->faulty = true;
        return say_fault(x, &x->host->fault);
    }
    return tsr_exchange_poll_group(exchange);
}

static tsr_status nccl_begin(tsr_exchange *exchange, tsr_stream stream)
{
    return tsr_nccl_begin(&nccl_of(exchange)->work, exchange->step, stream);
}

static tsr_status nccl_dispatch(tsr_exchange *exchange, tsr_stream stream)
{
    return tsr_nccl_dispatch(&nccl_of(exchange)->work, exchange->tokens, exchange->most, stream);
}

static tsr_status nccl_return(tsr_exchange *exchange, tsr_stream stream)
{
    return tsr_nccl_return(&nccl_of(exchange)->work, exchange->tokens, exchange->most, stream);
}

/* Not where ranks share a GPU, on which who waits for answers may keep away who computes them. */
static bool nccl_hand_over(tsr_exchange *exchange, tsr_exchange_coming *ret_coming)
{
    const nccl_exchange *x = nccl_of(exchange);

    if (x->work.alone == 0 || !tsr_nccl_is_few(&x->work, exchange->most))
        return false;
    _Static_assert(offsetof(tsr_nccl_state, failed) ==
                       offsetof(tsr_nccl_state, let_go) + sizeof(int32_t),
                   "either ends it");
    ret_coming->rows = x->work.window + x->work.at.coming_rows;
    ret_coming->ended = &state_of(x)->let_go;
    return true;
}

/* A return has waited by itself. */
static tsr_status nccl_wait(tsr_exchange *exchange, tsr_stream stream)
{
    tsr_status st = TSR_OK;

    if (exchange->phase == TSR_PHASE_DISPATCHED)
        st = tsr_nccl_arrive(&nccl_of(exchange)->work, exchange->most, stream);
    return st == TSR_OK ? nccl_poll(exchange) : st;
}

/* Whether a stream has passed everything, within so many milliseconds. */
static bool passes(cudaStream_t stream, int64_t ms)
{
    const struct timespec poll = {.tv_nsec = POLL_NS};
    const int64_t until = tsr_clock_ms() + ms;

    while (cudaStreamQuery(stream) == cudaErrorNotReady) {
        if (tsr_clock_ms() > until)
            return false;
        (void)nanosleep(&poll, NULL);
    }
    return cudaStreamQuery(stream) == cudaSuccess;
}

/* The device's state and notices, as they are now. */
static bool look(const nccl_exchange *x)
{
    const tsr_nccl_work *w = &x->work;

    return cudaMemcpyAsync(&x->host->seen, state_of(x), sizeof(x->host->seen),
                           cudaMemcpyDeviceToHost, x->looking) == cudaSuccess &&
           cudaMemcpyAsync(x->notices, w->window, w->at.notices_end, cudaMemcpyDeviceToHost,
                           x->looking) == cudaSuccess &&
           passes(x->looking, LOOK_MS);
}

/* Of the answers to the rows that went as packets: whose have not come while others have, or are not
 * taken. While none has, who reads them may not have come to wait. */
static int32_t look_for_answers(const nccl_exchange *x)
{
    const tsr_nccl_work *w = &x->work;
    const size_t slots = (size_t)x->base.tokens * (size_t)w->slots;
    bool some = false;
    int32_t missing = 0;

    if (slots == 0 || !tsr_nccl_is_few(w, x->base.tokens) ||
        cudaMemcpy2DAsync(x->coming, sizeof(*x->coming), w->window + w->at.coming_rows,
                          w->return_row_bytes, sizeof(*x->coming), slots, cudaMemcpyDeviceToHost,
                          x->looking) != cudaSuccess ||
        cudaMemcpyAsync(x->asked, w->block + w->at.send_ranks, slots * sizeof(*x->asked),
                        cudaMemcpyDeviceToHost, x->looking) != cudaSuccess ||
        !passes(x->looking, LOOK_MS))
        return 0;
    for (size_t i = 0; i < slots && !some; i++)
        some = x->coming[i] != TSR_NCCL_ABSENT;
    for (int32_t r = 0; r < w->ranks && some; r++) {
        bool absent = false;
        for (size_t i = 0; i < slots && !absent; i++)
            absent = x->asked[i] == r && x->coming[i] == TSR_NCCL_ABSENT;
        if (absent)
            x->missing[missing++] = r;
    }
    return missing;
}

static int32_t nccl_text(const tsr_exchange *exchange, size_t capacity, char *text)
{
    const nccl_exchange *x = (const nccl_exchange *)(const void *)exchange;
    const tsr_nccl_state *seen = &x->host->seen;
    tsr_exchange there = *exchange;

    if (!look(x))
        return tsr_exchange_text_base(exchange, capacity, text);
    int32_t missing =
        tsr_nccl_missing(&x->work.at, x->work.ranks, x->work.rank, x->notices, seen, x->missing);
    there.step = seen->step;
    there.stage = seen->stage;
    there.phase = (tsr_exchange_phase)seen->phase;
    if (there.phase == TSR_PHASE_RETURNING && seen->packed != 0)
        missing = look_for_answers(x);
    else if (there.phase == TSR_PHASE_RETURNING && missing == 0)
        there.phase = TSR_PHASE_STANDING;
    if (there.phase == TSR_PHASE_DISPATCHED && missing == 0) {
        missing = seen->packed != 0 ? look_for_answers(x) : 0;
        there.phase = missing > 0 ? TSR_PHASE_RETURNING : TSR_PHASE_ARRIVED;
    }
    const int32_t stage = tsr_exchange_text_base(&there, capacity, text);
    size_t used = strlen(text);
    for (int32_t i = 0; i < missing && used < capacity; i++) {
        const int n = snprintf(text + used, capacity - used, "%s%" PRId32,
                               i > 0 ? ", " : ", waiting for rank ", x->missing[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    return stage;
}

static void let_go(const nccl_exchange *x)
{
    x->host->let_go = 1;
    (void)cudaMemcpyAsync(&state_of(x)->let_go, &x->host->let_go, sizeof(x->host->let_go),
                          cudaMemcpyHostToDevice, x->looking);
}

static void nccl_drain(tsr_exchange *exchange, tsr_stream stream)
{
    nccl_exchange *x = nccl_of(exchange);
    const struct timespec poll = {.tv_nsec = POLL_NS};
    const int64_t until = tsr_clock_ms() + exchange->comm->deadline_ms;

    while (cudaStreamQuery((cudaStream_t)stream.native) == cudaErrorNotReady &&
           tsr_exchange_poll_group(exchange) == TSR_OK && tsr_clock_ms() < until)
        (void)nanosleep(&poll, NULL);
    let_go(x);
}

/* Whatever was opened; the rest is zero. */
static void free_parts(nccl_exchange *x)
{
    if (x->host != NULL && x->block != NULL && x->looking != NULL) {
        let_go(x);
        (void)cudaDeviceSynchronize();
    }
    tsr_nccl_group_close(&x->group);
    if (x->looking != NULL)
        (void)cudaStreamDestroy(x->looking);
    x->memory->release(x->memory->context, x->block);
    x->memory->host_release(x->memory->context, x->notices);
    x->memory->host_release(x->memory->context, x->host);
    x->memory->host_release(x->memory->context, x->waited);
    x->memory->host_release(x->memory->context, x->coming);
    x->memory->host_release(x->memory->context, x->asked);
    free(x->base.waited_ns);
    free(x->missing);
    free(x);
}

static void nccl_close(tsr_exchange *exchange)
{
    free_parts(nccl_of(exchange));
}

/* The device counts clocks, beside the work; of a card that is busy they are its fastest. */
static const int64_t *nccl_waited_ns(tsr_exchange *exchange)
{
    nccl_exchange *x = nccl_of(exchange);
    const tsr_nccl_work *w = &x->work;

    if (cudaMemcpyAsync(x->waited, w->block + w->at.waited, (size_t)w->ranks * sizeof(uint64_t),
                        cudaMemcpyDeviceToHost, x->looking) == cudaSuccess &&
        passes(x->looking, LOOK_MS)) {
        for (int32_t r = 0; r < w->ranks; r++)
            exchange->waited_ns[r] =
                (int64_t)((double)x->waited[r] * NS_PER_MS / (double)x->clock_khz);
    }
    return exchange->waited_ns;
}

static const tsr_exchange_ops nccl_ops = {
    .name = "nccl",
    .begin = nccl_begin,
    .dispatch = nccl_dispatch,
    .return_answers = nccl_return,
    .hand_over = nccl_hand_over,
    .wait = nccl_wait,
    .poll = nccl_poll,
    .text = nccl_text,
    .waited_ns = nccl_waited_ns,
    .drain = nccl_drain,
    .close = nccl_close,
};

/* Each peer has room for as many of each rank. */
tsr_status tsr_exchange_copy_plainly(tsr_exchange *exchange, int32_t tokens, tsr_stream stream)
{
    const nccl_exchange *x = nccl_of(exchange);
    const tsr_nccl_work *w = &x->work;
    const size_t bytes = (size_t)tokens * w->row_bytes;
    tsr_status st = TSR_OK;

    if (exchange->ops != &nccl_ops || (int64_t)tokens * w->ranks > w->max_arrivals)
        return TSR_ERR_ARG;
    /* Each rank begins with another peer. */
    for (int32_t i = 1; st == TSR_OK && i < w->ranks; i++) {
        unsigned char *to = w->peer[(w->rank + i) % w->ranks] + w->at.arrived_rows;
        st = TSR_NCCL_CUDA(cudaMemcpyAsync(to + (size_t)w->rank * bytes, w->block + w->at.send_rows,
                                           bytes, cudaMemcpyDeviceToDevice,
                                           (cudaStream_t)stream.native));
    }
    return st;
}

tsr_status tsr_exchange_bare_packets(tsr_exchange *exchange, int32_t tokens, int32_t ctas,
                                     tsr_stream stream)
{
    const tsr_nccl_work *w = &nccl_of(exchange)->work;

    if (exchange->ops != &nccl_ops || tokens > w->at.few_rows || ctas < 1 ||
        ctas > TSR_EXCHANGE_BARE_CTAS || (int64_t)tokens * w->ranks > w->max_arrivals)
        return TSR_ERR_ARG;
    return tsr_nccl_bare_packets(w, tokens, ctas, stream);
}

tsr_status tsr_exchange_echo(tsr_exchange *exchange, const tsr_exchange_coming *coming,
                             tsr_stream stream)
{
    const tsr_nccl_work *w = &nccl_of(exchange)->work;

    if (exchange->ops != &nccl_ops || w->return_row_bytes > w->row_bytes)
        return TSR_ERR_ARG;
    return coming == NULL ? tsr_nccl_echo(w, stream)
                          : tsr_nccl_echo_and_take(w, exchange->tokens, exchange->most, stream);
}

static tsr_status read_card(const nccl_exchange *x, tsr_nccl_card *ret_card)
{
    struct cudaDeviceProp properties;
    tsr_nccl_card card = {
        .call = tsr_call_of_open(&x->base),
        .may_share = x->memory->may_share_card,
    };
    int version = 0;

    const tsr_status st = TSR_NCCL_CUDA(cudaGetDeviceProperties(&properties, x->memory->card));
    if (st != TSR_OK || x->group.library->get_version(&version) != ncclSuccess)
        return st != TSR_OK ? st : TSR_ERR_DEVICE;
    card.version = version;
    memcpy(card.uuid, properties.uuid.bytes, sizeof(card.uuid));
    *ret_card = card;
    return TSR_OK;
}

static tsr_status zero(void *memory, size_t bytes)
{
    const tsr_status st = TSR_NCCL_CUDA(cudaMemset(memory, 0, bytes));
    return st == TSR_OK ? TSR_NCCL_CUDA(cudaDeviceSynchronize()) : st;
}

/* Of what text sees of answers. */
static tsr_status take_places(nccl_exchange *x)
{
    const tsr_exchange_memory *m = x->memory;
    const size_t places = (size_t)x->work.at.few_rows * (size_t)x->work.slots;
    void *coming = NULL;
    void *asked = NULL;

    tsr_status st = TSR_OK;
    if (places > 0)
        st = m->host_alloc(m->context, places * sizeof(*x->coming), &coming);
    x->coming = coming;
    if (st == TSR_OK && places > 0)
        st = m->host_alloc(m->context, places * sizeof(*x->asked), &asked);
    x->asked = asked;
    return st;
}

static tsr_status take_memory(nccl_exchange *x)
{
    const tsr_exchange_memory *m = x->memory;
    const size_t ranks = (size_t)x->base.comm->size;
    void *host = NULL;
    void *notices = NULL;

    tsr_status st = m->alloc(m->context, x->work.at.block_bytes, &x->block);
    x->work.block = x->block;
    if (st == TSR_OK)
        st = m->host_alloc(m->context, sizeof(*x->host), &host);
    x->host = host;
    if (st == TSR_OK)
        st = m->host_alloc(m->context, x->work.at.notices_end, &notices);
    x->notices = notices;
    void *waited = NULL;
    if (st == TSR_OK)
        st = m->host_alloc(m->context, ranks * sizeof(*x->waited), &waited);
    x->waited = waited;
    if (st == TSR_OK)
        st = take_places(x);
    x->missing = calloc(ranks, sizeof(*x->missing));
    x->base.waited_ns = calloc(ranks, sizeof(*x->base.waited_ns));
    if (st == TSR_OK && (x->missing == NULL || x->base.waited_ns == NULL))
        st = TSR_ERR_MEMORY;
    if (st == TSR_OK)
        st = TSR_NCCL_CUDA(cudaDeviceGetAttribute(&x->clock_khz, cudaDevAttrClockRate, m->card));
    if (st == TSR_OK)
        st = TSR_NCCL_CUDA(cudaStreamCreateWithFlags(&x->looking, cudaStreamNonBlocking));
    return st;
}

static void lay_out(nccl_exchange *x)
{
    const tsr_exchange_shape *shape = &x->base.shape;
    const tsr_nccl_layout *at = &x->work.at;
    unsigned char *window = x->group.memory;
    unsigned char *block = x->work.block;

    x->work.window = window;
    x->base.buffers = (tsr_exchange_buffers){
        .send_rows = block + at->send_rows,
        .send_ranks = (int32_t *)(void *)(block + at->send_ranks),
        .arrived_rows = window + at->arrived_rows,
        .arrived_count = (int32_t *)(void *)(block + at->arrived_count),
        .answer_of = (int32_t *)(void *)(window + at->answer_of),
        .answer_parts = (void **)(void *)(block + at->parts),
        .answer_part_bits = TSR_NCCL_PART_BITS,
        .returned_rows = window + at->returned_rows,
        .arrived_capacity = shape->max_arrivals,
        .answer_capacity = shape->max_arrivals * shape->slots,
    };
}

/* Before this rank's first dispatch nobody answers. */
static tsr_status empty_places(const nccl_exchange *x)
{
    const tsr_nccl_layout *at = &x->work.at;
    const size_t bytes =
        (size_t)at->few_rows * (size_t)x->work.slots * (size_t)x->work.return_row_bytes;

    return TSR_NCCL_CUDA(
        cudaMemset(x->work.window + at->coming_rows, TSR_NCCL_ABSENT & 0xff, bytes));
}

/* Memory, communicator, window, peers. Whatever was opened is closed by the caller. */
static tsr_status open_parts(nccl_exchange *x)
{
    const tsr_nccl_library *library = NULL;
    tsr_nccl_card card;

    tsr_status st = TSR_NCCL_CUDA(cudaSetDevice(x->memory->card));
    if (st == TSR_OK)
        st = tsr_nccl_library_open(&library);
    x->group.library = library;
    if (st == TSR_OK)
        st = read_card(x, &card);
    if (st == TSR_OK)
        st = take_memory(x);
    if (st == TSR_OK)
        st = TSR_NCCL_CUDA(cudaHostGetDevicePointer((void **)&x->work.fault, &x->host->fault, 0));
    if (st == TSR_OK)
        st = tsr_nccl_group_open(x->base.comm, library, &card, &x->group);
    if (st == TSR_OK)
        st = tsr_nccl_group_window(&x->group, x->work.at.window_bytes, zero);
    if (st != TSR_OK)
        return st;
    lay_out(x);
    st = empty_places(x);
    if (st != TSR_OK)
        return st;
    const tsr_stream looking = {.native = x->looking};
    st = tsr_nccl_find_peers(&x->work, x->group.window, looking);
    if (st == TSR_OK)
        st = TSR_NCCL_CUDA(cudaStreamSynchronize(x->looking));
    if (st == TSR_OK)
        st = TSR_NCCL_CUDA(cudaMemcpy(x->work.peer, x->work.block + x->work.at.peers,
                                      (size_t)x->work.ranks * sizeof(void *),
                                      cudaMemcpyDeviceToHost));
    return st;
}

tsr_status tsr_exchange_nccl_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                  tsr_exchange **ret_exchange)
{
    const int64_t most = (int64_t)shape->max_tokens + TSR_NCCL_MOST_FEW;

    if (most * shape->slots > TSR_NCCL_PART_ROWS || comm->size > TSR_NCCL_MOST_RANKS) {
        tsr_log(TSR_LOG_ERROR,
                "exchange: %" PRId32 " rows with %" PRId32 " slots of each of %" PRId32
                " ranks; between GPUs at most %d slots of a rank and %d ranks",
                shape->max_tokens, shape->slots, comm->size, (int)TSR_NCCL_PART_ROWS,
                (int)TSR_NCCL_MOST_RANKS);
        return TSR_ERR_ARG;
    }
    nccl_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return TSR_ERR_MEMORY;
    x->memory = comm->memory;
    x->base = tsr_exchange_base(comm, &nccl_ops, shape);
    x->work = (tsr_nccl_work){
        .at = tsr_nccl_layout_of(shape, comm->size),
        .row_bytes = shape->row_bytes,
        .return_row_bytes = shape->return_row_bytes,
        .rank = comm->rank,
        .ranks = comm->size,
        .slots = shape->slots,
        .max_tokens = shape->max_tokens,
        .max_arrivals = shape->max_arrivals,
        .alone = comm->memory->may_share_card ? 0 : 1,
    };
    const tsr_status st = open_parts(x);
    if (st != TSR_OK) {
        comm->ops->abort(comm, st); /* or peers would be waited for */
        free_parts(x);
        return st;
    }
    *ret_exchange = &x->base;
    return TSR_OK;
}

tsr_status tsr_nccl_cuda_status(int error, const char *call, const char *file, int line)
{
    if (error == cudaSuccess)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "%s:%d: %s: %s", file, line, call,
            cudaGetErrorString((cudaError_t)error));
    return error == cudaErrorMemoryAllocation ? TSR_ERR_MEMORY : TSR_ERR_DEVICE;
}
