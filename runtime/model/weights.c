/* Where everything goes: the one map from the plan's roles to the views the forward pass reads. */
#include "runtime/model/weights.h"

#include "runtime/base/log.h"
#include "runtime/plan/modules.h"
#include "runtime/plan/shapes.h"

static uint64_t bytes_of_linear(const tsr_device *device, const tsr_linear_plan *l)
{
    return tsr_device_linear_bytes(device, l->format, l->out, l->in, l->bias.file >= 0,
                                   l->pre_quant_scale.file >= 0);
}

static uint64_t bytes_held(const tsr_plan *plan, const tsr_device *device, int32_t rank)
{
    uint64_t bytes = 0;
    for (int32_t i = 0; i < plan->linear_count; i++) {
        if (tsr_rank_holds(plan, &plan->linears[i], rank))
            bytes += bytes_of_linear(device, &plan->linears[i]);
    }
    for (int32_t i = 0; i < plan->vector_count; i++)
        bytes += tsr_vector_bytes(&plan->vectors[i]);
    return bytes;
}

/* Numbers one layer's experts of this rank by ascending id. */
static tsr_status number_experts(const tsr_plan *plan, int32_t layer, int32_t rank,
                                 tsr_arena *arena, tsr_layer_weights *w)
{
    const int32_t experts = plan->model.experts;
    int32_t *local_of = tsr_arena_array(arena, (size_t)experts, sizeof(*local_of));
    if (local_of == NULL)
        return TSR_ERR_MEMORY;

    const int32_t *rank_of = plan->expert_rank + (size_t)layer * (size_t)experts;
    int32_t count = 0;
    for (int32_t e = 0; e < experts; e++)
        local_of[e] = rank_of[e] == rank ? count++ : -1;

    w->local_of = local_of;
    w->local_experts = count;
    w->experts = tsr_arena_array(arena, (size_t)count + 1, sizeof(*w->experts));
    return w->experts == NULL ? TSR_ERR_MEMORY : TSR_OK;
}

tsr_status tsr_weights_open(const tsr_plan *plan, tsr_device *device, int32_t rank,
                            tsr_arena *arena, tsr_weights *ret_weights)
{
    tsr_weights w = {.device = device, .bytes = bytes_held(plan, device, rank)};
    w.layer = tsr_arena_array(arena, (size_t)plan->model.layers, sizeof(*w.layer));
    if (w.layer == NULL)
        return TSR_ERR_MEMORY;

    for (int32_t l = 0; l < plan->model.layers; l++) {
        w.layer[l].sparse = plan->model.sparse[l];
        w.layer[l].key_scale = 1;
        w.layer[l].value_scale = 1;
        if (!w.layer[l].sparse)
            continue;
        const tsr_status st = number_experts(plan, l, rank, arena, &w.layer[l]);
        if (st != TSR_OK)
            return st;
    }

    const tsr_status st = tsr_device_alloc(device, w.bytes, &w.memory);
    if (st == TSR_OK)
        *ret_weights = w;
    return st;
}

static tsr_linear *linear_of_mlp(tsr_mlp *mlp, tsr_role role)
{
    if (role == TSR_ROLE_GATE || role == TSR_ROLE_SHARED_GATE || role == TSR_ROLE_EXPERT_GATE)
        return &mlp->gate;
    if (role == TSR_ROLE_UP || role == TSR_ROLE_SHARED_UP || role == TSR_ROLE_EXPERT_UP)
        return &mlp->up;
    return &mlp->down;
}

static tsr_linear *linear_of_expert(tsr_layer_weights *w, const tsr_plan *plan,
                                    const tsr_linear_plan *linear)
{
    if (!w->sparse || linear->expert < 0 || linear->expert >= plan->model.experts)
        return NULL;
    const int32_t place = w->local_of[linear->expert];
    return place < 0 ? NULL : linear_of_mlp(&w->experts[place], linear->role);
}

static tsr_linear *linear_of_layer(tsr_layer_weights *w, const tsr_plan *plan,
                                   const tsr_linear_plan *linear)
{
    const tsr_role role = linear->role;
    if (role == TSR_ROLE_EXPERT_GATE || role == TSR_ROLE_EXPERT_UP || role == TSR_ROLE_EXPERT_DOWN)
        return linear_of_expert(w, plan, linear);
    if (role == TSR_ROLE_GATE || role == TSR_ROLE_UP || role == TSR_ROLE_DOWN)
        return w->sparse ? NULL : linear_of_mlp(&w->mlp, role);
    if (role == TSR_ROLE_SHARED_GATE || role == TSR_ROLE_SHARED_UP || role == TSR_ROLE_SHARED_DOWN)
        return w->sparse ? linear_of_mlp(&w->mlp, role) : NULL;
    if (role == TSR_ROLE_ROUTER)
        return w->sparse ? &w->router : NULL;
    if (role == TSR_ROLE_Q)
        return &w->q;
    if (role == TSR_ROLE_K)
        return &w->k;
    if (role == TSR_ROLE_V)
        return &w->v;
    return role == TSR_ROLE_O ? &w->o : NULL;
}

tsr_linear *tsr_weights_linear(tsr_weights *weights, const tsr_plan *plan,
                               const tsr_linear_plan *linear)
{
    if (linear->role == TSR_ROLE_EMBED)
        return &weights->embed;
    if (linear->role == TSR_ROLE_HEAD)
        return &weights->head;
    if (linear->layer < 0 || linear->layer >= plan->model.layers)
        return NULL;
    return linear_of_layer(&weights->layer[linear->layer], plan, linear);
}

static const float **vector_of_layer(tsr_layer_weights *w, tsr_role role)
{
    if (role == TSR_ROLE_INPUT_NORM)
        return &w->input_norm;
    if (role == TSR_ROLE_POST_NORM)
        return &w->post_norm;
    if (role == TSR_ROLE_Q_NORM)
        return &w->q_norm;
    if (role == TSR_ROLE_K_NORM)
        return &w->k_norm;
    return role == TSR_ROLE_ROUTER_BIAS ? &w->router_bias : NULL;
}

const float **tsr_weights_vector(tsr_weights *weights, const tsr_plan *plan,
                                 const tsr_vector_plan *vector)
{
    if (vector->role == TSR_ROLE_FINAL_NORM)
        return &weights->final_norm;
    if (vector->layer < 0 || vector->layer >= plan->model.layers)
        return NULL;
    return vector_of_layer(&weights->layer[vector->layer], vector->role);
}

/* A pointer that must not be NULL by the time the forward pass reads it, and whose it is. */
typedef struct need {
    const void *what;
    int32_t layer;
    int32_t expert;
    tsr_role role;
} need;

static void name_need(const need *n, char ret_name[TSR_MODULE_NAME_BYTES])
{
    const tsr_linear_plan linear = {.layer = n->layer, .role = n->role, .expert = n->expert};
    const tsr_vector_plan vector = {.layer = n->layer, .role = n->role};
    if (tsr_role_is_linear(n->role))
        tsr_module_name(&linear, ret_name);
    else
        tsr_vector_name(&vector, ret_name);
}

static bool all_there(const need *needs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (needs[i].what != NULL)
            continue;
        char name[TSR_MODULE_NAME_BYTES];
        name_need(&needs[i], name);
        tsr_log(TSR_LOG_ERROR, "%s: the plan has no place for it in any file", name);
        return false;
    }
    return true;
}

static bool mlp_there(const tsr_mlp *mlp, int32_t layer, int32_t expert, const tsr_role role[3])
{
    const need needs[] = {
        {mlp->gate.weight, layer, expert, role[0]},
        {mlp->up.weight, layer, expert, role[1]},
        {mlp->down.weight, layer, expert, role[2]},
    };
    return all_there(needs, sizeof(needs) / sizeof(needs[0]));
}

static bool sparse_there(const tsr_layer_weights *w, const tsr_model_facts *model, int32_t layer)
{
    static const tsr_role shared[] = {TSR_ROLE_SHARED_GATE, TSR_ROLE_SHARED_UP,
                                      TSR_ROLE_SHARED_DOWN};
    static const tsr_role expert[] = {TSR_ROLE_EXPERT_GATE, TSR_ROLE_EXPERT_UP,
                                      TSR_ROLE_EXPERT_DOWN};
    const need router = {w->router.weight, layer, -1, TSR_ROLE_ROUTER};
    if (!all_there(&router, 1))
        return false;
    if (model->shared_intermediate > 0 && !mlp_there(&w->mlp, layer, -1, shared))
        return false;
    for (int32_t e = 0; e < model->experts; e++) {
        const int32_t place = w->local_of[e];
        if (place >= 0 && !mlp_there(&w->experts[place], layer, e, expert))
            return false;
    }
    return true;
}

static bool layer_there(const tsr_layer_weights *w, const tsr_model_facts *model, int32_t layer)
{
    static const tsr_role dense[] = {TSR_ROLE_GATE, TSR_ROLE_UP, TSR_ROLE_DOWN};
    const need needs[] = {
        {w->input_norm, layer, -1, TSR_ROLE_INPUT_NORM},
        {w->q.weight, layer, -1, TSR_ROLE_Q},
        {w->k.weight, layer, -1, TSR_ROLE_K},
        {w->v.weight, layer, -1, TSR_ROLE_V},
        {w->o.weight, layer, -1, TSR_ROLE_O},
        {w->post_norm, layer, -1, TSR_ROLE_POST_NORM},
        {w->q_norm, layer, -1, TSR_ROLE_Q_NORM},
        {w->k_norm, layer, -1, TSR_ROLE_K_NORM},
    };
    if (!all_there(needs, model->qk_norm ? 8 : 6))
        return false;
    return w->sparse ? sparse_there(w, model, layer) : mlp_there(&w->mlp, layer, -1, dense);
}

tsr_status tsr_weights_complete(tsr_weights *weights, const tsr_plan *plan)
{
    if (plan->model.tied_head)
        weights->head = weights->embed;

    const need needs[] = {
        {weights->embed.weight, -1, -1, TSR_ROLE_EMBED},
        {weights->head.weight, -1, -1, TSR_ROLE_HEAD},
        {weights->final_norm, -1, -1, TSR_ROLE_FINAL_NORM},
    };
    bool complete = all_there(needs, sizeof(needs) / sizeof(needs[0]));
    for (int32_t l = 0; complete && l < plan->model.layers; l++)
        complete = layer_there(&weights->layer[l], &plan->model, l);
    return complete ? TSR_OK : TSR_ERR_CHECKPOINT;
}

void tsr_weights_close(tsr_weights *weights)
{
    if (weights == NULL || weights->memory == NULL)
        return;
    tsr_device_free(weights->device, weights->memory);
    weights->memory = NULL;
}
