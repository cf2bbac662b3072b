/*
 * A rank's share of one step, as one image: filled in host memory and copied to the device whole.
 * The plan counts its bytes, the model takes and copies them, the engine fills it.
 *
 *   host image    | sample | sequence | slot | position | logit_row | blocks || prompt | prompt_id | rules | mask |
 *                 |------------------- one copy -------------------|           '- each into text, rules   '- one copy
 *                                                                                  of their slot
 *   device block  | sample | sequence | slot | position | logit_row | blocks |
 *
 * Where an array lies depends on the counts alone, so that one function finds it in both.
 */
#ifndef TSR_RUNTIME_PLAN_BATCH_H
#define TSR_RUNTIME_PLAN_BATCH_H

#include "kernels/blocks.h"
#include "proto/plan.h"

#include <stdint.h>

/* How many of each a step brings. */
typedef struct tsr_batch_sizes {
    int32_t samples; /* and rows that are scored */
    int32_t tops;    /* most probable ids that are told with them: of no array in the image */
    int32_t bent;    /* samples that have rules, a mask or a min_p: neither */
    int32_t sequences;
    int32_t tokens;
    int32_t logit_rows;
    int32_t blocks;
    int32_t prompts;
    int32_t prompt_ids; /* of all prompts */
    int32_t rules;      /* of sequences that begin */
    int32_t masks;      /* that samples are held to */
    int32_t mask_words; /* of each */
} tsr_batch_sizes;

/* Sequences of a rank that may be held to masks at a time: their masks are up to this often a bit for
 * each id. */
enum { TSR_MOST_MASKS = 256 };

/* The most that one step brings to one rank. */
tsr_batch_sizes tsr_batch_most(const tsr_engine_limits *limits, int32_t vocab);

/* Prompt ids that a step admits beyond one prompt of max_model_len, on all ranks. */
enum { TSR_MORE_PROMPT_IDS = 12 * 1024 };

/* The ids a sequence begins with: the first `count` of its slot's text. */
typedef struct tsr_prompt {
    int32_t slot;
    int32_t count;
} tsr_prompt;

/* Views into an image, or of its device copy, where the prompts are not. */
typedef struct tsr_batch {
    tsr_sample_row *sample;           /* [samples] */
    tsr_attention_sequence *sequence; /* [sequences] */
    int32_t *slot;                    /* [tokens] whose text holds the row's id ... */
    int32_t *position;                /* [tokens] ... and where in it */
    int32_t *logit_row;               /* [logit_rows] rows of the batch whose logits are wanted */
    int32_t *blocks;                  /* [blocks] block tables, one after the other */
    tsr_prompt *prompt;               /* [prompts] */
    int32_t *prompt_id;               /* [prompt_ids] of one prompt after the other */
    tsr_token_rules *rules;           /* [rules] of those that have any */
    uint32_t *mask;                   /* [masks, mask_words] in the order of their samples */
    tsr_batch_sizes count;
} tsr_batch;

/* Bytes of an image; a multiple of 64. */
uint64_t tsr_batch_bytes(const tsr_batch_sizes *count);

/* Bytes that the device has a copy of: what stands in front of the prompts. */
uint64_t tsr_batch_device_bytes(const tsr_batch_sizes *count);

/* The views of the image in `memory`, aligned to 64. */
tsr_batch tsr_batch_over(void *memory, const tsr_batch_sizes *count);

#endif
