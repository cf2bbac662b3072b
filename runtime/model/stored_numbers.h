/* Small tensors as files hold them, turned into f32; and what their values may be. */
#ifndef TSR_RUNTIME_MODEL_STORED_NUMBERS_H
#define TSR_RUNTIME_MODEL_STORED_NUMBERS_H

#include "runtime/base/dtype.h"

#include <stdbool.h>
#include <stddef.h>

/* What the values of a tensor may be. Nothing may be NaN or infinite. */
typedef enum tsr_number_rule {
    TSR_NUMBERS_FINITE,
    TSR_NUMBERS_NOT_NEGATIVE, /* scales of blocks and channels: zero stands for a block of zeros */
    TSR_NUMBERS_POSITIVE,     /* scales of whole tensors: something is divided by them */
} tsr_number_rule;

/* `count` values from `bytes`, which need not be aligned; of a plain type. */
void tsr_numbers_read(tsr_dtype dtype, const unsigned char *bytes, size_t count, float *to);

/* The first of `values` that breaks the rule, or `count`. */
size_t tsr_numbers_first_bad(const float *values, size_t count, tsr_number_rule rule);

/* The first of `codes` that is no E4M3 scale (NaN, or below zero), or `count`. */
size_t tsr_e4m3_scales_first_bad(const unsigned char *codes, size_t count);

#endif
