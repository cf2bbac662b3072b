/* Every tensor of a checkpoint, from the headers of its files. Private. */
#ifndef TSR_RUNTIME_CHECKPOINT_TENSOR_LIST_H
#define TSR_RUNTIME_CHECKPOINT_TENSOR_LIST_H

#include "runtime/base/arena.h"
#include "runtime/base/model_facts.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/checkpoint/shard_index.h"

/* Lists are owned by the arena; close with tsr_tensor_list_close. */
typedef struct tsr_tensor_list {
    tsr_shard_index index; /* which files there are */
    tsr_file_mark *marks;  /* [index.file_count] */
    tsr_tensor *tensors;   /* [count] */
    size_t count;
} tsr_tensor_list;

/*
 * Reads the index and every header, also after a bad one, so that all bad files are named at once.
 *
 * TSR_ERR_CHECKPOINT  errors were added; *ret_list is not written
 */
TSR_MUST_USE tsr_status tsr_tensor_list_read(const char *folder, tsr_arena *memory,
                                             tsr_problems *problems, tsr_tensor_list *ret_list);

/* Compares the files with their index, makes names canonical, sorts, refuses names that come
 * twice. */
TSR_MUST_USE tsr_status tsr_tensor_list_settle(tsr_tensor_list *list, const tsr_model_facts *model,
                                               tsr_arena *memory, tsr_problems *problems);

void tsr_tensor_list_close(tsr_tensor_list *list);

/* Orders tensors by name, for qsort and bsearch. */
int tsr_tensor_compare_names(const void *left, const void *right);

#endif
