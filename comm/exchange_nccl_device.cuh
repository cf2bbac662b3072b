/*
 * What the kernels of the exchange between GPUs have in common: where things are, notices, and the
 * steps that a CTA or a warp does together.
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_DEVICE_CUH
#define TSR_COMM_EXCHANGE_NCCL_DEVICE_CUH

extern "C" {
#include "comm/exchange_nccl_kernels.h"
#include "comm/exchange_ops.h"
}

#include <cuda_runtime.h>
#include <string.h>

enum {
    TSR_NCCL_LANES = 32,
    TSR_NCCL_THREADS = 512, /* of CTAs that send */
    TSR_NCCL_WARPS = TSR_NCCL_THREADS / TSR_NCCL_LANES,
    TSR_NCCL_PIECE = 5,    /* vectors a lane moves at once, at most */
    TSR_NCCL_LINE = 8,     /* vectors of a line of memory */
    TSR_NCCL_PATIENCE = 64 /* looks at a notice before a look at the host's word */
};

#define TSR_NCCL_ALL_LANES 0xffffffffU

typedef uint4 tsr_nccl_vector;

static __device__ __forceinline__ int32_t *ints(const tsr_nccl_work &w, uint64_t at)
{
    return (int32_t *)(w.block + at);
}

static __device__ __forceinline__ tsr_nccl_state *state_of(const tsr_nccl_work &w)
{
    return (tsr_nccl_state *)(w.block + w.at.state);
}

static __device__ __forceinline__ uint64_t notice_at(const tsr_nccl_work &w, uint32_t epoch,
                                                     int32_t source, int32_t target)
{
    const uint64_t n = (uint64_t)w.ranks;
    return w.at.notices +
           ((epoch % 2 * n + (uint64_t)source) * n + (uint64_t)target) * sizeof(tsr_nccl_notice);
}

/* Notices and packets go and come as one piece. */
static __device__ __forceinline__ void post_vector(void *to, tsr_nccl_vector v)
{
    asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
}

static __device__ __forceinline__ tsr_nccl_vector look_at_vector(const void *at)
{
    tsr_nccl_vector v;
    asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at)
                 : "memory");
    return v;
}

static __device__ __forceinline__ void post(unsigned char *to, tsr_nccl_notice n)
{
    post_vector(to, make_uint4(n.epoch, (uint32_t)n.told, n.step, (uint32_t)n.stage));
}

static __device__ __forceinline__ bool is_off(const tsr_nccl_work &w)
{
    const volatile tsr_nccl_state *state = state_of(w);
    return state->let_go != 0 || state->failed != 0;
}

/* Behind this all that earlier kernels wrote can be read; every kernel begins with it. */
static __device__ __forceinline__ void await_kernel(void)
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

/* The next kernel may come to wait, once all CTAs have said so. Not where ranks share a GPU: its
 * CTAs would take the room of those that this one waits for. */
static __device__ __forceinline__ void admit_kernel(const tsr_nccl_work &w)
{
    if (w.alone != 0)
        asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/* The state when a kernel begins, read at once: each look at memory costs as much as all the rest. */
static __device__ __forceinline__ tsr_nccl_state read_state(const tsr_nccl_work &w)
{
    static_assert(sizeof(tsr_nccl_state) == 2 * sizeof(tsr_nccl_vector), "is read as two");
    const tsr_nccl_vector v[2] = {look_at_vector(state_of(w)),
                                  look_at_vector((const char *)state_of(w) + sizeof(v[0]))};
    tsr_nccl_state state;
    memcpy(&state, v, sizeof(state));
    return state;
}

/* Whether nothing is to move any more; the same for all threads of a CTA. */
static __device__ __forceinline__ bool cta_is_off(const tsr_nccl_state &state)
{
    return __syncthreads_or(threadIdx.x == 0 && (state.let_go != 0 || state.failed != 0)) != 0;
}

/* The state of the dispatch behind one of the state. Its epoch is never 0, which is what a place holds
 * where nothing has come. */
static __device__ __forceinline__ tsr_nccl_state state_after(tsr_nccl_state state, bool packed)
{
    state.packed = packed ? 1 : 0;
    state.epoch = state.epoch == UINT32_MAX ? 2 : state.epoch + 1;
    state.stage++;
    state.phase = TSR_PHASE_DISPATCHED;
    return state;
}

/*
 * By one thread of each CTA of a dispatch's first kernel, which has read the state before: the last
 * of them writes the dispatch's, so that nobody waits for anybody.
 */
static __device__ __forceinline__ void move_on(const tsr_nccl_work &w, const tsr_nccl_state &now)
{
    uint32_t *read = (uint32_t *)(w.block + w.at.done) + w.ranks;
    tsr_nccl_state *state = state_of(w);

    if (atomicAdd(read, 1U) != gridDim.x * gridDim.y - 1)
        return;
    *read = 0;
    state->stage = now.stage;
    state->epoch = now.epoch;
    state->phase = now.phase;
    state->packed = now.packed;
}

/* False when there is no point in waiting. */
static __device__ __forceinline__ bool await(const tsr_nccl_work &w, const unsigned char *at,
                                             uint32_t epoch, tsr_nccl_notice *ret_notice)
{
    for (unsigned turns = 1;; turns++) {
        const tsr_nccl_vector v = look_at_vector(at);
        if (v.x == epoch) {
            ret_notice->epoch = v.x;
            ret_notice->told = (int32_t)v.y;
            ret_notice->step = v.z;
            ret_notice->stage = (int32_t)v.w;
            return true;
        }
        if (turns % TSR_NCCL_PATIENCE == 0 && is_off(w))
            return false;
    }
}

/* The dispatch that found it is given by its step and stage: what finds faults is called so, by
 * numbers, that nothing of it lies in memory while all is well. */
static __device__ void leave_fault(const tsr_nccl_work &w, uint64_t step, int32_t stage,
                                   const tsr_nccl_fault &fault)
{
    volatile tsr_nccl_fault *seen = w.fault;

    if (atomicCAS(&state_of(w)->failed, 0, 1) != 0)
        return;
    seen->peer = fault.peer;
    seen->row = fault.row;
    seen->slot = fault.slot;
    seen->step = step;
    seen->stage = stage;
    __threadfence_system(); /* the kind is seen last */
    seen->kind = fault.kind;
    __threadfence_system();
}

/* The number of the first answer to a source's row, of few or of many. */
static __device__ __forceinline__ int32_t first_answer(const tsr_nccl_work &w, int32_t source,
                                                       int32_t row, bool few)
{
    return source << TSR_NCCL_PART_BITS | ((few ? w.max_tokens : 0) + row) * w.slots;
}

static __device__ __forceinline__ int32_t lane_of_warp(void)
{
    return (int32_t)threadIdx.x % TSR_NCCL_LANES;
}

/* The sum of a warp's counts, up to each lane. */
static __device__ __forceinline__ int32_t sum_to_lane(int32_t sum)
{
    for (int apart = 1; apart < TSR_NCCL_LANES; apart *= 2) {
        const int32_t below = __shfl_up_sync(TSR_NCCL_ALL_LANES, sum, apart);
        sum += (int)threadIdx.x % TSR_NCCL_LANES >= apart ? below : 0;
    }
    return sum;
}

/*
 * The place of each thread's `count` things in the order of threads, behind `*base` of earlier
 * calls; moves *base behind them all. Every thread of the CTA calls.
 */
static __device__ int32_t place_in_cta(int32_t count, int32_t *base)
{
    __shared__ int32_t warp_sum[TSR_NCCL_LANES];
    const int lane = (int)threadIdx.x % TSR_NCCL_LANES;
    const int warp = (int)threadIdx.x / TSR_NCCL_LANES;
    const int32_t sum = sum_to_lane(count);

    __syncthreads(); /* the last call's readers are done */
    if (lane == TSR_NCCL_LANES - 1)
        warp_sum[warp] = sum;
    __syncthreads();
    const bool is_warp = lane < (int)blockDim.x / TSR_NCCL_LANES;
    const int32_t sums = sum_to_lane(is_warp ? warp_sum[lane] : 0);
    const int32_t before = __shfl_sync(TSR_NCCL_ALL_LANES, sums, warp > 0 ? warp - 1 : 0);
    const int32_t place = *base + (warp > 0 ? before : 0) + sum - count;
    *base += __shfl_sync(TSR_NCCL_ALL_LANES, sums, TSR_NCCL_LANES - 1);
    return place;
}

/* Into how many pieces that a warp moves at once a row is cut, alike but for the last: a row is often
 * little more than a round number of bytes. */
static __device__ __forceinline__ int64_t pieces_of(uint64_t bytes)
{
    const uint64_t piece = TSR_NCCL_PIECE * TSR_NCCL_LANES * sizeof(tsr_nccl_vector);
    return (int64_t)((bytes + piece - 1) / piece);
}

/* A warp's piece of a row, which begins on a line of memory where the row does. */
static __device__ __forceinline__ void copy_piece(unsigned char *to, const unsigned char *from,
                                                  uint64_t bytes, int64_t pieces, int64_t piece)
{
    const int32_t vectors = (int32_t)(bytes / sizeof(tsr_nccl_vector));
    const int32_t part = (vectors + (int32_t)pieces - 1) / (int32_t)pieces;
    const int32_t each = (part + TSR_NCCL_LINE - 1) / TSR_NCCL_LINE * TSR_NCCL_LINE;
    const int32_t begin = (int32_t)piece * each;
    const int32_t end = min(begin + each, vectors);
    const int32_t first = begin + lane_of_warp();
    tsr_nccl_vector v[TSR_NCCL_PIECE];

#pragma unroll
    for (int i = 0; i < TSR_NCCL_PIECE; i++) {
        if (first + i * TSR_NCCL_LANES < end)
            v[i] = ((const tsr_nccl_vector *)from)[first + i * TSR_NCCL_LANES];
    }
#pragma unroll
    for (int i = 0; i < TSR_NCCL_PIECE; i++) {
        if (first + i * TSR_NCCL_LANES < end)
            ((tsr_nccl_vector *)to)[first + i * TSR_NCCL_LANES] = v[i];
    }
}

/* Whether this CTA is the last of gridDim.x that come here, with all their stores before it, as peers
 * see them. */
static __device__ __forceinline__ bool is_last(uint32_t *done)
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

#endif
