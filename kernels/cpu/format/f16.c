/*
 * Weights in F16: kept as the file has them, row-major.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/lanes.h"

#include <string.h>

typedef struct cursor {
    const uint16_t *at;
} cursor;

TSR_INLINE cursor cursor_open(const tsr_linear *linear, int32_t row)
{
    return (cursor){(const uint16_t *)linear->weight + (size_t)row * (size_t)linear->in};
}

TSR_INLINE void cursor_chunk(cursor *c)
{
    (void)c;
}

TSR_INLINE lanes cursor_next(cursor *c)
{
    const lanes value = lanes_from_f16(c->at);
    c->at += LANES;
    return value;
}

#include "kernels/cpu/format/format_body.h"

static uint64_t weight_bytes(int32_t out, int32_t in)
{
    return (uint64_t)out * (uint64_t)in * sizeof(uint16_t);
}

static uint64_t scale_bytes(int32_t out, int32_t in)
{
    (void)out;
    (void)in;
    return 0;
}

static tsr_status load(const tsr_linear_source *source, void *weight, void *scales)
{
    (void)scales;
    memcpy(weight, source->weight, (size_t)weight_bytes(source->out, source->in));
    return TSR_OK;
}

static float row_scale(const tsr_linear *linear, int32_t row)
{
    (void)row;
    return linear->weight_scale;
}

const tsr_cpu_format ISA(tsr_cpu_format_f16) = {
    .unit = 1.0F,
    .weight_bytes = weight_bytes,
    .scale_bytes = scale_bytes,
    .load = load,
    .decode = decode,
    .stream = stream,
    .row_scale = row_scale,
};
