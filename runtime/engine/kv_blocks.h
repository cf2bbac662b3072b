/*
 * The KV blocks of one rank: who may write which, and what those hold that nobody writes any more.
 *
 *     free, unknown   | 9 | 4 | 0 |            a stack: the last given is taken next
 *     free, known     7 <-> 2 <-> 5            by when they were given; taken from the front, once no
 *                                              unknown one is left
 *     held            8 by one sequence, 3 by two, ...
 *     by key          key of 3 -> 3, key of 7 -> 7, ...
 *
 * A block is known once it is full and has a key: whoever has the same tokens from the beginning holds
 * it too, instead of computing it again. Nobody writes a block that is known.
 */
#ifndef TSR_RUNTIME_ENGINE_KV_BLOCKS_H
#define TSR_RUNTIME_ENGINE_KV_BLOCKS_H

#include "runtime/base/arena.h"

#include <stdbool.h>
#include <stdint.h>

/* Of a block's tokens and all tokens before them. All zero: none. */
typedef struct tsr_block_key {
    uint64_t low;
    uint64_t high;
} tsr_block_key;

/* Lists are of ids, which -1 ends. */
typedef struct tsr_kv_block {
    tsr_block_key key; /* zero: unknown */
    int32_t holders;
    int32_t next;     /* free: in its list */
    int32_t previous; /* free and known */
    int32_t chain;    /* known: the next of its bucket */
} tsr_kv_block;

typedef struct tsr_kv_blocks {
    tsr_kv_block *block; /* [total] */
    int32_t *bucket;     /* [bucket_mask + 1] */
    uint64_t bucket_mask;
    int32_t unknown; /* the top of the stack */
    int32_t oldest;  /* of those free and known */
    int32_t newest;
    int32_t count; /* free now */
    int32_t total;
} tsr_kv_blocks;

/* All of 0..total-1 are free and unknown. The blocks live in `memory`. False: there is not enough. */
bool tsr_kv_blocks_open(tsr_arena *memory, int32_t total, tsr_kv_blocks *ret_blocks);

/* `count` ids into `ids`, each now held once and unknown; or false and nothing taken when fewer are
 * free. */
bool tsr_kv_blocks_take(tsr_kv_blocks *blocks, int32_t count, uint32_t *ids);

/* Gives ids back that were taken or held, in order of position: of those that stay known, the last are
 * the first to be taken again. */
void tsr_kv_blocks_give(tsr_kv_blocks *blocks, int32_t count, const uint32_t *ids);

/* The block of that key, -1 when none is known. */
int32_t tsr_kv_blocks_find(const tsr_kv_blocks *blocks, tsr_block_key key);

/* One holder more for a block that is known. */
void tsr_kv_blocks_hold(tsr_kv_blocks *blocks, uint32_t id);

/* Makes a held block known, unless it is or another one is by that key. */
void tsr_kv_blocks_know(tsr_kv_blocks *blocks, uint32_t id, tsr_block_key key);

/* Makes a held block unknown. */
void tsr_kv_blocks_forget(tsr_kv_blocks *blocks, uint32_t id);

#endif
