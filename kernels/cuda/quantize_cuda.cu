/*
 * Quantization of activations, as quantize_cpu.c defines it. Rows are BF16 and hold codes by their
 * value, exactly; what all codes of a row share waits for the end of the sum, what 128 share for the
 * end of theirs:
 *
 *   mode        value in the row                  scale of the row    of a group
 *   none        x, rounded where it was changed   -                   -
 *   fp8         e4m3(x / input_scale)             input_scale         -
 *   fp8-token   e4m3(x / s), s = max|row| / 448   s                   -
 *   fp8-group   e4m3(x / s), s = max|128| / 448   1                   s
 *   nvfp4       e2m1(x / (f * input_scale)) * f   input_scale         -
 *               f = e4m3(max|16| / 6 / input_scale)
 *
 * A CTA a row.
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/linear_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

enum { NVFP4_GROUP = 16 };

/* One row, from where it comes to where it goes. */
typedef struct row_ends {
    const uint16_t *x;
    const uint16_t *up;
    const float *factor; /* pre_quant_scale or NULL */
    uint16_t *to;
    float *scale;
    float *group_scale;
    int32_t in;
} row_ends;

static __device__ __forceinline__ float value_of(const row_ends &r, int32_t i)
{
    float v = tsr_from_bf16(r.x[i]);

    if (r.up != NULL)
        v = tsr_silu(v) * tsr_from_bf16(r.up[i]);
    return r.factor != NULL ? v * r.factor[i] : v;
}

static __device__ void keep(const row_ends &r)
{
    for (int32_t i = (int32_t)threadIdx.x; i < r.in; i += TSR_CUDA_THREADS)
        r.to[i] = tsr_to_bf16(value_of(r, i));
    if (threadIdx.x == 0)
        *r.scale = 1.0F;
}

static __device__ void to_e4m3(const row_ends &r, float s)
{
    for (int32_t i = (int32_t)threadIdx.x; i < r.in; i += TSR_CUDA_THREADS)
        r.to[i] = tsr_to_bf16(tsr_round_e4m3(value_of(r, i) / s));
    if (threadIdx.x == 0)
        *r.scale = s;
}

/* A row of zeros (or of what vanishes beside 448) has no scale: its values are 0. */
static __device__ void to_e4m3_token(const row_ends &r)
{
    float most = 0.0F;

    for (int32_t i = (int32_t)threadIdx.x; i < r.in; i += TSR_CUDA_THREADS)
        most = fmaxf(most, fabsf(value_of(r, i)));
    const float s = tsr_cta_max(most) / 448.0F;
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

    for (int32_t g = warp; g < groups; g += TSR_CUDA_WARPS) {
        const int32_t first = g * TSR_CUDA_GROUP;
        const int32_t last = r.in - first < TSR_CUDA_GROUP ? r.in : first + TSR_CUDA_GROUP;
        float most = 0.0F;
        for (int32_t i = first + lane; i < last; i += TSR_CUDA_LANES)
            most = fmaxf(most, fabsf(value_of(r, i)));
        const float s = fmaxf(tsr_warp_max(most) / 448.0F, 1e-30F);
        for (int32_t i = first + lane; i < last; i += TSR_CUDA_LANES)
            r.to[i] = tsr_to_bf16(tsr_round_e4m3(value_of(r, i) / s));
        if (lane == 0)
            r.group_scale[g] = s;
    }
    if (threadIdx.x == 0)
        *r.scale = 1.0F;
}

/* A thread a group. */
static __device__ void to_nvfp4(const row_ends &r, float input_scale)
{
    const int32_t groups = r.in / NVFP4_GROUP;

    for (int32_t g = (int32_t)threadIdx.x; g < groups; g += TSR_CUDA_THREADS) {
        const int32_t first = g * NVFP4_GROUP;
        float most = 0.0F;
        for (int32_t i = first; i < first + NVFP4_GROUP; i++)
            most = fmaxf(most, fabsf(value_of(r, i)));
        const float f = tsr_round_e4m3(most / 6.0F / input_scale);
        const float step = f * input_scale;
        for (int32_t i = first; i < first + NVFP4_GROUP; i++) {
            const float v = step == 0.0F ? 0.0F : tsr_round_e2m1(value_of(r, i) / step) * f;
            r.to[i] = tsr_to_bf16(v);
        }
    }
    if (threadIdx.x == 0)
        *r.scale = input_scale;
}

static __device__ void quantize_row(const tsr_linear &l, const tsr_cuda_quantize &q,
                                    const tsr_cuda_work &w, int64_t row)
{
    const int64_t groups = (l.in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    row_ends r;

    r.x = q.x + (q.source != NULL ? q.source[row] : row) * q.x_stride;
    r.up = q.up != NULL ? q.up + row * l.in : NULL;
    r.factor = l.pre_quant_scale;
    r.to = w.rows + row * l.in;
    r.scale = w.scale + row;
    r.group_scale = w.group_scale + row * groups;
    r.in = l.in;
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
}

static __global__ void rows_kernel(tsr_linear l, tsr_cuda_quantize q, tsr_cuda_work w,
                                   tsr_cuda_faults faults)
{
    if (!tsr_is_faulty(faults))
        quantize_row(l, q, w, blockIdx.x);
}

static __global__ void tiles_kernel(const tsr_mlp *mlps, tsr_cuda_side side, tsr_cuda_quantize q,
                                    tsr_cuda_work w, tsr_cuda_faults faults)
{
    if (tsr_is_faulty(faults))
        return;
    for (int32_t i = (int32_t)blockIdx.y; i < *w.tiles; i += (int32_t)gridDim.y) {
        const tsr_cuda_tile tile = w.tile[i];
        const tsr_mlp *mlp = &mlps[tile.expert];
        if ((int32_t)blockIdx.x >= tile.count || (side == TSR_CUDA_UP && tsr_gate_shares(mlp)))
            continue;
        quantize_row(*tsr_side_of(mlp, side), q, w, tile.first + (int32_t)blockIdx.x);
    }
}

bool tsr_cuda_share_rows(const tsr_linear *a, const tsr_linear *b)
{
    return a->in == b->in && a->activation == b->activation && a->input_scale == b->input_scale &&
           a->pre_quant_scale == b->pre_quant_scale;
}

tsr_status tsr_cuda_quantize_rows(tsr_cuda_device *cuda, const tsr_linear *linear,
                                  const tsr_cuda_quantize *q, int32_t rows, cudaStream_t stream)
{
    rows_kernel<<<(unsigned)rows, TSR_CUDA_THREADS, 0, stream>>>(*linear, *q, cuda->work,
                                                                 cuda->faults);
    return TSR_CUDA_LAUNCHED();
}

tsr_status tsr_cuda_quantize_tiles(tsr_cuda_device *cuda, const tsr_experts *experts,
                                   tsr_cuda_side side, const tsr_cuda_quantize *q,
                                   cudaStream_t stream)
{
    const dim3 grid(TSR_CUDA_TOKENS, tsr_cuda_tile_grid(cuda));

    tiles_kernel<<<grid, TSR_CUDA_THREADS, 0, stream>>>(experts->mlps, side, *q, cuda->work,
                                                        cuda->faults);
    return TSR_CUDA_LAUNCHED();
}
