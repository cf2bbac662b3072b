/*
 * GLM-4.5, 4.5-Air, 4.6 and 4.7: dense first layers, shared experts, a sigmoid router with groups,
 * biased queries, keys and values, half of a head rotates.
 */
#include "runtime/checkpoint/family.h"

enum { MOST_SHARED = 64 };

static const tsr_known_field own_fields[] = {
    {"n_routed_experts", TSR_FIELD_READ, NULL},
    {"first_k_dense_replace", TSR_FIELD_READ, NULL},
    {"n_group", TSR_FIELD_READ, NULL},
    {"n_shared_experts", TSR_FIELD_READ, NULL},
    {"num_nextn_predict_layers", TSR_FIELD_READ, NULL},
    {"routed_scaling_factor", TSR_FIELD_READ, NULL},
    {"topk_group", TSR_FIELD_READ, NULL},
    {"use_qk_norm", TSR_FIELD_READ, NULL},
    {"scoring_func", TSR_FIELD_NEUTRAL, "sigmoid"},
    {"topk_method", TSR_FIELD_NEUTRAL, "noaux_tc"},
};

static tsr_status read_layers(const tsr_fields *config, tsr_model_facts *facts)
{
    static const tsr_int_rule dense_rule = {
        .name = "first_k_dense_replace", .smallest = 0, .largest = TSR_MAX_LAYERS, .otherwise = 1};
    static const tsr_int_rule shared_rule = {
        .name = "n_shared_experts", .smallest = 0, .largest = MOST_SHARED, .otherwise = 1};
    static const tsr_int_rule mtp_rule = {.name = "num_nextn_predict_layers",
                                          .smallest = 0,
                                          .largest = TSR_MAX_LAYERS,
                                          .otherwise = 1};
    int32_t dense = 0;
    int32_t shared = 0;

    tsr_status st = tsr_fields_int(config, &dense_rule, &dense);
    if (st == TSR_OK)
        st = tsr_fields_int(config, &shared_rule, &shared);
    if (st == TSR_OK)
        st = tsr_fields_int(config, &mtp_rule, &facts->mtp_layers);
    if (st != TSR_OK)
        return st;

    for (int32_t i = 0; i < facts->layers; i++)
        facts->sparse[i] = i >= dense;
    facts->shared_intermediate = shared * facts->expert_intermediate;
    return TSR_OK;
}

/* A group is scored by its two best, and the chosen groups must hold K experts. */
static tsr_status read_groups(const tsr_fields *config, tsr_model_facts *facts)
{
    const tsr_int_rule group_rule = {
        .name = "n_group", .smallest = 1, .largest = facts->experts, .otherwise = 1};
    tsr_status st = tsr_fields_int(config, &group_rule, &facts->groups);
    if (st != TSR_OK)
        return st;

    const tsr_int_rule top_rule = {
        .name = "topk_group", .smallest = 1, .largest = facts->groups, .otherwise = 1};
    st = tsr_fields_int(config, &top_rule, &facts->top_groups);
    if (st != TSR_OK)
        return st;

    const int32_t members = facts->experts / facts->groups;
    if (facts->experts % facts->groups != 0)
        return tsr_fields_refuse(config, "n_group", "%d does not divide the %d experts",
                                 facts->groups, facts->experts);
    if (facts->groups > 1 && members < 2)
        return tsr_fields_refuse(config, "n_group", "leaves fewer than two experts to a group");
    if (facts->top_k > members * facts->top_groups)
        return tsr_fields_refuse(config, "topk_group",
                                 "%d groups of %d experts do not hold the %d experts of a token",
                                 facts->top_groups, members, facts->top_k);
    return TSR_OK;
}

static tsr_status read_glm4_moe(const tsr_fields *config, tsr_model_facts *facts)
{
    static const tsr_number_rule scale_rule = {
        .name = "routed_scaling_factor", .above = 0.0, .largest = 1e6, .otherwise = 1.0};
    double scale = 1.0;

    tsr_status st = tsr_fields_bool(config, "use_qk_norm", false, &facts->qk_norm);
    if (st == TSR_OK)
        st = tsr_fields_number(config, &scale_rule, &scale);
    if (st == TSR_OK)
        st = read_layers(config, facts);
    if (st == TSR_OK)
        st = read_groups(config, facts);
    facts->routed_scale = (float)scale;
    return st;
}

const tsr_family_rules tsr_family_glm4_moe = {
    .model_type = "glm4_moe",
    .architecture = "Glm4MoeForCausalLM",
    .family = TSR_FAMILY_GLM4_MOE,
    .router = TSR_ROUTER_SIGMOID,
    .experts = {.name = "n_routed_experts",
                .other = "num_local_experts",
                .smallest = 1,
                .largest = TSR_MAX_EXPERTS,
                .required = true},
    .fields = {own_fields, sizeof(own_fields) / sizeof(own_fields[0])},
    .norm_top_k = true,
    .norm_eps = 1e-5,
    .rotary_factor = 0.5,
    .read = read_glm4_moe,
};
