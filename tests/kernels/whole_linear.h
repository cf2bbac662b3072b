/* A linear as a checkpoint stores it, loaded in one go: how tests have it. */
#ifndef TSR_TESTS_KERNELS_WHOLE_LINEAR_H
#define TSR_TESTS_KERNELS_WHOLE_LINEAR_H

#include "kernels/device.h"

typedef struct tsr_linear_source {
    tsr_weight_format format;
    tsr_activation activation;
    int32_t out;
    int32_t in;
    const void *weight; /* row-major, as in format.h */
    const void
        *scales; /* row-major: f32 [out], f32 [ceil(out/128), ceil(in/128)] or e4m3 [out, in/16] */
    const float *bias;            /* [out] or NULL */
    const float *pre_quant_scale; /* [in] or NULL */
    float weight_scale;
    float input_scale;
} tsr_linear_source;

/* Places it in `memory` and loads every part, in as many pieces as `rows_at_once` makes of a part
 * (0: one); the statuses are those of tsr_device_place_linear and tsr_device_load_rows. */
tsr_status tsr_device_load_linear_by(tsr_device *device, const tsr_linear_source *source,
                                     void *memory, int32_t rows_at_once, tsr_linear *ret_linear);

/* The same in one piece. */
tsr_status tsr_device_load_linear(tsr_device *device, const tsr_linear_source *source, void *memory,
                                  tsr_linear *ret_linear);

#endif
