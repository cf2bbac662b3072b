/*
 * A sparse layer as blocks and exchanges, round by round; ep_layer.h tells the story.
 *
 *   residual --choose--> send_rows ==dispatch==> arrived_rows --experts--> answers
 *      ^                     |                                                |
 *      |                  shared                                              |
 *      '----combine------ [T, H] + returned_rows <=========return=============='
 *
 * On one rank arrived_rows are send_rows and returned_rows are answers: nothing is copied.
 */
#include "runtime/model/ep_layer.h"

#include "runtime/base/sizes.h"

/* Where a round's share of this rank's tokens lies. */
typedef struct round_share {
    int32_t layer;
    int32_t first; /* token */
    int32_t tokens;
    int32_t most;  /* tokens of any rank */
    bool leads_on; /* to the attention of the next layer */
} round_share;

static void *row_of(const tsr_ep_layer *ep, tsr_step_array array, int32_t row, size_t row_bytes)
{
    unsigned char *rows = tsr_step_shared_array(ep->step, array);
    return rows + (size_t)row * row_bytes;
}

/* A row of activations. */
static void *activations(const tsr_ep_layer *ep, tsr_step_array array, int32_t row)
{
    const size_t element = tsr_device_activation_bytes(ep->device);
    return row_of(ep, array, row, (size_t)ep->plan->model.hidden * element);
}

/* The weights of the K choices of a token. */
static float *weights_of(const tsr_ep_layer *ep, int32_t row)
{
    return row_of(ep, TSR_STEP_WEIGHT, row, (size_t)ep->plan->model.top_k * sizeof(float));
}

tsr_status tsr_ep_layer_open(const tsr_model_args *args, const tsr_weights *weights,
                             const tsr_step *step, tsr_arena *arena, tsr_ep_layer *ret_ep)
{
    const tsr_plan *plan = args->plan;
    const tsr_exchange_shape shape = tsr_exchange_shape_of(
        &plan->model, &plan->limits, plan->ranks, tsr_device_activation_bytes(args->device));
    tsr_ep_layer ep = {
        .plan = plan,
        .weights = weights,
        .step = step,
        .device = args->device,
        .experts = tsr_arena_array(arena, (size_t)plan->model.layers, sizeof(*ep.experts)),
    };
    if (ep.experts == NULL)
        return TSR_ERR_MEMORY;
    const tsr_status st = args->open_exchange(args->comm, &shape, &ep.exchange);
    if (st != TSR_OK)
        return st;
    ep.buffers = tsr_exchange_buffers_of(ep.exchange);
    *ret_ep = ep;
    return TSR_OK;
}

static tsr_router router_of(const tsr_model_facts *model, const tsr_layer_weights *w)
{
    return (tsr_router){
        .gate = &w->router,
        .bias = w->router_bias,
        .kind = model->router,
        .top_k = model->top_k,
        .groups = model->groups,
        .top_groups = model->top_groups,
        .normalise = model->norm_top_k,
        .routed_scale = model->routed_scale,
    };
}

tsr_status tsr_ep_layer_make_experts(const tsr_ep_layer *ep, void *image, tsr_stream stream)
{
    const tsr_model_facts *model = &ep->plan->model;
    const uint64_t table_bytes = tsr_experts_bytes(model->experts, model->experts);
    unsigned char *tables = tsr_step_shared_array(ep->step, TSR_STEP_EXPERTS);
    tsr_status st = TSR_OK;

    for (int32_t l = 0; st == TSR_OK && l < model->layers; l++) {
        const tsr_layer_weights *w = &ep->weights->layer[l];
        const size_t at = (size_t)l * table_bytes;
        if (!w->sparse)
            continue;
        const tsr_experts_source source = {
            .router = router_of(model, w),
            .mlps = w->experts,
            .local_of = w->local_of,
            .tag_of = ep->plan->expert_rank + (size_t)l * (size_t)model->experts,
            .experts = model->experts,
            .local = w->local_experts,
            .hidden = model->hidden,
        };
        st = tsr_experts_make(ep->device, &source, (unsigned char *)image + at, tables + at, stream,
                              &ep->experts[l]);
    }
    return st;
}

/* Whether rows stay where they are made: with the only rank. */
static bool stay(const tsr_ep_layer *ep)
{
    return ep->buffers.arrived_rows == ep->buffers.send_rows;
}

/* Most rows that arrive of a round's share. */
static int32_t most_arriving(const tsr_ep_layer *ep, const round_share *share)
{
    return tsr_smaller(ep->buffers.arrived_capacity, share->most * ep->plan->ranks);
}

/* Rows to travel, and to whom: an expert's tag is its rank. */
static tsr_status choose(const tsr_ep_layer *ep, const round_share *share, tsr_stream s)
{
    const tsr_choose_block block = {
        .rows = ep->buffers.send_rows,
        .tag = ep->buffers.send_ranks,
        .weight = weights_of(ep, share->first),
        .x = activations(ep, TSR_STEP_RESIDUAL, share->first),
        .norm = ep->weights->layer[share->layer].post_norm,
        .experts = &ep->experts[share->layer],
        .tokens = share->tokens,
        .eps = ep->plan->model.norm_eps,
        .stays = stay(ep) && most_arriving(ep, share) == share->tokens,
    };
    return tsr_block_choose(ep->device, &block, s);
}

static tsr_status share_experts(const tsr_ep_layer *ep, const round_share *share, tsr_stream s)
{
    if (ep->plan->model.shared_intermediate == 0)
        return TSR_OK;
    const tsr_shared_block block = {
        .out = activations(ep, TSR_STEP_SHARED, share->first),
        .rows = ep->buffers.send_rows,
        .mlp = &ep->weights->layer[share->layer].mlp,
        .row_bytes = ep->experts[share->layer].row_bytes,
        .tokens = share->tokens,
    };
    return tsr_block_shared(ep->device, &block, s);
}

static tsr_status compute(const tsr_ep_layer *ep, const round_share *share, tsr_stream s)
{
    const tsr_exchange_buffers buffers = tsr_exchange_buffers_of(ep->exchange);
    const tsr_experts_block block = {
        .answers = ep->buffers.answers,
        .rows = ep->buffers.arrived_rows,
        .row_count = buffers.arrived_count,
        .answer_of = ep->buffers.answer_of,
        .parts = ep->buffers.answer_parts,
        .part_bits = ep->buffers.answer_part_bits,
        .experts = &ep->experts[share->layer],
        .most_rows = most_arriving(ep, share),
        .chosen = stay(ep),
    };
    return tsr_block_experts(ep->device, &block, s);
}

static tsr_status combine(const tsr_ep_layer *ep, const round_share *share,
                          const tsr_exchange_coming *coming, tsr_stream s)
{
    const tsr_model_facts *model = &ep->plan->model;
    const bool shared = model->shared_intermediate > 0;
    tsr_block_entry next = {0};
    if (share->leads_on) {
        const tsr_layer_weights *layer = &ep->weights->layer[share->layer + 1];
        next = (tsr_block_entry){layer->input_norm, &layer->q, model->norm_eps};
    }
    const tsr_combine_block block = {
        .x = activations(ep, TSR_STEP_RESIDUAL, share->first),
        .answers = coming->rows != NULL ? coming->rows : ep->buffers.returned_rows,
        .coming = coming->rows,
        .ended = coming->ended,
        .weight = weights_of(ep, share->first),
        .shared = shared ? activations(ep, TSR_STEP_SHARED, share->first) : NULL,
        .tokens = share->tokens,
        .hidden = model->hidden,
        .top_k = model->top_k,
        .computed = coming->rows == NULL && ep->buffers.returned_rows == ep->buffers.answers,
        .next = next,
    };
    return tsr_block_combine(ep->device, &block, s);
}

/* Tells who watches what has been put on the stream. */
static tsr_status told(const tsr_ep_layer *ep, int32_t layer, tsr_stage stage, tsr_stream s)
{
    return ep->watch != NULL ? ep->watch->put(ep->watch->context, layer, stage, s) : TSR_OK;
}

/* The tokens' rows to where their experts are; meanwhile what is computed at home. */
static tsr_status go(const tsr_ep_layer *ep, const round_share *share, tsr_stream s)
{
    tsr_status st = tsr_exchange_expect(ep->exchange, share->most);
    if (st == TSR_OK)
        st = tsr_exchange_dispatch(ep->exchange, share->tokens, s);
    if (st == TSR_OK)
        st = told(ep, share->layer, TSR_STAGE_DISPATCH, s);
    if (st == TSR_OK)
        st = share_experts(ep, share, s);
    if (st == TSR_OK && ep->plan->model.shared_intermediate > 0)
        st = told(ep, share->layer, TSR_STAGE_SHARED, s);
    if (st == TSR_OK)
        st = tsr_exchange_wait(ep->exchange, s);
    return st == TSR_OK ? told(ep, share->layer, TSR_STAGE_ARRIVE, s) : st;
}

static tsr_status come_back(const tsr_ep_layer *ep, const round_share *share, tsr_stream s)
{
    tsr_status st = tsr_exchange_return(ep->exchange, s);
    if (st == TSR_OK)
        st = tsr_exchange_wait(ep->exchange, s);
    return st == TSR_OK ? told(ep, share->layer, TSR_STAGE_RETURN, s) : st;
}

/* Few answers are combined as they come. */
static tsr_status come_back_into(const tsr_ep_layer *ep, const round_share *share, tsr_stream s)
{
    tsr_exchange_coming coming = {0};
    tsr_status st = TSR_OK;

    if (!tsr_exchange_hand_over(ep->exchange, &coming))
        st = come_back(ep, share, s);
    return st == TSR_OK ? combine(ep, share, &coming, s) : st;
}

/* One exchange there and back, with this rank's share of the round, which may be nothing. */
static tsr_status one_round(const tsr_ep_layer *ep, const round_share *share, tsr_stream s)
{
    tsr_status st = choose(ep, share, s);
    if (st == TSR_OK)
        st = told(ep, share->layer, TSR_STAGE_CHOOSE, s);
    if (st == TSR_OK)
        st = go(ep, share, s);
    if (st == TSR_OK)
        st = compute(ep, share, s);
    if (st == TSR_OK)
        st = told(ep, share->layer, TSR_STAGE_EXPERTS, s);
    if (st == TSR_OK)
        st = come_back_into(ep, share, s);
    return st == TSR_OK ? told(ep, share->layer, TSR_STAGE_COMBINE, s) : st;
}

int32_t tsr_ep_layer_rounds(const tsr_ep_layer *ep, const tsr_step_facts *facts)
{
    const int32_t most = ep->plan->limits.exchange_tokens;

    return facts->max_rank_tokens > 0 ? tsr_pieces(facts->max_rank_tokens, most) : 1;
}

bool tsr_ep_layer_leads_on(const tsr_ep_layer *ep, int32_t layer, const tsr_step_facts *facts)
{
    return layer >= 0 && layer + 1 < ep->plan->model.layers && ep->weights->layer[layer].sparse &&
           tsr_ep_layer_rounds(ep, facts) == 1;
}

tsr_status tsr_ep_layer_forward(const tsr_ep_layer *ep, int32_t layer, int32_t tokens,
                                const tsr_step_facts *facts, tsr_stream stream)
{
    const int32_t most = ep->plan->limits.exchange_tokens;
    const int32_t rounds = tsr_ep_layer_rounds(ep, facts);
    tsr_status st = TSR_OK;

    for (int32_t r = 0; st == TSR_OK && r < rounds; r++) {
        const int32_t first = tsr_smaller(r * most, tokens);
        const round_share share = {
            .layer = layer,
            .first = first,
            .tokens = tsr_smaller(most, tokens - first),
            .most = tsr_smaller(most, tsr_larger(facts->max_rank_tokens - r * most, 0)),
            .leads_on = tsr_ep_layer_leads_on(ep, layer, facts),
        };
        st = one_round(ep, &share, stream);
    }
    return st;
}

void tsr_ep_layer_close(tsr_ep_layer *ep)
{
    if (ep == NULL)
        return;
    tsr_exchange_close(ep->exchange);
    ep->exchange = NULL;
}
