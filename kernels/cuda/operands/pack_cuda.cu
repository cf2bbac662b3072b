/*
 * Rows as they travel: activations, then the ids, then zeros. A CTA a row.
 */
#include "kernels/cuda/device/block_cuda.cuh"

static __global__ void pack_kernel(tsr_pack_args a, tsr_cuda_faults faults)
{
    const int64_t t = blockIdx.x;
    const int32_t words = (int32_t)(a.row_bytes / sizeof(int32_t));
    const int32_t x_words = a.hidden;
    const int32_t *x = (const int32_t *)a.x + t * x_words;
    const int32_t *expert = a.expert + t * a.top_k;
    int32_t *row = (int32_t *)a.rows + t * words;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    for (int32_t i = (int32_t)threadIdx.x; i < words; i += TSR_CUDA_THREADS) {
        const int32_t k = i - x_words;
        if (k < 0)
            row[i] = x[i];
        else
            row[i] = k < a.top_k ? expert[k] : 0;
    }
    for (int32_t k = (int32_t)threadIdx.x; k < a.top_k; k += TSR_CUDA_THREADS)
        a.tag[t * a.top_k + k] = a.tag_of[expert[k]];
}

tsr_status tsr_pack_cuda(tsr_device *device, const tsr_pack_args *a, tsr_stream s)
{
    if (a->tokens == 0)
        return TSR_OK;
    const tsr_cuda_launch_shape at = {dim3((unsigned)a->tokens), TSR_CUDA_THREADS, 0,
                                      tsr_cuda_stream(device, s), 0};
    return tsr_cuda_launch(at, pack_kernel, *a, tsr_cuda(device)->faults);
}
