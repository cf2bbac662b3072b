/*
 * Products of some dozens of rows (split_cuda.cu): more than few_cuda.cu takes, and too few for
 * gemm_cuda.cu to fill the card with. The same bits as theirs.
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_SPLIT_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_SPLIT_CUDA_CUH

#include "kernels/cuda/linear/linear_cuda.cuh"

/* Once for a card, before the first product. TSR_ERR_DEVICE */
tsr_status tsr_split_prepare(tsr_gemm_card *card);

/* Whether there are kernels for such a product, and they are faster than whole tiles. */
bool tsr_split_takes(const tsr_gemm_card *card, const tsr_cuda_product *p);

tsr_status tsr_split_multiply(const tsr_gemm_card *card, const tsr_cuda_product *p,
                              cudaStream_t stream);

#endif
