/*
 * The team of threads.
 *
 *   run      publish the task, epoch + 1, wake sleepers ──► own share ──► wait until left == 0
 *   worker   wait for a new epoch ──► own share ──► left - 1, the last one wakes the caller
 */
#include "kernels/cpu/threads_cpu.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { SPINS_LEAST = 16, SPINS_MOST = 8192 };

typedef struct worker {
    tsr_threads *team;
    pthread_t thread;
    int32_t index;
} worker;

struct tsr_threads {
    int32_t count;   /* members, the caller included */
    int32_t started; /* workers */
    atomic_uint epoch;
    atomic_int left; /* workers that have not finished the task */
    atomic_bool stop;
    int caller_spins;
    pthread_mutex_t lock;
    pthread_cond_t task_came;
    pthread_cond_t all_done;
    tsr_thread_task task;
    const void *context;
    int32_t ways;
    worker worker[];
};

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Longer next time when it paid, shorter when it did not. */
static int adapted(int spins, bool paid)
{
    if (paid)
        return spins < SPINS_MOST ? spins * 2 : SPINS_MOST;
    return spins > SPINS_LEAST ? spins / 2 : SPINS_LEAST;
}

static bool spin_for_task(tsr_threads *team, unsigned seen, int spins)
{
    for (int i = 0; i < spins; i++) {
        if (atomic_load_explicit(&team->epoch, memory_order_acquire) != seen)
            return true;
        pause_briefly();
    }
    return false;
}

static void sleep_for_task(tsr_threads *team, unsigned seen)
{
    pthread_mutex_lock(&team->lock);
    while (atomic_load_explicit(&team->epoch, memory_order_acquire) == seen)
        pthread_cond_wait(&team->task_came, &team->lock);
    pthread_mutex_unlock(&team->lock);
}

static void finish_share(tsr_threads *team)
{
    if (atomic_fetch_sub_explicit(&team->left, 1, memory_order_acq_rel) == 1) {
        pthread_mutex_lock(&team->lock);
        pthread_cond_signal(&team->all_done);
        pthread_mutex_unlock(&team->lock);
    }
}

static void *work(void *context)
{
    const worker *me = context;
    tsr_threads *team = me->team;
    unsigned seen = 0;
    int spins = SPINS_LEAST;

    for (;;) {
        const bool paid = spin_for_task(team, seen, spins);
        if (!paid)
            sleep_for_task(team, seen);
        spins = adapted(spins, paid);
        seen++;
        if (atomic_load_explicit(&team->stop, memory_order_relaxed))
            return NULL;
        if (me->index < team->ways)
            team->task(team->context, me->index, team->ways);
        finish_share(team);
    }
}

static void publish(tsr_threads *team)
{
    atomic_store_explicit(&team->left, team->started, memory_order_relaxed);
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add_explicit(&team->epoch, 1, memory_order_release);
    pthread_cond_broadcast(&team->task_came);
    pthread_mutex_unlock(&team->lock);
}

static void wait_for_all(tsr_threads *team)
{
    bool paid = false;

    for (int i = 0; i < team->caller_spins && !paid; i++) {
        paid = atomic_load_explicit(&team->left, memory_order_acquire) == 0;
        if (!paid)
            pause_briefly();
    }
    team->caller_spins = adapted(team->caller_spins, paid);

    /* Also when spinning paid: the last worker may still hold the lock. */
    pthread_mutex_lock(&team->lock);
    while (atomic_load_explicit(&team->left, memory_order_acquire) != 0)
        pthread_cond_wait(&team->all_done, &team->lock);
    pthread_mutex_unlock(&team->lock);
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
    threads->ways = (int32_t)ways;
    publish(threads);
    task(context, 0, threads->ways);
    wait_for_all(threads);
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
        *w = (worker){.team = team, .index = team->started + 1};
        started = pthread_create(&w->thread, NULL, work, w) == 0;
        team->started += started ? 1 : 0;
    }
    return pthread_sigmask(SIG_SETMASK, &before, NULL) == 0 && started;
}

tsr_status tsr_threads_open(int32_t threads, tsr_threads **ret_threads)
{
    const size_t workers = (size_t)(threads - 1);
    tsr_threads *team = calloc(1, sizeof(*team) + workers * sizeof(team->worker[0]));

    if (team == NULL)
        return TSR_ERR_MEMORY;
    team->count = threads;
    team->caller_spins = SPINS_LEAST;
    if (pthread_mutex_init(&team->lock, NULL) != 0)
        goto undo_alloc;
    if (pthread_cond_init(&team->task_came, NULL) != 0)
        goto undo_lock;
    if (pthread_cond_init(&team->all_done, NULL) != 0)
        goto undo_task_came;
    if (!start_workers(team)) {
        tsr_threads_close(team);
        return TSR_ERR_MEMORY;
    }
    *ret_threads = team;
    return TSR_OK;

undo_task_came:
    pthread_cond_destroy(&team->task_came);
undo_lock:
    pthread_mutex_destroy(&team->lock);
undo_alloc:
    free(team);
    return TSR_ERR_MEMORY;
}

void tsr_threads_close(tsr_threads *threads)
{
    if (threads == NULL)
        return;
    atomic_store_explicit(&threads->stop, true, memory_order_relaxed);
    publish(threads);
    for (int32_t i = 0; i < threads->started; i++)
        pthread_join(threads->worker[i].thread, NULL);
    pthread_cond_destroy(&threads->all_done);
    pthread_cond_destroy(&threads->task_came);
    pthread_mutex_destroy(&threads->lock);
    free(threads);
}
