/* A thread that sleeps beside the call and makes no MPI call itself. */
#include "comm/mpi_guard.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

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
    tsr_mpi_guarded guarded;
    tsr_roll_call *roll_call;
    int64_t until_ms;
    bool over;
};

/* How often questions are looked for; how long whoever does not speak waits for the launcher. */
enum { SLICE_MS = 50, PATIENCE_S = 4 };

/* Time is up. All at once is more than some launchers take. */
static void leave(const tsr_mpi_guard *g)
{
    const struct timespec a_while = {.tv_sec = PATIENCE_S};
    const tsr_roll roll = tsr_roll_call_ask(g->roll_call);

    if (!roll.first)
        (void)nanosleep(&a_while, NULL);
    tsr_log(TSR_LOG_ERROR, "%s: %s did not come within %" PRId32 " ms", g->guarded.what, roll.text,
            g->guarded.limit_ms);
    _exit(tsr_status_exit_code(g->guarded.cause));
}

static void *watch(void *guard)
{
    tsr_mpi_guard *g = guard;

    (void)pthread_mutex_lock(&g->lock);
    while (!g->over && tsr_clock_ms() < g->until_ms) {
        const int64_t left = g->until_ms - tsr_clock_ms();
        const struct timespec until =
            tsr_clock_deadline(left < SLICE_MS ? (int32_t)left : SLICE_MS);
        (void)pthread_cond_timedwait(&g->returned, &g->lock, &until);
        tsr_roll_call_answer(g->roll_call);
    }
    const bool over = g->over;
    (void)pthread_mutex_unlock(&g->lock);
    if (!over)
        leave(g);
    return NULL;
}

tsr_status tsr_mpi_guard_start(const tsr_mpi_guarded *guarded, tsr_roll_call *roll_call,
                               tsr_mpi_guard **ret_guard)
{
    tsr_mpi_guard *g = calloc(1, sizeof(*g));
    if (g == NULL)
        return TSR_ERR_MEMORY;
    g->guarded = *guarded;
    g->roll_call = roll_call;
    g->until_ms = tsr_clock_ms() + guarded->limit_ms;
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
    tsr_log(TSR_LOG_ERROR, "%s: no thread starts to watch over it", guarded->what);
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
