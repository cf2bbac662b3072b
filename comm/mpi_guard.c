/* A thread that sleeps beside the call and makes no MPI call itself. */
#include "comm/mpi_guard.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct tsr_mpi_guard {
    pthread_mutex_t lock;
    pthread_cond_t returned;
    pthread_t thread;
    const char *what;
    struct timespec until;
    int32_t limit_ms;
    tsr_status cause;
    bool over;
};

static void *watch(void *guard)
{
    tsr_mpi_guard *g = guard;
    bool in_time = true;

    (void)pthread_mutex_lock(&g->lock);
    while (!g->over && in_time)
        in_time = pthread_cond_timedwait(&g->returned, &g->lock, &g->until) != ETIMEDOUT;
    const bool over = g->over;
    (void)pthread_mutex_unlock(&g->lock);
    if (!over) {
        tsr_log(TSR_LOG_ERROR, "%s: not every rank came within %" PRId32 " ms", g->what,
                g->limit_ms);
        _exit(tsr_status_exit_code(g->cause));
    }
    return NULL;
}

tsr_status tsr_mpi_guard_start(const char *what, int32_t limit_ms, tsr_status cause,
                               tsr_mpi_guard **ret_guard)
{
    tsr_mpi_guard *g = calloc(1, sizeof(*g));
    if (g == NULL)
        return TSR_ERR_MEMORY;
    g->what = what;
    g->limit_ms = limit_ms;
    g->cause = cause;
    g->until = tsr_clock_deadline(limit_ms);
    if (pthread_mutex_init(&g->lock, NULL) != 0)
        goto undo_alloc;
    if (!tsr_clock_condition(&g->returned))
        goto undo_lock;
    if (pthread_create(&g->thread, NULL, watch, g) != 0)
        goto undo_condition;
    *ret_guard = g;
    return TSR_OK;

undo_condition:
    (void)pthread_cond_destroy(&g->returned);
undo_lock:
    (void)pthread_mutex_destroy(&g->lock);
undo_alloc:
    free(g);
    tsr_log(TSR_LOG_ERROR, "%s: no thread starts to watch over it", what);
    return TSR_ERR_MEMORY;
}

void tsr_mpi_guard_stop(tsr_mpi_guard *guard)
{
    (void)pthread_mutex_lock(&guard->lock);
    guard->over = true;
    (void)pthread_cond_signal(&guard->returned);
    (void)pthread_mutex_unlock(&guard->lock);
    (void)pthread_join(guard->thread, NULL);
    (void)pthread_cond_destroy(&guard->returned);
    (void)pthread_mutex_destroy(&guard->lock);
    free(guard);
}
