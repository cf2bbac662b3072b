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
#include "kernels/cuda/operands/rows_cuda.cuh"

#include "kernels/cuda/operands/combine_cuda.cuh"
#include "kernels/cuda/operands/rows_held_cuda.cuh"
#include "kernels/cuda/operands/rows_parts_cuda.cuh"
#include "kernels/cuda/operands/stage_cuda.cuh"

enum { NVFP4_GROUP = 16 };

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

static __device__ __forceinline__ float4 gated(float4 gate, float4 up)
{
    return make_float4(tsr_silu(gate.x) * up.x, tsr_silu(gate.y) * up.y, tsr_silu(gate.z) * up.z,
                       tsr_silu(gate.w) * up.w);
}

/* The row into shared memory, a thread four columns, each 256th time. Returns the thread's sum of
 * squares. */
static __device__ float fetch(const tsr_cuda_source &from, int64_t row, const row_ends &r)
{
    const int64_t at = (from.row != NULL ? from.row[row] : row) * from.x_stride;
    const float4 *x = (const float4 *)(const void *)(from.x + at);
    float4 *to = (float4 *)(void *)r.x;
    float sum = 0.0F;

    for (int32_t i = (int32_t)threadIdx.x; i < r.in / 4; i += TSR_CUDA_THREADS) {
        float4 v = __ldcg(x + i);
        if (from.up != NULL)
            v = gated(v, __ldcg((const float4 *)(const void *)(from.up + at) + i));
        to[i] = v;
        sum = squares(v, sum);
    }
    return sum;
}

/* The same of a row that is combined here, and kept; the answers of several columns on their way. */
static __device__ float fetch_combined(const tsr_combine_block &b, tsr_cuda_faults faults,
                                       int64_t row, const row_ends &r)
{
    float4 *x = (float4 *)b.x + row * (b.hidden / 4);
    float4 *to = (float4 *)(void *)r.x;
    const int32_t fours = r.in / 4;
    float sum = 0.0F;

    for (int32_t first = (int32_t)threadIdx.x; first < fours; first += APART * TSR_CUDA_THREADS) {
        float4 v[APART];
#pragma unroll
        for (int j = 0; j < APART; j++) {
            const int32_t i = first + j * TSR_CUDA_THREADS;
            v[j] = combine_four(b, faults, row, min(i, fours - 1), i < fours);
        }
#pragma unroll
        for (int j = 0; j < APART; j++) {
            const int32_t i = first + j * TSR_CUDA_THREADS;
            if (i < fours) {
                x[i] = v[j];
                to[i] = v[j];
                sum = squares(v[j], sum);
            }
        }
    }
    return sum;
}

/* Normed, by the threads' sums of squares, and scaled: each thread the columns that it fetched. */
static __device__ void refine(const tsr_cuda_source &from, const float *factor, float sum,
                              const row_ends &r)
{
    const float4 *weight = (const float4 *)(const void *)from.norm;
    const float4 *factors = (const float4 *)(const void *)factor;
    float4 *to = (float4 *)(void *)r.x;
    float norm = 1.0F;

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

static __device__ __forceinline__ row_ends ends_of(const tsr_linear &l, const tsr_cuda_operand &to,
                                                   float *memory, int64_t row)
{
    const int64_t groups = (l.in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    row_ends r;

    r.x = memory;
    r.to = to.rows + row * tsr_cuda_padded(l.in);
    r.scale = to.scale + row;
    r.group_scale = to.group_scale + row * groups;
    r.in = l.in;
    r.bf16 = l.format == TSR_WEIGHT_BF16;
    r.has_groups = tsr_cuda_has_groups(l.format, l.activation);
    return r;
}

static __device__ void quantize(const tsr_linear &l, const row_ends &r)
{
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
    for (int32_t i = l.in + (int32_t)threadIdx.x; i < tsr_cuda_padded(l.in); i += TSR_CUDA_THREADS)
        r.to[i] = 0;
}

static __device__ void make_row(const tsr_linear &l, const tsr_cuda_source &from,
                                const tsr_cuda_operand &to, int64_t row)
{
    extern __shared__ float memory[];
    const row_ends r = ends_of(l, to, memory, row);

    refine(from, l.pre_quant_scale, fetch(from, row, r), r);
    quantize(l, r);
}

static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    rows_kernel(tsr_linear l, tsr_cuda_source from, tsr_cuda_operand to, tsr_cuda_faults faults)
{
    tsr_admit_kernel();
    call_for(from.norm, l.in);
    call_for(l.pre_quant_scale, l.in);
    tsr_await_kernel();
    if (!tsr_is_faulty(faults) && (from.count == NULL || (int32_t)blockIdx.x < *from.count))
        make_row(l, from, to, blockIdx.x);
}

static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    enter_kernel(tsr_combine_block b, tsr_linear l, tsr_cuda_source from, tsr_cuda_operand to,
                 tsr_cuda_faults faults)
{
    extern __shared__ float memory[];
    const row_ends r = ends_of(l, to, memory, blockIdx.x);

    tsr_admit_kernel();
    call_for(from.norm, l.in);
    call_for(l.pre_quant_scale, l.in);
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    refine(from, l.pre_quant_scale, fetch_combined(b, faults, blockIdx.x, r), r);
    quantize(l, r);
}

static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    pairs_kernel(const tsr_mlp *mlps, tsr_cuda_side side, tsr_cuda_source from, tsr_cuda_operand to,
                 tsr_cuda_work w, tsr_cuda_faults faults)
{
    tile_walk at = {{}, {}, (int32_t)blockIdx.y};

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    while (next_tile(mlps, side, w, &at)) {
        for (int32_t p = (int32_t)blockIdx.x; p < at.tile.count; p += (int32_t)gridDim.x) {
            make_row(at.linear, from, to, at.tile.first + p);
            __syncthreads();
        }
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

    if (tsr_held_takes(from, linear->activation, tsr_cuda_padded(linear->in)))
        return tsr_held_rows(cuda, linear, from, to, rows, stream);
    return tsr_cuda_launch(at, rows_kernel, *linear, *from, *to, cuda->faults);
}

tsr_status tsr_cuda_enter(tsr_cuda_device *cuda, const tsr_combine_block *b, cudaStream_t stream)
{
    const tsr_linear *linear = b->next.linear;
    const tsr_cuda_launch_shape at = {dim3((unsigned)b->tokens), TSR_CUDA_THREADS,
                                      (size_t)linear->in * sizeof(float), stream, 0};
    tsr_cuda_source from = {};

    from.norm = b->next.norm;
    from.eps = b->next.eps;
    if (tsr_held_enters(linear))
        return tsr_held_enter(cuda, b, stream);
    return tsr_cuda_launch(at, enter_kernel, *b, *linear, from, tsr_cuda_operand_of(cuda),
                           cuda->faults);
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
    if (tsr_held_takes(from, kind->activation, tsr_cuda_padded(in)))
        return tsr_held_pair_rows(cuda, experts, side, from, to, stream);
    return tsr_cuda_launch(at, pairs_kernel, experts->mlps, side, *from, *to, cuda->work,
                           cuda->faults);
}

tsr_status tsr_cuda_prepare_rows(void)
{
    const void *const kernels[] = {(const void *)rows_kernel, (const void *)enter_kernel,
                                   (const void *)pairs_kernel};
    tsr_status st = TSR_OK;

    for (size_t i = 0; st == TSR_OK && i < sizeof(kernels) / sizeof(kernels[0]); i++)
        st = TSR_CUDA(cudaFuncSetAttribute(kernels[i], cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           TSR_CUDA_SHARED));
    return st;
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
