/*
 * Inside the CPU device: reading and writing the paged cache.
 */
#ifndef TSR_KERNELS_CPU_KV_CPU_H
#define TSR_KERNELS_CPU_KV_CPU_H

#include "kernels/cpu/isa.h"
#include "kernels/ops.h"

typedef struct tsr_kv_place {
    int32_t block;
    int32_t slot;
    int32_t head;
} tsr_kv_place;

/* `positions` rows of D floats from `place` on, within one block: in the cache itself where it is
 * f32, else decoded into `tile`. Values are in units of tsr_kv_unit; scales are left out. */
const float *ISA(tsr_kv_read)(const tsr_kv_layer *cache, const void *memory, tsr_kv_place place,
                              int32_t positions, float *tile);

/* A power of two. */
float ISA(tsr_kv_unit)(tsr_kv_format format);

/* Stores one position's keys and values, [kv_heads, D] each. */
void tsr_kv_write(const tsr_kv_layer *cache, int32_t block, int32_t slot, const float *k,
                  const float *v);

#endif
