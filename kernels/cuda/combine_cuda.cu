/*
 * The weighted sum of a token's answers, slot by slot, then the shared expert, then the residual. The
 * order is fixed: where an answer was computed changes no bit. A thread four columns.
 */
#include "kernels/cuda/block_cuda.cuh"

static __device__ __forceinline__ float4 plus(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

static __global__ void combine_kernel(tsr_combine_block b, tsr_cuda_faults faults)
{
    const int64_t i = (int64_t)blockIdx.x * TSR_CUDA_THREADS + threadIdx.x;
    const int64_t fours = b.hidden / 4;
    const float4 *answers = (const float4 *)b.answers;
    float4 *x = (float4 *)b.x;
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults) || i >= b.tokens * fours)
        return;
    const int64_t t = i / fours;
#pragma unroll 8
    for (int32_t k = 0; k < b.top_k; k++) {
        const int64_t slot = t * b.top_k + k;
        const float4 answer = answers[slot * fours + i % fours];
        const float w = b.weight[slot];
        sum = plus(sum, make_float4(w * answer.x, w * answer.y, w * answer.z, w * answer.w));
    }
    if (b.shared != NULL)
        sum = plus(sum, ((const float4 *)b.shared)[i]);
    x[i] = plus(x[i], sum);
}

tsr_status tsr_combine_cuda(tsr_device *device, const tsr_combine_block *b, tsr_stream s)
{
    const int64_t threads = (int64_t)b->tokens * (b->hidden / 4);
    const tsr_cuda_launch_shape at = {dim3(tsr_cuda_ceil(threads, TSR_CUDA_THREADS)),
                                      TSR_CUDA_THREADS, 0, tsr_cuda_stream(device, s), 0};

    if (threads == 0)
        return TSR_OK;
    return tsr_cuda_launch(at, combine_kernel, *b, tsr_cuda(device)->faults);
}
