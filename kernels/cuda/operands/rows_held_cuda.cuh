/*
 * Operand rows that are kept or become FP8, held in registers from where they come to where they go: a
 * row by a warp, or by a CTA where it is combined.
 */
#ifndef TSR_KERNELS_CUDA_OPERANDS_ROWS_HELD_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_ROWS_HELD_CUDA_CUH

#include "kernels/cuda/operands/pairs_cuda.cuh"
#include "kernels/cuda/operands/rows_cuda.cuh"

/* Whether rows of so many columns, which come as `from` says, are. */
bool tsr_held_takes(const tsr_cuda_source *from, tsr_activation activation, int32_t padded);

/* As tsr_cuda_make_rows and tsr_cuda_make_pair_rows, of those that it takes. */
tsr_status tsr_held_rows(tsr_cuda_device *cuda, const tsr_linear *linear,
                         const tsr_cuda_source *from, const tsr_cuda_operand *to, int32_t rows,
                         cudaStream_t stream);
tsr_status tsr_held_pair_rows(tsr_cuda_device *cuda, const tsr_experts *experts, tsr_cuda_side side,
                              const tsr_cuda_source *from, const tsr_cuda_operand *to,
                              cudaStream_t stream);

/* Whether the rows of pairs are made from what arrived, row by row: of a side in FP8 whose experts have
 * fixed scales. */
bool tsr_held_takes_slots(const tsr_experts *experts, tsr_cuda_side side);
tsr_status tsr_held_slot_rows(tsr_cuda_device *cuda, const tsr_experts *experts, tsr_cuda_side side,
                              const pair_args *pairs, const tsr_cuda_operand *to,
                              cudaStream_t stream);

/* Whether combined rows for such a linear are, and as tsr_cuda_enter. */
bool tsr_held_enters(const tsr_linear *linear);
tsr_status tsr_held_enter(tsr_cuda_device *cuda, const tsr_combine_block *b, cudaStream_t stream);

#endif
