/*
 * One step through the model: the embedding, each layer's two blocks on the residual stream, and
 * the prediction.
 *
 *   x = embed(text)
 *   x = x + o(attention(rotate(qkv(norm(x)))))        for each layer
 *   x = x + mlp(norm(x))         dense, or the experts: ep_layer.c
 *   text = text, sample(head(norm(x)))       of the rows that are wanted
 */
#include "runtime/model/model_parts.h"

static tsr_text_table text_of(const tsr_model *m)
{
    return (tsr_text_table){
        .ids = tsr_step_shared_array(&m->step, TSR_STEP_TEXT),
        .slots = m->plan->limits.max_num_seqs,
        .positions = m->plan->limits.max_model_len,
    };
}

static tsr_status embed(const tsr_model *m, const tsr_batch *b)
{
    const tsr_embed_block block = {
        .x = tsr_step_shared_array(&m->step, TSR_STEP_RESIDUAL),
        .slot = b->slot,
        .position = b->position,
        .table = &m->weights.embed,
        .text = text_of(m),
        .tokens = b->count.tokens,
    };
    return tsr_block_embed(m->device, &block, m->stream);
}

static tsr_status attend(const tsr_model *m, int32_t layer, const tsr_batch *b, bool is_entered)
{
    const tsr_layer_weights *w = &m->weights.layer[layer];
    const tsr_attention_block block = {
        .x = tsr_step_shared_array(&m->step, TSR_STEP_RESIDUAL),
        .norm = w->input_norm,
        .q = &w->q,
        .k = &w->k,
        .v = &w->v,
        .o = &w->o,
        .q_norm = w->q_norm,
        .k_norm = w->k_norm,
        .cos = tsr_step_shared_array(&m->step, TSR_STEP_COS),
        .sin = tsr_step_shared_array(&m->step, TSR_STEP_SIN),
        .cache = &m->cache.layer[layer],
        .position = b->position,
        .sequence = b->sequence,
        .blocks = b->blocks,
        .tokens = b->count.tokens,
        .sequences = b->count.sequences,
        .q_heads = m->plan->model.q_heads,
        .rotary_dim = m->plan->model.rotary_dim,
        .eps = m->plan->model.norm_eps,
        .is_entered = is_entered,
    };
    return tsr_block_attention(m->device, &block, m->stream);
}

static tsr_status dense(const tsr_model *m, int32_t layer, const tsr_batch *b)
{
    const tsr_layer_weights *w = &m->weights.layer[layer];
    const tsr_mlp_block block = {
        .x = tsr_step_shared_array(&m->step, TSR_STEP_RESIDUAL),
        .norm = w->post_norm,
        .mlp = &w->mlp,
        .tokens = b->count.tokens,
        .eps = m->plan->model.norm_eps,
    };
    return tsr_block_mlp(m->device, &block, m->stream);
}

static tsr_status predict(const tsr_model *m, const tsr_flight *f, const tsr_batch *b)
{
    const int32_t vocab = m->plan->model.vocab;
    const int32_t ids = m->plan->token_ids;
    const tsr_predict_block block = {
        .sampled = f->results,
        .top = f->top_results,
        .logits = f->logits,
        .x = tsr_step_shared_array(&m->step, TSR_STEP_RESIDUAL),
        .x_row = b->logit_row,
        .row = b->sample,
        .rules = tsr_step_shared_array(&m->step, TSR_STEP_RULES),
        .masks = f->masks,
        .mask_rows = tsr_batch_most(&m->plan->limits, vocab).masks,
        .is_bent = b->count.bent > 0,
        .norm = m->weights.final_norm,
        .head = &m->weights.head,
        .text = text_of(m),
        .rows = b->count.logit_rows,
        .samples = b->count.samples,
        .tops = m->plan->limits.logit_rows * TSR_MOST_TOP,
        .allowed = ids > 0 && ids < vocab ? ids : vocab,
        .eps = m->plan->model.norm_eps,
    };
    return tsr_block_predict(m->device, &block, m->stream);
}

/* Tells who watches what has been put on the stream, where it was. */
static tsr_status told(const tsr_model *m, int32_t layer, tsr_stage stage, tsr_status status)
{
    const tsr_stage_watch *watch = m->ep.watch;

    return status == TSR_OK && watch != NULL ? watch->put(watch->context, layer, stage, m->stream)
                                             : status;
}

tsr_status tsr_forward(const tsr_model *model, const tsr_flight *flight,
                       const tsr_step_facts *facts)
{
    const tsr_batch *b = &flight->on_device;

    tsr_status st = told(model, 0, TSR_STAGE_EMBED, embed(model, b));
    for (int32_t l = 0; st == TSR_OK && l < model->plan->model.layers; l++) {
        const bool is_entered = tsr_ep_layer_leads_on(&model->ep, l - 1, facts);
        st = told(model, l, TSR_STAGE_ATTENTION, attend(model, l, b, is_entered));
        if (st == TSR_OK && model->weights.layer[l].sparse)
            st = tsr_ep_layer_forward(&model->ep, l, b->count.tokens, facts, model->stream);
        else if (st == TSR_OK)
            st = told(model, l, TSR_STAGE_DENSE, dense(model, l, b));
    }
    if (st == TSR_OK)
        st = told(model, 0, TSR_STAGE_PREDICT, predict(model, flight, b));
    return st;
}
