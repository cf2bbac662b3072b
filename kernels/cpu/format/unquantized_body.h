/*
 * What formats without scales do alike: rows as the file has them, one element after the other. The
 * rows of a tile are streams of their own: elements so wide are read faster in four than in one. A
 * format's file defines, then includes this:
 *
 *   element                  the stored type
 *   element_bits             as wide, without sign
 *   ELEMENT_EXPONENT         its exponent, all of whose bits NaN and infinity have
 *   elements_next(at)        16 of them as f32 lanes
 *
 * and gets all that format_cpu.h asks for.
 */
#ifndef TSR_KERNELS_CPU_FORMAT_UNQUANTIZED_BODY_H
#define TSR_KERNELS_CPU_FORMAT_UNQUANTIZED_BODY_H

#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/lanes.h"

#include <string.h>

typedef struct cursor {
    const element *at;
    size_t in; /* elements to the next row */
} cursor;

TSR_INLINE cursor cursor_open(const tsr_linear *linear, int32_t row)
{
    const size_t in = (size_t)linear->in;
    return (cursor){(const element *)linear->weight + (size_t)row * in, in};
}

TSR_INLINE void cursor_chunk(cursor *c, size_t rows)
{
    (void)c;
    (void)rows;
}

TSR_INLINE void cursor_next(cursor *c, size_t rows, lanes *w)
{
    for (size_t r = 0; r < rows; r++)
        w[r] = elements_next(c->at + r * c->in);
    c->at += LANES;
}

#include "kernels/cpu/format/format_body.h"

static bool has_nonfinite(const element_bits *at, uint64_t count)
{
    element_bits found = 0;

    for (uint64_t i = 0; i < count; i++)
        found |= (element_bits)((at[i] & ELEMENT_EXPONENT) == ELEMENT_EXPONENT);
    return found != 0;
}

static tsr_status load_plain_rows(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
{
    const size_t in = (size_t)linear->in;
    const size_t count = (size_t)rows->count * in;

    if (has_nonfinite(rows->bytes, count))
        return TSR_ERR_CHECKPOINT;
    memcpy((element *)to + (size_t)rows->first * in, rows->bytes, count * sizeof(element));
    return TSR_OK;
}

static float row_scale(const tsr_linear *linear, int32_t row)
{
    (void)row;
    return linear->weight_scale;
}

#endif
