/*
 * The CPU device: opening it, its memory, and the layout of weights.
 *
 * A loaded linear, each part on 64 bytes:
 *
 *   | weight, by its format | scales, by its format | bias [out] f32 | pre_quant_scale [in] f32 |
 */
#include "kernels/cpu/device_cpu.h"

#include "kernels/compose.h"
#include "kernels/cpu/bandwidth_cpu.h"
#include "kernels/cpu/format/format_cpu.h"
#include "kernels/cpu/stream_cpu.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef TSR_X86
#include <cpuid.h>
#endif

enum { MOST_THREADS = 1024 };

#ifdef TSR_X86
/* By cpuid: not every compiler's __builtin_cpu_supports knows the name. */
static bool has_f16c(void)
{
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;

    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

/* NULL where the processor lacks it. */
static const tsr_cpu_isa_table *choose_isa(tsr_cpu_isa isa)
{
#ifdef TSR_X86
    if ((isa == TSR_CPU_AUTO || isa == TSR_CPU_AVX512) && has_avx512())
        return &tsr_cpu_isa_table_avx512;
    if ((isa == TSR_CPU_AUTO || isa == TSR_CPU_AVX2) && has_avx2())
        return &tsr_cpu_isa_table_avx2;
#endif
    return isa == TSR_CPU_AUTO || isa == TSR_CPU_PLAIN ? &tsr_cpu_isa_table_plain : NULL;
}

/*
 * From calloc, which gives large pieces as pages that nobody has touched: they are zero without
 * being written, and belong to the thread that writes them first. What calloc gave stands in front:
 *
 *   | up to 64 bytes, the last of them its address | aligned: size bytes |
 */
static tsr_status alloc_cpu(tsr_device *device, size_t bytes, void **ret_memory)
{
    const size_t size = (size_t)tsr_aligned(tsr_larger_size(bytes, 1), TSR_ALIGNMENT);

    (void)device;
    if (size < bytes || size > SIZE_MAX - TSR_ALIGNMENT)
        return TSR_ERR_MEMORY;
    unsigned char *given = calloc(1, size + TSR_ALIGNMENT);
    if (given == NULL)
        return TSR_ERR_MEMORY;
    unsigned char *memory = given + (TSR_ALIGNMENT - (uintptr_t)given % TSR_ALIGNMENT);
    memcpy(memory - sizeof(given), &given, sizeof(given));
    *ret_memory = memory;
    return TSR_OK;
}

static void release_cpu(tsr_device *device, void *memory)
{
    unsigned char *given = NULL;

    (void)device;
    if (memory != NULL)
        memcpy(&given, (unsigned char *)memory - sizeof(given), sizeof(given));
    free(given);
}

/* One order: the caller's. */
static tsr_status copy_cpu(tsr_device *device, void *to, const void *from, size_t bytes,
                           tsr_stream s)
{
    (void)device;
    (void)s;
    memcpy(to, from, bytes);
    return TSR_OK;
}

static tsr_status reserve_cpu(tsr_device *device, const tsr_work_shape *shape)
{
    tsr_cpu_device *cpu = tsr_cpu(device);
    const uint64_t bytes = tsr_cpu_workspace_bytes(shape, tsr_threads_count(cpu->threads));
    const tsr_status st = alloc_cpu(device, (size_t)bytes, &cpu->memory);

    if (st != TSR_OK) {
        tsr_log(TSR_LOG_ERROR, "no memory for a workspace of %" PRIu64 " bytes", bytes);
        return st;
    }
    tsr_cpu_work_layout(shape, tsr_threads_count(cpu->threads), cpu->memory, &cpu->work);
    return TSR_OK;
}

uint64_t tsr_cpu_workspace_bytes(const tsr_work_shape *shape, int32_t threads)
{
    tsr_cpu_work unused;
    return tsr_cpu_work_layout(shape, threads, NULL, &unused);
}

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

static tsr_status place_linear_cpu(tsr_device *device, const tsr_linear_spec *spec, void *memory,
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

static int32_t row_step_cpu(tsr_weight_format format)
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

static tsr_status load_rows_cpu(tsr_device *device, const tsr_linear *linear, void *memory,
                                const tsr_linear_rows *rows, tsr_stream s)
{
    const tsr_cpu_format *f = tsr_cpu(device)->isa->format[linear->format];
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
    return f->load(linear, rows, front);
}

static void close_cpu(tsr_device *device)
{
    tsr_cpu_device *cpu = tsr_cpu(device);

    tsr_threads_close(cpu->threads);
    release_cpu(device, cpu->memory);
    free(cpu);
}

/* Memory of the host, which others count. */
static uint64_t memory_in_use_cpu(tsr_device *device)
{
    (void)device;
    return 0;
}

static const tsr_device_table table_cpu = {
    .activation_bytes = TSR_CPU_ACTIVATION_BYTES,
    .flights = 1,
    .close = close_cpu,
    .alloc = alloc_cpu,
    .release = release_cpu,
    .host_alloc = alloc_cpu,
    .host_release = release_cpu,
    .stream_open = tsr_stream_open_cpu,
    .stream_close = tsr_stream_close_cpu,
    .put = copy_cpu,
    .get = copy_cpu,
    .mark_open = tsr_mark_open_cpu,
    .mark_close = tsr_mark_close_cpu,
    .mark = tsr_mark_cpu,
    .passed = tsr_passed_cpu,
    .clock = tsr_clock_cpu,
    .record = tsr_record_cpu,
    .recorded = tsr_recorded_cpu,
    .replay = tsr_replay_cpu,
    .recording_close = tsr_recording_close_cpu,
    .fault = tsr_fault_cpu,
    .reserve = reserve_cpu,
    .memory_in_use = memory_in_use_cpu,
    .read_bandwidth = tsr_read_bandwidth_cpu,
    .linear_bytes = tsr_cpu_linear_bytes,
    .place_linear = place_linear_cpu,
    .row_step = row_step_cpu,
    .load_rows = load_rows_cpu,
};

static const tsr_block_table blocks_cpu = {
    .embed = tsr_compose_embed,
    .attention = tsr_compose_attention,
    .mlp = tsr_compose_mlp,
    .choose = tsr_compose_choose,
    .shared = tsr_compose_shared,
    .experts = tsr_compose_experts,
    .combine = tsr_compose_combine,
    .predict = tsr_compose_predict,
};

tsr_status tsr_device_open_cpu(int32_t threads, tsr_cpu_isa isa, tsr_device **ret_device)
{
    const tsr_cpu_isa_table *table = choose_isa(isa);

    if (threads < 1 || threads > MOST_THREADS) {
        tsr_log(TSR_LOG_ERROR, "a cpu device takes 1 to %d threads, not %d", (int)MOST_THREADS,
                (int)threads);
        return TSR_ERR_ARG;
    }
    if (table == NULL) {
        tsr_log(TSR_LOG_ERROR, "this processor has no %s; leave the instruction set to auto",
                isa == TSR_CPU_AVX512 ? "AVX-512 (F, BW, VL, DQ)" : "AVX2 with FMA and F16C");
        return TSR_ERR_DEVICE;
    }
    tsr_cpu_device *cpu = calloc(1, sizeof(*cpu));
    if (cpu == NULL)
        return TSR_ERR_MEMORY;
    const tsr_status st = tsr_threads_open(threads, &cpu->threads);
    if (st != TSR_OK) {
        free(cpu);
        return st;
    }
    cpu->base.table = &table_cpu;
    cpu->base.blocks = &blocks_cpu;
    cpu->base.ops = &table->ops;
    cpu->isa = table;
    (void)snprintf(cpu->base.name, sizeof(cpu->base.name), "cpu %s, %d thread%s", table->name,
                   (int)threads, threads == 1 ? "" : "s");
    *ret_device = &cpu->base;
    return TSR_OK;
}
