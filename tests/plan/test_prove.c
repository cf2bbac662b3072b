/* What the stored tensors contradict is refused, and the message names the tensor. */
#include "runtime/plan/prove.h"

#include "tests/plan/made_checkpoint.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

static const char q_proj[] = "model.layers.2.self_attn.q_proj";

/* Everything NVFP4, uniform; a damage breaks one thing. */
typedef void (*damage)(made_checkpoint *made);

static tsr_problems read_changed(made_storage storage, const char *algo, damage change)
{
    tsr_model_facts model = made_model();
    made_checkpoint *made = made_open(&model, storage);
    tsr_problems problems = {0};
    tsr_precision *precision;

    if (algo != NULL)
        made_uniform(made, algo, 0);
    if (change != NULL)
        change(made);
    ASSERT_STATUS(TSR_OK, tsr_precision_read(made_view(made), &problems, &precision));
    tsr_precision_close(precision);
    made_close(made);
    return problems;
}

static void expect(made_storage storage, const char *algo, damage change, const char *tensor,
                   const char *reason)
{
    tsr_problems problems = read_changed(storage, algo, change);

    assert_errors(&problems, 1);
    assert_problem(&problems, TSR_SEVERITY_ERROR, tensor, reason);
    tsr_problems_close(&problems);
}

static tsr_algo stored_fp8(const tsr_linear_plan *l)
{
    return stored_nvfp4(l) == TSR_ALGO_NONE ? TSR_ALGO_NONE : TSR_ALGO_FP8;
}

static tsr_algo stored_channel(const tsr_linear_plan *l)
{
    return stored_nvfp4(l) == TSR_ALGO_NONE ? TSR_ALGO_NONE : TSR_ALGO_FP8_PER_CHANNEL_PER_TOKEN;
}

static tsr_algo stored_blocks(const tsr_linear_plan *l)
{
    return stored_nvfp4(l) == TSR_ALGO_NONE ? TSR_ALGO_NONE : TSR_ALGO_FP8_BLOCK_SCALES;
}

static void what_is_stored_as_declared_is_proven(void **state)
{
    static const struct {
        made_storage storage;
        const char *algo;
    } cases[] = {
        {stored_plain, NULL},
        {stored_nvfp4, "NVFP4"},
        {stored_nvfp4, "W4A16_NVFP4"},
        {stored_nvfp4, "NVFP4_AWQ"},
        {stored_fp8, "FP8"},
        {stored_channel, "FP8_PER_CHANNEL_PER_TOKEN"},
        {stored_blocks, "FP8_BLOCK_SCALES"},
        {stored_blocks, "fp8_pb_wo"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_problems problems = read_changed(cases[i].storage, cases[i].algo, NULL);
        assert_errors(&problems, 0);
        tsr_problems_close(&problems);
    }
}

/* A declaration that means another storage is contradicted by every quantized linear. */
static void every_wrong_declaration_is_contradicted(void **state)
{
    static const struct {
        made_storage storage;
        const char *algo;
    } cases[] = {
        {stored_plain, "NVFP4"},
        {stored_plain, "FP8"},
        {stored_nvfp4, NULL},
        {stored_nvfp4, "FP8"},
        {stored_fp8, NULL},
        {stored_fp8, "NVFP4"},
        {stored_fp8, "FP8_PER_CHANNEL_PER_TOKEN"},
        {stored_fp8, "FP8_BLOCK_SCALES"},
        {stored_channel, "FP8"},
        {stored_channel, "FP8_BLOCK_SCALES"},
        {stored_blocks, "FP8_PER_CHANNEL_PER_TOKEN"},
        {stored_blocks, "FP8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_problems problems = read_changed(cases[i].storage, cases[i].algo, NULL);
        assert_true(problems.errors > 0);
        assert_problem(&problems, TSR_SEVERITY_ERROR, "tensor model.layers.2.self_attn.q_proj.",
                       NULL);
        tsr_problems_close(&problems);
    }
}

/* The weight, its scales and its input scale all disagree, but one sentence says it. */
static void a_linear_is_contradicted_in_one_line(void **state)
{
    (void)state;
    tsr_problems problems = read_changed(stored_fp8, NULL, NULL);
    size_t lines = 0;

    for (size_t i = 0; i < problems.count; i++)
        lines += strstr(problems.items[i].text, "tensor model.layers.2.self_attn.q_proj.") != NULL;
    assert_int_equal(lines, 1);
    tsr_problems_close(&problems);
}

static void drop_scale(made_checkpoint *made)
{
    made_drop(made, "model.layers.2.self_attn.q_proj.weight_scale");
}

static void drop_global(made_checkpoint *made)
{
    made_drop(made, "model.layers.2.self_attn.q_proj.weight_scale_2");
}

static void drop_weight(made_checkpoint *made)
{
    made_drop(made, "model.layers.3.mlp.experts.1.up_proj.weight");
    made_drop(made, "model.layers.3.mlp.experts.1.up_proj.weight_scale");
    made_drop(made, "model.layers.3.mlp.experts.1.up_proj.weight_scale_2");
    made_drop(made, "model.layers.3.mlp.experts.1.up_proj.input_scale");
}

static void drop_bias(made_checkpoint *made)
{
    made_drop(made, "model.layers.2.self_attn.v_proj.bias");
}

static void drop_norm(made_checkpoint *made)
{
    made_drop(made, "model.layers.2.input_layernorm.weight");
}

static void a_missing_tensor_is_named(void **state)
{
    (void)state;
    expect(stored_nvfp4, "NVFP4", drop_scale, "q_proj.weight_scale is missing", NULL);
    expect(stored_nvfp4, "NVFP4", drop_global, "q_proj.weight_scale_2 is missing", NULL);
    expect(stored_nvfp4, "NVFP4", drop_weight,
           "model.layers.3.mlp.experts.1.up_proj.weight is missing", NULL);
    expect(stored_nvfp4, "NVFP4", drop_bias, "v_proj.bias is missing", NULL);
    expect(stored_nvfp4, "NVFP4", drop_norm, "model.layers.2.input_layernorm.weight is missing",
           NULL);
}

static void short_scale(made_checkpoint *made)
{
    made_tensor(made, "model.layers.2.self_attn.q_proj.weight_scale")->shape[1] = 2;
}

static void vector_of_globals(made_checkpoint *made)
{
    tsr_tensor *t = made_tensor(made, "model.layers.2.self_attn.q_proj.weight_scale_2");
    t->rank = 1;
    t->shape[0] = 2;
}

static void wide_norm(made_checkpoint *made)
{
    made_tensor(made, "model.norm.weight")->shape[0] = 65;
}

static void narrow_router(made_checkpoint *made)
{
    made_tensor(made, "model.layers.2.mlp.gate.weight")->shape[0] = 3;
}

static void quantized_router(made_checkpoint *made)
{
    made_tensor(made, "model.layers.2.mlp.gate.weight")->dtype = TSR_DTYPE_F8_E4M3;
}

static void a_tensor_of_another_shape_or_type_is_named(void **state)
{
    (void)state;
    expect(stored_nvfp4, "NVFP4", short_scale, "q_proj.weight_scale is F8_E4M3 [64, 2]",
           "F8_E4M3 [64, 4]");
    expect(stored_nvfp4, "NVFP4", vector_of_globals, "q_proj.weight_scale_2 is F32 [2]",
           "one value");
    expect(stored_nvfp4, "NVFP4", wide_norm, "model.norm.weight is BF16 [65]", "[64]");
    expect(stored_nvfp4, "NVFP4", narrow_router, "model.layers.2.mlp.gate.weight is BF16 [3, 64]",
           "must be BF16, F16 or F32 [4, 64]; config.json and the weights do not belong together");
    expect(stored_nvfp4, "NVFP4", quantized_router,
           "model.layers.2.mlp.gate.weight: model.layers.2.mlp.gate is declared NVFP4",
           "embeddings and routers are served unquantized only");
}

static void add_scale_to_plain(made_checkpoint *made)
{
    made_add(made, "model.layers.2.self_attn.q_proj.weight_scale", TSR_DTYPE_F32, 0, NULL);
}

static void add_pre_quant_scale(made_checkpoint *made)
{
    const int64_t shape = 64;
    made_add(made, "model.layers.2.self_attn.q_proj.pre_quant_scale", TSR_DTYPE_BF16, 1, &shape);
}

static void add_lora(made_checkpoint *made)
{
    const int64_t shape[] = {8, 64};
    made_add(made, "model.layers.2.self_attn.q_proj.svdquant_lora_a", TSR_DTYPE_BF16, 2, shape);
}

static void add_bias(made_checkpoint *made)
{
    const int64_t shape = 64;
    made_add(made, "model.layers.2.self_attn.o_proj.bias", TSR_DTYPE_BF16, 1, &shape);
}

static void add_kv_scale(made_checkpoint *made)
{
    made_add(made, "model.layers.2.self_attn.k_proj.k_scale", TSR_DTYPE_F32, 0, NULL);
}

static void a_tensor_that_nobody_would_read_is_refused(void **state)
{
    (void)state;
    expect(stored_plain, NULL, add_scale_to_plain, "q_proj.weight_scale is stored", NULL);
    expect(stored_nvfp4, "NVFP4", add_pre_quant_scale, "q_proj.pre_quant_scale is stored", NULL);
    expect(stored_nvfp4, "NVFP4", add_lora, "svdquant_lora_a belongs to nothing", NULL);
    expect(stored_nvfp4, "NVFP4", add_bias, "o_proj.bias is stored", NULL);
    expect(stored_nvfp4, "NVFP4", add_kv_scale, "k_proj.k_scale", "KV cache");
}

static void awq_may_have_a_pre_quant_scale(void **state)
{
    tsr_problems problems = read_changed(stored_nvfp4, "NVFP4_AWQ", add_pre_quant_scale);
    (void)state;
    assert_errors(&problems, 0);
    tsr_problems_close(&problems);
}

static void reshape_variants(made_checkpoint *made)
{
    tsr_tensor *t = made_tensor(made, "model.layers.2.self_attn.q_proj.weight_scale");
    const int64_t four[] = {1, 1, 1, 1};
    t->rank = 4;
    memcpy(t->shape, four, sizeof(four));
    made_drop(made, "model.layers.3.self_attn.q_proj.weight_scale");
    made_add(made, "model.layers.3.self_attn.q_proj.weight_scale_inv", TSR_DTYPE_F32, 2, four);
}

static void block_scales_may_have_rank_4_or_be_called_inverse(void **state)
{
    tsr_problems problems = read_changed(stored_blocks, "FP8_BLOCK_SCALES", reshape_variants);
    (void)state;
    assert_errors(&problems, 0);
    tsr_problems_close(&problems);
}

static void rank_1_scalars(made_checkpoint *made)
{
    tsr_tensor *t = made_tensor(made, "model.layers.2.self_attn.q_proj.weight_scale_2");
    t->rank = 1;
    t->shape[0] = 1;
    made_tensor(made, "model.layers.2.self_attn.q_proj.input_scale")->dtype = TSR_DTYPE_BF16;
}

static void scalars_may_have_rank_1_and_be_bf16(void **state)
{
    tsr_problems problems = read_changed(stored_nvfp4, "NVFP4", rank_1_scalars);
    (void)state;
    assert_errors(&problems, 0);
    tsr_problems_close(&problems);
}

static void add_prediction_layer(made_checkpoint *made)
{
    const int64_t shape[] = {64, 128};
    made_add(made, "model.layers.20.eh_proj.weight", TSR_DTYPE_BF16, 2, shape);
    made_add(made, "model.layers.20.mlp.experts.0.gate_proj.weight", TSR_DTYPE_BF16, 2, shape);
    made_add(made, "model.layers.3.self_attn.rotary_emb.inv_freq", TSR_DTYPE_F32, 1, shape);
}

static void the_prediction_layer_is_skipped_and_counted(void **state)
{
    tsr_problems problems = read_changed(stored_nvfp4, "NVFP4", add_prediction_layer);
    (void)state;
    assert_errors(&problems, 0);
    assert_problem(&problems, TSR_SEVERITY_NOTE, "2 tensors of layers beyond the model's 20", NULL);
    tsr_problems_close(&problems);
}

static void add_second_prediction_layer(made_checkpoint *made)
{
    const int64_t shape = 64;
    made_add(made, "model.layers.21.enorm.weight", TSR_DTYPE_BF16, 1, &shape);
}

static void more_prediction_layers_than_declared_are_refused(void **state)
{
    (void)state;
    expect(stored_nvfp4, "NVFP4", add_second_prediction_layer, "model.layers.21.enorm.weight",
           NULL);
}

static void add_stranger(made_checkpoint *made)
{
    const int64_t shape = 64;
    made_add(made, "model.layers.3.mlp.sparkle.weight", TSR_DTYPE_BF16, 1, &shape);
}

static void a_tensor_of_no_module_is_refused(void **state)
{
    (void)state;
    expect(stored_nvfp4, "NVFP4", add_stranger, "model.layers.3.mlp.sparkle.weight", NULL);
}

static void other_layout(made_checkpoint *made)
{
    const int64_t shape[] = {64, 32};
    made_drop(made, "model.layers.2.self_attn.q_proj.weight");
    made_add(made, "model.layers.2.self_attn.q_proj.weight_packed", TSR_DTYPE_U8, 2, shape);
}

static void the_layout_of_another_exporter_is_recognised(void **state)
{
    (void)state;
    expect(stored_nvfp4, "NVFP4", other_layout, q_proj, "compressed-tensors");
}

static tsr_algo stored_base(const tsr_linear_plan *l)
{
    if (l->expert >= 0)
        return TSR_ALGO_NVFP4;
    return stored_blocks(l);
}

static void in_an_fp8_block_base_unquantized_means_blocks(void **state)
{
    tsr_model_facts model = made_model();
    made_checkpoint *made = made_open(&model, stored_base);
    tsr_problems problems = {0};
    tsr_precision *precision;
    (void)state;
    for (int layer = 1; layer < MADE_LAYERS; layer++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts", layer);
        made_key(made, name, "NVFP4", 16);
    }
    ((tsr_checkpoint *)(uintptr_t)made_view(made))->declared.fp8_block_base = true;
    ASSERT_STATUS(TSR_OK, tsr_precision_read(made_view(made), &problems, &precision));
    assert_errors(&problems, 0);
    assert_int_equal(TSR_ALGO_FP8_BLOCK_SCALES, claim_named(precision, q_proj)->algo);
    assert_int_equal(TSR_ALGO_NONE, claim_named(precision, "lm_head")->algo);
    tsr_precision_close(precision);
    tsr_problems_close(&problems);
    made_close(made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_stored_as_declared_is_proven),
        cmocka_unit_test(every_wrong_declaration_is_contradicted),
        cmocka_unit_test(a_linear_is_contradicted_in_one_line),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(a_tensor_of_another_shape_or_type_is_named),
        cmocka_unit_test(a_tensor_that_nobody_would_read_is_refused),
        cmocka_unit_test(awq_may_have_a_pre_quant_scale),
        cmocka_unit_test(block_scales_may_have_rank_4_or_be_called_inverse),
        cmocka_unit_test(scalars_may_have_rank_1_and_be_bf16),
        cmocka_unit_test(the_prediction_layer_is_skipped_and_counted),
        cmocka_unit_test(more_prediction_layers_than_declared_are_refused),
        cmocka_unit_test(a_tensor_of_no_module_is_refused),
        cmocka_unit_test(the_layout_of_another_exporter_is_recognised),
        cmocka_unit_test(in_an_fp8_block_base_unquantized_means_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
