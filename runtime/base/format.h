/*
 * The vocabulary of precision that the plan, the messages and the kernels share: how a weight is
 * stored, and what happens to the rows that meet it. What a checkpoint may *declare* is a wider
 * table and lives in runtime/plan/algos.c.
 */
#ifndef TSR_RUNTIME_BASE_FORMAT_H
#define TSR_RUNTIME_BASE_FORMAT_H

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
    TSR_KV_F32, /* CPU, where nothing is declared */
    TSR_KV_BF16,
    TSR_KV_FP8, /* e4m3(x / scale), one scale per layer for keys and one for values */
    TSR_KV_FORMAT_COUNT
} tsr_kv_format;

/* "bf16", "fp8", "fp8-channel", "fp8-block", "nvfp4"; never NULL. */
const char *tsr_weight_format_name(tsr_weight_format format);

/* "none", "fp8", "fp8-token", "fp8-group", "nvfp4"; never NULL. */
const char *tsr_activation_name(tsr_activation activation);

/* "f32", "bf16", "fp8"; never NULL. */
const char *tsr_kv_format_name(tsr_kv_format format);

/* Bytes of one element of keys or values. */
int32_t tsr_kv_format_bytes(tsr_kv_format format);

#endif
