/* Weights on their way to a GPU: an exponent of ones is NaN or infinity, whatever the type. */
#include "kernels/cuda/device/loaded_cuda.h"

static bool words_have(const uint32_t *at, uint64_t count)
{
    uint32_t found = 0;

    for (uint64_t i = 0; i < count; i++)
        found |= (at[i] & 0x7f800000U) == 0x7f800000U;
    return found != 0;
}

static bool halves_have(const uint16_t *at, uint64_t count, uint32_t exponent)
{
    uint32_t found = 0;

    for (uint64_t i = 0; i < count; i++)
        found |= (at[i] & exponent) == exponent;
    return found != 0;
}

/* E4M3 has no infinity, and one NaN of each sign. */
static bool codes_have(const uint8_t *at, uint64_t count)
{
    uint32_t found = 0;

    for (uint64_t i = 0; i < count; i++)
        found |= (at[i] & 0x7fU) == 0x7fU;
    return found != 0;
}

bool tsr_cuda_has_nonfinite(tsr_dtype dtype, const void *elements, uint64_t count)
{
    if (dtype == TSR_DTYPE_F32)
        return words_have(elements, count);
    if (dtype == TSR_DTYPE_F16)
        return halves_have(elements, count, 0x7c00U);
    if (dtype == TSR_DTYPE_BF16)
        return halves_have(elements, count, 0x7f80U);
    return dtype == TSR_DTYPE_F8_E4M3 && codes_have(elements, count);
}
