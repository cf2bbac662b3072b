/* What is looked for on the host while weights go to a GPU. */
#ifndef TSR_KERNELS_CUDA_DEVICE_LOADED_CUDA_H
#define TSR_KERNELS_CUDA_DEVICE_LOADED_CUDA_H

#include "runtime/base/dtype.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Any of `count` elements that is NaN or infinite. Types that cannot be are false. */
bool tsr_cuda_has_nonfinite(tsr_dtype dtype, const void *elements, uint64_t count);

#ifdef __cplusplus
}
#endif

#endif
