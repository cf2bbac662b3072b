/* The one macro that calls of CUDA go through in comm. */
#ifndef TSR_COMM_NCCL_CUDA_H
#define TSR_COMM_NCCL_CUDA_H

#include "runtime/base/status.h"

/* Evaluates to a tsr_status; logs what failed. `call` is a cudaError_t. */
#define TSR_NCCL_CUDA(call) tsr_nccl_cuda_status((int)(call), #call, __FILE__, __LINE__)
tsr_status tsr_nccl_cuda_status(int error, const char *call, const char *file, int line);

#endif
