/*
 * Sixteen lanes in one AVX-512 register. See lanes.h; include that.
 */
#ifndef TSR_KERNELS_CPU_LANES_AVX512_H
#define TSR_KERNELS_CPU_LANES_AVX512_H

#include "kernels/cpu/isa.h"
#include "kernels/cpu/nibbles_x86.h" // IWYU pragma: export

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { DOT_ROWS = 4, DOT_TOKENS = 6, VALUE_LANES = 8 };

/* Tokens of one block that streams weights; tokens up to which streaming wins. */
enum { STREAM_TOKENS = 4, STREAM_MOST = 8 };

typedef struct lanes {
    __m512 v;
} lanes;

typedef struct nibbles {
    __m512i v;
} nibbles;

TSR_INLINE lanes lanes_set(float x)
{
    return (lanes){_mm512_set1_ps(x)};
}

TSR_INLINE lanes lanes_load(const float *p)
{
    return (lanes){_mm512_loadu_ps(p)};
}

TSR_INLINE lanes lanes_load_part(const float *p, int n, float fill)
{
    const __mmask16 mask = (__mmask16)((1U << n) - 1U);
    return (lanes){_mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, p)};
}

TSR_INLINE void lanes_store(float *p, lanes a)
{
    _mm512_storeu_ps(p, a.v);
}

TSR_INLINE lanes lanes_add(lanes a, lanes b)
{
    return (lanes){_mm512_add_ps(a.v, b.v)};
}

TSR_INLINE lanes lanes_sub(lanes a, lanes b)
{
    return (lanes){_mm512_sub_ps(a.v, b.v)};
}

TSR_INLINE lanes lanes_mul(lanes a, lanes b)
{
    return (lanes){_mm512_mul_ps(a.v, b.v)};
}

TSR_INLINE lanes lanes_div(lanes a, lanes b)
{
    return (lanes){_mm512_div_ps(a.v, b.v)};
}

TSR_INLINE lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return (lanes){_mm512_fmadd_ps(a.v, b.v, c.v)};
}

TSR_INLINE lanes lanes_max(lanes a, lanes b)
{
    return (lanes){_mm512_max_ps(a.v, b.v)};
}

TSR_INLINE lanes lanes_min(lanes a, lanes b)
{
    return (lanes){_mm512_min_ps(a.v, b.v)};
}

TSR_INLINE lanes lanes_abs(lanes a)
{
    return (lanes){_mm512_and_ps(a.v, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff)))};
}

TSR_INLINE lanes lanes_power(lanes a)
{
    return (lanes){_mm512_and_ps(a.v, _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000)))};
}

TSR_INLINE lanes lanes_power_of(lanes a)
{
    const __m512i shifted = _mm512_slli_epi32(_mm512_castps_si512(a.v), 23);
    return (lanes){_mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(0x3f800000)))};
}

TSR_INLINE lanes lanes_negative(lanes x, lanes below, lanes other)
{
    const __mmask16 mask = _mm512_cmp_ps_mask(x.v, _mm512_setzero_ps(), _CMP_LT_OQ);
    return (lanes){_mm512_mask_blend_ps(mask, other.v, below.v)};
}

TSR_INLINE float lanes_sum(lanes a)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

TSR_INLINE float lanes_peak(lanes a)
{
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

TSR_INLINE lanes lanes_from_bf16(const uint16_t *p)
{
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return (lanes){_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

TSR_INLINE lanes lanes_from_f16(const uint16_t *p)
{
    return (lanes){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p))};
}

/* As halves: sign, then the seven code bits from bit 13 down; bias 15 for bias 7. */
TSR_INLINE lanes lanes_from_e4m3(const uint8_t *p)
{
    const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    const __m256i half =
        _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16((int16_t)0xbf80));
    return (lanes){_mm512_cvtph_ps(half)};
}

/* Four times sixteen. */
TSR_INLINE void lanes_from_e4m3_tile(const uint8_t *p, lanes *to)
{
    for (size_t i = 0; i < 2; i++) {
        const __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32 * i));
        const __m512i wide = _mm512_slli_epi16(_mm512_cvtepi8_epi16(codes), 7);
        const __m512i half = _mm512_and_si512(wide, _mm512_set1_epi16((int16_t)0xbf80));
        to[2 * i] = (lanes){_mm512_cvtph_ps(_mm512_castsi512_si256(half))};
        to[2 * i + 1] = (lanes){_mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1))};
    }
}

TSR_INLINE nibbles nibbles_load(const uint32_t *p)
{
    return (nibbles){_mm512_loadu_si512(p)};
}

TSR_INLINE nibbles nibbles_next(nibbles a)
{
    return (nibbles){_mm512_srli_epi32(a.v, 4)};
}

TSR_INLINE lanes lanes_from_e2m1(nibbles a)
{
    const __m512 value = _mm512_setr_ps(0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F, -0.0F,
                                        -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F);
    return (lanes){_mm512_permutexvar_ps(a.v, value)}; /* looks at the low four bits alone */
}

#endif
