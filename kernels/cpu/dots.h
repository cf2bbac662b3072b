/*
 * Dots of several rows with several tokens, all in f32, in the canonical order of lanes.h. Every
 * dot is its own chain of sums, so its bits do not depend on what is computed beside it.
 */
#ifndef TSR_KERNELS_CPU_DOTS_H
#define TSR_KERNELS_CPU_DOTS_H

#include "kernels/cpu/lanes.h"

#include <stddef.h>

/*
 * y[t * y_stride + r] = w[r] . x[t] over `in` elements, a multiple of 16.
 */
typedef struct tsr_dots {
    float *y;
    const float *w;  /* rows, w_stride floats apart */
    const float *x;  /* tokens, x_stride floats apart */
    size_t y_stride; /* floats */
    size_t w_stride;
    size_t x_stride;
    int32_t in;
} tsr_dots;

void ISA(tsr_dots_run)(const tsr_dots *d, int32_t rows, int32_t tokens);

#endif
