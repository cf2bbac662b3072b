/*
 * One thread, a ring of slots, one lock. After a failure the reader stops; its slot carries the
 * reason. Once it has been told to stop it touches nothing but its own struct.
 */
#include "runtime/model/read_ahead.h"

#include "runtime/base/clock.h"
#include "runtime/base/ending.h"
#include "runtime/base/log.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct slot {
    tsr_stretch_bytes content;
    tsr_status status;
    bool full;
} slot;

/* How often a wait looks whether the process was asked to end. */
enum { SLICE_MS = 50 };

struct tsr_read_ahead {
    const tsr_reading *reading;
    tsr_load_sources *sources;
    slot *slots;  /* [slots] */
    size_t taken; /* stretches the caller has asked for */
    bool stop;
    bool ended;   /* the thread is past its last read */
    bool overdue; /* a stretch did not come in time */
    pthread_mutex_t lock;
    pthread_cond_t moved; /* a slot became full or empty, stop or ended was set */
    pthread_t thread;
};

static bool wait_for_room(tsr_read_ahead *r, const slot *of)
{
    (void)pthread_mutex_lock(&r->lock);
    while (of->full && !r->stop)
        (void)pthread_cond_wait(&r->moved, &r->lock);
    const bool go_on = !r->stop;
    (void)pthread_mutex_unlock(&r->lock);
    return go_on;
}

/* False once the reader is to stop: what it was given may be gone. */
static bool hand_over(tsr_read_ahead *r, slot *of, tsr_status status)
{
    (void)pthread_mutex_lock(&r->lock);
    of->status = status;
    of->full = true;
    const bool go_on = !r->stop;
    (void)pthread_cond_broadcast(&r->moved);
    (void)pthread_mutex_unlock(&r->lock);
    return go_on;
}

static void *read_all(void *reader)
{
    tsr_read_ahead *r = reader;
    const size_t slots = (size_t)r->reading->slots;
    const size_t count = r->reading->stretch_count;
    tsr_status st = TSR_OK;
    bool go_on = true;
    for (size_t i = 0; go_on && st == TSR_OK && i < count; i++) {
        slot *next = &r->slots[i % slots];
        go_on = wait_for_room(r, next);
        if (go_on) {
            /* The slot belongs to the reader for the moment: no lock is held. */
            st = tsr_load_sources_read(r->sources, &r->reading->stretches[i],
                                       r->reading->ring + i % slots * r->reading->slot_bytes,
                                       &next->content);
            go_on = hand_over(r, next, st);
        }
    }
    (void)pthread_mutex_lock(&r->lock);
    r->ended = true;
    (void)pthread_cond_broadcast(&r->moved);
    (void)pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void free_reader(tsr_read_ahead *r)
{
    tsr_load_sources_close(r->sources);
    free(r->slots);
    free(r);
}

static tsr_read_ahead *make_reader(const tsr_reading *reading)
{
    tsr_read_ahead *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    r->reading = reading;
    r->slots = calloc((size_t)reading->slots, sizeof(*r->slots));
    if (r->slots == NULL || tsr_load_sources_open(reading->folder, reading->files, reading->marks,
                                                  reading->file_count, &r->sources) != TSR_OK) {
        free_reader(r);
        return NULL;
    }
    return r;
}

tsr_status tsr_read_ahead_open(const tsr_reading *reading, tsr_read_ahead **ret)
{
    tsr_read_ahead *r = make_reader(reading);
    if (r == NULL)
        return TSR_ERR_MEMORY;
    if (pthread_mutex_init(&r->lock, NULL) != 0)
        goto undo_reader;
    if (!tsr_clock_condition(&r->moved))
        goto undo_lock;
    if (pthread_create(&r->thread, NULL, read_all, r) != 0)
        goto undo_moved;
    *ret = r;
    return TSR_OK;

undo_moved:
    (void)pthread_cond_destroy(&r->moved);
undo_lock:
    (void)pthread_mutex_destroy(&r->lock);
undo_reader:
    free_reader(r);
    tsr_log(TSR_LOG_ERROR, "cannot start the thread that reads the weights: raise the limit on "
                           "threads of this process");
    return TSR_ERR_MEMORY;
}

tsr_status tsr_read_ahead_next(tsr_read_ahead *reader, tsr_stretch_bytes *ret_bytes)
{
    const size_t slots = (size_t)reader->reading->slots;
    const int64_t until = tsr_clock_ms() + reader->reading->deadline_ms;
    tsr_status st = TSR_OK;

    (void)pthread_mutex_lock(&reader->lock);
    if (reader->taken > 0)
        reader->slots[(reader->taken - 1) % slots].full = false;
    (void)pthread_cond_broadcast(&reader->moved);

    const slot *next = &reader->slots[reader->taken % slots];
    while (!next->full && st == TSR_OK) {
        const struct timespec a_while = tsr_clock_deadline(SLICE_MS);
        (void)pthread_cond_timedwait(&reader->moved, &reader->lock, &a_while);
        st = tsr_clock_ms() < until ? tsr_ending_status() : TSR_ERR_TIMEOUT;
    }
    if (next->full) {
        reader->taken++;
        *ret_bytes = next->content;
        st = next->status;
    } else {
        reader->overdue = true;
    }
    (void)pthread_mutex_unlock(&reader->lock);
    return st;
}

bool tsr_read_ahead_close(tsr_read_ahead *reader)
{
    int late = 0;
    if (reader == NULL)
        return true;
    const struct timespec until = tsr_clock_deadline(reader->reading->deadline_ms);
    (void)pthread_mutex_lock(&reader->lock);
    reader->stop = true;
    (void)pthread_cond_broadcast(&reader->moved);
    while (!reader->ended && !reader->overdue && late == 0)
        late = pthread_cond_timedwait(&reader->moved, &reader->lock, &until);
    const bool ended = reader->ended;
    (void)pthread_mutex_unlock(&reader->lock);

    if (!ended) {
        (void)pthread_detach(reader->thread);
        return false;
    }
    (void)pthread_join(reader->thread, NULL);
    (void)pthread_cond_destroy(&reader->moved);
    (void)pthread_mutex_destroy(&reader->lock);
    free_reader(reader);
    return true;
}
