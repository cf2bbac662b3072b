/*
 * The kernel file of a made-up format: weights in I8 with one f32 scale per 32 along a row. A weight
 * enters the dot as code * scale, rounded once to f32.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/lanes.h"

#include <string.h>

enum { GROUP = 32, STEP = 8 };

typedef struct cursor {
    const int8_t *at;
    const float *scale;
    size_t in;
    size_t columns;
    int32_t group; /* of 16, within the row */
} cursor;

TSR_INLINE cursor cursor_open(const tsr_linear *linear, int32_t row)
{
    const tsr_scale_shape scales = tsr_scale_shape_of(linear->format, linear->out, linear->in);
    return (cursor){
        .at = (const int8_t *)linear->weight + (size_t)row * (size_t)linear->in,
        .scale = (const float *)linear->scales + (size_t)row * (size_t)scales.columns,
        .in = (size_t)linear->in,
        .columns = (size_t)scales.columns,
    };
}

TSR_INLINE void cursor_chunk(cursor *c, size_t rows)
{
    (void)c;
    (void)rows;
}

TSR_INLINE void cursor_next(cursor *c, size_t rows, lanes *w)
{
    for (size_t r = 0; r < rows; r++) {
        const float scale = c->scale[r * c->columns + (size_t)(c->group * LANES / GROUP)];
        float code[LANES];
        for (size_t l = 0; l < LANES; l++)
            code[l] = (float)c->at[r * c->in + l];
        w[r] = lanes_mul(lanes_load(code), lanes_set(scale));
    }
    c->at += LANES;
    c->group++;
}

#include "kernels/cpu/format/format_body.h"

static tsr_status load(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
{
    const size_t in = (size_t)linear->in;

    memcpy((int8_t *)to + (size_t)rows->first * in, rows->bytes, (size_t)rows->count * in);
    return TSR_OK;
}

static float row_scale(const tsr_linear *linear, int32_t row)
{
    (void)row;
    return linear->weight_scale;
}

const tsr_cpu_format ISA(tsr_cpu_format_i8_group) = {
    .unit = 1.0F,
    .weight_bytes = tsr_weight_bytes,
    .scale_bytes = tsr_scale_bytes,
    .row_step = STEP,
    .tile = TSR_CPU_TILE,
    .stream_most = STREAM_MOST,
    .load = load,
    .load_scales = ISA(tsr_cpu_load_f32_scales),
    .decode = decode,
    .stream = stream,
    .row_scale = row_scale,
};
