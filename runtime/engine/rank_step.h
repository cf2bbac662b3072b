/*
 * Steps on one rank: each is checked, followed and launched; later it is landed, and what came of it
 * is brought to rank 0.
 *
 *   step N     check  follow  launch ....................... land   gather
 *   step N+1                          check  follow  launch ........................ land   gather
 *
 * How many are under way is the device's word. All ranks land at the same places, because the steps
 * themselves tell when: tsr_rank_step_due.
 */
#ifndef TSR_RUNTIME_ENGINE_RANK_STEP_H
#define TSR_RUNTIME_ENGINE_RANK_STEP_H

#include "runtime/engine/engine.h"
#include "runtime/engine/expert_load.h"
#include "runtime/engine/rank_batch.h"
#include "runtime/engine/rank_state.h"

/* Where rows of logits go on rank 0: [rows, V] of positions first_position ... of an entry. */
typedef struct tsr_logits_taker {
    tsr_status (*take)(void *context, uint32_t entry, int32_t first_position, int32_t rows,
                       const float *logits);
    void *context;
} tsr_logits_taker;

/* A step under way: its bytes stay until it has landed. */
typedef struct tsr_rank_flight {
    void *buffer; /* [shape.step_bytes] */
    tsr_step_plan step;
    int32_t samples; /* of this rank, as are the next */
    int32_t tops;
} tsr_rank_flight;

/* A rank's part of every step. All memory is taken when it is opened. */
typedef struct tsr_rank_step {
    const tsr_engine_args *args; /* borrowed */
    int32_t rank;
    int32_t vocab;
    tsr_rank_state state;
    tsr_rank_flight flight[TSR_MAX_FLIGHTS];
    int32_t flights;                /* the model's */
    int32_t oldest;                 /* of those under way */
    int32_t out;                    /* under way */
    tsr_token_row *sent;            /* [logit_rows] */
    tsr_token_row *arrived;         /* rank 0: [ranks * logit_rows] */
    tsr_token_logprob *arrived_top; /* rank 0: [ranks * logit_rows * TSR_MOST_TOP] */
    float *arrived_logits;          /* rank 0: [staged_rows, V] of another rank */
    size_t *bytes_of;               /* [ranks] */
    tsr_expert_load experts;        /* zero where they are not counted */
} tsr_rank_step;

/* Close with tsr_rank_step_close. TSR_ERR_CAPACITY, logged; TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_rank_step_open(const tsr_engine_args *args, tsr_rank_step *ret_step);

/* Where the bytes of the next step go. Nothing is due. */
void *tsr_rank_step_buffer(const tsr_rank_step *rank_step);

/*
 * Collective. Follows and launches the step of `bytes` bytes that lies in the buffer.
 *
 * TSR_ERR_MISMATCH, logged; TSR_ERR_PEER, TSR_ERR_TIMEOUT
 */
TSR_MUST_USE tsr_status tsr_rank_step_launch(tsr_rank_step *rank_step, size_t bytes);

/* True when the oldest step is to be landed before another comes: as many are under way as the
 * device takes, or the newest has no tokens, so that nothing is gained by waiting, or says so itself. */
bool tsr_rank_step_due(const tsr_rank_step *rank_step);

/* What came of a step. */
typedef struct tsr_landed_step {
    tsr_step_results results; /* that arrived at rank 0, in order of the entries; elsewhere none */
    bool computed;            /* it had tokens on some rank */
    bool stop;                /* it was the last one */
} tsr_landed_step;

/*
 * Collective. Lands the oldest step; a step without tokens meets every rank instead, so that a lost
 * one is noticed.
 *
 *   taker  rank 0 only, else NULL
 *
 * TSR_ERR_PEER, TSR_ERR_TIMEOUT; what the model or the taker returned
 */
TSR_MUST_USE tsr_status tsr_rank_step_land(tsr_rank_step *rank_step, const tsr_logits_taker *taker,
                                           tsr_landed_step *ret_landed);

void tsr_rank_step_close(tsr_rank_step *rank_step);

#endif
