/*
 * Operand rows of few rows, the CTA's columns of each: copied where they stand, or made of f32 rows, as
 * rows_cuda.cu does, bit by bit. What takes a look at whole rows each CTA does of a row or two, which it
 * has all of; more the CTAs of a cluster share, and tell each other.
 *
 * All this runs once, and its code comes from far: what is short is fast.
 */
#ifndef TSR_KERNELS_CUDA_FEW_ROWS_CUDA_CUH
#define TSR_KERNELS_CUDA_FEW_ROWS_CUDA_CUH

#include "kernels/cuda/attend_left_cuda.cuh"
#include "kernels/cuda/few_tile_cuda.cuh"
#include "kernels/cuda/stage_cuda.cuh"

/* The CTA's columns of all operand rows. */
static __device__ __forceinline__ void few_stage(const few_args &a, uint32_t memory)
{
    const int32_t first = cluster_cta() * a.slices * a.cut.columns;
    const int32_t pieces = min(a.slices * a.cut.columns, a.cut.padded - first) / 8;
    const uint16_t *from = a.p.x.rows + first;
    const uint32_t to = memory + (uint32_t)a.rows_at;

    for (int32_t i = (int32_t)threadIdx.x; i < a.p.rows * pieces; i += (int32_t)blockDim.x) {
        const int32_t t = i / pieces;
        const int32_t piece = i - t * pieces;
        copy_16(to + (uint32_t)((t * a.pitch + piece * 8) * 2),
                from + (int64_t)t * a.cut.padded + piece * 8);
    }
    copies_end();
}

/* Four columns of a row on the way to its operand row, normed. */
static __device__ __forceinline__ float4 few_normed(const few_args &a, float4 x, float factor,
                                                    const float4 &w, int32_t four)
{
    if (a.from.norm != NULL)
        x = make_float4(x.x * factor * w.x, x.y * factor * w.y, x.z * factor * w.z,
                        x.w * factor * w.w);
    return stage_times(a.p.linear[0], x, four);
}

/* The norm's weights of four columns. */
static __device__ __forceinline__ float4 few_weights(const few_args &a, int32_t four)
{
    return a.from.norm != NULL ? __ldg((const float4 *)(const void *)a.from.norm + four)
                               : make_float4(1.0F, 1.0F, 1.0F, 1.0F);
}

static __device__ __forceinline__ const float4 *few_row(const few_args &a, int32_t row)
{
    return (const float4 *)(const void *)(a.from.x + row * a.from.x_stride);
}

/* Whether the largest value of a row decides what it is divided by. */
static __device__ __forceinline__ bool few_looks(const few_args &a)
{
    const tsr_linear &l = a.p.linear[0];

    return l.activation == TSR_ACTIVATION_FP8_TOKEN ||
           (l.activation == TSR_ACTIVATION_NONE && l.format != TSR_WEIGHT_BF16);
}

/* Who looks at rows: the CTAs of the cluster share them out, or each looks at all of them, where they
 * stand in its shared memory. */
typedef struct few_look {
    const float *whole; /* rows in shared memory, or NULL */
    int32_t lookers;
    int32_t rank;
} few_look;

static __device__ __forceinline__ few_look few_look_of(const few_args &a,
                                                       const unsigned char *memory)
{
    const bool whole = a.p.rows <= FEW_WHOLE;
    few_look l;

    l.whole = whole ? (const float *)(const void *)(memory + a.whole_at) : NULL;
    l.lookers = whole ? 1 : a.cluster;
    l.rank = whole ? 0 : cluster_cta();
    return l;
}

static __device__ __forceinline__ float4 few_four_at(const few_args &a, few_look look, int32_t row,
                                                     int32_t four)
{
    if (look.whole != NULL)
        return ((const float4 *)(const void *)(look.whole + row * a.p.linear[0].in))[four];
    return __ldcg(few_row(a, row) + four);
}

/* One part of eight of a row, by a warp: the sum of its squares, with the additions of rows_cuda.cu
 * (every 256th four of columns, then lanes), or where the norm's factor is known, its largest value. */
static __device__ __forceinline__ float few_part(const few_args &a, few_look look, int32_t row,
                                                 int32_t part, bool squares, float factor)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t fours = a.p.linear[0].in / 4;
    float result = 0.0F;

    for (int32_t first = part * TSR_CUDA_LANES + lane; first < fours;
         first += FEW_TOGETHER * TSR_CUDA_THREADS) {
        float4 v[FEW_TOGETHER];
#pragma unroll
        for (int i = 0; i < FEW_TOGETHER; i++)
            v[i] = first + i * TSR_CUDA_THREADS < fours
                       ? few_four_at(a, look, row, first + i * TSR_CUDA_THREADS)
                       : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll
        for (int i = 0; i < FEW_TOGETHER; i++) {
            const int32_t four = first + i * TSR_CUDA_THREADS;
            if (four >= fours)
                continue;
            if (squares)
                result =
                    fmaf(v[i].w, v[i].w,
                         fmaf(v[i].z, v[i].z, fmaf(v[i].y, v[i].y, fmaf(v[i].x, v[i].x, result))));
            else
                result =
                    stage_most(result, few_normed(a, v[i], factor, few_weights(a, four), four));
        }
    }
    return squares ? tsr_warp_sum(result) : tsr_warp_max(result);
}

/* The CTA's parts of rows into `part`. */
static __device__ __forceinline__ void few_parts(const few_args &a, few_look look, bool squares,
                                                 const float *factor,
                                                 float part[FEW_MADE][FEW_PARTS])
{
    const int32_t warps = (int32_t)(blockDim.x / TSR_CUDA_LANES);
    const int32_t rows = (a.p.rows - look.rank + look.lookers - 1) / look.lookers;

    for (int32_t i = (int32_t)(threadIdx.x / TSR_CUDA_LANES); i < rows * FEW_PARTS; i += warps) {
        const int32_t n = i / FEW_PARTS;
        const float of_row = squares ? 1.0F : factor[n];
        part[n][i % FEW_PARTS] =
            few_part(a, look, n * look.lookers + look.rank, i % FEW_PARTS, squares, of_row);
    }
    __syncthreads();
}

/* What the looks at a row give, to who makes of it. */
static __device__ __forceinline__ void few_tell(const few_args &a, few_look look, uint32_t memory,
                                                int32_t row, few_norm norm)
{
    const uint32_t to = memory + (uint32_t)(a.norms_at + row * (int32_t)sizeof(few_norm));

    if (look.lookers == 1) {
        shared_store(to, norm.factor);
        shared_store(to + 4, norm.scale);
        return;
    }
    for (uint32_t cta = 0; cta < (uint32_t)a.cluster; cta++) {
        cluster_store(to, cta, norm.factor);
        cluster_store(to + 4, cta, norm.scale);
    }
}

/* Each CTA looks at its share of the rows, and tells who needs it. */
static __device__ __forceinline__ void few_look_around(const few_args &a,
                                                       const unsigned char *memory)
{
    __shared__ float part[FEW_MADE][FEW_PARTS];
    __shared__ float factor[FEW_MADE];
    const few_look look = few_look_of(a, memory);
    const int32_t n = (int32_t)threadIdx.x;
    const int32_t row = n * look.lookers + look.rank;
    const bool mine = n < FEW_MADE && row < a.p.rows;
    float most = 0.0F;

    if (mine)
        factor[n] = 1.0F;
    if (a.from.norm != NULL) {
        few_parts(a, look, true, NULL, part);
        float sum = 0.0F;
        for (int i = 0; mine && i < FEW_PARTS; i++)
            sum += part[n][i];
        if (mine)
            factor[n] = 1.0F / sqrtf(sum / (float)a.p.linear[0].in + a.from.eps);
    }
    if (few_looks(a)) {
        __syncthreads();
        few_parts(a, look, false, factor, part);
        for (int i = 0; mine && i < FEW_PARTS; i++)
            most = fmaxf(most, part[n][i]);
    }
    if (mine) {
        const few_norm norm = {factor[n], stage_scale(a.p.linear[0], most)};
        few_tell(a, look, async_address(memory), row, norm);
    }
    if (look.lookers == 1)
        __syncthreads();
    else
        cluster_meet();
}

/* The CTA's columns, by fours. */
typedef struct few_columns {
    int32_t first; /* of the row */
    int32_t count;
} few_columns;

static __device__ __forceinline__ few_columns few_columns_of(const few_args &a)
{
    few_columns c;

    c.first = cluster_cta() * a.slices * a.cut.columns / 4;
    c.count = min(a.slices * a.cut.columns, a.cut.padded - c.first * 4) / 4;
    return c;
}

/* Where what attention has left of a four of the CTA's columns lies. */
static __device__ __forceinline__ tsr_left few_left_of(const few_args &a, int32_t four)
{
    const few_columns c = few_columns_of(a);
    const tsr_left none = {};

    return four < c.count && (c.first + four) * 4 < a.p.linear[0].in
               ? tsr_left_of(a.from.left, (c.first + four) * 4)
               : none;
}

/* Their weights of the norm, which no kernel in front writes. */
static __device__ __forceinline__ void few_weights_near(const few_args &a, uint32_t memory)
{
    const few_columns c = few_columns_of(a);
    const float4 *weight = (const float4 *)(const void *)a.from.norm + c.first;

    if (a.from.norm == NULL)
        return;
    for (int32_t i = (int32_t)threadIdx.x; i < c.count; i += (int32_t)blockDim.x) {
        if (4 * (c.first + i) < a.p.linear[0].in)
            copy_16(memory + (uint32_t)(a.weights_at + i * 16), weight + i);
    }
}

/* All of the rows into shared memory. */
static __device__ __forceinline__ void few_bring(const few_args &a, uint32_t memory)
{
    const int32_t fours = a.p.linear[0].in / 4;

    for (int32_t row = 0; row < a.p.rows; row++) {
        for (int32_t i = (int32_t)threadIdx.x; i < fours; i += (int32_t)blockDim.x)
            copy_16(memory + (uint32_t)(a.whole_at + (row * fours + i) * 16), few_row(a, row) + i);
    }
    copies_end();
    copies_wait<0>();
    __syncthreads();
}

/* What takes more code, where it runs once, has it once. */
static __device__ __noinline__ void few_store_quantized(const tsr_linear &l, float4 v, float scale,
                                                        uint16_t *row, int32_t i)
{
    stage_store(l, v, scale, row, i);
}

/* As stage_store. */
static __device__ __forceinline__ void few_store_four(const tsr_linear &l, float4 v, float scale,
                                                      uint16_t *row, int32_t i)
{
    if (l.activation != TSR_ACTIVATION_NONE) {
        few_store_quantized(l, v, scale, row, i);
        return;
    }
    const float factor = 1.0F / scale; /* a power of two: exact */
    v = make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);
    ((uint2 *)(void *)row)[i] = l.format == TSR_WEIGHT_BF16 ? stage_bf16(v) : stage_f16(v);
}

/* The CTA's columns of rows whose factors are known; a thread has the same columns of each. */
static __device__ __forceinline__ void few_put(const few_args &a, unsigned char *memory)
{
    const tsr_linear &l = a.p.linear[0];
    const few_columns c = few_columns_of(a);
    const few_look look = few_look_of(a, memory);
    const few_norm *norm = (const few_norm *)(const void *)(memory + a.norms_at);
    const float4 *weight = (const float4 *)(const void *)(memory + a.weights_at);
    uint16_t *to = (uint16_t *)(void *)(memory + a.rows_at);
    const int32_t beside = max((int32_t)blockDim.x / max(c.count, 1), 1); /* rows */
    const int32_t first = (int32_t)threadIdx.x / max(c.count, 1);

    if (first >= beside)
        return;
#pragma unroll 1
    for (int32_t i = (int32_t)threadIdx.x - first * c.count; i < c.count;
         i += (int32_t)blockDim.x) {
        const bool is = 4 * (c.first + i) < l.in;
#pragma unroll 1
        for (int32_t row = first; row < a.p.rows; row += FEW_TOGETHER * beside) {
            float4 v[FEW_TOGETHER];
#pragma unroll
            for (int n = 0; n < FEW_TOGETHER; n++)
                v[n] = is && row + n * beside < a.p.rows
                           ? few_four_at(a, look, row + n * beside, c.first + i)
                           : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll
            for (int n = 0; n < FEW_TOGETHER; n++) {
                const int32_t t = row + n * beside;
                if (t >= a.p.rows)
                    break;
                if (is)
                    v[n] = few_normed(a, v[n], norm[t].factor, weight[i], c.first + i);
                few_store_four(l, v[n], norm[t].scale, to + t * a.pitch, i);
            }
        }
    }
}

/* The same where the format is known beforehand. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void few_store_known(const tsr_linear &l, float4 v, float scale,
                                                       uint16_t *row, int32_t i)
{
    if (FORMAT == TSR_WEIGHT_BF16 && l.activation == TSR_ACTIVATION_NONE)
        ((uint2 *)(void *)row)[i] = stage_bf16(v); /* scale is one */
    else
        few_store_four(l, v, scale, row, i);
}

/* As few_stage, of what attention has left of a row: `left` of the thread's first four of columns. No
 * linear that looks at whole rows does it. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void few_add_up(const few_args &a, unsigned char *memory,
                                                  tsr_left left)
{
    const tsr_linear &l = a.p.linear[0];
    const few_columns c = few_columns_of(a);
    const few_norm norm = {1.0F, stage_scale(l, 0.0F)};
    int32_t four = (int32_t)threadIdx.x;

    if (four == 0)
        *(few_norm *)(void *)(memory + a.norms_at) = norm;
#pragma unroll 1
    while (four < c.count) {
        const float4 v = left.place != NULL ? tsr_left_value(a.from.left, left)
                                            : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        few_store_known<FORMAT>(l, stage_times(l, v, c.first + four), norm.scale,
                                (uint16_t *)(void *)(memory + a.rows_at), four);
        four += (int32_t)blockDim.x;
        if (four < c.count)
            left = few_left_of(a, four);
    }
}

/* The sum of what warps have found of eight parts of a row, or their largest. */
static __device__ __forceinline__ float few_join(const float part[FEW_PARTS], bool adds)
{
    float result = 0.0F;

#pragma unroll
    for (int i = 0; i < FEW_PARTS; i++)
        result = adds ? result + part[i] : fmaxf(result, part[i]);
    return result;
}

/* As few_stage, of a single row that nobody has made, by FEW_PARTS warps and more: a thread of these
 * keeps every 256th four of columns, as rows_cuda.cu has them. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void few_make_one(const few_args &a, unsigned char *memory)
{
    __shared__ float part[2][FEW_PARTS];
    const tsr_linear &l = a.p.linear[0];
    const few_columns c = few_columns_of(a);
    const float4 *weight = (const float4 *)(const void *)(memory + a.weights_at);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const bool looks = FORMAT != TSR_WEIGHT_BF16 && few_looks(a);
    const int32_t fours = warp < FEW_PARTS ? l.in / 4 : 0;
    float4 v[FEW_KEPT];
    float sum = 0.0F;
    float most = 0.0F;

#pragma unroll
    for (int i = 0; i < FEW_KEPT; i++) {
        const int32_t four = (int32_t)threadIdx.x + i * TSR_CUDA_THREADS;
        v[i] = four < fours ? __ldcg(few_row(a, 0) + four) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
    copies_wait<0>(); /* weights of the norm */
    few_norm norm = {1.0F, 1.0F};
    if (a.from.norm != NULL) {
#pragma unroll
        for (int i = 0; i < FEW_KEPT; i++)
            sum = fmaf(v[i].w, v[i].w,
                       fmaf(v[i].z, v[i].z, fmaf(v[i].y, v[i].y, fmaf(v[i].x, v[i].x, sum))));
        sum = tsr_warp_sum(sum);
        if (warp < FEW_PARTS && threadIdx.x % TSR_CUDA_LANES == 0)
            part[0][warp] = sum;
        __syncthreads();
        norm.factor = 1.0F / sqrtf(few_join(part[0], true) / (float)l.in + a.from.eps);
    }
    if (looks) {
#pragma unroll
        for (int i = 0; i < FEW_KEPT; i++) {
            const int32_t four = (int32_t)threadIdx.x + i * TSR_CUDA_THREADS;
            if (four < fours)
                most =
                    stage_most(most, few_normed(a, v[i], norm.factor, few_weights(a, four), four));
        }
        most = tsr_warp_max(most);
        if (warp < FEW_PARTS && threadIdx.x % TSR_CUDA_LANES == 0)
            part[1][warp] = most;
        __syncthreads();
        most = few_join(part[1], false);
    }
    norm.scale = stage_scale(l, most);
    if (threadIdx.x == 0)
        *(few_norm *)(void *)(memory + a.norms_at) = norm;
    /* One of the thread's fours at most is among the CTA's columns. */
    const int32_t n = (c.first + TSR_CUDA_THREADS - 1 - (int32_t)threadIdx.x) / TSR_CUDA_THREADS;
    const int32_t four = (int32_t)threadIdx.x + n * TSR_CUDA_THREADS;
    const int32_t at = four - c.first;
    if (warp >= FEW_PARTS || at >= c.count)
        return;
    float4 own = v[0];
#pragma unroll
    for (int i = 1; i < FEW_KEPT; i++)
        own = n == i ? v[i] : own;
    if (four < fours)
        own = few_normed(a, own, norm.factor, weight[at], four);
    else
        own = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    few_store_known<FORMAT>(l, own, norm.scale, (uint16_t *)(void *)(memory + a.rows_at), at);
}

/* As few_stage, of rows that nobody has made. */
static __device__ __forceinline__ void few_make(const few_args &a, unsigned char *memory)
{
    copies_wait<0>(); /* weights of the norm */
    if (a.p.rows <= FEW_WHOLE)
        few_bring(a, async_address(memory));
    few_look_around(a, memory);
    few_put(a, memory);
}

#endif
