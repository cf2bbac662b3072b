/*
 * Laying out 4-bit codes with the sixteen-byte instructions that every x86 with AVX2 has. See
 * lanes.h; include that.
 */
#ifndef TSR_KERNELS_CPU_NIBBLES_X86_H
#define TSR_KERNELS_CPU_NIBBLES_X86_H

#include "kernels/cpu/isa.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* What two groups of sixteen give to each word: their even elements and their odd ones, a byte
 * in each of eight 16-bit fields. */
typedef struct nibbles_pair {
    __m128i even;
    __m128i odd;
} nibbles_pair;

TSR_INLINE nibbles_pair nibbles_of_pair(const uint8_t *from)
{
    const __m128i both = _mm_loadu_si128((const __m128i *)(const void *)from);
    const __m128i field = _mm_unpacklo_epi8(both, _mm_srli_si128(both, 8));
    const __m128i down = _mm_srli_epi16(field, 4);
    const __m128i low = _mm_set1_epi16(0x0f);
    const __m128i high = _mm_set1_epi16(0xf0);

    return (nibbles_pair){
        _mm_or_si128(_mm_and_si128(field, low), _mm_and_si128(down, high)),
        _mm_or_si128(_mm_and_si128(down, low), _mm_and_si128(_mm_srli_epi16(field, 8), high))};
}

TSR_INLINE __m128i nibbles_two_bytes(__m128i low, __m128i high)
{
    return _mm_or_si128(low, _mm_slli_epi16(high, 8));
}

/* A chunk of 128 codes, two to a byte in ascending order, as nibbles_load wants it. */
TSR_INLINE void nibbles_lay_out(const uint8_t *from, uint32_t *to)
{
    const nibbles_pair a = nibbles_of_pair(from);
    const nibbles_pair b = nibbles_of_pair(from + 16);
    const nibbles_pair c = nibbles_of_pair(from + 32);
    const nibbles_pair d = nibbles_of_pair(from + 48);
    const __m128i even[] = {nibbles_two_bytes(a.even, b.even), nibbles_two_bytes(c.even, d.even)};
    const __m128i odd[] = {nibbles_two_bytes(a.odd, b.odd), nibbles_two_bytes(c.odd, d.odd)};
    const __m128i front[] = {_mm_unpacklo_epi16(even[0], even[1]),
                             _mm_unpacklo_epi16(odd[0], odd[1])};
    const __m128i back[] = {_mm_unpackhi_epi16(even[0], even[1]),
                            _mm_unpackhi_epi16(odd[0], odd[1])};
    __m128i *words = (__m128i *)(void *)to;

    _mm_storeu_si128(words, _mm_unpacklo_epi32(front[0], front[1]));
    _mm_storeu_si128(words + 1, _mm_unpackhi_epi32(front[0], front[1]));
    _mm_storeu_si128(words + 2, _mm_unpacklo_epi32(back[0], back[1]));
    _mm_storeu_si128(words + 3, _mm_unpackhi_epi32(back[0], back[1]));
}

#endif
