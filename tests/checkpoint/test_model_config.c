/* config.json and generation_config.json: what is served, and what is refused by its field. */
#include "tests/test.h"

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/generation_config.h"
#include "runtime/checkpoint/model_config.h"
#include "tests/checkpoint/temp_folder.h"

#include <stdio.h>
#include <string.h>

/* config.json of tests/data/NAME with a patch (null counts as left out). */
static json_t *config_of(const char *name, const char *patch)
{
    temp_folder folder;
    (void)snprintf(folder.path, sizeof(folder.path), "%s/%s", TSR_TEST_DATA, name);
    json_t *config = temp_read_json(&folder, "config.json");
    json_t *changes = json_loads(patch, 0, NULL);
    assert_non_null(changes);
    assert_int_equal(0, json_object_update_recursive(config, changes));
    json_decref(changes);
    return config;
}

static tsr_status read_config(const char *name, const char *patch, tsr_problems *problems,
                              tsr_model_facts *facts)
{
    json_t *config = config_of(name, patch);
    const tsr_fields fields = {config, "config.json", problems};
    const tsr_status st = tsr_model_config_read(&fields, facts);
    json_decref(config);
    return st;
}

static tsr_model_facts facts_of(const char *name, const char *patch)
{
    tsr_problems problems = {0};
    tsr_model_facts facts = {0};
    const tsr_status st = read_config(name, patch, &problems, &facts);
    if (st != TSR_OK)
        fail_msg("%s %s: %s", name, patch, problems.count > 0 ? problems.items[0].text : "?");
    assert_int_equal(0, problems.count);
    return facts;
}

static void qwen3_facts_are_read(void **state)
{
    const tsr_model_facts f = facts_of("qwen3-dense-mixed", "{}");
    (void)state;
    assert_int_equal(TSR_FAMILY_QWEN3_MOE, f.family);
    assert_int_equal(TSR_ROUTER_SOFTMAX, f.router);
    assert_int_equal(4, f.layers);
    assert_int_equal(128, f.hidden);
    assert_int_equal(512, f.vocab);
    assert_int_equal(4, f.q_heads);
    assert_int_equal(2, f.kv_heads);
    assert_int_equal(32, f.head_dim);
    assert_int_equal(32, f.rotary_dim);
    assert_int_equal(192, f.dense_intermediate);
    assert_int_equal(64, f.expert_intermediate);
    assert_int_equal(0, f.shared_intermediate);
    assert_int_equal(8, f.experts);
    assert_int_equal(3, f.top_k);
    assert_int_equal(1, f.groups);
    assert_int_equal(1, f.top_groups);
    assert_int_equal(512, f.max_positions);
    assert_false(f.norm_top_k);
    assert_true(f.qk_norm);
    assert_false(f.qkv_bias);
    assert_true(f.tied_head);
    assert_true(f.sparse[0] && !f.sparse[1] && f.sparse[2] && f.sparse[3]);
    assert_float_equal(1.0f, f.routed_scale, 0);
    assert_float_equal(1e-6f, f.norm_eps, 0);
    assert_true(f.rope_theta == 1e6);
}

static void glm4_facts_are_read(void **state)
{
    const tsr_model_facts f = facts_of("glm4-air-mixed", "{}");
    (void)state;
    assert_int_equal(TSR_FAMILY_GLM4_MOE, f.family);
    assert_int_equal(TSR_ROUTER_SIGMOID, f.router);
    assert_int_equal(16, f.rotary_dim);
    assert_int_equal(128, f.shared_intermediate);
    assert_int_equal(4, f.groups);
    assert_int_equal(2, f.top_groups);
    assert_true(f.norm_top_k);
    assert_false(f.qk_norm);
    assert_true(f.qkv_bias);
    assert_true(!f.sparse[0] && f.sparse[1] && f.sparse[2] && f.sparse[3]);
    assert_float_equal(1e-5f, f.norm_eps, 0);

    const tsr_model_facts big = facts_of("glm4-mixed", "{}");
    assert_true(big.qk_norm);
    assert_float_equal(2.5f, big.routed_scale, 0);
}

static void both_spellings_give_the_same_facts(void **state)
{
    const tsr_model_facts five = facts_of("qwen3-mixed", "{}");
    const tsr_model_facts four = facts_of("qwen3-mixed-keys", "{}");
    const tsr_model_facts glm_five = facts_of("glm4-mixed", "{}");
    const tsr_model_facts glm_four = facts_of("glm4-mixed-keys", "{}");
    (void)state;
    assert_memory_equal(&five, &four, sizeof(five));
    assert_memory_equal(&glm_five, &glm_four, sizeof(glm_five));
}

/* The same value under both spellings, as transformers 5 writes it, is no contradiction. */
static void agreeing_spellings_are_accepted(void **state)
{
    const tsr_model_facts f =
        facts_of("qwen3-mixed", "{\"num_experts\": 8, \"rope_theta\": 1000000, "
                                "\"torch_dtype\": \"bfloat16\", \"rope_scaling\": "
                                "{\"type\": \"default\"}}");
    (void)state;
    assert_int_equal(8, f.experts);
}

static void what_is_left_out_takes_the_default_of_its_family(void **state)
{
    static const char qwen3[] =
        "{\"norm_topk_prob\": null, \"rms_norm_eps\": null, \"decoder_sparse_step\": null, "
        "\"mlp_only_layers\": null, \"tie_word_embeddings\": null, \"attention_bias\": null, "
        "\"hidden_act\": null, \"use_sliding_window\": null, \"intermediate_size\": null}";
    static const char glm4[] =
        "{\"norm_topk_prob\": null, \"rms_norm_eps\": null, \"partial_rotary_factor\": null, "
        "\"rope_parameters\": {\"partial_rotary_factor\": null}, \"n_group\": null, "
        "\"topk_group\": null, \"routed_scaling_factor\": null, \"attention_bias\": null, "
        "\"first_k_dense_replace\": null, \"n_shared_experts\": null, \"use_qk_norm\": null}";
    const tsr_model_facts q = facts_of("qwen3-mixed", qwen3);
    const tsr_model_facts g = facts_of("glm4-air-mixed", glm4);
    (void)state;
    assert_false(q.norm_top_k);
    assert_float_equal(1e-6f, q.norm_eps, 0);
    assert_true(q.sparse[0] && q.sparse[3]);
    assert_true(g.norm_top_k);
    assert_float_equal(1e-5f, g.norm_eps, 0);
    assert_int_equal(16, g.rotary_dim);
    assert_int_equal(1, g.groups);
    assert_false(g.qkv_bias);
    assert_false(g.qk_norm);
    assert_int_equal(64, g.shared_intermediate);
    assert_float_equal(1.0f, g.routed_scale, 0);
    assert_true(!g.sparse[0] && g.sparse[1]);
}

static void sparse_layers_follow_step_and_list(void **state)
{
    const tsr_model_facts f =
        facts_of("qwen3-mixed", "{\"decoder_sparse_step\": 2, \"mlp_only_layers\": [3]}");
    (void)state;
    assert_true(!f.sparse[0] && f.sparse[1] && !f.sparse[2] && !f.sparse[3]);
}

static void released_shapes_are_accepted(void **state)
{
    static const char *const shapes[][2] = {
        {"qwen3-mixed",
         "{\"hidden_size\": 6144, \"num_hidden_layers\": 62, \"num_attention_heads\": 96, "
         "\"num_key_value_heads\": 8, \"head_dim\": 128, \"num_local_experts\": 160, "
         "\"num_experts_per_tok\": 8, \"moe_intermediate_size\": 2560, \"vocab_size\": 151936, "
         "\"max_position_embeddings\": 262144, \"rope_parameters\": {\"rope_theta\": 1e7}, "
         "\"sliding_window\": 4096, \"use_sliding_window\": false}"},
        {"glm4-air-mixed",
         "{\"hidden_size\": 4096, \"num_hidden_layers\": 46, \"num_attention_heads\": 96, "
         "\"num_key_value_heads\": 8, \"head_dim\": 128, \"n_routed_experts\": 128, "
         "\"num_experts_per_tok\": 8, \"moe_intermediate_size\": 1408, \"n_group\": 1, "
         "\"topk_group\": 1, \"intermediate_size\": 10944, \"vocab_size\": 151552, "
         "\"max_position_embeddings\": 131072}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        (void)facts_of(shapes[i][0], shapes[i][1]);
}

/* A patch and what its one line must hold. */
static const struct refusal {
    const char *name;
    const char *patch;
    const char *field;
    const char *said;
} refusals[] = {
    {"qwen3-mixed", "{\"model_type\": \"llama\"}", "model_type", "supported: qwen3_moe, glm4_moe"},
    {"qwen3-mixed", "{\"model_type\": \"glm4_moe_lite\"}", "model_type", "latent attention"},
    {"qwen3-mixed", "{\"model_type\": \"glm_moe_dsa\"}", "model_type", "sparse indexer"},
    {"qwen3-mixed", "{\"model_type\": \"deepseek_v3\"}", "model_type", "latent attention"},
    {"qwen3-mixed", "{\"model_type\": \"qwen3_next\"}", "model_type", "linear attention"},
    {"qwen3-mixed", "{\"model_type\": \"gpt_oss\"}", "model_type", "SwiGLU"},
    {"qwen3-mixed", "{\"model_type\": null}", "model_type", "is missing"},
    {"qwen3-mixed", "{\"model_type\": 3}", "model_type", "not text"},
    {"qwen3-mixed", "{\"architectures\": [\"Qwen3MoeForSequenceClassification\"]}", "architectures",
     "Qwen3MoeForCausalLM"},
    {"qwen3-mixed", "{\"num_experts\": 16}", "num_experts", "num_local_experts"},
    {"qwen3-mixed", "{\"rope_theta\": 10000.0}", "rope_theta", "rope_parameters.rope_theta"},
    {"qwen3-mixed", "{\"torch_dtype\": \"float16\"}", "dtype", "differs from torch_dtype"},
    {"glm4-mixed", "{\"partial_rotary_factor\": 0.25}", "partial_rotary_factor", "differs"},
    {"glm4-mixed", "{\"num_local_experts\": 9}", "n_routed_experts", "differs"},
    {"qwen3-mixed", "{\"rope_parameters\": {\"rope_type\": \"yarn\"}}", "rope_parameters.rope_type",
     "\"yarn\" is not supported"},
    {"qwen3-mixed-keys", "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0}}",
     "rope_scaling.type", "\"yarn\" is not supported"},
    {"qwen3-mixed-keys", "{\"rope_scaling\": {\"factor\": 4.0}}", "rope_scaling", "no rope_type"},
    {"qwen3-mixed-keys", "{\"rope_scaling\": 4}", "rope_scaling", "no rope_type"},
    {"qwen3-mixed", "{\"use_sliding_window\": true, \"sliding_window\": 4096}",
     "use_sliding_window", "not supported"},
    {"qwen3-mixed", "{\"layer_types\": [\"full_attention\", \"sliding_attention\"]}", "layer_types",
     "layer 1"},
    {"qwen3-mixed", "{\"hidden_act\": \"gelu\"}", "hidden_act", "\"gelu\" is not supported"},
    {"qwen3-mixed", "{\"layer_types\": \"full_attention\"}", "layer_types", "is not a list"},
    {"qwen3-mixed", "{\"layer_types\": {\"0\": 1}}", "layer_types", "is not a list"},
    {"qwen3-mixed", "{\"layer_types\": [\"full_attention\", 7]}", "layer_types", "layer 1: 7"},
    {"qwen3-mixed", "{\"layer_types\": [\"full_attention\"]}", "layer_types", "1 entries for 4"},
    {"qwen3-mixed", "{\"mlp_bias\": true}", "mlp_bias", "true is not served"},
    {"glm4-mixed", "{\"scoring_func\": \"softmax\"}", "scoring_func", "\"softmax\" is not served"},
    {"qwen3-mixed", "{\"rope_parameters\": {\"factor\": 4}}", "rope_parameters",
     "factor: 4 is not served"},
    {"qwen3-mixed", "{\"attention_bias\": true}", "attention_bias", "o_proj"},
    {"qwen3-mixed", "{\"partial_rotary_factor\": 0.5}", "partial_rotary_factor", "qwen3_moe"},
    {"qwen3-mixed", "{\"hidden_size\": 120}", "hidden_size", "multiple of 16"},
    {"qwen3-mixed", "{\"head_dim\": 40}", "head_dim", "multiple of 16"},
    {"qwen3-mixed", "{\"moe_intermediate_size\": 72}", "moe_intermediate_size", "multiple of 16"},
    {"qwen3-dense-mixed", "{\"intermediate_size\": 200}", "intermediate_size", "multiple of 16"},
    {"qwen3-dense-mixed", "{\"intermediate_size\": null}", "intermediate_size", "multiple of 16"},
    {"glm4-mixed",
     "{\"partial_rotary_factor\": 0.1, \"rope_parameters\": {\"partial_rotary_factor\": 0.1}}",
     "partial_rotary_factor", "3 of 32"},
    {"glm4-mixed",
     "{\"partial_rotary_factor\": 1.5, \"rope_parameters\": {\"partial_rotary_factor\": 1.5}}",
     "partial_rotary_factor", "at most 1"},
    {"qwen3-mixed", "{\"hidden_size\": 0}", "hidden_size", "whole number from 1"},
    {"qwen3-mixed", "{\"hidden_size\": -128}", "hidden_size", "whole number from 1"},
    {"qwen3-mixed", "{\"hidden_size\": 128.0}", "hidden_size", "whole number"},
    {"qwen3-mixed", "{\"hidden_size\": 1048576}", "hidden_size", "whole number"},
    {"qwen3-mixed", "{\"hidden_size\": null}", "hidden_size", "is missing"},
    {"qwen3-mixed", "{\"head_dim\": null}", "head_dim", "is missing"},
    {"qwen3-mixed", "{\"rope_parameters\": null}", "rope_theta", "is missing"},
    {"qwen3-mixed", "{\"rope_parameters\": {\"rope_theta\": 0}}", "rope_theta", "above 0"},
    {"qwen3-mixed", "{\"rms_norm_eps\": 0}", "rms_norm_eps", "above 0"},
    {"qwen3-mixed", "{\"num_hidden_layers\": 513}", "num_hidden_layers", "from 1 to 512"},
    {"qwen3-mixed", "{\"vocab_size\": 99999999999}", "vocab_size", "whole number"},
    {"qwen3-mixed", "{\"num_local_experts\": 4097}", "num_experts", "from 1 to 4096"},
    {"qwen3-mixed", "{\"num_local_experts\": 0}", "num_experts", "from 1 to 4096"},
    {"qwen3-mixed", "{\"num_local_experts\": null}", "num_experts", "is missing"},
    {"qwen3-mixed", "{\"num_experts_per_tok\": 65}", "num_experts_per_tok", "from 1 to 64"},
    {"qwen3-mixed", "{\"num_experts_per_tok\": 9}", "num_experts_per_tok", "9 of 8 experts"},
    {"qwen3-mixed", "{\"num_key_value_heads\": 3}", "num_key_value_heads", "does not divide"},
    {"qwen3-mixed", "{\"decoder_sparse_step\": 0}", "decoder_sparse_step", "whole number"},
    {"qwen3-mixed", "{\"mlp_only_layers\": [4]}", "mlp_only_layers", "entry 0"},
    {"qwen3-mixed", "{\"mlp_only_layers\": [-1]}", "mlp_only_layers", "entry 0"},
    {"qwen3-mixed", "{\"mlp_only_layers\": 1}", "mlp_only_layers", "not a list"},
    {"qwen3-mixed", "{\"norm_topk_prob\": 1}", "norm_topk_prob", "not true or false"},
    {"glm4-mixed", "{\"n_group\": 3}", "n_group", "does not divide the 8 experts"},
    {"glm4-mixed", "{\"n_group\": 8, \"topk_group\": 2}", "n_group", "fewer than two"},
    {"glm4-mixed", "{\"n_group\": 4, \"topk_group\": 5}", "topk_group", "from 1 to 4"},
    {"glm4-mixed", "{\"n_group\": 4, \"num_experts_per_tok\": 3}", "topk_group", "do not hold"},
    {"glm4-mixed", "{\"n_shared_experts\": -1}", "n_shared_experts", "whole number"},
    {"glm4-mixed", "{\"first_k_dense_replace\": -1}", "first_k_dense_replace", "whole number"},
    {"glm4-mixed", "{\"routed_scaling_factor\": -1.0}", "routed_scaling_factor", "above 0"},
};

static void what_cannot_be_served_is_refused_by_its_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *r = &refusals[i];
        tsr_problems problems = {0};
        tsr_model_facts facts = {.layers = 77};
        char start[64];
        (void)snprintf(start, sizeof(start), "config.json: %s: ", r->field);
        const tsr_status st = read_config(r->name, r->patch, &problems, &facts);
        if (st != TSR_ERR_CHECKPOINT || problems.errors != 1 ||
            !has_problem(&problems, TSR_SEVERITY_ERROR, start, r->said))
            fail_msg("%s: wanted %s%s, got %zu: %s", r->patch, start, r->said, problems.errors,
                     problems.count > 0 ? problems.items[0].text : "nothing");
        assert_int_equal(77, facts.layers);
        tsr_problems_close(&problems);
    }
}

static void several_defects_are_said_together(void **state)
{
    tsr_problems problems = {0};
    tsr_model_facts facts = {0};
    (void)state;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT,
                  read_config("qwen3-mixed",
                              "{\"hidden_act\": \"gelu\", \"hidden_size\": null, "
                              "\"norm_topk_prob\": \"yes\"}",
                              &problems, &facts));
    assert_int_equal(3, problems.errors);
    tsr_problems_close(&problems);
}

static void further_prediction_begins_behind_the_last_layer_of_glm(void **state)
{
    const tsr_model_facts glm = facts_of("glm4-mixed", "{}");
    const tsr_model_facts qwen3 = facts_of("qwen3-mixed", "{}");
    (void)state;
    assert_true(tsr_model_is_mtp_name(&glm, "model.layers.4.eh_proj.weight"));
    assert_true(tsr_model_is_mtp_name(&glm, "model.layers.4"));
    assert_false(tsr_model_is_mtp_name(&glm, "model.layers.5.mlp"));
    assert_false(tsr_model_is_mtp_name(&glm, "model.layers.40.mlp"));
    assert_false(tsr_model_is_mtp_name(&glm, "model.layers.3.mlp"));
    assert_false(tsr_model_is_mtp_name(&glm, "model.norm.weight"));
    const tsr_model_facts three = facts_of("glm4-mixed", "{\"num_nextn_predict_layers\": 3}");
    assert_true(tsr_model_is_mtp_name(&three, "model.layers.6.mlp"));
    assert_false(tsr_model_is_mtp_name(&three, "model.layers.7.mlp"));
    const tsr_model_facts none = facts_of("glm4-mixed", "{\"num_nextn_predict_layers\": 0}");
    assert_false(tsr_model_is_mtp_name(&none, "model.layers.4.mlp"));
    assert_false(tsr_model_is_mtp_name(&qwen3, "model.layers.4.mlp"));
}

static tsr_status read_eos(const char *generation, const char *config, tsr_problems *problems,
                           tsr_model_facts *facts)
{
    json_t *first = json_loads(generation, 0, NULL);
    json_t *second = json_loads(config, 0, NULL);
    const tsr_fields g = {first, "generation_config.json", problems};
    const tsr_fields c = {second, "config.json", problems};
    tsr_status st = tsr_eos_read(&g, facts);
    if (st == TSR_OK)
        st = tsr_eos_read(&c, facts);
    json_decref(first);
    json_decref(second);
    return st;
}

static void ids_of_both_files_end_an_answer(void **state)
{
    static const struct {
        const char *generation;
        const char *config;
        int32_t count; /* -1: refused */
        int32_t ids[3];
    } rows[] = {
        {"{\"eos_token_id\": [5, 6]}", "{\"eos_token_id\": 5}", 2, {5, 6}},
        {"{\"eos_token_id\": [5, 6]}", "{\"eos_token_id\": 7}", 3, {5, 6, 7}},
        {"{\"eos_token_id\": 9}", "{}", 1, {9}},
        {"{}", "{\"eos_token_id\": [3, 3]}", 1, {3}},
        {"{}", "{\"eos_token_id\": null}", 0, {0}},
        {"{\"eos_token_id\": -1}", "{}", -1, {0}},
        {"{\"eos_token_id\": 10}", "{}", -1, {0}},
        {"{\"eos_token_id\": [\"5\"]}", "{}", -1, {0}},
        {"{\"eos_token_id\": {}}", "{}", -1, {0}},
        {"{\"eos_token_id\": [0,1,2,3,4,5,6,7,8,9]}", "{\"eos_token_id\": 1.5}", -1, {0}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tsr_problems problems = {0};
        tsr_model_facts facts = {.vocab = 10};
        const tsr_status st = read_eos(rows[i].generation, rows[i].config, &problems, &facts);
        ASSERT_STATUS(rows[i].count < 0 ? TSR_ERR_CHECKPOINT : TSR_OK, st);
        if (st == TSR_OK) {
            assert_int_equal(rows[i].count, facts.eos_count);
            assert_memory_equal(rows[i].ids, facts.eos, sizeof(int32_t) * (size_t)rows[i].count);
        } else {
            assert_true(has_problem(&problems, TSR_SEVERITY_ERROR, "eos_token_id", NULL));
        }
        tsr_problems_close(&problems);
    }
}

static tsr_status read_generation(const char *text, tsr_problems *problems,
                                  tsr_generation_defaults *defaults)
{
    json_t *json = json_loads(text, 0, NULL);
    const tsr_fields fields = {json, "generation_config.json", problems};
    const tsr_status st = tsr_generation_config_read(&fields, defaults);
    json_decref(json);
    return st;
}

static void an_unknown_field_is_a_warning_and_a_neutral_one_is_nothing(void **state)
{
    (void)state;
    tsr_problems problems = {0};
    tsr_model_facts facts;
    ASSERT_STATUS(TSR_OK, read_config("qwen3-mixed",
                                      "{\"some_new\\nfield\": 3, \"unheard_of\": null, "
                                      "\"n_group\": 1, \"clip_qkv\": null, \"mlp_bias\": false}",
                                      &problems, &facts));
    assert_int_equal(problems.count, 2);
    assert_int_equal(problems.items[0].severity, TSR_SEVERITY_WARNING);
    assert_string_equal(problems.items[0].text,
                        "config.json: some_new?field: is not known and has no effect");
    assert_non_null(strstr(problems.items[1].text, "n_group")); /* GLM's alone */
    tsr_problems_close(&problems);
}

static void sampling_that_is_not_served_is_named(void **state)
{
    (void)state;
    tsr_problems problems = {0};
    tsr_generation_defaults d = {0};
    ASSERT_STATUS(TSR_OK, read_generation("{\"typical_p\": 1.0, \"num_beams\": 1, \"min_p\": null, "
                                          "\"max_new_tokens\": 7, \"transformers_version\": \"5\"}",
                                          &problems, &d));
    assert_int_equal(problems.count, 0);
    assert_string_equal(d.unserved, "");
    assert_int_equal(d.max_new_tokens, 7);
    ASSERT_STATUS(TSR_OK, read_generation("{\"typical_p\": 0.5, \"stop_strings\": [\"x\"], "
                                          "\"new\": 1}",
                                          &problems, &d));
    assert_string_equal(d.unserved, "typical_p 0.5, stop_strings a list");
    assert_int_equal(problems.count, 2); /* one for both, one for the unknown */
    assert_int_equal(problems.errors, 0);
    tsr_problems_close(&problems);
}

static void sampling_defaults_are_read(void **state)
{
    tsr_problems problems = {0};
    tsr_generation_defaults d = {0};
    (void)state;

    ASSERT_STATUS(TSR_OK, read_generation("{}", &problems, &d));
    assert_false(d.has_temperature || d.has_top_p || d.has_top_k);
    ASSERT_STATUS(TSR_OK, read_generation("{\"do_sample\": true, \"temperature\": 0.6, "
                                          "\"top_p\": 0.95, \"top_k\": 20}",
                                          &problems, &d));
    assert_true(d.has_temperature && d.has_top_p && d.has_top_k);
    assert_float_equal(0.6f, d.temperature, 0);
    assert_float_equal(0.95f, d.top_p, 0);
    assert_int_equal(20, d.top_k);
    ASSERT_STATUS(TSR_OK,
                  read_generation("{\"do_sample\": false, \"temperature\": 0.6}", &problems, &d));
    assert_true(d.has_temperature);
    assert_float_equal(0.0f, d.temperature, 0);
    ASSERT_STATUS(TSR_OK, read_generation("{\"temperature\": 0}", &problems, &d));
    assert_true(d.has_temperature);
    ASSERT_STATUS(
        TSR_ERR_CHECKPOINT,
        read_generation("{\"temperature\": -1, \"top_p\": 1.5, \"top_k\": 0.5}", &problems, &d));
    assert_int_equal(3, problems.errors);
    tsr_problems_close(&problems);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen3_facts_are_read),
        cmocka_unit_test(glm4_facts_are_read),
        cmocka_unit_test(both_spellings_give_the_same_facts),
        cmocka_unit_test(agreeing_spellings_are_accepted),
        cmocka_unit_test(what_is_left_out_takes_the_default_of_its_family),
        cmocka_unit_test(sparse_layers_follow_step_and_list),
        cmocka_unit_test(released_shapes_are_accepted),
        cmocka_unit_test(what_cannot_be_served_is_refused_by_its_field),
        cmocka_unit_test(several_defects_are_said_together),
        cmocka_unit_test(further_prediction_begins_behind_the_last_layer_of_glm),
        cmocka_unit_test(ids_of_both_files_end_an_answer),
        cmocka_unit_test(sampling_defaults_are_read),
        cmocka_unit_test(an_unknown_field_is_a_warning_and_a_neutral_one_is_nothing),
        cmocka_unit_test(sampling_that_is_not_served_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
