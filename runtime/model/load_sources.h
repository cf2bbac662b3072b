/*
 * The files that weights are read from: each is opened when it is first needed, and read only if it
 * bears its mark. Names and marks are copied, since a thread that is stuck in a read outlives what
 * it was given.
 *
 * Any number of threads may read at once.
 */
#ifndef TSR_RUNTIME_MODEL_LOAD_SOURCES_H
#define TSR_RUNTIME_MODEL_LOAD_SOURCES_H

#include "runtime/base/file_mark.h"
#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tsr_load_sources tsr_load_sources;

/* Bytes begin .. end of a file. */
typedef struct tsr_stretch {
    uint64_t begin;
    uint64_t end;
    int32_t file;
} tsr_stretch;

/* One stretch in memory, or why it is not. */
typedef struct tsr_stretch_bytes {
    const unsigned char *bytes; /* of offset `begin` */
    uint64_t file_bytes;        /* where the file is another one: its size */
    int error; /* errno where the file could not be opened or read, 0 where it is another one */
} tsr_stretch_bytes;

/* TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_load_sources_open(const char *folder, char *const *files,
                                              const tsr_file_mark *marks, int32_t count,
                                              tsr_load_sources **ret_sources);

/*
 * Reads a stretch into a slot of tsr_load_slot_bytes, where its address agrees with its offset
 * modulo 64.
 *
 * TSR_ERR_CHECKPOINT, silently  *ret_bytes has the error, or the size of a file without the mark
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_load_sources_read(tsr_load_sources *sources, const tsr_stretch *stretch,
                                              unsigned char *slot, tsr_stretch_bytes *ret_bytes);

/* When nobody reads any more. NULL is allowed. */
void tsr_load_sources_close(tsr_load_sources *sources);

#endif
