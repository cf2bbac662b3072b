/*
 * The sum of two rows, rounded once.
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

static __global__ void add_kernel(uint16_t *out, const uint16_t *a, const uint16_t *b,
                                  int64_t count, tsr_cuda_faults faults)
{
    const int64_t i = (int64_t)blockIdx.x * TSR_CUDA_THREADS + threadIdx.x;

    if (tsr_is_faulty(faults) || i >= count)
        return;
    out[i] = tsr_to_bf16(tsr_from_bf16(a[i]) + tsr_from_bf16(b[i]));
}

tsr_status tsr_add_cuda(tsr_device *device, const tsr_add_args *a, tsr_stream s)
{
    const int64_t count = (int64_t)a->tokens * a->hidden;

    if (count == 0)
        return TSR_OK;
    add_kernel<<<tsr_cuda_ceil(count, TSR_CUDA_THREADS), TSR_CUDA_THREADS, 0,
                 tsr_cuda_stream(device, s)>>>((uint16_t *)a->out, (const uint16_t *)a->a,
                                               (const uint16_t *)a->b, count,
                                               tsr_cuda(device)->faults);
    return TSR_CUDA_LAUNCHED();
}
