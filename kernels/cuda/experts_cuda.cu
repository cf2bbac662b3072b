/*
 * The expert MLP over packed rows. No host reads a count: pairs of (row, slot) are counted and sorted
 * by expert here, keeping their order, and cut into tiles of up to 32 pairs of one expert:
 *
 *   count   slot_expert [rows, K] | first [experts + 1] | tiles        one CTA, which finds faults too
 *   place   source, target [pairs]                                     a warp an expert
 *
 *   pairs   | e0 e0 e0 | e1 .. 32 | e1 e1 | e4 e4 |                    tiles
 *
 * Grids are sized by what was reserved; CTAs without a tile return. Rows are read where they arrived,
 * and each answer is written where it leaves from.
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/linear_cuda.cuh"

enum { COUNTERS = 1024 };

/* What the kernels need of a block. */
typedef struct pair_args {
    const unsigned char *rows;
    const int32_t *row_count;
    const int32_t *answer_of;
    const int32_t *local_of;
    int64_t row_bytes;
    int64_t id_at; /* bytes from the front of a row */
    int32_t slots; /* K */
    int32_t experts;
    int32_t local;
    int32_t max_rows;
    int32_t max_answers;
} pair_args;

static __device__ int32_t id_of(const pair_args &a, int32_t slot)
{
    const unsigned char *row = a.rows + slot / a.slots * a.row_bytes;

    return ((const int32_t *)(const void *)(row + a.id_at))[slot % a.slots];
}

/* The index into mlps of a slot that wants an answer; -1 where the id is not one of ours. */
static __device__ int32_t local_expert(const pair_args &a, int32_t slot)
{
    const int32_t id = id_of(a, slot);

    return id < 0 || id >= a.experts ? -1 : a.local_of[id];
}

/* The first slot that does not belong here, found in order; there is one. */
static __device__ tsr_fault first_fault(const pair_args &a, int32_t slots)
{
    tsr_fault fault = {TSR_FAULT_NONE, 0, 0, 0, a.max_answers};
    int32_t pairs = 0;

    for (int32_t i = 0; i < slots; i++) {
        if (a.answer_of[i] < 0)
            continue;
        const int32_t local = local_expert(a, i);
        if (local < 0 || pairs == a.max_answers) {
            fault.kind = local < 0 ? TSR_FAULT_EXPERT : TSR_FAULT_ANSWERS;
            fault.row = i / a.slots;
            fault.slot = i % a.slots;
            fault.value = id_of(a, i);
            return fault;
        }
        pairs++;
    }
    return fault;
}

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

/* The tiles of each expert, where those of the ones before it end. */
static __device__ void write_tiles(const pair_args &a, const tsr_cuda_work &w, const int32_t *tile)
{
    for (int32_t e = (int32_t)threadIdx.x; e < a.local; e += COUNTERS) {
        const int32_t last = w.first[e + 1];
        int32_t at = tile[e];
        for (int32_t pair = w.first[e]; pair < last; pair += TSR_CUDA_TOKENS, at++) {
            w.tile[at].expert = e;
            w.tile[at].first = pair;
            w.tile[at].count = min(last - pair, (int32_t)TSR_CUDA_TOKENS);
        }
    }
}

static __global__ void __launch_bounds__(COUNTERS)
    count_kernel(pair_args a, tsr_cuda_work w, tsr_cuda_faults faults)
{
    __shared__ int32_t count[TSR_MAX_EXPERTS];
    __shared__ int32_t tile[TSR_MAX_EXPERTS];
    __shared__ int32_t pairs;
    const int32_t rows = *a.row_count;
    const int32_t slots = rows * a.slots;
    int32_t wrong = INT32_MAX;

    if (tsr_is_faulty(faults) || too_many_rows(a, rows, faults))
        return;
    for (int32_t e = (int32_t)threadIdx.x; e < a.local; e += COUNTERS)
        count[e] = 0;
    if (threadIdx.x == 0)
        pairs = 0;
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < slots; i += COUNTERS) {
        const bool wanted = a.answer_of[i] >= 0;
        const int32_t local = wanted ? local_expert(a, i) : -1;
        w.slot_expert[i] = local;
        if (!wanted)
            continue;
        atomicAdd(&pairs, 1);
        if (local >= 0)
            atomicAdd(&count[local], 1);
        else
            wrong = min(wrong, i);
    }
    wrong = tsr_cta_least(wrong); /* all have counted */
    if (wrong != INT32_MAX || pairs > a.max_answers) {
        if (threadIdx.x == 0)
            tsr_leave_fault(faults, first_fault(a, slots));
        return;
    }
    if (threadIdx.x == 0) {
        int32_t tiles = 0;
        w.first[0] = 0;
        for (int32_t e = 0; e < a.local; e++) {
            tile[e] = tiles;
            tiles += (count[e] + TSR_CUDA_TOKENS - 1) / TSR_CUDA_TOKENS;
            w.first[e + 1] = w.first[e] + count[e];
        }
        *w.tiles = tiles;
    }
    __syncthreads();
    write_tiles(a, w, tile);
}

/* A warp an expert: its slots in order, 32 at a glance. */
static __global__ void place_kernel(pair_args a, tsr_cuda_work w, tsr_cuda_faults faults)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t expert = (int32_t)(blockIdx.x * TSR_CUDA_WARPS + threadIdx.x / TSR_CUDA_LANES);

    if (tsr_is_faulty(faults) || expert >= a.local)
        return;
    const int32_t slots = *a.row_count * a.slots;
    int32_t at = w.first[expert];
    for (int32_t first = 0; first < slots; first += TSR_CUDA_LANES) {
        const int32_t i = first + lane;
        const bool mine = i < slots && w.slot_expert[i] == expert;
        const unsigned all = __ballot_sync(TSR_ALL_LANES, mine);
        const int32_t before = __popc(all & ((1U << lane) - 1U));
        if (mine) {
            w.source[at + before] = i / a.slots;
            w.target[at + before] = a.answer_of[i];
        }
        at += __popc(all);
    }
}

static tsr_status sort_pairs(tsr_cuda_device *cuda, const tsr_experts_block *b, cudaStream_t stream)
{
    const tsr_experts *e = b->experts;
    pair_args a = {};

    a.rows = (const unsigned char *)b->rows;
    a.row_count = b->row_count;
    a.answer_of = b->answer_of;
    a.local_of = e->local_of;
    a.row_bytes = (int64_t)e->row_bytes;
    a.id_at = (int64_t)e->hidden * (int64_t)sizeof(uint16_t);
    a.slots = e->top_k;
    a.experts = e->experts;
    a.local = e->local;
    a.max_rows = cuda->base.shape.max_rows;
    a.max_answers = cuda->base.shape.max_answers;
    count_kernel<<<1, COUNTERS, 0, stream>>>(a, cuda->work, cuda->faults);
    if (e->local > 0)
        place_kernel<<<tsr_cuda_ceil(e->local, TSR_CUDA_WARPS), TSR_CUDA_THREADS, 0, stream>>>(
            a, cuda->work, cuda->faults);
    return TSR_CUDA_LAUNCHED();
}

/* Gate or up: from the packed rows to [pairs, I]. */
static tsr_status widen(tsr_cuda_device *cuda, const tsr_experts_block *b, tsr_cuda_side side,
                        uint16_t *to, cudaStream_t stream)
{
    const tsr_experts *e = b->experts;
    tsr_cuda_quantize q = {};
    tsr_cuda_product p = tsr_cuda_product_of_rows(cuda, e->hidden);

    q.x = (const uint16_t *)b->rows;
    q.source = cuda->work.source;
    q.x_stride = (int64_t)(e->row_bytes / sizeof(uint16_t));
    p.y = to;
    p.y_stride = e->intermediate;
    const tsr_status st = tsr_cuda_quantize_tiles(cuda, e, side, &q, stream);
    return st == TSR_OK ? tsr_cuda_multiply_tiles(cuda, e, side, &p, stream) : st;
}

static tsr_status narrow(tsr_cuda_device *cuda, const tsr_experts_block *b, cudaStream_t stream)
{
    const tsr_experts *e = b->experts;
    tsr_cuda_quantize q = {};
    tsr_cuda_product p = tsr_cuda_product_of_rows(cuda, e->intermediate);

    q.x = cuda->work.gate;
    q.up = cuda->work.up;
    q.x_stride = e->intermediate;
    p.y = b->answers;
    p.y_stride = e->hidden;
    p.row_of = cuda->work.target;
    const tsr_status st = tsr_cuda_quantize_tiles(cuda, e, TSR_CUDA_DOWN, &q, stream);
    return st == TSR_OK ? tsr_cuda_multiply_tiles(cuda, e, TSR_CUDA_DOWN, &p, stream) : st;
}

tsr_status tsr_experts_cuda(tsr_device *device, const tsr_experts_block *b, tsr_stream s)
{
    tsr_cuda_device *cuda = tsr_cuda(device);
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    tsr_status st = sort_pairs(cuda, b, stream);

    if (b->experts->local == 0 || cuda->work.max_tiles == 0)
        return st;
    if (st == TSR_OK)
        st = widen(cuda, b, TSR_CUDA_GATE, cuda->work.gate, stream);
    if (st == TSR_OK)
        st = widen(cuda, b, TSR_CUDA_UP, cuda->work.up, stream);
    return st == TSR_OK ? narrow(cuda, b, stream) : st;
}
