/* 16 random bits choose from a table of 65536 draws: the logarithms are paid once for each table, an
 * element costs a load and a store. */
#include "runtime/synthetic/random_pool.h"

#include "runtime/base/numeric.h"
#include "runtime/base/sizes.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

enum { DRAWS = 1 << 16, LEAST_PIECES = 4 };

struct tsr_random_pool {
    size_t bytes; /* of each kind */
    unsigned char *pool[TSR_RANDOM_POOLS];
};

/* splitmix64 */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15U;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

uint64_t tsr_random_state(uint64_t seed, uint64_t index)
{
    uint64_t state = seed ^ (index * 0xd1342543de82ef95U + 1);
    return next(&state);
}

/* In (0, 1). */
static float uniform(uint64_t *state)
{
    return ((float)(next(state) >> 41) + 0.5F) * 0x1p-23F;
}

static float normal(uint64_t *state)
{
    const float radius = sqrtf(-2.0F * logf(uniform(state)));
    return radius * cosf(6.2831853F * uniform(state));
}

/* One element as it is stored; bytes have theirs in the lower half. */
static uint16_t draw(tsr_random_kind kind, uint64_t *state)
{
    switch (kind) {
    case TSR_RANDOM_WEIGHT_BF16:
        return tsr_f32_to_bf16(0.02F * normal(state));
    case TSR_RANDOM_EMBED_BF16:
        return tsr_f32_to_bf16(normal(state));
    case TSR_RANDOM_NORM_BF16:
        return tsr_f32_to_bf16(1.0F + 0.1F * normal(state));
    case TSR_RANDOM_E4M3:
        return tsr_f32_to_e4m3(64.0F * normal(state));
    case TSR_RANDOM_E2M1: {
        const unsigned low = tsr_f32_to_e2m1(2.0F * normal(state));
        const unsigned high = tsr_f32_to_e2m1(2.0F * normal(state));
        return (uint16_t)(low | high << 4);
    }
    case TSR_RANDOM_SCALE_E4M3:
        return tsr_f32_to_e4m3(exp2f(2.0F * uniform(state) - 1.0F));
    case TSR_RANDOM_F32:
        break;
    }
    return 0;
}

static void fill(tsr_random_kind kind, const uint16_t *table, size_t bytes, uint64_t state,
                 unsigned char *pool)
{
    const bool wide = kind == TSR_RANDOM_WEIGHT_BF16 || kind == TSR_RANDOM_EMBED_BF16 ||
                      kind == TSR_RANDOM_NORM_BF16;
    uint16_t *words = (uint16_t *)(void *)pool;

    for (size_t i = 0; i < (wide ? bytes / 2 : bytes); i += 4) {
        const uint64_t bits = next(&state);
        for (size_t j = 0; j < 4; j++) {
            const uint16_t element = table[(bits >> (16 * j)) & (DRAWS - 1)];
            if (wide)
                words[i + j] = element;
            else
                pool[i + j] = (unsigned char)element;
        }
    }
}

static tsr_status open_kind(tsr_random_pool *pool, tsr_random_kind kind, uint64_t seed,
                            uint16_t *table)
{
    uint64_t state = tsr_random_state(~seed, (uint64_t)kind);

    pool->pool[kind] = malloc(pool->bytes);
    if (pool->pool[kind] == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < DRAWS; i++)
        table[i] = draw(kind, &state);
    fill(kind, table, pool->bytes, state, pool->pool[kind]);
    return TSR_OK;
}

tsr_status tsr_random_pool_open(uint64_t seed, size_t bytes, tsr_random_pool **ret_pool)
{
    tsr_random_pool *pool = calloc(1, sizeof(*pool));
    uint16_t *table = calloc(DRAWS, sizeof(*table));
    tsr_status st = pool != NULL && table != NULL ? TSR_OK : TSR_ERR_MEMORY;

    if (st == TSR_OK)
        pool->bytes = (size_t)tsr_aligned(
            tsr_larger_size(bytes, (uint64_t)LEAST_PIECES * TSR_RANDOM_PIECE), TSR_ALIGNMENT);
    for (int kind = 0; st == TSR_OK && kind < TSR_RANDOM_POOLS; kind++)
        st = open_kind(pool, (tsr_random_kind)kind, seed, table);
    free(table);
    if (st == TSR_OK)
        *ret_pool = pool;
    else
        tsr_random_pool_close(pool);
    return st;
}

const unsigned char *tsr_random_piece(const tsr_random_pool *pool, tsr_random_kind kind,
                                      size_t bytes, uint64_t *state)
{
    /* even, so that a bf16 stays one */
    return pool->pool[kind] + (next(state) % (pool->bytes - bytes + 1) & ~(uint64_t)1);
}

float tsr_random_near(float centre, uint64_t *state)
{
    return centre * (0.75F + 0.5F * uniform(state));
}

void tsr_random_pool_close(tsr_random_pool *pool)
{
    if (pool == NULL)
        return;
    for (int kind = 0; kind < TSR_RANDOM_POOLS; kind++)
        free(pool->pool[kind]);
    free(pool);
}
