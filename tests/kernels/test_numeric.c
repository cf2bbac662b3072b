/*
 * The small number formats against their definition: the nearest value, of two equally near the
 * one with the even code.
 */
#include "runtime/base/numeric.h"

#include "tests/test.h"

#include <math.h>

/* sign, exponent, fraction of an E4M3 code, as the format says. */
static double e4m3_value(int code)
{
    const int exponent = code >> 3 & 15;
    const int fraction = code & 7;
    const double magnitude =
        exponent == 0 ? ldexp(fraction, -9) : ldexp(8.0 + fraction, exponent - 10);

    return code & 0x80 ? -magnitude : magnitude;
}

static double e2m1_value(int code)
{
    static const double magnitude[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};

    return code & 8 ? -magnitude[code & 7] : magnitude[code & 7];
}

/* The code among 0..last whose value is nearest to |x|. */
static int nearest(double (*value)(int code), int last, double x)
{
    int best = 0;

    for (int code = 1; code <= last; code++) {
        const double here = fabs(fabs(x) - value(code));
        const double there = fabs(fabs(x) - value(best));
        if (here < there || (here == there && code % 2 == 0))
            best = code;
    }
    return best;
}

static void assert_codes(float x)
{
    const int sign = signbit(x) ? 1 : 0;

    assert_int_equal(nearest(e4m3_value, 0x7e, (double)x) | sign << 7, tsr_f32_to_e4m3(x));
    assert_int_equal(nearest(e2m1_value, 7, (double)x) | sign << 3, tsr_f32_to_e2m1(x));
}

/* x, its neighbours, and their negatives. */
static void assert_around(double x)
{
    const float at = (float)x;
    const float around[3] = {at, nextafterf(at, 1e30F), nextafterf(at, -1e30F)};

    for (int i = 0; i < 3; i++) {
        assert_codes(around[i]);
        assert_codes(-around[i]);
    }
}

static void every_code_decodes_to_its_value(void **state)
{
    (void)state;
    for (int code = 0; code < 256; code++) {
        if ((code & 0x7f) == 0x7f)
            assert_true(isnan(tsr_e4m3_to_f32((uint8_t)code)));
        else
            assert_true((double)tsr_e4m3_to_f32((uint8_t)code) == e4m3_value(code));
    }
    for (int code = 0; code < 16; code++)
        assert_true((double)tsr_e2m1_to_f32((uint8_t)code) == e2m1_value(code));
}

static void every_value_and_midpoint_takes_the_nearest_code(void **state)
{
    (void)state;
    for (int code = 0; code < 0x7e; code++) {
        assert_around(e4m3_value(code));
        assert_around((e4m3_value(code) + e4m3_value(code + 1)) / 2.0);
    }
    for (int code = 0; code < 7; code++) {
        assert_around(e2m1_value(code));
        assert_around((e2m1_value(code) + e2m1_value(code + 1)) / 2.0);
    }
}

static void values_across_the_floats_take_the_nearest_code(void **state)
{
    (void)state;
    /* to 1024: beyond, double no longer tells the last codes apart */
    for (uint32_t bits = 0; bits < 0x44800000U; bits += 400009)
        assert_codes(tsr_f32_from_bits(bits));
}

static void nan_stays_nan_and_infinity_saturates(void **state)
{
    (void)state;
    assert_int_equal(0x7f, tsr_f32_to_e4m3(NAN) & 0x7f);
    assert_int_equal(0x7e, tsr_f32_to_e4m3(INFINITY));
    assert_int_equal(0xfe, tsr_f32_to_e4m3(-INFINITY));
    assert_int_equal(15, tsr_f32_to_e2m1(-INFINITY));
    assert_true(isnan(tsr_bf16_to_f32(tsr_f32_to_bf16(NAN))));
    assert_true(isnan(tsr_bf16_to_f32(tsr_f32_to_bf16(tsr_f32_from_bits(0x7f800001U)))));
}

static void bfloats_survive_and_round_to_even(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x7f80; code++) {
        const float value = tsr_bf16_to_f32((uint16_t)code);
        const uint32_t middle = code << 16 | 0x8000U;
        assert_int_equal(code, tsr_f32_to_bf16(value));
        assert_int_equal(code + code % 2, tsr_f32_to_bf16(tsr_f32_from_bits(middle)));
        assert_int_equal(code, tsr_f32_to_bf16(tsr_f32_from_bits(middle - 1)));
        assert_int_equal(code + 1, tsr_f32_to_bf16(tsr_f32_from_bits(middle + 1)));
    }
}

static void halves_have_their_value(void **state)
{
    (void)state;
    for (int code = 0; code < 0x7c00; code++) {
        const int exponent = code >> 10;
        const double value =
            exponent == 0 ? ldexp(code & 1023, -24) : ldexp(1024.0 + (code & 1023), exponent - 25);
        assert_true((double)tsr_f16_to_f32((uint16_t)code) == value);
        assert_true((double)tsr_f16_to_f32((uint16_t)(code | 0x8000)) == -value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_decodes_to_its_value),
        cmocka_unit_test(every_value_and_midpoint_takes_the_nearest_code),
        cmocka_unit_test(values_across_the_floats_take_the_nearest_code),
        cmocka_unit_test(nan_stays_nan_and_infinity_saturates),
        cmocka_unit_test(bfloats_survive_and_round_to_even),
        cmocka_unit_test(halves_have_their_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
