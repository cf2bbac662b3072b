/*
 * One-sided exchange: ranks store straight into each other's windows; exchange_nccl_kernels.h draws
 * it. A target's rows are listed by whole CTAs, copied by warps in pieces of 2 KiB, and announced
 * by the last CTA that is through with them; few rows go as packets instead.
 */
#include "comm/exchange_nccl_arrive.cuh"
#include "comm/exchange_nccl_device.cuh"
#include "comm/exchange_nccl_launch.cuh"

#include <nccl.h>
#include <nccl_device.h>

enum {
    MOST_CTAS = 128,      /* that send rows as they are */
    BYTES_OF_CTA = 16384, /* what one CTA of a target is worth */
    LISTED = 4            /* rows that a thread lists at once */
};

static __device__ __forceinline__ bool names(const tsr_nccl_work &w, int32_t row, int32_t target)
{
    const int32_t *ranks = ints(w, w.at.send_ranks) + (int64_t)row * w.slots;
    bool found = false;

#pragma unroll 8
    for (int32_t k = 0; k < w.slots; k++)
        found |= ranks[k] == target;
    return found;
}

/* By one CTA for all: a slot that names a rank that is none is a fault. */
static __device__ __noinline__ void check_ranks(const tsr_nccl_work &w, uint64_t step,
                                                int32_t stage, int32_t tokens)
{
    const int64_t slots = (int64_t)tokens * w.slots;

    for (int64_t i = threadIdx.x; i < slots; i += blockDim.x) {
        const int32_t rank = ints(w, w.at.send_ranks)[i];
        tsr_nccl_fault fault = {};
        if (rank >= -1 && rank < w.ranks)
            continue;
        fault.kind = TSR_NCCL_RANK;
        fault.peer = rank;
        fault.row = (int32_t)(i / w.slots);
        fault.slot = (int32_t)(i % w.slots);
        leave_fault(w, step, stage, fault);
    }
}

/* The rows that go to the target, in order. Returns how many; the list is the CTA's to read. */
static __device__ int32_t list_rows(const tsr_nccl_work &w, int32_t tokens, int32_t target,
                                    int32_t *list)
{
    int32_t count = 0;

    for (int32_t begin = (int32_t)threadIdx.x; begin - (int32_t)threadIdx.x < tokens;
         begin += (int32_t)blockDim.x * LISTED) {
        bool goes[LISTED]; /* read at once */
#pragma unroll
        for (int i = 0; i < LISTED; i++) {
            const int32_t row = begin + i * (int32_t)blockDim.x;
            goes[i] = row < tokens && names(w, row, target);
        }
#pragma unroll
        for (int i = 0; i < LISTED; i++) {
            const int32_t at = place_in_cta(goes[i] ? 1 : 0, &count);
            if (goes[i])
                list[at] = begin + i * (int32_t)blockDim.x;
        }
    }
    __syncthreads();
    return count;
}

/* By a warp: tells everybody what goes to the target, and in which forms. */
static __device__ void announce(const tsr_nccl_work &w, const tsr_nccl_state &now, int32_t target,
                                int32_t told)
{
    tsr_nccl_notice n;

    n.epoch = now.epoch;
    n.told = told;
    n.step = (uint32_t)now.step;
    n.stage = now.stage;
#pragma unroll 1
    for (int32_t r = lane_of_warp(); r < w.ranks; r += TSR_NCCL_LANES)
        post(w.peer[r] + notice_at(w, n.epoch, w.rank, target), n);
}

/* What everybody sends to one target, as this rank needs it. */
typedef struct column {
    unsigned long long total;
    int32_t first; /* of this rank's rows among the target's */
    int32_t mine;
} column;

/* Whom a CTA sends rows to: targets one after another, by turns, in whose order lists and columns
 * stand. */
typedef struct sending {
    int32_t first;
    int32_t targets;
    int32_t apart; /* entries from one list to the next */
    const int32_t *list;
    column *columns;
} sending;

/* Waits for everybody's notices about the targets. False: for nothing. */
static __device__ bool read_columns(const tsr_nccl_work &w, uint32_t epoch, const sending &to)
{
    bool come = true;

    for (int32_t t = (int32_t)threadIdx.x; t < to.targets; t += (int32_t)blockDim.x)
        to.columns[t] = {};
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < to.targets * w.ranks; i += (int32_t)blockDim.x) {
        const int32_t t = i / w.ranks;
        const int32_t s = i - t * w.ranks;
        tsr_nccl_notice n = {};
        come = await(w, w.window + notice_at(w, epoch, s, to.first + t), epoch, &n) && come;
        const int32_t rows = n.told;
        (void)atomicAdd(&to.columns[t].total, (unsigned long long)rows);
        if (s < w.rank)
            (void)atomicAdd(&to.columns[t].first, rows);
        if (s == w.rank)
            to.columns[t].mine = rows;
    }
    return __syncthreads_and(come) != 0;
}

/* Where the answers to a row go that arrives at `at`: those that the target is asked for. */
static __device__ __forceinline__ void copy_places(const tsr_nccl_work &w, int32_t target,
                                                   int64_t at, int32_t row)
{
    const int32_t *ranks = ints(w, w.at.send_ranks) + (int64_t)row * w.slots;
    int32_t *to = (int32_t *)(w.peer[target] + w.at.answer_of) + at * w.slots;
    const int32_t first = first_answer(w, w.rank, row, false);

    for (int32_t k = lane_of_warp(); k < w.slots; k += TSR_NCCL_LANES)
        to[k] = ranks[k] == target ? first + k : -1;
}

/* Most rows that go to one target that has room; of others it is seen there. */
static __device__ int32_t most_rows(const tsr_nccl_work &w, const sending &to)
{
    int32_t most = 0;

    for (int32_t t = 0; t < to.targets; t++) {
        if (to.columns[t].total <= (unsigned long long)w.max_arrivals)
            most = max(most, to.columns[t].mine);
    }
    return most;
}

/* To each target by turns, and each rank begins with itself: otherwise all ranks would store to the
 * first, then all to the next. */
static __device__ void copy_rows(const tsr_nccl_work &w, const sending &to)
{
    const int64_t pieces = pieces_of(w.row_bytes);
    const int64_t warps = (int64_t)gridDim.x * TSR_NCCL_WARPS;
    const int64_t turns = (int64_t)most_rows(w, to) * to.targets;

    for (int64_t n = (int64_t)blockIdx.x * TSR_NCCL_WARPS + threadIdx.x / TSR_NCCL_LANES;
         n < turns * pieces; n += warps) {
        const int64_t turn = n / pieces;
        const int64_t i = turn / to.targets;
        const int32_t t = (int32_t)((turn + w.rank) % to.targets);
        const column &c = to.columns[t];
        if (i >= c.mine || c.total > (unsigned long long)w.max_arrivals)
            continue;
        const int32_t row = to.list[(int64_t)t * to.apart + i];
        const int64_t at = c.first + i;
        unsigned char *window = w.peer[to.first + t];
        copy_piece(window + w.at.arrived_rows + (uint64_t)at * w.row_bytes,
                   w.block + w.at.send_rows + (uint64_t)row * w.row_bytes, w.row_bytes, pieces,
                   n - turn * pieces);
        if (n == turn * pieces)
            copy_places(w, to.first + t, at, row);
    }
}

static __device__ void say_sent(const tsr_nccl_work &w, uint32_t epoch, const sending &to)
{
    for (int32_t t = (int32_t)threadIdx.x; t < to.targets; t += (int32_t)blockDim.x) {
        tsr_nccl_notice n = {};
        n.epoch = epoch;
        post(w.peer[to.first + t] + w.at.sent + (uint64_t)w.rank * sizeof(n), n);
    }
}

/* Copies the listed rows, and says so when all CTAs of the targets are through. Rows that a target
 * has no room for stay here: it sees that itself. */
static __device__ void send(const tsr_nccl_work &w, uint32_t epoch, const sending &to)
{
    if (!read_columns(w, epoch, to))
        return;
    copy_rows(w, to);
    if (is_last((uint32_t *)(w.block + w.at.done) + to.first))
        say_sent(w, epoch, to);
}

/* Few rows as they are, a row of CTAs for each target. */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    list_and_send_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens)
{
    __shared__ int32_t list[TSR_NCCL_MOST_FEW];
    __shared__ column columns;
    const int32_t target = (int32_t)blockIdx.y;
    const sending to = {target, 1, 0, list, &columns};

    await_kernel();
    const tsr_nccl_state state = read_state(w);
    const tsr_nccl_state now = state_after(state, false);
    if (cta_is_off(state))
        return;
    const int32_t count = list_rows(w, tokens, target, list);
    if (blockIdx.x == 0 && threadIdx.x < TSR_NCCL_LANES)
        announce(w, now, target, count);
    if (threadIdx.x == 0)
        move_on(w, now);
    admit_kernel(w);
    if (blockIdx.x == 0 && target == 0)
        check_ranks(w, now.step, now.stage, tokens);
    send(w, now.epoch, to);
}

static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    list_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens)
{
    await_kernel();
    const tsr_nccl_state state = read_state(w);
    const tsr_nccl_state now = state_after(state, false);
    const int32_t target = (int32_t)blockIdx.y;

    admit_kernel(w);
    if (cta_is_off(state))
        return;
    const int32_t count =
        list_rows(w, tokens, target, ints(w, w.at.listed) + (int64_t)target * w.max_tokens);
    if (threadIdx.x < TSR_NCCL_LANES)
        announce(w, now, target, count);
    if (threadIdx.x == 0)
        move_on(w, now);
    if (target == 0)
        check_ranks(w, now.step, now.stage, tokens);
}

static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    send_kernel(const __grid_constant__ tsr_nccl_work w)
{
    __shared__ column columns[TSR_NCCL_MOST_RANKS];
    const sending to = {0, w.ranks, w.max_tokens, ints(w, w.at.listed), columns};

    await_kernel();
    const tsr_nccl_state now = read_state(w);
    admit_kernel(w);
    if (!cta_is_off(now))
        send(w, now.epoch, to);
}

/* Behind rows that were sent as they are. */
static __global__ void __launch_bounds__(TSR_NCCL_LANES)
    arrive_kernel(const __grid_constant__ tsr_nccl_work w)
{
    await_kernel();
    const tsr_nccl_state now = read_state(w);
    const bool off = now.let_go != 0 || now.failed != 0;
    admit_kernel(w);
    if (!__any_sync(TSR_NCCL_ALL_LANES, off))
        receive(w, now);
    else if (threadIdx.x == 0)
        count_arrivals(w, 0);
}

/*
 * Each answer that is this rank's to give, to its place. Answers lie by source, so in their order all
 * ranks would store to the first, then all to the next: they go in turns, a row of each part.
 */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    echo_kernel(const __grid_constant__ tsr_nccl_work w)
{
    await_kernel();
    const int64_t slots = (int64_t)*ints(w, w.at.arrived_count) * w.slots;
    const int64_t part = (slots + w.ranks - 1) / w.ranks;
    const int64_t pieces = pieces_of(w.return_row_bytes);
    const int64_t warps = (int64_t)gridDim.x * TSR_NCCL_WARPS;

    for (int64_t n = (int64_t)blockIdx.x * TSR_NCCL_WARPS + threadIdx.x / TSR_NCCL_LANES;
         n < part * w.ranks * pieces; n += warps) {
        const int64_t turn = n / pieces;
        const int64_t slot = turn % w.ranks * part + turn / w.ranks;
        const int32_t to = slot < slots ? ((const int32_t *)(w.window + w.at.answer_of))[slot] : -1;
        if (to < 0)
            continue;
        copy_piece(w.peer[to >> TSR_NCCL_PART_BITS] + w.at.returned_rows +
                       (uint64_t)(to & (TSR_NCCL_PART_ROWS - 1)) * w.return_row_bytes,
                   w.window + w.at.arrived_rows + (uint64_t)(slot / w.slots) * w.row_bytes,
                   w.return_row_bytes, pieces, n - turn * pieces);
    }
}

/* By one CTA: whoever computed an answer has stored it where it belongs. Tells everybody so, and
 * waits for everybody's word. */
static __global__ void __launch_bounds__(TSR_NCCL_MOST_RANKS)
    return_kernel(const __grid_constant__ tsr_nccl_work w)
{
    tsr_nccl_notice mine = {};
    bool come = true;

    await_kernel();
    admit_kernel(w);
    const tsr_nccl_state now = read_state(w);
    if (now.let_go != 0 || now.failed != 0)
        return;
    if (threadIdx.x == 0)
        state_of(w)->phase = TSR_PHASE_RETURNING;
    mine.epoch = now.epoch;
    __threadfence_system(); /* what earlier kernels stored is seen before the word */
    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += (int32_t)blockDim.x)
        post(w.peer[r] + w.at.returned + (uint64_t)w.rank * sizeof(mine), mine);
    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += (int32_t)blockDim.x) {
        const unsigned char *at = w.window + w.at.returned + (uint64_t)r * sizeof(tsr_nccl_notice);
        tsr_nccl_notice theirs;
        come = await(w, at, now.epoch, &theirs) && come;
    }
    if (come)
        __threadfence_system(); /* what has returned is read after this */
}

static __global__ void begin_kernel(const __grid_constant__ tsr_nccl_work w, uint64_t step)
{
    await_kernel();
    tsr_nccl_state *state = state_of(w);

    state->step = step;
    state->stage = -1;
    state->phase = TSR_PHASE_STANDING;
}

static __global__ void find_peers_kernel(const __grid_constant__ tsr_nccl_work w,
                                         ncclWindow_t handle)
{
    unsigned char **peers = (unsigned char **)(w.block + w.at.peers);

    unsigned char **parts = (unsigned char **)(w.block + w.at.parts);

    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += (int32_t)blockDim.x) {
        peers[r] = r == w.rank ? w.window : (unsigned char *)ncclGetLsaPointer(handle, 0, r);
        parts[r] = peers[r] + w.at.returned_rows;
    }
}

extern "C" tsr_status tsr_nccl_find_peers(const tsr_nccl_work *work, void *handle,
                                          tsr_stream stream)
{
    find_peers_kernel<<<1, TSR_NCCL_LANES, 0, native(stream)>>>(*work, (ncclWindow_t)handle);
    return TSR_NCCL_CUDA(cudaGetLastError());
}

extern "C" tsr_status tsr_nccl_begin(const tsr_nccl_work *work, uint64_t step, tsr_stream stream)
{
    return launch(stream, dim3(1), 1, begin_kernel, *work, step);
}

extern "C" tsr_status tsr_nccl_dispatch(const tsr_nccl_work *work, int32_t tokens, int32_t most,
                                        tsr_stream stream)
{
    const uint64_t bytes = (uint64_t)tokens * work->row_bytes;

    if (tsr_nccl_is_few(work, most))
        return tsr_nccl_dispatch_few(work, tokens, most, stream);
    const dim3 grid(
        ctas_of_peer(work, (bytes + BYTES_OF_CTA - 1) / BYTES_OF_CTA, allowed(work, MOST_CTAS)),
        (unsigned)work->ranks);
    if (tokens <= TSR_NCCL_MOST_FEW)
        return launch(stream, grid, TSR_NCCL_THREADS, list_and_send_kernel, *work, tokens);
    const tsr_status st =
        launch(stream, dim3(1, grid.y), TSR_NCCL_THREADS, list_kernel, *work, tokens);
    const dim3 all((unsigned)allowed(work, MOST_CTAS));
    return st == TSR_OK ? launch(stream, all, TSR_NCCL_THREADS, send_kernel, *work) : st;
}

extern "C" tsr_status tsr_nccl_arrive(const tsr_nccl_work *work, int32_t most, tsr_stream stream)
{
    if (tsr_nccl_is_few(work, most))
        return TSR_OK;
    return launch(stream, dim3(1), TSR_NCCL_LANES, arrive_kernel, *work);
}

extern "C" tsr_status tsr_nccl_echo(const tsr_nccl_work *work, tsr_stream stream)
{
    const dim3 ctas((unsigned)allowed(work, MOST_CTAS));

    return launch(stream, ctas, TSR_NCCL_THREADS, echo_kernel, *work);
}

extern "C" tsr_status tsr_nccl_return(const tsr_nccl_work *work, int32_t tokens, int32_t most,
                                      tsr_stream stream)
{
    if (tsr_nccl_is_few(work, most))
        return tsr_nccl_take(work, tokens, stream);
    return launch(stream, dim3(1), TSR_NCCL_MOST_RANKS, return_kernel, *work);
}
