/* One thread, two buffers, one lock. After a failure the reader stops; its buffer carries the
 * reason. */
#include "runtime/model/read_ahead.h"

#include "runtime/base/file.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum { BUFFERS = 2, ALIGN = 64 };

typedef struct buffer {
    unsigned char *memory;
    size_t capacity;
    tsr_stretch_bytes content;
    tsr_status status;
    bool full;
} buffer;

struct tsr_read_ahead {
    const tsr_reading *reading;
    tsr_file *files; /* [file_count] descriptor -1 until it is needed */
    buffer buffers[BUFFERS];
    size_t taken; /* stretches the caller has asked for */
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t moved; /* a buffer became full or empty, or stop was set */
    pthread_t thread;
};

/* Opens a file that bears its mark; `content` is told why there is none. */
static tsr_status open_file(tsr_read_ahead *r, int32_t number, tsr_stretch_bytes *content)
{
    tsr_file *file = &r->files[number];
    if (file->descriptor >= 0)
        return TSR_OK;

    char path[PATH_MAX];
    if (tsr_path_join(r->reading->folder, r->reading->files[number], sizeof(path), path) !=
        TSR_OK) {
        content->error = ENAMETOOLONG;
        return TSR_ERR_CHECKPOINT;
    }
    bool bears = false;
    errno = 0;
    tsr_status st = tsr_file_open(path, file);
    if (st == TSR_OK)
        st = tsr_file_bears(file, &r->reading->marks[number], &bears);
    if (st != TSR_OK)
        content->error = errno != 0 ? errno : EIO;
    else
        content->file_bytes = file->bytes;
    return st == TSR_OK && !bears ? TSR_ERR_CHECKPOINT : st;
}

/* Room for `bytes`, aligned; what was in the buffer is gone. */
static bool make_room(buffer *b, size_t bytes)
{
    if (bytes <= b->capacity)
        return true;
    free(b->memory);
    b->capacity = 0;
    size_t rounded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    b->memory = aligned_alloc(ALIGN, rounded);
    if (b->memory == NULL)
        return false;
    b->capacity = rounded;
    return true;
}

/* Fills a buffer that belongs to the reader for the moment: no lock is held. */
static tsr_status fill(tsr_read_ahead *r, buffer *b, const tsr_stretch *s)
{
    b->content = (tsr_stretch_bytes){0};
    tsr_status st = open_file(r, s->file, &b->content);
    if (st != TSR_OK)
        return st;

    size_t lead = (size_t)(s->begin % ALIGN);
    size_t bytes = (size_t)(s->end - s->begin);
    if (!make_room(b, lead + bytes))
        return TSR_ERR_MEMORY;
    b->content.bytes = b->memory + lead;

    errno = 0;
    st = tsr_file_read(&r->files[s->file], s->begin, bytes, b->memory + lead);
    if (st != TSR_OK)
        b->content.error = errno != 0 ? errno : EIO;
    return st;
}

static bool wait_for_room(tsr_read_ahead *r, buffer *b)
{
    (void)pthread_mutex_lock(&r->lock);
    while (b->full && !r->stop)
        (void)pthread_cond_wait(&r->moved, &r->lock);
    bool go_on = !r->stop;
    (void)pthread_mutex_unlock(&r->lock);
    return go_on;
}

static void hand_over(tsr_read_ahead *r, buffer *b, tsr_status status)
{
    (void)pthread_mutex_lock(&r->lock);
    b->status = status;
    b->full = true;
    (void)pthread_cond_broadcast(&r->moved);
    (void)pthread_mutex_unlock(&r->lock);
}

static void *read_all(void *reader)
{
    tsr_read_ahead *r = reader;
    tsr_status st = TSR_OK;
    for (size_t i = 0; st == TSR_OK && i < r->reading->stretch_count; i++) {
        buffer *b = &r->buffers[i % BUFFERS];
        if (!wait_for_room(r, b))
            break;
        st = fill(r, b, &r->reading->stretches[i]);
        hand_over(r, b, st);
    }
    return NULL;
}

static tsr_read_ahead *make_reader(const tsr_reading *reading)
{
    tsr_read_ahead *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return NULL;
    r->reading = reading;
    r->files = calloc((size_t)reading->file_count + 1, sizeof(*r->files));
    if (r->files == NULL) {
        free(r);
        return NULL;
    }
    for (int32_t f = 0; f < reading->file_count; f++)
        r->files[f].descriptor = -1;
    return r;
}

static void free_reader(tsr_read_ahead *r)
{
    for (int32_t f = 0; f < r->reading->file_count; f++) {
        if (r->files[f].descriptor >= 0)
            tsr_file_close(&r->files[f]);
    }
    for (int i = 0; i < BUFFERS; i++)
        free(r->buffers[i].memory);
    free(r->files);
    free(r);
}

tsr_status tsr_read_ahead_open(const tsr_reading *reading, tsr_read_ahead **ret)
{
    tsr_read_ahead *r = make_reader(reading);
    if (r == NULL)
        return TSR_ERR_MEMORY;
    if (pthread_mutex_init(&r->lock, NULL) != 0)
        goto undo_reader;
    if (pthread_cond_init(&r->moved, NULL) != 0)
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
    (void)pthread_mutex_lock(&reader->lock);
    if (reader->taken > 0)
        reader->buffers[(reader->taken - 1) % BUFFERS].full = false;
    (void)pthread_cond_broadcast(&reader->moved);

    buffer *b = &reader->buffers[reader->taken % BUFFERS];
    while (!b->full)
        (void)pthread_cond_wait(&reader->moved, &reader->lock);
    reader->taken++;
    *ret_bytes = b->content;
    tsr_status st = b->status;
    (void)pthread_mutex_unlock(&reader->lock);
    return st;
}

void tsr_read_ahead_close(tsr_read_ahead *reader)
{
    if (reader == NULL)
        return;
    (void)pthread_mutex_lock(&reader->lock);
    reader->stop = true;
    (void)pthread_cond_broadcast(&reader->moved);
    (void)pthread_mutex_unlock(&reader->lock);

    (void)pthread_join(reader->thread, NULL);
    (void)pthread_cond_destroy(&reader->moved);
    (void)pthread_mutex_destroy(&reader->lock);
    free_reader(reader);
}
