/*
 * From what the files say to what each rank will hold. Runs on the coordinator, needs no GPU and no
 * MPI, reads no weight.
 *
 *   checkpoint -> resolve  what is declared
 *              -> prove    what is stored
 *              -> place    expert to rank
 *              -> budget   bytes of each rank -> tsr_plan
 */
#ifndef TSR_RUNTIME_PLAN_PLAN_BUILD_H
#define TSR_RUNTIME_PLAN_PLAN_BUILD_H

#include "proto/plan.h"
#include "runtime/base/problems.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/plan/algos.h"

#include <stdbool.h>

/* What activations are computed in (--activations). */
typedef enum tsr_activations_mode {
    TSR_ACTIVATIONS_AUTO,     /* as the target can; said in the path report */
    TSR_ACTIVATIONS_DECLARED, /* as declared, or an error */
    TSR_ACTIVATIONS_WEIGHT_ONLY,
} tsr_activations_mode;

/* A row of the table of targets: what a device can do and what it takes. */
typedef struct tsr_target tsr_target;

/* NULL when there is no such target. */
const tsr_target *tsr_target_find(const char *name);

/* The name of each row: "cpu", "h100" ...; NULL behind the last. */
const char *tsr_target_choice(size_t index);
const char *tsr_target_name(const tsr_target *target);

/* What the user asked for. */
typedef struct tsr_plan_request {
    int32_t ranks;
    const tsr_target *target;         /* whose memory and workspace are counted */
    const tsr_target *activations_of; /* whose abilities decide the activations; NULL: target's */
    tsr_activations_mode activations;
    const char *kv_cache_dtype; /* "auto", "f32", "bf16", "fp8" */
    uint64_t memory_bytes;      /* of one rank; 0: the target's (cpu: this machine's share) */
    bool memory_is_shared;      /* memory_bytes is a share: more ranks have less each */
    const char *ranks_option;   /* how the number of ranks is asked for, in advice; NULL: --ranks */
    int32_t max_model_len;      /* 0: the model's, as far as it fits */
    int32_t max_num_seqs;       /* 0: default */
    int32_t max_batched_tokens; /* 0: default */
    int32_t kv_block_tokens;    /* 0: default 16 */
    int32_t exchange_tokens;    /* 0: default */
    int64_t kv_positions;       /* that one rank holds at a time, where a user knows: no more are
                                   planned for, and a host gives them more than its small pool; 0:
                                   max_num_seqs sequences of max_model_len */
    int32_t token_ids;          /* of the tokenizer; 0: unknown */
    int32_t threads;            /* of one rank; 0: default */
} tsr_plan_request;

/*
 * Builds the plan. A checkpoint that contradicts itself is TSR_ERR_CHECKPOINT, with everything
 * found in `problems`.
 *
 * A plan that does not fit is TSR_OK with *ret_fits false: the numbers are there to be printed, and
 * `problems` says which settings would make it fit. Nobody may load it.
 */
TSR_MUST_USE tsr_status tsr_plan_build(const tsr_checkpoint *checkpoint,
                                       const tsr_plan_request *request, tsr_problems *problems,
                                       tsr_plan **ret_plan, bool *ret_fits);

/* Bytes of a rank: the most that is in use at a time, while it loads or while it runs. */
uint64_t tsr_rank_budget_total(const tsr_rank_budget *rank);

/* Fills in the memory of one rank where the request leaves it open, as tsr_plan_build does. */
void tsr_plan_request_count_memory(tsr_plan_request *request);

#endif
