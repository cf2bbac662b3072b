/*
 * One-sided exchange: ranks store straight into each other's windows; exchange_nccl_kernels.h draws
 * it. A target's rows are listed by whole CTAs, copied by warps in pieces of 2 KiB, and announced
 * by the last CTA that is through with them.
 */
extern "C" {
#include "comm/exchange_nccl_kernels.h"
#include "comm/exchange_ops.h"
#include "comm/nccl_cuda.h"
}

#include <cuda_runtime.h>
#include <nccl.h>
#include <nccl_device.h>

enum {
    LANES = 32,
    THREADS = 512,
    WARPS = THREADS / LANES,
    PIECE = 4,        /* vectors a lane moves at once */
    FEW_TOKENS = 256, /* that every CTA lists for itself */
    MOST_CTAS = 64,   /* of a dispatch; ranks that share a GPU all need room to wait */
    RETURN_CTAS = 32,
    BYTES_OF_CTA = 16384,
    NUMBERS = 4,  /* that a thread numbers at once */
    PATIENCE = 64 /* looks at a notice before a look at the host's word */
};

#define ALL_LANES 0xffffffffU

typedef uint4 vector;

static __device__ __forceinline__ int32_t *ints(const tsr_nccl_work &w, uint64_t at)
{
    return (int32_t *)(w.block + at);
}

static __device__ __forceinline__ tsr_nccl_state *state_of(const tsr_nccl_work &w)
{
    return (tsr_nccl_state *)(w.block + w.at.state);
}

static __device__ __forceinline__ unsigned char *peer_window(const tsr_nccl_work &w, int32_t rank)
{
    return ((unsigned char *const *)(w.block + w.at.peers))[rank];
}

static __device__ __forceinline__ uint64_t notice_at(const tsr_nccl_work &w, uint32_t epoch,
                                                     int32_t source, int32_t target)
{
    const uint64_t n = (uint64_t)w.ranks;
    return w.at.notices +
           ((epoch % 2 * n + (uint64_t)source) * n + (uint64_t)target) * sizeof(tsr_nccl_notice);
}

static __device__ __forceinline__ void post(unsigned char *to, tsr_nccl_notice n)
{
    asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(n.epoch),
                 "r"(n.rows), "r"(n.step), "r"(n.stage)
                 : "memory");
}

static __device__ __forceinline__ tsr_nccl_notice look(const unsigned char *at)
{
    tsr_nccl_notice n;
    asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(n.epoch), "=r"(n.rows), "=r"(n.step), "=r"(n.stage)
                 : "l"(at)
                 : "memory");
    return n;
}

static __device__ __forceinline__ bool is_off(const tsr_nccl_work &w)
{
    const volatile tsr_nccl_state *state = state_of(w);
    return state->let_go != 0 || state->failed != 0;
}

/* The same for all threads of a CTA. */
static __device__ __forceinline__ bool cta_is_off(const tsr_nccl_work &w)
{
    return __syncthreads_or(threadIdx.x == 0 && is_off(w)) != 0;
}

/* False when there is no point in waiting. */
static __device__ bool await(const tsr_nccl_work &w, const unsigned char *at, uint32_t epoch,
                             tsr_nccl_notice *ret_notice)
{
    for (unsigned turns = 1;; turns++) {
        const tsr_nccl_notice n = look(at);
        if (n.epoch == epoch) {
            *ret_notice = n;
            return true;
        }
        if (turns % PATIENCE == 0 && is_off(w))
            return false;
    }
}

static __device__ void leave_fault(const tsr_nccl_work &w, tsr_nccl_fault fault)
{
    tsr_nccl_state *state = state_of(w);
    volatile tsr_nccl_fault *seen = w.fault;

    if (atomicCAS(&state->failed, 0, 1) != 0)
        return;
    seen->peer = fault.peer;
    seen->row = fault.row;
    seen->slot = fault.slot;
    seen->step = state->step;
    seen->stage = state->stage;
    __threadfence_system(); /* the kind is seen last */
    seen->kind = fault.kind;
    __threadfence_system();
}

/*
 * The place of each thread's `count` things in the order of threads, behind `*base` of earlier
 * calls; moves *base behind them all. Every thread of the CTA calls.
 */
static __device__ int32_t place_in_cta(int32_t count, int32_t *base)
{
    __shared__ int32_t warp_sum[LANES];
    const int lane = (int)threadIdx.x % LANES;
    const int warp = (int)threadIdx.x / LANES;
    const int warps = (int)blockDim.x / LANES;
    int32_t sum = count;

    for (int apart = 1; apart < LANES; apart *= 2) {
        const int32_t below = __shfl_up_sync(ALL_LANES, sum, apart);
        sum += lane >= apart ? below : 0;
    }
    __syncthreads(); /* the last call's readers are done */
    if (lane == LANES - 1)
        warp_sum[warp] = sum;
    __syncthreads();
    int32_t before = *base;
    for (int i = 0; i < warps; i++) {
        before += i < warp ? warp_sum[i] : 0;
        *base += warp_sum[i];
    }
    return before + sum - count;
}

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

/* Tells everybody how many rows go to the target. */
static __device__ void announce(const tsr_nccl_work &w, int32_t target, int32_t count)
{
    tsr_nccl_state *state = state_of(w);
    tsr_nccl_notice n;

    n.epoch = state->epoch;
    n.rows = count;
    n.step = (uint32_t)state->step;
    n.stage = state->stage;
    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += (int32_t)blockDim.x)
        post(peer_window(w, r) + notice_at(w, n.epoch, w.rank, target), n);
    if (target == 0 && threadIdx.x == 0)
        state->phase = TSR_PHASE_DISPATCHED;
}

/* What everybody sends to one target, as this rank needs it. */
typedef struct column {
    int32_t first; /* of this rank's rows among the target's */
    int32_t mine;
    int64_t total;
} column;

/* Waits for everybody's notice about the target. False: for nothing. */
static __device__ bool read_column(const tsr_nccl_work &w, int32_t target, column *ret_column)
{
    __shared__ unsigned long long total;
    __shared__ int32_t first;
    __shared__ int32_t mine;
    const uint32_t epoch = state_of(w)->epoch;
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

/* A warp's piece `piece` of a row. */
static __device__ __forceinline__ void copy_piece(unsigned char *to, const unsigned char *from,
                                                  uint64_t bytes, int64_t piece)
{
    const int64_t vectors = (int64_t)(bytes / sizeof(vector));
    const int64_t first = piece * PIECE * LANES + (int64_t)(threadIdx.x % LANES);
    vector v[PIECE];

#pragma unroll
    for (int i = 0; i < PIECE; i++) {
        if (first + i * LANES < vectors)
            v[i] = ((const vector *)from)[first + i * LANES];
    }
#pragma unroll
    for (int i = 0; i < PIECE; i++) {
        if (first + i * LANES < vectors)
            ((vector *)to)[first + i * LANES] = v[i];
    }
}

static __device__ __forceinline__ int64_t pieces_of(uint64_t bytes)
{
    const uint64_t piece = PIECE * LANES * sizeof(vector);
    return (int64_t)((bytes + piece - 1) / piece);
}

/* What the target learns of a row beside it. */
static __device__ __forceinline__ void copy_origin(const tsr_nccl_work &w, unsigned char *window,
                                                   int64_t at, int32_t row)
{
    const int lane = (int)threadIdx.x % LANES;
    const int32_t *from = ints(w, w.at.send_ranks) + (int64_t)row * w.slots;
    int32_t *to = (int32_t *)(window + w.at.slot_ranks) + at * w.slots;

    for (int32_t k = lane; k < w.slots; k += LANES)
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
    const int64_t warps = (int64_t)gridDim.x * WARPS;
    unsigned char *window = peer_window(w, target);

    for (int64_t n = (int64_t)blockIdx.x * WARPS + threadIdx.x / LANES; n < c.mine * pieces;
         n += warps) {
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

/* Whether this CTA is the last of gridDim.x that come here, with all their stores behind it. */
static __device__ bool is_last(uint32_t *done)
{
    __shared__ bool last;

    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence_system();
        last = atomicAdd(done, 1U) == gridDim.x - 1;
        if (last) {
            *done = 0;
            __threadfence_system();
        }
    }
    __syncthreads();
    return last;
}

/* Copies the listed rows, and says so when all CTAs of the target are through. Rows that the target
 * has no room for stay here: it sees that itself. */
static __device__ void send(const tsr_nccl_work &w, int32_t target, const int32_t *list)
{
    column c = {};
    tsr_nccl_notice n = {};

    if (!read_column(w, target, &c))
        return;
    if (c.total <= w.max_arrivals)
        copy_rows(w, target, list, c);
    if (!is_last((uint32_t *)(w.block + w.at.done) + target) || threadIdx.x != 0)
        return;
    n.epoch = state_of(w)->epoch;
    post(peer_window(w, target) + w.at.sent + (uint64_t)w.rank * sizeof(n), n);
}

/* Few rows: everything in one kernel, a row of CTAs for each target. */
static __global__ void __launch_bounds__(THREADS)
    dispatch_few_kernel(tsr_nccl_work w, int32_t tokens)
{
    __shared__ int32_t list[FEW_TOKENS];
    const int32_t target = (int32_t)blockIdx.y;

    if (cta_is_off(w))
        return;
    const int32_t count = list_rows(w, tokens, target, list);
    if (blockIdx.x == 0)
        announce(w, target, count);
    send(w, target, list);
}

static __global__ void __launch_bounds__(THREADS) list_kernel(tsr_nccl_work w, int32_t tokens)
{
    const int32_t target = (int32_t)blockIdx.y;
    int32_t *list = ints(w, w.at.listed) + (int64_t)target * w.max_tokens;

    if (cta_is_off(w))
        return;
    const int32_t count = list_rows(w, tokens, target, list);
    announce(w, target, count);
}

static __global__ void __launch_bounds__(THREADS) send_kernel(tsr_nccl_work w)
{
    const int32_t target = (int32_t)blockIdx.y;

    if (cta_is_off(w))
        return;
    send(w, target, ints(w, w.at.listed) + (int64_t)target * w.max_tokens);
}

/* Waits for everybody's rows. Returns how many, or -1: for nothing. */
static __device__ int32_t await_rows(const tsr_nccl_work &w)
{
    __shared__ unsigned long long total;
    const tsr_nccl_state *state = state_of(w);
    const uint32_t epoch = state->epoch;
    bool come = true;

    if (threadIdx.x == 0)
        total = 0;
    __syncthreads();
    for (int32_t s = (int32_t)threadIdx.x; s < w.ranks; s += (int32_t)blockDim.x) {
        tsr_nccl_notice n = {};
        tsr_nccl_notice sent = {};
        tsr_nccl_fault fault = {};
        come = await(w, w.window + notice_at(w, epoch, s, w.rank), epoch, &n) &&
               await(w, w.window + w.at.sent + (uint64_t)s * sizeof(n), epoch, &sent) && come;
        (void)atomicAdd(&total, (unsigned long long)n.rows);
        fault.kind = TSR_NCCL_APART;
        fault.peer = s;
        fault.row = (int32_t)n.step;
        fault.slot = n.stage;
        if (come && (n.step != (uint32_t)state->step || n.stage != state->stage))
            leave_fault(w, fault);
    }
    __threadfence_system(); /* what was sent is read after this */
    if (__syncthreads_and(come) == 0)
        return -1;
    if (total > (unsigned long long)w.max_arrivals && threadIdx.x == 0) {
        tsr_nccl_fault fault = {};
        fault.kind = TSR_NCCL_OVERFLOW;
        fault.row = (int32_t)(total < INT32_MAX ? total : INT32_MAX);
        leave_fault(w, fault);
    }
    return cta_is_off(w) ? -1 : (int32_t)total;
}

/* Numbers the slots of arrived rows that are this rank's, and whom each answer goes to. Returns how
 * many. */
static __device__ int32_t number_answers(const tsr_nccl_work &w, int32_t rows)
{
    const int32_t *ranks = (const int32_t *)(w.window + w.at.slot_ranks);
    const int32_t *origin_row = (const int32_t *)(w.window + w.at.origin_row);
    const int32_t *origin_rank = (const int32_t *)(w.window + w.at.origin_rank);
    const int32_t pairs = rows * w.slots;
    const int32_t turn = (int32_t)blockDim.x * NUMBERS;
    int32_t count = 0;

    for (int32_t begin = 0; begin < pairs; begin += turn) {
        const int32_t first = begin + (int32_t)threadIdx.x * NUMBERS;
        int32_t mine = 0;
        for (int32_t p = first; p < first + NUMBERS && p < pairs; p++)
            mine += ranks[p] == w.rank;
        int32_t next = place_in_cta(mine, &count);
        for (int32_t p = first; p < first + NUMBERS && p < pairs; p++) {
            const bool ours = ranks[p] == w.rank;
            ints(w, w.at.answer_of)[p] = ours ? next : -1;
            if (!ours)
                continue;
            ints(w, w.at.answer_rank)[next] = origin_rank[p / w.slots];
            ints(w, w.at.answer_slot)[next] = origin_row[p / w.slots] * w.slots + p % w.slots;
            next++;
        }
    }
    return count;
}

static __global__ void __launch_bounds__(2 * THREADS) arrive_kernel(tsr_nccl_work w)
{
    tsr_nccl_state *state = state_of(w);
    const int32_t rows = cta_is_off(w) ? -1 : await_rows(w);
    const int32_t answers = rows > 0 ? number_answers(w, rows) : 0;

    if (threadIdx.x != 0)
        return;
    *ints(w, w.at.arrived_count) = rows > 0 ? rows : 0;
    *ints(w, w.at.answer_count) = answers;
    if (rows < 0)
        return;
    state->epoch++;
    state->stage++;
    state->phase = TSR_PHASE_ARRIVED;
}

/* Each answer to the slot it is for. */
static __device__ void copy_answers(const tsr_nccl_work &w)
{
    const int64_t answers = *ints(w, w.at.answer_count);
    const int64_t pieces = pieces_of(w.return_row_bytes);
    const int64_t warps = (int64_t)gridDim.x * WARPS;

    for (int64_t n = (int64_t)blockIdx.x * WARPS + threadIdx.x / LANES; n < answers * pieces;
         n += warps) {
        const int64_t a = n / pieces;
        const int32_t slot = ints(w, w.at.answer_slot)[a];
        unsigned char *window = peer_window(w, ints(w, w.at.answer_rank)[a]);
        copy_piece(window + w.at.returned_rows + (uint64_t)slot * w.return_row_bytes,
                   w.block + w.at.answers + (uint64_t)a * w.return_row_bytes, w.return_row_bytes,
                   n - a * pieces);
    }
}

static __global__ void __launch_bounds__(THREADS) return_kernel(tsr_nccl_work w)
{
    tsr_nccl_state *state = state_of(w);
    tsr_nccl_notice n = {};
    bool come = true;

    if (cta_is_off(w))
        return;
    if (blockIdx.x == 0 && threadIdx.x == 0)
        state->phase = TSR_PHASE_RETURNING;
    n.epoch = state->epoch - 1;
    copy_answers(w);
    if (!is_last((uint32_t *)(w.block + w.at.done) + w.ranks))
        return;
    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += (int32_t)blockDim.x)
        post(peer_window(w, r) + w.at.returned + (uint64_t)w.rank * sizeof(n), n);
    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += (int32_t)blockDim.x) {
        tsr_nccl_notice theirs;
        come =
            await(w, w.window + w.at.returned + (uint64_t)r * sizeof(n), n.epoch, &theirs) && come;
    }
    __threadfence_system(); /* what has returned is read after this */
    if (__syncthreads_and(come) != 0 && threadIdx.x == 0)
        state->phase = TSR_PHASE_STANDING;
}

static __global__ void begin_kernel(tsr_nccl_work w, uint64_t step)
{
    tsr_nccl_state *state = state_of(w);

    state->step = step;
    state->stage = 0;
    state->phase = TSR_PHASE_STANDING;
    if (state->epoch == 0)
        state->epoch = 1;
}

static __global__ void find_peers_kernel(tsr_nccl_work w, ncclWindow_t handle)
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
    find_peers_kernel<<<1, LANES, 0, native(stream)>>>(*work, (ncclWindow_t)handle);
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

extern "C" tsr_status tsr_nccl_dispatch(const tsr_nccl_work *work, int32_t tokens,
                                        tsr_stream stream)
{
    const unsigned ranks = (unsigned)work->ranks;
    const dim3 grid(ctas_for(work, (uint64_t)tokens * work->row_bytes), ranks);

    if (tokens <= FEW_TOKENS) {
        dispatch_few_kernel<<<grid, THREADS, 0, native(stream)>>>(*work, tokens);
        return LAUNCHED();
    }
    list_kernel<<<dim3(1, ranks), THREADS, 0, native(stream)>>>(*work, tokens);
    const tsr_status st = LAUNCHED();
    if (st != TSR_OK)
        return st;
    send_kernel<<<grid, THREADS, 0, native(stream)>>>(*work);
    return LAUNCHED();
}

extern "C" tsr_status tsr_nccl_arrive(const tsr_nccl_work *work, tsr_stream stream)
{
    arrive_kernel<<<1, 2 * THREADS, 0, native(stream)>>>(*work);
    return LAUNCHED();
}

extern "C" tsr_status tsr_nccl_return(const tsr_nccl_work *work, tsr_stream stream)
{
    return_kernel<<<RETURN_CTAS, THREADS, 0, native(stream)>>>(*work);
    return LAUNCHED();
}
