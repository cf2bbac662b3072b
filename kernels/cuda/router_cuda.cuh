/* Choosing experts: the block, in one kernel. */
#ifndef TSR_KERNELS_CUDA_ROUTER_CUDA_CUH
#define TSR_KERNELS_CUDA_ROUTER_CUDA_CUH

#include "kernels/cuda/device_cuda.cuh"

tsr_status tsr_choose_cuda(tsr_device *device, const tsr_choose_block *b, tsr_stream s);

/* Once, before the first. */
tsr_status tsr_cuda_prepare_router(void);

#endif
