/*
 * Sixteen lanes in two AVX2 registers. See lanes.h; include that.
 */
#ifndef TSR_KERNELS_CPU_LANES_AVX2_H
#define TSR_KERNELS_CPU_LANES_AVX2_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/nibbles_x86.h" // IWYU pragma: export

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { DOT_ROWS = 2, DOT_TOKENS = 2, VALUE_LANES = 4 };

/* Tokens of one block that streams weights; tokens up to which streaming wins. */
enum { STREAM_TOKENS = 1, STREAM_MOST = 2 };

typedef struct lanes {
    __m256 lo;
    __m256 hi;
} lanes;

typedef struct nibbles {
    __m256i lo;
    __m256i hi;
} nibbles;

TSR_INLINE lanes lanes_set(float x)
{
    return (lanes){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

TSR_INLINE lanes lanes_load(const float *p)
{
    return (lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

TSR_INLINE lanes lanes_load_part(const float *p, int n, float fill)
{
    float copy[16];
    for (int l = 0; l < 16; l++)
        copy[l] = l < n ? p[l] : fill;
    return lanes_load(copy);
}

TSR_INLINE void lanes_store(float *p, lanes a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

TSR_INLINE lanes lanes_add(lanes a, lanes b)
{
    return (lanes){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}

TSR_INLINE lanes lanes_sub(lanes a, lanes b)
{
    return (lanes){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}

TSR_INLINE lanes lanes_mul(lanes a, lanes b)
{
    return (lanes){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

TSR_INLINE lanes lanes_div(lanes a, lanes b)
{
    return (lanes){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}

TSR_INLINE lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return (lanes){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

TSR_INLINE lanes lanes_max(lanes a, lanes b)
{
    return (lanes){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}

TSR_INLINE lanes lanes_min(lanes a, lanes b)
{
    return (lanes){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

TSR_INLINE lanes lanes_and_bits(lanes a, int32_t bits)
{
    const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(bits));
    return (lanes){_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
}

TSR_INLINE lanes lanes_abs(lanes a)
{
    return lanes_and_bits(a, 0x7fffffff);
}

TSR_INLINE lanes lanes_power(lanes a)
{
    return lanes_and_bits(a, 0x7f800000);
}

TSR_INLINE __m256 lanes_power_of_half(__m256 a)
{
    const __m256i shifted = _mm256_slli_epi32(_mm256_castps_si256(a), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_set1_epi32(0x3f800000)));
}

TSR_INLINE lanes lanes_power_of(lanes a)
{
    return (lanes){lanes_power_of_half(a.lo), lanes_power_of_half(a.hi)};
}

TSR_INLINE lanes lanes_negative(lanes x, lanes below, lanes other)
{
    const __m256 zero = _mm256_setzero_ps();
    return (lanes){
        _mm256_blendv_ps(other.lo, below.lo, _mm256_cmp_ps(x.lo, zero, _CMP_LT_OQ)),
        _mm256_blendv_ps(other.hi, below.hi, _mm256_cmp_ps(x.hi, zero, _CMP_LT_OQ)),
    };
}

TSR_INLINE float lanes_sum(lanes a)
{
    const __m256 eight = _mm256_add_ps(a.lo, a.hi);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

TSR_INLINE float lanes_peak(lanes a)
{
    const __m256 eight = _mm256_max_ps(a.lo, a.hi);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

TSR_INLINE __m256 lanes_half_from_bf16(const uint16_t *p)
{
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

TSR_INLINE lanes lanes_from_bf16(const uint16_t *p)
{
    return (lanes){lanes_half_from_bf16(p), lanes_half_from_bf16(p + 8)};
}

TSR_INLINE lanes lanes_from_f16(const uint16_t *p)
{
    return (lanes){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                   _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 8)))};
}

/* As halves: sign, then the seven code bits from bit 13 down; bias 15 for bias 7. */
TSR_INLINE lanes lanes_from_e4m3(const uint8_t *p)
{
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    const __m256i half =
        _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16((int16_t)0xbf80));
    return (lanes){_mm256_cvtph_ps(_mm256_castsi256_si128(half)),
                   _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))};
}

/* Four times sixteen. */
TSR_INLINE void lanes_from_e4m3_tile(const uint8_t *p, lanes *to)
{
    for (size_t r = 0; r < 4; r++)
        to[r] = lanes_from_e4m3(p + 16 * r);
}

TSR_INLINE nibbles nibbles_load(const uint32_t *p)
{
    return (nibbles){_mm256_loadu_si256((const __m256i *)(const void *)p),
                     _mm256_loadu_si256((const __m256i *)(const void *)(p + 8))};
}

TSR_INLINE nibbles nibbles_next(nibbles a)
{
    return (nibbles){_mm256_srli_epi32(a.lo, 4), _mm256_srli_epi32(a.hi, 4)};
}

/* The lookup sees the three bits of the magnitude; bit 3 becomes the sign. */
TSR_INLINE __m256 lanes_half_from_e2m1(__m256i codes)
{
    const __m256 value = _mm256_setr_ps(0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F);
    const __m256i sign =
        _mm256_and_si256(_mm256_slli_epi32(codes, 28), _mm256_set1_epi32(INT32_MIN));
    return _mm256_or_ps(_mm256_permutevar8x32_ps(value, codes), _mm256_castsi256_ps(sign));
}

TSR_INLINE lanes lanes_from_e2m1(nibbles a)
{
    return (lanes){lanes_half_from_e2m1(a.lo), lanes_half_from_e2m1(a.hi)};
}

#endif
