/*
 * The CPU device: opening it, and its memory.
 */
#include "kernels/cpu/device_cpu.h"

#include "kernels/compose.h"
#include "kernels/cpu/bandwidth_cpu.h"
#include "kernels/cpu/load_cpu.h"
#include "kernels/cpu/stream_cpu.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <inttypes.h>
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
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
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
    .await = tsr_await_cpu,
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
    .place_linear = tsr_place_linear_cpu,
    .row_step = tsr_row_step_cpu,
    .load_rows = tsr_load_rows_cpu,
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
                isa == TSR_CPU_AVX512 ? "AVX-512 (F, BW, VL, DQ, VNNI)" : "AVX2 with FMA and F16C");
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
    cpu->base.loaders = threads;
    cpu->isa = table;
    (void)snprintf(cpu->base.name, sizeof(cpu->base.name), "cpu %s, %d thread%s", table->name,
                   (int)threads, threads == 1 ? "" : "s");
    *ret_device = &cpu->base;
    return TSR_OK;
}
