/*
 * Gated MLPs for tests of kernels: random ones of several formats, what they stand for in double,
 * and layers of experts made of them.
 */
#ifndef TSR_TESTS_KERNELS_MLPS_H
#define TSR_TESTS_KERNELS_MLPS_H

#include "tests/kernels/samples.h"

/* Formats and activations of gate, up and down. */
enum { SAMPLE_MLP_KINDS = 4 };

/* Before loading. */
typedef struct sample_mlp {
    sample_linear *gate; /* [I, H] */
    sample_linear *up;
    sample_linear *down;
} sample_mlp;

sample_mlp sample_mlp_new(sample_random *r, int kind, int32_t hidden, int32_t intermediate);
void sample_mlp_free(sample_mlp *m);
tsr_mlp sample_mlp_load(tsr_device *device, const sample_mlp *m);

/* Of rows of so many columns, [tokens, width]. */
void sample_mlp_run(tsr_device *device, const tsr_mlp *mlp, const float *x, float *y,
                    int32_t tokens, int32_t width);

/* Fails unless y is the MLP of x. */
void sample_assert_mlp(const sample_mlp *m, const float *x, const float *y);

/* tsr_experts_make with tables in memory that sample_close frees. */
tsr_status sample_experts_make(tsr_device *device, const tsr_experts_source *source,
                               tsr_experts *ret_experts);

#endif
