/* The kernel that sorts pairs by expert and cuts them into tiles (experts_cuda.cu), and finds faults. */
#ifndef TSR_KERNELS_CUDA_EXPERTS_SORT_CUDA_CUH
#define TSR_KERNELS_CUDA_EXPERTS_SORT_CUDA_CUH

#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/operands/pairs_cuda.cuh"

#include <cooperative_groups.h>

enum {
    COUNTERS = 1024,
    EXPERTS_A_THREAD = TSR_MAX_EXPERTS / COUNTERS,
    SLOTS_AT_ONCE = 8 /* of a thread, whose loads are on their way together */
};

/* Rows that were never reserved. */
static __device__ bool too_many_rows(const pair_args &a, int32_t rows, tsr_cuda_faults faults)
{
    const tsr_fault fault = {TSR_FAULT_ROWS, 0, 0, rows, a.max_rows};

    if (rows >= 0 && rows <= a.max_rows)
        return false;
    if (threadIdx.x == 0)
        tsr_leave_fault(faults, fault);
    return true;
}

/* Pairs and tiles, and those of the tiles that are full, counted together. */
typedef struct pair_counts {
    int32_t pairs;
    int32_t tiles;
    int32_t full;
} pair_counts;

static __device__ __forceinline__ pair_counts warp_sum_before(pair_counts mine, pair_counts *all)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    pair_counts sum = mine;

    for (int apart = 1; apart < TSR_CUDA_LANES; apart *= 2) {
        const int32_t pairs = __shfl_up_sync(TSR_ALL_LANES, sum.pairs, apart);
        const int32_t tiles = __shfl_up_sync(TSR_ALL_LANES, sum.tiles, apart);
        const int32_t full = __shfl_up_sync(TSR_ALL_LANES, sum.full, apart);
        if (lane >= apart) {
            sum.pairs += pairs;
            sum.tiles += tiles;
            sum.full += full;
        }
    }
    all->pairs = __shfl_sync(TSR_ALL_LANES, sum.pairs, TSR_CUDA_LANES - 1);
    all->tiles = __shfl_sync(TSR_ALL_LANES, sum.tiles, TSR_CUDA_LANES - 1);
    all->full = __shfl_sync(TSR_ALL_LANES, sum.full, TSR_CUDA_LANES - 1);
    sum.pairs -= mine.pairs;
    sum.tiles -= mine.tiles;
    sum.full -= mine.full;
    return sum;
}

/* Sums over the threads in front of each, and over all. */
static __device__ pair_counts sum_before(pair_counts mine, pair_counts *all)
{
    __shared__ pair_counts part[COUNTERS / TSR_CUDA_LANES];
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    pair_counts of_warp;
    pair_counts before = warp_sum_before(mine, &of_warp);

    __syncthreads(); /* the last call's readers are done */
    if (lane == 0)
        part[warp] = of_warp;
    __syncthreads();
    const pair_counts warps = warp_sum_before(part[lane], all);
    before.pairs += __shfl_sync(TSR_ALL_LANES, warps.pairs, warp);
    before.tiles += __shfl_sync(TSR_ALL_LANES, warps.tiles, warp);
    before.full += __shfl_sync(TSR_ALL_LANES, warps.full, warp);
    return before;
}

/* From counts to the first pair of each expert, and the tiles, by the CTA that writes them: full ones
 * in front, so that those who take every so many have as much to do. */
static __device__ void cut_tiles(const pair_args &a, const tsr_cuda_work &w, int32_t *count,
                                 bool writes)
{
    pair_counts so_far = {0, 0, 0};

    for (int32_t first = 0; first < a.local; first += COUNTERS) {
        const int32_t e = first + (int32_t)threadIdx.x;
        const int32_t pairs = e < a.local ? count[e] : 0;
        const pair_counts mine = {pairs, (pairs + a.together - 1) / a.together, pairs / a.together};
        pair_counts all;
        const pair_counts before = a.local <= TSR_CUDA_LANES
                                       ? warp_sum_before(mine, &all) /* of warp 0 */
                                       : sum_before(mine, &all);
        tsr_cuda_tile *full = w.tile + so_far.tiles + before.full;
        tsr_cuda_tile *rest = w.tile + so_far.tiles + all.full + before.tiles - before.full;
        for (int32_t i = 0; writes && i < pairs; i += a.together) {
            tsr_cuda_tile *tile = pairs - i >= a.together ? full++ : rest;
            tile->expert = e;
            tile->first = so_far.pairs + before.pairs + i;
            tile->count = min(pairs - i, a.together);
        }
        if (e < a.local)
            count[e] = so_far.pairs + before.pairs;
        so_far.pairs += all.pairs;
        so_far.tiles += all.tiles;
    }
    if (writes && threadIdx.x == 0)
        *w.tiles = so_far.tiles;
}

/* A slot that wants an answer. */
typedef struct wanted_slot {
    int32_t answer; /* -1: none is wanted */
    int32_t local;  /* -1: the expert is not here */
} wanted_slot;

/* Of a slot that there may be. */
static __device__ __forceinline__ wanted_slot slot_at(const pair_args &a, const int32_t *local_of,
                                                      int32_t i)
{
    const int32_t id = id_of(a, i);
    wanted_slot s = {a.answer_of[i], -1};

    if (s.answer >= 0 && id >= 0 && id < a.experts)
        s.local = local_of[id];
    return s;
}

/* Slots i, i + apart and so on; none of those that there are not. */
static __device__ __forceinline__ void slots_at(const pair_args &a, const int32_t *local_of,
                                                int32_t i, int32_t apart, int32_t slots,
                                                wanted_slot ret_slot[SLOTS_AT_ONCE])
{
    int32_t id[SLOTS_AT_ONCE];

#pragma unroll
    for (int n = 0; n < SLOTS_AT_ONCE; n++) {
        const int32_t at = min(i + n * apart, slots - 1);
        id[n] = id_of(a, at);
        ret_slot[n].answer = i + n * apart < slots ? a.answer_of[at] : -1;
    }
#pragma unroll
    for (int n = 0; n < SLOTS_AT_ONCE; n++) {
        const bool is_one = ret_slot[n].answer >= 0 && id[n] >= 0 && id[n] < a.experts;
        ret_slot[n].local = is_one ? local_of[id[n]] : -1;
    }
}

static __device__ __forceinline__ void place(const pair_args &a, const tsr_cuda_work &w,
                                             int32_t *next, int32_t i, wanted_slot s)
{
    const int32_t at = s.answer < 0 ? -1 : atomicAdd(&next[s.local], 1);

    w.pair_of[i] = at;
    if (at < 0)
        return;
    w.source[at] = i / a.slots;
    w.target[at] = s.answer;
}

/*
 * Shared memory of a CTA that sorts:
 *
 *   count [local] | pairs | wrong | next [local] | local_of [E]
 */
typedef struct sort_room {
    int32_t *count; /* pairs of each expert that this CTA has found */
    int32_t *pairs; /* all that it has found */
    int32_t *wrong; /* whether an expert of theirs is not here */
    int32_t *next;  /* where the next pair of an expert goes */
    int32_t *local_of;
} sort_room;

static __host__ __device__ __forceinline__ size_t sort_bytes(int32_t local, int32_t experts)
{
    return ((size_t)local * 2 + 2 + (size_t)experts) * sizeof(int32_t);
}

static __device__ __forceinline__ sort_room sort_room_of(int32_t *memory, int32_t local)
{
    const sort_room r = {memory, memory + local, memory + local + 1, memory + local + 2,
                         memory + 2 * local + 2};
    return r;
}

static __device__ __forceinline__ void count_slot(const sort_room &r, wanted_slot s)
{
    if (s.answer < 0)
        return;
    atomicAdd(r.pairs, 1);
    if (s.local >= 0)
        atomicAdd(&r.count[s.local], 1);
    else
        *r.wrong = 1;
}

/* Over all CTAs of the cluster, and over those in front of each thread's experts' pairs. Returns
 * whether what was found can be served. */
static __device__ bool add_up(const pair_args &a, int32_t *memory,
                              int32_t ret_before[EXPERTS_A_THREAD])
{
    const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
    const sort_room r = sort_room_of(memory, a.local);
    int32_t all[EXPERTS_A_THREAD] = {};
    int32_t pairs = 0;
    int32_t wrong = 0;

    for (int i = 0; i < EXPERTS_A_THREAD; i++)
        ret_before[i] = 0;
    for (unsigned c = 0; c < cluster.num_blocks(); c++) {
        const sort_room of = sort_room_of(cluster.map_shared_rank(memory, c), a.local);
        pairs += *of.pairs;
        wrong |= *of.wrong;
#pragma unroll
        for (int i = 0; i < EXPERTS_A_THREAD; i++) {
            const int32_t e = i * COUNTERS + (int32_t)threadIdx.x;
            const int32_t count = e < a.local ? of.count[e] : 0;
            all[i] += count;
            ret_before[i] += c < cluster.block_rank() ? count : 0;
        }
    }
#pragma unroll
    for (int i = 0; i < EXPERTS_A_THREAD; i++) {
        const int32_t e = i * COUNTERS + (int32_t)threadIdx.x;
        if (e < a.local)
            r.next[e] = all[i];
    }
    return wrong == 0 && pairs <= a.max_answers;
}

/* Of a cluster; of one CTA that costs less. */
static __device__ __forceinline__ void sort_meets(void)
{
    if (gridDim.x == 1)
        __syncthreads();
    else
        cooperative_groups::this_cluster().sync();
}

/* CTAs of one cluster, each every so many slots. A thread has most often no more than its first. */
static __global__ void __launch_bounds__(COUNTERS)
    sort_kernel(pair_args a, tsr_cuda_work w, tsr_cuda_faults faults)
{
    extern __shared__ int32_t memory[];
    const sort_room r = sort_room_of(memory, a.local);
    const int32_t mine = (int32_t)(blockIdx.x * COUNTERS + threadIdx.x);
    const int32_t apart = (int32_t)(gridDim.x * COUNTERS);
    wanted_slot first = {-1, -1};
    int32_t before[EXPERTS_A_THREAD];

#pragma unroll 1
    for (int32_t e = (int32_t)threadIdx.x; e < a.local; e += COUNTERS)
        r.count[e] = 0;
    if (threadIdx.x == 0)
        *r.pairs = *r.wrong = 0;
#pragma unroll 1
    for (int32_t e = (int32_t)threadIdx.x; e < a.experts; e += COUNTERS)
        r.local_of[e] = a.local_of[e];
    __syncthreads();
    tsr_admit_kernel();
    tsr_await_kernel();
    const bool is_faulty = tsr_is_faulty(faults);
    const int32_t rows = *a.row_count;
    const int32_t slots = rows * a.slots;
    if (mine < a.max_rows * a.slots) /* on its way before it is known whether it is one */
        first = slot_at(a, r.local_of, mine);
    if (is_faulty || too_many_rows(a, rows, faults))
        return;
    if (mine >= slots)
        first.answer = -1;
    count_slot(r, first);
#pragma unroll 1
    for (int32_t i = mine + apart; i < slots; i += SLOTS_AT_ONCE * apart) {
        wanted_slot s[SLOTS_AT_ONCE];
        slots_at(a, r.local_of, i, apart, slots, s);
#pragma unroll
        for (int n = 0; n < SLOTS_AT_ONCE; n++)
            count_slot(r, s[n]);
    }
    sort_meets();
    const bool fits = add_up(a, memory, before);
    sort_meets(); /* nobody's counts are read any more */
    if (!fits) {
        if (mine == 0)
            tsr_leave_fault(faults, first_fault(a, slots));
        return;
    }
    cut_tiles(a, w, r.next, blockIdx.x == 0);
#pragma unroll
    for (int i = 0; i < EXPERTS_A_THREAD; i++) {
        const int32_t e = i * COUNTERS + (int32_t)threadIdx.x;
        if (e < a.local)
            r.next[e] += before[i];
    }
    __syncthreads();
    if (mine < slots)
        place(a, w, r.next, mine, first);
#pragma unroll 1
    for (int32_t i = mine + apart; i < slots; i += SLOTS_AT_ONCE * apart) {
        wanted_slot s[SLOTS_AT_ONCE];
        slots_at(a, r.local_of, i, apart, slots, s);
#pragma unroll
        for (int n = 0; n < SLOTS_AT_ONCE; n++) {
            if (i + n * apart < slots)
                place(a, w, r.next, i + n * apart, s[n]);
        }
    }
}

#endif
