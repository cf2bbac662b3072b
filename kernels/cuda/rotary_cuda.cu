/*
 * Norm of each head, then rotation by halves of its first dims, rounded once. A warp a head, which
 * it holds in shared memory as f32:
 *
 *   | x[0 .. r/2) | x[r/2 .. r) | rest |      pairs are (i, i + r/2); the rest passes through
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

/* One head by one warp; `head` is the warp's own D floats. */
static __device__ void turn(const tsr_rotary_args &a, float *x, const float *norm, int64_t at,
                            float *head)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t half = a.rotary_dim / 2;
    float sum = 0.0F;

    for (int32_t i = lane; i < a.head_dim; i += TSR_CUDA_LANES) {
        head[i] = x[i];
        sum = fmaf(head[i], head[i], sum);
    }
    const float mean = tsr_warp_sum(sum) / (float)a.head_dim;
    const float factor = 1.0F / sqrtf(mean + a.eps);
    for (int32_t i = lane; i < a.head_dim && norm != NULL; i += TSR_CUDA_LANES)
        head[i] = head[i] * factor * norm[i];
    __syncwarp();
    for (int32_t i = lane; i < half; i += TSR_CUDA_LANES) {
        const float low = head[i];
        const float high = head[i + half];
        x[i] = low * a.cos[at + i] - high * a.sin[at + i];
        x[i + half] = high * a.cos[at + i] + low * a.sin[at + i];
    }
    for (int32_t i = 2 * half + lane; i < a.head_dim; i += TSR_CUDA_LANES)
        x[i] = head[i];
}

static __global__ void rotary_kernel(tsr_rotary_args a, tsr_cuda_faults faults)
{
    __shared__ float heads[TSR_CUDA_WARPS][TSR_CUDA_HEAD_DIM];
    const int64_t t = blockIdx.x;
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t h = (int32_t)blockIdx.y * TSR_CUDA_WARPS + warp;

    if (tsr_is_faulty(faults) || h >= a.q_heads + a.kv_heads)
        return;
    const int64_t at = (int64_t)a.position[t] * (a.rotary_dim / 2);
    if (h < a.q_heads)
        turn(a, (float *)a.q + (t * a.q_heads + h) * a.head_dim, a.q_norm, at, heads[warp]);
    else
        turn(a, (float *)a.k + (t * a.kv_heads + h - a.q_heads) * a.head_dim, a.k_norm, at,
             heads[warp]);
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
