/*
 * Operand rows of few rows, the CTA's columns of each: copied where they stand, or made of f32 rows, as
 * rows_cuda.cu does, bit by bit. What takes a look at whole rows the CTAs of a cluster share, and tell
 * each other.
 */
#ifndef TSR_KERNELS_CUDA_FEW_ROWS_CUDA_CUH
#define TSR_KERNELS_CUDA_FEW_ROWS_CUDA_CUH

#include "kernels/cuda/few_tile_cuda.cuh"
#include "kernels/cuda/stage_cuda.cuh"

/* The CTA's columns of all operand rows. */
static __device__ __forceinline__ void few_stage(const few_args &a, uint32_t memory)
{
    const int32_t first = few_rank(a) * a.slices * a.cut.columns;
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
                                                    int32_t four)
{
    const tsr_linear &l = a.p.linear[0];

    if (a.from.norm != NULL) {
        const float4 w = __ldg((const float4 *)(const void *)a.from.norm + four);
        x = make_float4(x.x * factor * w.x, x.y * factor * w.y, x.z * factor * w.z,
                        x.w * factor * w.w);
    }
    return stage_times(l, x, four);
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
    const float4 *x = few_row(a, row);
    float result = 0.0F;

    for (int32_t first = part * TSR_CUDA_LANES + lane; first < fours;
         first += FEW_TOGETHER * TSR_CUDA_THREADS) {
        float4 v[FEW_TOGETHER];
#pragma unroll
        for (int i = 0; i < FEW_TOGETHER; i++)
            v[i] = first + i * TSR_CUDA_THREADS < fours ? __ldcg(x + first + i * TSR_CUDA_THREADS)
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
                result = stage_most(result, few_normed(a, v[i], factor, four));
        }
    }
    return squares ? tsr_warp_sum(result) : tsr_warp_max(result);
}

/* The CTA's parts of rows into `part`. */
static __device__ __forceinline__ void
few_parts(const few_args &a, bool squares, const float *factor, float part[FEW_MADE][FEW_PARTS])
{
    const int32_t warps = (int32_t)(blockDim.x / TSR_CUDA_LANES);
    const int32_t rows = (a.p.rows - few_rank(a) + a.cluster - 1) / a.cluster;

    for (int32_t i = (int32_t)(threadIdx.x / TSR_CUDA_LANES); i < rows * FEW_PARTS; i += warps) {
        const int32_t n = i / FEW_PARTS;
        const float of_row = squares ? 1.0F : factor[n];
        part[n][i % FEW_PARTS] =
            few_part(a, n * a.cluster + few_rank(a), i % FEW_PARTS, squares, of_row);
    }
    __syncthreads();
}

/* Each CTA of the cluster looks at its share of the rows, and tells all. */
static __device__ __forceinline__ void few_look_around(const few_args &a, uint32_t memory)
{
    __shared__ float part[FEW_MADE][FEW_PARTS];
    __shared__ float factor[FEW_MADE];
    const int32_t n = (int32_t)threadIdx.x;
    const int32_t row = n * a.cluster + few_rank(a);
    const bool mine = n < FEW_MADE && row < a.p.rows;
    float most = 0.0F;

    if (mine)
        factor[n] = 1.0F;
    if (a.from.norm != NULL) {
        few_parts(a, true, NULL, part);
        float sum = 0.0F;
        for (int i = 0; mine && i < FEW_PARTS; i++)
            sum += part[n][i];
        if (mine)
            factor[n] = 1.0F / sqrtf(sum / (float)a.p.linear[0].in + a.from.eps);
    }
    if (few_looks(a)) {
        __syncthreads();
        few_parts(a, false, factor, part);
        for (int i = 0; mine && i < FEW_PARTS; i++)
            most = fmaxf(most, part[n][i]);
    }
    for (uint32_t cta = 0; mine && cta < (uint32_t)a.cluster; cta++) {
        const uint32_t to = memory + (uint32_t)(a.norms_at + row * (int32_t)sizeof(few_norm));
        cluster_store(to, cta, factor[n]);
        cluster_store(to + 4, cta, stage_scale(a.p.linear[0], most));
    }
    if (a.cluster == 1)
        __syncthreads();
    else
        cluster_meet();
}

/* As few_stage, of rows that nobody has made. */
static __device__ __forceinline__ void few_make(const few_args &a, unsigned char *memory)
{
    const tsr_linear &l = a.p.linear[0];
    const few_norm *norm = (const few_norm *)(const void *)(memory + a.norms_at);
    uint16_t *to = (uint16_t *)(void *)(memory + a.rows_at);
    const int32_t first = few_rank(a) * a.slices * a.cut.columns / 4;
    const int32_t fours = min(a.slices * a.cut.columns, a.cut.padded - first * 4) / 4;

    const int32_t values = a.p.rows * fours;

#pragma unroll 1
    for (int32_t at = (int32_t)threadIdx.x; at < values; at += FEW_TOGETHER * (int32_t)blockDim.x) {
        float4 v[FEW_TOGETHER];
#pragma unroll
        for (int n = 0; n < FEW_TOGETHER; n++) {
            const int32_t i = at + n * (int32_t)blockDim.x;
            const int32_t t = i / fours;
            const int32_t four = first + i - t * fours;
            v[n] = i < values && 4 * four < l.in ? __ldcg(few_row(a, t) + four)
                                                 : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        }
#pragma unroll
        for (int n = 0; n < FEW_TOGETHER; n++) {
            const int32_t i = at + n * (int32_t)blockDim.x;
            const int32_t t = i / fours;
            const int32_t four = i - t * fours;
            if (i >= values)
                continue;
            if (4 * (first + four) < l.in)
                v[n] = few_normed(a, v[n], norm[t].factor, first + four);
            stage_store(l, v[n], norm[t].scale, to + t * a.pitch, four);
        }
    }
}

#endif
