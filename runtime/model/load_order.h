/*
 * What a rank reads, and in which order: every tensor it holds, cut into long stretches.
 *
 * Files are read one after the other. Of each, first what is small and belongs to its weights
 * (scales, biases, wherever they lie), then the weights by offset, so that a weight meets its
 * scales in memory and only one file's scales wait at a time:
 *
 *   file 0 | small pieces ...... | weights ........................ | file 1 | ...
 *          |  stretch  | stretch |  stretch  |  stretch  | stretch  |
 */
#ifndef TSR_RUNTIME_MODEL_LOAD_ORDER_H
#define TSR_RUNTIME_MODEL_LOAD_ORDER_H

#include "proto/plan.h"
#include "runtime/base/arena.h"
#include "runtime/base/status.h"
#include "runtime/model/read_ahead.h"

#include <stddef.h>
#include <stdint.h>

/* Which tensor of a linear a piece is, or that it is a vector. */
typedef enum tsr_part {
    TSR_PART_SCALE,
    TSR_PART_GLOBAL_SCALE,
    TSR_PART_INPUT_SCALE,
    TSR_PART_PRE_QUANT_SCALE,
    TSR_PART_BIAS,
    TSR_PART_WEIGHT,
    TSR_PART_VECTOR,
    TSR_PART_COUNT
} tsr_part;

/* One tensor to read. */
typedef struct tsr_piece {
    tsr_tensor_place place;
    int32_t owner; /* index into the plan's linears, or vectors */
    int32_t group; /* the file whose turn it is read in */
    tsr_part part;
} tsr_piece;

typedef struct tsr_load_order {
    tsr_piece *pieces;      /* [piece_count] in the order they are read */
    tsr_stretch *stretches; /* [stretch_count] */
    size_t *first_piece;    /* [stretch_count + 1] */
    size_t piece_count;
    size_t stretch_count;
    uint64_t bytes; /* of all pieces */
} tsr_load_order;

/* "weight_scale" and so on; "" for vectors. */
const char *tsr_part_name(tsr_part part);

/* Whose tensor a piece is, and where it lies, in words: "model.layers.0....weight in
 * x.safetensors". */
void tsr_piece_words(const tsr_plan *plan, const tsr_piece *piece, size_t capacity,
                     char *ret_words);

/* Elements a piece must hold by its linear's shape and format. */
uint64_t tsr_piece_elements(const tsr_plan *plan, const tsr_piece *piece);

/*
 * Everything that `rank` reads; arrays come from `arena`.
 *
 * TSR_ERR_CHECKPOINT, logged  a tensor's bytes contradict its linear's shape and format
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_load_order_make(const tsr_plan *plan, int32_t rank, tsr_arena *arena,
                                            tsr_load_order *ret_order);

#endif
