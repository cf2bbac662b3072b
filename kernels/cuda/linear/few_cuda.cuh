/*
 * Products of few rows: decode. The same bits as those of many (gemm_cuda.cuh), by kernels that have
 * every weight on its way before the kernel in front has ended.
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_FEW_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_FEW_CUDA_CUH

#include "kernels/cuda/linear/linear_cuda.cuh"

/* Once for a card, before the first product. */
tsr_status tsr_few_prepare(const tsr_gemm_card *card);

/* Whether there are kernels for such a product, and they are the faster ones; `from` as below. */
bool tsr_few_takes(const tsr_gemm_card *card, const tsr_cuda_product *p,
                   const tsr_cuda_source *from);

/* Whether a product of few rows makes the operand rows of such a linear itself. */
bool tsr_few_makes(const tsr_linear *linear, int32_t rows);

/* from: not NULL: operand rows are made of these. */
tsr_status tsr_few_multiply(const tsr_gemm_card *card, const tsr_cuda_product *p,
                            const tsr_cuda_source *from, cudaStream_t stream);

#endif
