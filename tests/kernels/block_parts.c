/*
 * The attention block by the operations that it is made of, in rows of its own: what the block itself has
 * the bits of, whatever kernels a device takes for it.
 */
#include "tests/kernels/block_parts.h"

#include "tests/kernels/backends.h"
#include "tests/test.h"

static const tsr_stream stream = {NULL};

/* Norm, then q, k and v, then rotation, into rows of our own. */
static tsr_attention_args enter_by_parts(tsr_device *device, const tsr_attention_block *b)
{
    const size_t rows = (size_t)b->tokens;
    const tsr_norm_args norm = {
        .out = sample_row_room(device, rows * (size_t)b->q->in),
        .x = b->x,
        .weight = b->norm,
        .tokens = b->tokens,
        .hidden = b->q->in,
        .eps = b->eps,
    };
    const tsr_linears_args qkv = {
        .out = {sample_row_room(device, rows * (size_t)b->q->out),
                sample_row_room(device, rows * (size_t)b->k->out),
                sample_row_room(device, rows * (size_t)b->v->out)},
        .linear = {b->q, b->k, b->v},
        .x = norm.out,
        .count = 3,
        .tokens = b->tokens,
    };
    const tsr_rotary_args rotary = {
        .q = qkv.out[0],
        .k = qkv.out[1],
        .q_norm = b->q_norm,
        .k_norm = b->k_norm,
        .cos = b->cos,
        .sin = b->sin,
        .position = b->position,
        .tokens = b->tokens,
        .q_heads = b->q_heads,
        .kv_heads = b->cache->kv_heads,
        .head_dim = b->cache->head_dim,
        .rotary_dim = b->rotary_dim,
        .eps = b->eps,
    };

    ASSERT_STATUS(TSR_OK, device->ops->norm(device, &norm, stream));
    ASSERT_STATUS(TSR_OK, device->ops->linears(device, &qkv, stream));
    ASSERT_STATUS(TSR_OK, device->ops->rotary(device, &rotary, stream));
    return (tsr_attention_args){.q = qkv.out[0], .k = qkv.out[1], .v = qkv.out[2]};
}

void attend_by_parts(tsr_device *device, const tsr_attention_block *b)
{
    const size_t rows = (size_t)b->tokens;
    tsr_attention_args attend = enter_by_parts(device, b);

    attend.out = sample_row_room(device, rows * (size_t)b->q->out);
    attend.cache = b->cache;
    attend.sequence = b->sequence;
    attend.blocks = b->blocks;
    attend.sequences = b->sequences;
    attend.tokens = b->tokens;
    attend.q_heads = b->q_heads;
    ASSERT_STATUS(TSR_OK, device->ops->attention(device, &attend, stream));
    const tsr_linears_args out = {
        .out = {sample_row_room(device, rows * (size_t)b->o->out)},
        .linear = {b->o},
        .x = attend.out,
        .count = 1,
        .tokens = b->tokens,
    };
    ASSERT_STATUS(TSR_OK, device->ops->linears(device, &out, stream));
    const tsr_add_args add = {
        .out = b->x, .a = b->x, .b = out.out[0], .tokens = b->tokens, .hidden = b->o->out};
    ASSERT_STATUS(TSR_OK, device->ops->add(device, &add, stream));
}
