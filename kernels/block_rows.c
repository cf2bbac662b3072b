/*
 * The rows that stand between the operations of one block: one allocation for every backend, cut up
 * here and nowhere else, so that the bytes the plan counts are the bytes that are taken.
 *
 *   attention   x -> normed -> q, k, v -> attended -> delta -> x
 *   mlp         x -> normed ---------------------> delta -> x
 *   choose      x -> normed -> expert                     -> packed rows
 *   predict     x -> normed                               -> logits
 *
 *   | normed | delta | q | k | v | attended | expert |        each on 64 bytes
 *
 * Blocks follow each other, so they share the pieces.
 */
#include "kernels/device_ops.h"
#include "runtime/base/sizes.h"

typedef struct cutter {
    unsigned char *memory;
    uint64_t used;
} cutter;

static void *cut_rows(cutter *c, uint64_t rows, uint64_t row_bytes)
{
    void *piece = c->memory != NULL ? c->memory + c->used : NULL;

    c->used += tsr_aligned(rows * row_bytes, TSR_ALIGNMENT);
    return piece;
}

uint64_t tsr_block_rows_layout(const tsr_work_shape *shape, size_t activation_bytes,
                               unsigned char *memory, tsr_block_rows *ret_rows)
{
    const uint64_t tokens = (uint64_t)shape->max_tokens;
    const uint64_t logit_rows = (uint64_t)shape->max_logit_rows;
    const uint64_t head = (uint64_t)shape->head_dim * activation_bytes;
    const uint64_t hidden = (uint64_t)shape->hidden * activation_bytes;
    const uint64_t q = (uint64_t)shape->q_heads * head;
    const uint64_t kv = (uint64_t)shape->kv_heads * head;
    cutter c = {0};
    tsr_block_rows rows;

    c.memory = memory;
    rows.normed = cut_rows(&c, tsr_larger_size(tokens, logit_rows), hidden);
    rows.delta = cut_rows(&c, tokens, hidden);
    rows.q = cut_rows(&c, tokens, q);
    rows.k = cut_rows(&c, tokens, kv);
    rows.v = cut_rows(&c, tokens, kv);
    rows.attended = cut_rows(&c, tokens, q);
    rows.expert = cut_rows(&c, tokens, (uint64_t)shape->top_k * sizeof(*rows.expert));
    *ret_rows = rows;
    return c.used;
}

uint64_t tsr_block_rows_bytes(const tsr_work_shape *shape, size_t activation_bytes)
{
    tsr_block_rows unused;
    return tsr_block_rows_layout(shape, activation_bytes, NULL, &unused);
}
