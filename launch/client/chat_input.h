/*
 * What a user types, message by message.
 *
 *   > one line                       > a line that goes on \        > """
 *                                    . behind its end               . as many lines as
 *                                                                   . it takes """
 *
 * Lines that are pasted at a terminal come at once, and are one message too.
 */
#ifndef TSR_LAUNCH_CLIENT_CHAT_INPUT_H
#define TSR_LAUNCH_CLIENT_CHAT_INPUT_H

#include "launch/client/line_editor.h"

#include <stdbool.h>

/* Zero-initialise; open fills it, close always. */
typedef struct tsr_chat_input {
    tsr_line_editor *editor; /* NULL: plain lines */
    bool terminal;           /* on standard input: prompts are shown */
    bool quoted; /* the last message came in quotes: it is for the model, whatever it says */
    tsr_text line;
    char *plain; /* of getline */
    size_t plain_room;
} tsr_chat_input;

void tsr_chat_input_open(tsr_chat_input *input);

/* Replaces *message. One that a signal has interrupted is gone. */
tsr_line_end tsr_chat_input_read(tsr_chat_input *input, tsr_text *message);

void tsr_chat_input_close(tsr_chat_input *input);

#endif
