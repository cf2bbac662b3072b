/*
 * What formats without scales do alike: elements as the file has them, in tiles. A format's file
 * defines, then includes this:
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
#include "kernels/cpu/format/tile.h"
#include "kernels/cpu/lanes.h"

typedef struct cursor {
    const element *at;
    size_t step; /* elements to the next group of the same row */
} cursor;

TSR_INLINE cursor cursor_open(const tsr_linear *linear, int32_t row)
{
    const tile_place place = tile_place_of(linear->out, row, (size_t)linear->in / LANES);
    return (cursor){(const element *)linear->weight + place.at * LANES, place.step * LANES};
}

TSR_INLINE void cursor_chunk(cursor *c, size_t rows)
{
    (void)c;
    (void)rows;
}

TSR_INLINE void cursor_next(cursor *c, size_t rows, lanes *w)
{
    for (size_t r = 0; r < rows; r++)
        w[r] = elements_next(c->at + r * LANES);
    c->at += rows == TSR_CPU_TILE ? (size_t)TSR_CPU_TILE * LANES : c->step;
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
    const tile_rows tiles = {
        .to = to,
        .from = rows->bytes,
        .units = (size_t)linear->in / LANES,
        .out = linear->out,
        .first = rows->first,
        .count = rows->count,
    };

    if (has_nonfinite(rows->bytes, (uint64_t)rows->count * (uint64_t)linear->in))
        return TSR_ERR_CHECKPOINT;
    tiles_copy(&tiles, TSR_CPU_TILE, LANES * sizeof(element));
    return TSR_OK;
}

static float row_scale(const tsr_linear *linear, int32_t row)
{
    (void)row;
    return linear->weight_scale;
}

#endif
