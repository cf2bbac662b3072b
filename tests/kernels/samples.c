/*
 * Random numbers and linears; what a linear stands for is computed here in double, apart from the
 * kernels.
 */
#include "tests/kernels/samples.h"

#include "runtime/base/numeric.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

uint32_t sample_u32(sample_random *r)
{
    r->state = r->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(r->state >> 33) * 2U + (uint32_t)(r->state >> 63);
}

float sample_float(sample_random *r)
{
    return (float)(sample_u32(r) >> 8) * 0x1p-23F - 1.0F;
}

void sample_floats(sample_random *r, float *x, size_t count, float scale)
{
    const bool in_bf16 = tsr_cuda_cards() > 0;

    for (size_t i = 0; i < count; i++) {
        x[i] = sample_float(r) * scale;
        if (in_bf16)
            x[i] = tsr_bf16_to_f32(tsr_f32_to_bf16(x[i]));
    }
}

void *sample_memory(size_t bytes)
{
    void *memory = calloc(bytes > 0 ? bytes : 1, 1);

    assert_non_null(memory);
    return memory;
}

static double e4m3(uint8_t code)
{
    return (double)tsr_e4m3_to_f32(code);
}

/* An E4M3 code that is no NaN. */
static uint8_t random_e4m3(sample_random *r)
{
    const uint8_t code = (uint8_t)(sample_u32(r) >> 24);
    return (code & 0x7f) == 0x7f ? 0x7e : code;
}

/* Fills one weight; returns its value without scales. */
static double random_weight(sample_random *r, tsr_weight_format format, void *weight, size_t at)
{
    const float x = sample_float(r);

    switch (format) {
    case TSR_WEIGHT_F32:
        ((float *)weight)[at] = x;
        return (double)x;
    case TSR_WEIGHT_F16: {
        const uint16_t code = (uint16_t)(sample_u32(r) >> 16 & 0xbfffU);
        ((uint16_t *)weight)[at] = code;
        return (double)tsr_f16_to_f32(code);
    }
    case TSR_WEIGHT_BF16:
        ((uint16_t *)weight)[at] = tsr_f32_to_bf16(x);
        return (double)tsr_bf16_to_f32(tsr_f32_to_bf16(x));
    case TSR_WEIGHT_NVFP4: {
        const uint8_t code = (uint8_t)(sample_u32(r) >> 28);
        ((uint8_t *)weight)[at / 2] |= (uint8_t)(at % 2 ? code << 4 : code);
        return (double)tsr_e2m1_to_f32(code);
    }
    case TSR_WEIGHT_FP8:
    case TSR_WEIGHT_FP8_CHANNEL:
    case TSR_WEIGHT_FP8_BLOCK:
    case TSR_WEIGHT_FORMAT_COUNT:
        break;
    }
    ((uint8_t *)weight)[at] = random_e4m3(r);
    return e4m3(((uint8_t *)weight)[at]);
}

static size_t blocks_of(int32_t count)
{
    return ((size_t)count + 127) / 128;
}

/* The scale of weight (o, i) beside the tensor's own. */
static double scale_of(const sample_linear *l, size_t o, size_t i)
{
    const size_t in = (size_t)l->source.in;

    switch (l->source.format) {
    case TSR_WEIGHT_FP8_CHANNEL:
        return (double)((const float *)l->scales)[o];
    case TSR_WEIGHT_FP8_BLOCK:
        return (double)((const float *)l->scales)[o / 128 * blocks_of(l->source.in) + i / 128];
    case TSR_WEIGHT_NVFP4:
        return e4m3(((const uint8_t *)l->scales)[o * (in / 16) + i / 16]);
    case TSR_WEIGHT_F32:
    case TSR_WEIGHT_F16:
    case TSR_WEIGHT_BF16:
    case TSR_WEIGHT_FP8:
    case TSR_WEIGHT_FORMAT_COUNT:
        break;
    }
    return 1.0;
}

static void fill_scales(sample_random *r, sample_linear *l)
{
    const size_t out = (size_t)l->source.out;
    const size_t groups = out * (size_t)l->source.in / 16;

    l->scales = sample_memory(out * (size_t)l->source.in * sizeof(float));
    if (l->source.format == TSR_WEIGHT_NVFP4) {
        for (size_t i = 0; i < groups; i++)
            ((uint8_t *)l->scales)[i] = random_e4m3(r) & 0x7f;
    } else {
        sample_floats(r, l->scales, out * blocks_of(l->source.in), 0.01F);
    }
}

sample_linear *sample_linear_new(sample_random *r, sample_kind kind, int32_t out, int32_t in)
{
    sample_linear *l = sample_memory(sizeof(*l));
    const size_t count = (size_t)out * (size_t)in;
    const bool whole = kind.format == TSR_WEIGHT_FP8 || kind.format == TSR_WEIGHT_NVFP4;

    l->source = (tsr_linear_source){
        .format = kind.format,
        .activation = kind.activation,
        .out = out,
        .in = in,
        .weight_scale = whole ? 0.0078F : 1.0F,
        .input_scale = kind.activation == TSR_ACTIVATION_FP8     ? 0.0031F
                       : kind.activation == TSR_ACTIVATION_NVFP4 ? 0.0005F
                                                                 : 1.0F,
    };
    l->weight = sample_memory(count * sizeof(float));
    l->value = sample_memory(count * sizeof(double));
    fill_scales(r, l);
    for (size_t i = 0; i < count; i++) {
        l->value[i] = random_weight(r, kind.format, l->weight, i) *
                      scale_of(l, i / (size_t)in, i % (size_t)in) * (double)l->source.weight_scale;
    }
    l->source.weight = l->weight;
    l->source.scales = l->scales;
    if (kind.bias) {
        l->bias = sample_memory((size_t)out * sizeof(float));
        sample_floats(r, l->bias, (size_t)out, 1.0F);
    }
    if (kind.pre_quant_scale) {
        l->pre_quant_scale = sample_memory((size_t)in * sizeof(float));
        sample_floats(r, l->pre_quant_scale, (size_t)in, 2.0F);
    }
    l->source.bias = l->bias;
    l->source.pre_quant_scale = l->pre_quant_scale;
    return l;
}

void sample_linear_free(sample_linear *l)
{
    free(l->weight);
    free(l->scales);
    free(l->value);
    free(l->bias);
    free(l->pre_quant_scale);
    free(l);
}

tsr_linear sample_load(tsr_device *device, const sample_linear *l)
{
    const tsr_linear_source *s = &l->source;
    const uint64_t bytes = tsr_device_linear_bytes(device, s->format, s->out, s->in,
                                                   s->bias != NULL, s->pre_quant_scale != NULL);
    tsr_linear linear = {0};

    ASSERT_STATUS(TSR_OK,
                  tsr_device_load_linear(device, s, sample_room(device, (size_t)bytes), &linear));
    return linear;
}

static float largest(const float *x, size_t count)
{
    float most = 0.0F;

    for (size_t i = 0; i < count; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

/* Quantizes `count` neighbours that share the scale s, and multiplies it back. */
static void by_e4m3(const float *x, size_t count, float s, double *row)
{
    for (size_t i = 0; i < count; i++)
        row[i] = s > 0.0F ? e4m3(tsr_f32_to_e4m3(x[i] / s)) * (double)s : 0.0;
}

static void by_nvfp4(const float *x, float input_scale, double *row)
{
    const float f = tsr_e4m3_to_f32(tsr_f32_to_e4m3(largest(x, 16) / 6.0F / input_scale));
    const float step = f * input_scale;

    for (size_t i = 0; i < 16; i++) {
        row[i] = step > 0.0F ? (double)tsr_e2m1_to_f32(tsr_f32_to_e2m1(x[i] / step)) * (double)f *
                                   (double)input_scale
                             : 0.0;
    }
}

void sample_quantized(const sample_linear *l, const float *x, double *ret_row)
{
    const size_t in = (size_t)l->source.in;
    float *scaled = sample_memory(in * sizeof(float));

    for (size_t i = 0; i < in; i++)
        scaled[i] = l->pre_quant_scale != NULL ? x[i] * l->pre_quant_scale[i] : x[i];
    for (size_t i = 0; i < in; i++)
        ret_row[i] = (double)scaled[i];
    if (l->source.activation == TSR_ACTIVATION_FP8)
        by_e4m3(scaled, in, l->source.input_scale, ret_row);
    if (l->source.activation == TSR_ACTIVATION_FP8_TOKEN)
        by_e4m3(scaled, in, largest(scaled, in) / 448.0F, ret_row);
    for (size_t i = 0; l->source.activation == TSR_ACTIVATION_FP8_GROUP && i < in; i += 128) {
        const size_t here = in - i < 128 ? in - i : 128;
        by_e4m3(scaled + i, here, fmaxf(largest(scaled + i, here) / 448.0F, 1e-30F), ret_row + i);
    }
    for (size_t i = 0; l->source.activation == TSR_ACTIVATION_NVFP4 && i < in; i += 16)
        by_nvfp4(scaled + i, l->source.input_scale, ret_row + i);
    free(scaled);
}

double sample_dot(const sample_linear *l, const double *row, int32_t o, double *ret_magnitude)
{
    const size_t in = (size_t)l->source.in;
    const double *value = l->value + (size_t)o * in;
    double sum = l->bias != NULL ? (double)l->bias[o] : 0.0;
    double magnitude = fabs(sum);

    for (size_t i = 0; i < in; i++) {
        sum += row[i] * value[i];
        magnitude += fabs(row[i] * value[i]);
    }
    *ret_magnitude = magnitude;
    return sum;
}
