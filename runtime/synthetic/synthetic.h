/*
 * Checkpoints without a model: a released shape, any precision map, random weights. What is written
 * is read, proven and loaded like any other checkpoint, and what it computes stays finite: weights
 * of standard deviation 0.02 in every format, norms near 1, routing close to uniform.
 *
 *   shape      as released, or fewer layers, or a smaller vocabulary
 *   precision  "experts=nvfp4,fp8,attention=bf16": a module and its formats. Of several, the first
 *              layer that has the module takes the first, the next layer the second, and around
 *              again: two formats have half of the layers each. What is not named is bf16.
 */
#ifndef TSR_RUNTIME_SYNTHETIC_SYNTHETIC_H
#define TSR_RUNTIME_SYNTHETIC_SYNTHETIC_H

#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tsr_synthetic_request {
    const char *shape;     /* one of tsr_synthetic_shape_name */
    const char *precision; /* NULL: bf16 everywhere */
    const char *folder;    /* missing or empty */
    int32_t layers;        /* the first so many; 0: all */
    int32_t vocab;         /* 0: as released */
    int32_t threads;       /* that write */
    uint64_t seed;
} tsr_synthetic_request;

typedef struct tsr_synthetic_result {
    uint64_t bytes; /* of all tensors */
    int32_t tensors;
    int32_t files; /* that hold them */
    int64_t ns;    /* that making and writing them took */
} tsr_synthetic_result;

/*
 * What a request asks for in vain is said before a byte is written.
 *
 * TSR_ERR_ARG, logged     no such shape, module or format; the folder is not empty
 * TSR_ERR_OUTPUT, logged  a file cannot be written
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_synthetic_check(const tsr_synthetic_request *request);
TSR_MUST_USE tsr_status tsr_synthetic_write(const tsr_synthetic_request *request,
                                            tsr_synthetic_result *ret_result);

/* "qwen3-30b-a3b"; NULL behind the last. */
const char *tsr_synthetic_shape_name(size_t index);

/* "experts", "attention"; NULL behind the last. */
const char *tsr_synthetic_module_name(size_t index);

/* "bf16", "nvfp4"; NULL behind the last. */
const char *tsr_synthetic_format_name(size_t index);

#endif
