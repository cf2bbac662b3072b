/* A stack of free KV blocks. */
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
