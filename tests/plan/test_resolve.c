/* The cases a resolver of mixed precision must get right, each by name. */
#include "runtime/plan/resolve.h"

#include "tests/plan/made_checkpoint.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A made checkpoint, its problems and its precision, read on demand. */
typedef struct bench {
    made_checkpoint *made;
    tsr_problems problems;
    tsr_precision *precision;
} bench;

static bench open_bench(made_storage storage)
{
    tsr_model_facts model = made_model();

    return (bench){.made = made_open(&model, storage)};
}

static void read_bench(bench *b)
{
    ASSERT_STATUS(TSR_OK, tsr_precision_read(made_view(b->made), &b->problems, &b->precision));
}

static void close_bench(bench *b)
{
    tsr_precision_close(b->precision);
    tsr_problems_close(&b->problems);
    made_close(b->made);
}

static void assert_claim(const bench *b, const char *module, tsr_algo algo, tsr_origin origin)
{
    const tsr_claim *claim = claim_named(b->precision, module);

    assert_string_equal(tsr_algo_name(algo), tsr_algo_name(claim->algo));
    assert_int_equal(origin, claim->origin);
}

static tsr_algo experts_of_1_nvfp4_of_10_fp8(const tsr_linear_plan *l)
{
    if (l->expert >= 0 && l->layer == 1)
        return TSR_ALGO_NVFP4;
    return l->expert >= 0 && l->layer == 10 ? TSR_ALGO_FP8 : TSR_ALGO_NONE;
}

static void without_declarations_everything_is_unquantized(void **state)
{
    bench b = open_bench(stored_plain);
    (void)state;
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_claim(&b, "model.layers.3.mlp.experts.2.up_proj", TSR_ALGO_NONE, TSR_ORIGIN_UNDECLARED);
    close_bench(&b);
}

static void a_bare_block_key_speaks_for_all_experts_of_its_layer(void **state)
{
    bench b = open_bench(experts_of_1_nvfp4_of_10_fp8);
    (void)state;
    made_key(b.made, "model.layers.1.mlp.experts", "NVFP4", 16);
    made_key(b.made, "model.layers.10.mlp.experts", "FP8", 0);
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_claim(&b, "model.layers.1.mlp.experts.3.down_proj", TSR_ALGO_NVFP4, TSR_ORIGIN_BLOCK);
    assert_claim(&b, "model.layers.10.mlp.experts.0.gate_proj", TSR_ALGO_FP8, TSR_ORIGIN_BLOCK);
    close_bench(&b);
}

static void keys_of_every_expert_declare_their_layer(void **state)
{
    bench b = open_bench(experts_of_1_nvfp4_of_10_fp8);
    (void)state;
    made_expert_keys(b.made, 1, 0, "NVFP4");
    made_expert_keys(b.made, 10, 0, "FP8");
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_claim(&b, "model.layers.1.mlp.experts.3.down_proj", TSR_ALGO_NVFP4, TSR_ORIGIN_KEY);
    assert_claim(&b, "model.layers.10.mlp.experts.3.down_proj", TSR_ALGO_FP8, TSR_ORIGIN_KEY);
    close_bench(&b);
}

static void keys_of_other_layers_say_nothing_about_a_layer(void **state)
{
    bench b = open_bench(experts_of_1_nvfp4_of_10_fp8);
    (void)state;
    made_expert_keys(b.made, 1, 0, "NVFP4");
    made_expert_keys(b.made, 10, 0, "FP8");
    read_bench(&b);
    assert_claim(&b, "model.layers.2.mlp.experts.0.gate_proj", TSR_ALGO_NONE, TSR_ORIGIN_ABSENT);
    close_bench(&b);
}

/* Layer 1's keys are prefixes of the keys of layers 10 to 19, but for the dot. */
static void layer_1_does_not_speak_for_layers_10_to_19(void **state)
{
    bench b = open_bench(experts_of_1_nvfp4_of_10_fp8);
    char module[64];
    (void)state;
    made_expert_keys(b.made, 1, 0, "NVFP4");
    made_expert_keys(b.made, 10, 0, "FP8");
    read_bench(&b);
    assert_errors(&b.problems, 0);
    for (int layer = 11; layer < 20; layer++) {
        (void)snprintf(module, sizeof(module), "model.layers.%d.mlp.experts.1.gate_proj", layer);
        assert_claim(&b, module, TSR_ALGO_NONE, TSR_ORIGIN_ABSENT);
    }
    close_bench(&b);
}

static void a_layer_with_keys_for_some_experts_only_is_refused(void **state)
{
    bench b = open_bench(experts_of_1_nvfp4_of_10_fp8);
    (void)state;
    made_expert_keys(b.made, 1, 1, "NVFP4");
    made_expert_keys(b.made, 10, 0, "FP8");
    read_bench(&b);
    assert_errors(&b.problems, 1); /* what follows from the gap is not said again */
    assert_problem(&b.problems, TSR_SEVERITY_ERROR, "layer 1 declares 9 of its 12",
                   "model.layers.1.mlp.experts.0.gate_proj");
    close_bench(&b);
}

static tsr_algo dense_down_fp8(const tsr_linear_plan *l)
{
    if (l->role == TSR_ROLE_DOWN || l->role == TSR_ROLE_SHARED_DOWN)
        return TSR_ALGO_FP8;
    if (l->role == TSR_ROLE_GATE || l->role == TSR_ROLE_UP || l->role == TSR_ROLE_SHARED_GATE ||
        l->role == TSR_ROLE_SHARED_UP)
        return TSR_ALGO_NVFP4;
    return TSR_ALGO_NONE;
}

static void dense_and_shared_down_may_differ_from_gate(void **state)
{
    bench b = open_bench(dense_down_fp8);
    (void)state;
    made_keys_as_stored(b.made);
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_claim(&b, "model.layers.0.mlp.gate_proj", TSR_ALGO_NVFP4, TSR_ORIGIN_KEY);
    assert_claim(&b, "model.layers.0.mlp.down_proj", TSR_ALGO_FP8, TSR_ORIGIN_KEY);
    assert_claim(&b, "model.layers.5.mlp.shared_experts.down_proj", TSR_ALGO_FP8, TSR_ORIGIN_KEY);
    close_bench(&b);
}

static tsr_algo expert_down_fp8(const tsr_linear_plan *l)
{
    if (l->layer != 1 || l->expert < 0)
        return TSR_ALGO_NONE;
    return l->role == TSR_ROLE_EXPERT_DOWN ? TSR_ALGO_FP8 : TSR_ALGO_NVFP4;
}

static void experts_whose_down_differs_from_gate_are_refused(void **state)
{
    bench b = open_bench(expert_down_fp8);
    (void)state;
    for (int e = 0; e < MADE_EXPERTS; e++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "model.layers.1.mlp.experts.%d.gate_proj", e);
        made_key(b.made, name, "NVFP4", 16);
        (void)snprintf(name, sizeof(name), "model.layers.1.mlp.experts.%d.up_proj", e);
        made_key(b.made, name, "NVFP4", 16);
        (void)snprintf(name, sizeof(name), "model.layers.1.mlp.experts.%d.down_proj", e);
        made_key(b.made, name, "FP8", 0);
    }
    read_bench(&b);
    assert_errors(&b.problems, 1);
    assert_problem(&b.problems, TSR_SEVERITY_ERROR, "model.layers.1.mlp.experts.0.gate_proj",
                   "model.layers.1.mlp.experts.0.down_proj");
    close_bench(&b);
}

static void a_block_key_over_a_different_down_is_contradicted(void **state)
{
    bench b = open_bench(expert_down_fp8);
    (void)state;
    made_key(b.made, "model.layers.1.mlp.experts", "NVFP4", 16);
    read_bench(&b);
    assert_problem(&b.problems, TSR_SEVERITY_ERROR,
                   "tensor model.layers.1.mlp.experts.0.down_proj.weight is F8_E4M3",
                   "FP8 with one scale");
    close_bench(&b);
}

static void experts_absent_from_a_mixed_checkpoint_are_bf16(void **state)
{
    bench b = open_bench(experts_of_1_nvfp4_of_10_fp8);
    (void)state;
    made_keys_as_stored(b.made);
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_claim(&b, "model.layers.3.mlp.experts.0.up_proj", TSR_ALGO_NONE, TSR_ORIGIN_ABSENT);
    close_bench(&b);
}

static void a_module_excluded_and_listed_is_excluded_with_a_warning(void **state)
{
    bench b = open_bench(stored_nvfp4_experts);
    (void)state;
    made_keys_as_stored(b.made);
    made_key(b.made, "model.layers.2.self_attn.q_proj", "FP8", 0);
    made_exclude(b.made, "model.layers.2.self_attn.*");
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_claim(&b, "model.layers.2.self_attn.q_proj", TSR_ALGO_NONE, TSR_ORIGIN_EXCLUDED);
    assert_problem(&b.problems, TSR_SEVERITY_WARNING, "model.layers.2.self_attn.q_proj",
                   "the exclusion is followed");
    close_bench(&b);
}

static void an_exclusion_speaks_for_what_lies_below(void **state)
{
    bench b = open_bench(stored_plain);
    (void)state;
    made_uniform(b.made, "NVFP4", 16);
    made_exclude(b.made, "model.layers*");
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_claim(&b, "model.layers.4.mlp.experts.1.gate_proj", TSR_ALGO_NONE, TSR_ORIGIN_EXCLUDED);
    close_bench(&b);
}

/* "mlp.gate" is a substring of "mlp.gate_proj", and "experts" of "shared_experts". */
static void an_exclusion_is_no_substring(void **state)
{
    bench b = open_bench(stored_nvfp4);
    (void)state;
    made_uniform(b.made, "NVFP4", 16);
    made_exclude(b.made, "model.layers.0.mlp.gate");
    made_exclude(b.made, "lm_head");
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_claim(&b, "model.layers.0.mlp.gate_proj", TSR_ALGO_NVFP4, TSR_ORIGIN_UNIFORM);
    close_bench(&b);
}

static void algorithms_are_read_in_any_case(void **state)
{
    static const struct {
        const char *name;
        tsr_algo algo;
    } cases[] = {
        {"nvfp4", TSR_ALGO_NVFP4},
        {"fp8_pb_wo", TSR_ALGO_FP8_PB_WO},
        {"FP8_PB_WO", TSR_ALGO_FP8_PB_WO},
        {"Fp8_Block_Scales", TSR_ALGO_FP8_BLOCK_SCALES},
        {"fp8", TSR_ALGO_FP8},
        {"w4a16_nvfp4", TSR_ALGO_W4A16_NVFP4},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_algo algo;
        assert_true(tsr_algo_find(cases[i].name, &algo));
        assert_int_equal(cases[i].algo, algo);
    }
}

static void an_unknown_algorithm_is_refused_with_its_layer(void **state)
{
    bench b = open_bench(stored_plain);
    (void)state;
    made_key(b.made, "model.layers.7.mlp.shared_experts.up_proj", "NVFP9", 0);
    read_bench(&b);
    assert_errors(&b.problems, 1);
    assert_problem(&b.problems, TSR_SEVERITY_ERROR, "model.layers.7.mlp.shared_experts.up_proj",
                   "NVFP9");
    close_bench(&b);
}

/* Every name of the format's own table is one or the other; none is served by accident. */
static void formats_that_are_not_served_are_refused_by_name(void **state)
{
    static const char *const names[] = {
        "MXFP8",     "NVFP4_SVD",   "W4A8_NVFP4_FP8", "W4A8_MXFP4_FP8",
        "W4A16_AWQ", "W4A8_AWQ",    "W8A16",          "W8A8_SQ_PER_CHANNEL",
        "mxfp4",     "fp8_pb_real", "INT8",           "W4A16_GPTQ"};
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        bench b = open_bench(stored_plain);
        made_key(b.made, "model.layers.3.self_attn.o_proj", names[i], 0);
        read_bench(&b);
        assert_errors(&b.problems, 1);
        assert_problem(&b.problems, TSR_SEVERITY_ERROR, "model.layers.3.self_attn.o_proj",
                       "not served");
        assert_problem(&b.problems, TSR_SEVERITY_ERROR, names[i], NULL);
        close_bench(&b);
    }
}

static void a_kv_only_checkpoint_has_no_layer_keys(void **state)
{
    bench b = open_bench(stored_plain);
    (void)state;
    made_mixed(b.made);
    ((tsr_checkpoint *)(uintptr_t)made_view(b.made))->declared.kv_algo = "FP8";
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_int_equal(TSR_KV_DECLARED_FP8, b.precision->kv);
    assert_claim(&b, "model.layers.1.self_attn.q_proj", TSR_ALGO_NONE, TSR_ORIGIN_ABSENT);
    assert_problem(&b.problems, TSR_SEVERITY_NOTE, "40 k_scale and v_scale", "1.0 is used");
    close_bench(&b);
}

static void a_kv_cache_of_another_format_is_refused_by_name(void **state)
{
    bench b = open_bench(stored_plain);
    (void)state;
    ((tsr_checkpoint *)(uintptr_t)made_view(b.made))->declared.kv_algo = "NVFP4_AFFINE";
    read_bench(&b);
    assert_int_equal(TSR_KV_DECLARED_REFUSED, b.precision->kv);
    assert_non_null(strstr(b.precision->kv_refused, "NVFP4_AFFINE"));
    close_bench(&b);
}

/* As many rows as layers declare the whole KV cache only where each is a layer's attention. */
static void rows_of_the_kv_cache_name_the_attention_of_layers(void **state)
{
    static const char *const others[] = {NULL, "model.layers.0.self_attn.k_proj",
                                         "model.layers.30.self_attn", "model.layers.0"};
    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        bench b = open_bench(stored_plain);
        tsr_checkpoint *c = (tsr_checkpoint *)(uintptr_t)made_view(b.made);
        tsr_declared rows[MADE_LAYERS];
        char names[MADE_LAYERS][64];
        for (int layer = 0; layer < MADE_LAYERS; layer++) {
            (void)snprintf(names[layer], sizeof(names[layer]), "model.layers.%d.self_attn", layer);
            rows[layer] = (tsr_declared){names[layer], names[layer], "FP8", 0};
        }
        if (others[i] != NULL)
            rows[1].name = rows[1].original = others[i];
        c->declared.kv_layers = rows;
        c->declared.kv_layer_count = MADE_LAYERS;
        read_bench(&b);
        assert_int_equal(others[i] == NULL ? TSR_KV_DECLARED_FP8 : TSR_KV_DECLARED_REFUSED,
                         b.precision->kv);
        assert_true(others[i] == NULL || strstr(b.precision->kv_refused, others[i]) != NULL);
        close_bench(&b);
    }
}

static void of_group_sizes_16_and_32_the_32_is_refused(void **state)
{
    bench b = open_bench(stored_nvfp4_experts);
    (void)state;
    made_keys_as_stored(b.made);
    made_key(b.made, "model.layers.4.self_attn.o_proj", "NVFP4", 32);
    read_bench(&b);
    assert_errors(&b.problems, 1);
    assert_problem(&b.problems, TSR_SEVERITY_ERROR, "model.layers.4.self_attn.o_proj",
                   "group size 32");
    close_bench(&b);
}

static void keys_of_the_prediction_layer_are_not_used(void **state)
{
    bench b = open_bench(stored_plain);
    (void)state;
    made_key(b.made, "model.layers.20.mlp.experts", "W4A8_AWQ", 0);
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_problem(&b.problems, TSR_SEVERITY_NOTE, "1 keys of layers beyond", NULL);
    close_bench(&b);
}

static void a_key_that_names_nothing_is_warned_of(void **state)
{
    bench b = open_bench(stored_plain);
    (void)state;
    made_key(b.made, "model.layers.3.self_attn", "FP8", 0);
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_problem(&b.problems, TSR_SEVERITY_WARNING, "model.layers.3.self_attn",
                   "names no linear");
    close_bench(&b);
}

static void a_block_key_and_its_experts_keys_must_agree(void **state)
{
    bench b = open_bench(experts_of_1_nvfp4_of_10_fp8);
    (void)state;
    made_keys_as_stored(b.made);
    made_expert_keys(b.made, 1, 0, "NVFP4");
    read_bench(&b);
    assert_errors(&b.problems, 0);
    close_bench(&b);

    b = open_bench(experts_of_1_nvfp4_of_10_fp8);
    made_key(b.made, "model.layers.1.mlp.experts", "FP8", 0);
    made_key(b.made, "model.layers.10.mlp.experts", "FP8", 0);
    made_expert_keys(b.made, 1, 0, "NVFP4");
    read_bench(&b);
    assert_errors(&b.problems, 1);
    assert_problem(&b.problems, TSR_SEVERITY_ERROR, "model.layers.1.mlp.experts is declared FP8",
                   "NVFP4");
    close_bench(&b);
}

static tsr_algo attention_fp8(const tsr_linear_plan *l)
{
    return l->role >= TSR_ROLE_Q && l->role <= TSR_ROLE_V ? TSR_ALGO_FP8 : TSR_ALGO_NONE;
}

static void a_fused_key_speaks_for_its_parts(void **state)
{
    bench b = open_bench(attention_fp8);
    char name[64];
    (void)state;
    for (int layer = 0; layer < MADE_LAYERS; layer++) {
        (void)snprintf(name, sizeof(name), "model.layers.%d.self_attn.qkv_proj", layer);
        made_key(b.made, name, "FP8", 0);
    }
    read_bench(&b);
    assert_errors(&b.problems, 0);
    assert_claim(&b, "model.layers.3.self_attn.k_proj", TSR_ALGO_FP8, TSR_ORIGIN_KEY);
    assert_claim(&b, "model.layers.3.self_attn.o_proj", TSR_ALGO_NONE, TSR_ORIGIN_ABSENT);
    close_bench(&b);
}

static void a_key_of_q_does_not_speak_for_k(void **state)
{
    bench b = open_bench(stored_plain);
    (void)state;
    made_key(b.made, "model.layers.3.self_attn.q_proj", "FP8", 0);
    read_bench(&b);
    assert_claim(&b, "model.layers.3.self_attn.k_proj", TSR_ALGO_NONE, TSR_ORIGIN_ABSENT);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_declarations_everything_is_unquantized),
        cmocka_unit_test(a_bare_block_key_speaks_for_all_experts_of_its_layer),
        cmocka_unit_test(keys_of_every_expert_declare_their_layer),
        cmocka_unit_test(keys_of_other_layers_say_nothing_about_a_layer),
        cmocka_unit_test(layer_1_does_not_speak_for_layers_10_to_19),
        cmocka_unit_test(a_layer_with_keys_for_some_experts_only_is_refused),
        cmocka_unit_test(dense_and_shared_down_may_differ_from_gate),
        cmocka_unit_test(experts_whose_down_differs_from_gate_are_refused),
        cmocka_unit_test(a_block_key_over_a_different_down_is_contradicted),
        cmocka_unit_test(experts_absent_from_a_mixed_checkpoint_are_bf16),
        cmocka_unit_test(a_module_excluded_and_listed_is_excluded_with_a_warning),
        cmocka_unit_test(an_exclusion_speaks_for_what_lies_below),
        cmocka_unit_test(an_exclusion_is_no_substring),
        cmocka_unit_test(algorithms_are_read_in_any_case),
        cmocka_unit_test(an_unknown_algorithm_is_refused_with_its_layer),
        cmocka_unit_test(formats_that_are_not_served_are_refused_by_name),
        cmocka_unit_test(a_kv_only_checkpoint_has_no_layer_keys),
        cmocka_unit_test(a_kv_cache_of_another_format_is_refused_by_name),
        cmocka_unit_test(rows_of_the_kv_cache_name_the_attention_of_layers),
        cmocka_unit_test(of_group_sizes_16_and_32_the_32_is_refused),
        cmocka_unit_test(keys_of_the_prediction_layer_are_not_used),
        cmocka_unit_test(a_key_that_names_nothing_is_warned_of),
        cmocka_unit_test(a_block_key_and_its_experts_keys_must_agree),
        cmocka_unit_test(a_fused_key_speaks_for_its_parts),
        cmocka_unit_test(a_key_of_q_does_not_speak_for_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
