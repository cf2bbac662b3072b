/*
 * Dots of several rows with several tokens, blocked so that all sums of a block stay in registers:
 *
 *             x0  x1 .. x5        each cell is sixteen lanes of sums;
 *        w0   s   s  .. s         a step loads 4 + 6 vectors for 24 multiply-adds
 *        w1   s   s  .. s
 *        ..
 */
#include "kernels/cpu/dots.h"

/* `rows` and `tokens` are constants at every call. */
TSR_INLINE void block(const tsr_dots *d, int32_t r0, int rows, int32_t t0, int tokens)
{
    const float *w = d->w + (size_t)r0 * d->w_stride;
    const float *x = d->x + (size_t)t0 * d->x_stride;
    lanes sum[DOT_ROWS][DOT_TOKENS];

    for (int r = 0; r < rows; r++) {
        for (int t = 0; t < tokens; t++)
            sum[r][t] = lanes_set(0.0F);
    }
    for (int32_t i = 0; i < d->in; i += LANES) {
        lanes wr[DOT_ROWS];
        for (int r = 0; r < rows; r++)
            wr[r] = lanes_load(w + (size_t)r * d->w_stride + i);
        for (int t = 0; t < tokens; t++) {
            const lanes xt = lanes_load(x + (size_t)t * d->x_stride + i);
            for (int r = 0; r < rows; r++)
                sum[r][t] = lanes_fma(wr[r], xt, sum[r][t]);
        }
    }
    for (int t = 0; t < tokens; t++) {
        for (int r = 0; r < rows; r++)
            d->y[(size_t)(t0 + t) * d->y_stride + (size_t)(r0 + r)] = lanes_sum(sum[r][t]);
    }
}

#define TOKENS_UP_TO(n) (DOT_TOKENS < (n) ? DOT_TOKENS : (n))

TSR_INLINE void some_rows(const tsr_dots *d, int32_t r0, int rows, int32_t tokens)
{
    int32_t t = 0;

    for (; t + DOT_TOKENS <= tokens; t += DOT_TOKENS)
        block(d, r0, rows, t, DOT_TOKENS);
    for (; t + TOKENS_UP_TO(4) <= tokens; t += TOKENS_UP_TO(4))
        block(d, r0, rows, t, TOKENS_UP_TO(4));
    for (; t + TOKENS_UP_TO(2) <= tokens; t += TOKENS_UP_TO(2))
        block(d, r0, rows, t, TOKENS_UP_TO(2));
    for (; t < tokens; t++)
        block(d, r0, rows, t, 1);
}

void ISA(tsr_dots_run)(const tsr_dots *d, int32_t rows, int32_t tokens)
{
    int32_t r = 0;

    for (; r + DOT_ROWS <= rows; r += DOT_ROWS)
        some_rows(d, r, DOT_ROWS, tokens);
    for (; r < rows; r++)
        some_rows(d, r, 1, tokens);
}
