/*
 * Qwen3-MoE: every layer sparse unless said otherwise, no shared expert, normalised heads, no
 * biases, all of a head rotates.
 */
#include "runtime/checkpoint/family.h"

static const tsr_known_field own_fields[] = {
    {"num_experts", TSR_FIELD_READ, NULL},
    {"decoder_sparse_step", TSR_FIELD_READ, NULL},
    {"mlp_only_layers", TSR_FIELD_READ, NULL},
};

/* A layer is sparse when it is the last of its step and not listed as dense. */
static tsr_status read_sparse(const tsr_fields *config, tsr_model_facts *facts)
{
    static const tsr_int_rule step_rule = {
        .name = "decoder_sparse_step", .smallest = 1, .largest = TSR_MAX_LAYERS, .otherwise = 1};
    int32_t step = 1;
    const tsr_status st = tsr_fields_int(config, &step_rule, &step);
    if (st != TSR_OK)
        return st;

    for (int32_t i = 0; i < facts->layers; i++)
        facts->sparse[i] = (i + 1) % step == 0;

    const json_t *dense = tsr_fields_get(config, "mlp_only_layers");
    if (dense != NULL && !json_is_array(dense))
        return tsr_fields_refuse(config, "mlp_only_layers", "is not a list");
    for (size_t i = 0; i < json_array_size(dense); i++) {
        const json_t *entry = json_array_get(dense, i);
        const json_int_t layer = json_integer_value(entry);
        if (!json_is_integer(entry) || layer < 0 || layer >= facts->layers)
            return tsr_fields_refuse(config, "mlp_only_layers",
                                     "entry %zu is not the number of a layer", i);
        facts->sparse[layer] = false;
    }
    return TSR_OK;
}

static tsr_status read_qwen3_moe(const tsr_fields *config, tsr_model_facts *facts)
{
    if (facts->qkv_bias)
        return tsr_fields_refuse(config, "attention_bias",
                                 "true: o_proj would have a bias too, which is not supported");
    if (facts->rotary_dim != facts->head_dim)
        return tsr_fields_refuse(config, "partial_rotary_factor",
                                 "other than 1 is not supported for qwen3_moe");

    facts->qk_norm = true;
    facts->groups = 1;
    facts->top_groups = 1;
    facts->routed_scale = 1.0f;
    return read_sparse(config, facts);
}

const tsr_family_rules tsr_family_qwen3_moe = {
    .model_type = "qwen3_moe",
    .architecture = "Qwen3MoeForCausalLM",
    .family = TSR_FAMILY_QWEN3_MOE,
    .router = TSR_ROUTER_SOFTMAX,
    .experts = {.name = "num_experts",
                .other = "num_local_experts",
                .smallest = 1,
                .largest = TSR_MAX_EXPERTS,
                .required = true},
    .fields = {own_fields, sizeof(own_fields) / sizeof(own_fields[0])},
    .norm_top_k = false,
    .norm_eps = 1e-6,
    .rotary_factor = 1.0,
    .read = read_qwen3_moe,
};
