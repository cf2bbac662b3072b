/*
 * The KV blocks of one rank that no sequence holds: a stack of ids.
 *
 *     free  | 9 | 4 | 0 | 7 |            take pops 7, then 0; give pushes
 *                         ^ count
 */
#ifndef TSR_RUNTIME_ENGINE_KV_BLOCKS_H
#define TSR_RUNTIME_ENGINE_KV_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_kv_blocks {
    uint32_t *free; /* [total], borrowed */
    int32_t count;  /* free now */
    int32_t total;
} tsr_kv_blocks;

/* All of 0..total-1 are free. `memory` has room for `total` ids and outlives the blocks. */
tsr_kv_blocks tsr_kv_blocks_over(uint32_t *memory, int32_t total);

/* `count` ids into `ids`, or false and nothing taken when there are fewer. */
bool tsr_kv_blocks_take(tsr_kv_blocks *blocks, int32_t count, uint32_t *ids);

/* Gives ids back that were taken. */
void tsr_kv_blocks_give(tsr_kv_blocks *blocks, int32_t count, const uint32_t *ids);

#endif
