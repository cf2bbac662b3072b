/* The sum of two rows. */
#include "kernels/cuda/device/block_cuda.cuh"

static __global__ void add_kernel(float *out, const float *a, const float *b, int64_t count,
                                  tsr_cuda_faults faults)
{
    const int64_t i = (int64_t)blockIdx.x * TSR_CUDA_THREADS + threadIdx.x;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (!tsr_is_faulty(faults) && i < count)
        out[i] = a[i] + b[i];
}

tsr_status tsr_add_cuda(tsr_device *device, const tsr_add_args *a, tsr_stream s)
{
    const int64_t count = (int64_t)a->tokens * a->hidden;
    const tsr_cuda_launch_shape at = {dim3(tsr_cuda_ceil(count, TSR_CUDA_THREADS)),
                                      TSR_CUDA_THREADS, 0, tsr_cuda_stream(device, s), 0};

    if (count == 0)
        return TSR_OK;
    return tsr_cuda_launch(at, add_kernel, (float *)a->out, (const float *)a->a,
                           (const float *)a->b, count, tsr_cuda(device)->faults);
}
