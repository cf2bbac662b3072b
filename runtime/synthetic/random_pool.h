/*
 * Random numbers as a checkpoint stores them, made once and written many times: every piece of a
 * tensor is a piece of the pool of its kind, at an offset of its own.
 *
 *   pool     |--------------------------------------------|
 *   tensor       [piece 1]      [piece 0]   [piece 2]
 *
 * Private to this folder.
 */
#ifndef TSR_RUNTIME_SYNTHETIC_RANDOM_POOL_H
#define TSR_RUNTIME_SYNTHETIC_RANDOM_POOL_H

#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* What the elements of a tensor are drawn from. N is the normal distribution. */
typedef enum tsr_random_kind {
    TSR_RANDOM_WEIGHT_BF16, /* N(0, 0.02) */
    TSR_RANDOM_EMBED_BF16,  /* N(0, 1): what tokens are outweighs what layers add, which much of a
                               sequence has in common, so that routing stays close to uniform */
    TSR_RANDOM_NORM_BF16,   /* N(1, 0.1) */
    TSR_RANDOM_E4M3,        /* N(0, 64): a scale of 0.02 / 64 makes it a weight; never NaN */
    TSR_RANDOM_E2M1,        /* two of N(0, 2) in a byte */
    TSR_RANDOM_SCALE_E4M3,  /* 2^u, u in -1..1: scales of e2m1 codes */
    TSR_RANDOM_POOLS,
    TSR_RANDOM_F32 = TSR_RANDOM_POOLS, /* a given value, a quarter more or less; has no pool */
} tsr_random_kind;

/* What makes e4m3 and e2m1 codes weights of standard deviation 0.02. */
#define TSR_RANDOM_E4M3_SCALE (0.02F / 64.0F)
#define TSR_RANDOM_E2M1_SCALE (0.02F / 2.2F)

/* Bytes that stand in a row in the pool, at most. */
enum { TSR_RANDOM_PIECE = 256 << 10 };

typedef struct tsr_random_pool tsr_random_pool;

/* `bytes` of each kind, at least four pieces; close it with tsr_random_pool_close. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_random_pool_open(uint64_t seed, size_t bytes,
                                             tsr_random_pool **ret_pool);

/* The next piece of a tensor: `bytes` of at most TSR_RANDOM_PIECE. *state belongs to the tensor. */
const unsigned char *tsr_random_piece(const tsr_random_pool *pool, tsr_random_kind kind,
                                      size_t bytes, uint64_t *state);

/* The next number of a tensor of TSR_RANDOM_F32 around `centre`. */
float tsr_random_near(float centre, uint64_t *state);

/* Where tensor `index` begins. */
uint64_t tsr_random_state(uint64_t seed, uint64_t index);

/* NULL is allowed. */
void tsr_random_pool_close(tsr_random_pool *pool);

#endif
