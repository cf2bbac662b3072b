/*
 * One piece of device memory for all layers, taken once, cut here and never moved:
 *
 *   | layer 0 keys: block 0, 1, ... | layer 0 values: block 0, 1, ... | layer 1 keys: ...
 *   '----------- half --------------'
 *
 * A block has the same number in every half, so one table of ids serves all layers of a sequence.
 * Nobody writes it before tokens come: on a host, blocks that are never given stay untouched pages.
 */
#include "runtime/model/kv_cache.h"

#include "runtime/plan/shapes.h"

tsr_status tsr_kv_cache_open(const tsr_plan *plan, tsr_device *device, tsr_arena *arena,
                             tsr_kv_cache *ret_cache)
{
    const tsr_model_facts *model = &plan->model;
    tsr_kv_cache cache = {.device = device};
    cache.layer = tsr_arena_array(arena, (size_t)model->layers, sizeof(*cache.layer));
    if (cache.layer == NULL)
        return TSR_ERR_MEMORY;

    const uint64_t bytes = tsr_kv_bytes(model, &plan->limits, plan->kv_format);
    const tsr_status st = tsr_device_alloc(device, bytes, &cache.memory);
    if (st != TSR_OK)
        return st;

    const uint64_t half = tsr_kv_half_bytes(model, &plan->limits, plan->kv_format);
    unsigned char *at = cache.memory;
    for (int32_t l = 0; l < model->layers; l++, at += 2 * half) {
        cache.layer[l] = (tsr_kv_layer){
            .keys = at,
            .values = at + half,
            .format = plan->kv_format,
            .key_scale = 1,
            .value_scale = 1,
            .blocks = plan->limits.kv_blocks,
            .block_tokens = plan->limits.kv_block_tokens,
            .kv_heads = model->kv_heads,
            .head_dim = model->head_dim,
        };
    }
    *ret_cache = cache;
    return TSR_OK;
}

void tsr_kv_cache_close(tsr_kv_cache *cache)
{
    if (cache == NULL || cache->memory == NULL)
        return;
    tsr_device_free(cache->device, cache->memory);
    cache->memory = NULL;
}
