/*
 * Quantization of activations: the CPU's definition of each mode. Values stay f32, but for nvfp4 that
 * meets nvfp4, where they become integer codes (fp4.h); what a code cannot hold is rounded away here,
 * what all codes of a row share is the row's scale.
 *
 *   mode        value                               scale of the row
 *   none        x                                   1
 *   fp8         e4m3(x / input_scale)               input_scale
 *   fp8-token   e4m3(x / s), s = max|row| / 448     s
 *   fp8-group   e4m3(x / s) * s, s per 128          1
 *   nvfp4       e2m1(x / (f * input_scale)) * f     input_scale
 *               f = e4m3(max|16| / 6 / input_scale)
 */
#include "kernels/cpu/linear_cpu.h"

#include "kernels/cpu/fp4.h"
#include "kernels/cpu/lane_math.h"

#include <string.h>

enum { FP8_GROUP = 128 };

static float peak(const float *x, int32_t count)
{
    lanes most = lanes_set(0.0F);

    for (int32_t i = 0; i < count; i += LANES)
        most = lanes_max(most, lanes_abs(lanes_load(x + i)));
    return lanes_peak(most);
}

/* e4m3(x / s), times `unit`. */
static void to_e4m3(const float *x, float *to, int32_t count, float s, float unit)
{
    const lanes divisor = lanes_set(s);
    const lanes factor = lanes_set(unit);

    for (int32_t i = 0; i < count; i += LANES) {
        const lanes value = lanes_round_e4m3(lanes_div(lanes_load(x + i), divisor));
        lanes_store(to + i, lanes_mul(value, factor));
    }
}

/* A row of zeros (or of what vanishes beside 448) has no scale: its values are 0. */
static float to_e4m3_token(const float *x, float *to, int32_t count)
{
    const float s = peak(x, count) / 448.0F;

    if (s == 0.0F) {
        memset(to, 0, (size_t)count * sizeof(*to));
        return 1.0F;
    }
    to_e4m3(x, to, count, s, 1.0F);
    return s;
}

static void to_e4m3_groups(const float *x, float *to, int32_t count)
{
    for (int32_t i = 0; i < count; i += FP8_GROUP) {
        const int32_t here = count - i < FP8_GROUP ? count - i : FP8_GROUP;
        const float s = peak(x + i, here) / 448.0F;
        const float bounded = s < 1e-30F ? 1e-30F : s;
        to_e4m3(x + i, to + i, here, bounded, bounded);
    }
}

/* Sixteen values by their own scale. */
typedef struct nvfp4_group {
    lanes value; /* of E2M1; 0 where the scale is */
    lanes scale; /* f, in every lane */
} nvfp4_group;

TSR_INLINE nvfp4_group nvfp4_of(lanes values, float input_scale)
{
    const float most = lanes_peak(lanes_abs(values));
    const lanes f = lanes_round_e4m3(
        lanes_div(lanes_div(lanes_set(most), lanes_set(6.0F)), lanes_set(input_scale)));
    const lanes step = lanes_mul(f, lanes_set(input_scale));

    if (lanes_peak(step) == 0.0F)
        return (nvfp4_group){lanes_set(0.0F), lanes_set(0.0F)};
    return (nvfp4_group){lanes_round_e2m1(lanes_div(values, step)), f};
}

static void to_nvfp4(const float *x, float *to, int32_t count, float input_scale)
{
    for (int32_t i = 0; i < count; i += LANES) {
        const nvfp4_group g = nvfp4_of(lanes_load(x + i), input_scale);
        lanes_store(to + i, lanes_mul(g.value, g.scale));
    }
}

/* A NaN is no integer: its group's scale is one instead, and so is every answer then. */
TSR_INLINE fp4_group fp4_of(nvfp4_group g)
{
    const float nan_or_zero = lanes_sum(lanes_sub(g.value, g.value));
    float twice[LANES];
    fp4_group to = {.offset = 0};

    if (nan_or_zero == 0.0F)
        lanes_store(twice, lanes_add(g.value, g.value));
    else
        lanes_store(twice, lanes_set(0.0F));
    for (size_t i = 0; i < 4; i++) {
        to.code[i] = (int8_t)twice[2 * i];
        to.code[4 + i] = (int8_t)twice[2 * i + 1];
        to.code[8 + i] = (int8_t)twice[2 * i + 8];
        to.code[12 + i] = (int8_t)twice[2 * i + 9];
    }
    for (size_t i = 0; i < FP4_GROUP; i++)
        to.offset -= FP4_MOST * to.code[i];
    to.scale = lanes_peak(g.scale) + nan_or_zero;
    return to;
}

_Static_assert(sizeof(fp4_group) <= FP4_GROUP * sizeof(float), "a row grows in its place");

/* In place too: a group is smaller than the floats that it comes from. */
static void to_fp4(const float *x, float *to, int32_t count, float input_scale)
{
    unsigned char *at = (unsigned char *)to;

    for (int32_t i = 0; i < count; i += LANES, at += sizeof(fp4_group)) {
        const fp4_group g = fp4_of(nvfp4_of(lanes_load(x + i), input_scale));
        memcpy(at, &g, sizeof(g));
    }
}

float ISA(tsr_quantize_row)(const tsr_linear *linear, const float *x, float *to)
{
    const int32_t in = linear->in;

    if (linear->pre_quant_scale != NULL) {
        for (int32_t i = 0; i < in; i++)
            to[i] = x[i] * linear->pre_quant_scale[i];
        x = to;
    }
    switch (linear->activation) {
    case TSR_ACTIVATION_FP8:
        to_e4m3(x, to, in, linear->input_scale, 1.0F);
        return linear->input_scale;
    case TSR_ACTIVATION_FP8_TOKEN:
        return to_e4m3_token(x, to, in);
    case TSR_ACTIVATION_FP8_GROUP:
        to_e4m3_groups(x, to, in);
        return 1.0F;
    case TSR_ACTIVATION_NVFP4:
        if (tsr_linear_meets_fp4(linear))
            to_fp4(x, to, in, linear->input_scale);
        else
            to_nvfp4(x, to, in, linear->input_scale);
        return linear->input_scale;
    case TSR_ACTIVATION_NONE:
    case TSR_ACTIVATION_COUNT:
        break;
    }
    if (x != to)
        memcpy(to, x, (size_t)in * sizeof(*to));
    return 1.0F;
}

static void quantize_share(const void *context, int32_t thread, int32_t threads)
{
    const tsr_quantize_rows *q = context;
    const size_t in = (size_t)q->linear->in;
    const tsr_thread_range mine = tsr_thread_share(q->rows, thread, threads);

    for (int64_t i = mine.first; i < mine.last; i++) {
        q->scale[i] = ISA(tsr_quantize_row)(q->linear, q->x + (size_t)i * q->x_stride,
                                            q->to + (size_t)i * in);
    }
}

void ISA(tsr_quantize_run)(tsr_cpu_device *cpu, const tsr_quantize_rows *q)
{
    tsr_threads_run(cpu->threads, q->rows, quantize_share, q);
}
