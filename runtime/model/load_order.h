/*
 * What a rank reads, and in which order: every tensor it holds, whole or in rows, gathered into
 * stretches that are read at once.
 *
 * Files are read one after the other. Of each, first what is small and belongs to its weights
 * (scales, biases, wherever they lie), then the weights by offset, so that scales are in their place
 * when a weight comes:
 *
 *   file 0 | small pieces ...... | weights ........................ | file 1 | ...
 *          |  stretch  | stretch |  stretch  |  stretch  | stretch  |
 *
 * A tensor that is longer than a stretch may be is cut into pieces of whole rows.
 */
#ifndef TSR_RUNTIME_MODEL_LOAD_ORDER_H
#define TSR_RUNTIME_MODEL_LOAD_ORDER_H

#include "kernels/device.h"
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

/* One tensor to read, or some rows of it: rows of a weight or of its scales, elements of all
 * else. */
typedef struct tsr_piece {
    tsr_tensor_place place; /* of these rows */
    int32_t owner;          /* index into the plan's linears, or vectors */
    int32_t group;          /* the file whose turn it is read in */
    tsr_part part;
    int32_t first;
    int32_t count;
} tsr_piece;

typedef struct tsr_load_order {
    tsr_piece *pieces;      /* [piece_count] in the order they are read */
    tsr_stretch *stretches; /* [stretch_count] */
    size_t *first_piece;    /* [stretch_count + 1] */
    size_t piece_count;
    size_t stretch_count;
    uint64_t bytes;   /* of all pieces */
    uint64_t longest; /* stretch */
} tsr_load_order;

/* "weight_scale" and so on; "" for vectors. */
const char *tsr_part_name(tsr_part part);

/* Whose tensor a piece is, and where it lies, in words: "model.layers.0....weight in
 * x.safetensors". */
void tsr_piece_words(const tsr_plan *plan, const tsr_piece *piece, size_t capacity,
                     char *ret_words);

/* Rows of the whole tensor, as its linear's shape and format have them. */
int32_t tsr_piece_rows(const tsr_plan *plan, const tsr_piece *piece);

/* Stored elements of one of its rows. */
int32_t tsr_piece_columns(const tsr_plan *plan, const tsr_piece *piece);

/* How tensors are cut. */
typedef struct tsr_load_cut {
    const tsr_device *device; /* whose rows belong together (tsr_device_row_step) */
    size_t piece_bytes;       /* of a stretch at most */
} tsr_load_cut;

/*
 * Everything that `rank` reads; arrays come from `arena`.
 *
 * TSR_ERR_CHECKPOINT, logged  a tensor contradicts its linear's shape and format, or is missing;
 *                             rows that belong together are longer than a piece
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_load_order_make(const tsr_plan *plan, int32_t rank,
                                            const tsr_load_cut *cut, tsr_arena *arena,
                                            tsr_load_order *ret_order);

#endif
