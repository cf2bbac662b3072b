/*
 * Groups of FP4 with AVX-512 VNNI. See fp4.h; include that.
 */
#ifndef TSR_KERNELS_CPU_FP4_AVX512_H
#define TSR_KERNELS_CPU_FP4_AVX512_H

#include "kernels/cpu/fp4_group.h"
#include "kernels/cpu/lanes_avx512.h"

/* Tokens of one block: their sums stay in registers. */
enum { FP4_TOKENS = 8 };

/* Twice the values and 12 more: unsigned, as the instruction wants one side. */
typedef struct fp4_weights {
    __m512i four[4]; /* of each row, in the order of fp4_group */
} fp4_weights;

TSR_INLINE void fp4_unpack(const uint8_t *p, __m512i *even, __m512i *odd)
{
    const __m512i table = _mm512_broadcast_i32x4(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m512i low = _mm512_set1_epi8(0x0f);
    const __m512i codes = _mm512_loadu_si512(p);

    *even = _mm512_shuffle_epi8(table, _mm512_and_si512(codes, low));
    *odd = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), low));
}

TSR_INLINE fp4_weights fp4_load(const uint8_t *p)
{
    fp4_weights w;

    fp4_unpack(p, &w.four[0], &w.four[1]);
    fp4_unpack(p + 64, &w.four[2], &w.four[3]);
    return w;
}

/* The dot of each row with the group, as floats. */
TSR_INLINE lanes fp4_dot(const fp4_weights *w, const fp4_group *x)
{
    __m512i dot = _mm512_set1_epi32(x->offset);

    for (size_t i = 0; i < 4; i++) {
        int32_t four = 0;
        __builtin_memcpy(&four, x->code + FP4_WORD * i, sizeof(four));
        dot = _mm512_dpbusd_epi32(dot, w->four[i], _mm512_set1_epi32(four));
    }
    return (lanes){_mm512_cvtepi32_ps(dot)};
}

#endif
