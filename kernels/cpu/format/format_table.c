/*
 * One row per weight format, and what loading of several has in common.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/format/tile.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/linear_cpu.h"

#include <math.h>
#include <string.h>

const tsr_cpu_format *const ISA(tsr_cpu_formats)[TSR_WEIGHT_FORMAT_COUNT] = {
    [TSR_WEIGHT_F32] = &ISA(tsr_cpu_format_f32),
    [TSR_WEIGHT_F16] = &ISA(tsr_cpu_format_f16),
    [TSR_WEIGHT_BF16] = &ISA(tsr_cpu_format_bf16),
    [TSR_WEIGHT_FP8] = &ISA(tsr_cpu_format_fp8),
    [TSR_WEIGHT_FP8_CHANNEL] = &ISA(tsr_cpu_format_fp8_channel),
    [TSR_WEIGHT_FP8_BLOCK] = &ISA(tsr_cpu_format_fp8_block),
    [TSR_WEIGHT_NVFP4] = &ISA(tsr_cpu_format_nvfp4),
};

const tsr_cpu_format *ISA(tsr_cpu_format_of)(const tsr_linear *linear)
{
    return tsr_linear_meets_fp4(linear) ? &ISA(tsr_cpu_format_nvfp4_fp4)
                                        : ISA(tsr_cpu_formats)[linear->format];
}

tsr_status ISA(tsr_cpu_load_f32_scales)(const tsr_linear *linear, const tsr_linear_rows *rows,
                                        void *to)
{
    const tsr_scale_shape shape = tsr_scale_shape_of(linear->format, linear->out, linear->in);
    const size_t columns = (size_t)shape.columns;
    const size_t count = (size_t)rows->count * columns;

    if (ISA(tsr_cpu_has_nonfinite)(rows->bytes, count))
        return TSR_ERR_CHECKPOINT;
    memcpy((float *)to + (size_t)rows->first * columns, rows->bytes, count * sizeof(float));
    return TSR_OK;
}

tsr_status ISA(tsr_cpu_load_e4m3)(const tsr_linear *linear, const tsr_linear_rows *rows, void *to)
{
    const tile_rows tiles = {
        .to = to,
        .from = rows->bytes,
        .units = (size_t)linear->in / LANES,
        .out = linear->out,
        .first = rows->first,
        .count = rows->count,
    };

    if (ISA(tsr_cpu_has_e4m3_nan)(rows->bytes, (uint64_t)rows->count * (uint64_t)linear->in))
        return TSR_ERR_CHECKPOINT;
    tiles_copy(&tiles, TSR_CPU_TILE, LANES);
    return TSR_OK;
}

bool ISA(tsr_cpu_has_e4m3_nan)(const uint8_t *codes, uint64_t count)
{
    uint32_t found = 0;

    for (uint64_t i = 0; i < count; i++)
        found |= (codes[i] & 0x7fU) == 0x7fU;
    return found != 0;
}

bool ISA(tsr_cpu_has_nonfinite)(const float *x, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!isfinite(x[i]))
            return true;
    }
    return false;
}
