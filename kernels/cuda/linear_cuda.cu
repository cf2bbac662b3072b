/*
 * Linears: a CTA a tile of 16 rows of the weight and 32 rows of the input (tile_cuda.cuh), of one
 * weight or of the experts whose tiles stand in the workspace.
 */
#include "kernels/cuda/linear_cuda.cuh"

#include "kernels/cuda/tile_cuda.cuh"

static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    linear_kernel(tsr_linear l, tsr_cuda_product p, tsr_cuda_faults faults)
{
    __shared__ tile_sums sums;
    tile_place at;

    if (tsr_is_faulty(faults))
        return;
    at.row = (int32_t)blockIdx.x * TILE_ROWS;
    at.token = (int32_t)blockIdx.y * TSR_CUDA_TOKENS;
    at.tokens = min(p.rows - at.token, (int32_t)TSR_CUDA_TOKENS);
    tile_run(l, p, at, sums);
}

static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    experts_kernel(const tsr_mlp *mlps, tsr_cuda_side side, tsr_cuda_work w, tsr_cuda_product p,
                   tsr_cuda_faults faults)
{
    __shared__ tile_sums sums;

    if (tsr_is_faulty(faults))
        return;
    for (int32_t i = (int32_t)blockIdx.y; i < *w.tiles; i += (int32_t)gridDim.y) {
        const tsr_cuda_tile tile = w.tile[i];
        const tsr_linear l = *tsr_side_of(&mlps[tile.expert], side);
        tile_place at;
        at.row = (int32_t)blockIdx.x * TILE_ROWS;
        at.token = tile.first;
        at.tokens = tile.count;
        tile_run(l, p, at, sums);
    }
}

tsr_cuda_product tsr_cuda_product_of_rows(const tsr_cuda_device *cuda, int32_t in)
{
    tsr_cuda_product p = {};

    p.x = cuda->work.rows;
    p.scale = cuda->work.scale;
    p.group_scale = cuda->work.group_scale;
    p.x_stride = in;
    return p;
}

tsr_status tsr_cuda_multiply(tsr_cuda_device *cuda, const tsr_linear *linear,
                             const tsr_cuda_product *p, cudaStream_t stream)
{
    const dim3 grid(tsr_cuda_ceil(linear->out, TILE_ROWS), tsr_cuda_ceil(p->rows, TSR_CUDA_TOKENS));

    linear_kernel<<<grid, TSR_CUDA_THREADS, 0, stream>>>(*linear, *p, cuda->faults);
    return TSR_CUDA_LAUNCHED();
}

tsr_status tsr_cuda_multiply_tiles(tsr_cuda_device *cuda, const tsr_experts *experts,
                                   tsr_cuda_side side, const tsr_cuda_product *p,
                                   cudaStream_t stream)
{
    const int32_t out = side == TSR_CUDA_DOWN ? experts->hidden : experts->intermediate;
    const dim3 grid(tsr_cuda_ceil(out, TILE_ROWS), tsr_cuda_tile_grid(cuda));

    experts_kernel<<<grid, TSR_CUDA_THREADS, 0, stream>>>(experts->mlps, side, cuda->work, *p,
                                                          cuda->faults);
    return TSR_CUDA_LAUNCHED();
}

static bool changes_rows(const tsr_linear *linear)
{
    return linear->activation != TSR_ACTIVATION_NONE || linear->pre_quant_scale != NULL;
}

static tsr_status quantize(tsr_cuda_device *cuda, const tsr_linear *linear,
                           const tsr_cuda_product *p, cudaStream_t stream)
{
    tsr_cuda_quantize q = {};

    q.x = p->x;
    q.x_stride = p->x_stride;
    return tsr_cuda_quantize_rows(cuda, linear, &q, p->rows, stream);
}

tsr_status tsr_cuda_linear(tsr_cuda_device *cuda, const tsr_linear *linear,
                           const tsr_cuda_product *p, bool stands, cudaStream_t stream)
{
    tsr_cuda_product quantized = tsr_cuda_product_of_rows(cuda, linear->in);
    tsr_status st = TSR_OK;

    if (!changes_rows(linear))
        return tsr_cuda_multiply(cuda, linear, p, stream);
    if (!stands)
        st = quantize(cuda, linear, p, stream);
    quantized.y = p->y;
    quantized.y_stride = p->y_stride;
    quantized.rows = p->rows;
    quantized.f32 = p->f32;
    return st == TSR_OK ? tsr_cuda_multiply(cuda, linear, &quantized, stream) : st;
}

tsr_status tsr_linears_cuda(tsr_device *device, const tsr_linears_args *a, tsr_stream s)
{
    tsr_status st = TSR_OK;

    if (a->tokens == 0)
        return TSR_OK;
    for (int32_t i = 0; st == TSR_OK && i < a->count; i++) {
        const tsr_linear *linear = a->linear[i];
        const bool stands = i > 0 && tsr_cuda_share_rows(linear, a->linear[i - 1]);
        tsr_cuda_product p = {};
        p.x = (const uint16_t *)a->x;
        p.x_stride = linear->in;
        p.y = a->out[i];
        p.y_stride = linear->out;
        p.rows = a->tokens;
        st = tsr_cuda_linear(tsr_cuda(device), linear, &p, stands, tsr_cuda_stream(device, s));
    }
    return st;
}

tsr_status tsr_head_cuda(tsr_device *device, const tsr_head_args *a, tsr_stream s)
{
    tsr_cuda_product p = {};

    if (a->rows == 0)
        return TSR_OK;
    p.x = (const uint16_t *)a->x;
    p.x_stride = a->head->in;
    p.y = a->logits;
    p.y_stride = a->head->out;
    p.rows = a->rows;
    p.f32 = true;
    return tsr_cuda_linear(tsr_cuda(device), a->head, &p, false, tsr_cuda_stream(device, s));
}
