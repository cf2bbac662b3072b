/* The parts of a linear, one after the other, scales before the weight. */
#include "tests/kernels/whole_linear.h"

#include <string.h>

/* One part of a linear in host memory. */
typedef struct part {
    const unsigned char *bytes;
    uint64_t row_bytes;
    int32_t rows; /* 0: none */
    tsr_linear_part part;
} part;

/* Until the device has taken what was put. */
static tsr_status wait_for(tsr_device *device, tsr_mark *mark)
{
    bool passed = false;
    tsr_status st = tsr_device_mark(device, mark, (tsr_stream){0});

    while (st == TSR_OK && !passed)
        st = tsr_device_passed(device, mark, &passed);
    return st;
}

/* Rows from host memory that the device reads, which the test's own may not be. */
static tsr_status load_piece(tsr_device *device, const tsr_linear *linear, void *memory, part p,
                             tsr_linear_rows rows)
{
    const size_t bytes = (size_t)rows.count * (size_t)p.row_bytes;
    void *staged = NULL;
    tsr_mark *mark = NULL;
    tsr_status st = tsr_device_host_alloc(device, bytes, &staged);

    if (st == TSR_OK)
        st = tsr_device_mark_open(device, &mark);
    if (st == TSR_OK && p.bytes != NULL) {
        memcpy(staged, p.bytes + (size_t)rows.first * (size_t)p.row_bytes, bytes);
        rows.bytes = staged;
    }
    if (st == TSR_OK)
        st = tsr_device_load_rows(device, linear, memory, &rows, (tsr_stream){0});
    if (st == TSR_OK)
        st = wait_for(device, mark);
    tsr_device_mark_close(device, mark);
    tsr_device_host_free(device, staged);
    return st;
}

static tsr_status load_part(tsr_device *device, const tsr_linear *linear, void *memory, part p,
                            int32_t at_once)
{
    const int32_t step = at_once > 0 ? at_once : p.rows;
    tsr_status st = TSR_OK;

    for (int32_t first = 0; st == TSR_OK && first < p.rows; first += step) {
        const tsr_linear_rows rows = {
            .part = p.part,
            .first = first,
            .count = p.rows - first < step ? p.rows - first : step,
        };
        st = load_piece(device, linear, memory, p, rows);
    }
    return st;
}

tsr_status tsr_device_load_linear_by(tsr_device *device, const tsr_linear_source *s, void *memory,
                                     int32_t rows_at_once, tsr_linear *ret_linear)
{
    const tsr_linear_spec spec = {
        .format = s->format,
        .activation = s->activation,
        .out = s->out,
        .in = s->in,
        .bias = s->bias != NULL,
        .pre_quant_scale = s->pre_quant_scale != NULL,
        .weight_scale = s->weight_scale,
        .input_scale = s->input_scale,
    };
    tsr_linear linear;
    tsr_status st = tsr_device_place_linear(device, &spec, memory, &linear);
    if (st != TSR_OK)
        return st;

    const tsr_scale_shape shape = tsr_scale_shape_of(s->format, s->out, s->in);
    const uint64_t scale_bytes = tsr_scale_bytes(s->format, s->out, s->in);
    const part parts[] = {
        {s->scales, scale_bytes / (uint64_t)shape.rows, scale_bytes > 0 ? shape.rows : 0,
         TSR_LINEAR_SCALES},
        {(const unsigned char *)s->bias, sizeof(float), spec.bias ? s->out : 0, TSR_LINEAR_BIAS},
        {(const unsigned char *)s->pre_quant_scale, sizeof(float), spec.pre_quant_scale ? s->in : 0,
         TSR_LINEAR_PRE_QUANT_SCALE},
        {s->weight, tsr_weight_bytes(s->format, 1, s->in), s->out, TSR_LINEAR_WEIGHT},
    };
    for (size_t i = 0; st == TSR_OK && i < sizeof(parts) / sizeof(parts[0]); i++)
        st = load_part(device, &linear, memory, parts[i], rows_at_once);
    if (st == TSR_OK)
        *ret_linear = linear;
    return st;
}

tsr_status tsr_device_load_linear(tsr_device *device, const tsr_linear_source *source, void *memory,
                                  tsr_linear *ret_linear)
{
    return tsr_device_load_linear_by(device, source, memory, 0, ret_linear);
}
