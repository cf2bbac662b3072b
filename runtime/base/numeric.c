/*
 * Rounding is done on the bits and without the C library, so that it is the same everywhere, and
 * quick, since activations pass here:
 *
 *   bf16   u + 0x7fff + (lowest bit that stays)      carries above half, and at half to even
 */
#include "runtime/base/numeric.h"

#include <math.h>

uint16_t tsr_f32_to_bf16(float x)
{
    const uint32_t u = tsr_f32_bits(x);
    if ((u & 0x7fffffffU) > 0x7f800000U)
        return (uint16_t)((u >> 16) | 0x40U);
    return (uint16_t)((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
}

float tsr_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000U) << 16;
    const uint32_t exponent = (h >> 10) & 0x1fU;
    const uint32_t fraction = h & 0x3ffU;

    if (exponent == 0x1fU)
        return tsr_f32_from_bits(sign | 0x7f800000U | (fraction << 13));
    if (exponent != 0)
        return tsr_f32_from_bits(sign | ((exponent + 112U) << 23) | (fraction << 13));
    const float magnitude = (float)fraction * 0x1p-24F;
    return sign ? -magnitude : magnitude;
}

float tsr_e4m3_to_f32(uint8_t code)
{
    const uint32_t exponent = (code >> 3) & 15U;
    const uint32_t fraction = code & 7U;

    if ((code & 0x7fU) == 0x7fU)
        return tsr_f32_from_bits(0x7fc00000U | (uint32_t)(code & 0x80U) << 24);
    const float magnitude = exponent == 0 ? (float)fraction * 0x1p-9F
                                          : ldexpf((float)(8U + fraction), (int)exponent - 10);
    return code & 0x80U ? -magnitude : magnitude;
}

uint8_t tsr_f32_to_e4m3(float x)
{
    const uint8_t sign = (uint8_t)(tsr_f32_bits(x) >> 24 & 0x80U);
    const float a = fabsf(x);

    if (isnan(x))
        return (uint8_t)(sign | 0x7fU);
    if (a >= 448.0F)
        return (uint8_t)(sign | 0x7eU);

    /* Subnormal: a float at 2^14 has their spacing, 2^-9. */
    const float beside = 0x1p14F;
    if (a < 0x1p-6F)
        return (uint8_t)(sign | (tsr_f32_bits(a + beside) - tsr_f32_bits(beside)));

    /* Else three bits of the fraction stay; what rounding carries goes on into the exponent. */
    const uint32_t u = tsr_f32_bits(a);
    const uint32_t bias = 127 - 7;
    return (uint8_t)(sign | (((u + 0x7ffffU + (u >> 20 & 1U)) >> 20) - 8 * bias));
}

static const float e2m1_magnitudes[8] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};

float tsr_e2m1_to_f32(uint8_t code)
{
    const float magnitude = e2m1_magnitudes[code & 7U];
    return code & 8U ? -magnitude : magnitude;
}

uint8_t tsr_f32_to_e2m1(float x)
{
    const float a = fabsf(x);
    uint8_t code = 0;

    /* Each bound lies midway between two codes; a tie goes to the even one. */
    code = (uint8_t)(code + (a > 0.25F));
    code = (uint8_t)(code + (a >= 0.75F));
    code = (uint8_t)(code + (a > 1.25F));
    code = (uint8_t)(code + (a >= 1.75F));
    code = (uint8_t)(code + (a > 2.5F));
    code = (uint8_t)(code + (a >= 3.5F));
    code = (uint8_t)(code + (a > 5.0F));
    return (uint8_t)(code | (signbit(x) ? 8U : 0U));
}
