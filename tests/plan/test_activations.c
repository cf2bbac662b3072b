/* Which activations are computed, by what is declared, asked for and possible. */
#include "runtime/plan/activations.h"

#include "tests/plan/made_checkpoint.h"
#include "tests/test.h"

#include <string.h>

static const tsr_linear_plan *first_with(const tsr_precision *p, tsr_role role)
{
    for (int32_t i = 0; i < p->linear_count; i++)
        if (p->linears[i].role == role)
            return &p->linears[i];
    return &p->linears[0];
}

typedef struct settled {
    tsr_status status;
    tsr_activation activation; /* of q_proj */
    tsr_kv_format kv;
    tsr_status kv_status;
    tsr_problems problems;
} settled;

typedef struct question {
    made_storage storage;
    const char *algo;
    const char *target;
    const char *activations_of;
    tsr_activations_mode mode;
    const char *kv_dtype;
    const char *kv_algo;
    const char *dropped; /* a tensor */
} question;

static settled settle(question q)
{
    tsr_model_facts model = made_model();
    made_checkpoint *made = made_open(&model, q.storage);
    tsr_plan_request request = {.ranks = 1,
                                .target = tsr_target_find(q.target),
                                .activations = q.mode,
                                .kv_cache_dtype = q.kv_dtype};
    settled s = {0};
    tsr_precision *precision;

    if (q.activations_of != NULL)
        request.activations_of = tsr_target_find(q.activations_of);
    if (q.algo != NULL)
        made_uniform(made, q.algo, 0);
    if (q.dropped != NULL)
        made_drop(made, q.dropped);
    ((tsr_checkpoint *)(uintptr_t)made_view(made))->declared.kv_algo = q.kv_algo;
    ASSERT_STATUS(TSR_OK, tsr_precision_read(made_view(made), &s.problems, &precision));
    assert_errors(&s.problems, 0);
    s.status = tsr_activations_settle(&request, &s.problems, precision);
    s.kv_status = tsr_kv_settle(&request, precision, &s.problems, &s.kv);
    s.activation = first_with(precision, TSR_ROLE_Q)->activation;
    tsr_precision_close(precision);
    made_close(made);
    return s;
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

static void each_algorithm_declares_its_activations(void **state)
{
    static const struct {
        made_storage storage;
        const char *algo;
        tsr_activation everywhere; /* cpu and b200 */
        tsr_activation hopper;
    } cases[] = {
        {stored_plain, NULL, TSR_ACTIVATION_NONE, TSR_ACTIVATION_NONE},
        {stored_fp8, "FP8", TSR_ACTIVATION_FP8, TSR_ACTIVATION_FP8},
        {stored_channel, "FP8_PER_CHANNEL_PER_TOKEN", TSR_ACTIVATION_FP8_TOKEN,
         TSR_ACTIVATION_FP8_TOKEN},
        {stored_blocks, "FP8_BLOCK_SCALES", TSR_ACTIVATION_FP8_GROUP, TSR_ACTIVATION_FP8_GROUP},
        {stored_blocks, "fp8_pb_wo", TSR_ACTIVATION_NONE, TSR_ACTIVATION_NONE},
        {stored_nvfp4, "NVFP4", TSR_ACTIVATION_NVFP4, TSR_ACTIVATION_NONE},
        {stored_nvfp4, "NVFP4_AWQ", TSR_ACTIVATION_NVFP4, TSR_ACTIVATION_NONE},
        {stored_nvfp4, "W4A16_NVFP4", TSR_ACTIVATION_NONE, TSR_ACTIVATION_NONE},
    };
    static const char *const targets[] = {"cpu", "b200", "h200", "h100"};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int t = 0; t < 4; t++) {
            settled s = settle((question){
                .storage = cases[i].storage, .algo = cases[i].algo, .target = targets[t]});
            ASSERT_STATUS(TSR_OK, s.status);
            assert_int_equal(t >= 2 ? cases[i].hopper : cases[i].everywhere, s.activation);
            tsr_problems_close(&s.problems);
        }
    }
}

static void a_cpu_can_compute_what_a_hopper_would(void **state)
{
    settled s = settle((question){
        .storage = stored_nvfp4, .algo = "NVFP4", .target = "cpu", .activations_of = "h200"});
    (void)state;
    assert_int_equal(TSR_ACTIVATION_NONE, s.activation);
    tsr_problems_close(&s.problems);
}

static void weight_only_quantizes_no_activation(void **state)
{
    settled s = settle((question){.storage = stored_fp8,
                                  .algo = "FP8",
                                  .target = "cpu",
                                  .mode = TSR_ACTIVATIONS_WEIGHT_ONLY});
    (void)state;
    assert_int_equal(TSR_ACTIVATION_NONE, s.activation);
    tsr_problems_close(&s.problems);
}

static void declared_on_a_target_that_cannot_is_a_device_error(void **state)
{
    settled s = settle((question){.storage = stored_nvfp4,
                                  .algo = "NVFP4",
                                  .target = "h200",
                                  .mode = TSR_ACTIVATIONS_DECLARED});
    (void)state;
    ASSERT_STATUS(TSR_ERR_DEVICE, s.status);
    assert_problem(&s.problems, TSR_SEVERITY_ERROR, "h200 has no FP4 tensor cores", NULL);
    tsr_problems_close(&s.problems);
}

static void a_missing_input_scale_is_refused_where_it_is_needed(void **state)
{
    question q = {.storage = stored_nvfp4,
                  .algo = "NVFP4",
                  .target = "cpu",
                  .dropped = "model.layers.0.self_attn.q_proj.input_scale"};
    settled s = settle(q);
    (void)state;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, s.status);
    assert_problem(&s.problems, TSR_SEVERITY_ERROR, "model.layers.0.self_attn.q_proj.input_scale",
                   "--activations weight-only");
    tsr_problems_close(&s.problems);

    q.mode = TSR_ACTIVATIONS_WEIGHT_ONLY;
    s = settle(q);
    ASSERT_STATUS(TSR_OK, s.status);
    tsr_problems_close(&s.problems);

    q.mode = TSR_ACTIVATIONS_AUTO;
    q.target = "h200";
    s = settle(q);
    ASSERT_STATUS(TSR_OK, s.status);
    tsr_problems_close(&s.problems);
}

static void the_cache_is_as_declared_asked_for_or_plain(void **state)
{
    static const struct {
        question q;
        tsr_status status;
        tsr_kv_format format;
    } cases[] = {
        {{.target = "cpu"}, TSR_OK, TSR_KV_F32},
        {{.target = "h200"}, TSR_OK, TSR_KV_BF16},
        {{.target = "cpu", .kv_algo = "FP8"}, TSR_OK, TSR_KV_FP8},
        {{.target = "cpu", .kv_algo = "FP8", .mode = TSR_ACTIVATIONS_WEIGHT_ONLY},
         TSR_OK,
         TSR_KV_F32},
        {{.target = "cpu",
          .kv_algo = "FP8",
          .mode = TSR_ACTIVATIONS_WEIGHT_ONLY,
          .kv_dtype = "fp8"},
         TSR_OK,
         TSR_KV_FP8},
        {{.target = "cpu", .kv_algo = "FP8", .kv_dtype = "bf16"}, TSR_OK, TSR_KV_BF16},
        {{.target = "cpu", .kv_dtype = "auto"}, TSR_OK, TSR_KV_F32},
        {{.target = "h200", .kv_dtype = "f32"}, TSR_OK, TSR_KV_F32},
        {{.target = "cpu", .kv_dtype = "int8"}, TSR_ERR_ARG, TSR_KV_F32},
        {{.target = "cpu", .kv_algo = "NVFP4"}, TSR_ERR_CHECKPOINT, TSR_KV_F32},
        {{.target = "cpu", .kv_algo = "NVFP4", .kv_dtype = "fp8"}, TSR_OK, TSR_KV_FP8},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        question q = cases[i].q;
        settled s;
        q.storage = stored_plain;
        s = settle(q);
        ASSERT_STATUS(cases[i].status, s.kv_status);
        if (s.kv_status == TSR_OK)
            assert_int_equal(cases[i].format, s.kv);
        tsr_problems_close(&s.problems);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_algorithm_declares_its_activations),
        cmocka_unit_test(a_cpu_can_compute_what_a_hopper_would),
        cmocka_unit_test(weight_only_quantizes_no_activation),
        cmocka_unit_test(declared_on_a_target_that_cannot_is_a_device_error),
        cmocka_unit_test(a_missing_input_scale_is_refused_where_it_is_needed),
        cmocka_unit_test(the_cache_is_as_declared_asked_for_or_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
