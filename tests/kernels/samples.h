/*
 * Sample data for tests of kernels: random numbers, and linears together with what they stand for
 * in double.
 */
#ifndef TSR_TESTS_KERNELS_SAMPLES_H
#define TSR_TESTS_KERNELS_SAMPLES_H

#include "tests/kernels/backends.h"
#include "tests/kernels/whole_linear.h"

/* Fixed-seed generator. */
typedef struct sample_random {
    uint64_t state;
} sample_random;

uint32_t sample_u32(sample_random *r);

/* Uniform in [-1, 1). */
float sample_float(sample_random *r);

/* Where a GPU takes part these are numbers of BF16, so that all devices see the same. */
void sample_floats(sample_random *r, float *x, size_t count, float scale);

/* A random linear as a checkpoint stores it, and its value in double. */
typedef struct sample_linear {
    tsr_linear_source source;
    double *value; /* [out, in], scales included */
    void *weight;
    void *scales;
    float *bias;
    float *pre_quant_scale;
} sample_linear;

typedef struct sample_kind {
    tsr_weight_format format;
    tsr_activation activation;
    bool bias;
    bool pre_quant_scale;
} sample_kind;

sample_linear *sample_linear_new(sample_random *r, sample_kind kind, int32_t out, int32_t in);
void sample_linear_free(sample_linear *l);

/* Loads it into memory that sample_close frees. */
tsr_linear sample_load(tsr_device *device, const sample_linear *l);

/* The row as the linear sees it, in double: pre_quant_scale and quantization by definition. */
void sample_quantized(const sample_linear *l, const float *x, double *ret_row);

/* y[o] by definition in double, and the sum of |products| that its error grows with. */
double sample_dot(const sample_linear *l, const double *row, int32_t o, double *ret_magnitude);

/* malloc that fails the test. */
void *sample_memory(size_t bytes);

#endif
