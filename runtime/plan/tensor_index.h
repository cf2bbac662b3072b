/*
 * The tensors of a checkpoint by module, and which of them have found their use: in the end every
 * one has, or the checkpoint is refused.
 */
#ifndef TSR_RUNTIME_PLAN_TENSOR_INDEX_H
#define TSR_RUNTIME_PLAN_TENSOR_INDEX_H

#include "runtime/checkpoint/checkpoint.h"

/* Zero-initialise; open once, close always. */
typedef struct tsr_tensor_index {
    const tsr_checkpoint *checkpoint;
    unsigned char *consumed; /* [tensor_count] */
} tsr_tensor_index;

/* TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_tensor_index_open(const tsr_checkpoint *checkpoint,
                                              tsr_tensor_index *index);

/* The tensors whose names begin with the module's name and a dot: *ret_count of them from the
 * index returned. */
size_t tsr_tensor_index_module(const tsr_tensor_index *index, const char *module,
                               size_t *ret_count);

/* NULL is allowed. */
void tsr_tensor_index_consume(tsr_tensor_index *index, const tsr_tensor *tensor);

void tsr_tensor_index_close(tsr_tensor_index *index);

#endif
