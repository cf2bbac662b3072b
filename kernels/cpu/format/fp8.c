/*
 * Weights in E4M3 with one scale for the tensor (FP8) or one per output row (FP8_CHANNEL). Codes
 * as the file has them, in tiles (tile.h); the scale waits for the epilogue.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/format/tile.h"
#include "kernels/cpu/lanes.h"

typedef struct cursor {
    const uint8_t *at;
    size_t step; /* codes to the next group of the same row */
} cursor;

TSR_INLINE cursor cursor_open(const tsr_linear *linear, int32_t row)
{
    const tile_place place = tile_place_of(linear->out, row, (size_t)linear->in / LANES);
    return (cursor){(const uint8_t *)linear->weight + place.at * LANES, place.step * LANES};
}

TSR_INLINE void cursor_chunk(cursor *c, size_t rows)
{
    (void)c;
    (void)rows;
}

TSR_INLINE void cursor_next(cursor *c, size_t rows, lanes *w)
{
    tile_ahead(c->at, (size_t)TSR_CPU_TILE * LANES);
    if (rows == TSR_CPU_TILE) {
        lanes_from_e4m3_tile(c->at, w);
        c->at += (size_t)TSR_CPU_TILE * LANES;
        return;
    }
    for (size_t r = 0; r < rows; r++)
        w[r] = lanes_from_e4m3(c->at + r * LANES);
    c->at += c->step;
}

#include "kernels/cpu/format/format_body.h"

static float row_scale(const tsr_linear *linear, int32_t row)
{
    (void)row;
    return linear->weight_scale;
}

static float channel_row_scale(const tsr_linear *linear, int32_t row)
{
    return ((const float *)linear->scales)[row] * linear->weight_scale;
}

const tsr_cpu_format ISA(tsr_cpu_format_fp8) = {
    .unit = 256.0F,
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

const tsr_cpu_format ISA(tsr_cpu_format_fp8_channel) = {
    .unit = 256.0F,
    .weight_bytes = tsr_weight_bytes,
    .scale_bytes = tsr_scale_bytes,
    .row_step = 1,
    .tile = TSR_CPU_TILE,
    .stream_most = STREAM_MOST,
    .load = ISA(tsr_cpu_load_e4m3),
    .load_scales = ISA(tsr_cpu_load_f32_scales),
    .decode = decode,
    .stream = stream,
    .row_scale = channel_row_scale,
};
