/*
 * A value in double together with how far the same value computed in float may lie from it: each
 * operation adds its rounding to what its operands bring. A chain of steps gets its tolerance so,
 * without a guess.
 */
#ifndef TSR_TESTS_KERNELS_BOUNDED_H
#define TSR_TESTS_KERNELS_BOUNDED_H

#include <stddef.h>

typedef struct bounded {
    double value;
    double error;
} bounded;

/* What is given, not computed. */
bounded bounded_exact(double value);

bounded bounded_add(bounded a, bounded b);
bounded bounded_mul(bounded a, bounded b);
bounded bounded_div(bounded a, bounded b);
bounded bounded_exp(bounded a);

/* The sum of a[i], in any order. */
bounded bounded_sum(const bounded *a, size_t count);

/* The sum of a[i] * b[i], as a linear adds it up. */
bounded bounded_dot(const bounded *a, const double *b, size_t count);

/* One row of RMSNorm. */
void bounded_norm(const bounded *x, const float *weight, size_t count, float eps, bounded *to);

/* a / (1 + exp(-a)) */
bounded bounded_silu(bounded a);

/* Fails unless got[i] lies within a[i]. */
void bounded_assert(const char *what, const bounded *a, const float *got, size_t count);

#endif
