/*
 * Ranks without a model: they follow steps as real ones do, keep a KV cache of tokens instead of
 * keys and values, and "sample" a hash of everything the cache holds of a sequence. A sequence that
 * reads another's block, loses a position or replays a wrong token gives other outputs than the
 * request alone would.
 */
#ifndef TSR_TESTS_ENGINE_SIM_H
#define TSR_TESTS_ENGINE_SIM_H

#include "proto/plan.h"
#include "runtime/engine/rank_batch.h"
#include "runtime/engine/rank_state.h"
#include "runtime/engine/request.h"
#include "runtime/engine/scheduler.h"

#include <stdbool.h>
#include <stdint.h>

enum { SIM_RANKS = 5, SIM_ROWS = 512, SIM_VOCAB = 40 };

/* One row of "logits" that an entry sent: what the sequence looked like up to that position. */
typedef struct sim_score {
    uint32_t entry;
    int32_t position;
    uint64_t hash;
} sim_score;

typedef struct sim {
    tsr_plan plan;
    tsr_rank_state state[SIM_RANKS];
    int32_t *text[SIM_RANKS];  /* [slots, max_model_len] */
    int32_t *cache[SIM_RANKS]; /* [kv_blocks, block_tokens] */
    /* of the last step that was followed */
    tsr_token_row row[SIM_ROWS];
    tsr_token_logprob top[SIM_ROWS * TSR_MOST_TOP];
    uint32_t rows;
    uint32_t tops;
    sim_score score[SIM_ROWS];
    uint32_t scores;
    bool stopped;
    bool starved; /* a sequence that generates got nothing */
} sim;

/* A plan of these limits: vocab SIM_VOCAB, eos 0. */
tsr_plan sim_plan(int32_t ranks, const tsr_engine_limits *limits);

void sim_open(sim *s, const tsr_plan *plan);
void sim_close(sim *s);

/* Every rank opens its own copy of the step, follows it and computes. */
void sim_follow(sim *s, const tsr_step_plan *step);

/* What came of it, until the next one is followed. */
tsr_step_results sim_results(const sim *s);

/* The scheduler absorbs these rows. */
tsr_status sim_absorb(tsr_scheduler *scheduler, const tsr_token_row *rows, uint32_t count,
                      tsr_absorbed *ret_absorbed);

/* How probable a token is behind a cache of this hash, and the n-th most probable one. */
float sim_logprob(uint64_t hash);
tsr_token_logprob sim_top(uint64_t hash, int32_t n);

/* True when every slot of every rank is free and no block is held. */
bool sim_empty(const sim *s);

/* What a cache that holds these tokens comes to. */
uint64_t sim_hash(const int32_t *tokens, int32_t count);

/* The token that follows them. */
int32_t sim_next_token(const int32_t *tokens, int32_t count, uint64_t seed, uint64_t output_index);

#endif
