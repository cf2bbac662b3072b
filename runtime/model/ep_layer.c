#include "runtime/model/ep_layer.h"

/* Where a round's share of this rank's tokens lies. */
typedef struct round_share {
    int32_t first; /* token */
    int32_t tokens;
} round_share;

static size_t expert_row(const tsr_ep_layer *ep, int32_t layer)
{
    return (size_t)layer * (size_t)ep->plan->model.experts;
}

static void *row_of(const tsr_ep_layer *ep, tsr_step_array array, int32_t row, int32_t width,
                    size_t element)
{
    unsigned char *rows = ep->step->array[array];
    return rows + (size_t)row * (size_t)width * element;
}

/* A row of activations. */
static void *activations(const tsr_ep_layer *ep, tsr_step_array array, int32_t row)
{
    return row_of(ep, array, row, ep->plan->model.hidden, tsr_device_activation_bytes(ep->device));
}

/* A row of the K choices of a token. */
static void *choices(const tsr_ep_layer *ep, tsr_step_array array, int32_t row)
{
    return row_of(ep, array, row, ep->plan->model.top_k, sizeof(int32_t));
}

tsr_status tsr_ep_layer_open(const tsr_plan *plan, const tsr_weights *weights, const tsr_step *step,
                             tsr_comm *comm, tsr_ep_layer *ret_ep)
{
    tsr_exchange_shape shape =
        tsr_exchange_shape_of(&plan->model, &plan->limits, tsr_comm_size(comm),
                              tsr_device_activation_bytes(weights->device));
    tsr_ep_layer ep = {
        .plan = plan,
        .weights = weights,
        .step = step,
        .device = weights->device,
        .row_bytes = shape.row_bytes,
    };
    tsr_status st = tsr_exchange_open(comm, &shape, &ep.exchange);
    if (st != TSR_OK)
        return st;
    ep.buffers = tsr_exchange_buffers_of(ep.exchange);
    *ret_ep = ep;
    return TSR_OK;
}

tsr_status tsr_ep_layer_tables(const tsr_ep_layer *ep, tsr_stream s)
{
    size_t row_bytes = (size_t)ep->plan->model.experts * sizeof(int32_t);
    int32_t *owner = ep->step->array[TSR_STEP_OWNER];
    int32_t *local = ep->step->array[TSR_STEP_LOCAL];
    tsr_mlp *mlps = ep->step->array[TSR_STEP_MLPS];
    tsr_status st = TSR_OK;

    for (int32_t l = 0; st == TSR_OK && l < ep->plan->model.layers; l++) {
        const tsr_layer_weights *w = &ep->weights->layer[l];
        if (!w->sparse)
            continue;
        size_t row = expert_row(ep, l);
        st = tsr_device_put(ep->device, owner + row, ep->plan->expert_rank + row, row_bytes, s);
        if (st == TSR_OK)
            st = tsr_device_put(ep->device, local + row, w->local_of, row_bytes, s);
        if (st == TSR_OK)
            st = tsr_device_put(ep->device, mlps + row, w->experts,
                                (size_t)w->local_experts * sizeof(*w->experts), s);
    }
    return st;
}

static tsr_status choose(const tsr_ep_layer *ep, const tsr_ep_step *step, tsr_stream s)
{
    const tsr_model_facts *model = &ep->plan->model;
    const tsr_layer_weights *w = &ep->weights->layer[step->layer];
    const tsr_router_args a = {
        .expert = ep->step->array[TSR_STEP_EXPERT],
        .weight = ep->step->array[TSR_STEP_WEIGHT],
        .x = ep->step->array[TSR_STEP_NORMED],
        .gate = &w->router,
        .bias = w->router_bias,
        .kind = model->router,
        .tokens = step->tokens,
        .top_k = model->top_k,
        .groups = model->groups,
        .top_groups = model->top_groups,
        .normalise = model->norm_top_k,
        .routed_scale = model->routed_scale,
    };
    return tsr_op_router(ep->device, &a, s);
}

static tsr_status go(const tsr_ep_layer *ep, int32_t layer, const round_share *share, tsr_stream s)
{
    const int32_t *owner = ep->step->array[TSR_STEP_OWNER];
    const tsr_pack_args a = {
        .rows = ep->buffers.send_rows,
        .tag = ep->buffers.send_ranks,
        .x = activations(ep, TSR_STEP_NORMED, share->first),
        .expert = choices(ep, TSR_STEP_EXPERT, share->first),
        .tag_of = owner + expert_row(ep, layer),
        .row_bytes = ep->row_bytes,
        .tokens = share->tokens,
        .hidden = ep->plan->model.hidden,
        .top_k = ep->plan->model.top_k,
    };
    tsr_status st = tsr_op_pack(ep->device, &a, s);
    if (st == TSR_OK)
        st = tsr_exchange_dispatch(ep->exchange, share->tokens, s);
    return st;
}

static tsr_status share_experts(const tsr_ep_layer *ep, int32_t layer, const round_share *share,
                                tsr_stream s)
{
    if (ep->plan->model.shared_intermediate == 0)
        return TSR_OK;
    const tsr_mlp_args a = {
        .out = activations(ep, TSR_STEP_DELTA, share->first),
        .x = activations(ep, TSR_STEP_NORMED, share->first),
        .mlp = &ep->weights->layer[layer].mlp,
        .tokens = share->tokens,
    };
    return tsr_op_mlp(ep->device, &a, s);
}

static tsr_status compute(const tsr_ep_layer *ep, int32_t layer, tsr_stream s)
{
    const tsr_model_facts *model = &ep->plan->model;
    const int32_t *local = ep->step->array[TSR_STEP_LOCAL];
    const tsr_mlp *mlps = ep->step->array[TSR_STEP_MLPS];
    const tsr_expert_mlp_args a = {
        .answers = ep->buffers.answers,
        .rows = ep->buffers.arrived_rows,
        .row_count = ep->buffers.arrived_count,
        .answer_of = ep->buffers.answer_of,
        .mlps = mlps + expert_row(ep, layer),
        .local_of = local + expert_row(ep, layer),
        .row_bytes = ep->row_bytes,
        .hidden = model->hidden,
        .top_k = model->top_k,
        .local_experts = ep->weights->layer[layer].local_experts,
        .experts = model->experts,
    };
    return tsr_op_expert_mlp(ep->device, &a, s);
}

static tsr_status combine(const tsr_ep_layer *ep, const round_share *share, tsr_stream s)
{
    void *residual = activations(ep, TSR_STEP_RESIDUAL, share->first);
    bool shared = ep->plan->model.shared_intermediate > 0;
    const tsr_combine_args a = {
        .out = residual,
        .rows = ep->buffers.returned_rows,
        .weight = choices(ep, TSR_STEP_WEIGHT, share->first),
        .shared = shared ? activations(ep, TSR_STEP_DELTA, share->first) : NULL,
        .residual = residual,
        .tokens = share->tokens,
        .hidden = ep->plan->model.hidden,
        .top_k = ep->plan->model.top_k,
    };
    return tsr_op_combine(ep->device, &a, s);
}

/* One exchange there and back, with this rank's share of the round, which may be nothing. */
static tsr_status one_round(const tsr_ep_layer *ep, int32_t layer, const round_share *share,
                            tsr_stream s)
{
    /* go */
    tsr_status st = go(ep, layer, share, s);

    /* compute: at home while the rows travel, then what has arrived */
    if (st == TSR_OK)
        st = share_experts(ep, layer, share, s);
    if (st == TSR_OK)
        st = tsr_exchange_wait(ep->exchange, s);
    if (st == TSR_OK)
        st = compute(ep, layer, s);

    /* come back */
    if (st == TSR_OK)
        st = tsr_exchange_return(ep->exchange, s);
    if (st == TSR_OK)
        st = tsr_exchange_wait(ep->exchange, s);

    /* combine */
    if (st == TSR_OK)
        st = combine(ep, share, s);
    return st;
}

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* At least one, so that an idle step still notices a rank that is gone. */
static int32_t rounds_of(int32_t tokens, int32_t exchange_tokens)
{
    return tokens == 0 ? 1 : (tokens - 1) / exchange_tokens + 1;
}

tsr_status tsr_ep_layer_forward(const tsr_ep_layer *ep, const tsr_ep_step *step, tsr_stream stream)
{
    int32_t most = ep->plan->limits.exchange_tokens;
    int32_t rounds = rounds_of(step->max_rank_tokens, most);

    /* choose */
    tsr_status st = choose(ep, step, stream);

    for (int32_t r = 0; st == TSR_OK && r < rounds; r++) {
        int32_t first = smaller(r * most, step->tokens);
        round_share share = {
            .first = first,
            .tokens = smaller(most, step->tokens - first),
        };
        st = one_round(ep, step->layer, &share, stream);
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
