/* Files, read by explicit offset and length. Nothing is mapped. */
#ifndef TSR_RUNTIME_BASE_FILE_H
#define TSR_RUNTIME_BASE_FILE_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_file {
    int descriptor;
    uint64_t bytes; /* size when it was opened */
} tsr_file;

/* Opens for reading. TSR_ERR_CHECKPOINT, silently: the caller knows what the file was for; errno is
 * kept. */
TSR_MUST_USE tsr_status tsr_file_open(const char *path, tsr_file *ret_file);

/* Exactly `bytes` bytes at `offset`, or TSR_ERR_CHECKPOINT (a short file, an I/O error),
 * silently. */
TSR_MUST_USE tsr_status tsr_file_read(const tsr_file *file, uint64_t offset, size_t bytes,
                                      void *into);

void tsr_file_close(tsr_file *file);

/*
 * A whole file with a zero byte behind it; the caller frees *ret_text.
 * TSR_ERR_CHECKPOINT, silently, when it cannot be read or is larger than `max_bytes`.
 */
TSR_MUST_USE tsr_status tsr_file_read_text(const char *path, size_t max_bytes, char **ret_text,
                                           size_t *ret_bytes);

bool tsr_file_exists(const char *path);

/* "folder/name"; TSR_ERR_ARG when it does not fit into `capacity` bytes. */
TSR_MUST_USE tsr_status tsr_path_join(const char *folder, const char *name, size_t capacity,
                                      char *ret_path);

#endif
