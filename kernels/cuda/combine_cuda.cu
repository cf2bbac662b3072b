/*
 * The weighted sum of a token's answers, slot by slot, then the shared expert, then the residual. The
 * order is fixed: where an answer was computed changes no bit. A thread four columns; where it is
 * known what follows, a CTA a token, which norms it as well (rows_cuda.cu).
 */
#include "kernels/cuda/combine_cuda.cuh"

#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/few_cuda.cuh"
#include "kernels/cuda/rows_cuda.cuh"

static __global__ void __launch_bounds__(TSR_CUDA_THREADS)
    combine_kernel(tsr_combine_block b, tsr_cuda_faults faults)
{
    const int32_t fours = b.hidden / 4;
    const int32_t four = (int32_t)(blockIdx.y * TSR_CUDA_THREADS + threadIdx.x);
    const int64_t token = blockIdx.x;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (!tsr_is_faulty(faults) && four < fours)
        ((float4 *)b.x)[token * fours + four] = combine_four(b, token, four);
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
