/*
 * Weights in E4M3 with one scale for the tensor (FP8) or one per output row (FP8_CHANNEL). Kept as
 * the file has them; the scale waits for the epilogue.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/lanes.h"

#include <string.h>

typedef struct cursor {
    const uint8_t *at;
} cursor;

TSR_INLINE cursor cursor_open(const tsr_linear *linear, int32_t row)
{
    return (cursor){(const uint8_t *)linear->weight + (size_t)row * (size_t)linear->in};
}

TSR_INLINE void cursor_chunk(cursor *c)
{
    (void)c;
}

TSR_INLINE lanes cursor_next(cursor *c)
{
    const lanes value = lanes_from_e4m3(c->at);
    c->at += LANES;
    return value;
}

#include "kernels/cpu/format/format_body.h"

static tsr_status load_fp8(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
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

static float channel_row_scale(const tsr_linear *linear, int32_t row)
{
    return ((const float *)linear->scales)[row] * linear->weight_scale;
}

const tsr_cpu_format ISA(tsr_cpu_format_fp8) = {
    .unit = 256.0F,
    .weight_bytes = tsr_weight_bytes,
    .scale_bytes = tsr_scale_bytes,
    .row_step = 1,
    .load = load_fp8,
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
    .load = load_fp8,
    .load_scales = ISA(tsr_cpu_load_f32_scales),
    .decode = decode,
    .stream = stream,
    .row_scale = channel_row_scale,
};
