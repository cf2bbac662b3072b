/*
 * Which files hold the tensors: model.safetensors alone, or the shards that
 * model.safetensors.index.json names.
 *
 *     {"metadata": {...}, "weight_map": {TENSOR: FILE, ...}}
 *
 * A file that the index does not name is never opened.
 */
#ifndef TSR_RUNTIME_CHECKPOINT_SHARD_INDEX_H
#define TSR_RUNTIME_CHECKPOINT_SHARD_INDEX_H

#include "runtime/base/arena.h"
#include "runtime/base/model_facts.h"
#include "runtime/base/problems.h"
#include "runtime/base/status.h"
#include "runtime/checkpoint/safetensors.h"

#include <jansson.h>
#include <stddef.h>

typedef struct tsr_shard_index {
    char **files; /* [file_count] names inside the folder; owned by the arena */
    size_t file_count;
    json_t *weight_map; /* NULL: there is no index */
} tsr_shard_index;

/*
 * Close with tsr_shard_index_close.
 *
 * TSR_ERR_CHECKPOINT  neither form is there, both are, or the index is malformed; an error was
 *                     added
 */
TSR_MUST_USE tsr_status tsr_shard_index_open(const char *folder, tsr_arena *memory,
                                             tsr_problems *problems, tsr_shard_index *ret_index);

/*
 * Compares the index with the tensors of all files: each tensor of the index is in the file that it
 * names, each tensor of a file is in the index. Layers of further prediction need not be.
 *
 *   tensors  [count] named as their files name them
 *
 * TSR_ERR_CHECKPOINT  they differ; errors were added
 */
TSR_MUST_USE tsr_status tsr_shard_index_check(const tsr_shard_index *index,
                                              const tsr_model_facts *model,
                                              const tsr_tensor *tensors, size_t count,
                                              tsr_problems *problems);

void tsr_shard_index_close(tsr_shard_index *index);

#endif
