/* Read by pread and not mapped: a file that became shorter, or a disk that fails, is then a status
 * with a name, where a mapping would be a signal inside a kernel. */
#include "runtime/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

tsr_status tsr_file_open(const char *path, tsr_file *ret_file)
{
    /* A pipe would be waited for, without end; to files the flag means nothing. */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return tsr_status_of_error(errno, TSR_ERR_CHECKPOINT);

    struct stat info;
    if (fstat(descriptor, &info) != 0)
        goto undo_open;
    if (!S_ISREG(info.st_mode)) {
        errno = S_ISDIR(info.st_mode) ? EISDIR : ESPIPE;
        goto undo_open;
    }
    *ret_file = (tsr_file){.descriptor = descriptor, .bytes = (uint64_t)info.st_size};
    return TSR_OK;

undo_open:
    (void)close(descriptor);
    return TSR_ERR_CHECKPOINT;
}

tsr_status tsr_file_read(const tsr_file *file, uint64_t offset, size_t bytes, void *into)
{
    unsigned char *to = into;

    while (bytes > 0) {
        const ssize_t got = pread(file->descriptor, to, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return tsr_status_of_error(errno, TSR_ERR_CHECKPOINT);
        if (got == 0)
            return TSR_ERR_CHECKPOINT;
        to += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return TSR_OK;
}

void tsr_file_close(tsr_file *file)
{
    if (file->descriptor >= 0)
        (void)close(file->descriptor);
    file->descriptor = -1;
}

tsr_status tsr_file_read_text(const char *path, size_t max_bytes, char **ret_text,
                              size_t *ret_bytes)
{
    tsr_file file = {.descriptor = -1};
    tsr_status st = tsr_file_open(path, &file);
    if (st != TSR_OK)
        return st;

    char *text = NULL;
    if (file.bytes > max_bytes) {
        errno = EFBIG;
        st = TSR_ERR_CHECKPOINT;
    } else {
        text = malloc((size_t)file.bytes + 1);
        st = text != NULL ? tsr_file_read(&file, 0, (size_t)file.bytes, text) : TSR_ERR_MEMORY;
    }
    if (st == TSR_OK) {
        text[file.bytes] = '\0';
        *ret_text = text;
        *ret_bytes = (size_t)file.bytes;
    } else {
        free(text);
    }
    tsr_file_close(&file);
    return st;
}

bool tsr_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

tsr_status tsr_path_join(const char *folder, const char *name, size_t capacity, char *ret_path)
{
    const int used = snprintf(ret_path, capacity, "%s/%s", folder, name);
    return used > 0 && (size_t)used < capacity ? TSR_OK : TSR_ERR_ARG;
}
