/*
 * The front doors of the blocks: arguments against the shapes and the reserved workspace, once,
 * then the table.
 */
#include "kernels/blocks.h"

#include "kernels/checks.h"
#include "kernels/device_ops.h"

/* Nothing to do: no rows, or a fault before them. */
static bool idles(tsr_device *device, int32_t rows)
{
    return rows == 0 || tsr_device_is_faulty(device);
}

tsr_status tsr_block_embed(tsr_device *device, const tsr_embed_block *b, tsr_stream s)
{
    if (!tsr_check(tsr_check_within(b->tokens, device->shape.max_tokens), "embed",
                   "more tokens than reserved") ||
        !tsr_check(
            b->table != NULL && b->table->weight != NULL &&
                tsr_check_float_format(b->table->format) && tsr_check_hidden(device, b->table->in),
            "embed", "the table is not F32, F16 or BF16 with rows of a multiple of 16 that fit") ||
        !tsr_check(b->text.ids != NULL && b->text.slots > 0 && b->text.positions > 0, "embed",
                   "there is no text"))
        return TSR_ERR_ARG;
    return idles(device, b->tokens) ? TSR_OK : device->blocks->embed(device, b, s);
}

static bool cache_is_whole(const tsr_kv_layer *cache)
{
    return cache != NULL && cache->keys != NULL && cache->values != NULL &&
           cache->format < TSR_KV_FORMAT_COUNT && cache->blocks > 0 && cache->block_tokens > 0 &&
           cache->kv_heads > 0 && tsr_check_width(cache->head_dim);
}

/* q, k, v and o against each other, the cache and the workspace. */
static bool projections_fit(const tsr_device *device, const tsr_attention_block *b)
{
    const tsr_work_shape *most = &device->shape;
    const int32_t heads = b->q_heads;
    const int32_t kv_heads = b->cache->kv_heads;
    const int32_t dim = b->cache->head_dim;

    return tsr_check_linear(device, b->q) && tsr_check_linear(device, b->k) &&
           tsr_check_linear(device, b->v) && tsr_check_linear(device, b->o) &&
           heads <= most->q_heads && kv_heads <= most->kv_heads &&
           tsr_check_hidden(device, b->q->in) && b->k->in == b->q->in && b->v->in == b->q->in &&
           b->o->out == b->q->in && b->q->out == heads * dim && b->k->out == kv_heads * dim &&
           b->v->out == kv_heads * dim && b->o->in == heads * dim;
}

tsr_status tsr_block_attention(tsr_device *device, const tsr_attention_block *b, tsr_stream s)
{
    static const char *const name = "attention";

    if (!tsr_check(tsr_check_within(b->tokens, device->shape.max_tokens) && b->sequences >= 0, name,
                   "more tokens than reserved") ||
        !tsr_check(cache_is_whole(b->cache), name, "the cache has a missing or odd shape") ||
        !tsr_check(b->cache->head_dim <= device->shape.head_dim, name,
                   "heads wider than reserved") ||
        !tsr_check(b->q_heads > 0 && b->q_heads % b->cache->kv_heads == 0, name,
                   "query heads are not a multiple of kv heads") ||
        !tsr_check(projections_fit(device, b), name,
                   "q, k, v and o do not fit each other, the heads or the workspace") ||
        !tsr_check(tsr_check_within(b->rotary_dim, b->cache->head_dim) && b->rotary_dim % 2 == 0,
                   name, "rotary_dim is odd or wider than a head"))
        return TSR_ERR_ARG;
    return idles(device, b->tokens) ? TSR_OK : device->blocks->attention(device, b, s);
}

static bool mlp_fits(const tsr_device *device, const tsr_mlp *mlp)
{
    return mlp != NULL && tsr_check_hidden(device, mlp->gate.in) &&
           tsr_check_mlp(device, mlp, mlp->gate.in);
}

tsr_status tsr_block_mlp(tsr_device *device, const tsr_mlp_block *b, tsr_stream s)
{
    if (!tsr_check(tsr_check_within(b->tokens, device->shape.max_tokens), "mlp",
                   "more tokens than reserved") ||
        !tsr_check(mlp_fits(device, b->mlp), "mlp",
                   "gate, up and down do not fit each other or the workspace"))
        return TSR_ERR_ARG;
    return idles(device, b->tokens) ? TSR_OK : device->blocks->mlp(device, b, s);
}

/* Made by tsr_experts_make, which has looked at everything in it. */
static bool experts_are_made(const tsr_experts *experts)
{
    return experts != NULL && experts->tag_of != NULL;
}

tsr_status tsr_block_choose(tsr_device *device, const tsr_choose_block *b, tsr_stream s)
{
    if (!tsr_check(tsr_check_within(b->tokens, device->shape.max_tokens), "choose",
                   "more tokens than reserved") ||
        !tsr_check(experts_are_made(b->experts), "choose", "the experts are not made"))
        return TSR_ERR_ARG;
    return idles(device, b->tokens) ? TSR_OK : device->blocks->choose(device, b, s);
}

tsr_status tsr_block_shared(tsr_device *device, const tsr_shared_block *b, tsr_stream s)
{
    const size_t activation = device->table->activation_bytes;

    if (!tsr_check(tsr_check_within(b->tokens, device->shape.max_tokens), "shared",
                   "more tokens than reserved") ||
        !tsr_check(mlp_fits(device, b->mlp), "shared",
                   "gate, up and down do not fit each other or the workspace") ||
        !tsr_check(b->row_bytes % 16 == 0 && b->row_bytes >= (size_t)b->mlp->gate.in * activation,
                   "shared", "row_bytes is not that of packed rows"))
        return TSR_ERR_ARG;
    return idles(device, b->tokens) ? TSR_OK : device->blocks->shared(device, b, s);
}

tsr_status tsr_block_experts(tsr_device *device, const tsr_experts_block *b, tsr_stream s)
{
    if (!tsr_check(experts_are_made(b->experts), "experts", "the experts are not made") ||
        !tsr_check(b->row_count != NULL, "experts", "nobody says how many rows there are"))
        return TSR_ERR_ARG;
    return tsr_device_is_faulty(device) ? TSR_OK : device->blocks->experts(device, b, s);
}

tsr_status tsr_block_combine(tsr_device *device, const tsr_combine_block *b, tsr_stream s)
{
    if (!tsr_check(tsr_check_within(b->tokens, device->shape.max_tokens), "combine",
                   "more tokens than reserved") ||
        !tsr_check(b->hidden > 0 && b->top_k > 0, "combine", "no width or no slots") ||
        !tsr_check(b->coming == NULL || b->ended != NULL, "combine",
                   "nobody says when answers come no more"))
        return TSR_ERR_ARG;
    return idles(device, b->tokens) ? TSR_OK : device->blocks->combine(device, b, s);
}

tsr_status tsr_block_predict(tsr_device *device, const tsr_predict_block *b, tsr_stream s)
{
    const int32_t most = device->shape.max_logit_rows;

    if (!tsr_check(tsr_check_within(b->rows, most) && tsr_check_within(b->samples, most), "predict",
                   "more rows or samples than reserved") ||
        !tsr_check(tsr_check_linear(device, b->head) && tsr_check_hidden(device, b->head->in),
                   "predict", "the head is not loaded or wider than reserved") ||
        !tsr_check(b->samples == 0 || b->head->out <= device->shape.vocab, "predict",
                   "a larger vocabulary than reserved") ||
        !tsr_check(b->samples == 0 || (b->allowed >= 1 && b->allowed <= b->head->out), "predict",
                   "the allowed ids are not 1..vocab"))
        return TSR_ERR_ARG;
    return idles(device, b->rows + b->samples) ? TSR_OK : device->blocks->predict(device, b, s);
}
