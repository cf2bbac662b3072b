/*
 * Groups of FP4 by definition. See fp4.h; include that.
 */
#ifndef TSR_KERNELS_CPU_FP4_PLAIN_H
#define TSR_KERNELS_CPU_FP4_PLAIN_H

#include "kernels/cpu/fp4_group.h"
#include "kernels/cpu/lanes_plain.h"

/* Tokens of one block: their sums stay in registers. */
enum { FP4_TOKENS = 1 };

/* Twice the values, by row, in the order of fp4_group. */
typedef struct fp4_weights {
    int8_t row[FP4_ROWS][FP4_GROUP];
} fp4_weights;

TSR_INLINE fp4_weights fp4_load(const uint8_t *p)
{
    static const int8_t twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    fp4_weights w;

    for (size_t r = 0; r < FP4_ROWS; r++) {
        for (size_t i = 0; i < FP4_WORD; i++) {
            const uint8_t front = p[r * FP4_WORD + i];
            const uint8_t back = p[(FP4_ROWS + r) * FP4_WORD + i];
            w.row[r][i] = twice[front & 15U];
            w.row[r][4 + i] = twice[front >> 4];
            w.row[r][8 + i] = twice[back & 15U];
            w.row[r][12 + i] = twice[back >> 4];
        }
    }
    return w;
}

/* The dot of each row with the group, as floats. */
TSR_INLINE lanes fp4_dot(const fp4_weights *w, const fp4_group *x)
{
    lanes dot;

    for (size_t r = 0; r < FP4_ROWS; r++) {
        int32_t sum = 0;
        for (size_t i = 0; i < FP4_GROUP; i++)
            sum += w->row[r][i] * x->code[i];
        dot.v[r] = (float)sum;
    }
    return dot;
}

#endif
