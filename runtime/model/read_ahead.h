/*
 * Reads stretches of files in a given order, one ahead of whoever uses them, so that the disk works
 * while the last stretch is laid out.
 *
 *   reader thread   | read 0 | read 1 | wait   | read 2 |
 *   caller                   | use 0           | use 1  | use 2
 *
 * Two buffers, each as large as the largest stretch it has held. A stretch lies in its buffer so
 * that an address and its file offset agree modulo 64.
 */
#ifndef TSR_RUNTIME_MODEL_READ_AHEAD_H
#define TSR_RUNTIME_MODEL_READ_AHEAD_H

#include "runtime/base/file_mark.h"
#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tsr_read_ahead tsr_read_ahead;

/* Bytes begin .. end of a file. */
typedef struct tsr_stretch {
    uint64_t begin;
    uint64_t end;
    int32_t file;
} tsr_stretch;

/* What to read. Borrowed; outlives the reader. */
typedef struct tsr_reading {
    const char *folder;
    char *const *files;         /* [file_count] names inside the folder */
    const tsr_file_mark *marks; /* [file_count] that the files must bear */
    const tsr_stretch *stretches;
    size_t stretch_count;
    int32_t file_count;
} tsr_reading;

/* One stretch in memory, or why it is not. */
typedef struct tsr_stretch_bytes {
    const unsigned char *bytes; /* of offset `begin` */
    uint64_t file_bytes;        /* where the file is another one: its size */
    int error; /* errno where the file could not be opened or read, 0 where it is another one */
} tsr_stretch_bytes;

/* Starts reading. TSR_ERR_MEMORY, logged when no thread starts */
TSR_MUST_USE tsr_status tsr_read_ahead_open(const tsr_reading *reading, tsr_read_ahead **ret);

/*
 * Waits for the next stretch; the one before it is given up.
 *
 * TSR_ERR_CHECKPOINT, silently  *ret_bytes has the error, or the size of a file without the mark
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_read_ahead_next(tsr_read_ahead *reader, tsr_stretch_bytes *ret_bytes);

/* Stops wherever it is. NULL is allowed. */
void tsr_read_ahead_close(tsr_read_ahead *reader);

#endif
