/* Blocks that are more than their small operations one after another. */
#ifndef TSR_KERNELS_CUDA_BLOCKS_CUDA_CUH
#define TSR_KERNELS_CUDA_BLOCKS_CUDA_CUH

#include "kernels/cuda/device/device_cuda.cuh"

tsr_status tsr_block_attention_cuda(tsr_device *device, const tsr_attention_block *b, tsr_stream s);
tsr_status tsr_block_mlp_cuda(tsr_device *device, const tsr_mlp_block *b, tsr_stream s);
tsr_status tsr_block_shared_cuda(tsr_device *device, const tsr_shared_block *b, tsr_stream s);
tsr_status tsr_block_predict_cuda(tsr_device *device, const tsr_predict_block *b, tsr_stream s);

#endif
