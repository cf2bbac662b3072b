/*
 * Reading memory in order, each thread its own share, which it has also written, so that the pages
 * lie where it runs. The words are added up: a sum that is used cannot be left out.
 */
#include "kernels/cpu/bandwidth_cpu.h"

#include "kernels/cpu/device_cpu.h"
#include "runtime/base/clock.h"
#include "runtime/base/machine.h"
#include "runtime/base/sizes.h"

#include <stdlib.h>

enum { PASSES = 7, MEDIAN = PASSES / 2, LANES = 16, FREE_PARTS = 4, LEAST_BYTES = 1 << 20 };

typedef struct pass {
    uint64_t *words;
    uint64_t *sums; /* [threads] */
    int64_t pieces; /* of LANES words */
} pass;

static void write_share(const void *context, int32_t thread, int32_t threads)
{
    const pass *p = context;
    const tsr_thread_range mine = tsr_thread_share(p->pieces, thread, threads);

    for (int64_t i = mine.first * LANES; i < mine.last * LANES; i++)
        p->words[i] = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15U;
}

static void read_share(const void *context, int32_t thread, int32_t threads)
{
    const pass *p = context;
    const tsr_thread_range mine = tsr_thread_share(p->pieces, thread, threads);
    uint64_t sum[LANES] = {0};

    for (int64_t i = mine.first; i < mine.last; i++) {
        for (int lane = 0; lane < LANES; lane++)
            sum[lane] += p->words[i * LANES + lane];
    }
    for (int lane = 1; lane < LANES; lane++)
        sum[0] += sum[lane];
    p->sums[thread] = sum[0];
}

static int by_duration(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a;
    const int64_t y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The sums of two passes must agree, or something else was read. */
static tsr_status time_passes(tsr_threads *threads, const pass *p, double *ret_bytes_per_s)
{
    const int64_t bytes = p->pieces * LANES * (int64_t)sizeof(uint64_t);
    int64_t took[PASSES];
    uint64_t first = 0;

    tsr_threads_run(threads, p->pieces, write_share, p);
    for (int i = 0; i < PASSES; i++) {
        const int64_t start = tsr_clock_ns();
        tsr_threads_run(threads, p->pieces, read_share, p);
        took[i] = tsr_clock_ns() - start + 1; /* never 0 */
        uint64_t sum = 0;
        for (int32_t t = 0; t < tsr_threads_count(threads); t++)
            sum += p->sums[t];
        if (i > 0 && sum != first)
            return TSR_ERR_INTERNAL;
        first = sum;
    }
    qsort(took, PASSES, sizeof(took[0]), by_duration);
    *ret_bytes_per_s = (double)bytes * 1e9 / (double)took[MEDIAN];
    return TSR_OK;
}

tsr_status tsr_read_bandwidth_cpu(tsr_device *device, uint64_t bytes, double *ret_bytes_per_s)
{
    tsr_threads *threads = tsr_cpu(device)->threads;
    const uint64_t free_bytes = tsr_machine_memory("");
    const uint64_t most = free_bytes > 0 ? free_bytes / FREE_PARTS : bytes;
    const uint64_t size = tsr_larger_size(tsr_smaller_size(bytes, most), LEAST_BYTES);
    const pass p = {
        .words = malloc((size_t)size),
        .sums = calloc((size_t)tsr_threads_count(threads), sizeof(uint64_t)),
        .pieces = (int64_t)(size / (LANES * sizeof(uint64_t))),
    };
    tsr_status st = p.words != NULL && p.sums != NULL ? TSR_OK : TSR_ERR_MEMORY;

    if (st == TSR_OK)
        st = time_passes(threads, &p, ret_bytes_per_s);
    free(p.words);
    free(p.sums);
    return st;
}
