/*
 * A stack of free KV blocks, and who holds the others. The coordinator alone gives and takes; a
 * rank is told the ids in step entries and checks them against its own record.
 *
 *   coordinator   free | 9 | 4 |  -- take, for the next tokens -->   A.blocks | 7 | 0 | by position
 *                                 <-- give, ended or preempted --    B.blocks | 2 |
 *   rank          block_owner[7] = block_owner[0] = slot of A, [2] = slot of B, all others -1
 *
 * Low ids go first and the last given goes next: where memory is only there once it is touched, a
 * cache that never fills stays small. Given back in reverse, ids are taken again in the order they
 * had.
 */
#include "runtime/engine/kv_blocks.h"

tsr_kv_blocks tsr_kv_blocks_over(uint32_t *memory, int32_t total)
{
    for (int32_t i = 0; i < total; i++)
        memory[i] = (uint32_t)(total - 1 - i);
    return (tsr_kv_blocks){.free = memory, .count = total, .total = total};
}

bool tsr_kv_blocks_take(tsr_kv_blocks *blocks, int32_t count, uint32_t *ids)
{
    if (count > blocks->count)
        return false;
    for (int32_t i = 0; i < count; i++)
        ids[i] = blocks->free[--blocks->count];
    return true;
}

void tsr_kv_blocks_give(tsr_kv_blocks *blocks, int32_t count, const uint32_t *ids)
{
    for (int32_t i = count; i > 0; i--)
        blocks->free[blocks->count++] = ids[i - 1];
}
