/*
 * The blocks, made of small operations: the definition of each, and what a device does that has no
 * kernel for a whole one. What an operation leaves for the next stands in the device's rows
 * (block_rows.c); x is the residual stream.
 *
 * Where an operation finds a fault the block ends: what would follow reads rows that are wrong.
 */
#include "kernels/compose.h"

#include "kernels/device_ops.h"

static bool goes_on(tsr_device *device, tsr_status st)
{
    return st == TSR_OK && !tsr_device_is_faulty(device);
}

/* x += delta */
static tsr_status add_delta(tsr_device *device, void *x, int32_t tokens, int32_t hidden,
                            tsr_stream s)
{
    const tsr_add_args a = {
        .out = x,
        .a = x,
        .b = device->rows.delta,
        .tokens = tokens,
        .hidden = hidden,
    };
    return device->ops->add(device, &a, s);
}

tsr_status tsr_compose_embed(tsr_device *device, const tsr_embed_block *b, tsr_stream s)
{
    return device->ops->embed(device, b, s);
}

static tsr_status enter_attention(tsr_device *device, const tsr_attention_block *b, tsr_stream s)
{
    const tsr_norm_args a = {
        .out = device->rows.normed,
        .x = b->x,
        .weight = b->norm,
        .tokens = b->tokens,
        .hidden = b->q->in,
        .eps = b->eps,
    };
    return device->ops->norm(device, &a, s);
}

static tsr_status qkv(tsr_device *device, const tsr_attention_block *b, tsr_stream s)
{
    const tsr_block_rows *rows = &device->rows;
    const tsr_linears_args a = {
        .out = {rows->q, rows->k, rows->v},
        .linear = {b->q, b->k, b->v},
        .x = rows->normed,
        .count = 3,
        .tokens = b->tokens,
    };
    return device->ops->linears(device, &a, s);
}

static tsr_status rotate(tsr_device *device, const tsr_attention_block *b, tsr_stream s)
{
    const tsr_rotary_args a = {
        .q = device->rows.q,
        .k = device->rows.k,
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
    return device->ops->rotary(device, &a, s);
}

static tsr_status attend(tsr_device *device, const tsr_attention_block *b, tsr_stream s)
{
    const tsr_block_rows *rows = &device->rows;
    const tsr_attention_args a = {
        .out = rows->attended,
        .q = rows->q,
        .k = rows->k,
        .v = rows->v,
        .cache = b->cache,
        .sequence = b->sequence,
        .blocks = b->blocks,
        .sequences = b->sequences,
        .tokens = b->tokens,
        .q_heads = b->q_heads,
    };
    return device->ops->attention(device, &a, s);
}

static tsr_status project(tsr_device *device, const tsr_attention_block *b, tsr_stream s)
{
    const tsr_linears_args a = {
        .out = {device->rows.delta},
        .linear = {b->o},
        .x = device->rows.attended,
        .count = 1,
        .tokens = b->tokens,
    };
    return device->ops->linears(device, &a, s);
}

tsr_status tsr_compose_attention(tsr_device *device, const tsr_attention_block *b, tsr_stream s)
{
    tsr_status st = enter_attention(device, b, s);

    if (goes_on(device, st))
        st = qkv(device, b, s);
    if (goes_on(device, st))
        st = rotate(device, b, s);
    if (goes_on(device, st))
        st = attend(device, b, s);
    if (goes_on(device, st))
        st = project(device, b, s);
    if (goes_on(device, st))
        st = add_delta(device, b->x, b->tokens, b->o->out, s);
    return st;
}

tsr_status tsr_compose_mlp(tsr_device *device, const tsr_mlp_block *b, tsr_stream s)
{
    const int32_t hidden = b->mlp->gate.in;
    const tsr_norm_args enter = {
        .out = device->rows.normed,
        .x = b->x,
        .weight = b->norm,
        .tokens = b->tokens,
        .hidden = hidden,
        .eps = b->eps,
    };
    const tsr_mlp_args mlp = {
        .out = device->rows.delta,
        .x = device->rows.normed,
        .mlp = b->mlp,
        .x_row_bytes = (size_t)hidden * device->table->activation_bytes,
        .tokens = b->tokens,
    };
    tsr_status st = device->ops->norm(device, &enter, s);

    if (goes_on(device, st))
        st = device->ops->mlp(device, &mlp, s);
    if (goes_on(device, st))
        st = add_delta(device, b->x, b->tokens, hidden, s);
    return st;
}

static tsr_status route(tsr_device *device, const tsr_choose_block *b, tsr_stream s)
{
    const tsr_router_args a = {
        .expert = device->rows.expert,
        .weight = b->weight,
        .x = device->rows.normed,
        .router = &b->experts->router,
        .tokens = b->tokens,
    };
    return device->ops->router(device, &a, s);
}

static tsr_status pack(tsr_device *device, const tsr_choose_block *b, tsr_stream s)
{
    const tsr_pack_args a = {
        .rows = b->rows,
        .tag = b->tag,
        .x = device->rows.normed,
        .expert = device->rows.expert,
        .tag_of = b->experts->tag_of,
        .row_bytes = b->experts->row_bytes,
        .tokens = b->tokens,
        .hidden = b->experts->hidden,
        .top_k = b->experts->top_k,
    };
    return device->ops->pack(device, &a, s);
}

tsr_status tsr_compose_choose(tsr_device *device, const tsr_choose_block *b, tsr_stream s)
{
    const tsr_norm_args enter = {
        .out = device->rows.normed,
        .x = b->x,
        .weight = b->norm,
        .tokens = b->tokens,
        .hidden = b->experts->hidden,
        .eps = b->eps,
    };
    tsr_status st = device->ops->norm(device, &enter, s);

    if (goes_on(device, st))
        st = route(device, b, s);
    if (goes_on(device, st))
        st = pack(device, b, s);
    return st;
}

tsr_status tsr_compose_shared(tsr_device *device, const tsr_shared_block *b, tsr_stream s)
{
    const tsr_mlp_args a = {
        .out = b->out,
        .x = b->rows, /* each begins with its activations */
        .mlp = b->mlp,
        .x_row_bytes = b->row_bytes,
        .tokens = b->tokens,
    };
    return device->ops->mlp(device, &a, s);
}

tsr_status tsr_compose_experts(tsr_device *device, const tsr_experts_block *b, tsr_stream s)
{
    return device->ops->experts(device, b, s);
}

tsr_status tsr_compose_combine(tsr_device *device, const tsr_combine_block *b, tsr_stream s)
{
    return device->ops->combine(device, b, s);
}

/* Only the rows that are wanted. */
static tsr_status logits(tsr_device *device, const tsr_predict_block *b, tsr_stream s)
{
    const tsr_norm_args enter = {
        .out = device->rows.normed,
        .x = b->x,
        .row = b->x_row,
        .weight = b->norm,
        .tokens = b->rows,
        .hidden = b->head->in,
        .eps = b->eps,
    };
    const tsr_head_args head = {
        .logits = b->logits,
        .x = device->rows.normed,
        .head = b->head,
        .rows = b->rows,
    };
    tsr_status st = device->ops->norm(device, &enter, s);

    if (goes_on(device, st))
        st = device->ops->head(device, &head, s);
    return st;
}

tsr_status tsr_compose_predict(tsr_device *device, const tsr_predict_block *b, tsr_stream s)
{
    const tsr_sample_args sample = {
        .sampled = b->sampled,
        .top = b->top,
        .logits = b->logits,
        .row = b->row,
        .rules = b->rules,
        .masks = b->masks,
        .mask_rows = b->mask_rows,
        .text = b->text,
        .is_bent = b->is_bent,
        .rows = b->rows,
        .samples = b->samples,
        .tops = b->tops,
        .vocab = b->head->out,
        .allowed = b->allowed,
    };
    tsr_status st = b->rows > 0 ? logits(device, b, s) : TSR_OK;

    if (b->samples > 0 && goes_on(device, st))
        st = device->ops->sample(device, &sample, s);
    return st;
}
