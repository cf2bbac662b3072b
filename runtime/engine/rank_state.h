/*
 * The sequences of one rank, as the steps so far leave them: what the owner of a sequence must
 * remember, because no step repeats it. What it says is not here: the model has it on the device.
 *
 *   slot 0   known 12, sampled 3    sampling    blocks | 9 | 4 |
 *   slot 1   free
 *   ...
 *   admitted by the last step   prompt | slot 0, 12 ids |    prompt_id | 7 31 ... |
 *
 * All memory is taken when it is opened. A step is believed only after every check: a rank whose
 * sequences do not fit what a step says has lost its place, and says where.
 */
#ifndef TSR_RUNTIME_ENGINE_RANK_STATE_H
#define TSR_RUNTIME_ENGINE_RANK_STATE_H

#include "proto/plan.h"
#include "proto/step_plan.h"
#include "proto/step_state.h"
#include "runtime/base/status.h"
#include "runtime/engine/step_shape.h"
#include "runtime/plan/batch.h"
#include "runtime/plan/shapes.h"

#include <stdbool.h>
#include <stdint.h>

/* One sequence. */
typedef struct tsr_sequence {
    int32_t *blocks; /* [block_count] in order of position */
    int32_t known;   /* tokens of its admission; 0: the slot is free */
    int32_t sampled; /* tokens that steps so far have sampled, landed or not */
    int32_t block_count;
    tsr_sample_row sampling; /* output_index is the entry's */
} tsr_sequence;

/* One KV block. */
typedef struct tsr_rank_block {
    uint64_t full_at; /* epoch of the step that filled it; 0: none has */
    int32_t holders;  /* sequences */
} tsr_rank_block;

typedef struct tsr_rank_state {
    const tsr_plan *plan; /* borrowed */
    tsr_step_shape shape;
    uint32_t rank;
    tsr_step_state steps;    /* lengths of all ranks' sequences */
    tsr_sequence *sequence;  /* [shape.slots] */
    tsr_rank_block *block;   /* [shape.kv_blocks] */
    int32_t *block_memory;   /* behind the sequences' blocks */
    tsr_prompt *prompt;      /* [prompts] that the last step admitted here */
    int32_t *prompt_id;      /* [prompt_ids] theirs, one after the other */
    tsr_token_rules *rules;  /* [ruled] that they have */
    int32_t *arrived_tokens; /* [shape.max_model_len] of the admission being read */
    tsr_token_rules *arrived_rules;
    int32_t prompts;
    int32_t prompt_ids;
    int32_t ruled;
} tsr_rank_state;

/* Close with tsr_rank_state_close. TSR_ERR_CAPACITY, logged; TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_rank_state_open(const tsr_plan *plan, int32_t rank,
                                            tsr_rank_state *ret_state);

/* What the next step must agree with. */
tsr_step_bounds tsr_rank_state_bounds(const tsr_rank_state *state);

/*
 * Moves the state past a step that tsr_step_plan_open has checked: releases, admissions, new
 * blocks, lengths.
 *
 * TSR_ERR_MISMATCH, logged: the step does not fit the sequences here; the state is spent
 */
TSR_MUST_USE tsr_status tsr_rank_state_apply(tsr_rank_state *state, const tsr_step_plan *step);

void tsr_rank_state_close(tsr_rank_state *state);

#endif
