/*
 * What every format does alike. A format's file defines, then includes this:
 *
 *   struct cursor                           a place in one row of W
 *   cursor_open(linear, row)                at its beginning
 *   cursor_chunk(&c)                        called before every eighth group of 16, the first too
 *   cursor_next(&c)                         the next 16 values, as f32 lanes
 *
 * and gets decode() and stream() of format_cpu.h.
 */
#ifndef TSR_KERNELS_CPU_FORMAT_FORMAT_BODY_H
#define TSR_KERNELS_CPU_FORMAT_FORMAT_BODY_H

#include "kernels/cpu/lanes.h"

enum { CHUNK_GROUPS = 8 };

static void decode(const tsr_linear *linear, int32_t first, int32_t rows, float *to)
{
    const int32_t groups = linear->in / LANES;

    for (int32_t r = 0; r < rows; r++) {
        cursor c = cursor_open(linear, first + r);
        for (int32_t g = 0; g < groups; g++, to += LANES) {
            if (g % CHUNK_GROUPS == 0)
                cursor_chunk(&c);
            lanes_store(to, cursor_next(&c));
        }
    }
}

/* `rows` and `tokens` are constants at every call, so that all sums live in registers. */
TSR_INLINE void stream_block(const tsr_linear_job *job, int32_t first, int rows, int32_t token,
                             int tokens, float *dots)
{
    const size_t in = (size_t)job->linear->in;
    const int32_t groups = job->linear->in / LANES;
    const float *x = job->x + (size_t)token * in;
    cursor c[STREAM_ROWS];
    lanes sum[STREAM_ROWS][STREAM_TOKENS];

    for (int r = 0; r < rows; r++) {
        c[r] = cursor_open(job->linear, first + r);
        for (int t = 0; t < tokens; t++)
            sum[r][t] = lanes_set(0.0F);
    }
    for (int32_t g0 = 0; g0 < groups; g0 += CHUNK_GROUPS) {
        const int32_t here = groups - g0 < CHUNK_GROUPS ? groups - g0 : CHUNK_GROUPS;
        for (int r = 0; r < rows; r++)
            cursor_chunk(&c[r]);
        for (int32_t g = 0; g < here; g++, x += LANES) {
            lanes w[STREAM_ROWS];
            for (int r = 0; r < rows; r++)
                w[r] = cursor_next(&c[r]);
            for (int t = 0; t < tokens; t++) {
                const lanes xt = lanes_load(x + (size_t)t * in);
                for (int r = 0; r < rows; r++)
                    sum[r][t] = lanes_fma(w[r], xt, sum[r][t]);
            }
        }
    }
    for (int t = 0; t < tokens; t++) {
        for (int r = 0; r < rows; r++)
            dots[(token + t) * TSR_CPU_TILE + r] = lanes_sum(sum[r][t]);
    }
}

/* All tokens of the job over `rows` rows, a constant. */
TSR_INLINE void stream_rows(const tsr_linear_job *job, int32_t first, int rows, float *dots)
{
    int32_t t = 0;

    for (; STREAM_TOKENS >= 4 && t + 4 <= job->tokens; t += 4)
        stream_block(job, first, rows, t, STREAM_TOKENS >= 4 ? 4 : 1, dots);
    for (; STREAM_TOKENS >= 2 && t + 2 <= job->tokens; t += 2)
        stream_block(job, first, rows, t, STREAM_TOKENS >= 2 ? 2 : 1, dots);
    for (; t < job->tokens; t++)
        stream_block(job, first, rows, t, 1, dots);
}

static void stream(const tsr_linear_job *job, int32_t first, int32_t rows, float *dots)
{
    int32_t r = 0;

    for (; r + STREAM_ROWS <= rows; r += STREAM_ROWS)
        stream_rows(job, first + r, STREAM_ROWS, dots + r);
    for (; r < rows; r++)
        stream_rows(job, first + r, 1, dots + r);
}

#endif
