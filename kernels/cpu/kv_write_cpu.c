/*
 * Writing the paged cache: scalar, the conversions of numeric.h themselves.
 */
#include "kernels/cpu/kv_cpu.h"

#include "runtime/base/numeric.h"

#include <string.h>

static void store(const tsr_kv_layer *cache, void *memory, size_t at, const float *x, float scale)
{
    const size_t dim = (size_t)cache->head_dim;

    if (cache->format == TSR_KV_F32) {
        memcpy((float *)memory + at, x, dim * sizeof(*x));
        return;
    }
    for (size_t i = 0; i < dim; i++) {
        if (cache->format == TSR_KV_BF16)
            ((uint16_t *)memory)[at + i] = tsr_f32_to_bf16(x[i]);
        else
            ((uint8_t *)memory)[at + i] = tsr_f32_to_e4m3(x[i] / scale);
    }
}

void tsr_kv_write(const tsr_kv_layer *cache, int32_t block, int32_t slot, const float *k,
                  const float *v)
{
    const size_t dim = (size_t)cache->head_dim;

    for (size_t h = 0; h < (size_t)cache->kv_heads; h++) {
        const size_t head = (size_t)block * (size_t)cache->kv_heads + h;
        const size_t at = (head * (size_t)cache->block_tokens + (size_t)slot) * dim;
        store(cache, cache->keys, at, k + h * dim, cache->key_scale);
        store(cache, cache->values, at, v + h * dim, cache->value_scale);
    }
}
