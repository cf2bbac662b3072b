/* What rows of FP4 and the weights that they meet are made of: fp4.h tells it. */
#ifndef TSR_KERNELS_CPU_FP4_GROUP_H
#define TSR_KERNELS_CPU_FP4_GROUP_H

#include <stddef.h>
#include <stdint.h>

enum { FP4_ROWS = 16, FP4_GROUP = 16, FP4_WORD = 4, FP4_GROUP_WORDS = 2, FP4_MOST = 12 };

/*
 * Sixteen elements of a row that meets such a weight. Codes are twice the values; they come as the
 * weights' nibbles do, four at a time: 0 2 4 6, 1 3 5 7, 8 10 12 14, 9 11 13 15.
 */
typedef struct fp4_group {
    int8_t code[FP4_GROUP];
    float scale;
    int32_t offset; /* -12 times the sum of the codes, for whoever adds 12 to weights */
} fp4_group;

#endif
