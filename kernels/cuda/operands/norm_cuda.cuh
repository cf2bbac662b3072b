/* Looking at the rows that a norm takes. */
#ifndef TSR_KERNELS_CUDA_OPERANDS_NORM_CUDA_CUH
#define TSR_KERNELS_CUDA_OPERANDS_NORM_CUDA_CUH

#include "kernels/cuda/device/device_cuda.cuh"

/* Fault: row[t] is beyond the tokens reserved. */
tsr_status tsr_cuda_check_x_rows(tsr_device *device, const int32_t *row, int32_t rows,
                                 tsr_stream s);

#endif
