/*
 * Bytes are searched once for their line end (`looked`), however small the pieces they come in, and
 * those of a line that is too long, or that there is no memory for, are dropped as they come but for
 * its beginning: no file makes this grow beyond a line.
 *
 *   text   | given | line at hand | not looked at |
 *                  ^ first        ^ looked
 */
#include "launch/files/line_file.h"

#include "runtime/base/clock.h"
#include "runtime/base/text_buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10, KEPT_BYTES = 1 << 20 /* of room between lines */ };

struct tsr_line_file {
    int descriptor;
    bool ended;         /* nothing more can be read */
    tsr_line_loss loss; /* the line at hand was dropped but for its `head` */
    tsr_text text;      /* what was read; dropped from the front when more is read */
    size_t first;       /* where the line at hand begins */
    size_t looked;      /* there is no line end before this */
    uint64_t number;
    size_t head_count;
    char head[TSR_LINE_HEAD_BYTES];
};

tsr_status tsr_line_file_open(const char *path, tsr_line_file **ret_file)
{
    tsr_line_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return TSR_ERR_MEMORY;
    /* A pipe that nobody writes to yet would hold up whoever opens it; poll waits for it instead. */
    file->descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->descriptor < 0) {
        const tsr_status st = tsr_status_of_error(errno, TSR_ERR_ARG);
        free(file);
        return st;
    }
    *ret_file = file;
    return TSR_OK;
}

/* Drops what is there of the line at hand, of which `count` bytes were read. */
static void drop_line(tsr_line_file *file, tsr_line_loss loss, size_t count)
{
    if (file->loss == TSR_LINE_KEPT && file->text.bytes != NULL) {
        file->head_count = count < TSR_LINE_HEAD_BYTES ? count : TSR_LINE_HEAD_BYTES;
        memcpy(file->head, file->text.bytes + file->first, file->head_count);
    }
    file->loss = loss;
    file->first += count;
}

/* Makes room at the front, and gives back what one long line has taken. */
static void shrink(tsr_line_file *file)
{
    tsr_text_drop(&file->text, file->first);
    file->looked -= file->first;
    file->first = 0;
    if (file->text.count == 0 && file->text.capacity > KEPT_BYTES)
        tsr_text_close(&file->text);
}

/* Adds what was read. Without memory for it the line at hand is dropped. */
static tsr_status add_read(tsr_line_file *file, const char *bytes, size_t count)
{
    const tsr_status st = tsr_text_add(&file->text, bytes, count);
    if (st == TSR_OK || file->text.count == 0)
        return st;
    drop_line(file, TSR_LINE_NO_MEMORY, file->text.count);
    file->looked = file->text.count;
    shrink(file);
    return tsr_text_add(&file->text, bytes, count);
}

/* Reads once what is there by `until_ms`; *ret_waited is true when there was nothing. */
static tsr_status read_some(tsr_line_file *file, int64_t until_ms, bool *ret_waited)
{
    struct pollfd wanted = {.fd = file->descriptor, .events = POLLIN};
    const int64_t left_ms = until_ms - tsr_clock_ms();
    char bytes[READ_BYTES];

    shrink(file);
    const int ready = poll(&wanted, 1, left_ms > 0 ? (int)left_ms : 0);
    *ret_waited = ready == 0 || (ready < 0 && errno == EINTR);
    if (*ret_waited)
        return TSR_OK;
    const ssize_t count = ready > 0 ? read(file->descriptor, bytes, sizeof(bytes)) : -1;
    if (count < 0)
        return errno == EINTR || errno == EAGAIN ? TSR_OK : TSR_ERR_ARG;
    file->ended = count == 0;
    return add_read(file, bytes, (size_t)count);
}

/* The line at hand, if its end was read. */
static bool take_line(tsr_line_file *file, tsr_line *line)
{
    const tsr_text *text = &file->text;
    const char *from = text->count > file->looked ? text->bytes + file->looked : NULL;
    const char *end = from != NULL ? memchr(from, '\n', text->count - file->looked) : NULL;
    size_t count =
        end != NULL ? (size_t)(end - text->bytes) - file->first : text->count - file->first;

    file->looked = text->count;
    if (count > TSR_MAX_LINE_BYTES || (file->loss != TSR_LINE_KEPT && count > 0)) {
        drop_line(file, file->loss != TSR_LINE_KEPT ? file->loss : TSR_LINE_TOO_LONG, count);
        count = 0;
    }
    if (end == NULL && !(file->ended && (count > 0 || file->loss != TSR_LINE_KEPT)))
        return false;

    const bool kept = file->loss == TSR_LINE_KEPT;
    *line = (tsr_line){.bytes = kept ? text->bytes + file->first : file->head,
                       .count = kept ? count : file->head_count,
                       .number = ++file->number,
                       .loss = file->loss,
                       .whole = end != NULL};
    file->first += count + (end != NULL ? 1 : 0);
    file->looked = file->first;
    file->loss = TSR_LINE_KEPT;
    return true;
}

tsr_status tsr_line_file_next(tsr_line_file *file, int32_t wait_ms, tsr_line_state *ret_state,
                              tsr_line *ret_line)
{
    const int64_t until_ms = tsr_clock_ms() + wait_ms;

    for (;;) {
        bool waited = false;
        if (take_line(file, ret_line)) {
            *ret_state = TSR_LINE_ONE;
            return TSR_OK;
        }
        if (file->ended) {
            *ret_state = TSR_LINE_END;
            return TSR_OK;
        }
        const tsr_status st = read_some(file, until_ms, &waited);
        if (st != TSR_OK)
            return st;
        if (waited && tsr_clock_ms() >= until_ms) {
            *ret_state = TSR_LINE_NONE;
            return TSR_OK;
        }
    }
}

void tsr_line_file_close(tsr_line_file *file)
{
    if (file == NULL)
        return;
    (void)close(file->descriptor);
    tsr_text_close(&file->text);
    free(file);
}
