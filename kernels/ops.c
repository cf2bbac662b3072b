/*
 * The front doors of the operations: arguments against the shapes and the reserved workspace, once,
 * then the table.
 */
#include "kernels/ops.h"

#include "kernels/device_ops.h"
#include "runtime/base/log.h"

/* False, logged, unless `right`: the operation and what was wrong. */
static bool holds(bool right, const char *operation, const char *what)
{
    if (!right)
        tsr_log(TSR_LOG_ERROR, "%s: %s", operation, what);
    return right;
}

static bool positive16(int32_t size)
{
    return size > 0 && size % 16 == 0;
}

static bool is_float_format(tsr_weight_format format)
{
    return format == TSR_WEIGHT_F32 || format == TSR_WEIGHT_F16 || format == TSR_WEIGHT_BF16;
}

static bool within(int32_t value, int32_t most)
{
    return value >= 0 && value <= most;
}

/* A loaded linear whose input fits the workspace. */
static bool linear_fits(const tsr_device *device, const tsr_linear *linear)
{
    return linear && linear->weight && linear->out > 0 && positive16(linear->in) &&
           linear->in <= device->shape.max_in;
}

tsr_status tsr_op_embed(tsr_device *device, const tsr_embed_args *a, tsr_stream s)
{
    if (!holds(a->tokens >= 0, "embed", "a negative number of tokens") ||
        !holds(a->table && is_float_format(a->table->format) && positive16(a->table->in), "embed",
               "the table is not F32, F16 or BF16 with rows of a multiple of 16"))
        return TSR_ERR_ARG;
    return a->tokens == 0 ? TSR_OK : device->ops->embed(device, a, s);
}

tsr_status tsr_op_norm(tsr_device *device, const tsr_norm_args *a, tsr_stream s)
{
    if (!holds(a->tokens >= 0, "norm", "a negative number of tokens") ||
        !holds(positive16(a->hidden), "norm", "rows are not a multiple of 16"))
        return TSR_ERR_ARG;
    return a->tokens == 0 ? TSR_OK : device->ops->norm(device, a, s);
}

tsr_status tsr_op_linears(tsr_device *device, const tsr_linears_args *a, tsr_stream s)
{
    if (!holds(a->count >= 1 && a->count <= TSR_MAX_LINEARS, "linears",
               "not 1 to TSR_MAX_LINEARS linears") ||
        !holds(within(a->tokens, device->shape.max_tokens), "linears", "more tokens than reserved"))
        return TSR_ERR_ARG;
    for (int32_t i = 0; i < a->count; i++) {
        if (!holds(linear_fits(device, a->linear[i]), "linears",
                   "a linear is not loaded or wider than reserved") ||
            !holds(a->linear[i]->in == a->linear[0]->in, "linears", "inputs of unequal width"))
            return TSR_ERR_ARG;
    }
    return a->tokens == 0 ? TSR_OK : device->ops->linears(device, a, s);
}

tsr_status tsr_op_head(tsr_device *device, const tsr_head_args *a, tsr_stream s)
{
    if (!holds(within(a->rows, device->shape.max_logit_rows), "head", "more rows than reserved") ||
        !holds(linear_fits(device, a->head), "head",
               "the linear is not loaded or wider than reserved"))
        return TSR_ERR_ARG;
    return a->rows == 0 ? TSR_OK : device->ops->head(device, a, s);
}

tsr_status tsr_op_add(tsr_device *device, const tsr_add_args *a, tsr_stream s)
{
    if (!holds(a->tokens >= 0 && a->hidden > 0, "add", "a negative number of tokens or no width"))
        return TSR_ERR_ARG;
    return a->tokens == 0 ? TSR_OK : device->ops->add(device, a, s);
}

tsr_status tsr_op_rotary(tsr_device *device, const tsr_rotary_args *a, tsr_stream s)
{
    if (!holds(a->tokens >= 0 && a->q_heads > 0 && a->kv_heads > 0, "rotary",
               "a negative number of tokens or no heads") ||
        !holds(positive16(a->head_dim), "rotary", "head_dim is not a multiple of 16") ||
        !holds(within(a->rotary_dim, a->head_dim) && a->rotary_dim % 2 == 0, "rotary",
               "rotary_dim is odd or wider than a head"))
        return TSR_ERR_ARG;
    return a->tokens == 0 ? TSR_OK : device->ops->rotary(device, a, s);
}

static bool cache_is_whole(const tsr_kv_layer *cache)
{
    return cache && cache->keys && cache->values && cache->format < TSR_KV_FORMAT_COUNT &&
           cache->blocks > 0 && cache->block_tokens > 0 && cache->kv_heads > 0 &&
           positive16(cache->head_dim);
}

tsr_status tsr_op_attention(tsr_device *device, const tsr_attention_args *a, tsr_stream s)
{
    if (!holds(within(a->tokens, device->shape.max_tokens) && a->sequences >= 0, "attention",
               "more tokens than reserved") ||
        !holds(cache_is_whole(a->cache), "attention", "the cache has a missing or odd shape") ||
        !holds(a->cache->head_dim <= device->shape.head_dim, "attention",
               "heads wider than reserved") ||
        !holds(a->q_heads > 0 && a->q_heads % a->cache->kv_heads == 0, "attention",
               "query heads are not a multiple of kv heads"))
        return TSR_ERR_ARG;
    return a->tokens == 0 ? TSR_OK : device->ops->attention(device, a, s);
}

static bool groups_are_right(const tsr_router_args *a)
{
    const int32_t experts = a->gate->out;

    if (a->kind == TSR_ROUTER_SOFTMAX)
        return true;
    return a->groups >= 1 && experts % a->groups == 0 && a->top_groups >= 1 &&
           a->top_groups <= a->groups && a->top_k <= experts / a->groups * a->top_groups;
}

tsr_status tsr_op_router(tsr_device *device, const tsr_router_args *a, tsr_stream s)
{
    if (!holds(within(a->tokens, device->shape.max_tokens), "router",
               "more tokens than reserved") ||
        !holds(linear_fits(device, a->gate) && is_float_format(a->gate->format) &&
                   a->gate->activation == TSR_ACTIVATION_NONE && !a->gate->pre_quant_scale,
               "router", "the gate is not an unquantized linear that fits") ||
        !holds(a->gate->out <= device->shape.max_experts && a->gate->out <= TSR_MAX_EXPERTS,
               "router", "more experts than reserved") ||
        !holds(a->kind < TSR_ROUTER_KIND_COUNT && a->top_k >= 1 && a->top_k <= a->gate->out &&
                   a->top_k <= TSR_MAX_TOP_K,
               "router", "top_k is not in 1..experts") ||
        !holds(groups_are_right(a), "router", "groups do not divide the experts or hold too few"))
        return TSR_ERR_ARG;
    return a->tokens == 0 ? TSR_OK : device->ops->router(device, a, s);
}

/* Shapes of one MLP against each other and the workspace. */
static bool mlp_fits(const tsr_device *device, const tsr_mlp *mlp)
{
    return linear_fits(device, &mlp->gate) && linear_fits(device, &mlp->up) &&
           linear_fits(device, &mlp->down) && mlp->gate.in == mlp->up.in &&
           mlp->gate.out == mlp->up.out && mlp->down.in == mlp->gate.out &&
           mlp->down.in <= device->shape.max_intermediate;
}

tsr_status tsr_op_mlp(tsr_device *device, const tsr_mlp_args *a, tsr_stream s)
{
    if (!holds(within(a->tokens, device->shape.max_tokens), "mlp", "more tokens than reserved") ||
        !holds(a->mlp && mlp_fits(device, a->mlp), "mlp",
               "gate, up and down do not fit each other or the workspace"))
        return TSR_ERR_ARG;
    return a->tokens == 0 ? TSR_OK : device->ops->mlp(device, a, s);
}

size_t tsr_packed_row_bytes(size_t activation_bytes, int32_t hidden, int32_t top_k)
{
    const size_t bytes = (size_t)hidden * activation_bytes + (size_t)top_k * sizeof(int32_t);

    return (bytes + 15U) & ~(size_t)15U;
}

tsr_status tsr_op_pack(tsr_device *device, const tsr_pack_args *a, tsr_stream s)
{
    const size_t activation = tsr_device_activation_bytes(device);

    if (!holds(a->tokens >= 0 && positive16(a->hidden) && a->top_k > 0, "pack",
               "a negative number of tokens, an odd width or no slots") ||
        !holds(a->row_bytes == tsr_packed_row_bytes(activation, a->hidden, a->top_k), "pack",
               "row_bytes is not that of packed rows"))
        return TSR_ERR_ARG;
    return a->tokens == 0 ? TSR_OK : device->ops->pack(device, a, s);
}

tsr_status tsr_op_expert_mlp(tsr_device *device, const tsr_expert_mlp_args *a, tsr_stream s)
{
    const size_t activation = tsr_device_activation_bytes(device);

    if (!holds(positive16(a->hidden) && a->top_k > 0 && a->experts > 0, "expert mlp",
               "an odd width, no slots or no experts") ||
        !holds(within(a->local_experts, device->shape.max_experts) && a->experts <= TSR_MAX_EXPERTS,
               "expert mlp", "more experts than reserved") ||
        !holds(a->row_bytes == tsr_packed_row_bytes(activation, a->hidden, a->top_k), "expert mlp",
               "row_bytes is not that of packed rows"))
        return TSR_ERR_ARG;
    return device->ops->expert_mlp(device, a, s);
}

tsr_status tsr_op_combine(tsr_device *device, const tsr_combine_args *a, tsr_stream s)
{
    if (!holds(a->tokens >= 0 && a->hidden > 0 && a->top_k > 0, "combine",
               "a negative number of tokens, no width or no slots"))
        return TSR_ERR_ARG;
    return a->tokens == 0 ? TSR_OK : device->ops->combine(device, a, s);
}

tsr_status tsr_op_sample(tsr_device *device, const tsr_sample_args *a, tsr_stream s)
{
    if (!holds(within(a->rows, device->shape.max_logit_rows), "sample",
               "more rows than reserved") ||
        !holds(within(a->vocab, device->shape.vocab), "sample",
               "a larger vocabulary than reserved") ||
        !holds(a->allowed >= 1 && a->allowed <= a->vocab, "sample",
               "the allowed ids are not 1..vocab"))
        return TSR_ERR_ARG;
    return a->rows == 0 ? TSR_OK : device->ops->sample(device, a, s);
}
