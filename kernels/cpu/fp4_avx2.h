/*
 * Groups of FP4 with AVX2: bytes by bytes into pairs, whose sums fit 16 bits (8 products of 288 at
 * most). See fp4.h; include that.
 */
#ifndef TSR_KERNELS_CPU_FP4_AVX2_H
#define TSR_KERNELS_CPU_FP4_AVX2_H

#include "kernels/cpu/fp4_group.h"
#include "kernels/cpu/lanes_avx2.h"

/* Tokens of one block: their sums stay in registers. */
enum { FP4_TOKENS = 2 };

/* Twice the values and 12 more: unsigned, as the instruction wants one side. */
typedef struct fp4_weights {
    __m256i lo[4]; /* rows 0..7, in the order of fp4_group */
    __m256i hi[4];
} fp4_weights;

TSR_INLINE void fp4_unpack(const uint8_t *p, __m256i *even, __m256i *odd)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m256i low = _mm256_set1_epi8(0x0f);
    const __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)p);

    *even = _mm256_shuffle_epi8(table, _mm256_and_si256(codes, low));
    *odd = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(codes, 4), low));
}

TSR_INLINE fp4_weights fp4_load(const uint8_t *p)
{
    fp4_weights w;

    fp4_unpack(p, &w.lo[0], &w.lo[1]);
    fp4_unpack(p + 32, &w.hi[0], &w.hi[1]);
    fp4_unpack(p + 64, &w.lo[2], &w.lo[3]);
    fp4_unpack(p + 96, &w.hi[2], &w.hi[3]);
    return w;
}

TSR_INLINE __m256 fp4_dot_half(const __m256i *w, const fp4_group *x)
{
    __m256i pairs = _mm256_setzero_si256();

    for (size_t i = 0; i < 4; i++) {
        int32_t four = 0;
        __builtin_memcpy(&four, x->code + FP4_WORD * i, sizeof(four));
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[i], _mm256_set1_epi32(four)));
    }
    const __m256i dot = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(dot, _mm256_set1_epi32(x->offset)));
}

/* The dot of each row with the group, as floats. */
TSR_INLINE lanes fp4_dot(const fp4_weights *w, const fp4_group *x)
{
    return (lanes){fp4_dot_half(w->lo, x), fp4_dot_half(w->hi, x)};
}

#endif
