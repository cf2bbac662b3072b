/*
 * Weights in F16: kept as the file has them, row-major.
 */
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/lanes.h"

typedef uint16_t element;
typedef uint16_t element_bits;

enum { ELEMENT_EXPONENT = 0x7c00 };

TSR_INLINE lanes elements_next(const element *at)
{
    return lanes_from_f16(at);
}

#include "kernels/cpu/format/unquantized_body.h"

const tsr_cpu_format ISA(tsr_cpu_format_f16) = {
    .unit = 1.0F,
    .weight_bytes = tsr_weight_bytes,
    .scale_bytes = tsr_scale_bytes,
    .row_step = 1,
    .tile = TSR_CPU_TILE,
    .stream_most = STREAM_MOST,
    .load = load_plain_rows,
    .load_scales = ISA(tsr_cpu_load_f32_scales),
    .decode = decode,
    .stream = stream,
    .row_scale = row_scale,
};
