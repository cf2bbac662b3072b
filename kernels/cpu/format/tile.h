/*
 * How rows of a weight lie: tiles of rows, one after the other, and inside a tile the rows
 * interleaved by units (16 elements, or what a format reads at once), so that whoever computes a
 * tile reads memory in one sequential stream. With four rows:
 *
 *   row-major   r0 u0 | r0 u1 | ... | r1 u0 | r1 u1 | ...
 *   a tile      r0 u0 | r1 u0 | r2 u0 | r3 u0 | r0 u1 | r1 u1 | ...
 *
 * The last tile has as many rows as are left; nothing is padded.
 */
#ifndef TSR_KERNELS_CPU_FORMAT_TILE_H
#define TSR_KERNELS_CPU_FORMAT_TILE_H

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/isa.h"

#include <string.h>

/* Where a row's units lie: the first one at `at`, the next ones `step` further each; in units. */
typedef struct tile_place {
    size_t at;
    size_t step;
} tile_place;

/* Of a weight with `out` rows of `units` each, in tiles of `tile` rows. */
TSR_INLINE tile_place tile_place_in(int32_t out, int32_t row, size_t units, int32_t tile)
{
    const int32_t first = row / tile * tile;
    const int32_t height = out - first < tile ? out - first : tile;

    return (tile_place){(size_t)first * units + (size_t)(row - first), (size_t)height};
}

TSR_INLINE tile_place tile_place_of(int32_t out, int32_t row, size_t units)
{
    return tile_place_in(out, row, units, TSR_CPU_TILE);
}

/* How far in front of what is read memory is asked for: far enough to hide a miss, and across the
 * end of a page, where a processor's own foresight stops. */
enum { TILE_AHEAD = 4096, CACHE_LINE = 64 };

/* Called when `bytes` bytes at `at` are read, a constant. Past the end nothing happens. */
TSR_INLINE void tile_ahead(const void *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += CACHE_LINE)
        __builtin_prefetch((const void *)((uintptr_t)at + TILE_AHEAD + i));
}

/* Rows on their way into tiles. */
typedef struct tile_rows {
    unsigned char *to;         /* of the whole weight */
    const unsigned char *from; /* row after row, those that come */
    size_t units;              /* of a row */
    int32_t out;               /* rows of the weight */
    int32_t first;             /* that come */
    int32_t count;
} tile_rows;

/* `rows` rows of one tile; `rows`, `step` and `unit` are constants where it matters. */
TSR_INLINE void tile_copy(unsigned char *to, const unsigned char *from, size_t units, int rows,
                          size_t step, size_t unit)
{
    for (size_t u = 0; u < units; u++, to += step * unit, from += unit) {
        for (size_t r = 0; r < (size_t)rows; r++)
            memcpy(to + r * unit, from + r * units * unit, unit);
    }
}

/* All of them; rows of a tile and bytes of a unit are constants. */
TSR_INLINE void tiles_copy(const tile_rows *t, int32_t tile, size_t unit)
{
    const unsigned char *from = t->from;
    const int32_t last = t->first + t->count;

    for (int32_t row = t->first; row < last;) {
        const tile_place place = tile_place_in(t->out, row, t->units, tile);
        const int32_t left = tile - row % tile;
        const int32_t rows = last - row < left ? last - row : left;
        unsigned char *to = t->to + place.at * unit;
        if (rows == tile)
            tile_copy(to, from, t->units, tile, (size_t)tile, unit);
        else
            tile_copy(to, from, t->units, rows, place.step, unit);
        from += (size_t)rows * t->units * unit;
        row += rows;
    }
}

#endif
