/*
 * The weighted sum of a token's answers in f32, slot by slot, then the shared expert, then the
 * residual; rounded once. The order is fixed: where an answer was computed changes no bit.
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

static __global__ void combine_kernel(tsr_combine_block b, tsr_cuda_faults faults)
{
    const int64_t i = (int64_t)blockIdx.x * TSR_CUDA_THREADS + threadIdx.x;
    const uint16_t *answers = (const uint16_t *)b.answers;
    uint16_t *x = (uint16_t *)b.x;
    float sum = 0.0F;

    if (tsr_is_faulty(faults) || i >= (int64_t)b.tokens * b.hidden)
        return;
    const int64_t t = i / b.hidden;
    const int64_t column = i % b.hidden;
    for (int64_t k = 0; k < b.top_k; k++) {
        const int64_t slot = t * b.top_k + k;
        sum += b.weight[slot] * tsr_from_bf16(answers[slot * b.hidden + column]);
    }
    if (b.shared != NULL)
        sum += tsr_from_bf16(((const uint16_t *)b.shared)[i]);
    x[i] = tsr_to_bf16(tsr_from_bf16(x[i]) + sum);
}

tsr_status tsr_combine_cuda(tsr_device *device, const tsr_combine_block *b, tsr_stream s)
{
    const int64_t count = (int64_t)b->tokens * b->hidden;

    if (count == 0)
        return TSR_OK;
    combine_kernel<<<tsr_cuda_ceil(count, TSR_CUDA_THREADS), TSR_CUDA_THREADS, 0,
                     tsr_cuda_stream(device, s)>>>(*b, tsr_cuda(device)->faults);
    return TSR_CUDA_LAUNCHED();
}
