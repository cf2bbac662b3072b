/*
 * One safetensors file, seen from its header.
 *
 *     +----------+---------------------------------+-----------------------------------+
 *     | u64 n    | n bytes of JSON                 | payload: tensors back to back     |
 *     +----------+---------------------------------+-----------------------------------+
 *                  {"name": {"dtype": "BF16",      ^ offsets of the header begin here
 *                            "shape": [512, 128],
 *                            "data_offsets": [0, 131072]}, "__metadata__": {...}}
 *
 * A header is believed only when its tensors cover the payload exactly: no overlap, no hole,
 * nothing behind the last, and every tensor as long as its shape says.
 */
#ifndef TSR_RUNTIME_CHECKPOINT_SAFETENSORS_H
#define TSR_RUNTIME_CHECKPOINT_SAFETENSORS_H

#include "runtime/base/arena.h"
#include "runtime/base/dtype.h"
#include "runtime/base/file_mark.h"
#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    TSR_MAX_TENSOR_RANK = 8,
    TSR_MAX_TENSOR_NAME = 512,
    TSR_MAX_HEADER_BYTES = 100 * 1024 * 1024,
};

/* One tensor, as its file's header has it. */
typedef struct tsr_tensor {
    const char *name; /* lives as long as the arena it was read into */
    tsr_dtype dtype;
    int32_t rank;
    int64_t shape[TSR_MAX_TENSOR_RANK];
    int32_t file;    /* the number given when its header was read */
    uint64_t offset; /* from the start of the file */
    uint64_t bytes;
} tsr_tensor;

typedef struct tsr_safetensors {
    tsr_tensor *tensors; /* [count] in the order of the header; owned by the arena */
    size_t count;
    tsr_file_mark mark; /* length and header are its head */
} tsr_safetensors;

/* The beginning of a file, in memory. */
typedef struct tsr_safetensors_bytes {
    const char *name; /* of the file, for messages */
    const char *bytes;
    size_t count;        /* of bytes: at least the length and the header */
    uint64_t file_bytes; /* of the whole file */
    int32_t file;        /* written into every tensor */
} tsr_safetensors_bytes;

/*
 * Reads and checks a header. Every defect is added to `problems` with `name` and the tensor.
 *
 *   path     of the file
 *   name     stands for it in messages
 *   file     written into every tensor
 *   memory   where names and tensors are put; nothing is taken back on failure
 *
 * TSR_ERR_CHECKPOINT  an error was added
 */
TSR_MUST_USE tsr_status tsr_safetensors_open(const char *path, const char *name, int32_t file,
                                             tsr_arena *memory, tsr_problems *problems,
                                             tsr_safetensors *ret_header);

/* The same for bytes in memory. */
TSR_MUST_USE tsr_status tsr_safetensors_parse(const tsr_safetensors_bytes *source,
                                              tsr_arena *memory, tsr_problems *problems,
                                              tsr_safetensors *ret_header);

#endif
