/*
 * Keys and values of every layer, carved from one piece of device memory:
 *
 *   | layer 0 keys | layer 0 values | layer 1 keys | ...
 *
 * Which block belongs to which sequence is the scheduler's business.
 */
#ifndef TSR_RUNTIME_MODEL_KV_CACHE_H
#define TSR_RUNTIME_MODEL_KV_CACHE_H

#include "kernels/blocks.h"
#include "proto/plan.h"
#include "runtime/base/arena.h"
#include "runtime/base/status.h"

typedef struct tsr_kv_cache {
    tsr_kv_layer *layer; /* [layers]; scales are 1 until the weights are there */
    tsr_device *device;
    void *memory;
} tsr_kv_cache;

/* `layer` comes from the arena. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_kv_cache_open(const tsr_plan *plan, tsr_device *device,
                                          tsr_arena *arena, tsr_kv_cache *ret_cache);

/* NULL and a zeroed struct are allowed. */
void tsr_kv_cache_close(tsr_kv_cache *cache);

#endif
