/*
 * Operand rows, quantized as quantize_cpu.c defines it. They hold codes by their value, exactly; what
 * all codes of a row share waits for the end of the sum, what 128 share for the end of theirs:
 *
 *   mode        value in the row                  scale of the row        of a group
 *   none        x / p, rounded                    p: 1, or the power of   -
 *                                                 two that F16 wants
 *   fp8         e4m3(x / input_scale)             input_scale             -
 *   fp8-token   e4m3(x / s), s = max|row| / 448   s                       -
 *   fp8-group   e4m3(x / s), s = max|128| / 448   1                       s
 *               the same times s, as none has it, where the weight is not E4M3
 *   nvfp4       e2m1(x / (f * input_scale)) * f   input_scale             -
 *               f = e4m3(max|16| / 6 / input_scale)
 *
 * A CTA a row, which it holds in shared memory. A norm adds up every 256th four squares in each
 * thread, then the CTA (block_cuda.cuh): its order depends on the width alone.
 */
#include "kernels/cuda/rows_cuda.cuh"

#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"
#include "kernels/cuda/stage_cuda.cuh"

enum {
    NVFP4_GROUP = 16,
    PAIR_GRID = 1024,
    HELD_FOURS = 16, /* of columns, in the registers of a lane */
    HELD_COLUMNS = HELD_FOURS * 4 * TSR_CUDA_LANES,
};

/* One row on its way. */
typedef struct row_ends {
    float *x; /* [in], in shared memory */
    uint16_t *to;
    float *scale;
    float *group_scale;
    int32_t in;
    bool bf16;
    bool has_groups;
} row_ends;

static __device__ __forceinline__ uint16_t rounded_to(bool bf16, float v)
{
    return bf16 ? tsr_to_bf16(v) : __half_as_ushort(__float2half_rn(v));
}

static __device__ __forceinline__ uint16_t rounded(const row_ends &r, float v)
{
    return rounded_to(r.bf16, v);
}

static __device__ float largest(const row_ends &r)
{
    float most = 0.0F;

    for (int32_t i = (int32_t)threadIdx.x; i < r.in; i += TSR_CUDA_THREADS)
        most = fmaxf(most, fabsf(r.x[i]));
    return tsr_cta_max(most);
}

/* The power of two that a row in F16 is divided by, of its largest value. fmaxf passes over NaN,
 * which stays what it is. */
static __device__ __forceinline__ float f16_scale(float most)
{
    const float power = tsr_power_below(most);

    return power == 0.0F ? 1.0F : fmaxf(power, 0x1p-100F) * 0x1p-14F;
}

static __device__ float scale_of(const row_ends &r)
{
    return r.bf16 ? 1.0F : f16_scale(largest(r));
}

static __device__ void keep(const row_ends &r)
{
    const float scale = scale_of(r);

    for (int32_t i = (int32_t)threadIdx.x; i < r.in; i += TSR_CUDA_THREADS)
        r.to[i] = rounded(r, r.x[i] / scale);
    if (threadIdx.x == 0)
        *r.scale = scale;
}

static __device__ void to_e4m3(const row_ends &r, float s)
{
    for (int32_t i = (int32_t)threadIdx.x; i < r.in; i += TSR_CUDA_THREADS)
        r.to[i] = rounded(r, tsr_round_e4m3(r.x[i] / s));
    if (threadIdx.x == 0)
        *r.scale = s;
}

/* A row of zeros (or of what vanishes beside 448) has no scale: its values are 0. */
static __device__ void to_e4m3_token(const row_ends &r)
{
    const float s = largest(r) / 448.0F;

    if (s != 0.0F) {
        to_e4m3(r, s);
        return;
    }
    for (int32_t i = (int32_t)threadIdx.x; i < r.in; i += TSR_CUDA_THREADS)
        r.to[i] = 0;
    if (threadIdx.x == 0)
        *r.scale = 1.0F;
}

/* A warp a group. */
static __device__ void to_e4m3_groups(const row_ends &r)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t groups = (r.in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    const float scale = r.has_groups ? 1.0F : scale_of(r);

    for (int32_t g = warp; g < groups; g += TSR_CUDA_WARPS) {
        const int32_t first = g * TSR_CUDA_GROUP;
        const int32_t last = min(r.in, first + (int32_t)TSR_CUDA_GROUP);
        float most = 0.0F;
        for (int32_t i = first + lane; i < last; i += TSR_CUDA_LANES)
            most = fmaxf(most, fabsf(r.x[i]));
        const float s = fmaxf(tsr_warp_max(most) / 448.0F, 1e-30F);
        for (int32_t i = first + lane; i < last; i += TSR_CUDA_LANES)
            r.to[i] = rounded(r, tsr_round_e4m3(r.x[i] / s) * (r.has_groups ? 1.0F : s / scale));
        if (lane == 0)
            r.group_scale[g] = s;
    }
    if (threadIdx.x == 0)
        *r.scale = scale;
}

/* A thread a group. */
static __device__ void to_nvfp4(const row_ends &r, float input_scale)
{
    for (int32_t g = (int32_t)threadIdx.x; g < r.in / NVFP4_GROUP; g += TSR_CUDA_THREADS) {
        const int32_t first = g * NVFP4_GROUP;
        float most = 0.0F;
        for (int32_t i = first; i < first + NVFP4_GROUP; i++)
            most = fmaxf(most, fabsf(r.x[i]));
        const float f = tsr_round_e4m3(most / 6.0F / input_scale);
        const float step = f * input_scale;
        for (int32_t i = first; i < first + NVFP4_GROUP; i++) {
            const float v = step == 0.0F ? 0.0F : tsr_round_e2m1(r.x[i] / step) * f;
            r.to[i] = rounded(r, v);
        }
    }
    if (threadIdx.x == 0)
        *r.scale = input_scale;
}

static __device__ __forceinline__ float4 times(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

static __device__ __forceinline__ float4 scaled(float4 a, float b)
{
    return make_float4(a.x * b, a.y * b, a.z * b, a.w * b);
}

static __device__ __forceinline__ float4 gated(float4 gate, float4 up)
{
    return make_float4(tsr_silu(gate.x) * up.x, tsr_silu(gate.y) * up.y, tsr_silu(gate.z) * up.z,
                       tsr_silu(gate.w) * up.w);
}

/* The row into shared memory, normed and scaled: a thread four columns, each 256th time. */
static __device__ void fetch(const tsr_cuda_source &from, const float *factor, int64_t row,
                             const row_ends &r)
{
    const int64_t at = (from.row != NULL ? from.row[row] : row) * from.x_stride;
    const float4 *x = (const float4 *)(const void *)(from.x + at);
    const float4 *weight = (const float4 *)(const void *)from.norm;
    const float4 *factors = (const float4 *)(const void *)factor;
    float4 *to = (float4 *)(void *)r.x;
    float sum = 0.0F;
    float norm = 1.0F;

    for (int32_t i = (int32_t)threadIdx.x; i < r.in / 4; i += TSR_CUDA_THREADS) {
        float4 v = __ldcg(x + i);
        if (from.up != NULL)
            v = gated(v, __ldcg((const float4 *)(const void *)(from.up + at) + i));
        to[i] = v;
        sum = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
    }
    if (from.norm != NULL)
        norm = 1.0F / sqrtf(tsr_cta_sum(sum) / (float)r.in + from.eps);
    for (int32_t i = (int32_t)threadIdx.x; i < r.in / 4; i += TSR_CUDA_THREADS) {
        float4 v = to[i];
        if (from.norm != NULL)
            v = times(scaled(v, norm), __ldg(weight + i));
        to[i] = factor != NULL ? times(v, __ldg(factors + i)) : v;
    }
    __syncthreads();
}

static __device__ void make_row(const tsr_linear &l, const tsr_cuda_source &from,
                                const tsr_cuda_operand &to, int64_t row)
{
    extern __shared__ float memory[];
    const int32_t padded = tsr_cuda_padded(l.in);
    const int64_t groups = (l.in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    row_ends r;

    r.x = memory;
    r.to = to.rows + row * padded;
    r.scale = to.scale + row;
    r.group_scale = to.group_scale + row * groups;
    r.in = l.in;
    r.bf16 = l.format == TSR_WEIGHT_BF16;
    r.has_groups = tsr_cuda_has_groups(l.format, l.activation);
    fetch(from, l.pre_quant_scale, row, r);
    switch (l.activation) {
    case TSR_ACTIVATION_FP8:
        to_e4m3(r, l.input_scale);
        break;
    case TSR_ACTIVATION_FP8_TOKEN:
        to_e4m3_token(r);
        break;
    case TSR_ACTIVATION_FP8_GROUP:
        to_e4m3_groups(r);
        break;
    case TSR_ACTIVATION_NVFP4:
        to_nvfp4(r, l.input_scale);
        break;
    case TSR_ACTIVATION_NONE:
    case TSR_ACTIVATION_COUNT:
        keep(r);
        break;
    }
    for (int32_t i = l.in + (int32_t)threadIdx.x; i < padded; i += TSR_CUDA_THREADS)
        r.to[i] = 0;
}

static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    rows_kernel(tsr_linear l, tsr_cuda_source from, tsr_cuda_operand to, tsr_cuda_faults faults)
{
    tsr_admit_kernel();
    tsr_await_kernel();
    if (!tsr_is_faulty(faults) && (from.count == NULL || (int32_t)blockIdx.x < *from.count))
        make_row(l, from, to, blockIdx.x);
}

static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    pairs_kernel(const tsr_mlp *mlps, tsr_cuda_side side, tsr_cuda_source from, tsr_cuda_operand to,
                 tsr_cuda_work w, tsr_cuda_faults faults)
{
    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    for (int32_t i = (int32_t)blockIdx.y; i < *w.tiles; i += (int32_t)gridDim.y) {
        const tsr_cuda_tile tile = w.tile[i];
        const tsr_linear l = *tsr_side_of(&mlps[tile.expert], side);
        for (int32_t p = (int32_t)blockIdx.x; p < tile.count; p += (int32_t)gridDim.x) {
            make_row(l, from, to, tile.first + p);
            __syncthreads();
        }
    }
}

/* ---- rows that a warp holds in its registers ---- */

/* Four columns as they are stored. */
static __device__ __forceinline__ uint2 four_rounded(bool bf16, float4 v)
{
    const uint32_t x = rounded_to(bf16, v.x);
    const uint32_t y = rounded_to(bf16, v.y);
    const uint32_t z = rounded_to(bf16, v.z);
    const uint32_t w = rounded_to(bf16, v.w);

    return make_uint2(x | y << 16, z | w << 16);
}

static __device__ __forceinline__ float4 over(float4 a, float b)
{
    return make_float4(a.x / b, a.y / b, a.z / b, a.w / b);
}

static __device__ __forceinline__ float4 four_e4m3(float4 v)
{
    return make_float4(tsr_round_e4m3(v.x), tsr_round_e4m3(v.y), tsr_round_e4m3(v.z),
                       tsr_round_e4m3(v.w));
}

/* A lane has the fours of columns lane, lane + 32 .., at most FOURS. As they are, or FP8. */
template <int FOURS>
static __device__ __forceinline__ void make_held(const tsr_linear &l, const tsr_cuda_source &from,
                                                 const tsr_cuda_operand &to, int64_t row)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t fours = l.in / 4;
    const int32_t padded = tsr_cuda_padded(l.in);
    const int64_t at = (from.row != NULL ? __ldcg(from.row + row) : row) * from.x_stride;
    const float4 *x = (const float4 *)(const void *)(from.x + at);
    const float4 *factor = (const float4 *)(const void *)l.pre_quant_scale;
    const bool bf16 = l.format == TSR_WEIGHT_BF16;
    const bool fp8 = l.activation == TSR_ACTIVATION_FP8;
    uint2 *out = (uint2 *)(void *)(to.rows + row * padded);
    float4 v[FOURS];
    float most = 0.0F;

#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        v[i] = c < fours ? __ldcg(x + c) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    }
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        if (factor != NULL && c < fours)
            v[i] = times(v[i], __ldg(factor + c));
        most = fmaxf(fmaxf(most, fmaxf(fabsf(v[i].x), fabsf(v[i].y))),
                     fmaxf(fabsf(v[i].z), fabsf(v[i].w)));
    }
    const float plain = bf16 ? 1.0F : f16_scale(tsr_warp_max(most));
    const float scale = fp8 ? l.input_scale : plain;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int32_t c = i * TSR_CUDA_LANES + lane;
        const float4 scaled = over(v[i], scale);
        if (c < padded / 4)
            out[c] = four_rounded(bf16, fp8 ? four_e4m3(scaled) : scaled);
    }
    if (lane == 0)
        to.scale[row] = scale;
}

/* As pairs_kernel, a warp a row. */
template <int FOURS>
static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    held_kernel(const tsr_mlp *mlps, tsr_cuda_side side, tsr_cuda_source from, tsr_cuda_operand to,
                tsr_cuda_work w, tsr_cuda_faults faults)
{
    const int32_t warp = (int32_t)(blockIdx.x * TSR_CUDA_WARPS + threadIdx.x / TSR_CUDA_LANES);

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    for (int32_t i = (int32_t)blockIdx.y; i < *w.tiles; i += (int32_t)gridDim.y) {
        const tsr_cuda_tile tile = w.tile[i];
        const tsr_linear l = *tsr_side_of(&mlps[tile.expert], side);
        for (int32_t p = warp; p < tile.count; p += (int32_t)(gridDim.x * TSR_CUDA_WARPS))
            make_held<FOURS>(l, from, to, tile.first + p);
    }
}

tsr_cuda_operand tsr_cuda_operand_of(const tsr_cuda_device *cuda)
{
    tsr_cuda_operand o = {cuda->work.rows, cuda->work.scale, cuda->work.group_scale};
    return o;
}

tsr_cuda_operand tsr_cuda_up_operand_of(const tsr_cuda_device *cuda)
{
    tsr_cuda_operand o = {cuda->work.up_rows, cuda->work.up_scale, cuda->work.up_group_scale};
    return o;
}

bool tsr_cuda_share_rows(const tsr_linear *a, const tsr_linear *b)
{
    return a->in == b->in && a->activation == b->activation && a->input_scale == b->input_scale &&
           a->pre_quant_scale == b->pre_quant_scale &&
           (a->format == TSR_WEIGHT_BF16) == (b->format == TSR_WEIGHT_BF16);
}

bool tsr_cuda_stages(const tsr_linear_kind *kind)
{
    return tsr_cuda_is_packed(kind->format) && stage_makes(kind->activation);
}

tsr_status tsr_cuda_make_rows(tsr_cuda_device *cuda, const tsr_linear *linear,
                              const tsr_cuda_source *from, const tsr_cuda_operand *to, int32_t rows,
                              cudaStream_t stream)
{
    const tsr_cuda_launch_shape at = {dim3((unsigned)rows), TSR_CUDA_THREADS,
                                      (size_t)linear->in * sizeof(float), stream, 0};

    return tsr_cuda_launch(at, rows_kernel, *linear, *from, *to, cuda->faults);
}

typedef void (*pair_function)(const tsr_mlp *, tsr_cuda_side, tsr_cuda_source, tsr_cuda_operand,
                              tsr_cuda_work, tsr_cuda_faults);

/* Rows that are kept or become FP8, and come as they are, need no more of a CTA than a warp. */
static pair_function held_function(const tsr_cuda_source *from, tsr_activation activation,
                                   int32_t padded)
{
    const bool simple = activation == TSR_ACTIVATION_NONE || activation == TSR_ACTIVATION_FP8;

    if (!simple || from->norm != NULL || from->up != NULL || padded > HELD_COLUMNS)
        return NULL;
    return padded > HELD_COLUMNS / 2 ? held_kernel<HELD_FOURS> : held_kernel<HELD_FOURS / 2>;
}

tsr_status tsr_cuda_make_pair_rows(tsr_cuda_device *cuda, const tsr_experts *experts,
                                   tsr_cuda_side side, const tsr_cuda_source *from,
                                   const tsr_cuda_operand *to, cudaStream_t stream)
{
    const int32_t in = side == TSR_CUDA_DOWN ? experts->intermediate : experts->hidden;
    const tsr_linear_kind *kind = side == TSR_CUDA_DOWN ? &experts->down : &experts->gate;
    const unsigned tiles = (unsigned)tsr_smaller(cuda->work.max_tiles, PAIR_GRID);
    tsr_cuda_launch_shape at = {dim3(TSR_CUDA_LEAST_TILE, tiles), TSR_CUDA_THREADS,
                                (size_t)in * sizeof(float), stream, 0};

    if (side == TSR_CUDA_UP)
        kind = &experts->up;
    pair_function kernel = held_function(from, kind->activation, tsr_cuda_padded(in));
    if (kernel == NULL)
        kernel = pairs_kernel;
    else
        at.shared = 0;
    return tsr_cuda_launch(at, kernel, experts->mlps, side, *from, *to, cuda->work, cuda->faults);
}

tsr_status tsr_cuda_prepare_rows(void)
{
    const tsr_status st = TSR_CUDA(cudaFuncSetAttribute(
        rows_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, TSR_CUDA_SHARED));

    return st == TSR_OK
               ? TSR_CUDA(cudaFuncSetAttribute(
                     pairs_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, TSR_CUDA_SHARED))
               : st;
}

static __global__ void ones_kernel(float *ones, int32_t count)
{
    const int32_t i = (int32_t)(blockIdx.x * TSR_CUDA_THREADS + threadIdx.x);

    tsr_admit_kernel();
    tsr_await_kernel();
    if (i < count)
        ones[i] = 1.0F;
}

tsr_status tsr_cuda_fill_ones(tsr_cuda_device *cuda, int32_t count)
{
    const tsr_cuda_launch_shape at = {dim3(tsr_cuda_ceil(count, TSR_CUDA_THREADS)),
                                      TSR_CUDA_THREADS, 0, cuda->stream, 0};

    if (count == 0)
        return TSR_OK;
    const tsr_status st = tsr_cuda_launch(at, ones_kernel, cuda->work.ones, count);
    return st == TSR_OK ? TSR_CUDA(cudaStreamSynchronize(cuda->stream)) : st;
}
