/* Exports of the real tool: each resolves, is proven, and becomes a plan that travels. */
#include "runtime/plan/plan_build.h"

#include "runtime/plan/precision.h"
#include "tests/plan/made_checkpoint.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const fixtures[] = {
    "demo-mixed",         "glm4-air-mixed",       "glm4-bf16",       "glm4-mixed",
    "glm4-mixed-keys",    "glm4-nvfp4",           "qwen3-bf16",      "qwen3-dense-mixed",
    "qwen3-fp8",          "qwen3-fp8-block",      "qwen3-fp8-pc-pt", "qwen3-mixed",
    "qwen3-mixed-keys",   "qwen3-mixed-unsynced", "qwen3-nvfp4",     "qwen3-nvfp4-awq",
    "qwen3-nvfp4-kv-fp8",
};

static const char *path_of(const char *name)
{
    static char path[1024];

    (void)snprintf(path, sizeof(path), "%s/%s", TSR_TEST_DATA, name);
    return path;
}

static tsr_plan *plan_of(const char *folder, const tsr_plan_request *request)
{
    tsr_problems problems = {0};
    tsr_checkpoint *checkpoint;
    tsr_plan *plan;
    bool fits;

    ASSERT_STATUS(TSR_OK, tsr_checkpoint_open(folder, &problems, &checkpoint));
    ASSERT_STATUS(TSR_OK, tsr_plan_build(checkpoint, request, &problems, &plan, &fits));
    assert_true(fits);
    assert_errors(&problems, 0);
    tsr_checkpoint_close(checkpoint);
    tsr_problems_close(&problems);
    return plan;
}

static tsr_plan_request request_for(const char *target, tsr_activations_mode mode, int32_t ranks)
{
    return (tsr_plan_request){.ranks = ranks,
                              .target = tsr_target_find("cpu"),
                              .activations_of = tsr_target_find(target),
                              .activations = mode,
                              .memory_bytes = UINT64_C(1) << 30};
}

static const tsr_linear_plan *linear_at(const tsr_plan *plan, int32_t layer, tsr_role role,
                                        int32_t expert)
{
    for (int32_t i = 0; i < plan->linear_count; i++) {
        const tsr_linear_plan *l = &plan->linears[i];
        if (l->layer == layer && l->role == role && l->expert == expert)
            return l;
    }
    fail_msg("no %s in layer %d", tsr_role_name(role), layer);
    abort();
}

static void assert_experts(const tsr_plan *plan, int32_t layer, tsr_algo algo)
{
    for (int32_t e = 0; e < plan->model.experts; e++) {
        assert_int_equal(algo, linear_at(plan, layer, TSR_ROLE_EXPERT_GATE, e)->algo);
        assert_int_equal(algo, linear_at(plan, layer, TSR_ROLE_EXPERT_UP, e)->algo);
        assert_int_equal(algo, linear_at(plan, layer, TSR_ROLE_EXPERT_DOWN, e)->algo);
    }
}

static void every_export_is_proven_and_travels(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(fixtures) / sizeof(fixtures[0]); i++) {
        for (int32_t ranks = 1; ranks <= 8; ranks++) {
            tsr_plan_request request = request_for("cpu", TSR_ACTIVATIONS_AUTO, ranks);
            tsr_plan *plan = plan_of(path_of(fixtures[i]), &request), *arrived;
            unsigned char *bytes;
            size_t count;
            ASSERT_STATUS(TSR_OK, tsr_plan_pack(plan, &bytes, &count));
            ASSERT_STATUS(TSR_OK, tsr_plan_unpack(bytes, count, &arrived));
            assert_int_equal(plan->digest, arrived->digest);
            tsr_plan_close(plan);
            tsr_plan_close(arrived);
            free(bytes);
        }
    }
}

/* The case on which other runtimes stop. */
static void experts_declared_by_their_own_keys_keep_their_layers_format(void **state)
{
    tsr_plan_request request = request_for("cpu", TSR_ACTIVATIONS_AUTO, 2);
    tsr_plan *plan = plan_of(path_of("glm4-mixed-keys"), &request);
    (void)state;
    assert_experts(plan, 1, TSR_ALGO_NVFP4);
    assert_experts(plan, 2, TSR_ALGO_FP8);
    assert_experts(plan, 3, TSR_ALGO_NONE);
    assert_int_equal(TSR_WEIGHT_NVFP4, linear_at(plan, 0, TSR_ROLE_DOWN, -1)->format);
    assert_int_equal(TSR_WEIGHT_FP8, linear_at(plan, 0, TSR_ROLE_GATE, -1)->format);
    tsr_plan_close(plan);
}

static void keys_of_blocks_and_of_experts_say_the_same(void **state)
{
    tsr_plan_request request = request_for("cpu", TSR_ACTIVATIONS_AUTO, 2);
    tsr_plan *blocks = plan_of(path_of("qwen3-mixed"), &request);
    tsr_plan *keys = plan_of(path_of("qwen3-mixed-keys"), &request);
    (void)state;
    assert_int_equal(blocks->linear_count, keys->linear_count);
    for (int32_t i = 0; i < keys->linear_count; i++) {
        assert_int_equal(blocks->linears[i].role, keys->linears[i].role);
        assert_int_equal(blocks->linears[i].algo, keys->linears[i].algo);
    }
    tsr_plan_close(blocks);
    tsr_plan_close(keys);
}

/* A folder that holds links to the files of `from`, and the JSON files of `json` over them. */
static void link_folder(const char *to, const char *from, const char *json)
{
    static const char *const names[] = {"model.safetensors", "generation_config.json",
                                        "config.json", "hf_quant_config.json"};
    char target[2048], name[2048];

    assert_int_equal(0, mkdir(to, 0700));
    for (int i = 0; i < 4; i++) {
        (void)snprintf(target, sizeof(target), "%s/%s%s/%s", TSR_TEST_DATA, from,
                       i >= 2 ? json : "", names[i]);
        (void)snprintf(name, sizeof(name), "%s/%s", to, names[i]);
        assert_int_equal(0, symlink(target, name));
    }
}

static void unlink_folder(const char *folder)
{
    static const char *const names[] = {"model.safetensors", "generation_config.json",
                                        "config.json", "hf_quant_config.json"};
    char name[2048];

    for (int i = 0; i < 4; i++) {
        (void)snprintf(name, sizeof(name), "%s/%s", folder, names[i]);
        (void)unlink(name);
    }
    (void)rmdir(folder);
}

static void uniform_blocks_and_keys_give_equal_linears(void **state)
{
    static const char *const forms[] = {"", "/as-block", "/as-keys"};
    tsr_plan_request request = request_for("cpu", TSR_ACTIVATIONS_AUTO, 3);
    tsr_plan *plans[3];
    char scratch[] = "/tmp/tessera-plan-XXXXXX", folder[1100];
    (void)state;
    assert_non_null(mkdtemp(scratch));
    for (int i = 0; i < 3; i++) {
        (void)snprintf(folder, sizeof(folder), "%s/%d", scratch, i);
        link_folder(folder, "qwen3-nvfp4", forms[i]);
        plans[i] = plan_of(folder, &request);
        unlink_folder(folder);
    }
    (void)rmdir(scratch);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(plans[0]->linear_count, plans[i]->linear_count);
        for (int32_t l = 0; l < plans[0]->linear_count; l++)
            assert_memory_equal(&plans[0]->linears[l], &plans[i]->linears[l],
                                sizeof(plans[0]->linears[l]));
        assert_int_equal(plans[0]->budget[0].weights_bytes, plans[i]->budget[0].weights_bytes);
    }
    for (int i = 0; i < 3; i++)
        tsr_plan_close(plans[i]);
}

static void an_fp8_cache_has_its_scales_and_weight_only_has_no_such_cache(void **state)
{
    tsr_plan_request declared = request_for("cpu", TSR_ACTIVATIONS_AUTO, 1);
    tsr_plan_request weights = request_for("cpu", TSR_ACTIVATIONS_WEIGHT_ONLY, 1);
    tsr_plan *plan = plan_of(path_of("qwen3-nvfp4-kv-fp8"), &declared);
    int32_t scales = 0;
    (void)state;
    assert_int_equal(TSR_KV_FP8, plan->kv_format);
    for (int32_t i = 0; i < plan->vector_count; i++)
        scales +=
            plan->vectors[i].role == TSR_ROLE_K_SCALE || plan->vectors[i].role == TSR_ROLE_V_SCALE;
    assert_int_equal(2 * plan->model.layers, scales);
    tsr_plan_close(plan);

    plan = plan_of(path_of("qwen3-nvfp4-kv-fp8"), &weights);
    assert_int_equal(TSR_KV_F32, plan->kv_format);
    tsr_plan_close(plan);

    weights.kv_cache_dtype = "fp8";
    plan = plan_of(path_of("qwen3-nvfp4-kv-fp8"), &weights);
    assert_int_equal(TSR_KV_FP8, plan->kv_format);
    tsr_plan_close(plan);
}

static void awq_keeps_its_pre_quant_scale_in_every_mode(void **state)
{
    tsr_plan_request request = request_for("h200", TSR_ACTIVATIONS_AUTO, 1);
    tsr_plan *plan = plan_of(path_of("qwen3-nvfp4-awq"), &request);
    const tsr_linear_plan *gate = linear_at(plan, 0, TSR_ROLE_EXPERT_GATE, 3);
    const tsr_linear_plan *q = linear_at(plan, 0, TSR_ROLE_Q, -1);
    (void)state;
    assert_int_equal(TSR_ACTIVATION_NONE, gate->activation);
    assert_int_not_equal(TSR_NO_FILE, gate->pre_quant_scale.file);
    assert_int_equal(TSR_NO_FILE, q->pre_quant_scale.file);
    tsr_plan_close(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_export_is_proven_and_travels),
        cmocka_unit_test(experts_declared_by_their_own_keys_keep_their_layers_format),
        cmocka_unit_test(keys_of_blocks_and_of_experts_say_the_same),
        cmocka_unit_test(uniform_blocks_and_keys_give_equal_linears),
        cmocka_unit_test(an_fp8_cache_has_its_scales_and_weight_only_has_no_such_cache),
        cmocka_unit_test(awq_keeps_its_pre_quant_scale_in_every_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
