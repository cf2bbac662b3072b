/*
 * What would change the computation and is not built is refused by name; it is never left out in
 * silence. Checks go on after an error, as far as their numbers are there, so that all is said at
 * once.
 */
#include "runtime/checkpoint/model_config.h"

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/family.h"
#include "runtime/checkpoint/file_fields.h"
#include "runtime/checkpoint/module_name.h"

#include <stdio.h>
#include <string.h>

/* Sizes beyond these are mistakes; below them every product of two fits into 64 bits. */
enum {
    MOST_HIDDEN = 1 << 17,
    MOST_INTERMEDIATE = 1 << 20,
    MOST_VOCAB = 1 << 24,
    MOST_HEADS = 1 << 10,
    MOST_HEAD_DIM = 1 << 9,
    MOST_POSITIONS = 1 << 26,
    MULTIPLE = 16, /* of every width: a block of NVFP4 */
};

static const tsr_family_rules *const families[TSR_FAMILY_COUNT] = {
    [TSR_FAMILY_QWEN3_MOE] = &tsr_family_qwen3_moe,
    [TSR_FAMILY_GLM4_MOE] = &tsr_family_glm4_moe,
};

/* Models that look alike, and what they would need. */
static const struct relative {
    const char *model_type;
    const char *needs;
} relatives[] = {
    {"glm4_moe_lite", "multi-head latent attention"},
    {"glm_moe_dsa", "multi-head latent attention with a sparse indexer"},
    {"deepseek_v3", "multi-head latent attention and YaRN"},
    {"qwen3_next", "gated linear attention, an output gate and a gated shared expert"},
    {"qwen3_5_moe", "gated linear attention, an output gate and a gated shared expert"},
    {"gpt_oss", "clamped SwiGLU and biases in experts"},
    {"minimax_m3", "clamped SwiGLU and biases in experts"},
};

/* A whole number of config.json and the fact it becomes. */
typedef struct int_fact {
    tsr_int_rule rule;
    size_t at; /* offset in tsr_model_facts */
} int_fact;

#define INT_FACT(field, low, high, must, fact)                                                     \
    {                                                                                              \
        {.name = (field), .smallest = (low), .largest = (high), .required = (must)},               \
            offsetof(tsr_model_facts, fact)                                                        \
    }

static const int_fact int_facts[] = {
    INT_FACT("num_hidden_layers", 1, TSR_MAX_LAYERS, true, layers),
    INT_FACT("hidden_size", 1, MOST_HIDDEN, true, hidden),
    INT_FACT("vocab_size", 1, MOST_VOCAB, true, vocab),
    INT_FACT("num_attention_heads", 1, MOST_HEADS, true, q_heads),
    INT_FACT("num_key_value_heads", 1, MOST_HEADS, true, kv_heads),
    INT_FACT("head_dim", 1, MOST_HEAD_DIM, true, head_dim),
    INT_FACT("intermediate_size", 0, MOST_INTERMEDIATE, false, dense_intermediate),
    INT_FACT("moe_intermediate_size", 1, MOST_INTERMEDIATE, true, expert_intermediate),
    INT_FACT("num_experts_per_tok", 1, TSR_MAX_TOP_K, true, top_k),
    INT_FACT("max_position_embeddings", 1, MOST_POSITIONS, true, max_positions),
};

static void refuse_family(const tsr_fields *config, const char *model_type)
{
    char supported[128] = "";
    size_t used = 0;
    for (int i = 0; i < TSR_FAMILY_COUNT; i++) {
        const int n = snprintf(supported + used, sizeof(supported) - used, "%s%s",
                               i == 0 ? "" : ", ", families[i]->model_type);
        used += n > 0 ? (size_t)n : 0;
    }
    const char *needs = NULL;
    for (size_t i = 0; i < sizeof(relatives) / sizeof(relatives[0]); i++) {
        if (strcmp(relatives[i].model_type, model_type) == 0)
            needs = relatives[i].needs;
    }
    (void)tsr_fields_refuse(config, "model_type", "\"%.64s\" is not supported%s%s; supported: %s",
                            model_type, needs != NULL ? ": it needs " : "",
                            needs != NULL ? needs : "", supported);
}

/* NULL, with an error added, when there is none. */
static const tsr_family_rules *find_family(const tsr_fields *config)
{
    const char *model_type = NULL;
    if (tsr_fields_text(config, "model_type", &model_type) != TSR_OK)
        return NULL;
    if (model_type == NULL) {
        (void)tsr_fields_refuse(config, "model_type", "is missing");
        return NULL;
    }
    for (int i = 0; i < TSR_FAMILY_COUNT; i++) {
        if (strcmp(families[i]->model_type, model_type) == 0)
            return families[i];
    }
    refuse_family(config, model_type);
    return NULL;
}

/* A head of another kind (a classifier, say) would have other tensors and another meaning. */
static tsr_status check_architecture(const tsr_fields *config, const tsr_family_rules *rules)
{
    const json_t *list = tsr_fields_get(config, "architectures");

    if (list == NULL)
        return TSR_OK;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name != NULL && strcmp(name, rules->architecture) == 0)
            return TSR_OK;
    }
    return tsr_fields_refuse(config, "architectures", "does not name %s", rules->architecture);
}

/* `type_field` is where a table of rotary parameters says what kind it is. */
static tsr_status check_rope_type(const tsr_fields *config, const char *type_field)
{
    const char *type = NULL;
    const tsr_status st = tsr_fields_text(config, type_field, &type);
    if (st != TSR_OK)
        return st;
    if (type != NULL && strcmp(type, "default") != 0)
        return tsr_fields_refuse(config, type_field,
                                 "\"%.32s\" is not supported; only \"default\" is, without scaling",
                                 type);
    return TSR_OK;
}

static tsr_status check_rope(const tsr_fields *config)
{
    static const char *const types[] = {"rope_parameters.rope_type", "rope_parameters.type",
                                        "rope_scaling.rope_type", "rope_scaling.type"};
    tsr_status st = TSR_OK;

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (check_rope_type(config, types[i]) != TSR_OK)
            st = TSR_ERR_CHECKPOINT;
    }
    const json_t *parameters = tsr_fields_get(config, "rope_parameters");
    if (parameters != NULL && !json_is_object(parameters))
        st = tsr_fields_refuse(config, "rope_parameters", "is not an object");
    const tsr_fields within = {parameters, "config.json: rope_parameters", config->problems};
    if (st == TSR_OK && tsr_file_fields_check(&within, &tsr_fields_of_rope, NULL) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    const json_t *scaling = tsr_fields_get(config, "rope_scaling");
    if (scaling != NULL && tsr_fields_get(config, types[2]) == NULL &&
        tsr_fields_get(config, types[3]) == NULL)
        st = tsr_fields_refuse(config, "rope_scaling", "has no rope_type");
    return st;
}

/* Left out, sliding_window has a size in transformers; only null switches it off. */
static tsr_status check_window(const tsr_fields *config)
{
    const json_t *window = json_object_get(config->object, "sliding_window");
    char shown[TSR_SHOWN_BYTES];
    bool used = false;

    tsr_status st = tsr_fields_bool(config, "use_sliding_window", false, &used);
    if (st == TSR_OK && used && !json_is_null(window))
        st = tsr_fields_refuse(config, "use_sliding_window",
                               "true: sliding windows are not supported");

    const json_t *types = tsr_fields_get(config, "layer_types");
    if (types != NULL && !json_is_array(types))
        st = tsr_fields_refuse(config, "layer_types", "%s is not a list of layers",
                               tsr_field_show(types, shown));
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (type == NULL || strcmp(type, "full_attention") != 0)
            return tsr_fields_refuse(config, "layer_types",
                                     "layer %zu: %s is not supported; only \"full_attention\" is",
                                     i, tsr_field_show(json_array_get(types, i), shown));
    }
    return st;
}

/* Settings that would change the computation, and are not built. */
static tsr_status check_unsupported(const tsr_fields *config, const tsr_family_rules *rules)
{
    tsr_status st = tsr_file_fields_check(config, &tsr_fields_of_config, &rules->fields);
    const char *activation = NULL;
    const json_t *dtype = NULL;

    if (check_architecture(config, rules) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_fields_text(config, "hidden_act", &activation) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    else if (activation != NULL && strcmp(activation, "silu") != 0)
        st = tsr_fields_refuse(config, "hidden_act", "\"%.32s\" is not supported; only \"silu\" is",
                               activation);
    if (tsr_fields_find(config, "dtype", "torch_dtype", &dtype) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (check_rope(config) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (check_window(config) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    return st;
}

/* Sizes, each on its own. */
static tsr_status read_sizes(const tsr_fields *config, const tsr_family_rules *rules,
                             tsr_model_facts *facts)
{
    tsr_status st = tsr_fields_int(config, &rules->experts, &facts->experts);

    for (size_t i = 0; i < sizeof(int_facts) / sizeof(int_facts[0]); i++) {
        int32_t value = 0;
        if (tsr_fields_int(config, &int_facts[i].rule, &value) != TSR_OK)
            st = TSR_ERR_CHECKPOINT;
        memcpy((char *)facts + int_facts[i].at, &value, sizeof(value));
    }
    if (tsr_fields_bool(config, "norm_topk_prob", rules->norm_top_k, &facts->norm_top_k) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_fields_bool(config, "attention_bias", false, &facts->qkv_bias) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_fields_bool(config, "tie_word_embeddings", false, &facts->tied_head) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    return st;
}

static tsr_status read_rotary(const tsr_fields *config, const tsr_family_rules *rules,
                              tsr_model_facts *facts)
{
    static const tsr_number_rule theta_rule = {.name = "rope_theta",
                                               .other = "rope_parameters.rope_theta",
                                               .above = 0.0,
                                               .largest = 1e12,
                                               .required = true};
    const tsr_number_rule eps_rule = {
        .name = "rms_norm_eps", .above = 0.0, .largest = 0.1, .otherwise = rules->norm_eps};
    const tsr_number_rule factor_rule = {.name = "partial_rotary_factor",
                                         .other = "rope_parameters.partial_rotary_factor",
                                         .above = 0.0,
                                         .largest = 1.0,
                                         .otherwise = rules->rotary_factor};
    double eps = 0.0;
    double factor = 0.0;

    tsr_status st = tsr_fields_number(config, &theta_rule, &facts->rope_theta);
    if (tsr_fields_number(config, &eps_rule, &eps) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_fields_number(config, &factor_rule, &factor) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (st != TSR_OK)
        return st;

    facts->norm_eps = (float)eps;
    facts->rotary_dim = (int32_t)((double)facts->head_dim * factor);
    if (facts->rotary_dim < 2 || facts->rotary_dim % 2 != 0)
        return tsr_fields_refuse(config, "partial_rotary_factor",
                                 "%d of %d dimensions would rotate, which is not an even number",
                                 facts->rotary_dim, facts->head_dim);
    return TSR_OK;
}

static tsr_status check_multiple(const tsr_fields *config, const char *name, int32_t value)
{
    if (value % MULTIPLE == 0 && value > 0)
        return TSR_OK;
    return tsr_fields_refuse(config, name, "%d is not a multiple of %d", value, MULTIPLE);
}

/* Sizes against each other. */
static tsr_status check_sizes(const tsr_fields *config, const tsr_model_facts *facts)
{
    tsr_status st = check_multiple(config, "hidden_size", facts->hidden);

    if (check_multiple(config, "head_dim", facts->head_dim) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (check_multiple(config, "moe_intermediate_size", facts->expert_intermediate) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (facts->q_heads % facts->kv_heads != 0)
        st = tsr_fields_refuse(config, "num_key_value_heads",
                               "%d does not divide the %d attention heads", facts->kv_heads,
                               facts->q_heads);
    if (facts->top_k > facts->experts)
        st = tsr_fields_refuse(config, "num_experts_per_tok", "%d of %d experts", facts->top_k,
                               facts->experts);
    return st;
}

/* Where it is given, every layer has one. */
static tsr_status check_layer_types(const tsr_fields *config, const tsr_model_facts *facts)
{
    const json_t *types = tsr_fields_get(config, "layer_types");

    if (types == NULL || json_array_size(types) == (size_t)facts->layers)
        return TSR_OK;
    return tsr_fields_refuse(config, "layer_types", "has %zu entries for %d layers",
                             json_array_size(types), facts->layers);
}

static tsr_status check_dense(const tsr_fields *config, const tsr_model_facts *facts)
{
    for (int32_t i = 0; i < facts->layers; i++) {
        if (!facts->sparse[i])
            return check_multiple(config, "intermediate_size", facts->dense_intermediate);
    }
    return TSR_OK;
}

tsr_status tsr_model_config_read(const tsr_fields *config, tsr_model_facts *ret_facts)
{
    const tsr_family_rules *rules = find_family(config);
    if (rules == NULL)
        return TSR_ERR_CHECKPOINT;

    tsr_model_facts facts = {.family = rules->family, .router = rules->router};
    tsr_status st = check_unsupported(config, rules);
    if (read_sizes(config, rules, &facts) != TSR_OK)
        return TSR_ERR_CHECKPOINT;
    if (check_sizes(config, &facts) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (st == TSR_OK)
        st = check_layer_types(config, &facts);
    if (read_rotary(config, rules, &facts) != TSR_OK)
        return TSR_ERR_CHECKPOINT;
    if (rules->read(config, &facts) != TSR_OK)
        return TSR_ERR_CHECKPOINT;
    if (check_dense(config, &facts) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;

    if (st == TSR_OK)
        *ret_facts = facts;
    return st;
}

bool tsr_model_is_mtp_name(const tsr_model_facts *model, const char *name)
{
    int32_t layer = 0;
    const char *rest = NULL;

    return tsr_name_layer(name, &layer, &rest) && layer >= model->layers &&
           layer - model->layers < model->mtp_layers;
}

const char *tsr_family_name(tsr_family family)
{
    return family < TSR_FAMILY_COUNT ? families[family]->model_type : "?";
}
