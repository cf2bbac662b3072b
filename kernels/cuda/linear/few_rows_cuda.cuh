/*
 * Operand rows of few rows, the CTA's columns of each: copied where they stand, or made of f32 rows, as
 * rows_cuda.cu does, bit by bit. What takes a look at whole rows each CTA does of a single row; of more the
 * CTAs of a cluster share it, and tell each other.
 *
 * All this runs once, and its code comes from far: what is short is fast.
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_FEW_ROWS_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_FEW_ROWS_CUDA_CUH

#include "kernels/cuda/linear/few_tile_cuda.cuh"
#include "kernels/cuda/operands/attend_left_cuda.cuh"
#include "kernels/cuda/operands/stage_cuda.cuh"

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

/* One part of eight of a row, by a warp: the sum of its squares, with the additions of rows_cuda.cu
 * (every 256th four of columns, then lanes), or where the norm's factor is known, its largest value. */
static __device__ __forceinline__ float few_part(const few_args &a, int32_t row, int32_t part,
                                                 bool squares, float factor)
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
                       ? __ldcg(few_row(a, row) + first + i * TSR_CUDA_THREADS)
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

/* The sum of what warps have found of eight parts of a row, or their largest. */
static __device__ __forceinline__ float few_join(const float part[FEW_PARTS], bool adds)
{
    float result = 0.0F;

#pragma unroll
    for (int i = 0; i < FEW_PARTS; i++)
        result = adds ? result + part[i] : fmaxf(result, part[i]);
    return result;
}

/* Row n of those that this CTA looks at: the cluster's CTAs share them out. */
static __device__ __forceinline__ int32_t few_looked(const few_args &a, int32_t n)
{
    return n * a.cluster + cluster_cta();
}

/* The CTA's parts of rows into `part`. */
static __device__ __forceinline__ void
few_parts(const few_args &a, bool squares, const float *factor, float part[FEW_MADE][FEW_PARTS])
{
    const int32_t warps = (int32_t)(blockDim.x / TSR_CUDA_LANES);

    for (int32_t i = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
         few_looked(a, i / FEW_PARTS) < a.p.rows; i += warps) {
        const int32_t n = i / FEW_PARTS;
        const float of_row = squares ? 1.0F : factor[n];
        part[n][i % FEW_PARTS] = few_part(a, few_looked(a, n), i % FEW_PARTS, squares, of_row);
    }
    __syncthreads();
}

/* What the looks at a row give, to who makes of it: all CTAs. */
static __device__ __forceinline__ void few_tell(const few_args &a, uint32_t memory, int32_t row,
                                                few_norm norm)
{
    const uint32_t to = memory + (uint32_t)(a.norms_at + row * (int32_t)sizeof(few_norm));

    if (a.cluster == 1)
        shared_store_pair(to, norm.factor, norm.scale);
#pragma unroll 1
    for (int32_t cta = 0; a.cluster > 1 && cta < a.cluster; cta++)
        cluster_send_8(to, memory + FEW_TOLD, (uint32_t)cta, norm.factor, norm.scale);
}

/* Each CTA looks at its share of the rows, and tells who needs it. */
static __device__ __forceinline__ void few_look_around(const few_args &a, uint32_t memory)
{
    __shared__ float part[FEW_MADE][FEW_PARTS];
    __shared__ float factor[FEW_MADE];
    const int32_t n = (int32_t)threadIdx.x;
    const bool mine = n < FEW_MADE && few_looked(a, n) < a.p.rows;
    float most = 0.0F;

    if (mine)
        factor[n] = 1.0F;
    if (a.from.norm != NULL) {
        few_parts(a, true, NULL, part);
        if (mine)
            factor[n] =
                1.0F / sqrtf(few_join(part[n], true) / (float)a.p.linear[0].in + a.from.eps);
    }
    if (few_looks(a)) {
        __syncthreads();
        few_parts(a, false, factor, part);
        if (mine)
            most = few_join(part[n], false);
    }
    if (mine) {
        const few_norm norm = {factor[n], stage_scale(a.p.linear[0], most)};
        few_tell(a, memory, few_looked(a, n), norm);
    }
    few_await(a, memory + FEW_TOLD);
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

/* Where what attention has left of two of the CTA's columns lies. */
static __device__ __forceinline__ tsr_left few_left_of(const few_args &a, int32_t pair)
{
    const few_columns c = few_columns_of(a);
    const int32_t column = c.first * 4 + pair * 2;
    const tsr_left none = {};

    return pair < c.count * 2 && column < a.p.linear[0].in ? tsr_left_of(a.from.left, column)
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
    copies_end(); /* what has not ended so is not waited for */
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
                           ? __ldcg(few_row(a, row + n * beside) + c.first + i)
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

/* What the rows of a kernel are divided by where they become E4M3 by a scale that is known (KNOWN). */
template <bool KNOWN> static __device__ __forceinline__ tsr_divisor few_divisor(const few_args &a)
{
    const tsr_divisor none = {};

    return KNOWN ? tsr_divisor_of(a.p.linear[0].input_scale) : none;
}

/* As few_store_four, where the format is known beforehand, or what the row is divided by, too. */
template <tsr_weight_format FORMAT, bool KNOWN>
static __device__ __forceinline__ void few_store_known(const tsr_linear &l, float4 v, float scale,
                                                       tsr_divisor by, uint16_t *row, int32_t i)
{
    if (KNOWN)
        ((uint2 *)(void *)row)[i] = tsr_e4m3_four_near(v, by);
    else if (FORMAT == TSR_WEIGHT_BF16 && l.activation == TSR_ACTIVATION_NONE)
        ((uint2 *)(void *)row)[i] = stage_bf16(v); /* scale is one */
    else
        few_store_four(l, v, scale, row, i);
}

/* As few_stage, of what attention has left of a row: `left` of the thread's first two columns. Two lanes
 * have what is stored together. No linear that looks at whole rows does it. */
template <tsr_weight_format FORMAT, bool KNOWN, int WIDTH>
static __device__ __forceinline__ void few_add_up(const few_args &a, unsigned char *memory,
                                                  tsr_divisor by, tsr_left left)
{
    const tsr_linear &l = a.p.linear[0];
    const few_columns c = few_columns_of(a);
    const few_norm norm = {1.0F, KNOWN ? l.input_scale : stage_scale(l, 0.0F)};

    if (threadIdx.x == 0)
        *(few_norm *)(void *)(memory + a.norms_at) = norm;
#pragma unroll 1
    for (int32_t pair = (int32_t)threadIdx.x;; left = few_left_of(a, pair)) {
        const float2 v = left.count > 0 ? tsr_left_value<WIDTH>(left, a.from.left.value_scale)
                                        : make_float2(0.0F, 0.0F);
        const float2 w = {__shfl_down_sync(TSR_ALL_LANES, v.x, 1),
                          __shfl_down_sync(TSR_ALL_LANES, v.y, 1)};
        if (pair % 2 == 0 && pair < c.count * 2)
            few_store_known<FORMAT, KNOWN>(
                l, stage_times(l, make_float4(v.x, v.y, w.x, w.y), c.first + pair / 2), norm.scale,
                by, (uint16_t *)(void *)(memory + a.rows_at), pair / 2);
        pair += (int32_t)blockDim.x;
        if (pair / TSR_CUDA_LANES * TSR_CUDA_LANES >= c.count * 2) /* for whole warps */
            break;
    }
}

/* As few_stage, of a single row that nobody has made, by FEW_PARTS warps and more: a thread of these
 * keeps every 256th four of columns, as rows_cuda.cu has them. */
template <tsr_weight_format FORMAT, bool KNOWN>
static __device__ __forceinline__ void few_make_one(const few_args &a, unsigned char *memory,
                                                    tsr_divisor by)
{
    __shared__ float part[2][FEW_PARTS];
    const tsr_linear &l = a.p.linear[0];
    const few_columns c = few_columns_of(a);
    const float4 *weight = (const float4 *)(const void *)(memory + a.weights_at);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const bool looks = FORMAT != TSR_WEIGHT_BF16 && !KNOWN && few_looks(a);
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
    norm.scale = KNOWN ? l.input_scale : stage_scale(l, most);
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
    few_store_known<FORMAT, KNOWN>(l, own, norm.scale, by, (uint16_t *)(void *)(memory + a.rows_at),
                                   at);
}

/* As few_stage, of rows that nobody has made. */
static __device__ __forceinline__ void few_make(const few_args &a, unsigned char *memory)
{
    copies_wait<0>(); /* weights of the norm */
    few_look_around(a, async_address(memory));
    few_put(a, memory);
}

#endif
