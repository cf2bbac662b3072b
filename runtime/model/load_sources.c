/* One lock for opening: whoever comes second finds the file open. Reads themselves need none. */
#include "runtime/model/load_sources.h"

#include "runtime/base/file.h"
#include "runtime/base/sizes.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct source {
    char *path;    /* NULL: too long */
    tsr_file file; /* descriptor -1 until it is needed */
    tsr_file_mark mark;
} source;

struct tsr_load_sources {
    source *source; /* [count] */
    int32_t count;
    pthread_mutex_t opening;
};

/* Opens a file that bears its mark; `content` is told why there is none. */
static tsr_status open_source(source *of, tsr_stretch_bytes *content)
{
    if (of->file.descriptor >= 0)
        return TSR_OK;
    if (of->path == NULL) {
        content->error = ENAMETOOLONG;
        return TSR_ERR_CHECKPOINT;
    }

    tsr_file file = {.descriptor = -1};
    bool bears = false;
    errno = 0;
    tsr_status st = tsr_file_open(of->path, &file);
    if (st == TSR_OK)
        st = tsr_file_bears(&file, &of->mark, &bears);
    if (st != TSR_OK)
        content->error = errno != 0 ? errno : EIO;
    else
        content->file_bytes = file.bytes;
    if (st == TSR_OK && bears) {
        of->file = file;
        return TSR_OK;
    }
    tsr_file_close(&file);
    return st == TSR_OK ? TSR_ERR_CHECKPOINT : st;
}

tsr_status tsr_load_sources_read(tsr_load_sources *sources, const tsr_stretch *stretch,
                                 unsigned char *slot, tsr_stretch_bytes *ret_bytes)
{
    source *from = &sources->source[stretch->file];

    *ret_bytes = (tsr_stretch_bytes){0};
    (void)pthread_mutex_lock(&sources->opening);
    tsr_status st = open_source(from, ret_bytes);
    (void)pthread_mutex_unlock(&sources->opening);
    if (st != TSR_OK)
        return st;

    unsigned char *bytes = slot + (size_t)(stretch->begin % TSR_ALIGNMENT);
    ret_bytes->bytes = bytes;
    errno = 0;
    st = tsr_file_read(&from->file, stretch->begin, (size_t)(stretch->end - stretch->begin), bytes);
    if (st != TSR_OK)
        ret_bytes->error = errno != 0 ? errno : EIO;
    return st;
}

/* False: no memory. */
static bool name_source(const char *folder, const char *name, source *to)
{
    char path[PATH_MAX];

    if (tsr_path_join(folder, name, sizeof(path), path) != TSR_OK)
        return true;
    to->path = strdup(path);
    return to->path != NULL;
}

tsr_status tsr_load_sources_open(const char *folder, char *const *files, const tsr_file_mark *marks,
                                 int32_t count, tsr_load_sources **ret_sources)
{
    tsr_load_sources *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return TSR_ERR_MEMORY;
    s->source = calloc((size_t)count + 1, sizeof(*s->source));
    bool made = s->source != NULL && pthread_mutex_init(&s->opening, NULL) == 0;
    if (!made) {
        free(s->source);
        free(s);
        return TSR_ERR_MEMORY;
    }
    for (; made && s->count < count; s->count++) {
        source *to = &s->source[s->count];
        *to = (source){.file = {.descriptor = -1}, .mark = marks[s->count]};
        made = name_source(folder, files[s->count], to);
    }
    if (!made) {
        tsr_load_sources_close(s);
        return TSR_ERR_MEMORY;
    }
    *ret_sources = s;
    return TSR_OK;
}

void tsr_load_sources_close(tsr_load_sources *sources)
{
    if (sources == NULL)
        return;
    for (int32_t f = 0; f < sources->count; f++) {
        tsr_file_close(&sources->source[f].file);
        free(sources->source[f].path);
    }
    (void)pthread_mutex_destroy(&sources->opening);
    free(sources->source);
    free(sources);
}
