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

static tsr_status load(const tsr_linear_source *source, void *weight, void *scales)
{
    const uint64_t bytes = (uint64_t)source->out * (uint64_t)source->in;

    (void)scales;
    if (ISA(tsr_cpu_has_e4m3_nan)(source->weight, bytes))
        return TSR_ERR_CHECKPOINT;
    memcpy(weight, source->weight, (size_t)bytes);
    return TSR_OK;
}

static tsr_status load_channel(const tsr_linear_source *source, void *weight, void *scales)
{
    if (ISA(tsr_cpu_has_nonfinite)(source->scales, (uint64_t)source->out))
        return TSR_ERR_CHECKPOINT;
    memcpy(scales, source->scales, (size_t)source->out * sizeof(float));
    return load(source, weight, scales);
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
    .load = load,
    .decode = decode,
    .stream = stream,
    .row_scale = row_scale,
};

const tsr_cpu_format ISA(tsr_cpu_format_fp8_channel) = {
    .unit = 256.0F,
    .weight_bytes = tsr_weight_bytes,
    .scale_bytes = tsr_scale_bytes,
    .load = load_channel,
    .decode = decode,
    .stream = stream,
    .row_scale = channel_row_scale,
};
