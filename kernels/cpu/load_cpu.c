/*
 * Weights of the CPU device: where their parts lie, and how they get there.
 *
 * A loaded linear, each part on 64 bytes:
 *
 *   | weight, by its format | scales, by its format | bias [out] f32 | pre_quant_scale [in] f32 |
 */
#define _GNU_SOURCE /* madvise */
#include "kernels/cpu/load_cpu.h"

#include "kernels/cpu/format/format_cpu.h"
#include "runtime/base/sizes.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t tsr_cpu_linear_bytes(tsr_weight_format format, int32_t out, int32_t in, bool bias,
                              bool pre_quant_scale)
{
    const tsr_cpu_format *f = tsr_cpu_isa_table_plain.format[format];

    return tsr_aligned(f->weight_bytes(format, out, in), TSR_ALIGNMENT) +
           tsr_aligned(f->scale_bytes(format, out, in), TSR_ALIGNMENT) +
           (bias ? tsr_aligned((uint64_t)out * sizeof(float), TSR_ALIGNMENT) : 0) +
           (pre_quant_scale ? tsr_aligned((uint64_t)in * sizeof(float), TSR_ALIGNMENT) : 0);
}

/* Where the parts of a linear begin, from the front of its memory. */
typedef struct linear_layout {
    uint64_t scales;
    uint64_t bias;
    uint64_t pre_quant_scale;
} linear_layout;

static linear_layout layout_of(tsr_weight_format format, int32_t out, int32_t in, bool bias)
{
    const tsr_cpu_format *f = tsr_cpu_isa_table_plain.format[format];
    linear_layout at;

    at.scales = tsr_aligned(f->weight_bytes(format, out, in), TSR_ALIGNMENT);
    at.bias = at.scales + tsr_aligned(f->scale_bytes(format, out, in), TSR_ALIGNMENT);
    at.pre_quant_scale =
        at.bias + (bias ? tsr_aligned((uint64_t)out * sizeof(float), TSR_ALIGNMENT) : 0);
    return at;
}

tsr_status tsr_place_linear_cpu(tsr_device *device, const tsr_linear_spec *spec, void *memory,
                                tsr_linear *ret_linear)
{
    const tsr_cpu_format *f = tsr_cpu(device)->isa->format[spec->format];
    const linear_layout at = layout_of(spec->format, spec->out, spec->in, spec->bias);
    const bool scales = f->scale_bytes(spec->format, spec->out, spec->in) > 0;
    unsigned char *front = memory;

    if (!isfinite(spec->weight_scale) || !isfinite(spec->input_scale))
        return TSR_ERR_CHECKPOINT;
    *ret_linear = (tsr_linear){
        .format = spec->format,
        .activation = spec->activation,
        .out = spec->out,
        .in = spec->in,
        .weight = front,
        .scales = scales ? front + at.scales : NULL,
        .bias = spec->bias ? (float *)(void *)(front + at.bias) : NULL,
        .pre_quant_scale =
            spec->pre_quant_scale ? (float *)(void *)(front + at.pre_quant_scale) : NULL,
        .weight_scale = spec->weight_scale,
        .input_scale = spec->input_scale,
    };
    return TSR_OK;
}

int32_t tsr_row_step_cpu(tsr_weight_format format)
{
    return tsr_cpu_isa_table_plain.format[format]->row_step;
}

static tsr_status copy_finite(const tsr_linear_rows *rows, void *to)
{
    const float *from = rows->bytes;

    for (int32_t i = 0; i < rows->count; i++) {
        if (!isfinite(from[i]))
            return TSR_ERR_CHECKPOINT;
    }
    memcpy((float *)to + rows->first, from, (size_t)rows->count * sizeof(*from));
    return TSR_OK;
}

/* Pages of bytes begin .. end, which are about to be written whole: made in one call, not in a fault
 * each. A kernel that cannot do it leaves them to the faults. */
static void make_pages(unsigned char *memory, uint64_t begin, uint64_t end)
{
#ifdef MADV_POPULATE_WRITE
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t lead = (uintptr_t)memory % page;
    const uint64_t first = tsr_aligned(lead + begin, page);
    const uint64_t last = (lead + end) / page * page;

    if (first < last)
        (void)madvise(memory + (first - lead), (size_t)(last - first), MADV_POPULATE_WRITE);
#else
    (void)memory;
    (void)begin;
    (void)end;
#endif
}

/* The pages belong to whoever writes them first: the thread that has read the rows. */
static tsr_status load_weight(const tsr_cpu_format *f, const tsr_linear *linear,
                              const tsr_linear_rows *rows, unsigned char *to)
{
    const tsr_cpu_format *kept = tsr_cpu_isa_table_plain.format[linear->format];
    const uint64_t row_bytes = kept->weight_bytes(linear->format, 1, linear->in);

    make_pages(to, (uint64_t)rows->first * row_bytes,
               (uint64_t)(rows->first + rows->count) * row_bytes);
    return f->load(linear, rows, to);
}

tsr_status tsr_load_rows_cpu(tsr_device *device, const tsr_linear *linear, void *memory,
                             const tsr_linear_rows *rows, tsr_stream s)
{
    const tsr_cpu_format *f = tsr_cpu(device)->isa->format_of(linear);
    const linear_layout at =
        layout_of(linear->format, linear->out, linear->in, linear->bias != NULL);
    unsigned char *front = memory;

    (void)s;
    switch (rows->part) {
    case TSR_LINEAR_SCALES:
        return f->load_scales(linear, rows, front + at.scales);
    case TSR_LINEAR_BIAS:
        return copy_finite(rows, front + at.bias);
    case TSR_LINEAR_PRE_QUANT_SCALE:
        return copy_finite(rows, front + at.pre_quant_scale);
    case TSR_LINEAR_WEIGHT:
    case TSR_LINEAR_PARTS:
        break;
    }
    return load_weight(f, linear, rows, front);
}
