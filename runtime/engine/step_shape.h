/* How large a step can get. Derived from the plan, the same on every rank. */
#ifndef TSR_RUNTIME_ENGINE_STEP_SHAPE_H
#define TSR_RUNTIME_ENGINE_STEP_SHAPE_H

#include "proto/plan.h"
#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes that every step's broadcast has room for: a step of a few dozen sequences is one message,
 * which with its envelope stays below the 4096 bytes that Open MPI sends without asking the
 * receiver first. */
enum { TSR_STEP_FIRST_BYTES = 3968 };

typedef struct tsr_step_shape {
    int32_t ranks;
    int32_t slots; /* sequences of a rank at a time. No more than tokens or rows of logits of a
                      step, so that each of them can go on in every step */
    int32_t max_batched_tokens;
    int32_t max_model_len;
    int32_t logit_rows;
    int32_t vocab;
    int32_t block_tokens;
    int32_t kv_blocks;
    int32_t sequence_blocks;  /* of a sequence of max_model_len */
    uint32_t entries;         /* most of a step: every slot released and taken again */
    int32_t shared_blocks;    /* known ones, that sequences of a step begin behind */
    uint32_t blocks;          /* most that a step gives */
    int32_t masks;            /* sequences of a rank that may be held to one */
    uint32_t mask_words;      /* most of a step */
    uint32_t admission_bytes; /* most of a step: at least one admission of max_model_len */
    int32_t prompt_ids;       /* most that the admissions of a step hold */
    size_t step_bytes;        /* of a buffer for any step */
} tsr_step_shape;

/* TSR_ERR_CAPACITY, logged: limits that no step can be planned with */
TSR_MUST_USE tsr_status tsr_step_shape_of(const tsr_plan *plan, tsr_step_shape *ret_shape);

#endif
