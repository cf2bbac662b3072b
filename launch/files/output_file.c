/*
 * Bytes go one way:
 *
 *   text | waits for a push, or for a reader | --> PATH, PATH.partial, or a pipe
 *                                                  whole lines | half a line
 *                                                              ^ cut off here when a disk is full
 *
 * A file is opened early, so that a wrong name is said before hours of work, and emptied late, with
 * the first bytes that take the place of what an earlier run has left. Whoever writes PATH has it
 * locked, and PATH.partial too: of two jobs with one output the second is refused. A pipe is opened
 * when there is something to write, without waiting, over and over until somebody reads it.
 */
#define _XOPEN_SOURCE 700 /* realpath */

#include "launch/files/output_file.h"

#include "launch/files/line_file.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PATH_BYTES = PATH_MAX + 16,
    FILE_MODE = 0666,
    TURN_MS = 20,     /* between two looks for a reader */
    PIPE_BYTES = 4096 /* what a pipe that has room takes without waiting */
};

struct tsr_output_file {
    tsr_output_args args;
    char target[PATH_MAX]; /* PATH, its links followed */
    char name[PATH_BYTES]; /* what is written: `target`, or that and ".partial"; "": a pipe or
                                 the like */
    int descriptor;        /* -1: not open yet */
    int old;               /* keeps the lock of PATH beside PATH.partial, or -1 */
    bool created;
    bool borrowed;
    bool waits;   /* a pipe or the like, of which a reader may be slow */
    bool pipe;    /* has a name, and may have no reader yet */
    bool started; /* what the file holds is this run's */
    bool failed;
    tsr_text text;
    size_t sent;            /* of `text` */
    uint64_t end;           /* of what was written */
    uint64_t whole;         /* of the lines in it */
    int64_t stuck_since_ms; /* nothing has gone since; 0: it goes */
};

/* Logs the first failure and returns `st`. */
static tsr_status fail_output(tsr_output_file *file, tsr_status st, const char *what)
{
    const bool kept = file->name[0] != '\0' && file->whole > 0 && !file->args.places;

    if (!file->failed)
        tsr_log(TSR_LOG_ERROR, "%s%s%s: %s%s%s", file->args.option, file->args.option[0] ? " " : "",
                file->args.path, what, kept ? "; the answers so far are kept for --resume in " : "",
                kept ? file->name : "");
    file->failed = true;
    return st;
}

static tsr_status fail_with_errno(tsr_output_file *file)
{
    const tsr_status st = tsr_status_of_error(errno, TSR_ERR_OUTPUT);
    char what[128];
    (void)snprintf(what, sizeof(what), "cannot be written: %s", strerror(errno));
    return fail_output(file, st, what);
}

/* A name for what this process has open, which nothing can take the place of. */
static bool is_descriptor(const char *path)
{
    static const char *const names[] = {"/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/"};
    bool found = false;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        found = found || strncmp(path, names[i], strlen(names[i])) == 0;
    return found;
}

/* Locks a file for as long as it is open; false where another process has. */
static bool lock_file(int descriptor)
{
    return flock(descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

/* Opens what is to be written, and locks it. */
static tsr_status open_named(tsr_output_file *file)
{
    const int how = O_RDWR | O_CLOEXEC | O_NONBLOCK;
    struct stat opened;
    struct stat named;

    file->descriptor = open(file->name, how | O_CREAT | O_EXCL, FILE_MODE);
    file->created = file->descriptor >= 0;
    if (!file->created && errno == EEXIST)
        file->descriptor = open(file->name, how);
    if (file->descriptor < 0 || fstat(file->descriptor, &opened) != 0)
        return fail_with_errno(file);
    const bool locked = lock_file(file->descriptor) && (file->old < 0 || lock_file(file->old));
    /* whoever had the lock may have given the file its name since it was opened here */
    if (!locked || stat(file->name, &named) != 0 || named.st_ino != opened.st_ino)
        return fail_output(file, TSR_ERR_OUTPUT, "another run is writing it");
    return S_ISREG(opened.st_mode)
               ? TSR_OK
               : fail_output(file, TSR_ERR_OUTPUT, "PATH.partial beside it is no file");
}

/* Decides whether PATH is written as it is or beside. */
static tsr_status settle_path(tsr_output_file *file)
{
    const char *path = file->args.path;
    struct stat there;
    const bool exists = stat(path, &there) == 0;

    if (exists && access(path, W_OK) != 0)
        return fail_with_errno(file);
    if (exists && S_ISDIR(there.st_mode)) {
        errno = EISDIR;
        return fail_with_errno(file);
    }
    if (exists && (!S_ISREG(there.st_mode) || is_descriptor(path))) {
        file->waits = !S_ISREG(there.st_mode);
        file->pipe = S_ISFIFO(there.st_mode);
        return file->args.places && file->pipe
                   ? fail_output(file, TSR_ERR_OUTPUT,
                                 "is a pipe; rows come in any order and want a file")
                   : TSR_OK;
    }
    if (realpath(path, file->target) == NULL &&
        snprintf(file->target, sizeof(file->target), "%s", path) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return fail_with_errno(file);
    }
    const bool beside = file->args.resume || (exists && there.st_size > 0);
    (void)snprintf(file->name, sizeof(file->name), "%s%s", file->target, beside ? ".partial" : "");
    if (beside && exists)
        file->old = open(file->target, O_RDONLY | O_CLOEXEC);
    const tsr_status st = open_named(file);
    if (st == TSR_OK && beside && exists)
        (void)fchmod(file->descriptor, there.st_mode & 07777);
    return st;
}

/* What is written as it is: a device now, a pipe when there is a reader. */
static tsr_status open_direct(tsr_output_file *file)
{
    const int how = O_WRONLY | O_CLOEXEC | O_NONBLOCK;

    if (file->descriptor >= 0 || file->name[0] != '\0')
        return TSR_OK;
    file->descriptor = open(file->args.path, how | (file->waits ? 0 : O_TRUNC));
    if (file->descriptor >= 0 || (file->pipe && errno == ENXIO))
        return TSR_OK;
    return fail_with_errno(file);
}

tsr_status tsr_output_file_open(const tsr_output_args *args, tsr_output_file **ret_file)
{
    tsr_output_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return TSR_ERR_MEMORY;
    *file = (tsr_output_file){.args = *args, .descriptor = -1, .old = -1};

    tsr_status st = settle_path(file);
    if (st == TSR_OK && file->waits)
        st = open_direct(file);
    if (st == TSR_OK)
        *ret_file = file;
    else
        tsr_output_file_close(file);
    return st;
}

tsr_status tsr_output_file_over(int descriptor, const char *name, int32_t deadline_ms,
                                tsr_output_file **ret_file)
{
    struct stat there;
    tsr_output_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return TSR_ERR_MEMORY;
    *file = (tsr_output_file){
        .args = {.option = "", .path = name, .deadline_ms = deadline_ms},
        .descriptor = descriptor,
        .old = -1,
        .borrowed = true,
        .waits = fstat(descriptor, &there) == 0 && !S_ISREG(there.st_mode),
    };
    *ret_file = file;
    return TSR_OK;
}

/* Offers the lines of one file to `keeper`; a file that is not there has none. */
static tsr_status keep_lines(tsr_output_file *file, int32_t which, const tsr_line_keeper *keeper,
                             FILE *into)
{
    const char *path = which == 0 ? file->name : file->target;
    tsr_line_state state = TSR_LINE_ONE;
    tsr_line_file *lines = NULL;
    tsr_line line = {0};
    char what[PATH_BYTES + 128];

    tsr_status st = tsr_line_file_open(path, &lines);
    if (st == TSR_ERR_ARG)
        return errno == ENOENT ? TSR_OK : fail_with_errno(file);
    while (st == TSR_OK && state == TSR_LINE_ONE) {
        bool keep = false;
        st = tsr_line_file_next(lines, 0, &state, &line);
        if (st != TSR_OK || state != TSR_LINE_ONE || !line.whole)
            continue;
        st = line.loss != TSR_LINE_KEPT
                 ? TSR_ERR_ARG
                 : keeper->keep(keeper->context, which, line.bytes, line.count, &keep);
        if (st == TSR_OK && keep &&
            (fwrite(line.bytes, 1, line.count, into) != line.count || fputc('\n', into) == EOF))
            st = fail_with_errno(file);
    }
    tsr_line_file_close(lines);
    if (st != TSR_ERR_ARG)
        return st;
    (void)snprintf(what, sizeof(what),
                   "line %llu of %s is no answer of a batch; --resume goes on with answers only",
                   (unsigned long long)line.number, path);
    return fail_output(file, TSR_ERR_ARG, what);
}

/* Puts what was kept in the place of PATH.partial. */
static tsr_status take_kept(tsr_output_file *file, FILE *kept, const char *path)
{
    const int descriptor = fflush(kept) == 0 ? dup(fileno(kept)) : -1;
    const off_t end = descriptor >= 0 ? lseek(descriptor, 0, SEEK_END) : -1;

    if (end < 0 || rename(path, file->name) != 0) {
        const tsr_status st = fail_with_errno(file);
        if (descriptor >= 0)
            (void)close(descriptor);
        return st;
    }
    (void)flock(descriptor, LOCK_EX | LOCK_NB);
    (void)close(file->descriptor);
    file->descriptor = descriptor;
    file->end = (uint64_t)end;
    file->whole = file->end;
    file->started = true;
    return TSR_OK;
}

tsr_status tsr_output_file_resume(tsr_output_file *file, const tsr_line_keeper *keeper)
{
    char path[PATH_BYTES + 8];
    struct stat there;

    if (file->name[0] == '\0')
        return fail_output(file, TSR_ERR_ARG, "--resume needs a file, and this is none");
    (void)snprintf(path, sizeof(path), "%s.new", file->name);
    FILE *kept = fopen(path, "we");
    if (kept == NULL)
        return fail_with_errno(file);
    if (fstat(file->descriptor, &there) == 0)
        (void)fchmod(fileno(kept), there.st_mode & 07777);

    tsr_status st = keep_lines(file, 0, keeper, kept);
    if (st == TSR_OK)
        st = keep_lines(file, 1, keeper, kept);
    if (st == TSR_OK)
        st = take_kept(file, kept, path);
    (void)fclose(kept);
    if (st != TSR_OK)
        (void)unlink(path);
    return st;
}

tsr_text *tsr_output_file_text(tsr_output_file *file)
{
    return &file->text;
}

size_t tsr_output_file_waiting(const tsr_output_file *file)
{
    return file->text.count - file->sent;
}

/* Nothing in the file is older than this run from here on. */
static bool start_file(tsr_output_file *file)
{
    if (file->started || file->name[0] == '\0')
        return true;
    file->started = ftruncate(file->descriptor, 0) == 0;
    return file->started;
}

/* A disk that is full ends in the middle of a line, which is taken back. */
static tsr_status cut_half_line(tsr_output_file *file)
{
    const int code = errno;

    if (file->name[0] != '\0' && ftruncate(file->descriptor, (off_t)file->whole) == 0)
        file->end = file->whole;
    errno = code;
    return fail_with_errno(file);
}

static void count_written(tsr_output_file *file, size_t count)
{
    const char *from = file->text.bytes + file->sent;
    size_t lines = count; /* up to the last line end */

    while (lines > 0 && from[lines - 1] != '\n')
        lines--;
    if (lines > 0)
        file->whole = file->end + lines;
    file->end += count;
    file->sent += count;
    if (file->sent == file->text.count) {
        tsr_text_clear(&file->text);
        file->sent = 0;
    }
}

/* Writes once. *ret_went false: nobody takes anything now. */
static tsr_status write_once(tsr_output_file *file, bool *ret_went)
{
    struct pollfd room = {.fd = file->descriptor, .events = POLLOUT};
    const char *from = file->text.bytes + file->sent;
    const size_t left = file->text.count - file->sent;
    const size_t count = file->waits && left > PIPE_BYTES ? PIPE_BYTES : left;

    *ret_went = false;
    if (file->descriptor < 0 || (file->waits && poll(&room, 1, 0) <= 0))
        return TSR_OK;
    const ssize_t written = file->name[0] != '\0'
                                ? pwrite(file->descriptor, from, count, (off_t)file->end)
                                : write(file->descriptor, from, count);
    if (written < 0 && (errno == EINTR || errno == EAGAIN))
        return TSR_OK;
    if (written <= 0)
        return cut_half_line(file);
    count_written(file, (size_t)written);
    *ret_went = true;
    return TSR_OK;
}

static tsr_status time_out(tsr_output_file *file)
{
    char what[128];
    (void)snprintf(what, sizeof(what), "nobody has %s it for %d ms",
                   file->descriptor < 0 ? "opened" : "read from", file->args.deadline_ms);
    return fail_output(file, TSR_ERR_TIMEOUT, what);
}

tsr_status tsr_output_file_push(tsr_output_file *file)
{
    tsr_status st = file->failed ? TSR_ERR_OUTPUT : TSR_OK;
    bool went = true;

    while (st == TSR_OK && went && file->text.count > 0) {
        st = open_direct(file);
        if (st == TSR_OK && !start_file(file))
            st = fail_with_errno(file);
        if (st == TSR_OK)
            st = write_once(file, &went);
        if (st == TSR_OK && went)
            file->stuck_since_ms = 0;
    }
    if (st != TSR_OK || went)
        return st;
    if (file->stuck_since_ms == 0)
        file->stuck_since_ms = tsr_clock_ms();
    return tsr_clock_ms() - file->stuck_since_ms > file->args.deadline_ms ? time_out(file) : TSR_OK;
}

tsr_status tsr_output_file_put(tsr_output_file *file, uint64_t offset, const void *bytes,
                               size_t count)
{
    const unsigned char *from = bytes;
    tsr_status st = file->failed ? TSR_ERR_OUTPUT : open_direct(file);

    if (st == TSR_OK && !start_file(file))
        st = fail_with_errno(file);
    while (st == TSR_OK && count > 0) {
        const ssize_t written = pwrite(file->descriptor, from, count, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return fail_with_errno(file);
        from += written;
        offset += (uint64_t)written;
        count -= (size_t)written;
    }
    return st;
}

/* As push, until nothing waits. */
static tsr_status settle(tsr_output_file *file)
{
    const int64_t until_ms = tsr_clock_ms() + file->args.deadline_ms;

    tsr_status st = tsr_output_file_push(file);
    while (st == TSR_OK && file->text.count > 0) {
        (void)poll(NULL, 0, TURN_MS);
        st = tsr_clock_ms() > until_ms ? time_out(file) : tsr_output_file_push(file);
    }
    return st;
}

tsr_status tsr_output_file_finish(tsr_output_file *file)
{
    tsr_status st = settle(file);

    if (st != TSR_OK || file->borrowed)
        return st;
    st = open_direct(file);
    if (st == TSR_OK && file->descriptor >= 0 && !start_file(file))
        st = fail_with_errno(file);
    if (st != TSR_OK || file->descriptor < 0)
        return st;
    /* some file systems find out only now that they are full */
    const int copy = dup(file->descriptor);
    if (copy >= 0 && close(copy) != 0)
        return fail_with_errno(file);
    if (file->name[0] != '\0' && rename(file->name, file->target) != 0)
        return fail_with_errno(file);
    file->name[0] = '\0'; /* nothing is left to be removed */
    return TSR_OK;
}

/* Whether nothing in a file that was not finished is of use, and nothing of it was there before. */
static bool is_useless(const tsr_output_file *file)
{
    const bool beside = strcmp(file->name, file->target) != 0;
    struct stat left;

    return file->descriptor >= 0 && file->name[0] != '\0' && (file->created || beside) &&
           fstat(file->descriptor, &left) == 0 &&
           (left.st_size == 0 || (file->args.places && file->started)) &&
           lock_file(file->descriptor);
}

void tsr_output_file_close(tsr_output_file *file)
{
    if (file == NULL)
        return;
    if (!file->borrowed && is_useless(file))
        (void)unlink(file->name);
    if (!file->borrowed && file->descriptor >= 0)
        (void)close(file->descriptor);
    if (file->old >= 0)
        (void)close(file->old);
    tsr_text_close(&file->text);
    free(file);
}
