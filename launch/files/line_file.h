/*
 * Lines of a file or a pipe, as they come: a reader that never waits longer than it is told, so
 * that whoever writes the other end of a pipe cannot hold up the ranks.
 */
#ifndef TSR_LAUNCH_FILES_LINE_FILE_H
#define TSR_LAUNCH_FILES_LINE_FILE_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TSR_MAX_LINE_BYTES = 64 << 20, TSR_LINE_HEAD_BYTES = 4096 };

typedef struct tsr_line_file tsr_line_file;

typedef enum tsr_line_state {
    TSR_LINE_ONE,  /* here is one */
    TSR_LINE_NONE, /* none within the time given; more may come */
    TSR_LINE_END,
} tsr_line_state;

/* What became of a line's bytes. */
typedef enum tsr_line_loss {
    TSR_LINE_KEPT,
    TSR_LINE_TOO_LONG,  /* more than TSR_MAX_LINE_BYTES: `bytes` holds its beginning */
    TSR_LINE_NO_MEMORY, /* likewise */
} tsr_line_loss;

typedef struct tsr_line {
    const char *bytes; /* without the line end; valid until the next call */
    size_t count;
    uint64_t number; /* in the file, from 1; empty lines count */
    tsr_line_loss loss;
    bool whole; /* has a line end; false only where the file ends without one */
} tsr_line;

/* TSR_ERR_ARG, silently, with errno; TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_line_file_open(const char *path, tsr_line_file **ret_file);

/* Waits for up to `wait_ms`. TSR_ERR_ARG, silently, with errno: reading failed; TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_line_file_next(tsr_line_file *file, int32_t wait_ms,
                                           tsr_line_state *ret_state, tsr_line *ret_line);

/* NULL is allowed. */
void tsr_line_file_close(tsr_line_file *file);

#endif
