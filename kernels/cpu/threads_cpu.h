/*
 * A small team of threads: the caller and its workers run one task over static ranges, then meet.
 *
 * Whoever waits looks for a moment, offering its core to others between looks so that more threads
 * than cores do not burn each other's time, and then sleeps.
 */
#ifndef TSR_KERNELS_CPU_THREADS_CPU_H
#define TSR_KERNELS_CPU_THREADS_CPU_H

#include "runtime/base/status.h"

#include <stdint.h>

typedef struct tsr_threads tsr_threads;

/* One member's share; `thread` in 0..threads-1, 0 is the caller. */
typedef void (*tsr_thread_task)(const void *context, int32_t thread, int32_t threads);

/* `threads` members, the caller included; with 1 nothing is spawned.
 *
 * TSR_ERR_MEMORY  also when the system starts no more threads */
TSR_MUST_USE tsr_status tsr_threads_open(int32_t threads, tsr_threads **ret_threads);

/* NULL is allowed. */
void tsr_threads_close(tsr_threads *threads);

int32_t tsr_threads_count(const tsr_threads *threads);

/* Runs the task on min(ways, members) members and returns when all have finished. One caller at a
 * time. */
void tsr_threads_run(tsr_threads *threads, int64_t ways, tsr_thread_task task, const void *context);

/* Member `thread`'s share of 0..count-1. */
typedef struct tsr_thread_range {
    int64_t first;
    int64_t last; /* one past */
} tsr_thread_range;

static inline tsr_thread_range tsr_thread_share(int64_t count, int32_t thread, int32_t threads)
{
    const tsr_thread_range range = {count * thread / threads, count * (thread + 1) / threads};
    return range;
}

#endif
