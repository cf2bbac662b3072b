/* Every tensor of a checkpoint: what it is called, what fills it, where it lies. Private. */
#ifndef TSR_RUNTIME_SYNTHETIC_TENSOR_SET_H
#define TSR_RUNTIME_SYNTHETIC_TENSOR_SET_H

#include "proto/plan.h"
#include "runtime/base/arena.h"
#include "runtime/synthetic/precision_words.h"
#include "runtime/synthetic/random_pool.h"

typedef struct tsr_synthetic_tensor {
    const char *name;
    tsr_dtype dtype;
    tsr_random_kind kind;
    int32_t rank; /* 0: a scalar */
    int64_t shape[2];
    float centre;   /* TSR_RANDOM_F32 */
    uint64_t alike; /* TSR_RANDOM_F32: tensors with the same number, not 0, hold the same values */
    uint64_t bytes;
    uint64_t offset; /* behind the header of its file */
    int32_t file;
} tsr_synthetic_tensor;

/* A module that is quantized and the algorithm it is declared with; experts of a layer as one. */
typedef struct tsr_synthetic_declared {
    const char *name;
    tsr_algo algo;
} tsr_synthetic_declared;

/* Zero-initialise; names belong to the arena. */
typedef struct tsr_tensor_set {
    tsr_arena *memory;
    tsr_synthetic_tensor *tensors; /* [count] file by file, in each wide elements first */
    int32_t count;
    int32_t capacity;
    tsr_synthetic_declared *declared; /* [declared_count] in the order of layers */
    int32_t declared_count;
    int32_t files;
    uint64_t bytes;
} tsr_tensor_set;

/*
 *   file_bytes  a file is begun where the last would be larger
 *
 * TSR_ERR_MEMORY. Close the set in any case.
 */
TSR_MUST_USE tsr_status tsr_tensor_set_fill(const tsr_model_facts *model,
                                            const tsr_synthetic_precision *precision,
                                            uint64_t file_bytes, tsr_tensor_set *set);

void tsr_tensor_set_close(tsr_tensor_set *set);

#endif
