/*
 * Which rows a linear sees: questions about quantization that need no instruction set.
 */
#include "kernels/cpu/linear_cpu.h"

#include <string.h>

bool tsr_linear_changes_rows(const tsr_linear *linear)
{
    return linear->activation != TSR_ACTIVATION_NONE || linear->pre_quant_scale != NULL;
}

bool tsr_linear_meets_fp4(const tsr_linear *linear)
{
    return linear->format == TSR_WEIGHT_NVFP4 && linear->activation == TSR_ACTIVATION_NVFP4;
}

static bool takes_input_scale(tsr_activation activation)
{
    return activation == TSR_ACTIVATION_FP8 || activation == TSR_ACTIVATION_NVFP4;
}

static bool same_factors(const float *a, const float *b, int32_t count)
{
    if (a == b)
        return true;
    return a != NULL && b != NULL && memcmp(a, b, (size_t)count * sizeof(*a)) == 0;
}

bool tsr_linears_share_rows(const tsr_linear *a, const tsr_linear *b)
{
    return a->in == b->in && a->activation == b->activation &&
           tsr_linear_meets_fp4(a) == tsr_linear_meets_fp4(b) &&
           (!takes_input_scale(a->activation) || a->input_scale == b->input_scale) &&
           same_factors(a->pre_quant_scale, b->pre_quant_scale, a->in);
}
