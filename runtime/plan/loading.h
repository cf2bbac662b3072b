/*
 * What reading weights takes on the host of a rank, beside the weights: the same numbers for the
 * plan that counts it and the loader that takes it.
 *
 *   | ring: slots of a piece each | scratch | a record of each piece, of each tensor |
 *
 * A piece is what is read at once: many small tensors that lie together, or some rows of a large
 * one. Nothing grows with the largest tensor. Threads that lay out what they read share the same bytes,
 * a slot and a scratch each.
 */
#ifndef TSR_RUNTIME_PLAN_LOADING_H
#define TSR_RUNTIME_PLAN_LOADING_H

#include "proto/plan.h"

#include <stddef.h>
#include <stdint.h>

enum {
    TSR_LOAD_PIECE_BYTES = 16 << 20,
    TSR_LOAD_SLOTS = 2,               /* one is filled while the other is laid out */
    TSR_LOAD_SHARE_BYTES = 256 << 10, /* where each thread lays out what it reads: fits its cache */
    TSR_LOAD_SCRATCH_BYTES = 2 << 20, /* numbers turned into f32; rows that lie at an odd offset */
    TSR_LOAD_PIECE_RECORD_BYTES = 128,
    TSR_LOAD_TENSOR_RECORD_BYTES = 96,
};

/* What there is to read. */
typedef struct tsr_load_count {
    uint64_t pieces;   /* at most */
    uint64_t records;  /* linears and vectors */
    uint64_t file_end; /* no stretch of a file is longer than the longest file */
} tsr_load_count;

/* Adds one tensor; nothing when it does not exist. */
void tsr_load_count_add(tsr_load_count *count, const tsr_tensor_place *place);

/* Bytes of one slot whose longest stretch has so many. */
size_t tsr_load_slot_bytes(uint64_t longest);

/* All of the above together, at most. */
uint64_t tsr_load_bytes(const tsr_load_count *count);

#endif
