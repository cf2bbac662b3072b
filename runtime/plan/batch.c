/*
 * The layout of batch.h: each array on 64 bytes, the ones that the device reads in front. With no
 * memory it only measures.
 */
#include "runtime/plan/batch.h"

#include "runtime/base/sizes.h"

#include <stddef.h>

typedef struct cursor {
    unsigned char *memory; /* NULL: nothing is placed */
    uint64_t used;
} cursor;

static void *take_array(cursor *c, int32_t count, size_t bytes)
{
    void *array = c->memory != NULL ? c->memory + c->used : NULL;
    c->used += tsr_aligned((uint64_t)count * bytes, TSR_ALIGNMENT);
    return array;
}

/* *ret_device_bytes: how far the device's copy goes. Returns the bytes of all. */
static uint64_t lay_out(void *memory, const tsr_batch_sizes *n, tsr_batch *ret_batch,
                        uint64_t *ret_device_bytes)
{
    cursor c = {.memory = memory};
    tsr_batch b = {.count = *n};

    b.sample = take_array(&c, n->samples, sizeof(*b.sample));
    b.sequence = take_array(&c, n->sequences, sizeof(*b.sequence));
    b.slot = take_array(&c, n->tokens, sizeof(*b.slot));
    b.position = take_array(&c, n->tokens, sizeof(*b.position));
    b.logit_row = take_array(&c, n->logit_rows, sizeof(*b.logit_row));
    b.blocks = take_array(&c, n->blocks, sizeof(*b.blocks));
    *ret_device_bytes = c.used;
    b.prompt = take_array(&c, n->prompts, sizeof(*b.prompt));
    b.prompt_id = take_array(&c, n->prompt_ids, sizeof(*b.prompt_id));
    b.rules = take_array(&c, n->rules, sizeof(*b.rules));
    b.mask = take_array(&c, n->masks, (size_t)n->mask_words * sizeof(*b.mask));
    *ret_batch = b;
    return c.used;
}

tsr_batch_sizes tsr_batch_most(const tsr_engine_limits *limits, int32_t vocab)
{
    const int64_t blocks =
        (int64_t)limits->max_num_seqs * tsr_pieces(limits->max_model_len, limits->kv_block_tokens);
    return (tsr_batch_sizes){
        .samples = limits->logit_rows,
        .tops = limits->logit_rows * TSR_MOST_TOP,
        .bent = limits->logit_rows,
        .sequences = limits->max_num_seqs,
        .tokens = limits->max_batched_tokens,
        .logit_rows = limits->logit_rows,
        .blocks = blocks < INT32_MAX ? (int32_t)blocks : INT32_MAX,
        .prompts = limits->max_num_seqs,
        .prompt_ids = limits->max_model_len + TSR_MORE_PROMPT_IDS,
        .rules = limits->max_num_seqs,
        .masks = tsr_smaller(TSR_MOST_MASKS, tsr_smaller(limits->max_num_seqs, limits->logit_rows)),
        .mask_words = tsr_mask_words(vocab),
    };
}

uint64_t tsr_batch_bytes(const tsr_batch_sizes *count)
{
    tsr_batch unused;
    uint64_t device_bytes;
    return lay_out(NULL, count, &unused, &device_bytes);
}

uint64_t tsr_batch_device_bytes(const tsr_batch_sizes *count)
{
    tsr_batch unused;
    uint64_t device_bytes;
    (void)lay_out(NULL, count, &unused, &device_bytes);
    return device_bytes;
}

tsr_batch tsr_batch_over(void *memory, const tsr_batch_sizes *count)
{
    tsr_batch batch;
    uint64_t device_bytes;
    (void)lay_out(memory, count, &batch, &device_bytes);
    return batch;
}
