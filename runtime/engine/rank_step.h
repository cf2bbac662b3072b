/*
 * One step on one rank: check it, follow it, compute, sample, and bring tokens and logits to rank
 * 0.
 */
#ifndef TSR_RUNTIME_ENGINE_RANK_STEP_H
#define TSR_RUNTIME_ENGINE_RANK_STEP_H

#include "runtime/engine/engine.h"
#include "runtime/engine/rank_batch.h"
#include "runtime/engine/rank_state.h"

/* Where rows of logits go on rank 0: [rows, V] of positions first_position ... of an entry. */
typedef struct tsr_logits_taker {
    tsr_status (*take)(void *context, uint32_t entry, int32_t first_position, int32_t rows,
                       const float *logits);
    void *context;
} tsr_logits_taker;

/* A rank's part of every step. All memory is taken when it is opened. */
typedef struct tsr_rank_step {
    const tsr_engine_args *args; /* borrowed */
    int32_t rank;
    int32_t vocab;
    tsr_rank_state state;
    tsr_rank_batch batch;
    void *buffer;               /* [shape.step_bytes] the step */
    tsr_sample_row *device_row; /* [slots] in device memory, and the next two */
    int32_t *device_token;
    float *device_logprob;
    int32_t *token;         /* [slots] */
    float *logprob;         /* [slots] */
    tsr_token_row *sent;    /* [slots] */
    tsr_token_row *arrived; /* rank 0: [ranks * slots] */
    size_t *bytes_of;       /* [ranks] */
    float *staged;          /* [staged_rows, V] logits on their way to rank 0 */
    int32_t staged_rows;
} tsr_rank_step;

/* Close with tsr_rank_step_close. TSR_ERR_CAPACITY, logged; TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_rank_step_open(const tsr_engine_args *args, tsr_rank_step *ret_step);

/*
 * Collective. Runs the step of `bytes` bytes that lies in rank_step->buffer.
 *
 *   taker           rank 0 only, else NULL
 *   ret_token_rows  rows that arrived at rank 0, in order of the entries; elsewhere 0
 *   ret_stop        this was the last step
 *
 * TSR_ERR_MISMATCH, logged; TSR_ERR_PEER, TSR_ERR_TIMEOUT; what the taker returned
 */
TSR_MUST_USE tsr_status tsr_rank_step_run(tsr_rank_step *rank_step, size_t bytes,
                                          const tsr_logits_taker *taker, uint32_t *ret_token_rows,
                                          bool *ret_stop);

void tsr_rank_step_close(tsr_rank_step *rank_step);

#endif
