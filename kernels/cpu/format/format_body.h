/*
 * What every format does alike. A format's file defines, then includes this:
 *
 *   struct cursor                       a place in some rows of one tile
 *   cursor_open(linear, row)            at the beginning of `row` and those behind it
 *   cursor_chunk(&c, rows)              called before every eighth group of 16, the first too
 *   cursor_next(&c, rows, w)            the next 16 values of each row, as f32 lanes
 *
 * and gets decode() and stream() of format_cpu.h. `rows` is a constant, TSR_CPU_TILE, where the
 * whole of a whole tile is read.
 */
#ifndef TSR_KERNELS_CPU_FORMAT_FORMAT_BODY_H
#define TSR_KERNELS_CPU_FORMAT_FORMAT_BODY_H

#include "kernels/cpu/lanes.h"

enum { CHUNK_GROUPS = 8 };

TSR_INLINE void decode_rows(const tsr_linear *linear, int32_t first, size_t rows, float *to)
{
    const size_t in = (size_t)linear->in;
    const int32_t groups = linear->in / LANES;
    cursor c = cursor_open(linear, first);

    for (int32_t g = 0; g < groups; g++, to += LANES) {
        lanes w[TSR_CPU_TILE];
        if (g % CHUNK_GROUPS == 0)
            cursor_chunk(&c, rows);
        cursor_next(&c, rows, w);
        for (size_t r = 0; r < rows; r++)
            lanes_store(to + r * in, w[r]);
    }
}

static void decode(const tsr_linear *linear, int32_t first, int32_t rows, float *to)
{
    if (rows == TSR_CPU_TILE)
        decode_rows(linear, first, TSR_CPU_TILE, to);
    else
        decode_rows(linear, first, (size_t)rows, to);
}

/* `rows` and `tokens` are constants, so that all sums live in registers. */
TSR_INLINE void stream_block(const tsr_linear_job *job, int32_t first, size_t rows, int32_t token,
                             int tokens, float *dots)
{
    const size_t in = (size_t)job->linear->in;
    const int32_t groups = job->linear->in / LANES;
    const float *x = job->x + (size_t)token * in;
    cursor c = cursor_open(job->linear, first);
    lanes sum[TSR_CPU_TILE][STREAM_TOKENS];

    for (size_t r = 0; r < rows; r++) {
        for (int t = 0; t < tokens; t++)
            sum[r][t] = lanes_set(0.0F);
    }
    for (int32_t g0 = 0; g0 < groups; g0 += CHUNK_GROUPS) {
        const int32_t here = groups - g0 < CHUNK_GROUPS ? groups - g0 : CHUNK_GROUPS;
        cursor_chunk(&c, rows);
        for (int32_t g = 0; g < here; g++, x += LANES) {
            lanes w[TSR_CPU_TILE];
            cursor_next(&c, rows, w);
            for (int t = 0; t < tokens; t++) {
                const lanes xt = lanes_load(x + (size_t)t * in);
                for (size_t r = 0; r < rows; r++)
                    sum[r][t] = lanes_fma(w[r], xt, sum[r][t]);
            }
        }
    }
    for (int t = 0; t < tokens; t++) {
        for (size_t r = 0; r < rows; r++)
            dots[(size_t)(token + t) * TSR_CPU_TILE + r] = lanes_sum(sum[r][t]);
    }
}

/* All tokens of the job over one tile. */
TSR_INLINE void stream_rows(const tsr_linear_job *job, int32_t first, size_t rows, float *dots)
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
    if (rows == TSR_CPU_TILE)
        stream_rows(job, first, TSR_CPU_TILE, dots);
    else
        stream_rows(job, first, (size_t)rows, dots);
}

#endif
