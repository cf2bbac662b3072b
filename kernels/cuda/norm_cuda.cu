/*
 * RMSNorm, a CTA a row: each thread adds up every 256th square, then the CTA (block_cuda.cuh); then
 * x * (1 / sqrt(mean + eps)) * weight, rounded once. The order depends on the width alone.
 */
#include "kernels/cuda/block_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"

static __global__ void check_kernel(const int32_t *row, int32_t tokens, int32_t limit,
                                    tsr_cuda_faults faults)
{
    int32_t wrong = INT32_MAX;

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

    if (tsr_is_faulty(faults))
        return;
    const uint16_t *x = (const uint16_t *)a.x + (a.row != NULL ? a.row[t] : t) * a.hidden;
    uint16_t *out = (uint16_t *)a.out + t * a.hidden;
    for (int32_t i = (int32_t)threadIdx.x; i < a.hidden; i += TSR_CUDA_THREADS) {
        const float v = tsr_from_bf16(x[i]);
        sum = fmaf(v, v, sum);
    }
    const float mean = tsr_cta_sum(sum) / (float)a.hidden;
    const float factor = 1.0F / sqrtf(mean + a.eps);
    for (int32_t i = (int32_t)threadIdx.x; i < a.hidden; i += TSR_CUDA_THREADS)
        out[i] = tsr_to_bf16(tsr_from_bf16(x[i]) * factor * a.weight[i]);
}

tsr_status tsr_norm_cuda(tsr_device *device, const tsr_norm_args *a, tsr_stream s)
{
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const tsr_cuda_faults faults = tsr_cuda(device)->faults;

    if (a->tokens == 0)
        return TSR_OK;
    if (a->row != NULL)
        check_kernel<<<1, TSR_CUDA_THREADS, 0, stream>>>(a->row, a->tokens,
                                                         device->shape.max_tokens, faults);
    norm_kernel<<<(unsigned)a->tokens, TSR_CUDA_THREADS, 0, stream>>>(*a, faults);
    return TSR_CUDA_LAUNCHED();
}
