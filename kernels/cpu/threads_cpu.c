/*
 * The team of threads.
 *
 *   run      publish the task, the next call ──► own share ──► wait until nobody is left
 *   worker   wait for another call ──► own share, if it has one ──► left - 1
 *
 * Whoever waits looks again and again for a while, and then sleeps. Whoever changes what another
 * waits for looks whether that one sleeps, and only then takes the lock: both first say what they
 * do and then look at what the other has said, so that at least one of them sees it.
 */
#include "kernels/cpu/threads_cpu.h"

#include "runtime/base/clock.h"
#include "runtime/base/sizes.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* Sleeping costs some 50 microseconds until one runs again, more than most waits within a step
 * take. The core is offered to others after some looks, who may be the ones that are waited for. */
enum { LOOKS = 64, PATIENCE_NS = 200000 };

/* A call is its number times this, and its ways. */
enum { WAYS = 4096 };

/* Where one thread sleeps. */
typedef struct bed {
    atomic_bool is_taken;
    pthread_cond_t woken;
} bed;

#define EMPTY_BED                                                                                  \
    {                                                                                              \
        .woken = PTHREAD_COND_INITIALIZER                                                          \
    }

typedef struct worker {
    tsr_threads *team;
    pthread_t thread;
    int32_t index;
    bed bed;
} worker;

/* What is changed often has lines of its own. */
struct tsr_threads {
    int32_t count;   /* members, the caller included */
    int32_t started; /* workers */
    tsr_thread_task task;
    const void *context;
    pthread_mutex_t lock;                       /* of all beds */
    bed bed;                                    /* the caller's */
    _Alignas(TSR_ALIGNMENT) atomic_ullong call; /* its number and ways; no ways: the end */
    _Alignas(TSR_ALIGNMENT) atomic_ullong left; /* workers that have not finished their share */
    _Alignas(TSR_ALIGNMENT) worker worker[];
};

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool becomes_another_soon(const atomic_ullong *number, unsigned long long old)
{
    const int64_t began = tsr_clock_ns();

    do {
        for (int i = 0; i < LOOKS; i++) {
            if (atomic_load(number) != old)
                return true;
            pause_briefly();
        }
        (void)sched_yield();
    } while (tsr_clock_ns() - began < PATIENCE_NS);
    return false;
}

/* Returns the number as soon as it is not `old`. */
static unsigned long long wait_for_another(tsr_threads *team, bed *b, const atomic_ullong *number,
                                           unsigned long long old)
{
    if (!becomes_another_soon(number, old)) {
        pthread_mutex_lock(&team->lock);
        atomic_store(&b->is_taken, true);
        while (atomic_load(number) == old)
            pthread_cond_wait(&b->woken, &team->lock);
        atomic_store(&b->is_taken, false);
        pthread_mutex_unlock(&team->lock);
    }
    return atomic_load(number);
}

/* After the change. */
static void wake(tsr_threads *team, bed *b)
{
    if (!atomic_load(&b->is_taken))
        return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_signal(&b->woken);
    pthread_mutex_unlock(&team->lock);
}

static void *work(void *context)
{
    worker *me = context;
    tsr_threads *team = me->team;
    unsigned long long call = 0;

    for (;;) {
        call = wait_for_another(team, &me->bed, &team->call, call);
        const int32_t ways = (int32_t)(call % WAYS);
        if (ways == 0)
            return NULL;
        if (me->index >= ways)
            continue;
        team->task(team->context, me->index, ways);
        if (atomic_fetch_sub(&team->left, 1) == 1)
            wake(team, &team->bed);
    }
}

/* Begins a call for members 1 .. ways - 1, or with no ways the end of all. */
static void begin_call(tsr_threads *team, int32_t ways)
{
    const int32_t called = ways > 0 ? ways - 1 : team->started;
    const unsigned long long number = atomic_load(&team->call) / WAYS + 1;

    atomic_store_explicit(&team->left, (unsigned)called, memory_order_relaxed);
    atomic_store(&team->call, number * WAYS + (unsigned)ways);
    for (int32_t i = 0; i < called; i++)
        wake(team, &team->worker[i].bed);
}

void tsr_threads_run(tsr_threads *threads, int64_t ways, tsr_thread_task task, const void *context)
{
    if (ways > threads->count)
        ways = threads->count;
    if (ways <= 1) {
        task(context, 0, 1);
        return;
    }
    threads->task = task;
    threads->context = context;
    begin_call(threads, (int32_t)ways);
    task(context, 0, (int32_t)ways);

    unsigned long long left = atomic_load(&threads->left);
    while (left != 0)
        left = wait_for_another(threads, &threads->bed, &threads->left, left);
}

int32_t tsr_threads_count(const tsr_threads *threads)
{
    return threads->count;
}

/* Signals are for the threads of the program, not for these. */
static bool start_workers(tsr_threads *team)
{
    sigset_t all;
    sigset_t before;
    bool started = true;

    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
        return false;
    while (started && team->started < team->count - 1) {
        worker *w = &team->worker[team->started];
        *w = (worker){.team = team, .index = team->started + 1, .bed = EMPTY_BED};
        started = pthread_create(&w->thread, NULL, work, w) == 0;
        team->started += started ? 1 : 0;
    }
    return pthread_sigmask(SIG_SETMASK, &before, NULL) == 0 && started;
}

tsr_status tsr_threads_open(int32_t threads, tsr_threads **ret_threads)
{
    const size_t workers = (size_t)(threads - 1);
    const size_t bytes = sizeof(tsr_threads) + workers * sizeof(worker);
    tsr_threads *team = aligned_alloc(TSR_ALIGNMENT, (size_t)tsr_aligned(bytes, TSR_ALIGNMENT));

    if (team == NULL)
        return TSR_ERR_MEMORY;
    *team = (tsr_threads){.count = threads, .lock = PTHREAD_MUTEX_INITIALIZER, .bed = EMPTY_BED};
    if (!start_workers(team)) {
        tsr_threads_close(team);
        return TSR_ERR_MEMORY;
    }
    *ret_threads = team;
    return TSR_OK;
}

void tsr_threads_close(tsr_threads *threads)
{
    if (threads == NULL)
        return;
    begin_call(threads, 0);
    for (int32_t i = 0; i < threads->started; i++)
        pthread_join(threads->worker[i].thread, NULL);
    free(threads);
}
