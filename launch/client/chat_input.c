/* Where a message ends is decided line by line; who reads a line, an editor or the C library, is not
 * seen here. */
#define _GNU_SOURCE /* getline */
#include "launch/client/chat_input.h"

#include "launch/job/signals.h"
#include "runtime/base/ending.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char quotes[] = "\"\"\"";
enum { QUOTES = sizeof(quotes) - 1, PASTE_MS = 20 };

void tsr_chat_input_open(tsr_chat_input *input)
{
    *input = (tsr_chat_input){.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    if (input->terminal)
        input->editor = tsr_line_editor_open();
}

static tsr_line_end read_plain(tsr_chat_input *input, const char *prompt)
{
    if (input->terminal) {
        (void)fputs(prompt, stdout);
        (void)fflush(stdout);
        /* a terminal gives a line at a time: nothing of the next one has been read before */
        if (!tsr_signals_await_input(STDIN_FILENO))
            return errno == EINTR ? TSR_LINE_INTERRUPTED : TSR_LINE_OVER;
    }
    errno = 0;
    const ssize_t read = getline(&input->plain, &input->plain_room, stdin);
    if (read < 0) {
        const int error = errno;
        clearerr(stdin);
        return error == EINTR    ? TSR_LINE_INTERRUPTED
               : error == ENOMEM ? TSR_LINE_NO_MEMORY
                                 : TSR_LINE_OVER;
    }
    size_t count = (size_t)read;
    if (count > 0 && input->plain[count - 1] == '\n')
        count--;
    if (count > 0 && input->plain[count - 1] == '\r')
        count--;
    tsr_text_clear(&input->line);
    return tsr_text_add(&input->line, input->plain, count) == TSR_OK ? TSR_LINE_READ
                                                                     : TSR_LINE_NO_MEMORY;
}

/* Lines come faster than anybody types. */
static bool is_pasted(const tsr_chat_input *input)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    return input->terminal && poll(&in, 1, PASTE_MS) > 0 && (in.revents & POLLIN) != 0;
}

typedef struct piece {
    const char *bytes;
    size_t count;
    bool goes_on;
} piece;

/* What of a line belongs to the message, and whether another line does. */
static piece cut_line(tsr_chat_input *input, bool first)
{
    piece p = {.bytes = input->line.bytes, .count = input->line.count};

    if (first && p.count >= QUOTES && memcmp(p.bytes, quotes, QUOTES) == 0) {
        input->quoted = true;
        p.bytes += QUOTES;
        p.count -= QUOTES;
    }
    if (input->quoted) {
        p.goes_on = p.count < QUOTES || memcmp(p.bytes + p.count - QUOTES, quotes, QUOTES) != 0;
        p.count -= p.goes_on ? 0 : QUOTES;
        return p;
    }
    if (p.count > 0 && p.bytes[p.count - 1] == '\\') {
        p.goes_on = true;
        p.count--;
        return p;
    }
    p.goes_on = is_pasted(input);
    return p;
}

static tsr_line_end read_line(tsr_chat_input *input, const char *prompt)
{
    tsr_line_end end = TSR_LINE_INTERRUPTED;

    if (!input->terminal)
        return read_plain(input, prompt);
    tsr_signals_hold();
    if (!tsr_signals_interrupted() && tsr_ending_status() == TSR_OK)
        end = input->editor != NULL ? tsr_line_editor_read(input->editor, prompt, &input->line)
                                    : read_plain(input, prompt);
    tsr_signals_release();
    return end;
}

tsr_line_end tsr_chat_input_read(tsr_chat_input *input, tsr_text *message)
{
    bool goes_on = true;

    input->quoted = false;
    tsr_text_clear(message);
    for (bool first = true; goes_on; first = false) {
        const tsr_line_end end = read_line(input, first ? "> " : ". ");
        if (end == TSR_LINE_OVER && !first)
            break; /* what there is of a message is one */
        if (end != TSR_LINE_READ)
            return end;
        const piece p = cut_line(input, first);
        const bool empty = first && p.count == 0; /* an opening line of quotes alone */
        tsr_status st = tsr_text_add(message, p.bytes, p.count);
        if (st == TSR_OK && p.goes_on && !(empty && input->quoted))
            st = tsr_text_add_string(message, "\n");
        if (st != TSR_OK)
            return TSR_LINE_NO_MEMORY;
        goes_on = p.goes_on;
    }
    while (message->count > 0 && message->bytes[message->count - 1] == '\n')
        message->bytes[--message->count] = '\0';
    if (input->editor != NULL && message->count > 0)
        tsr_line_editor_keep(input->editor, message->bytes);
    return TSR_LINE_READ;
}

void tsr_chat_input_close(tsr_chat_input *input)
{
    tsr_line_editor_close(input->editor);
    tsr_text_close(&input->line);
    free(input->plain);
    *input = (tsr_chat_input){0};
}
