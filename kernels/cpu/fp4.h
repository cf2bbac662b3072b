/*
 * NVFP4 weights over FP4 rows: sixteen rows of a weight at once, a group of sixteen elements at a
 * time, in integers. Twice the value of an E2M1 code is an integer up to 12, so what a group adds to
 * a dot is an integer up to 2304, exactly, in whatever order; float32 begins behind it:
 *
 *   lane r    sum = fma(float(sum over the group of 2 w * 2 x), w scale * x scale, sum)
 *
 * for row r of the tile, groups ascending: the canonical order of these linears. The product of two
 * E4M3 scales is exact. 16 rows of one group lie like this, a word for each row in each line:
 *
 *   words 0..15    codes 0 .. 7 of a row, as the file has them: two to a byte, even ones low
 *   words 16..31   codes 8 .. 15
 */
#ifndef TSR_KERNELS_CPU_FP4_H
#define TSR_KERNELS_CPU_FP4_H

#include "kernels/cpu/fp4_group.h" // IWYU pragma: export
#include "kernels/cpu/lanes.h"

#if defined(TSR_ISA_AVX512)
#include "kernels/cpu/fp4_avx512.h" // IWYU pragma: export
#elif defined(TSR_ISA_AVX2)
#include "kernels/cpu/fp4_avx2.h" // IWYU pragma: export
#else
#include "kernels/cpu/fp4_plain.h" // IWYU pragma: export
#endif

#endif
