/*
 * Norm of each head, then rotation (head_cuda.cuh), in place; a warp a head.
 */
#include "kernels/cuda/attention/head_cuda.cuh"

enum { SPANS = TSR_CUDA_HEAD_DIM / TSR_TURN_DIMS };

static __global__ void rotary_kernel(tsr_rotary_args a, tsr_cuda_faults faults)
{
    __shared__ __align__(16) float room[TSR_CUDA_WARPS][TSR_CUDA_HEAD_DIM];
    const int64_t t = blockIdx.x;
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t h = (int32_t)blockIdx.y * TSR_CUDA_WARPS + warp;
    const int64_t at = (int64_t)a.position[t] * (a.rotary_dim / 2);
    const bool is_query = h < a.q_heads;

    if (tsr_is_faulty(faults) || h >= a.q_heads + a.kv_heads)
        return;
    const tsr_turn turn = {
        is_query ? a.q_norm : a.k_norm, a.cos + at,       a.sin + at, a.head_dim,
        1.0F / (float)a.head_dim,       a.rotary_dim / 2, a.eps,
    };
    float *x = is_query ? (float *)a.q + (t * a.q_heads + h) * a.head_dim
                        : (float *)a.k + (t * a.kv_heads + h - a.q_heads) * a.head_dim;
    tsr_head<SPANS> head = tsr_load_head<SPANS>(x, a.head_dim);
    tsr_turn_head(turn, &head, room[warp]);
#pragma unroll
    for (int i = 0; i < SPANS; i++) {
        const int32_t at = TSR_TURN_SPAN * lane + TSR_TURN_DIMS * i;
        if (at < a.head_dim)
            *(float4 *)(x + at) = head.span[i];
    }
}

tsr_status tsr_rotary_cuda(tsr_device *device, const tsr_rotary_args *a, tsr_stream s)
{
    const dim3 grid((unsigned)a->tokens, tsr_cuda_ceil(a->q_heads + a->kv_heads, TSR_CUDA_WARPS));

    if (a->tokens == 0)
        return TSR_OK;
    rotary_kernel<<<grid, TSR_CUDA_THREADS, 0, tsr_cuda_stream(device, s)>>>(
        *a, tsr_cuda(device)->faults);
    return TSR_CUDA_LAUNCHED();
}
