/*
 * Reads stretches of files in a given order, one ahead of whoever uses them, so that the disk works
 * while the last stretch is laid out.
 *
 *   reader thread   | read 0 | read 1 | wait   | read 2 |
 *   caller                   | use 0           | use 1  | use 2
 *
 * Stretches go round a ring of slots that the caller owns:
 *
 *   slot 0                     slot 1
 *   | offset % 64 | stretch 0 ... | offset % 64 | stretch 1 ... |      then stretch 2 in slot 0
 *
 * so that an address and its file offset agree modulo 64.
 *
 * A disk may never answer, and nothing ends a thread that waits for one. Whoever waits for a
 * stretch gives up at the deadline; the thread, and all that it may still touch, is then left
 * behind, for a process that is about to end.
 */
#ifndef TSR_RUNTIME_MODEL_READ_AHEAD_H
#define TSR_RUNTIME_MODEL_READ_AHEAD_H

#include "runtime/base/status.h"
#include "runtime/model/load_sources.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_read_ahead tsr_read_ahead;

/* What to read. Borrowed; outlives the reader. */
typedef struct tsr_reading {
    const char *folder;
    char *const *files;         /* [file_count] names inside the folder */
    const tsr_file_mark *marks; /* [file_count] that the files must bear */
    const tsr_stretch *stretches;
    size_t stretch_count;
    int32_t file_count;
    unsigned char *ring; /* [slots, slot_bytes] on 64 bytes */
    size_t slot_bytes;   /* 64 more than the longest stretch, a multiple of 64 */
    int32_t slots;       /* >= 2 */
    int32_t deadline_ms; /* longest wait for a stretch */
} tsr_reading;

/* Starts reading. TSR_ERR_MEMORY, logged when no thread starts */
TSR_MUST_USE tsr_status tsr_read_ahead_open(const tsr_reading *reading, tsr_read_ahead **ret);

/*
 * Waits for the next stretch; the one before it is given up.
 *
 * TSR_ERR_CHECKPOINT, silently  *ret_bytes has the error, or the size of a file without the mark
 * TSR_ERR_TIMEOUT, silently     it did not come within the deadline
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_read_ahead_next(tsr_read_ahead *reader, tsr_stretch_bytes *ret_bytes);

/*
 * Stops wherever it is, within the deadline. NULL is allowed.
 *
 * False: the thread is stuck in a read. The reading, its stretches and the ring must be left to it
 * as long as the process lives; names and marks it has copied.
 */
bool tsr_read_ahead_close(tsr_read_ahead *reader);

#endif
