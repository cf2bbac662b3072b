/* A line typed at a terminal, with arrows, corrections and what was typed before, where the build has
 * a library for that. */
#ifndef TSR_LAUNCH_CLIENT_LINE_EDITOR_H
#define TSR_LAUNCH_CLIENT_LINE_EDITOR_H

#include "runtime/base/text_buffer.h"

typedef struct tsr_line_editor tsr_line_editor;

typedef enum tsr_line_end {
    TSR_LINE_READ,
    TSR_LINE_INTERRUPTED, /* by a signal */
    TSR_LINE_OVER,        /* the input has ended, or cannot be read */
    TSR_LINE_NO_MEMORY,
} tsr_line_end;

/* Of the terminal on standard input. NULL: there is no such library, or it cannot. */
tsr_line_editor *tsr_line_editor_open(void);

/* Replaces *line by what is typed, without its end. `prompt` is valid during the call, in which signals
 * are held (launch/job/signals.h). */
tsr_line_end tsr_line_editor_read(tsr_line_editor *editor, const char *prompt, tsr_text *line);

/* For the arrows. */
void tsr_line_editor_keep(tsr_line_editor *editor, const char *line);

/* NULL is allowed. */
void tsr_line_editor_close(tsr_line_editor *editor);

#endif
