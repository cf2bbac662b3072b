/*
 * RMSNorm, a CTA a row: each thread adds up every 256th four squares, then the CTA (block_cuda.cuh); then
 * x * (1 / sqrt(mean + eps)) * weight. The order depends on the width alone.
 */
#include "kernels/cuda/operands/norm_cuda.cuh"

#include "kernels/cuda/device/block_cuda.cuh"

static __global__ void check_kernel(const int32_t *row, int32_t tokens, int32_t limit,
                                    tsr_cuda_faults faults)
{
    int32_t wrong = INT32_MAX;

    tsr_admit_kernel();
    tsr_await_kernel();
    for (int32_t t = (int32_t)threadIdx.x; t < tokens && wrong == INT32_MAX;
         t += TSR_CUDA_THREADS) {
        if (row[t] < 0 || row[t] >= limit)
            wrong = t;
    }
    wrong = tsr_cta_least(wrong);
    if (wrong != INT32_MAX && threadIdx.x == 0) {
        const tsr_fault fault = {TSR_FAULT_X_ROW, wrong, 0, row[wrong], limit};
        tsr_leave_fault(faults, fault);
    }
}

static __global__ void norm_kernel(tsr_norm_args a, tsr_cuda_faults faults)
{
    const int64_t t = blockIdx.x;
    float sum = 0.0F;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    const float *x = (const float *)a.x + (a.row != NULL ? a.row[t] : t) * a.hidden;
    float *out = (float *)a.out + t * a.hidden;
    for (int32_t i = (int32_t)threadIdx.x; i < a.hidden / 4; i += TSR_CUDA_THREADS) {
        const float4 v = ((const float4 *)(const void *)x)[i];
        sum = fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, fmaf(v.x, v.x, sum))));
    }
    const float mean = tsr_cta_sum(sum) / (float)a.hidden;
    const float factor = 1.0F / sqrtf(mean + a.eps);
    for (int32_t i = (int32_t)threadIdx.x; i < a.hidden; i += TSR_CUDA_THREADS)
        out[i] = x[i] * factor * a.weight[i];
}

tsr_status tsr_cuda_check_x_rows(tsr_device *device, const int32_t *row, int32_t rows, tsr_stream s)
{
    const tsr_cuda_launch_shape at = {dim3(1), TSR_CUDA_THREADS, 0, tsr_cuda_stream(device, s), 0};

    return tsr_cuda_launch(at, check_kernel, row, rows, device->shape.max_tokens,
                           tsr_cuda(device)->faults);
}

tsr_status tsr_norm_cuda(tsr_device *device, const tsr_norm_args *a, tsr_stream s)
{
    const tsr_cuda_launch_shape at = {dim3((unsigned)a->tokens), TSR_CUDA_THREADS, 0,
                                      tsr_cuda_stream(device, s), 0};
    tsr_status st = TSR_OK;

    if (a->tokens == 0)
        return TSR_OK;
    if (a->row != NULL)
        st = tsr_cuda_check_x_rows(device, a->row, a->tokens, s);
    return st == TSR_OK ? tsr_cuda_launch(at, norm_kernel, *a, tsr_cuda(device)->faults) : st;
}
