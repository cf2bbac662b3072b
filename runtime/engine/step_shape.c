/* How large a step can get. */
#include "runtime/engine/step_shape.h"

#include "proto/admission.h"
#include "proto/step_plan.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/plan/batch.h"

/* Room for more admissions in a step than the one that must fit. */
enum { MORE_SHARED_BLOCKS = 4096 }; /* and for more sequences that begin behind known blocks */
enum { MORE_ADMISSIONS_BYTES = 5 * TSR_MORE_PROMPT_IDS }; /* an id takes up to 5 bytes */

static bool limits_hold(const tsr_plan *plan)
{
    const tsr_engine_limits *l = &plan->limits;
    return plan->ranks >= 1 && l->max_model_len >= 1 && l->max_num_seqs >= 1 &&
           l->max_batched_tokens >= 1 && l->logit_rows >= 1 && l->kv_block_tokens >= 1 &&
           l->kv_blocks >= 1;
}

/* Counts travel as 32 bits. */
static bool counts_hold(uint64_t entries, uint64_t blocks, uint64_t mask_words,
                        uint64_t admission_bytes)
{
    return entries <= INT32_MAX && blocks <= INT32_MAX && mask_words <= INT32_MAX &&
           admission_bytes <= INT32_MAX;
}

tsr_status tsr_step_shape_of(const tsr_plan *plan, tsr_step_shape *ret_shape)
{
    const tsr_engine_limits *l = &plan->limits;
    if (!limits_hold(plan)) {
        tsr_log(TSR_LOG_ERROR, "plan: a limit of the engine is below 1; plan again with "
                               "larger --max-model-len, --max-num-seqs or memory");
        return TSR_ERR_CAPACITY;
    }

    tsr_step_shape shape = {
        .ranks = plan->ranks,
        .slots = tsr_smaller(tsr_smaller(l->max_num_seqs, l->max_batched_tokens), l->logit_rows),
        .max_batched_tokens = l->max_batched_tokens,
        .max_model_len = l->max_model_len,
        .logit_rows = l->logit_rows,
        .vocab = plan->model.vocab,
        .block_tokens = l->kv_block_tokens,
        .kv_blocks = l->kv_blocks,
    };
    const tsr_batch_sizes most = tsr_batch_most(l, plan->model.vocab);
    shape.prompt_ids = most.prompt_ids;
    shape.masks = tsr_smaller(most.masks, shape.slots);
    shape.sequence_blocks = tsr_pieces(l->max_model_len, shape.block_tokens);

    shape.shared_blocks = shape.sequence_blocks + MORE_SHARED_BLOCKS;

    /* A sequence that brings n tokens begins at most n / block_tokens + 1 blocks. */
    const uint64_t ranks = (uint64_t)shape.ranks;
    const uint64_t entries = 2 * ranks * (uint64_t)shape.slots;
    const uint64_t blocks =
        ranks * ((uint64_t)(l->max_batched_tokens / l->kv_block_tokens) + (uint64_t)shape.slots) +
        (uint64_t)shape.shared_blocks;
    const uint64_t admissions =
        tsr_admission_max_bytes((uint32_t)l->max_model_len, sizeof(tsr_token_rules)) +
        MORE_ADMISSIONS_BYTES;
    const uint64_t masks = ranks * (uint64_t)shape.masks * (1 + (uint64_t)most.mask_words);
    if (!counts_hold(entries, blocks, masks, admissions)) {
        tsr_log(TSR_LOG_ERROR,
                "plan: a step of %d ranks with %d sequences each cannot be sent; "
                "lower --max-num-seqs",
                plan->ranks, l->max_num_seqs);
        return TSR_ERR_CAPACITY;
    }
    shape.entries = (uint32_t)entries;
    shape.blocks = (uint32_t)blocks;
    shape.admission_bytes = (uint32_t)admissions;
    shape.mask_words = (uint32_t)masks;
    const tsr_step_counts counts = {shape.entries, shape.blocks, shape.mask_words,
                                    shape.admission_bytes};
    shape.step_bytes = tsr_step_plan_bytes(&counts);
    if (shape.step_bytes < TSR_STEP_FIRST_BYTES)
        shape.step_bytes = TSR_STEP_FIRST_BYTES;
    *ret_shape = shape;
    return TSR_OK;
}
