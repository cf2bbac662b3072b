/* Element types a safetensors file may hold. */
#ifndef TSR_RUNTIME_BASE_DTYPE_H
#define TSR_RUNTIME_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

typedef enum tsr_dtype {
    TSR_DTYPE_BF16,
    TSR_DTYPE_F16,
    TSR_DTYPE_F32,
    TSR_DTYPE_F64,
    TSR_DTYPE_F8_E4M3,
    TSR_DTYPE_F8_E5M2,
    TSR_DTYPE_F8_E8M0,
    TSR_DTYPE_U8,
    TSR_DTYPE_I8,
    TSR_DTYPE_I16,
    TSR_DTYPE_I32,
    TSR_DTYPE_I64,
    TSR_DTYPE_BOOL,
    TSR_DTYPE_COUNT
} tsr_dtype;

/* Bytes of one element. */
size_t tsr_dtype_bytes(tsr_dtype dtype);

/* F32, F16 or BF16: a number as it is, readable as f32. */
bool tsr_dtype_is_plain(tsr_dtype dtype);

/* As safetensors spells it: "BF16", "F8_E4M3"; never NULL. */
const char *tsr_dtype_name(tsr_dtype dtype);

/* True and *ret_dtype written when `name` is one of the spellings above. */
bool tsr_dtype_from_name(const char *name, tsr_dtype *ret_dtype);

#endif
