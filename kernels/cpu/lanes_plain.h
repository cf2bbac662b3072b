/*
 * Sixteen lanes as an array: the definition. See lanes.h; include that.
 */
#ifndef TSR_KERNELS_CPU_LANES_PLAIN_H
#define TSR_KERNELS_CPU_LANES_PLAIN_H

#include "kernels/cpu/isa.h"
#include "runtime/base/numeric.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Rows and tokens of one block of dots, and lanes of one block of values: what fits in
 * registers. */
enum { DOT_ROWS = 1, DOT_TOKENS = 1, VALUE_LANES = 1 };

/* Tokens of one block that streams weights; tokens up to which streaming wins. */
enum { STREAM_TOKENS = 1, STREAM_MOST = 1 };

typedef struct lanes {
    float v[16];
} lanes;

/* Eight groups of sixteen 4-bit codes: lane l of group g is nibble g of word l. */
typedef struct nibbles {
    uint32_t v[16];
} nibbles;

TSR_INLINE lanes lanes_set(float x)
{
    lanes r;
    for (int l = 0; l < 16; l++)
        r.v[l] = x;
    return r;
}

TSR_INLINE lanes lanes_load(const float *p)
{
    lanes r;
    memcpy(r.v, p, sizeof(r.v));
    return r;
}

/* The first n lanes from p, the others `fill`. */
TSR_INLINE lanes lanes_load_part(const float *p, int n, float fill)
{
    lanes r = lanes_set(fill);
    for (int l = 0; l < n; l++)
        r.v[l] = p[l];
    return r;
}

TSR_INLINE void lanes_store(float *p, lanes a)
{
    memcpy(p, a.v, sizeof(a.v));
}

TSR_INLINE lanes lanes_add(lanes a, lanes b)
{
    for (int l = 0; l < 16; l++)
        a.v[l] += b.v[l];
    return a;
}

TSR_INLINE lanes lanes_sub(lanes a, lanes b)
{
    for (int l = 0; l < 16; l++)
        a.v[l] -= b.v[l];
    return a;
}

TSR_INLINE lanes lanes_mul(lanes a, lanes b)
{
    for (int l = 0; l < 16; l++)
        a.v[l] *= b.v[l];
    return a;
}

TSR_INLINE lanes lanes_div(lanes a, lanes b)
{
    for (int l = 0; l < 16; l++)
        a.v[l] /= b.v[l];
    return a;
}

/* a * b + c, rounded once. */
TSR_INLINE lanes lanes_fma(lanes a, lanes b, lanes c)
{
    for (int l = 0; l < 16; l++)
        c.v[l] = fmaf(a.v[l], b.v[l], c.v[l]);
    return c;
}

/* The larger; b where either is NaN. */
TSR_INLINE lanes lanes_max(lanes a, lanes b)
{
    for (int l = 0; l < 16; l++)
        a.v[l] = a.v[l] > b.v[l] ? a.v[l] : b.v[l];
    return a;
}

/* The smaller; b where either is NaN. */
TSR_INLINE lanes lanes_min(lanes a, lanes b)
{
    for (int l = 0; l < 16; l++)
        a.v[l] = a.v[l] < b.v[l] ? a.v[l] : b.v[l];
    return a;
}

TSR_INLINE lanes lanes_abs(lanes a)
{
    for (int l = 0; l < 16; l++)
        a.v[l] = tsr_f32_from_bits(tsr_f32_bits(a.v[l]) & 0x7fffffffU);
    return a;
}

/* 2^e of each lane's exponent e; 0 below the normal range. */
TSR_INLINE lanes lanes_power(lanes a)
{
    for (int l = 0; l < 16; l++)
        a.v[l] = tsr_f32_from_bits(tsr_f32_bits(a.v[l]) & 0x7f800000U);
    return a;
}

/* 2^n where a = 1.5 * 2^23 + n, -126 <= n <= 127. */
TSR_INLINE lanes lanes_power_of(lanes a)
{
    for (int l = 0; l < 16; l++)
        a.v[l] = tsr_f32_from_bits((tsr_f32_bits(a.v[l]) << 23) + 0x3f800000U);
    return a;
}

/* below where x < 0, else other. */
TSR_INLINE lanes lanes_negative(lanes x, lanes below, lanes other)
{
    for (int l = 0; l < 16; l++)
        x.v[l] = x.v[l] < 0.0F ? below.v[l] : other.v[l];
    return x;
}

TSR_INLINE float lanes_sum(lanes a)
{
    for (int half = 8; half > 0; half /= 2) {
        for (int l = 0; l < half; l++)
            a.v[l] += a.v[l + half];
    }
    return a.v[0];
}

/* The largest lane. */
TSR_INLINE float lanes_peak(lanes a)
{
    for (int half = 8; half > 0; half /= 2) {
        for (int l = 0; l < half; l++)
            a.v[l] = a.v[l] > a.v[l + half] ? a.v[l] : a.v[l + half];
    }
    return a.v[0];
}

TSR_INLINE lanes lanes_from_bf16(const uint16_t *p)
{
    lanes r;
    for (int l = 0; l < 16; l++)
        r.v[l] = tsr_bf16_to_f32(p[l]);
    return r;
}

TSR_INLINE lanes lanes_from_f16(const uint16_t *p)
{
    lanes r;
    for (int l = 0; l < 16; l++)
        r.v[l] = tsr_f16_to_f32(p[l]);
    return r;
}

/* The value times 2^-8, exactly: with its exponent field moved, e4m3 is a float (or half) with
 * another bias, and the power of two is left to the epilogue. NaN codes are the caller's to
 * exclude. */
TSR_INLINE lanes lanes_from_e4m3(const uint8_t *p)
{
    lanes r;
    for (int l = 0; l < 16; l++) {
        const uint32_t code = p[l];
        const float magnitude = tsr_f32_from_bits((code & 0x7fU) << 20) * 0x1p112F;
        r.v[l] = tsr_f32_from_bits(tsr_f32_bits(magnitude) | (code & 0x80U) << 24);
    }
    return r;
}

/* Four times sixteen. */
TSR_INLINE void lanes_from_e4m3_tile(const uint8_t *p, lanes *to)
{
    for (size_t r = 0; r < 4; r++)
        to[r] = lanes_from_e4m3(p + 16 * r);
}

TSR_INLINE nibbles nibbles_load(const uint32_t *p)
{
    nibbles r;
    memcpy(r.v, p, sizeof(r.v));
    return r;
}

/*
 * A chunk in the file is an 8x8 matrix of bytes, a row for each group; byte j of group g holds
 * elements 2 j and 2 j + 1. Transposed, its row j has the nibbles of words 2 j and 2 j + 1.
 */
TSR_INLINE void nibbles_transpose(uint64_t m[8])
{
    static const uint64_t left[] = {0x00ff00ff00ff00ff, 0x0000ffff0000ffff, 0x00000000ffffffff};

    for (int step = 0; step < 3; step++) {
        const int apart = 1 << step;
        const int shift = 8 << step;
        for (int r = 0; r < 8; r++) {
            if ((r & apart) != 0)
                continue;
            const uint64_t swap = ((m[r] >> shift) ^ m[r + apart]) & left[step];
            m[r] ^= swap << shift;
            m[r + apart] ^= swap;
        }
    }
}

/* The low nibble of each byte, side by side. */
TSR_INLINE uint32_t nibbles_low(uint64_t x)
{
    x &= 0x0f0f0f0f0f0f0f0f;
    x = (x | x >> 4) & 0x00ff00ff00ff00ff;
    x = (x | x >> 8) & 0x0000ffff0000ffff;
    return (uint32_t)(x | x >> 16);
}

/* A chunk of 128 codes, two to a byte in ascending order, as nibbles_load wants it. */
TSR_INLINE void nibbles_lay_out(const uint8_t *from, uint32_t *to)
{
    uint64_t m[8];

    memcpy(m, from, sizeof(m));
    nibbles_transpose(m);
    for (size_t j = 0; j < 8; j++) {
        to[2 * j] = nibbles_low(m[j]);
        to[2 * j + 1] = nibbles_low(m[j] >> 4);
    }
}

/* On to the next group. */
TSR_INLINE nibbles nibbles_next(nibbles a)
{
    for (int l = 0; l < 16; l++)
        a.v[l] >>= 4;
    return a;
}

/* The values of the current group's E2M1 codes. */
TSR_INLINE lanes lanes_from_e2m1(nibbles a)
{
    static const float value[16] = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                    -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};
    lanes r;
    for (int l = 0; l < 16; l++)
        r.v[l] = value[a.v[l] & 15U];
    return r;
}

#endif
