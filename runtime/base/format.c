/*
 * The one table of weight formats, and what follows from a row: how many bytes, how many scales.
 * Whoever wants to know something about a format reads its row and asks for no format by name.
 */
#include "runtime/base/format.h"

#include "runtime/base/sizes.h"

static const tsr_format_row formats[TSR_WEIGHT_FORMAT_COUNT] = {
    [TSR_WEIGHT_F32] = {.name = "f32",
                        .looks_like = "unquantized",
                        .weight_dtype = TSR_DTYPE_F32,
                        .weight_bits = 32},
    [TSR_WEIGHT_F16] = {.name = "f16",
                        .looks_like = "unquantized",
                        .weight_dtype = TSR_DTYPE_F16,
                        .weight_bits = 16},
    [TSR_WEIGHT_BF16] = {.name = "bf16",
                         .looks_like = "unquantized",
                         .weight_dtype = TSR_DTYPE_BF16,
                         .weight_bits = 16},
    [TSR_WEIGHT_FP8] = {.name = "fp8",
                        .looks_like = "FP8 with one scale",
                        .weight_dtype = TSR_DTYPE_F8_E4M3,
                        .weight_bits = 8,
                        .scales = TSR_SCALES_TENSOR,
                        .scale_dtype = TSR_DTYPE_F32},
    [TSR_WEIGHT_FP8_CHANNEL] = {.name = "fp8-channel",
                                .looks_like = "FP8 with a scale for each channel",
                                .weight_dtype = TSR_DTYPE_F8_E4M3,
                                .weight_bits = 8,
                                .scales = TSR_SCALES_CHANNEL,
                                .scale_dtype = TSR_DTYPE_F32},
    [TSR_WEIGHT_FP8_BLOCK] = {.name = "fp8-block",
                              .looks_like = "FP8 with block scales",
                              .weight_dtype = TSR_DTYPE_F8_E4M3,
                              .weight_bits = 8,
                              .scales = TSR_SCALES_GRID,
                              .scale_dtype = TSR_DTYPE_F32,
                              .scale_rows = 128,
                              .scale_columns = 128,
                              .inverse_name = true},
    [TSR_WEIGHT_NVFP4] = {.name = "nvfp4",
                          .looks_like = "NVFP4",
                          .weight_dtype = TSR_DTYPE_U8,
                          .weight_bits = 4,
                          .scales = TSR_SCALES_GRID,
                          .scale_dtype = TSR_DTYPE_F8_E4M3,
                          .scale_rows = 1,
                          .scale_columns = 16,
                          .global_scale = true},
};
static const char *const activation_names[TSR_ACTIVATION_COUNT] = {
    "none", "fp8", "fp8-token", "fp8-group", "nvfp4",
};
static const char *const kv_names[TSR_KV_FORMAT_COUNT] = {"f32", "bf16", "fp8"};
static const int32_t kv_bytes[TSR_KV_FORMAT_COUNT] = {4, 2, 1};

enum { BITS_OF_A_BYTE = 8 };

const tsr_format_row *tsr_format_row_of(tsr_weight_format format)
{
    return &formats[format];
}

bool tsr_format_unquantized(tsr_dtype dtype, tsr_weight_format *ret_format)
{
    for (int f = 0; f < TSR_WEIGHT_FORMAT_COUNT; f++) {
        if (formats[f].scales == TSR_SCALES_NONE && formats[f].weight_dtype == dtype) {
            *ret_format = (tsr_weight_format)f;
            return true;
        }
    }
    return false;
}

bool tsr_scale_dtype_fits(tsr_weight_format format, tsr_dtype dtype)
{
    const tsr_dtype kept = formats[format].scale_dtype;
    return kept == TSR_DTYPE_F32 ? tsr_dtype_is_plain(dtype) : dtype == kept;
}

int32_t tsr_weight_columns(tsr_weight_format format, int32_t in)
{
    const tsr_format_row *row = &formats[format];
    const int32_t element_bits = (int32_t)tsr_dtype_bytes(row->weight_dtype) * BITS_OF_A_BYTE;
    return in / (element_bits / row->weight_bits);
}

uint64_t tsr_weight_bytes(tsr_weight_format format, int32_t out, int32_t in)
{
    return (uint64_t)out * (uint64_t)tsr_weight_columns(format, in) *
           tsr_dtype_bytes(formats[format].weight_dtype);
}

tsr_scale_shape tsr_scale_shape_of(tsr_weight_format format, int32_t out, int32_t in)
{
    const tsr_format_row *row = &formats[format];

    if (row->scales == TSR_SCALES_CHANNEL)
        return (tsr_scale_shape){out, 1};
    if (row->scales == TSR_SCALES_GRID)
        return (tsr_scale_shape){tsr_pieces(out, row->scale_rows),
                                 tsr_pieces(in, row->scale_columns)};
    return (tsr_scale_shape){1, 1};
}

uint64_t tsr_scale_bytes(tsr_weight_format format, int32_t out, int32_t in)
{
    const tsr_format_row *row = &formats[format];
    const tsr_scale_shape shape = tsr_scale_shape_of(format, out, in);

    if (row->scales == TSR_SCALES_NONE || row->scales == TSR_SCALES_TENSOR)
        return 0;
    return (uint64_t)shape.rows * (uint64_t)shape.columns * tsr_dtype_bytes(row->scale_dtype);
}

const char *tsr_weight_format_name(tsr_weight_format format)
{
    return format < TSR_WEIGHT_FORMAT_COUNT ? formats[format].name : "?";
}

const char *tsr_activation_name(tsr_activation activation)
{
    return activation < TSR_ACTIVATION_COUNT ? activation_names[activation] : "?";
}

const char *tsr_kv_format_name(tsr_kv_format format)
{
    return format < TSR_KV_FORMAT_COUNT ? kv_names[format] : "?";
}

int32_t tsr_kv_format_bytes(tsr_kv_format format)
{
    return format < TSR_KV_FORMAT_COUNT ? kv_bytes[format] : 0;
}
