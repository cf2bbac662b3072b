/*
 * The largest of many values, in order.
 */
#ifndef TSR_KERNELS_CPU_TOP_CPU_H
#define TSR_KERNELS_CPU_TOP_CPU_H

#include <stdint.h>

/* Fills id[0 .. wanted) with the ids of the `wanted` largest of `count` values, descending, the
 * lower id of equals first. `id` has room for `wanted`; 1 <= wanted <= count. Allocates nothing. */
void tsr_top(const float *x, int32_t count, int32_t wanted, int32_t *id);

#endif
