/*
 * Functions of sixteen lanes made of the operations in lanes.h alone, so that they give the same
 * bits on every instruction set: exp, sigmoid, SiLU, and rounding to e4m3 and e2m1.
 */
#ifndef TSR_KERNELS_CPU_LANE_MATH_H
#define TSR_KERNELS_CPU_LANE_MATH_H

#include "kernels/cpu/lanes.h"

/* Added to |x| < 2^22 and taken away again, it leaves the nearest integer. */
#define LANES_ROUNDER 0x1.8p23F

/*
 * exp over the whole range of float, subnormal results included, within 1.1 ulp.
 *
 * x = n ln 2 + r, |r| <= ln 2 / 2; ln 2 in two parts, the first short enough that n times it is
 * exact. 2^n is applied in two halves, since n may pass the exponent range of a float.
 */
TSR_INLINE lanes lanes_exp(lanes x)
{
    const lanes rounder = lanes_set(LANES_ROUNDER);

    x = lanes_max(lanes_set(-105.0F), x);
    x = lanes_min(lanes_set(89.0F), x);
    const lanes n = lanes_sub(lanes_fma(x, lanes_set(0x1.715476p+0F), rounder), rounder);
    lanes r = lanes_fma(n, lanes_set(-0x1.63p-1F), x);
    r = lanes_fma(n, lanes_set(0x1.bd0106p-13F), r);

    lanes p = lanes_set(1.9875691500e-4F);
    p = lanes_fma(p, r, lanes_set(1.3981999507e-3F));
    p = lanes_fma(p, r, lanes_set(8.3334519073e-3F));
    p = lanes_fma(p, r, lanes_set(4.1665795894e-2F));
    p = lanes_fma(p, r, lanes_set(1.6666665459e-1F));
    p = lanes_fma(p, r, lanes_set(5.0000001201e-1F));
    p = lanes_fma(lanes_mul(r, r), p, r);
    p = lanes_add(p, lanes_set(1.0F));

    const lanes half = lanes_fma(n, lanes_set(0.5F), rounder);
    const lanes rest = lanes_add(lanes_sub(n, lanes_sub(half, rounder)), rounder);
    return lanes_mul(lanes_mul(p, lanes_power_of(half)), lanes_power_of(rest));
}

/* exp(-|x|) never overflows; the sign chooses the numerator. Within 2.5 ulp; SiLU within 3. */
TSR_INLINE lanes lanes_sigmoid(lanes x)
{
    const lanes one = lanes_set(1.0F);
    const lanes e = lanes_exp(lanes_sub(lanes_set(0.0F), lanes_abs(x)));
    return lanes_div(lanes_negative(x, e, one), lanes_add(one, e));
}

TSR_INLINE lanes lanes_silu(lanes x)
{
    const lanes one = lanes_set(1.0F);
    const lanes e = lanes_exp(lanes_sub(lanes_set(0.0F), lanes_abs(x)));
    return lanes_div(lanes_mul(x, lanes_negative(x, e, one)), lanes_add(one, e));
}

/*
 * The nearest e4m3 value, ties to even, saturated at 448; NaN stays NaN.
 *
 * Adding and taking away 1.5 * 2^20 * 2^e leaves three fraction bits of a value with exponent e;
 * below 2^-6 the spacing stays that of the subnormals.
 */
TSR_INLINE lanes lanes_round_e4m3(lanes x)
{
    x = lanes_min(lanes_set(448.0F), x);
    x = lanes_max(lanes_set(-448.0F), x);
    const lanes power = lanes_max(lanes_power(x), lanes_set(0x1p-6F));
    const lanes rounder = lanes_mul(power, lanes_set(0x1.8p20F));
    return lanes_sub(lanes_add(x, rounder), rounder);
}

/* The nearest e2m1 value, ties to even, saturated at 6; NaN stays NaN. */
TSR_INLINE lanes lanes_round_e2m1(lanes x)
{
    x = lanes_min(lanes_set(6.0F), x);
    x = lanes_max(lanes_set(-6.0F), x);
    const lanes power = lanes_max(lanes_power(x), lanes_set(1.0F));
    const lanes rounder = lanes_mul(power, lanes_set(0x1.8p22F));
    return lanes_sub(lanes_add(x, rounder), rounder);
}

#endif
