/*
 * Products of few rows with a linear of so many outputs that every warp has several tiles of it: the head
 * of a model. The same bits as those of many (gemm_cuda.cuh).
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_TALL_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_TALL_CUDA_CUH

#include "kernels/cuda/linear/linear_cuda.cuh"

/* Once for a card, before the first product. */
tsr_status tsr_tall_prepare(const tsr_gemm_card *card);

/* Whether there are kernels for such a product, and they are the faster ones; `from` as below. */
bool tsr_tall_takes(const tsr_gemm_card *card, const tsr_cuda_product *p,
                    const tsr_cuda_source *from);

/* from: not NULL: operand rows are made of these, and a row of x that is not there is a fault. */
tsr_status tsr_tall_multiply(tsr_cuda_device *cuda, const tsr_cuda_product *p,
                             const tsr_cuda_source *from, cudaStream_t stream);

#endif
