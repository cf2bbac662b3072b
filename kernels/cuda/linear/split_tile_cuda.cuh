/*
 * Some dozens of rows with linears that share them: the slices of K go to the CTAs of a cluster, which
 * multiply the same rows of the weights, and give each other the sums to add up.
 *
 *   cluster   | slice 0 | slice 1 | .. |     where there are more than CTAs: | slices 0, 1 | 2, 3 | .. |
 *   CTA       64 rows a warpgroup, up to three of them, and a warp that orders what they multiply
 *   slot      64 columns: | codes of each tile of 16 rows | scales | tokens, swizzled |
 *   item      a tile of 16 rows with a span of 8 tokens, which one CTA adds up, slices in order
 *   memory    | barriers | slots, then [tile][span of the CTA][slice] sums |
 *
 * Some weights are ordered before the kernel in front has ended: what is ordered behind them arrives behind
 * them. Operand rows come as boxes of 64 columns, a copy each. Sums go straight into the memory of the CTA
 * that adds them up, and count at a barrier there. Sums are those of product_cuda.cuh.
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_SPLIT_TILE_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_SPLIT_TILE_CUDA_CUH

#include <cudaTypedefs.h>

#include "kernels/cuda/linear/gemm_bring_cuda.cuh"
#include "kernels/cuda/linear/gemm_sums_cuda.cuh"
#include "kernels/cuda/linear/linear_cuda.cuh"

enum {
    SPLIT_TILES = 12, /* most of a cluster */
    SPLIT_SMALL = 64, /* tokens of the smaller kernels */
    SPLIT_SPAN = 8,   /* tokens of an item */
    SPLIT_ITEM_BYTES = TSR_CUDA_TILE * SPLIT_SPAN * 4,
    SPLIT_ARRIVED = GEMM_MAX_SLOTS * 16, /* barriers behind those of slots */
    SPLIT_ROWS = SPLIT_ARRIVED + 16,     /* operand rows of tokens */
    SPLIT_FRONT = SPLIT_ROWS + SPLIT_SMALL * 4,
    SPLIT_TOGETHER = 4, /* items on their way to a warp */
};

/* CTAs that share a processor. */
static __host__ __device__ __forceinline__ constexpr int split_ctas(bool scaled, int32_t tokens,
                                                                    int32_t depth)
{
    return !scaled && tokens <= SPLIT_SMALL && depth == 1 ? 2 : 1;
}

/* Warpgroups that multiply, at most; one more orders. */
static __host__ __device__ __forceinline__ constexpr int split_groups(int ctas)
{
    return ctas == 1 ? 3 : 2;
}

static __host__ __device__ __forceinline__ constexpr int split_threads(int ctas)
{
    return (split_groups(ctas) + 1) * GEMM_GROUP;
}

/* Of a thread that orders, and of one that multiplies. */
static __host__ __device__ __forceinline__ constexpr int split_fewer_registers(int ctas)
{
    return ctas == 1 ? 56 : 40;
}

static __host__ __device__ __forceinline__ constexpr int split_more_registers(int ctas)
{
    return ctas == 1 ? 152 : 96;
}

typedef struct split_args {
    tsr_cuda_product p;
    CUtensorMap rows;             /* operand rows, by boxes of 64 columns of all tokens of a tile */
    gemm_shape shape;             /* `before` is not looked at */
    int32_t end[TSR_MAX_LINEARS]; /* tiles up to and with each linear */
    int32_t group;                /* tiles of a cluster */
    int32_t cluster;              /* CTAs */
    int32_t slices;               /* of a row */
    int32_t depth;                /* slices of a CTA, but for the last */
    int32_t blocks;               /* of tokens */
    int32_t spans;                /* of a block */
    int32_t most_spans;           /* of a tile that a CTA adds up */
    int32_t ahead;                /* slots whose weights do not wait for the kernel in front */
} split_args;

/* What a CTA does. */
typedef struct split_place {
    int32_t rank;
    int32_t slice; /* first of the CTA's */
    int32_t slices;
    int32_t tile;  /* first of the cluster's */
    int32_t tiles; /* of the cluster's */
    int32_t first; /* token */
    int32_t count;
} split_place;

static __device__ __forceinline__ split_place split_place_of(const split_args &a)
{
    const int32_t cluster = (int32_t)blockIdx.x / a.cluster;
    const int32_t tokens = a.spans * SPLIT_SPAN;
    split_place at;

    at.rank = (int32_t)blockIdx.x % a.cluster;
    at.slice = at.rank * a.depth;
    at.slices = min(a.depth, a.slices - at.slice);
    at.tile = cluster / a.blocks * a.group;
    at.tiles = min(a.group, a.end[a.p.count - 1] - at.tile);
    at.first = cluster % a.blocks * tokens;
    at.count = min(tokens, a.p.rows - at.first);
    return at;
}

/* Warps that multiply. */
static __device__ __forceinline__ int32_t split_warps(void)
{
    return (int32_t)((blockDim.x - GEMM_GROUP) / TSR_CUDA_LANES);
}

static __device__ __forceinline__ gemm_ring split_ring_of(const split_args &a, uint32_t memory)
{
    gemm_ring r = {};

    r.barriers = memory;
    r.base = (memory + SPLIT_FRONT + GEMM_ALIGNMENT - 1) / GEMM_ALIGNMENT * GEMM_ALIGNMENT;
    r.at = r.base;
    r.slot_bytes = a.shape.slot_bytes;
    r.scales_at = a.shape.scales_at;
    r.tokens_at = a.shape.tokens_at;
    r.slots = a.shape.slots;
    r.tile = min(threadIdx.x / TSR_CUDA_LANES, (uint32_t)a.group - 1);
    r.boxed = true;
    return r;
}

/* Operand rows of tokens, where 128 columns have a scale. */
static __device__ __forceinline__ int32_t *split_rows(void)
{
    extern __shared__ unsigned char shared[];

    return (int32_t *)(void *)(shared + SPLIT_ROWS);
}

/* The first span of tokens that this CTA adds up of a tile: all warps send to different CTAs at a time. */
static __device__ __forceinline__ int32_t split_first_span(const split_args &a,
                                                           const split_place &at, int32_t tile)
{
    return (at.rank + SPLIT_TILES * a.cluster - tile) % a.cluster;
}

/* How many these are. */
static __device__ __forceinline__ int32_t split_spans(const split_args &a, const split_place &at,
                                                      int32_t tile)
{
    return (a.spans - split_first_span(a, at, tile) + a.cluster - 1) / a.cluster;
}

/* In front of the sums, by slices, of a tile with the CTA's n-th span. */
static __device__ __forceinline__ uint32_t split_sums_at(const split_args &a, int32_t tile,
                                                         int32_t n)
{
    return (uint32_t)((tile * a.most_spans + n) * a.slices) * SPLIT_ITEM_BYTES;
}

/* By one thread. */
static __device__ __forceinline__ void split_open(const split_args &a, const split_place &at,
                                                  const gemm_ring &r)
{
    int32_t items = 0;

#pragma unroll 1
    for (int32_t i = 0; i < r.slots; i++) {
        barrier_open(gemm_full(r, i), 1);
        barrier_open(gemm_empty(r, i), (uint32_t)split_warps());
    }
    barrier_open(r.barriers + SPLIT_ARRIVED, 1);
    barriers_opened();
#pragma unroll 1
    for (int32_t tile = 0; tile < at.tiles; tile++)
        items += split_spans(a, at, tile);
    barrier_expect(r.barriers + SPLIT_ARRIVED, (uint32_t)(items * a.slices * SPLIT_ITEM_BYTES));
}

/* ---- orders ---- */

/* What one warp orders: a lane has a tile. */
typedef struct split_order {
    gemm_weights weights; /* of the row's first slot */
    gemm_width w;
    int32_t slots;  /* of the slices */
    uint32_t bytes; /* of a slot */
} split_order;

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ split_order split_order_of(const split_args &a,
                                                             const split_place &at)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const product_tile t = product_tile_of(a.end, a.p.count, at.tile + min(lane, at.tiles - 1));
    const tsr_linear &l = a.p.linear[t.linear];
    const uint32_t tile_bytes = gemm_code_bytes(FORMAT) + gemm_scale_bytes(FORMAT);
    split_order o;

    o.w = gemm_width_of(l.in);
    o.weights.there = lane < at.tiles;
    o.weights.codes =
        (const unsigned char *)l.weight + (int64_t)t.tile * o.w.row * gemm_code_bytes(FORMAT);
    o.weights.scales =
        (const unsigned char *)l.scales + (int64_t)t.tile * o.w.row * gemm_scale_bytes(FORMAT);
    o.slots = min(at.slices * o.w.slice, o.w.row - at.slice * o.w.slice);
    o.bytes = (uint32_t)at.tiles * tile_bytes + (uint32_t)(a.spans * SPLIT_SPAN) * GEMM_TOKEN_BYTES;
    return o;
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void split_put_weights(const split_args &a, const split_place &at,
                                                         const gemm_ring &r, const split_order &o,
                                                         int32_t k)
{
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;
    const int32_t slot = k % r.slots;
    const int64_t column_slot = at.slice * o.w.slice + k;
    const uint32_t to = gemm_slot_at(r, slot);

    if (lane == 0)
        barrier_expect(gemm_full(r, slot), o.bytes);
    __syncwarp();
    if (!o.weights.there)
        return;
    copy_bulk(to + lane * gemm_code_bytes(FORMAT),
              o.weights.codes + column_slot * gemm_code_bytes(FORMAT), gemm_code_bytes(FORMAT),
              gemm_full(r, slot));
    if (gemm_scale_bytes(FORMAT) > 0)
        copy_bulk(to + r.scales_at + lane * gemm_scale_bytes(FORMAT),
                  o.weights.scales + column_slot * gemm_scale_bytes(FORMAT),
                  gemm_scale_bytes(FORMAT), gemm_full(r, slot));
}

static __device__ __forceinline__ void split_put_rows(const split_args &a, const split_place &at,
                                                      const gemm_ring &r, const split_order &o,
                                                      int32_t k)
{
    const int32_t slot = k % r.slots;

    if (threadIdx.x % TSR_CUDA_LANES == 0)
        copy_box(gemm_slot_at(r, slot) + r.tokens_at, &a.rows,
                 (at.slice * o.w.slice + k) * GEMM_COLUMNS, at.first, gemm_full(r, slot));
}

/* By one warp, when all know of the barriers; the weights of the first slots are ordered. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void split_bring(const split_args &a, const split_place &at,
                                                   const gemm_ring &r, const split_order &o)
{
    const int32_t ahead = min(a.ahead, o.slots);

    tsr_await_kernel();
#pragma unroll 1
    for (int32_t k = 0; k < ahead; k++)
        split_put_rows(a, at, r, o, k);
#pragma unroll 1
    for (int32_t k = ahead; k < o.slots; k++) {
        barrier_wait(gemm_empty(r, k % r.slots), (uint32_t)(k / r.slots & 1) ^ 1);
        split_put_weights<FORMAT>(a, at, r, o, k);
        split_put_rows(a, at, r, o, k);
    }
}

/* ---- sums ---- */

/* What 128 columns' sums are multiplied by, of this warp's rows. */
static __device__ __forceinline__ gemm_scales split_scales_of(const split_args &a,
                                                              const split_place &at)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const product_tile t = product_tile_of(a.end, a.p.count, at.tile + min(warp, at.tiles - 1));
    const tsr_linear &l = a.p.linear[t.linear];
    gemm_scales scales;

    scales.groups = (l.in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    scales.block = l.format == TSR_WEIGHT_FP8_BLOCK
                       ? (const float *)l.scales +
                             (int64_t)(t.tile * TSR_CUDA_TILE / TSR_CUDA_GROUP) * scales.groups
                       : NULL;
    scales.group = tsr_cuda_has_groups(l.format, l.activation) ? a.p.x.group_scale : NULL;
    return scales;
}

/* The CTA's slices' sums of this warpgroup's rows. */
template <tsr_weight_format FORMAT, bool SCALED, int TOKENS, int DEPTH>
static __device__ __forceinline__ void split_sum(const split_args &a, const split_place &at,
                                                 gemm_ring *r, float (&sum)[DEPTH][TOKENS / 2])
{
    const gemm_width w = gemm_width_of(a.p.linear[0].in);
    const int32_t first = at.slice * w.slice; /* slot */
    const int32_t slots = min(at.slices * w.slice, w.row - first);
    gemm_reader<FORMAT> reader;
    gemm_operand operand[2];

    gemm_open<FORMAT>(r, &reader, slots, at.count, operand[0]);
#pragma unroll
    for (int i = 0; i < DEPTH; i++) {
        const int32_t here = min(w.slice, slots - i * w.slice);
        if (i >= at.slices)
            break;
        if constexpr (!SCALED) {
            gemm_chain<FORMAT, TOKENS>(r, &reader, sum[i], operand, here);
        } else {
            const int32_t chain = TSR_CUDA_GROUP / GEMM_COLUMNS;
            const gemm_scales scales = split_scales_of(a, at);
            float part[TOKENS / 2];
#pragma unroll
            for (int n = 0; n < TOKENS / 2; n++)
                sum[i][n] = 0.0F;
            for (int32_t k = 0; k < here; k += chain) {
                gemm_chain<FORMAT, TOKENS>(r, &reader, part, operand, min(chain, here - k));
                gemm_join<TOKENS>(scales, (first + i * w.slice + k) / chain, split_rows(), part,
                                  sum[i]);
            }
        }
    }
}

/* A warp's sums of a slice to the CTAs that add them up. */
template <int TOKENS>
static __device__ __forceinline__ void split_send(const split_args &a, const split_place &at,
                                                  const gemm_ring &r, int32_t slice,
                                                  const float (&sum)[TOKENS / 2])
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    uint32_t to = r.base + split_sums_at(a, warp, 0) + (uint32_t)slice * SPLIT_ITEM_BYTES +
                  threadIdx.x % TSR_CUDA_LANES * 16;
    int32_t cta = warp % a.cluster;
    int32_t left = a.cluster; /* spans until a CTA gets its next one */

    if (warp >= at.tiles)
        return;
#pragma unroll
    for (int j = 0; j < TOKENS / SPLIT_SPAN; j++) {
        if (j >= a.spans)
            break;
        cluster_send_16(to, r.barriers + SPLIT_ARRIVED, (uint32_t)cta,
                        make_float4(sum[4 * j], sum[4 * j + 1], sum[4 * j + 2], sum[4 * j + 3]));
        cta = cta + 1 == a.cluster ? 0 : cta + 1;
        if (--left == 0) {
            left = a.cluster;
            to += (uint32_t)a.slices * SPLIT_ITEM_BYTES;
        }
    }
}

/* ---- values ---- */

/* Whose values a lane has of its warp's tile, as the tensor cores give them: rows g and g + 8, with two
 * tokens of each span. */
typedef struct split_lane {
    float *y;         /* of the first row and token */
    const float *add; /* as y, or NULL */
    int64_t stride;
    int32_t token; /* of the CTA's first span */
    int32_t rows;  /* that are there: 0, 1, 2 */
    float scale[2];
    float bias[2];
    bool biased;
} split_lane;

static __device__ __forceinline__ split_lane split_lane_of(const split_args &a,
                                                           const split_place &at)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const product_tile t = product_tile_of(a.end, a.p.count, at.tile + warp);
    const tsr_linear &l = a.p.linear[t.linear];
    const int32_t row = t.tile * TSR_CUDA_TILE + lane / 4;
    split_lane v;

    v.token = at.first + split_first_span(a, at, warp) * SPLIT_SPAN + lane % 4 * 2;
    v.stride = a.p.y_stride[t.linear];
    const int64_t first = v.token * v.stride + row;
    v.y = a.p.y[t.linear] + first;
    v.add = a.p.add != NULL && t.linear == 0 ? a.p.add + first : NULL;
    v.rows = (row < l.out) + (row + 8 < l.out);
    v.biased = l.bias != NULL;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        v.scale[i] = product_row_scale(l, min(row + 8 * i, l.out - 1));
        v.bias[i] = v.biased ? l.bias[min(row + 8 * i, l.out - 1)] : 0.0F;
    }
    return v;
}

/* What comes from far away, while sums are on their way: for two tokens with two rows. */
typedef struct split_value {
    float scale[2];
    float add[4];
} split_value;

/* Of the CTA's n-th span. */
static __device__ __forceinline__ void split_load(const split_args &a, const split_lane &lane,
                                                  int32_t n, split_value *v)
{
    const int32_t behind = n * a.cluster * SPLIT_SPAN;

#pragma unroll
    for (int e = 0; e < 2; e++) {
        const int32_t token = lane.token + behind + e;
        const bool there = token < a.p.rows;
        v->scale[e] = there ? __ldcg(a.p.x.scale + token) : 0.0F;
        v->add[e] = v->add[2 + e] = 0.0F;
        if (lane.add == NULL || !there)
            continue;
        const float *from = lane.add + (behind + e) * lane.stride;
        v->add[e] = lane.rows > 0 ? __ldcg(from) : 0.0F;
        v->add[2 + e] = lane.rows > 1 ? __ldcg(from + 8) : 0.0F;
    }
}

/* A lane's sums over all slices. */
template <int DEPTH>
static __device__ __forceinline__ float4 split_add(const split_args &a, uint32_t sums)
{
    float4 y;

#pragma unroll 1
    for (int32_t first = 0; first < (DEPTH == 1 ? 1 : a.slices); first += TSR_CUDA_CLUSTER) {
        float4 slice[TSR_CUDA_CLUSTER];
#pragma unroll
        for (int s = 0; s < TSR_CUDA_CLUSTER; s++) {
            if (first + s < a.slices)
                slice[s] = shared_load_sums(sums + (uint32_t)((first + s) * SPLIT_ITEM_BYTES));
        }
#pragma unroll
        for (int s = 0; s < TSR_CUDA_CLUSTER; s++) {
            if (first + s == 0)
                y = slice[s];
            else if (first + s < a.slices)
                y = make_float4(__fadd_rn(y.x, slice[s].x), __fadd_rn(y.y, slice[s].y),
                                __fadd_rn(y.z, slice[s].z), __fadd_rn(y.w, slice[s].w));
        }
    }
    return y;
}

static __device__ __forceinline__ void split_store(const split_args &a, const split_lane &lane,
                                                   int32_t n, const split_value &v, const float4 &y)
{
    const float sum[4] = {y.x, y.y, y.z, y.w};
    const int32_t behind = n * a.cluster * SPLIT_SPAN;

#pragma unroll
    for (int i = 0; i < 4; i++) {
        float *to = lane.y + (behind + i % 2) * lane.stride + i / 2 * 8;
        float value = __fmul_rn(sum[i], __fmul_rn(v.scale[i % 2], lane.scale[i / 2]));
        if (lane.biased)
            value = __fadd_rn(value, lane.bias[i / 2]);
        if (lane.add != NULL)
            value = __fadd_rn(v.add[i], value);
        if (lane.token + behind + i % 2 < a.p.rows && i / 2 < lane.rows)
            *to = value;
    }
}

/* The CTA's spans of each warp's tile, when the sums have come. */
template <int DEPTH>
static __device__ __forceinline__ void split_finish(const split_args &a, const split_place &at,
                                                    const gemm_ring &r)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const uint32_t sums = r.base + threadIdx.x % TSR_CUDA_LANES * 16;

    if (warp >= at.tiles)
        return;
    const int32_t spans = split_spans(a, at, warp);
    const split_lane lane = split_lane_of(a, at);
    for (int32_t first = 0; first < spans; first += SPLIT_TOGETHER) {
        split_value v[SPLIT_TOGETHER];
#pragma unroll
        for (int i = 0; i < SPLIT_TOGETHER; i++) {
            if (first + i < spans)
                split_load(a, lane, first + i, &v[i]);
        }
        barrier_wait_cluster(r.barriers + SPLIT_ARRIVED, 0);
#pragma unroll
        for (int i = 0; i < SPLIT_TOGETHER; i++) {
            if (first + i < spans)
                split_store(a, lane, first + i, v[i],
                            split_add<DEPTH>(a, sums + split_sums_at(a, warp, first + i)));
        }
    }
}

template <tsr_weight_format FORMAT, bool SCALED, int TOKENS, int DEPTH>
static __device__ __forceinline__ void split_multiply(const split_args &a, const split_place &at,
                                                      gemm_ring *r)
{
    float sum[DEPTH][TOKENS / 2];

    if (SCALED)
        tsr_await_kernel();
    split_sum<FORMAT, SCALED, TOKENS, DEPTH>(a, at, r, sum);
    cluster_await();
    cluster_arrive_relaxed(); /* sums take the place of slots, which all have read now */
    cluster_await();
#pragma unroll
    for (int i = 0; i < DEPTH; i++) {
        if (i < at.slices)
            split_send<TOKENS>(a, at, *r, at.slice + i, sum[i]);
    }
    tsr_await_kernel();
    split_finish<DEPTH>(a, at, *r);
}

/* The last warpgroup, of which one warp is enough. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void split_begin(const split_args &a, const split_place &at,
                                                   const gemm_ring &r)
{
    if ((int32_t)(threadIdx.x / TSR_CUDA_LANES) != split_warps()) {
        cluster_arrive_relaxed();
        __syncthreads();
        return;
    }
    const split_order o = split_order_of<FORMAT>(a, at);
    if (threadIdx.x % TSR_CUDA_LANES == 0)
        split_open(a, at, r);
    __syncwarp();
#pragma unroll 1
    for (int32_t k = 0; k < min(a.ahead, o.slots); k++)
        split_put_weights<FORMAT>(a, at, r, o, k);
    cluster_arrive_relaxed();
    __syncthreads();
    split_bring<FORMAT>(a, at, r, o);
}

template <tsr_weight_format FORMAT, bool SCALED, int TOKENS, int DEPTH>
static __global__ void __launch_bounds__(split_threads(split_ctas(SCALED, TOKENS, DEPTH)),
                                         split_ctas(SCALED, TOKENS, DEPTH))
    split_kernel(const __grid_constant__ split_args a)
{
    extern __shared__ unsigned char shared[];
    const split_place at = split_place_of(a);
    gemm_ring r = split_ring_of(a, async_address(shared));

    tsr_admit_kernel();
    if (threadIdx.x >= blockDim.x - GEMM_GROUP) {
        wgmma_fewer_registers<split_fewer_registers(split_ctas(SCALED, TOKENS, DEPTH))>();
        split_begin<FORMAT>(a, at, r);
    } else {
        wgmma_more_registers<split_more_registers(split_ctas(SCALED, TOKENS, DEPTH))>();
        if (SCALED && threadIdx.x < SPLIT_SMALL)
            split_rows()[threadIdx.x] = at.first + min((int32_t)threadIdx.x, at.count - 1);
        cluster_arrive_relaxed();
        __syncthreads();
        split_multiply<FORMAT, SCALED, TOKENS, DEPTH>(a, at, &r);
    }
}

#endif
