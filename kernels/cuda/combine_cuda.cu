/*
 * The weighted sum of a token's answers, slot by slot, then the shared expert, then the residual. The
 * order is fixed: where an answer was computed changes no bit. A thread four columns; where it is
 * known what follows, a CTA a token, which norms it as well (rows_cuda.cu).
 */
#include "kernels/cuda/combine_cuda.cuh"

#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/few_cuda.cuh"
#include "kernels/cuda/rows_cuda.cuh"

enum { REHEARSED = 8 }; /* tokens at most: more have no room beside the kernel in front */

static __global__ void __launch_bounds__(TSR_CUDA_THREADS, 1) /* or loads take turns */
    combine_kernel(tsr_combine_block b, tsr_cuda_faults faults)
{
    const int32_t fours = b.hidden / 4;
    const int32_t four = (int32_t)(blockIdx.y * TSR_CUDA_THREADS + threadIdx.x);
    const int64_t token = blockIdx.x;

    tsr_admit_kernel();
    /* Code that runs once is in no cache near: once to no effect, while there is nothing to do. */
#pragma unroll 1
    for (bool rehearses = gridDim.x <= REHEARSED;; rehearses = false) {
        if (!rehearses)
            tsr_await_kernel();
        const bool is_faulty = tsr_is_faulty(faults);
        const float4 sum = combine_four(b, faults, token, min(four, fours - 1),
                                        !rehearses && !is_faulty && four < fours);
        asm volatile("" ::"f"(sum.x), "f"(sum.y), "f"(sum.z), "f"(sum.w)); /* it is made, too */
        if (rehearses)
            continue;
        if (!is_faulty && four < fours)
            ((float4 *)b.x)[token * fours + four] = sum;
        return;
    }
}

tsr_status tsr_combine_cuda(tsr_device *device, const tsr_combine_block *b, tsr_stream s)
{
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const dim3 grid((unsigned)b->tokens, tsr_cuda_ceil(b->hidden / 4, TSR_CUDA_THREADS));
    const tsr_cuda_launch_shape at = {grid, TSR_CUDA_THREADS, 0, stream, 0};

    if (b->tokens == 0)
        return TSR_OK;
    if (b->next.linear != NULL && !tsr_few_makes(b->next.linear, b->tokens))
        return tsr_cuda_enter(tsr_cuda(device), b, stream);
    return tsr_cuda_launch(at, combine_kernel, *b, tsr_cuda(device)->faults);
}
