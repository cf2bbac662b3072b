/*
 * down(silu(gate(x)) * up(x)) of one MLP over rows, as far as possible from where they stand:
 *
 *   x ──► rows (quantized, where gate or up wants it) ──► gate, up ──► rows ──► out
 */
#include "kernels/cuda/linear_cuda.cuh"

/* What the down projection sees: silu(gate) * up, quantized. */
static tsr_status gather(tsr_cuda_device *cuda, const tsr_mlp_args *a, cudaStream_t stream)
{
    tsr_cuda_quantize q = {};

    q.x = cuda->work.gate;
    q.up = cuda->work.up;
    q.x_stride = a->mlp->down.in;
    return tsr_cuda_quantize_rows(cuda, &a->mlp->down, &q, a->tokens, stream);
}

static tsr_status narrow(tsr_cuda_device *cuda, const tsr_mlp_args *a, cudaStream_t stream)
{
    tsr_cuda_product p = tsr_cuda_product_of_rows(cuda, a->mlp->down.in);

    p.y = a->out;
    p.y_stride = a->mlp->down.out;
    p.rows = a->tokens;
    return tsr_cuda_multiply(cuda, &a->mlp->down, &p, stream);
}

tsr_status tsr_mlp_cuda(tsr_device *device, const tsr_mlp_args *a, tsr_stream s)
{
    tsr_cuda_device *cuda = tsr_cuda(device);
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const bool stands = tsr_cuda_share_rows(&a->mlp->gate, &a->mlp->up);
    tsr_cuda_product p = {};

    if (a->tokens == 0)
        return TSR_OK;
    p.x = (const uint16_t *)a->x;
    p.x_stride = (int64_t)(a->x_row_bytes / sizeof(uint16_t));
    p.y = cuda->work.gate;
    p.y_stride = a->mlp->gate.out;
    p.rows = a->tokens;
    tsr_status st = tsr_cuda_linear(cuda, &a->mlp->gate, &p, false, stream);
    p.y = cuda->work.up;
    if (st == TSR_OK)
        st = tsr_cuda_linear(cuda, &a->mlp->up, &p, stands, stream);
    if (st == TSR_OK)
        st = gather(cuda, a, stream);
    return st == TSR_OK ? narrow(cuda, a, stream) : st;
}
