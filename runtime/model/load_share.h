/*
 * An order cut into what one thread reads and lays out at once, so small that it is still in the
 * processor's cache when it is laid out:
 *
 *   pieces   | scales | scales | scales | a weight ............................ | a weight .. |
 *   shares   |           0              |    1: rows    |   2: rows   |  3     |      4      |
 *
 * A share is several whole pieces of one stretch, or some rows of one piece.
 */
#ifndef TSR_RUNTIME_MODEL_LOAD_SHARE_H
#define TSR_RUNTIME_MODEL_LOAD_SHARE_H

#include "runtime/model/load_order.h"

#include <stdbool.h>

typedef struct tsr_load_share {
    tsr_stretch place; /* what is read for it */
    size_t first_piece;
    size_t pieces;
    tsr_piece part; /* of the piece, where it is cut: count 0 where it is not */
} tsr_load_share;

/* Where the next share begins; zeroed at first. */
typedef struct tsr_load_cursor {
    size_t stretch;
    size_t piece;
    int32_t row; /* of the piece */
} tsr_load_cursor;

/* How an order is cut further. */
typedef struct tsr_load_shares {
    const tsr_plan *plan;
    const tsr_device *device;
    const tsr_load_order *order;
    size_t most; /* bytes of a share, where rows that belong together are no longer */
} tsr_load_shares;

/* False at the end. */
bool tsr_load_share_next(const tsr_load_shares *shares, tsr_load_cursor *cursor,
                         tsr_load_share *ret_share);

/* Bytes of the longest share. */
uint64_t tsr_load_share_longest(const tsr_load_shares *shares);

/* Its piece number i, whole or cut. */
const tsr_piece *tsr_load_share_piece(const tsr_load_shares *shares, const tsr_load_share *share,
                                      size_t i);

/* Bytes of its pieces, without what is read over between them. */
uint64_t tsr_load_share_bytes(const tsr_load_shares *shares, const tsr_load_share *share);

#endif
