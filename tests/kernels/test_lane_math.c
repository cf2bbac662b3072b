/*
 * The functions of sixteen lanes; this file is compiled once per instruction set.
 */
#include "kernels/cpu/lane_math.h"

#include "runtime/base/numeric.h"
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>

/* Distance in units of the last place of the expected value, subnormals included. */
static double ulps(float got, double expected)
{
    if ((double)got == expected)
        return 0.0;
    int exponent = 0;
    (void)frexp(expected, &exponent);
    exponent = exponent - 24 < -149 ? -149 : exponent - 24;
    return fabs((double)got - expected) / ldexp(1.0, exponent);
}

typedef lanes (*lane_function)(lanes x);
typedef double (*definition)(double x);

static lanes exp_of(lanes x)
{
    return lanes_exp(x);
}

static lanes sigmoid_of(lanes x)
{
    return lanes_sigmoid(x);
}

static lanes silu_of(lanes x)
{
    return lanes_silu(x);
}

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

/* The largest error over `count` arguments, evenly spaced. */
static double worst(lane_function f, definition d, double from, double to, int count)
{
    double most = 0.0;

    for (int i = 0; i < count; i += LANES) {
        float x[LANES];
        float y[LANES];
        for (int l = 0; l < LANES; l++)
            x[l] = (float)(from + (to - from) * (double)(i + l) / (double)count);
        lanes_store(y, f(lanes_load(x)));
        for (int l = 0; l < LANES; l++)
            most = fmax(most, ulps(y[l], d((double)x[l])));
    }
    return most;
}

static void exp_errs_by_hardly_more_than_one_ulp(void **state)
{
    (void)state;
    assert_true(worst(exp_of, exp, -104.0, 88.72, 400000) <= 1.1);
    assert_true(worst(exp_of, exp, -1e-3, 1e-3, 50000) <= 1.1);
}

static void exp_overflows_vanishes_and_keeps_nan(void **state)
{
    const float x[LANES] = {INFINITY, -INFINITY, 100.0F, -200.0F, 0.0F, -0.0F, NAN};
    float y[LANES];

    (void)state;
    lanes_store(y, lanes_exp(lanes_load(x)));
    assert_true(y[0] == INFINITY && y[1] == 0.0F && y[2] == INFINITY && y[3] == 0.0F);
    assert_true(y[4] == 1.0F && y[5] == 1.0F && isnan(y[6]));
}

static void sigmoid_and_silu_err_by_at_most_three_ulp(void **state)
{
    (void)state;
    assert_true(worst(sigmoid_of, sigmoid, -87.0, 30.0, 300000) <= 2.5);
    assert_true(worst(silu_of, silu, -80.0, 30.0, 300000) <= 3.0);
}

/* Both roundings against numeric.h, for the value itself and its neighbours. */
static void check_rounding(float x)
{
    const uint32_t bits = tsr_f32_bits(x);
    float v[LANES];
    float e4m3[LANES];
    float e2m1[LANES];

    for (int l = 0; l < LANES; l++) {
        v[l] = tsr_f32_from_bits(bits + (uint32_t)(l / 2 - 3));
        v[l] = l % 2 ? -v[l] : v[l];
    }
    lanes_store(e4m3, lanes_round_e4m3(lanes_load(v)));
    lanes_store(e2m1, lanes_round_e2m1(lanes_load(v)));
    for (int l = 0; l < LANES; l++) {
        if (isnan(v[l])) {
            assert_true(isnan(e4m3[l]) && isnan(e2m1[l]));
        } else {
            assert_true(e4m3[l] == tsr_e4m3_to_f32(tsr_f32_to_e4m3(v[l])));
            assert_true(e2m1[l] == tsr_e2m1_to_f32(tsr_f32_to_e2m1(v[l])));
        }
    }
}

static void rounding_agrees_with_the_definition_at_every_value_and_midpoint(void **state)
{
    (void)state;
    for (int code = 0; code < 126; code++) {
        const float low = tsr_e4m3_to_f32((uint8_t)code);
        const float high = tsr_e4m3_to_f32((uint8_t)(code + 1));
        check_rounding(low + 0x1p-40F);
        check_rounding((low + high) / 2.0F);
    }
    for (int code = 0; code < 7; code++) {
        check_rounding(tsr_e2m1_to_f32((uint8_t)code) + 0x1p-40F);
        check_rounding((tsr_e2m1_to_f32((uint8_t)code) + tsr_e2m1_to_f32((uint8_t)(code + 1))) /
                       2.0F);
    }
    check_rounding(448.0F);
    check_rounding(464.0F);
    check_rounding(1e30F);
    check_rounding(INFINITY);
    check_rounding(NAN);
}

static void rounding_agrees_with_the_definition_across_the_floats(void **state)
{
    (void)state;
    for (uint32_t bits = 16; bits < 0x7f800000U; bits += 20011)
        check_rounding(tsr_f32_from_bits(bits));
}

static void halves_and_bfloats_widen_exactly(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x10000; code += LANES) {
        uint16_t h[LANES];
        float bf16[LANES];
        float f16[LANES];
        for (uint32_t l = 0; l < LANES; l++)
            h[l] = (uint16_t)(code + l);
        lanes_store(bf16, lanes_from_bf16(h));
        lanes_store(f16, lanes_from_f16(h));
        for (int l = 0; l < LANES; l++) {
            assert_true(tsr_f32_bits(bf16[l]) == tsr_f32_bits(tsr_bf16_to_f32(h[l])));
            assert_true(isnan(f16[l]) ? isnan(tsr_f16_to_f32(h[l]))
                                      : f16[l] == tsr_f16_to_f32(h[l]));
        }
    }
}

/* 1 + 2^-24 + ... in the wrong order would round differently. */
static void sums_follow_the_canonical_tree(void **state)
{
    float x[LANES];
    float sum[LANES];

    (void)state;
    for (int l = 0; l < LANES; l++)
        sum[l] = x[l] = (float)((l * 7919 + 13) % 97) * 1.7e-3F - 0.05F;
    for (int half = 8; half > 0; half /= 2) {
        for (int l = 0; l < half; l++)
            sum[l] = sum[l] + sum[l + half];
    }
    assert_true(lanes_sum(lanes_load(x)) == sum[0]);
    assert_true(lanes_peak(lanes_load(x)) == fmaxf(x[0], lanes_peak(lanes_load(x))));
}

static bool supported(void)
{
#if defined(TSR_ISA_AVX512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#elif defined(TSR_ISA_AVX2)
    /* every processor with AVX2 has F16C */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_errs_by_hardly_more_than_one_ulp),
        cmocka_unit_test(exp_overflows_vanishes_and_keeps_nan),
        cmocka_unit_test(sigmoid_and_silu_err_by_at_most_three_ulp),
        cmocka_unit_test(rounding_agrees_with_the_definition_at_every_value_and_midpoint),
        cmocka_unit_test(rounding_agrees_with_the_definition_across_the_floats),
        cmocka_unit_test(halves_and_bfloats_widen_exactly),
        cmocka_unit_test(sums_follow_the_canonical_tree),
    };

    if (!supported())
        return 0; /* nothing to test on this processor */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
