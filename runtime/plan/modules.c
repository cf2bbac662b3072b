/*
 * The modules of both families: one table, in which a row says under which condition a layer has
 * the module, what it is called, and its shape in the letters of model_facts.h.
 */
#include "runtime/plan/modules.h"

#include <stdio.h>
#include <stdlib.h>

typedef enum presence { ONCE, EVERY_LAYER, DENSE_LAYERS, SPARSE_LAYERS } presence;

/* Lengths that shapes are made of. */
typedef enum length {
    LENGTH_H,
    LENGTH_V,
    LENGTH_D,
    LENGTH_E,
    LENGTH_Q,
    LENGTH_KV,
    LENGTH_DENSE,
    LENGTH_SHARED,
    LENGTH_EXPERT,
    LENGTH_ONE,
} length;

typedef struct module_row {
    const char *name; /* behind "model.layers.N." where it is of a layer */
    presence where;
    length out;
    length in; /* vectors: unused */
} module_row;

static const module_row modules[TSR_ROLE_COUNT] = {
    [TSR_ROLE_EMBED] = {"model.embed_tokens", ONCE, LENGTH_V, LENGTH_H},
    [TSR_ROLE_HEAD] = {"lm_head", ONCE, LENGTH_V, LENGTH_H},
    [TSR_ROLE_Q] = {"self_attn.q_proj", EVERY_LAYER, LENGTH_Q, LENGTH_H},
    [TSR_ROLE_K] = {"self_attn.k_proj", EVERY_LAYER, LENGTH_KV, LENGTH_H},
    [TSR_ROLE_V] = {"self_attn.v_proj", EVERY_LAYER, LENGTH_KV, LENGTH_H},
    [TSR_ROLE_O] = {"self_attn.o_proj", EVERY_LAYER, LENGTH_H, LENGTH_Q},
    [TSR_ROLE_ROUTER] = {"mlp.gate", SPARSE_LAYERS, LENGTH_E, LENGTH_H},
    [TSR_ROLE_GATE] = {"mlp.gate_proj", DENSE_LAYERS, LENGTH_DENSE, LENGTH_H},
    [TSR_ROLE_UP] = {"mlp.up_proj", DENSE_LAYERS, LENGTH_DENSE, LENGTH_H},
    [TSR_ROLE_DOWN] = {"mlp.down_proj", DENSE_LAYERS, LENGTH_H, LENGTH_DENSE},
    [TSR_ROLE_SHARED_GATE] = {"mlp.shared_experts.gate_proj", SPARSE_LAYERS, LENGTH_SHARED,
                              LENGTH_H},
    [TSR_ROLE_SHARED_UP] = {"mlp.shared_experts.up_proj", SPARSE_LAYERS, LENGTH_SHARED, LENGTH_H},
    [TSR_ROLE_SHARED_DOWN] = {"mlp.shared_experts.down_proj", SPARSE_LAYERS, LENGTH_H,
                              LENGTH_SHARED},
    [TSR_ROLE_EXPERT_GATE] = {"gate_proj", SPARSE_LAYERS, LENGTH_EXPERT, LENGTH_H},
    [TSR_ROLE_EXPERT_UP] = {"up_proj", SPARSE_LAYERS, LENGTH_EXPERT, LENGTH_H},
    [TSR_ROLE_EXPERT_DOWN] = {"down_proj", SPARSE_LAYERS, LENGTH_H, LENGTH_EXPERT},
    [TSR_ROLE_FINAL_NORM] = {"model.norm.weight", ONCE, LENGTH_H, LENGTH_ONE},
    [TSR_ROLE_INPUT_NORM] = {"input_layernorm.weight", EVERY_LAYER, LENGTH_H, LENGTH_ONE},
    [TSR_ROLE_POST_NORM] = {"post_attention_layernorm.weight", EVERY_LAYER, LENGTH_H, LENGTH_ONE},
    [TSR_ROLE_Q_NORM] = {"self_attn.q_norm.weight", EVERY_LAYER, LENGTH_D, LENGTH_ONE},
    [TSR_ROLE_K_NORM] = {"self_attn.k_norm.weight", EVERY_LAYER, LENGTH_D, LENGTH_ONE},
    [TSR_ROLE_ROUTER_BIAS] = {"mlp.gate.e_score_correction_bias", SPARSE_LAYERS, LENGTH_E,
                              LENGTH_ONE},
    [TSR_ROLE_K_SCALE] = {"self_attn.k_proj.k_scale", EVERY_LAYER, LENGTH_ONE, LENGTH_ONE},
    [TSR_ROLE_V_SCALE] = {"self_attn.v_proj.v_scale", EVERY_LAYER, LENGTH_ONE, LENGTH_ONE},
};

static int32_t length_of(const tsr_model_facts *m, length l)
{
    switch (l) {
    case LENGTH_H:
        return m->hidden;
    case LENGTH_V:
        return m->vocab;
    case LENGTH_D:
        return m->head_dim;
    case LENGTH_E:
        return m->experts;
    case LENGTH_Q:
        return m->q_heads * m->head_dim;
    case LENGTH_KV:
        return m->kv_heads * m->head_dim;
    case LENGTH_DENSE:
        return m->dense_intermediate;
    case LENGTH_SHARED:
        return m->shared_intermediate;
    case LENGTH_EXPERT:
        return m->expert_intermediate;
    case LENGTH_ONE:
        break;
    }
    return 1;
}

static bool is_of_expert(tsr_role role)
{
    return role == TSR_ROLE_EXPERT_GATE || role == TSR_ROLE_EXPERT_UP ||
           role == TSR_ROLE_EXPERT_DOWN;
}

void tsr_module_name(const tsr_linear_plan *linear, char ret_name[TSR_MODULE_NAME_BYTES])
{
    const char *name = modules[linear->role].name;

    if (linear->layer < 0)
        (void)snprintf(ret_name, TSR_MODULE_NAME_BYTES, "%s", name);
    else if (is_of_expert(linear->role))
        (void)snprintf(ret_name, TSR_MODULE_NAME_BYTES, "model.layers.%d.mlp.experts.%d.%s",
                       linear->layer, linear->expert, name);
    else
        (void)snprintf(ret_name, TSR_MODULE_NAME_BYTES, "model.layers.%d.%s", linear->layer, name);
}

void tsr_vector_name(const tsr_vector_plan *vector, char ret_name[TSR_MODULE_NAME_BYTES])
{
    const char *name = modules[vector->role].name;

    if (vector->layer < 0)
        (void)snprintf(ret_name, TSR_MODULE_NAME_BYTES, "%s", name);
    else
        (void)snprintf(ret_name, TSR_MODULE_NAME_BYTES, "model.layers.%d.%s", vector->layer, name);
}

bool tsr_module_has_bias(const tsr_model_facts *model, tsr_role role)
{
    return model->qkv_bias && (role == TSR_ROLE_Q || role == TSR_ROLE_K || role == TSR_ROLE_V);
}

bool tsr_role_is_kv_scale(tsr_role role)
{
    return role == TSR_ROLE_K_SCALE || role == TSR_ROLE_V_SCALE;
}

/* What the table cannot say: modules that only some models have. */
static bool model_has(const tsr_model_facts *m, tsr_role role)
{
    if (role == TSR_ROLE_HEAD)
        return !m->tied_head;
    if (role == TSR_ROLE_Q_NORM || role == TSR_ROLE_K_NORM)
        return m->qk_norm;
    if (role == TSR_ROLE_ROUTER_BIAS)
        return m->router == TSR_ROUTER_SIGMOID;
    if (role == TSR_ROLE_SHARED_GATE || role == TSR_ROLE_SHARED_UP || role == TSR_ROLE_SHARED_DOWN)
        return m->shared_intermediate > 0;
    return true;
}

/* How many modules of that role a layer has (layer -1: the model itself). */
static int32_t count_in_layer(const tsr_model_facts *m, tsr_role role, int32_t layer)
{
    const presence where = modules[role].where;
    bool here;

    if (layer < 0)
        here = where == ONCE;
    else if (m->sparse[layer])
        here = where == EVERY_LAYER || where == SPARSE_LAYERS;
    else
        here = where == EVERY_LAYER || where == DENSE_LAYERS;
    if (!here || !model_has(m, role))
        return 0;
    return is_of_expert(role) ? m->experts : 1;
}

static int32_t count_roles(const tsr_model_facts *m, int first, int end)
{
    int32_t count = 0;

    for (int32_t layer = -1; layer < m->layers; layer++)
        for (int role = first; role < end; role++)
            count += count_in_layer(m, (tsr_role)role, layer);
    return count;
}

static tsr_linear_plan module_of(const tsr_model_facts *m, int32_t layer, tsr_role role,
                                 int32_t expert)
{
    const tsr_tensor_place nowhere = {.file = TSR_NO_FILE};

    return (tsr_linear_plan){
        .layer = layer,
        .role = role,
        .expert = expert,
        .out = length_of(m, modules[role].out),
        .in = length_of(m, modules[role].in),
        .weight = nowhere,
        .scale = nowhere,
        .global_scale = nowhere,
        .input_scale = nowhere,
        .pre_quant_scale = nowhere,
        .bias = nowhere,
    };
}

tsr_status tsr_modules_list(const tsr_model_facts *m, tsr_linear_plan **ret_linears,
                            int32_t *ret_count)
{
    const int32_t count = count_roles(m, 0, TSR_ROLE_FINAL_NORM);
    tsr_linear_plan *linears = calloc((size_t)count + 1, sizeof(*linears));
    int32_t at = 0;

    if (linears == NULL)
        return TSR_ERR_MEMORY;
    for (int32_t layer = -1; layer < m->layers; layer++) {
        for (int role = 0; role < TSR_ROLE_FINAL_NORM; role++) {
            const int32_t here = count_in_layer(m, (tsr_role)role, layer);
            const bool of_expert = is_of_expert((tsr_role)role);
            for (int32_t e = 0; e < here; e++)
                linears[at++] = module_of(m, layer, (tsr_role)role, of_expert ? e : -1);
        }
    }
    *ret_linears = linears;
    *ret_count = count;
    return TSR_OK;
}

tsr_status tsr_vectors_list(const tsr_model_facts *m, tsr_vector_plan **ret_vectors,
                            int32_t *ret_count)
{
    const int32_t count = count_roles(m, TSR_ROLE_FINAL_NORM, TSR_ROLE_COUNT);
    tsr_vector_plan *vectors = calloc((size_t)count + 1, sizeof(*vectors));
    int32_t at = 0;

    if (vectors == NULL)
        return TSR_ERR_MEMORY;
    for (int32_t layer = -1; layer < m->layers; layer++)
        for (int role = TSR_ROLE_FINAL_NORM; role < TSR_ROLE_COUNT; role++)
            if (count_in_layer(m, (tsr_role)role, layer) > 0)
                vectors[at++] = (tsr_vector_plan){.layer = layer,
                                                  .role = (tsr_role)role,
                                                  .elements = length_of(m, modules[role].out),
                                                  .place = {.file = TSR_NO_FILE}};
    *ret_vectors = vectors;
    *ret_count = count;
    return TSR_OK;
}
