/*
 * The length of every sequence of every rank, as the steps so far leave them, and a digest of it.
 *
 * The coordinator keeps one and moves it as it plans a step; every rank keeps one and moves it as
 * it follows a step. A step carries the coordinator's digest, so a rank that missed, repeated or
 * misread anything is found at the next step.
 *
 *   digest of step n+1 = hash(digest of step n, epoch n, the lengths after step n)
 */
#ifndef TSR_PROTO_STEP_STATE_H
#define TSR_PROTO_STEP_STATE_H

#include "proto/step_plan.h"

typedef struct tsr_step_state {
    uint32_t *length; /* [ranks, max_num_seqs] positions of each sequence */
    uint32_t ranks;
    uint32_t max_num_seqs;
    uint64_t epoch;   /* of the next step */
    uint64_t digest;  /* that the next step must carry */
    uint64_t lengths; /* exclusive or of a hash of each sequence that has a length */
} tsr_step_state;

/* Before the first step: epoch 1, no sequences. Close with tsr_step_state_close. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_step_state_open(uint32_t ranks, uint32_t max_num_seqs,
                                            tsr_step_state *ret_state);

/*
 * Moves the state past a step that was laid out here or passed tsr_step_plan_open.
 *
 *   rank  the one that follows the step: shown in the message
 *
 * TSR_ERR_MISMATCH, logged: an entry does not begin where its sequence ends; the state is spent
 */
TSR_MUST_USE tsr_status tsr_step_state_apply(tsr_step_state *state, const tsr_step_plan *step,
                                             uint32_t rank);

void tsr_step_state_close(tsr_step_state *state);

#endif
