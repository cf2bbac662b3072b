/*
 * The weighted sum of a token's answers, slot by slot, then the shared expert, then the residual. The
 * order is fixed: where an answer was computed changes no bit. A thread four columns.
 */
#include "kernels/cuda/block_cuda.cuh"

enum { TOGETHER = 8 }; /* answers on their way */

static __device__ __forceinline__ float4 plus(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    combine_kernel(tsr_combine_block b, tsr_cuda_faults faults)
{
    const int32_t fours = b.hidden / 4;
    const int32_t four = (int32_t)(blockIdx.y * TSR_CUDA_THREADS + threadIdx.x);
    const int64_t token = blockIdx.x;
    const int64_t i = token * fours + four;
    const float4 *answer = (const float4 *)b.answers + token * b.top_k * fours + four;
    const float *weight = b.weight + token * b.top_k;
    float4 *x = (float4 *)b.x;
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults) || four >= fours)
        return;
    const float4 before = __ldcg(x + i);
    for (int32_t first = 0; first < b.top_k; first += TOGETHER) {
        float4 a[TOGETHER];
        float w[TOGETHER];
#pragma unroll
        for (int j = 0; j < TOGETHER; j++) {
            const int32_t k = min(first + j, b.top_k - 1);
            a[j] = __ldcg(answer + (int64_t)k * fours);
            w[j] = __ldcg(weight + k);
        }
#pragma unroll
        for (int j = 0; j < TOGETHER; j++) {
            if (first + j < b.top_k)
                sum = plus(sum,
                           make_float4(w[j] * a[j].x, w[j] * a[j].y, w[j] * a[j].z, w[j] * a[j].w));
        }
    }
    if (b.shared != NULL)
        sum = plus(sum, __ldcg((const float4 *)b.shared + i));
    x[i] = plus(before, sum);
}

tsr_status tsr_combine_cuda(tsr_device *device, const tsr_combine_block *b, tsr_stream s)
{
    const dim3 grid((unsigned)b->tokens, tsr_cuda_ceil(b->hidden / 4, TSR_CUDA_THREADS));
    const tsr_cuda_launch_shape at = {grid, TSR_CUDA_THREADS, 0, tsr_cuda_stream(device, s), 0};

    if (b->tokens == 0)
        return TSR_OK;
    return tsr_cuda_launch(at, combine_kernel, *b, tsr_cuda(device)->faults);
}
