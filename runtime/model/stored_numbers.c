/* Small tensors lie at any offset of what was read, so numbers are copied out, never pointed at.
 * What their values may be is looked at here, once: kernels divide by scales without asking. */
#include "runtime/model/stored_numbers.h"

#include "runtime/base/numeric.h"

#include <math.h>
#include <stdint.h>

void tsr_numbers_read(tsr_dtype dtype, const unsigned char *bytes, size_t count, float *to)
{
    if (dtype == TSR_DTYPE_F32) {
        memcpy(to, bytes, count * sizeof(*to));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, bytes + i * sizeof(half), sizeof(half));
        to[i] = dtype == TSR_DTYPE_BF16 ? tsr_bf16_to_f32(half) : tsr_f16_to_f32(half);
    }
}

static bool allowed(float x, tsr_number_rule rule)
{
    if (!isfinite(x))
        return false;
    if (rule == TSR_NUMBERS_POSITIVE)
        return x > 0;
    return rule == TSR_NUMBERS_FINITE || x >= 0;
}

size_t tsr_numbers_first_bad(const float *values, size_t count, tsr_number_rule rule)
{
    for (size_t i = 0; i < count; i++) {
        if (!allowed(values[i], rule))
            return i;
    }
    return count;
}

static bool is_bad_scale(unsigned char code)
{
    enum { NEGATIVE_ZERO = 0x80, NOT_A_NUMBER = 0x7f };
    return code >= NOT_A_NUMBER && code != NEGATIVE_ZERO;
}

/* Of a constant number of codes: without a branch for each, so that they are looked at together. */
static bool any_bad_scale(const unsigned char *codes, size_t count)
{
    unsigned char bad = 0;
    for (size_t i = 0; i < count; i++)
        bad |= (unsigned char)is_bad_scale(codes[i]);
    return bad != 0;
}

size_t tsr_e4m3_scales_first_bad(const unsigned char *codes, size_t count)
{
    enum { BLOCK = 256 };
    size_t i = 0;
    while (i + BLOCK <= count && !any_bad_scale(codes + i, BLOCK))
        i += BLOCK;
    while (i < count && !is_bad_scale(codes[i]))
        i++;
    return i;
}
