/*
 * Operand rows into shared memory, by a whole CTA: made before by rows_cuda.cu and copied, or made
 * here from f32 rows where that takes nothing but a look at each row (the same values, bit by bit).
 *
 *   | row 0 : pitch elements | row 1 | .. |  scale [16] |
 */
#ifndef TSR_KERNELS_CUDA_OPERANDS_STAGE_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_STAGE_CUDA_CUH

#include "kernels/cuda/device/e4m3_cuda.cuh"
#include "kernels/cuda/operands/product_cuda.cuh"

enum { STAGE_WARPS = 32 };

/* Where they come from. */
typedef struct stage_source {
    const float *x;        /* not NULL: f32 rows x_stride apart */
    const int32_t *row;    /* row i is x[row[i]]; NULL: x[i] */
    int64_t x_stride;      /* elements */
    tsr_cuda_operand made; /* where x is NULL: row i is its row i */
} stage_source;

/* Where they go. */
typedef struct stage_rows {
    uint16_t *rows;
    float *scale; /* [PRODUCT_TOKENS] */
    int32_t pitch;
} stage_rows;

/* Whether stage_fill can make the rows of such a linear itself. */
static __host__ __device__ __forceinline__ bool stage_makes(tsr_activation activation)
{
    return activation == TSR_ACTIVATION_NONE || activation == TSR_ACTIVATION_FP8 ||
           activation == TSR_ACTIVATION_FP8_TOKEN;
}

static __device__ __forceinline__ int64_t stage_row(const stage_source &from, int32_t row)
{
    return from.row != NULL ? from.row[row] : row;
}

static __device__ __forceinline__ void stage_copy(const tsr_linear &l, const stage_source &from,
                                                  int32_t first, int32_t count,
                                                  const stage_rows &to)
{
    const int32_t pieces = tsr_cuda_padded(l.in) / 8;

    for (int32_t i = (int32_t)threadIdx.x; i < count * pieces; i += (int32_t)blockDim.x) {
        const int32_t t = i / pieces;
        const int64_t at = (int64_t)(first + t) * tsr_cuda_padded(l.in);
        const uint4 *row = (const uint4 *)(const void *)(from.made.rows + at);
        ((uint4 *)(void *)(to.rows + t * to.pitch))[i % pieces] = __ldcg(row + i % pieces);
    }
    for (int32_t t = (int32_t)threadIdx.x; t < count; t += (int32_t)blockDim.x)
        to.scale[t] = __ldcg(from.made.scale + first + t);
}

/* Times the factors of a linear that has such. */
static __device__ __forceinline__ float4 stage_times(const tsr_linear &l, float4 v, int32_t i)
{
    if (l.pre_quant_scale != NULL && 4 * i < l.in) {
        const float4 f = __ldg((const float4 *)(const void *)l.pre_quant_scale + i);
        v = make_float4(v.x * f.x, v.y * f.y, v.z * f.z, v.w * f.w);
    }
    return v;
}

static __device__ __forceinline__ float4 stage_load(const tsr_linear &l, const float *row,
                                                    int32_t i)
{
    return 4 * i < l.in ? __ldcg((const float4 *)(const void *)row + i)
                        : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
}

static __device__ __forceinline__ float4 stage_four(const tsr_linear &l, const float *row,
                                                    int32_t i)
{
    return stage_times(l, stage_load(l, row, i), i);
}

/* What a row is divided by, as rows_cuda.cu has it; `most` is its largest magnitude. */
static __device__ __forceinline__ float stage_scale(const tsr_linear &l, float most)
{
    if (l.activation == TSR_ACTIVATION_FP8)
        return l.input_scale;
    if (l.activation == TSR_ACTIVATION_FP8_TOKEN)
        return most / 448.0F;
    const float power = tsr_power_below(most);
    if (l.format == TSR_WEIGHT_BF16 || power == 0.0F)
        return 1.0F;
    return fmaxf(power, 0x1p-100F) * 0x1p-14F;
}

static __device__ __forceinline__ uint16_t stage_value(const tsr_linear &l, float v, float scale)
{
    if (l.activation != TSR_ACTIVATION_NONE)
        v = scale != 0.0F ? tsr_round_e4m3(v / scale) : 0.0F;
    else
        v *= 1.0F / scale; /* a power of two: exact */
    return l.format == TSR_WEIGHT_BF16 ? tsr_to_bf16(v) : __half_as_ushort(__float2half_rn(v));
}

/* [row][warp of its team]: the largest magnitude seen. */
typedef float stage_peaks[PRODUCT_TOKENS][STAGE_WARPS];

static __device__ __forceinline__ uint2 stage_f16(float4 v)
{
    const uint2 pair = {__half_as_ushort(__float2half_rn(v.x)) |
                            (uint32_t)__half_as_ushort(__float2half_rn(v.y)) << 16,
                        __half_as_ushort(__float2half_rn(v.z)) |
                            (uint32_t)__half_as_ushort(__float2half_rn(v.w)) << 16};

    return pair;
}

static __device__ __forceinline__ uint2 stage_bf16(float4 v)
{
    const uint2 pair = {tsr_to_bf16(v.x) | (uint32_t)tsr_to_bf16(v.y) << 16,
                        tsr_to_bf16(v.z) | (uint32_t)tsr_to_bf16(v.w) << 16};

    return pair;
}

/* Four elements of an operand row. */
static __device__ __forceinline__ void stage_store(const tsr_linear &l, float4 v, float scale,
                                                   uint16_t *row, int32_t i)
{
    uint2 pair;

    if (l.activation != TSR_ACTIVATION_NONE && l.format != TSR_WEIGHT_BF16) {
        pair = tsr_e4m3_four(v, tsr_divisor_of(scale));
    } else {
        pair.x = stage_value(l, v.x, scale) | (uint32_t)stage_value(l, v.y, scale) << 16;
        pair.y = stage_value(l, v.z, scale) | (uint32_t)stage_value(l, v.w, scale) << 16;
    }
    ((uint2 *)(void *)row)[i] = pair;
}

static __device__ __forceinline__ float stage_most(float most, float4 v)
{
    return fmaxf(most, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
}

/* The largest magnitude that a team has seen. */
static __device__ __forceinline__ float stage_peak(const float *peaks, int32_t warps)
{
    float most = 0.0F;

    for (int32_t w = 0; w < warps; w++)
        most = fmaxf(most, peaks[w]);
    return most;
}

/*
 * The same in two parts, between which a CTA can do something else: one row for each team, whose
 * threads keep up to KEPT fours of it. Of rows that nobody quantizes, or by a scale that is known: what
 * takes more code takes more time, where it runs once.
 */
template <int KEPT> struct stage_kept {
    float4 four[KEPT];
};

/* A thread of a team. */
typedef struct stage_place {
    int32_t warps; /* of the team */
    int32_t stride;
    int32_t team;
    int32_t mine;
} stage_place;

static __device__ __forceinline__ stage_place stage_place_of(int32_t count)
{
    stage_place p;

    p.warps = (int32_t)(blockDim.x / TSR_CUDA_LANES) / count;
    p.stride = p.warps * TSR_CUDA_LANES;
    p.team = (int32_t)threadIdx.x / p.stride;
    p.mine = (int32_t)threadIdx.x % p.stride;
    return p;
}

/* How many rows can be made in two parts at once; 0: none can. */
template <int KEPT>
static __device__ __forceinline__ int32_t stage_parts(const tsr_linear &l, const stage_source &from)
{
    const int32_t of_warp = KEPT * TSR_CUDA_LANES * 4;
    const int32_t warps = (tsr_cuda_padded(l.in) + of_warp - 1) / of_warp; /* of a row */
    const bool known = l.activation == TSR_ACTIVATION_FP8 && l.format != TSR_WEIGHT_BF16;

    return from.x != NULL && (l.activation == TSR_ACTIVATION_NONE || known)
               ? (int32_t)(blockDim.x / TSR_CUDA_LANES) / warps
               : 0;
}

template <int KEPT>
static __device__ __forceinline__ void stage_first(const tsr_linear &l, const stage_source &from,
                                                   int32_t first, int32_t count,
                                                   stage_kept<KEPT> *kept)
{
    const int32_t fours = tsr_cuda_padded(l.in) / 4;
    const stage_place p = stage_place_of(count);

    if (p.team >= count)
        return;
    const float *row = from.x + stage_row(from, first + p.team) * from.x_stride;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        if (p.mine + i * p.stride < fours)
            kept->four[i] = stage_load(l, row, p.mine + i * p.stride);
    }
}

template <int KEPT>
static __device__ __forceinline__ void stage_second(const tsr_linear &l, int32_t count,
                                                    stage_kept<KEPT> *kept, const stage_rows &to,
                                                    stage_peaks peaks)
{
    const int32_t fours = tsr_cuda_padded(l.in) / 4;
    const stage_place p = stage_place_of(count);
    const bool known = l.activation == TSR_ACTIVATION_FP8;
    float most = 0.0F;

#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        if (p.team < count && p.mine + i * p.stride < fours) {
            kept->four[i] = stage_times(l, kept->four[i], p.mine + i * p.stride);
            most = stage_most(most, kept->four[i]);
        }
    }
    if (!known) {
        most = tsr_warp_max(most);
        if (p.team < count && p.mine % TSR_CUDA_LANES == 0)
            peaks[p.team][p.mine / TSR_CUDA_LANES] = most;
        __syncthreads();
    }
    if (p.team >= count)
        return;
    const float scale = known ? l.input_scale : stage_scale(l, stage_peak(peaks[p.team], p.warps));
    const tsr_divisor by = tsr_divisor_of(scale);
    const float factor = 1.0F / scale; /* a power of two: exact */
    uint2 *row = (uint2 *)(void *)(to.rows + p.team * to.pitch) + p.mine;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const float4 v = kept->four[i];
        if (p.mine + i * p.stride >= fours)
            break;
        if (known)
            row[i * p.stride] = tsr_e4m3_four_near(v, by);
        else
            row[i * p.stride] = l.format == TSR_WEIGHT_BF16
                                    ? stage_bf16(v)
                                    : stage_f16(make_float4(v.x * factor, v.y * factor,
                                                            v.z * factor, v.w * factor));
    }
    if (p.mine == 0)
        to.scale[p.team] = scale != 0.0F ? scale : 1.0F;
}

/* The warps of a CTA in teams, one for each row as long as there are enough: a team goes through its
 * rows once to see their largest values, once to convert them. */
static __device__ __forceinline__ void stage_make(const tsr_linear &l, const stage_source &from,
                                                  int32_t first, int32_t count,
                                                  const stage_rows &to, stage_peaks peaks)
{
    const int32_t fours = tsr_cuda_padded(l.in) / 4;
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t teams = min(count, (int32_t)(blockDim.x / TSR_CUDA_LANES));
    const int32_t warps = (int32_t)(blockDim.x / TSR_CUDA_LANES) / teams;
    const int32_t team = warp / warps; /* those beyond the teams only wait */
    const int32_t mine = (int32_t)threadIdx.x - team * warps * TSR_CUDA_LANES;
    const int32_t stride = warps * TSR_CUDA_LANES;
    const bool looks = l.activation != TSR_ACTIVATION_FP8 &&
                       (l.format != TSR_WEIGHT_BF16 || l.activation != TSR_ACTIVATION_NONE);

    for (int32_t t = team; looks && team < teams && t < count; t += teams) {
        const float *row = from.x + stage_row(from, first + t) * from.x_stride;
        float most = 0.0F;
#pragma unroll 4
        for (int32_t i = mine; i < fours; i += stride) {
            const float4 v = stage_four(l, row, i);
            most = stage_most(most, v);
        }
        most = tsr_warp_max(most);
        if (mine % TSR_CUDA_LANES == 0)
            peaks[t][mine / TSR_CUDA_LANES] = most;
    }
    __syncthreads();
    for (int32_t t = team; team < teams && t < count; t += teams) {
        const float *row = from.x + stage_row(from, first + t) * from.x_stride;
        const float scale = stage_scale(l, looks ? stage_peak(peaks[t], warps) : 0.0F);
#pragma unroll 4
        for (int32_t i = mine; i < fours; i += stride) {
            const float4 v = stage_four(l, row, i);
            stage_store(l, v, scale, to.rows + t * to.pitch, i);
        }
        if (mine == 0)
            to.scale[t] = scale != 0.0F ? scale : 1.0F;
    }
}

/* Rows first .. first + count for one linear. Every thread of the CTA calls; the rows stand when
 * they have met. */
static __device__ __forceinline__ void stage_fill(const tsr_linear &l, const stage_source &from,
                                                  int32_t first, int32_t count,
                                                  const stage_rows &to, stage_peaks peaks)
{
    if (from.x != NULL)
        stage_make(l, from, first, count, to, peaks);
    else
        stage_copy(l, from, first, count, to);
}

#endif
