/*
 * Weights in E4M3 with one f32 scale per block of 128 x 128, edges rounded up. Codes as the file
 * has them, in tiles (tile.h). A weight enters the dot as e4m3 * scale, rounded once to f32.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/format/tile.h"
#include "kernels/cpu/lanes.h"
#include "runtime/base/sizes.h"

enum { BLOCK = 128 }; /* also the 8 groups of 16 of one chunk */

_Static_assert(BLOCK % TSR_CPU_TILE == 0, "a tile has one scale");

typedef struct cursor {
    const uint8_t *at;
    size_t step; /* codes to the next group of the same row */
    const float *next_scale;
    lanes scale; /* of all rows: a tile lies in one block */
} cursor;

TSR_INLINE cursor cursor_open(const tsr_linear *linear, int32_t row)
{
    const size_t scale_row = (size_t)(row / BLOCK) * (size_t)tsr_pieces(linear->in, BLOCK);
    const tile_place place = tile_place_of(linear->out, row, (size_t)linear->in / LANES);
    return (cursor){
        .at = (const uint8_t *)linear->weight + place.at * LANES,
        .step = place.step * LANES,
        .next_scale = (const float *)linear->scales + scale_row,
    };
}

/* The codes come in units of 2^-8; a scale times 2^8 is exact. */
TSR_INLINE void cursor_chunk(cursor *c, size_t rows)
{
    (void)rows;
    c->scale = lanes_mul(lanes_set(*c->next_scale), lanes_set(256.0F));
    c->next_scale++;
}

TSR_INLINE void cursor_next(cursor *c, size_t rows, lanes *w)
{
    tile_ahead(c->at, (size_t)TSR_CPU_TILE * LANES);
    if (rows == TSR_CPU_TILE) {
        lanes_from_e4m3_tile(c->at, w);
    } else {
        for (size_t r = 0; r < rows; r++)
            w[r] = lanes_from_e4m3(c->at + r * LANES);
    }
    for (size_t r = 0; r < rows; r++)
        w[r] = lanes_mul(w[r], c->scale);
    c->at += rows == TSR_CPU_TILE ? (size_t)TSR_CPU_TILE * LANES : c->step;
}

#include "kernels/cpu/format/format_body.h"

static float row_scale(const tsr_linear *linear, int32_t row)
{
    (void)row;
    return linear->weight_scale;
}

const tsr_cpu_format ISA(tsr_cpu_format_fp8_block) = {
    .unit = 1.0F,
    .weight_bytes = tsr_weight_bytes,
    .scale_bytes = tsr_scale_bytes,
    .row_step = 1,
    .tile = TSR_CPU_TILE,
    .stream_most = STREAM_MOST,
    .load = ISA(tsr_cpu_load_e4m3),
    .load_scales = ISA(tsr_cpu_load_f32_scales),
    .decode = decode,
    .stream = stream,
    .row_scale = row_scale,
};
