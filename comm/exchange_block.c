/* Areas of a block: | send_rows .. | send_ranks .. | ..., each rounded up to a cache line. */
#include "comm/exchange_block.h"

#include "runtime/base/sizes.h"

#include <stdlib.h>

tsr_status tsr_exchange_block_open(uint64_t bytes, tsr_exchange_block *ret_block)
{
    void *memory = NULL;
    if (posix_memalign(&memory, TSR_ALIGNMENT, bytes) != 0)
        return TSR_ERR_MEMORY;
    *ret_block = (tsr_exchange_block){.memory = memory};
    return TSR_OK;
}

void *tsr_exchange_block_take(tsr_exchange_block *block, uint64_t count, uint64_t bytes)
{
    void *area = block->memory != NULL ? block->memory + block->used : NULL;
    block->used += tsr_aligned(count * bytes, TSR_ALIGNMENT);
    return area;
}

void tsr_exchange_block_close(tsr_exchange_block *block)
{
    free(block->memory);
    block->memory = NULL;
}
