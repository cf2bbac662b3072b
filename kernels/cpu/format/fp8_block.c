/*
 * Weights in E4M3 with one f32 scale per block of 128 x 128, edges rounded up. Kept as the file has
 * them. A weight enters the dot as e4m3 * scale, rounded once to f32.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/lanes.h"
#include "runtime/base/sizes.h"

#include <string.h>

enum { BLOCK = 128 }; /* also the 8 groups of 16 of one chunk */

typedef struct cursor {
    const uint8_t *at;
    const float *next_scale;
    lanes scale;
} cursor;

TSR_INLINE cursor cursor_open(const tsr_linear *linear, int32_t row)
{
    const size_t scale_row = (size_t)(row / BLOCK) * (size_t)tsr_pieces(linear->in, BLOCK);
    return (cursor){
        .at = (const uint8_t *)linear->weight + (size_t)row * (size_t)linear->in,
        .next_scale = (const float *)linear->scales + scale_row,
    };
}

/* The codes come in units of 2^-8; a scale times 2^8 is exact. */
TSR_INLINE void cursor_chunk(cursor *c)
{
    c->scale = lanes_mul(lanes_set(*c->next_scale), lanes_set(256.0F));
    c->next_scale++;
}

TSR_INLINE lanes cursor_next(cursor *c)
{
    const lanes value = lanes_mul(lanes_from_e4m3(c->at), c->scale);
    c->at += LANES;
    return value;
}

#include "kernels/cpu/format/format_body.h"

static tsr_status load_fp8_blocks(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
{
    const size_t in = (size_t)linear->in;
    const size_t count = (size_t)rows->count * in;

    if (ISA(tsr_cpu_has_e4m3_nan)(rows->bytes, count))
        return TSR_ERR_CHECKPOINT;
    memcpy((uint8_t *)to + (size_t)rows->first * in, rows->bytes, count);
    return TSR_OK;
}

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
    .load = load_fp8_blocks,
    .load_scales = ISA(tsr_cpu_load_f32_scales),
    .decode = decode,
    .stream = stream,
    .row_scale = row_scale,
};
