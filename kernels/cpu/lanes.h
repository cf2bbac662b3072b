/*
 * Sixteen float lanes: the canonical order in which this backend adds (NVFP4 weights over FP4 rows
 * have another: fp4.h).
 *
 *   element   0  1  2 ... 15 | 16 17 18 ... 31 | ...
 *   lane      0  1  2 ... 15 |  0  1  2 ... 15 | ...     lane l takes elements i with i % 16 == l,
 *                                                        i ascending, one fused multiply-add each
 *   sum       l and l + 8, then l and l + 4, then l and l + 2, then 0 and 1
 *
 * Every operation below is one IEEE operation per lane (or integer work on its bits), so the three
 * files give the same bits; `plain` is the definition.
 */
#ifndef TSR_KERNELS_CPU_LANES_H
#define TSR_KERNELS_CPU_LANES_H

#include "kernels/cpu/isa.h"

enum { LANES = 16 };

#if defined(TSR_ISA_AVX512)
#include "kernels/cpu/lanes_avx512.h" // IWYU pragma: export
#elif defined(TSR_ISA_AVX2)
#include "kernels/cpu/lanes_avx2.h" // IWYU pragma: export
#else
#include "kernels/cpu/lanes_plain.h" // IWYU pragma: export
#endif

#endif
