/*
 * The small number formats, one value at a time: the definition that every kernel is tested
 * against.
 *
 *   bf16  1 sign, 8 exponent, 7 fraction: the upper half of a float
 *   f16   IEEE half
 *   e4m3  1 sign, 4 exponent (bias 7), 3 fraction; largest 448 (0x7e), no infinity,
 *         0x7f and 0xff are NaN
 *   e2m1  1 sign, 2 exponent, 1 fraction: 0 0.5 1 1.5 2 3 4 6; code 8 is -0
 *
 * Rounding is to nearest, ties to even, and saturates at the largest value (e4m3, e2m1).
 */
#ifndef TSR_RUNTIME_BASE_NUMERIC_H
#define TSR_RUNTIME_BASE_NUMERIC_H

#include <stdint.h>
#include <string.h>

static inline uint32_t tsr_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof(u));
    return u;
}

static inline float tsr_f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof(x));
    return x;
}

static inline float tsr_bf16_to_f32(uint16_t h)
{
    return tsr_f32_from_bits((uint32_t)h << 16);
}

/* NaN stays NaN. */
uint16_t tsr_f32_to_bf16(float x);

float tsr_f16_to_f32(uint16_t h);

float tsr_e4m3_to_f32(uint8_t code);

/* Values beyond 448 become 448; NaN stays NaN. */
uint8_t tsr_f32_to_e4m3(float x);

/* `code` in 0..15. */
float tsr_e2m1_to_f32(uint8_t code);

/* Values beyond 6 become 6; a negative value that rounds to zero gives code 8. */
uint8_t tsr_f32_to_e2m1(float x);

#endif
