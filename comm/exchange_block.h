/*
 * One block of host memory, cut into areas one after the other; every area starts on a cache line,
 * for SIMD loads and so that no two threads share one. Without memory it only measures, so that
 * what is counted is what is taken.
 */
#ifndef TSR_COMM_EXCHANGE_BLOCK_H
#define TSR_COMM_EXCHANGE_BLOCK_H

#include "runtime/base/status.h"

#include <stdint.h>

typedef struct tsr_exchange_block {
    unsigned char *memory; /* NULL: only measures */
    uint64_t used;
} tsr_exchange_block;

/* Room for so many bytes. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_exchange_block_open(uint64_t bytes, tsr_exchange_block *ret_block);

/* The next area: `count` elements of `bytes` bytes each. NULL where it only measures. */
void *tsr_exchange_block_take(tsr_exchange_block *block, uint64_t count, uint64_t bytes);

void tsr_exchange_block_close(tsr_exchange_block *block);

#endif
