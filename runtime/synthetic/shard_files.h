/* The .safetensors files of a tensor set. Private to this folder. */
#ifndef TSR_RUNTIME_SYNTHETIC_SHARD_FILES_H
#define TSR_RUNTIME_SYNTHETIC_SHARD_FILES_H

#include "runtime/synthetic/tensor_set.h"

enum { TSR_SHARD_NAME_BYTES = 64 };

/* "model-00001-of-00004.safetensors" */
void tsr_shard_name(const tsr_tensor_set *set, int32_t file, char ret_name[TSR_SHARD_NAME_BYTES]);

/*
 * Writes all of them with so many threads: straight from the pool, tensor by tensor.
 *
 * TSR_ERR_OUTPUT, logged; TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_shard_files_write(const char *folder, const tsr_tensor_set *set,
                                              const tsr_random_pool *pool, uint64_t seed,
                                              int32_t threads);

#endif
