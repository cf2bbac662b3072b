/*
 * One-sided exchange: ranks store straight into each other's windows; exchange_nccl_kernels.h draws
 * it. A target's rows are listed by whole CTAs, copied by warps in pieces of 2 KiB, and announced
 * by the last CTA that is through with them; few rows go as packets instead.
 */
#include "comm/exchange_nccl_arrive.cuh"
#include "comm/exchange_nccl_device.cuh"
#include "comm/exchange_nccl_packets.cuh"

extern "C" {
#include "comm/nccl_cuda.h"
}

#include <nccl.h>
#include <nccl_device.h>

enum {
    ARRIVE_THREADS = 1024,
    MOST_CTAS = 128, /* of a dispatch; ranks that share a GPU all need room to wait */
    ARRIVE_CTAS = 16,
    RETURN_CTAS = 64,
    BYTES_OF_CTA = 16384 /* what one CTA of a target is worth */
};

/* Whether a row names the target. A rank that is none is a fault, left by one CTA for all. */
static __device__ bool names(const tsr_nccl_work &w, int32_t row, int32_t target)
{
    const int32_t *ranks = ints(w, w.at.send_ranks) + (int64_t)row * w.slots;
    const bool check = blockIdx.x == 0 && target == 0;
    bool found = false;

    for (int32_t k = 0; k < w.slots; k++) {
        const int32_t rank = ranks[k];
        found |= rank == target;
        if (check && (rank < -1 || rank >= w.ranks)) {
            tsr_nccl_fault fault = {};
            fault.kind = TSR_NCCL_RANK;
            fault.peer = rank;
            fault.row = row;
            fault.slot = k;
            leave_fault(w, fault);
        }
    }
    return found;
}

/* The rows that go to the target, in order. Returns how many; the list is the CTA's to read. */
static __device__ int32_t list_rows(const tsr_nccl_work &w, int32_t tokens, int32_t target,
                                    int32_t *list)
{
    int32_t count = 0;

    for (int32_t first = 0; first < tokens; first += (int32_t)blockDim.x) {
        const int32_t row = first + (int32_t)threadIdx.x;
        const bool goes = row < tokens && names(w, row, target);
        const int32_t at = place_in_cta(goes ? 1 : 0, &count);
        if (goes)
            list[at] = row;
    }
    __syncthreads();
    return count;
}

/* Tells everybody how many rows go to the target, and in which forms. */
static __device__ void announce(const tsr_nccl_work &w, const tsr_nccl_state &state, int32_t target,
                                int32_t rows)
{
    tsr_nccl_notice n;

    n.epoch = state.epoch;
    n.rows = rows;
    n.step = (uint32_t)state.step;
    n.stage = state.stage;
    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += (int32_t)blockDim.x)
        post(w.peer[r] + notice_at(w, n.epoch, w.rank, target), n);
    if (target == 0 && threadIdx.x == 0)
        state_of(w)->phase = TSR_PHASE_DISPATCHED;
}

/* What everybody sends to one target, as this rank needs it. */
typedef struct column {
    int32_t first; /* of this rank's rows among the target's */
    int32_t mine;
    int64_t total;
} column;

/* Waits for everybody's notice about the target. False: for nothing. */
static __device__ bool read_column(const tsr_nccl_work &w, uint32_t epoch, int32_t target,
                                   column *ret_column)
{
    __shared__ unsigned long long total;
    __shared__ int32_t first;
    __shared__ int32_t mine;
    bool come = true;

    if (threadIdx.x == 0) {
        total = 0;
        first = 0;
        mine = 0;
    }
    __syncthreads();
    for (int32_t s = (int32_t)threadIdx.x; s < w.ranks; s += (int32_t)blockDim.x) {
        tsr_nccl_notice n = {};
        come = await(w, w.window + notice_at(w, epoch, s, target), epoch, &n) && come;
        n.rows &= TSR_NCCL_ROWS;
        (void)atomicAdd(&total, (unsigned long long)n.rows);
        if (s < w.rank)
            (void)atomicAdd(&first, n.rows);
        if (s == w.rank)
            mine = n.rows;
    }
    if (__syncthreads_and(come) == 0)
        return false;
    ret_column->first = first;
    ret_column->mine = mine;
    ret_column->total = (int64_t)total;
    return true;
}

/* What the target learns of a row beside it. */
static __device__ __forceinline__ void copy_origin(const tsr_nccl_work &w, unsigned char *window,
                                                   int64_t at, int32_t row)
{
    const int lane = (int)threadIdx.x % TSR_NCCL_LANES;
    const int32_t *from = ints(w, w.at.send_ranks) + (int64_t)row * w.slots;
    int32_t *to = (int32_t *)(window + w.at.slot_ranks) + at * w.slots;

    for (int32_t k = lane; k < w.slots; k += TSR_NCCL_LANES)
        to[k] = from[k];
    if (lane == 0) {
        ((int32_t *)(window + w.at.origin_row))[at] = row;
        ((int32_t *)(window + w.at.origin_rank))[at] = w.rank;
    }
}

static __device__ void copy_rows(const tsr_nccl_work &w, int32_t target, const int32_t *list,
                                 const column &c)
{
    const int64_t pieces = pieces_of(w.row_bytes);
    const int64_t warps = (int64_t)gridDim.x * TSR_NCCL_WARPS;
    unsigned char *window = w.peer[target];

    for (int64_t n = (int64_t)blockIdx.x * TSR_NCCL_WARPS + threadIdx.x / TSR_NCCL_LANES;
         n < c.mine * pieces; n += warps) {
        const int64_t i = n / pieces;
        const int32_t row = list[i];
        const int64_t at = c.first + i;
        copy_piece(window + w.at.arrived_rows + (uint64_t)at * w.row_bytes,
                   w.block + w.at.send_rows + (uint64_t)row * w.row_bytes, w.row_bytes,
                   n - i * pieces);
        if (n == i * pieces)
            copy_origin(w, window, at, row);
    }
}

static __device__ void say_sent(const tsr_nccl_work &w, uint32_t epoch, int32_t target)
{
    tsr_nccl_notice n = {};

    n.epoch = epoch;
    post(w.peer[target] + w.at.sent + (uint64_t)w.rank * sizeof(n), n);
}

/* Copies the listed rows, and says so when all CTAs of the target are through. Rows that the target
 * has no room for stay here: it sees that itself. */
static __device__ void send(const tsr_nccl_work &w, uint32_t epoch, int32_t target,
                            const int32_t *list)
{
    column c = {};

    if (!read_column(w, epoch, target, &c))
        return;
    if (c.total <= w.max_arrivals)
        copy_rows(w, target, list, c);
    if (is_last((uint32_t *)(w.block + w.at.done) + target) && threadIdx.x == 0)
        say_sent(w, epoch, target);
}

static_assert((int)TSR_NCCL_MOST_FEW <= (int)TSR_NCCL_THREADS, "a thread looks at each");

/* Few rows: everything in one kernel, a row of CTAs for each target. Nobody waits for the word about
 * packets; it tells who has come. */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    dispatch_few_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens, int32_t forms)
{
    __shared__ int32_t list[TSR_NCCL_MOST_FEW];
    const tsr_nccl_state state = read_state(w);
    const int32_t target = (int32_t)blockIdx.y;
    const int32_t row = (int32_t)threadIdx.x;
    const bool goes = row < tokens && names(w, row, target); /* read beside the state */
    int32_t count = 0;

    if (cta_is_off(state))
        return;
    const int32_t at = place_in_cta(goes ? 1 : 0, &count);
    if (goes)
        list[at] = row;
    __syncthreads();
    if (blockIdx.x == 0)
        announce(w, state, target, count | forms);
    if ((forms & TSR_NCCL_ROWS_PACKED) == 0) {
        send(w, state.epoch, target, list);
        return;
    }
    pack_rows(w, state.epoch, target, list, count);
    if (blockIdx.x == 0 && threadIdx.x == 0)
        say_sent(w, state.epoch, target);
}

static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    list_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens, int32_t forms)
{
    const tsr_nccl_state state = read_state(w);
    const int32_t target = (int32_t)blockIdx.y;
    int32_t *list = ints(w, w.at.listed) + (int64_t)target * w.max_tokens;

    if (cta_is_off(state))
        return;
    const int32_t count = list_rows(w, tokens, target, list);
    announce(w, state, target, count | forms);
}

static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    send_kernel(const __grid_constant__ tsr_nccl_work w)
{
    const tsr_nccl_state state = read_state(w);
    const int32_t target = (int32_t)blockIdx.y;

    if (cta_is_off(state))
        return;
    send(w, state.epoch, target, ints(w, w.at.listed) + (int64_t)target * w.max_tokens);
}

static __device__ void count_arrivals(const tsr_nccl_work &w, int32_t rows, int32_t answers)
{
    *ints(w, w.at.arrived_count) = rows;
    *ints(w, w.at.answer_count) = answers;
}

/* The next dispatch's; never 0, which is what a place holds where nothing has come. */
static __device__ uint32_t epoch_after(uint32_t epoch)
{
    return epoch == UINT32_MAX ? 2 : epoch + 1;
}

/* Waits for the word about rows that come as they are. False: for nothing. */
static __device__ bool await_rows(const tsr_nccl_work &w, uint32_t epoch,
                                  const tsr_nccl_sources &from)
{
    bool waited = false;
    bool come = true;

    for (int32_t s = (int32_t)threadIdx.x; s < w.ranks; s += (int32_t)blockDim.x) {
        const unsigned char *at = w.window + w.at.sent + (uint64_t)s * sizeof(tsr_nccl_notice);
        tsr_nccl_notice sent;
        ints(w, w.at.forms)[s] = from.forms[s];
        if ((from.forms[s] & TSR_NCCL_ROWS_PACKED) != 0)
            continue;
        waited = true;
        come = await(w, at, epoch, &sent) && come;
    }
    if (waited)
        __threadfence_system(); /* what was sent is read after this */
    return come;
}

/* By the first CTA: what has arrived, and the answers to it. */
static __device__ void number_arrivals(const tsr_nccl_work &w, const tsr_nccl_state &state,
                                       const tsr_nccl_sources &from)
{
    tsr_nccl_state *next = state_of(w);
    const int32_t rows = from.first[w.ranks];
    const bool come = unpack_origins(w, state.epoch, from) && await_rows(w, state.epoch, from);

    if (__syncthreads_and(come) == 0) {
        count_arrivals(w, 0, 0);
        return;
    }
    const int32_t answers = number_answers(w, rows);
    if (threadIdx.x != 0)
        return;
    count_arrivals(w, rows, answers);
    next->answered = state.epoch;
    next->epoch = epoch_after(state.epoch);
    next->stage = state.stage + 1;
    next->phase = TSR_PHASE_ARRIVED;
}

/* The first CTA learns what comes, the others take packets apart. */
static __global__ void __launch_bounds__(ARRIVE_THREADS)
    arrive_kernel(const __grid_constant__ tsr_nccl_work w)
{
    extern __shared__ int32_t numbers[];
    const tsr_nccl_sources from = {numbers, numbers + w.ranks, numbers + 2 * w.ranks + 1};
    const tsr_nccl_state state = read_state(w);
    const bool first = blockIdx.x == 0;
    const bool off = cta_is_off(state);

    if (!first && threadIdx.x == 0)
        (void)atomicAdd((uint32_t *)(w.block + w.at.done) + w.ranks, 1U);
    if (off || !read_sources(w, state, from)) {
        if (first)
            count_arrivals(w, 0, 0);
        return;
    }
    if (first)
        number_arrivals(w, state, from);
    else
        unpack_rows(w, state.epoch, from, thread_of_grid() - blockDim.x,
                    threads_of_grid() - blockDim.x);
}

/* Each answer to the slot it is for, where no packets are wanted. */
static __device__ void copy_answers(const tsr_nccl_work &w)
{
    const int64_t answers = *ints(w, w.at.answer_count);
    const int64_t pieces = pieces_of(w.return_row_bytes);
    const int64_t warps = (int64_t)gridDim.x * TSR_NCCL_WARPS;

    for (int64_t n = (int64_t)blockIdx.x * TSR_NCCL_WARPS + threadIdx.x / TSR_NCCL_LANES;
         n < answers * pieces; n += warps) {
        const int64_t a = n / pieces;
        const int32_t slot = ints(w, w.at.answer_slot)[a];
        const int32_t rank = ints(w, w.at.answer_rank)[a];
        if ((ints(w, w.at.forms)[rank] & TSR_NCCL_ANSWERS_PACKED) != 0)
            continue;
        copy_piece(w.peer[rank] + w.at.returned_rows + (uint64_t)slot * w.return_row_bytes,
                   w.block + w.at.answers + (uint64_t)a * w.return_row_bytes, w.return_row_bytes,
                   n - a * pieces);
    }
}

/* Whether any source wants its answers in this form; the same for all threads of a CTA. */
static __device__ bool any_wants(const tsr_nccl_work &w, bool packed)
{
    bool found = false;

    for (int32_t s = (int32_t)threadIdx.x; s < w.ranks; s += TSR_NCCL_THREADS)
        found |= ((ints(w, w.at.forms)[s] & TSR_NCCL_ANSWERS_PACKED) != 0) == packed;
    return __syncthreads_or(found) != 0;
}

static __device__ void say_returned(const tsr_nccl_work &w, uint32_t epoch)
{
    tsr_nccl_notice n = {};

    n.epoch = epoch;
    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += TSR_NCCL_THREADS)
        post(w.peer[r] + w.at.returned + (uint64_t)w.rank * sizeof(n), n);
}

/* By one CTA: waits until all have said that their answers are here. */
static __device__ void await_answers(const tsr_nccl_work &w, uint32_t epoch)
{
    bool come = true;

    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += TSR_NCCL_THREADS) {
        const unsigned char *at = w.window + w.at.returned + (uint64_t)r * sizeof(tsr_nccl_notice);
        tsr_nccl_notice theirs;
        come = await(w, at, epoch, &theirs) && come;
    }
    __threadfence_system(); /* what has returned is read after this */
    if (__syncthreads_and(come) != 0 && threadIdx.x == 0)
        state_of(w)->phase = TSR_PHASE_STANDING;
}

/* Gives answers, then takes its own: as packets by all CTAs, or by the last, on everybody's word. */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    return_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens, int32_t forms)
{
    const tsr_nccl_state state = read_state(w);
    const uint32_t epoch = state.answered;
    bool last = blockIdx.x == 0;

    if (cta_is_off(state))
        return;
    if (blockIdx.x == 0 && threadIdx.x == 0)
        state_of(w)->phase = TSR_PHASE_RETURNING;
    if (any_wants(w, true))
        pack_answers(w, epoch);
    if (any_wants(w, false)) {
        copy_answers(w);
        last = is_last((uint32_t *)(w.block + w.at.done) + w.ranks + 1);
    }
    if (last)
        say_returned(w, epoch);
    if ((forms & TSR_NCCL_ANSWERS_PACKED) != 0)
        unpack_answers(w, epoch, tokens);
    else if (last)
        await_answers(w, epoch);
}

static __global__ void begin_kernel(const __grid_constant__ tsr_nccl_work w, uint64_t step)
{
    tsr_nccl_state *state = state_of(w);

    state->step = step;
    state->stage = 0;
    state->phase = TSR_PHASE_STANDING;
    if (state->epoch == 0)
        state->epoch = 1;
}

static __global__ void find_peers_kernel(const __grid_constant__ tsr_nccl_work w,
                                         ncclWindow_t handle)
{
    unsigned char **peers = (unsigned char **)(w.block + w.at.peers);

    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += (int32_t)blockDim.x)
        peers[r] = r == w.rank ? w.window : (unsigned char *)ncclGetLsaPointer(handle, 0, r);
}

#define LAUNCHED() TSR_NCCL_CUDA(cudaGetLastError())

static cudaStream_t native(tsr_stream stream)
{
    return (cudaStream_t)stream.native;
}

extern "C" tsr_status tsr_nccl_find_peers(const tsr_nccl_work *work, void *handle,
                                          tsr_stream stream)
{
    find_peers_kernel<<<1, TSR_NCCL_LANES, 0, native(stream)>>>(*work, (ncclWindow_t)handle);
    return LAUNCHED();
}

extern "C" tsr_status tsr_nccl_begin(const tsr_nccl_work *work, uint64_t step, tsr_stream stream)
{
    begin_kernel<<<1, 1, 0, native(stream)>>>(*work, step);
    return LAUNCHED();
}

/* CTAs of each target that so many bytes are worth. */
static unsigned ctas_for(const tsr_nccl_work *work, uint64_t bytes)
{
    const uint64_t most = (uint64_t)work->ranks < MOST_CTAS ? MOST_CTAS / (uint64_t)work->ranks : 1;
    const uint64_t wanted = (bytes + BYTES_OF_CTA - 1) / BYTES_OF_CTA;

    return (unsigned)(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

/* Of so many tokens of this rank. */
static int32_t forms_of(const tsr_nccl_work *work, int32_t tokens)
{
    return (tokens <= work->at.few_rows ? TSR_NCCL_ROWS_PACKED : 0) |
           (tokens <= work->at.few_answers ? TSR_NCCL_ANSWERS_PACKED : 0);
}

extern "C" tsr_status tsr_nccl_dispatch(const tsr_nccl_work *work, int32_t tokens,
                                        tsr_stream stream)
{
    const unsigned ranks = (unsigned)work->ranks;
    const int32_t forms = forms_of(work, tokens);
    const dim3 grid(ctas_for(work, (uint64_t)tokens * work->row_bytes), ranks);

    if (tokens <= TSR_NCCL_MOST_FEW) {
        dispatch_few_kernel<<<grid, TSR_NCCL_THREADS, 0, native(stream)>>>(*work, tokens, forms);
        return LAUNCHED();
    }
    list_kernel<<<dim3(1, ranks), TSR_NCCL_THREADS, 0, native(stream)>>>(*work, tokens, forms);
    const tsr_status st = LAUNCHED();
    if (st != TSR_OK)
        return st;
    send_kernel<<<grid, TSR_NCCL_THREADS, 0, native(stream)>>>(*work);
    return LAUNCHED();
}

extern "C" tsr_status tsr_nccl_arrive(const tsr_nccl_work *work, tsr_stream stream)
{
    const size_t numbers = (3 * (size_t)work->ranks + 2) * sizeof(int32_t);

    arrive_kernel<<<ARRIVE_CTAS, ARRIVE_THREADS, numbers, native(stream)>>>(*work);
    return LAUNCHED();
}

extern "C" tsr_status tsr_nccl_return(const tsr_nccl_work *work, int32_t tokens, tsr_stream stream)
{
    return_kernel<<<RETURN_CTAS, TSR_NCCL_THREADS, 0, native(stream)>>>(*work, tokens,
                                                                        forms_of(work, tokens));
    return LAUNCHED();
}
