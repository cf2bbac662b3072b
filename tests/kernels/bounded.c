/*
 * Running errors (Wilkinson): u = 2^-24 for each rounding of an addition, a product or a quotient,
 * and 8 u for exp, which test_lane_math holds to less.
 */
#include "tests/kernels/bounded.h"

#include "tests/test.h"

#include <math.h>

static const double u = 0x1p-24;

/* `value`, rounded `roundings` times, from operands that bring `error`. */
static bounded rounded(double value, double error, double roundings)
{
    return (bounded){value, error + roundings * u * (fabs(value) + error)};
}

bounded bounded_exact(double value)
{
    return (bounded){value, 0.0};
}

bounded bounded_add(bounded a, bounded b)
{
    return rounded(a.value + b.value, a.error + b.error, 1.0);
}

bounded bounded_mul(bounded a, bounded b)
{
    const double error = fabs(a.value) * b.error + fabs(b.value) * a.error + a.error * b.error;

    return rounded(a.value * b.value, error, 1.0);
}

bounded bounded_div(bounded a, bounded b)
{
    const double value = a.value / b.value;

    return rounded(value, (a.error + fabs(value) * b.error) / (fabs(b.value) - b.error), 1.0);
}

bounded bounded_exp(bounded a)
{
    return rounded(exp(a.value), exp(a.value) * expm1(a.error), 8.0);
}

bounded bounded_sum(const bounded *a, size_t count)
{
    bounded sum = {0.0, 0.0};
    double size = 0.0;

    for (size_t i = 0; i < count; i++) {
        sum.value += a[i].value;
        sum.error += a[i].error;
        size += fabs(a[i].value) + a[i].error;
    }
    sum.error += (double)count * u * size;
    return sum;
}

/* A linear's dot is a tree over 16 lanes: count / 16 + 4 additions, the decoding, and 4 roundings of
 * the epilogue. */
bounded bounded_dot(const bounded *a, const double *b, size_t count)
{
    bounded sum = {0.0, 0.0};
    double size = 0.0;

    for (size_t i = 0; i < count; i++) {
        sum.value += a[i].value * b[i];
        sum.error += a[i].error * fabs(b[i]);
        size += (fabs(a[i].value) + a[i].error) * fabs(b[i]);
    }
    sum.error += ((double)count / 16.0 + 10.0) * u * size;
    return sum;
}

/* The squares' sum, the mean, eps, root, quotient and two products. */
void bounded_norm(const bounded *x, const float *weight, size_t count, float eps, bounded *to)
{
    bounded square[1024];

    assert_true(count <= sizeof(square) / sizeof(square[0]));
    for (size_t i = 0; i < count; i++)
        square[i] = bounded_mul(x[i], x[i]);
    const bounded mean =
        bounded_add(bounded_div(bounded_sum(square, count), bounded_exact((double)count)),
                    bounded_exact((double)eps));
    const double factor = 1.0 / sqrt(mean.value);
    const bounded scale = rounded(factor, factor * mean.error / (mean.value - mean.error), 2.0);
    for (size_t i = 0; i < count; i++)
        to[i] = bounded_mul(bounded_mul(x[i], scale), bounded_exact((double)weight[i]));
}

bounded bounded_silu(bounded a)
{
    const bounded away = bounded_exp((bounded){-a.value, a.error});

    return bounded_div(a, bounded_add(bounded_exact(1.0), away));
}

void bounded_assert(const char *what, const bounded *a, const float *got, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!(fabs((double)got[i] - a[i].value) <= a[i].error)) {
            fail_msg("%s %zu: %.9g, not %.9g +- %.2g", what, i, (double)got[i], a[i].value,
                     a[i].error);
        }
    }
}
