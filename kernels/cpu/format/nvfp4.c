/*
 * Weights in E2M1 with an E4M3 scale per 16 and one f32 scale for the tensor. The nibbles are laid
 * out anew, so that one load of 64 bytes serves eight groups of 16 with a shift between them:
 *
 *   chunk of 128 weights      word l, nibble g = code of element 16 g + l
 *
 *      word    0        1        2     ...    15
 *   nibble 0   e0       e1       e2           e15      group 0
 *          1   e16      e17      e18          e31      group 1
 *          :
 *          7   e112     e113     e114         e127     group 7
 *
 * Scales stay bytes, eight to a chunk. Rows are padded to whole chunks, which are the units of a tile
 * (tile.h). E2M1 times E4M3 is exact in f32; the scale of the tensor waits for the epilogue.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/format/tile.h"
#include "kernels/cpu/lanes.h"
#include "runtime/base/sizes.h"

#include <string.h>

enum { CHUNK = 128, CHUNK_WORDS = 16, CHUNK_SCALES = 8 };

typedef struct cursor {
    nibbles codes[TSR_CPU_TILE];
    float scale[TSR_CPU_TILE][LANES]; /* of the chunk's groups, times 2^-8; the first eight count */
    const uint32_t *words;
    const uint8_t *scales;
    size_t step; /* chunks to the next one of the same row */
    int group;
} cursor;

static size_t chunks(int32_t in)
{
    return (size_t)tsr_pieces(in, CHUNK);
}

TSR_INLINE cursor cursor_open(const tsr_linear *linear, int32_t row)
{
    const tile_place place = tile_place_of(linear->out, row, chunks(linear->in));
    cursor c;

    c.words = (const uint32_t *)linear->weight + place.at * CHUNK_WORDS;
    c.scales = (const uint8_t *)linear->scales + place.at * CHUNK_SCALES;
    c.step = place.step;
    return c;
}

TSR_INLINE void cursor_chunk(cursor *c, size_t rows)
{
    tile_ahead(c->words, (size_t)TSR_CPU_TILE * CHUNK_WORDS * sizeof(uint32_t));
    for (size_t r = 0; r < rows; r++) {
        c->codes[r] = nibbles_load(c->words + r * CHUNK_WORDS);
        lanes_store(c->scale[r], lanes_from_e4m3(c->scales + r * CHUNK_SCALES));
    }
    c->group = 0;
    c->words += c->step * CHUNK_WORDS;
    c->scales += c->step * CHUNK_SCALES;
}

TSR_INLINE void cursor_next(cursor *c, size_t rows, lanes *w)
{
    for (size_t r = 0; r < rows; r++) {
        w[r] = lanes_mul(lanes_from_e2m1(c->codes[r]), lanes_set(c->scale[r][c->group]));
        c->codes[r] = nibbles_next(c->codes[r]);
    }
    c->group++;
}

#include "kernels/cpu/format/format_body.h"

static uint64_t weight_bytes(tsr_weight_format format, int32_t out, int32_t in)
{
    (void)format;
    return (uint64_t)out * chunks(in) * CHUNK_WORDS * sizeof(uint32_t);
}

/* Scales are read sixteen at a time: eight bytes of slack behind the last. */
static uint64_t scale_bytes(tsr_weight_format format, int32_t out, int32_t in)
{
    (void)format;
    return (uint64_t)out * chunks(in) * CHUNK_SCALES + CHUNK_SCALES;
}

/* The chunks of one row; in a tile they lie `step` chunks apart. */
static void load_row(const uint8_t *from, int32_t in, uint32_t *to, size_t step)
{
    uint8_t last[CHUNK / 2] = {0};
    const int32_t whole = in / CHUNK;

    for (int32_t c = 0; c < whole; c++, to += step * CHUNK_WORDS)
        nibbles_lay_out(from + (size_t)c * sizeof(last), to);
    if (in % CHUNK == 0)
        return;
    memcpy(last, from + (size_t)whole * sizeof(last), (size_t)(in % CHUNK) / 2);
    nibbles_lay_out(last, to);
}

static tsr_status load_nvfp4(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
{
    const size_t row_bytes = (size_t)linear->in / 2;
    const uint8_t *from = rows->bytes;

    for (int32_t r = 0; r < rows->count; r++, from += row_bytes) {
        const tile_place place = tile_place_of(linear->out, rows->first + r, chunks(linear->in));
        load_row(from, linear->in, (uint32_t *)to + place.at * CHUNK_WORDS, place.step);
    }
    return TSR_OK;
}

/* The scales of one row, eight to a chunk; those beyond `in` are zero. */
static void load_row_scales(const uint8_t *from, size_t groups, uint8_t *to, size_t step)
{
    for (size_t g = 0; g < groups; g += CHUNK_SCALES, to += step * CHUNK_SCALES) {
        uint8_t chunk[CHUNK_SCALES] = {0};
        memcpy(chunk, from + g, tsr_smaller_size(groups - g, CHUNK_SCALES));
        memcpy(to, chunk, sizeof(chunk));
    }
}

/* The slack behind the last row is zero. */
static tsr_status load_scales(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
{
    const size_t groups = (size_t)linear->in / LANES;
    const uint8_t *from = rows->bytes;
    uint8_t *scales = to;

    if (ISA(tsr_cpu_has_e4m3_nan)(from, (uint64_t)rows->count * groups))
        return TSR_ERR_CHECKPOINT;
    for (int32_t r = 0; r < rows->count; r++, from += groups) {
        const tile_place place = tile_place_of(linear->out, rows->first + r, chunks(linear->in));
        load_row_scales(from, groups, scales + place.at * CHUNK_SCALES, place.step);
    }
    if (rows->first + rows->count == linear->out)
        memset(scales + (size_t)linear->out * chunks(linear->in) * CHUNK_SCALES, 0, CHUNK_SCALES);
    return TSR_OK;
}

static float row_scale(const tsr_linear *linear, int32_t row)
{
    (void)row;
    return linear->weight_scale;
}

const tsr_cpu_format ISA(tsr_cpu_format_nvfp4) = {
    .unit = 256.0F,
    .weight_bytes = weight_bytes,
    .scale_bytes = scale_bytes,
    .row_step = 1,
    .tile = TSR_CPU_TILE,
    .stream_most = STREAM_MOST,
    .load = load_nvfp4,
    .load_scales = load_scales,
    .decode = decode,
    .stream = stream,
    .row_scale = row_scale,
};
