/*
 * What tells a file from another of its name, without reading it whole: its size and its beginning.
 * Whoever plans with a file leaves its mark in the plan; whoever reads it later looks for the mark.
 */
#ifndef TSR_RUNTIME_BASE_FILE_MARK_H
#define TSR_RUNTIME_BASE_FILE_MARK_H

#include "runtime/base/file.h"

typedef struct tsr_file_mark {
    uint64_t bytes;      /* of the file */
    uint64_t head_bytes; /* at its beginning */
    uint64_t head_digest;
} tsr_file_mark;

/* The mark of a file of `bytes` bytes that begins with `head`. */
tsr_file_mark tsr_file_mark_of(uint64_t bytes, const void *head, size_t head_bytes);

/*
 * Writes whether the file bears the mark.
 *
 * TSR_ERR_CHECKPOINT, silently  its beginning cannot be read; errno is kept
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_file_bears(const tsr_file *file, const tsr_file_mark *mark,
                                       bool *ret_bears);

/* The digest of all of a file; 0 when it cannot be read. */
uint64_t tsr_file_digest(const char *path);

#endif
