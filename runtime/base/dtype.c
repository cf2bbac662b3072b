/* A row for each type of the format, also those that no model here uses: a tensor of such a type is
 * named, not called unknown. */
#include "runtime/base/dtype.h"

#include <string.h>

typedef struct dtype_row {
    const char *name;
    size_t bytes;
} dtype_row;

static const dtype_row rows[TSR_DTYPE_COUNT] = {
    [TSR_DTYPE_BF16] = {"BF16", 2},       [TSR_DTYPE_F16] = {"F16", 2},
    [TSR_DTYPE_F32] = {"F32", 4},         [TSR_DTYPE_F64] = {"F64", 8},
    [TSR_DTYPE_F8_E4M3] = {"F8_E4M3", 1}, [TSR_DTYPE_F8_E5M2] = {"F8_E5M2", 1},
    [TSR_DTYPE_F8_E8M0] = {"F8_E8M0", 1}, [TSR_DTYPE_U8] = {"U8", 1},
    [TSR_DTYPE_I8] = {"I8", 1},           [TSR_DTYPE_I16] = {"I16", 2},
    [TSR_DTYPE_I32] = {"I32", 4},         [TSR_DTYPE_I64] = {"I64", 8},
    [TSR_DTYPE_BOOL] = {"BOOL", 1},
};

size_t tsr_dtype_bytes(tsr_dtype dtype)
{
    return dtype < TSR_DTYPE_COUNT ? rows[dtype].bytes : 0;
}

bool tsr_dtype_is_plain(tsr_dtype dtype)
{
    return dtype == TSR_DTYPE_F32 || dtype == TSR_DTYPE_F16 || dtype == TSR_DTYPE_BF16;
}

const char *tsr_dtype_name(tsr_dtype dtype)
{
    return dtype < TSR_DTYPE_COUNT ? rows[dtype].name : "?";
}

bool tsr_dtype_from_name(const char *name, tsr_dtype *ret_dtype)
{
    for (int i = 0; i < TSR_DTYPE_COUNT; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            *ret_dtype = (tsr_dtype)i;
            return true;
        }
    }
    return false;
}
