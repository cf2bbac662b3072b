/*
 * The instruction set this file is being compiled for. Files that compute are compiled once per
 * set, from the same source; ISA() gives each public name the set's suffix.
 */
#ifndef TSR_KERNELS_CPU_ISA_H
#define TSR_KERNELS_CPU_ISA_H

#if defined(TSR_ISA_AVX512)
#define ISA(name)    name##_avx512
#define TSR_ISA_NAME "avx512"
#elif defined(TSR_ISA_AVX2)
#define ISA(name)    name##_avx2
#define TSR_ISA_NAME "avx2"
#else
#define ISA(name)    name##_plain
#define TSR_ISA_NAME "plain"
#endif

/* Small functions whose constant arguments must be seen by the optimizer. */
#define TSR_INLINE static inline __attribute__((always_inline))

#endif
