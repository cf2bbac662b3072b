/*
 * Reading the paged cache into f32.
 */
#include "kernels/cpu/kv_cpu.h"

#include "kernels/cpu/lanes.h"

const float *ISA(tsr_kv_read)(const tsr_kv_layer *cache, const void *memory, tsr_kv_place place,
                              int32_t positions, float *tile)
{
    const size_t dim = (size_t)cache->head_dim;
    const size_t head = (size_t)place.block * (size_t)cache->kv_heads + (size_t)place.head;
    const size_t at = (head * (size_t)cache->block_tokens + (size_t)place.slot) * dim;
    const size_t count = (size_t)positions * dim;

    if (cache->format == TSR_KV_F32)
        return (const float *)memory + at;
    for (size_t i = 0; i < count; i += LANES) {
        lanes_store(tile + i, cache->format == TSR_KV_BF16
                                  ? lanes_from_bf16((const uint16_t *)memory + at + i)
                                  : lanes_from_e4m3((const uint8_t *)memory + at + i));
    }
    return tile;
}

float ISA(tsr_kv_unit)(tsr_kv_format format)
{
    return format == TSR_KV_FP8 ? 256.0F : 1.0F;
}
