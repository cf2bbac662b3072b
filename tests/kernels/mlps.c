/*
 * Random gated MLPs and their definition, and experts made of them through the front door.
 */
#include "tests/kernels/mlps.h"

#include "tests/test.h"

#include <math.h>

/* Widest row here. */
enum { MOST = 256 };

static const sample_kind kinds[SAMPLE_MLP_KINDS][3] = {
    {{TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false},
     {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false},
     {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false}},
    {{TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, false},
     {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, false},
     {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, true}},
    {{TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, false},
     {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, false},
     {TSR_WEIGHT_FP8_BLOCK, TSR_ACTIVATION_FP8_GROUP, false, false}},
    {{TSR_WEIGHT_FP8_CHANNEL, TSR_ACTIVATION_FP8_TOKEN, false, false},
     {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NONE, false, true},
     {TSR_WEIGHT_FP8_CHANNEL, TSR_ACTIVATION_FP8_TOKEN, false, false}},
};
sample_mlp sample_mlp_new(sample_random *r, int kind, int32_t hidden, int32_t intermediate)
{
    const sample_mlp m = {
        .gate = sample_linear_new(r, kinds[kind][0], intermediate, hidden),
        .up = sample_linear_new(r, kinds[kind][1], intermediate, hidden),
        .down = sample_linear_new(r, kinds[kind][2], hidden, intermediate),
    };
    return m;
}

void sample_mlp_free(sample_mlp *m)
{
    sample_linear_free(m->gate);
    sample_linear_free(m->up);
    sample_linear_free(m->down);
}

tsr_mlp sample_mlp_load(tsr_device *device, const sample_mlp *m)
{
    const tsr_mlp mlp = {
        .gate = sample_load(device, m->gate),
        .up = sample_load(device, m->up),
        .down = sample_load(device, m->down),
    };
    return mlp;
}

void sample_mlp_run(tsr_device *device, const tsr_mlp *mlp, const float *x, float *y,
                    int32_t tokens, int32_t width)
{
    const size_t count = (size_t)tokens * (size_t)width;
    const tsr_mlp_args a = {
        .out = sample_row_room(device, count),
        .x = sample_rows(device, x, count),
        .mlp = mlp,
        .x_row_bytes = (size_t)width * tsr_device_activation_bytes(device),
        .tokens = tokens,
    };

    ASSERT_STATUS(TSR_OK, device->ops->mlp(device, &a, (tsr_stream){NULL}));
    sample_get_rows(device, y, a.out, count);
}

/*
 * One row in double, with the bound that follows from the linears' own, (in/16 + 10) 2^-24 of the
 * sum of magnitudes: silu is steeper than 1.1 nowhere, and costs 8 roundings. No value here lies so
 * near a rounding boundary that the next code would be as right.
 */
void sample_assert_mlp(const sample_mlp *m, const float *x, const float *y)
{
    const int32_t hidden = m->gate->source.in;
    const int32_t width = m->gate->source.out;
    const double bound_in = (hidden / 16.0 + 10.0) * 0x1p-24;
    const double bound_down = (width / 16.0 + 10.0) * 0x1p-24;
    double row[MOST];
    double up_row[MOST];
    double error[MOST];
    float h[MOST];
    double quantized[MOST];

    assert_in_range(hidden, 1, MOST);
    assert_in_range(width, 1, MOST);
    sample_quantized(m->gate, x, row);
    sample_quantized(m->up, x, up_row);
    for (int32_t i = 0; i < width; i++) {
        double gate_size = 0.0;
        double up_size = 0.0;
        const double g = sample_dot(m->gate, row, i, &gate_size);
        const double u = sample_dot(m->up, up_row, i, &up_size);
        const double s = g / (1.0 + exp(-g));
        h[i] = (float)(s * u);
        error[i] = 1.1 * bound_in * gate_size * fabs(u) + bound_in * up_size * fabs(s) +
                   8.0 * 0x1p-24 * fabs(s * u);
        if (m->down->pre_quant_scale != NULL)
            error[i] *= fabs((double)m->down->pre_quant_scale[i]);
    }
    sample_quantized(m->down, h, quantized);
    for (int32_t o = 0; o < hidden; o++) {
        double size = 0.0;
        double tolerance = 0.0;
        const double expected = sample_dot(m->down, quantized, o, &size);
        for (size_t i = 0; i < (size_t)width; i++)
            tolerance += fabs(m->down->value[(size_t)o * (size_t)width + i]) * error[i];
        tolerance += bound_down * size;
        /* A dynamic scale of the row, or group, carries the error of its largest value. */
        tolerance += m->down->source.activation == TSR_ACTIVATION_NONE ? 0.0 : 1e-6 * size;
        if (!(fabs((double)y[o] - expected) <= tolerance))
            fail_msg("row %d: %.9g, not %.9g +- %.2g", (int)o, (double)y[o], expected, tolerance);
    }
}

tsr_status sample_experts_make(tsr_device *device, const tsr_experts_source *source,
                               tsr_experts *ret_experts)
{
    const size_t bytes = (size_t)tsr_experts_bytes(source->experts, source->local);
    void *memory = sample_room(device, bytes);
    void *image = NULL;

    ASSERT_STATUS(TSR_OK, tsr_device_host_alloc(device, bytes, &image));
    const tsr_status st =
        tsr_experts_make(device, source, image, memory, (tsr_stream){NULL}, ret_experts);
    sample_wait(device);
    tsr_device_host_free(device, image);
    return st;
}
