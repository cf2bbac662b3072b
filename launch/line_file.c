/*
 * Bytes are searched once for their line end (`looked`), however small the pieces they come in, and
 * those of a line that is too long are dropped as they come: no file makes this grow beyond a line.
 *
 *   text   | given | line at hand | not looked at |
 *                  ^ first        ^ looked
 */
#include "launch/line_file.h"

#include "runtime/base/clock.h"
#include "runtime/base/text_buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10 };

struct tsr_line_file {
    int descriptor;
    bool ended;    /* nothing more can be read */
    bool too_long; /* the line at hand is; its bytes were dropped */
    tsr_text text; /* what was read; dropped from the front when more is read */
    size_t first;  /* where the line at hand begins */
    size_t looked; /* there is no line end before this */
    uint64_t number;
};

tsr_status tsr_line_file_open(const char *path, tsr_line_file **ret_file)
{
    tsr_line_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return TSR_ERR_MEMORY;
    /* A pipe that nobody writes to yet would hold up whoever opens it; poll waits for it instead. */
    file->descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->descriptor < 0) {
        free(file);
        return TSR_ERR_ARG;
    }
    *ret_file = file;
    return TSR_OK;
}

/* Reads once what is there by `until_ms`; *ret_waited is true when there was nothing. */
static tsr_status read_some(tsr_line_file *file, int64_t until_ms, bool *ret_waited)
{
    struct pollfd wanted = {.fd = file->descriptor, .events = POLLIN};
    const int64_t left_ms = until_ms - tsr_clock_ms();
    char bytes[READ_BYTES];

    tsr_text_drop(&file->text, file->first);
    file->looked -= file->first;
    file->first = 0;
    const int ready = poll(&wanted, 1, left_ms > 0 ? (int)left_ms : 0);
    *ret_waited = ready == 0 || (ready < 0 && errno == EINTR);
    if (*ret_waited)
        return TSR_OK;
    const ssize_t count = ready > 0 ? read(file->descriptor, bytes, sizeof(bytes)) : -1;
    if (count < 0)
        return errno == EINTR || errno == EAGAIN ? TSR_OK : TSR_ERR_ARG;
    file->ended = count == 0;
    return tsr_text_add(&file->text, bytes, (size_t)count);
}

/* The line at hand, if its end was read. */
static bool take_line(tsr_line_file *file, tsr_line *line)
{
    tsr_text *text = &file->text;
    const char *from = text->count > file->looked ? text->bytes + file->looked : NULL;
    const char *end = from != NULL ? memchr(from, '\n', text->count - file->looked) : NULL;
    size_t count =
        end != NULL ? (size_t)(end - text->bytes) - file->first : text->count - file->first;

    file->looked = text->count;
    if (count > TSR_MAX_LINE_BYTES) {
        file->too_long = true;
        file->first += count;
        count = 0;
    }
    if (end == NULL && !(file->ended && (count > 0 || file->too_long)))
        return false;

    *line = (tsr_line){.bytes = file->too_long ? "" : text->bytes + file->first,
                       .count = file->too_long ? 0 : count,
                       .number = ++file->number,
                       .too_long = file->too_long};
    file->first += count + (end != NULL ? 1 : 0);
    file->looked = file->first;
    file->too_long = false;
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
