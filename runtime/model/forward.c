/*
 * One step through the model: the embedding, each layer's two blocks on the residual stream, and
 * the head.
 *
 *   x = embed(token)
 *   x = x + o(attention(rotate(qkv(norm(x)))))        for each layer
 *   x = x + mlp(norm(x))         dense, or the experts: ep_layer.c
 *   logits = head(norm(x))       of the rows that are wanted
 */
#include "runtime/model/model_parts.h"

#include "runtime/base/log.h"

static bool within(const char *what, int64_t value, int64_t limit)
{
    if (value >= 0 && value <= limit)
        return true;
    tsr_log(TSR_LOG_ERROR, "step: %s is %lld, the limit is %lld", what, (long long)value,
            (long long)limit);
    return false;
}

static bool tokens_fit(const tsr_model *m, const tsr_batch *b)
{
    for (int32_t t = 0; t < b->tokens; t++) {
        if (!within("a token", b->token[t], m->plan->model.vocab - 1) ||
            !within("a position", b->position[t], m->plan->limits.max_model_len - 1))
            return false;
    }
    return true;
}

static bool batch_fits(const tsr_model *m, const tsr_batch *b)
{
    const tsr_engine_limits *limits = &m->plan->limits;
    int64_t block = limits->kv_block_tokens;
    int64_t blocks = limits->max_num_seqs * ((limits->max_model_len + block - 1) / block);
    return within("tokens", b->tokens, limits->max_batched_tokens) &&
           within("sequences", b->sequences, limits->max_num_seqs) &&
           within("block_count", b->block_count, blocks) &&
           within("logit_rows", b->logit_rows, limits->logit_rows) &&
           within("tokens", b->tokens, b->max_rank_tokens) &&
           within("max_rank_tokens", b->max_rank_tokens, limits->max_batched_tokens) &&
           tokens_fit(m, b);
}

static tsr_status put(const tsr_model *m, tsr_step_array array, const void *from, int32_t count,
                      size_t element)
{
    if (count == 0)
        return TSR_OK;
    return tsr_device_put(m->device, m->step.array[array], from, (size_t)count * element,
                          m->stream);
}

/* The batch's arrays into device memory. */
static tsr_status put_batch(const tsr_model *m, const tsr_batch *b)
{
    if (!batch_fits(m, b))
        return TSR_ERR_ARG;
    tsr_status st = put(m, TSR_STEP_TOKEN, b->token, b->tokens, sizeof(*b->token));
    if (st == TSR_OK)
        st = put(m, TSR_STEP_POSITION, b->position, b->tokens, sizeof(*b->position));
    if (st == TSR_OK)
        st = put(m, TSR_STEP_SEQUENCE, b->sequence, b->sequences, sizeof(*b->sequence));
    if (st == TSR_OK)
        st = put(m, TSR_STEP_BLOCK, b->blocks, b->block_count, sizeof(*b->blocks));
    if (st == TSR_OK)
        st = put(m, TSR_STEP_LOGIT_ROW, b->logit_row, b->logit_rows, sizeof(*b->logit_row));
    return st;
}

static tsr_status embed(const tsr_model *m, int32_t tokens)
{
    const tsr_embed_args a = {
        .out = m->step.array[TSR_STEP_RESIDUAL],
        .ids = m->step.array[TSR_STEP_TOKEN],
        .table = &m->weights.embed,
        .tokens = tokens,
    };
    return tsr_op_embed(m->device, &a, m->stream);
}

static tsr_status norm(const tsr_model *m, const float *weight, int32_t tokens)
{
    const tsr_norm_args a = {
        .out = m->step.array[TSR_STEP_NORMED],
        .x = m->step.array[TSR_STEP_RESIDUAL],
        .weight = weight,
        .tokens = tokens,
        .hidden = m->plan->model.hidden,
        .eps = m->plan->model.norm_eps,
    };
    return tsr_op_norm(m->device, &a, m->stream);
}

static tsr_status qkv(const tsr_model *m, const tsr_layer_weights *w, int32_t tokens)
{
    const tsr_linears_args a = {
        .out = {m->step.array[TSR_STEP_Q], m->step.array[TSR_STEP_K], m->step.array[TSR_STEP_V]},
        .linear = {&w->q, &w->k, &w->v},
        .x = m->step.array[TSR_STEP_NORMED],
        .count = 3,
        .tokens = tokens,
    };
    return tsr_op_linears(m->device, &a, m->stream);
}

static tsr_status rotate(const tsr_model *m, const tsr_layer_weights *w, int32_t tokens)
{
    const tsr_model_facts *model = &m->plan->model;
    const tsr_rotary_args a = {
        .q = m->step.array[TSR_STEP_Q],
        .k = m->step.array[TSR_STEP_K],
        .q_norm = model->qk_norm ? w->q_norm : NULL,
        .k_norm = model->qk_norm ? w->k_norm : NULL,
        .cos = m->step.array[TSR_STEP_COS],
        .sin = m->step.array[TSR_STEP_SIN],
        .position = m->step.array[TSR_STEP_POSITION],
        .tokens = tokens,
        .q_heads = model->q_heads,
        .kv_heads = model->kv_heads,
        .head_dim = model->head_dim,
        .rotary_dim = model->rotary_dim,
        .eps = model->norm_eps,
    };
    return tsr_op_rotary(m->device, &a, m->stream);
}

static tsr_status attend(const tsr_model *m, int32_t layer, const tsr_batch *b)
{
    const tsr_attention_args a = {
        .out = m->step.array[TSR_STEP_ATTENDED],
        .q = m->step.array[TSR_STEP_Q],
        .k = m->step.array[TSR_STEP_K],
        .v = m->step.array[TSR_STEP_V],
        .cache = &m->cache.layer[layer],
        .sequence = m->step.array[TSR_STEP_SEQUENCE],
        .blocks = m->step.array[TSR_STEP_BLOCK],
        .sequences = b->sequences,
        .tokens = b->tokens,
        .q_heads = m->plan->model.q_heads,
    };
    return tsr_op_attention(m->device, &a, m->stream);
}

static tsr_status project(const tsr_model *m, const tsr_layer_weights *w, int32_t tokens)
{
    const tsr_linears_args a = {
        .out = {m->step.array[TSR_STEP_DELTA]},
        .linear = {&w->o},
        .x = m->step.array[TSR_STEP_ATTENDED],
        .count = 1,
        .tokens = tokens,
    };
    return tsr_op_linears(m->device, &a, m->stream);
}

static tsr_status add_delta(const tsr_model *m, int32_t tokens)
{
    const tsr_add_args a = {
        .out = m->step.array[TSR_STEP_RESIDUAL],
        .a = m->step.array[TSR_STEP_RESIDUAL],
        .b = m->step.array[TSR_STEP_DELTA],
        .tokens = tokens,
        .hidden = m->plan->model.hidden,
    };
    return tsr_op_add(m->device, &a, m->stream);
}

static tsr_status attention_block(const tsr_model *m, int32_t layer, const tsr_batch *b)
{
    const tsr_layer_weights *w = &m->weights.layer[layer];
    tsr_status st = norm(m, w->input_norm, b->tokens);
    if (st == TSR_OK)
        st = qkv(m, w, b->tokens);
    if (st == TSR_OK)
        st = rotate(m, w, b->tokens);
    if (st == TSR_OK)
        st = attend(m, layer, b);
    if (st == TSR_OK)
        st = project(m, w, b->tokens);
    if (st == TSR_OK)
        st = add_delta(m, b->tokens);
    return st;
}

static tsr_status dense_mlp(const tsr_model *m, const tsr_layer_weights *w, int32_t tokens)
{
    const tsr_mlp_args a = {
        .out = m->step.array[TSR_STEP_DELTA],
        .x = m->step.array[TSR_STEP_NORMED],
        .mlp = &w->mlp,
        .tokens = tokens,
    };
    tsr_status st = tsr_op_mlp(m->device, &a, m->stream);
    if (st == TSR_OK)
        st = add_delta(m, tokens);
    return st;
}

static tsr_status mlp_block(const tsr_model *m, int32_t layer, const tsr_batch *b)
{
    const tsr_layer_weights *w = &m->weights.layer[layer];
    tsr_status st = norm(m, w->post_norm, b->tokens);
    if (st != TSR_OK)
        return st;
    if (!w->sparse)
        return dense_mlp(m, w, b->tokens);

    const tsr_ep_step step = {
        .layer = layer,
        .tokens = b->tokens,
        .max_rank_tokens = b->max_rank_tokens,
    };
    return tsr_ep_layer_forward(&m->ep, &step, m->stream);
}

static tsr_status head(const tsr_model *m, const tsr_batch *b)
{
    const tsr_head_args a = {
        .logits = m->step.array[TSR_STEP_LOGITS],
        .x = m->step.array[TSR_STEP_NORMED],
        .row = m->step.array[TSR_STEP_LOGIT_ROW],
        .head = &m->weights.head,
        .rows = b->logit_rows,
    };
    tsr_status st = norm(m, m->weights.final_norm, b->tokens);
    if (st == TSR_OK)
        st = tsr_op_head(m->device, &a, m->stream);
    return st;
}

tsr_status tsr_model_forward(tsr_model *model, const tsr_batch *batch, float **ret_logits)
{
    tsr_status st = put_batch(model, batch);
    if (st == TSR_OK)
        st = tsr_exchange_begin(model->ep.exchange, batch->epoch, model->stream);
    if (st == TSR_OK)
        st = embed(model, batch->tokens);
    for (int32_t l = 0; st == TSR_OK && l < model->plan->model.layers; l++) {
        st = attention_block(model, l, batch);
        if (st == TSR_OK)
            st = mlp_block(model, l, batch);
    }
    if (st == TSR_OK)
        st = head(model, batch);

    if (st == TSR_OK)
        *ret_logits = model->step.array[TSR_STEP_LOGITS];
    else
        tsr_comm_abort(model->comm, st); /* nobody waits for a rank that has left */
    return st;
}
