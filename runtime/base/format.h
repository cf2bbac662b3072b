/*
 * The vocabulary of precision that the plan, the messages and the kernels share: how a weight is
 * stored, and what happens to the rows that meet it. What a checkpoint may *declare* is a wider
 * table and lives in runtime/plan/algos.c.
 *
 * A weight format is one row in format.c. Proving, loading and every count of bytes read that row;
 * a new format is that row, what declares it, and a file for each backend that computes with it.
 */
#ifndef TSR_RUNTIME_BASE_FORMAT_H
#define TSR_RUNTIME_BASE_FORMAT_H

#include "runtime/base/dtype.h"

#include <stdbool.h>
#include <stdint.h>

/* How a weight W[out, in] is stored. value(o, i) is what it stands for. */
typedef enum tsr_weight_format {
    TSR_WEIGHT_F32,         /* f32  [out, in] */
    TSR_WEIGHT_F16,         /* f16  [out, in] */
    TSR_WEIGHT_BF16,        /* bf16 [out, in] */
    TSR_WEIGHT_FP8,         /* e4m3 [out, in] * weight_scale */
    TSR_WEIGHT_FP8_CHANNEL, /* e4m3 [out, in] * scales[o], f32 [out] */
    TSR_WEIGHT_FP8_BLOCK,   /* e4m3 [out, in] * scales[o/128, i/128], f32, edges rounded up */
    TSR_WEIGHT_NVFP4,       /* e2m1 [out, in/2], low nibble first, * scales[o, i/16] e4m3,
                               * weight_scale */
    TSR_WEIGHT_FORMAT_COUNT
} tsr_weight_format;

/* What happens to a row before it meets the weight. */
typedef enum tsr_activation {
    TSR_ACTIVATION_NONE,      /* nothing */
    TSR_ACTIVATION_FP8,       /* e4m3(clamp(x / input_scale)), static scale */
    TSR_ACTIVATION_FP8_TOKEN, /* e4m3(x / s), s = max|row| / 448 */
    TSR_ACTIVATION_FP8_GROUP, /* e4m3(x / s), s = max|128 neighbours| / 448 */
    TSR_ACTIVATION_NVFP4,     /* e2m1 over e4m3 scales of 16 neighbours over input_scale */
    TSR_ACTIVATION_COUNT
} tsr_activation;

/* How keys and values are kept. */
typedef enum tsr_kv_format {
    TSR_KV_F32, /* on a CPU where nothing is declared, else by choice */
    TSR_KV_BF16,
    TSR_KV_FP8, /* e4m3(x / scale), one scale per layer for keys and one for values */
    TSR_KV_FORMAT_COUNT
} tsr_kv_format;

/* The scales stored beside a weight. */
typedef enum tsr_scales {
    TSR_SCALES_NONE,    /* unquantized */
    TSR_SCALES_TENSOR,  /* one for the whole weight */
    TSR_SCALES_CHANNEL, /* [out] */
    TSR_SCALES_GRID,    /* one for each tile of scale_rows x scale_columns, edges rounded up */
} tsr_scales;

/* What a file holds of a weight W[out, in]. Rows are whole bytes: `in` is a multiple of 16. */
typedef struct tsr_format_row {
    const char *name;
    const char *looks_like; /* for messages: "FP8 with block scales" */
    tsr_dtype weight_dtype; /* of the stored elements, which may each hold several weights */
    int32_t weight_bits;    /* of one weight */
    tsr_scales scales;
    tsr_dtype scale_dtype; /* F32: stored in F32, F16 or BF16 and kept in F32; else as it is */
    int32_t scale_rows;    /* GRID: weights under one scale, along `out` ... */
    int32_t scale_columns; /* ... and along `in` */
    bool inverse_name;     /* the scales may be called weight_scale_inv */
    bool global_scale;     /* one F32 weight_scale_2 over the scales */
} tsr_format_row;

/* `format` is one of ours. */
const tsr_format_row *tsr_format_row_of(tsr_weight_format format);

/* True and *ret_format written when a weight of this type needs no scales: F32, F16, BF16. */
bool tsr_format_unquantized(tsr_dtype dtype, tsr_weight_format *ret_format);

/* True when the scale tensor of such a format may be of this type. */
bool tsr_scale_dtype_fits(tsr_weight_format format, tsr_dtype dtype);

/* Stored elements of a row of W: fewer than `in` where an element holds several weights. */
int32_t tsr_weight_columns(tsr_weight_format format, int32_t in);

/* Bytes of W as stored. */
uint64_t tsr_weight_bytes(tsr_weight_format format, int32_t out, int32_t in);

/* The scales of W as a matrix; [1, 1] where there is one or none. */
typedef struct tsr_scale_shape {
    int32_t rows;
    int32_t columns;
} tsr_scale_shape;
tsr_scale_shape tsr_scale_shape_of(tsr_weight_format format, int32_t out, int32_t in);

/* Bytes of an array of scales as kept; 0 where there is none (one for the whole weight is kept
 * beside it). */
uint64_t tsr_scale_bytes(tsr_weight_format format, int32_t out, int32_t in);

/* "bf16", "fp8", "fp8-channel", "fp8-block", "nvfp4"; never NULL. */
const char *tsr_weight_format_name(tsr_weight_format format);

/* "none", "fp8", "fp8-token", "fp8-group", "nvfp4"; never NULL. */
const char *tsr_activation_name(tsr_activation activation);

/* "f32", "bf16", "fp8"; never NULL. */
const char *tsr_kv_format_name(tsr_kv_format format);

/* Bytes of one element of keys or values. */
int32_t tsr_kv_format_bytes(tsr_kv_format format);

#endif
