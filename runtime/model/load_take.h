/*
 * What becomes of a piece that has been read: checked, and laid out where it belongs. Several
 * threads may take pieces at once, each with a scratch of its own, where the device lets them
 * (tsr_device_loaders).
 */
#ifndef TSR_RUNTIME_MODEL_LOAD_TAKE_H
#define TSR_RUNTIME_MODEL_LOAD_TAKE_H

#include "runtime/base/arena.h"
#include "runtime/model/load_order.h"
#include "runtime/model/load_weights.h"

enum { TSR_LOAD_WORDS_BYTES = 1024 };

/* Where a linear goes. */
typedef struct tsr_load_target {
    tsr_linear *linear;    /* the model's own view */
    unsigned char *memory; /* NULL: on another rank */
} tsr_load_target;

/* Where everything goes. Set up before anything is read; then only scales of whole tensors, each
 * of its own linear or layer, are still written. */
typedef struct tsr_load_targets {
    tsr_load_target *linears; /* [linear_count] */
    unsigned char **vectors;  /* [vector_count] */
} tsr_load_targets;

/* One who takes pieces. */
typedef struct tsr_taker {
    const tsr_loader_args *args;
    const tsr_load_targets *targets;
    tsr_mark *mark; /* behind what was put last */
    void *scratch;  /* host memory of the device */
    size_t scratch_bytes;
    char *words; /* [TSR_LOAD_WORDS_BYTES] what is wrong, where a status is returned */
} tsr_taker;

/*
 * Gives every linear and vector that the rank reads its place in the memory of the weights, in the
 * plan's order, and fills the views of the model. The order has been made: places are sound.
 *
 * TSR_ERR_CHECKPOINT  in words
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_load_targets_place(const tsr_loader_args *args, tsr_arena *arena,
                                               char *words, tsr_load_targets *ret_targets);

/*
 * Lays out a piece, or some rows of one.
 *
 * TSR_ERR_CHECKPOINT  in words: a NaN, an impossible scale, no place for it
 * TSR_ERR_TIMEOUT     in words: the device does not take it
 */
TSR_MUST_USE tsr_status tsr_take_piece(const tsr_taker *taker, const tsr_piece *piece,
                                       const unsigned char *bytes);

/* Waits until the device is done with what was put, `piece` last: slot and scratch are free then.
 * As above. */
TSR_MUST_USE tsr_status tsr_taker_settle(const tsr_taker *taker, const tsr_piece *piece);

#endif
