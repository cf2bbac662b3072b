/*
 * Threads take tensors in turn, whatever file they are of, and write each at its place; the system
 * call copies out of the pool, so that the bytes are touched once. The largest tensors, embedding
 * and head, come first.
 */
#include "runtime/synthetic/shard_files.h"

#include "runtime/base/ending.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/base/text_buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, FILE_MODE = 0644, LENGTH_BYTES = 8, NUMBERS = 1024, MOST_THREADS = 256 };

typedef struct shard {
    char path[PATH_BYTES];
    int descriptor;
    uint64_t header_bytes;
} shard;

typedef struct writer {
    const tsr_tensor_set *set;
    const tsr_random_pool *pool;
    uint64_t seed;
    shard *shards;
    pthread_mutex_t lock; /* of the next two */
    int32_t next;         /* tensor */
    tsr_status status;
} writer;

void tsr_shard_name(const tsr_tensor_set *set, int32_t file, char ret_name[TSR_SHARD_NAME_BYTES])
{
    (void)snprintf(ret_name, TSR_SHARD_NAME_BYTES, "model-%05d-of-%05d.safetensors", file + 1,
                   set->files);
}

static tsr_status write_at(const shard *s, uint64_t offset, const void *bytes, size_t count)
{
    const char *from = bytes;

    while (count > 0) {
        const ssize_t done = pwrite(s->descriptor, from, count, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            tsr_log(TSR_LOG_ERROR, "%s: cannot be written: %s", s->path, strerror(errno));
            return TSR_ERR_OUTPUT;
        }
        from += done;
        offset += (uint64_t)done;
        count -= (size_t)done;
    }
    return TSR_OK;
}

static tsr_status write_numbers(const shard *s, const tsr_synthetic_tensor *t, uint64_t at,
                                uint64_t *state)
{
    float numbers[NUMBERS];
    uint64_t left = t->bytes / sizeof(float);
    tsr_status st = TSR_OK;

    while (st == TSR_OK && left > 0) {
        const size_t count = (size_t)tsr_smaller_size(left, NUMBERS);
        for (size_t i = 0; i < count; i++)
            numbers[i] = tsr_random_near(t->centre, state);
        st = write_at(s, at, numbers, count * sizeof(float));
        at += count * sizeof(float);
        left -= count;
    }
    return st;
}

static tsr_status write_tensor(const writer *w, int32_t index)
{
    const tsr_synthetic_tensor *t = &w->set->tensors[index];
    const shard *s = &w->shards[t->file];
    uint64_t state = t->alike != 0 ? tsr_random_state(~w->seed, t->alike)
                                   : tsr_random_state(w->seed, (uint64_t)index);
    uint64_t at = s->header_bytes + t->offset;
    tsr_status st = TSR_OK;

    if (t->kind == TSR_RANDOM_F32)
        return write_numbers(s, t, at, &state);
    for (uint64_t left = t->bytes; st == TSR_OK && left > 0;) {
        const size_t bytes = (size_t)tsr_smaller_size(left, TSR_RANDOM_PIECE);
        st = tsr_ending_status();
        if (st == TSR_OK)
            st = write_at(s, at, tsr_random_piece(w->pool, t->kind, bytes, &state), bytes);
        at += bytes;
        left -= bytes;
    }
    return st;
}

static void *write_tensors(void *context)
{
    writer *w = context;
    tsr_status st = TSR_OK;

    for (bool more = true; more;) {
        (void)pthread_mutex_lock(&w->lock);
        if (w->status == TSR_OK)
            w->status = st;
        more = w->status == TSR_OK && w->next < w->set->count;
        const int32_t index = more ? w->next++ : 0;
        (void)pthread_mutex_unlock(&w->lock);
        if (more)
            st = write_tensor(w, index);
    }
    return NULL;
}

/* The caller is one of the threads; with fewer than asked for it takes longer. */
static void run_writers(writer *w, int32_t threads)
{
    pthread_t thread[MOST_THREADS];
    int32_t started = 0;

    while (started < tsr_smaller(threads, MOST_THREADS) - 1 &&
           pthread_create(&thread[started], NULL, write_tensors, w) == 0)
        started++;
    (void)write_tensors(w);
    for (int32_t i = 0; i < started; i++)
        (void)pthread_join(thread[i], NULL);
}

static tsr_status describe(const tsr_synthetic_tensor *t, tsr_text *header)
{
    char shape[64] = "";

    if (t->rank == 1)
        (void)snprintf(shape, sizeof(shape), "%" PRId64, t->shape[0]);
    if (t->rank == 2)
        (void)snprintf(shape, sizeof(shape), "%" PRId64 ",%" PRId64, t->shape[0], t->shape[1]);
    return tsr_text_add_format(
        header,
        ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
        t->name, tsr_dtype_name(t->dtype), shape, t->offset, t->offset + t->bytes);
}

/* Eight bytes of length, then JSON that ends where elements of any type may begin. */
static tsr_status make_header(const tsr_tensor_set *set, int32_t file, tsr_text *header,
                              uint64_t *ret_end)
{
    static const char nothing[LENGTH_BYTES];
    tsr_status st = tsr_text_add(header, nothing, sizeof(nothing));

    if (st == TSR_OK)
        st = tsr_text_add_string(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    *ret_end = 0;
    for (int32_t i = 0; i < set->count && st == TSR_OK; i++) {
        if (set->tensors[i].file != file)
            continue;
        st = describe(&set->tensors[i], header);
        *ret_end = set->tensors[i].offset + set->tensors[i].bytes;
    }
    if (st == TSR_OK)
        st = tsr_text_add_string(header, "}");
    while (st == TSR_OK && header->count % TSR_ALIGNMENT != 0)
        st = tsr_text_add_string(header, " ");
    for (size_t i = 0; st == TSR_OK && i < LENGTH_BYTES; i++)
        header->bytes[i] = (char)((header->count - LENGTH_BYTES) >> (8 * i));
    return st;
}

/* Makes the file as long as it will be, with its header. */
static tsr_status open_shard(const char *folder, const tsr_tensor_set *set, int32_t file, shard *s)
{
    char name[TSR_SHARD_NAME_BYTES];
    tsr_text header = {0};
    uint64_t end = 0;

    tsr_shard_name(set, file, name);
    tsr_status st = tsr_path_join(folder, name, sizeof(s->path), s->path);
    if (st == TSR_OK)
        st = make_header(set, file, &header, &end);
    if (st == TSR_OK) {
        s->header_bytes = header.count;
        s->descriptor = open(s->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FILE_MODE);
        if (s->descriptor < 0 || ftruncate(s->descriptor, (off_t)(header.count + end)) != 0) {
            tsr_log(TSR_LOG_ERROR, "%s: cannot be written: %s", s->path, strerror(errno));
            st = TSR_ERR_OUTPUT;
        }
    }
    if (st == TSR_OK)
        st = write_at(s, 0, header.bytes, header.count);
    tsr_text_close(&header);
    return st;
}

/* What a full disk refuses last, it refuses here. */
static tsr_status close_shards(shard *shards, int32_t count)
{
    tsr_status st = TSR_OK;

    for (int32_t i = 0; i < count; i++) {
        if (shards[i].descriptor < 0 || close(shards[i].descriptor) == 0)
            continue;
        tsr_log(TSR_LOG_ERROR, "%s: cannot be written: %s", shards[i].path, strerror(errno));
        st = TSR_ERR_OUTPUT;
    }
    return st;
}

tsr_status tsr_shard_files_write(const char *folder, const tsr_tensor_set *set,
                                 const tsr_random_pool *pool, uint64_t seed, int32_t threads)
{
    writer w = {.set = set, .pool = pool, .seed = seed};
    tsr_status st = TSR_OK;

    w.shards = calloc((size_t)set->files, sizeof(*w.shards));
    if (w.shards == NULL)
        return TSR_ERR_MEMORY;
    if (pthread_mutex_init(&w.lock, NULL) != 0) {
        free(w.shards);
        return TSR_ERR_MEMORY;
    }
    for (int32_t i = 0; i < set->files; i++)
        w.shards[i].descriptor = -1;
    for (int32_t i = 0; i < set->files && st == TSR_OK; i++)
        st = open_shard(folder, set, i, &w.shards[i]);
    if (st == TSR_OK) {
        run_writers(&w, threads);
        st = w.status;
    }
    const tsr_status closed = close_shards(w.shards, set->files);
    (void)pthread_mutex_destroy(&w.lock);
    free(w.shards);
    return st == TSR_OK ? closed : st;
}
