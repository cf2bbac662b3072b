/* What a checkpoint declares about precision, in every form the two files are written in. */
#include "tests/test.h"

#include "runtime/checkpoint/quant_config.h"
#include "tests/checkpoint/temp_folder.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef struct reading {
    tsr_arena *memory;
    tsr_problems problems;
    tsr_declarations declared;
    tsr_status status;
} reading;

static void read_json(const json_t *config, const json_t *hf_quant, reading *r)
{
    *r = (reading){0};
    ASSERT_STATUS(TSR_OK, tsr_arena_open(1024, &r->memory));
    r->status = tsr_quant_config_read(config, hf_quant, r->memory, &r->problems, &r->declared);
}

/* `quantization_config` of config.json and hf_quant_config.json; NULL: not there. */
static void read_texts(const char *quantization_config, const char *hf_quant, reading *r)
{
    json_t *config = json_object();
    json_t *hf = hf_quant != NULL ? json_loads(hf_quant, 0, NULL) : NULL;
    if (quantization_config != NULL) {
        json_t *value = json_loads(quantization_config, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        assert_int_equal(0, json_object_set_new(config, "quantization_config", value));
    }
    assert_true(hf_quant == NULL || hf != NULL);
    read_json(config, hf, r);
    json_decref(config);
    json_decref(hf);
}

static void read_data(const char *name, bool with_hf, reading *r)
{
    temp_folder folder;
    (void)snprintf(folder.path, sizeof(folder.path), "%s/%s", TSR_TEST_DATA, name);
    json_t *config = temp_read_json(&folder, "config.json");
    json_t *hf = with_hf ? temp_read_json(&folder, "hf_quant_config.json") : NULL;
    read_json(config, hf, r);
    json_decref(config);
    json_decref(hf);
}

static void close_reading(reading *r)
{
    tsr_problems_close(&r->problems);
    tsr_arena_close(r->memory);
}

/* A row that does not exist has the algorithm "". */
static tsr_declared layer_of(const reading *r, const char *name)
{
    for (size_t i = 0; i < r->declared.layer_count; i++) {
        if (strcmp(r->declared.layers[i].name, name) == 0)
            return r->declared.layers[i];
    }
    return (tsr_declared){.algo = ""};
}

static void assert_clean(const reading *r)
{
    ASSERT_STATUS(TSR_OK, r->status);
    if (r->problems.count > 0)
        fail_msg("%s", r->problems.items[0].text);
}

static void uniform_is_read_from_either_file(void **state)
{
    (void)state;
    for (int with_hf = 0; with_hf < 2; with_hf++) {
        reading r;
        read_data("qwen3-nvfp4-kv-fp8", with_hf != 0, &r);
        assert_clean(&r);
        assert_true(r.declared.quantized && !r.declared.mixed);
        assert_string_equal("NVFP4", r.declared.uniform.algo);
        assert_int_equal(16, r.declared.uniform.group_size);
        assert_int_equal(6, r.declared.exclude_count);
        assert_string_equal("lm_head", r.declared.excludes[0]);
        assert_string_equal("FP8", r.declared.kv_algo);
        assert_int_equal(0, r.declared.layer_count);
        assert_string_equal(with_hf ? "hf_quant_config.json" : "config.json:quantization_config",
                            r.declared.source);
        close_reading(&r);
    }
}

static void mixed_is_read_from_either_file(void **state)
{
    (void)state;
    for (int with_hf = 0; with_hf < 2; with_hf++) {
        reading r;
        read_data("qwen3-mixed", with_hf != 0, &r);
        assert_clean(&r);
        assert_true(r.declared.quantized && r.declared.mixed);
        assert_null(r.declared.uniform.algo);
        assert_null(r.declared.kv_algo);
        assert_int_equal(14, r.declared.layer_count);
        assert_string_equal("W4A16_NVFP4", layer_of(&r, "model.layers.3.mlp.experts").algo);
        assert_int_equal(16, layer_of(&r, "model.layers.3.mlp.experts").group_size);
        assert_int_equal(0, layer_of(&r, "model.layers.1.mlp.experts").group_size);
        assert_string_equal("", layer_of(&r, "model.layers.2.mlp.experts").algo);
        for (size_t i = 1; i < r.declared.layer_count; i++)
            assert_true(strcmp(r.declared.layers[i - 1].name, r.declared.layers[i].name) < 0);
        close_reading(&r);
    }
}

static void nothing_declared_is_no_quantization(void **state)
{
    static const char *const configs[] = {NULL, "null", "{}"};
    static const char *const hf[] = {NULL, "{}", "{\"quantization\": {\"quant_algo\": null}}"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < 3; k++) {
            reading r;
            read_texts(configs[i], hf[k], &r);
            assert_clean(&r);
            assert_false(r.declared.quantized);
            assert_non_null(r.declared.source);
            close_reading(&r);
        }
    }
}

/* Forms that mean: layer 1's experts NVFP4 by 16, o_proj of layer 0 FP8. */
static void every_form_of_mixed_is_read(void **state)
{
#define ROWS                                                                                       \
    "{\"model.layers.1.mlp.experts\": {\"quant_algo\": \"NVFP4\", \"group_size\": 16}, "           \
    "\"model.layers.0.self_attn.o_proj\": {\"quant_algo\": \"FP8\"}}"
#define MIXED "\"quant_algo\": \"MIXED_PRECISION\", "
    static const char *const forms[] = {
        "{" MIXED "\"quantized_layers\": " ROWS "}",
        "{\"quantization\": {" MIXED "\"quantized_layers\": " ROWS "}}",
        "{" MIXED "\"quantized_layers\": {\"quantized_layers\": " ROWS "}}",
        "{\"quantization\": {" MIXED "\"quantized_layers\": {\"quantized_layers\": " ROWS "}}}",
        "{\"quant_algo\": \"mixed_precision\", \"quantized_layers\": " ROWS "}",
        "{" MIXED "\"quantized_layers\": " ROWS ", \"config_groups\": {\"group_0\": {}}}",
        "{\"quant_method\": \"modelopt_mixed\", " MIXED "\"quantized_layers\": " ROWS "}",
        "{" MIXED "\"quantized_layers\": {\"model.language_model.layers.1.mlp.experts\": "
        "{\"quant_algo\": \"NVFP4\", \"group_size\": 16}, "
        "\"language_model.model.layers.0.self_attn.o_proj.weight\": {\"quant_algo\": \"FP8\"}}}",
    };
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(forms) / sizeof(forms[0]); i++) {
        reading r;
        const char *form = forms[i / 2];
        read_texts(i % 2 == 0 ? form : NULL, i % 2 == 1 ? form : NULL, &r);
        assert_clean(&r);
        assert_true(r.declared.mixed);
        assert_int_equal(2, r.declared.layer_count);
        assert_string_equal("FP8", layer_of(&r, "model.layers.0.self_attn.o_proj").algo);
        assert_string_equal("NVFP4", layer_of(&r, "model.layers.1.mlp.experts").algo);
        close_reading(&r);
    }
}

static void the_original_spelling_is_kept_for_messages(void **state)
{
    reading r;
    (void)state;
    read_texts(NULL,
               "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {"
               "\"model.language_model.layers.1.mlp.experts\": {\"quant_algo\": \"nvfp4\"}}, "
               "\"exclude_modules\": [\"language_model.lm_head\"]}",
               &r);
    assert_clean(&r);
    assert_string_equal("model.layers.1.mlp.experts", r.declared.layers[0].name);
    assert_string_equal("model.language_model.layers.1.mlp.experts", r.declared.layers[0].original);
    assert_string_equal("nvfp4", r.declared.layers[0].algo);
    assert_string_equal("lm_head", r.declared.excludes[0]);
    assert_string_equal("language_model.lm_head", r.declared.exclude_originals[0]);
    close_reading(&r);
}

static void keys_that_mean_one_module_must_agree(void **state)
{
#define TWO(first, second)                                                                         \
    "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"model.layers.1.mlp.up_proj\":" \
    " {\"quant_algo\": " first                                                                     \
    "}, \"language_model.layers.1.mlp.up_proj\": {\"quant_algo\": " second "}}}"
    reading r;
    (void)state;
    read_texts(NULL, TWO("\"FP8\"", "\"FP8\""), &r);
    assert_clean(&r);
    assert_int_equal(1, r.declared.layer_count);
    close_reading(&r);

    read_texts(NULL, TWO("\"FP8\"", "\"NVFP4\""), &r);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, r.status);
    assert_true(has_problem(&r.problems, TSR_SEVERITY_ERROR, "language_model.layers.1", "NVFP4"));
    close_reading(&r);

    read_texts(NULL, TWO("\"NVFP4\", \"group_size\": 16", "\"NVFP4\", \"group_size\": 32"), &r);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, r.status);
    assert_int_equal(1, r.problems.errors);
    close_reading(&r);
}

static void kv_alone_is_a_declaration(void **state)
{
    static const char *const forms[] = {
        "{\"quant_algo\": \"MIXED_PRECISION\", \"kv_cache_quant_algo\": \"FP8\", "
        "\"quantized_layers\": {}, \"config_groups\": {}}",
        "{\"kv_cache_quant_algo\": \"FP8\"}",
        "{\"quant_algo\": null, \"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", "
        "\"dynamic\": false}}",
        "{\"kv_cache_scheme\": \"FP8\"}",
        "{\"kv_cache_scheme\": \"FP8\", \"kv_cache_quant_algo\": \"fp8\"}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        reading r;
        read_texts(forms[i], NULL, &r);
        assert_clean(&r);
        assert_true(r.declared.quantized);
        assert_int_equal(0, strcasecmp("FP8", r.declared.kv_algo));
        assert_int_equal(0, r.declared.layer_count);
        close_reading(&r);
    }
}

static void layerwise_kv_is_read(void **state)
{
    reading r;
    (void)state;
    read_texts(NULL,
               "{\"quantization\": {\"kv_cache_quant_algo\": \"MIXED_PRECISION\", "
               "\"kv_cache_schema_version\": 1, \"kv_cache_quantized_layers\": {"
               "\"model.layers.2.self_attn\": {\"quant_algo\": \"NVFP4\"}, "
               "\"model.layers.1.self_attn\": {\"quant_algo\": \"FP8\"}}}}",
               &r);
    assert_clean(&r);
    assert_true(r.declared.quantized);
    assert_string_equal("MIXED_PRECISION", r.declared.kv_algo);
    assert_int_equal(2, r.declared.kv_layer_count);
    assert_string_equal("model.layers.1.self_attn", r.declared.kv_layers[0].name);
    assert_string_equal("FP8", r.declared.kv_layers[0].algo);
    close_reading(&r);
}

static void a_uniform_group_size_is_found_in_the_flat_form(void **state)
{
#define GROUPS ", \"config_groups\": {\"group_0\": {\"weights\": {\"group_size\": 32}}}}"
    reading r;
    (void)state;
    read_texts("{\"quant_algo\": \"NVFP4\"" GROUPS, NULL, &r);
    assert_clean(&r);
    assert_int_equal(32, r.declared.uniform.group_size);
    close_reading(&r);
    read_texts("{\"quant_algo\": \"NVFP4_AWQ\"" GROUPS, NULL, &r);
    assert_clean(&r);
    assert_int_equal(0, r.declared.uniform.group_size);
    close_reading(&r);
}

/* One change to one file of a pair that agrees. */
static void differences_are_warnings_and_hf_quant_config_wins(void **state)
{
    static const struct {
        const char *config;
        const char *hf;
        const char *said;
    } rows[] = {
        {"{\"quant_algo\": \"NVFP4\"}", "{\"quant_algo\": \"FP8\"}", "quant_algo (FP8, NVFP4)"},
        {"{\"quant_algo\": \"MIXED_PRECISION\"}", "{\"quant_algo\": \"FP8\"}",
         "quant_algo (FP8, MIXED_PRECISION)"},
        {"{}", "{\"quant_algo\": \"FP8\"}", "quant_algo (FP8, none)"},
        {"{\"config_groups\": {\"group_0\": {}}}", "{\"quant_algo\": \"FP8\"}",
         "quant_algo (FP8, none)"},
        {"{\"quant_algo\": \"FP8\", \"kv_cache_scheme\": \"FP8\"}", "{\"quant_algo\": \"FP8\"}",
         "the KV cache (none, FP8)"},
        {"{\"quant_algo\": \"FP8\", \"ignore\": [\"a\", \"b\"]}",
         "{\"quant_algo\": \"FP8\", \"exclude_modules\": [\"a\"]}",
         "1 excluded modules, first \"b\""},
        {"{\"quant_algo\": \"NVFP4\", \"group_size\": 32}",
         "{\"quant_algo\": \"NVFP4\", \"group_size\": 16}", "group_size (16, 32)"},
        {"{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"x\": {\"quant_algo\": "
         "\"FP8\"}}}",
         "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"x\": {\"quant_algo\": "
         "\"NVFP4\"}}}",
         "1 layers, first \"x\" (NVFP4, FP8)"},
        {"{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"x\": {\"quant_algo\": "
         "\"FP8\"}, \"y\": {\"quant_algo\": \"FP8\"}}}",
         "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"y\": {\"quant_algo\": "
         "\"FP8\"}, \"z\": {\"quant_algo\": \"FP8\"}}}",
         "2 layers, first \"x\" (none, FP8)"},
        {"{\"kv_cache_quantized_layers\": {\"x\": {\"quant_algo\": \"FP8\"}}}",
         "{\"kv_cache_quantized_layers\": {\"x\": {\"quant_algo\": \"NVFP4\"}}}",
         "1 layers of the KV cache"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        reading r;
        read_texts(rows[i].config, rows[i].hf, &r);
        ASSERT_STATUS(TSR_OK, r.status);
        if (r.problems.count != 1 || !has_problem(&r.problems, TSR_SEVERITY_WARNING, rows[i].said,
                                                  "hf_quant_config.json is used"))
            fail_msg("wanted %s, got %zu: %s", rows[i].said, r.problems.count,
                     r.problems.count > 0 ? r.problems.items[0].text : "nothing");
        assert_string_equal("hf_quant_config.json", r.declared.source);
        close_reading(&r);
    }
}

/* Spelling, order and what the flat form cannot say are not differences. */
static void spelling_is_no_difference(void **state)
{
    reading r;
    (void)state;
    read_texts("{\"quant_algo\": \"nvfp4\", \"ignore\": [\"lm_head.weight\", \"layers.1.mlp\"]}",
               "{\"quant_algo\": \"NVFP4\", \"group_size\": 16, \"exclude_modules\": "
               "[\"model.layers.1.mlp\", \"lm_head\"]}",
               &r);
    assert_clean(&r);
    close_reading(&r);
}

static void fp8_blocks_of_transformers_are_a_uniform_declaration(void **state)
{
    reading r;
    (void)state;
    read_texts("{\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", \"activation_scheme\": \"dynamic\", "
               "\"weight_block_size\": [128, 128], "
               "\"modules_to_not_convert\": [\"model.layers.0.mlp.gate\"]}",
               NULL, &r);
    assert_clean(&r);
    assert_true(r.declared.quantized && !r.declared.mixed && !r.declared.fp8_block_base);
    assert_string_equal("FP8_BLOCK_SCALES", r.declared.uniform.algo);
    assert_int_equal(128, r.declared.uniform.group_size);
    assert_int_equal(2, r.declared.exclude_count);
    assert_string_equal("model.layers.0.mlp.gate", r.declared.excludes[0]);
    assert_string_equal("lm_head", r.declared.excludes[1]);
    close_reading(&r);
}

static void fp8_blocks_below_modelopt_are_the_base(void **state)
{
    reading r;
    (void)state;
    read_texts("{\"quant_method\": \"fp8\", \"activation_scheme\": \"dynamic\", "
               "\"weight_block_size\": [128, 128], \"moe_quant_algo\": \"NVFP4\"}",
               "{\"quantization\": {\"quant_algo\": \"NVFP4\", \"exclude_modules\": [\"*attn*\"]}}",
               &r);
    assert_clean(&r);
    assert_true(r.declared.fp8_block_base);
    assert_string_equal("NVFP4", r.declared.uniform.algo);
    assert_int_equal(1, r.declared.exclude_count);
    close_reading(&r);
}

static const struct refusal {
    const char *config;
    const char *hf;
    const char *said;
} refusals[] = {
    {"{\"quant_method\": \"compressed-tensors\"}", NULL, "\"compressed-tensors\" is not supported"},
    {"{\"quant_method\": \"awq\"}", "{\"quant_algo\": \"FP8\"}", "\"awq\" is not supported"},
    {"{\"quant_method\": 3}", NULL, "quant_method: is not text"},
    {"[]", NULL, "quantization_config: is not an object"},
    {NULL, "[]", "hf_quant_config.json: is not an object"},
    {"{\"quant_method\": \"fp8\"}", NULL, "weight_block_size"},
    {"{\"quant_method\": \"fp8\"}", "{\"quant_algo\": \"FP8\"}", "weight_block_size"},
    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [64, 128]}", NULL, "weight_block_size"},
    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}", NULL, "activation_scheme"},
    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128], \"activation_scheme\": "
     "\"static\"}",
     NULL, "activation_scheme"},
    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128], \"activation_scheme\": "
     "\"dynamic\", \"moe_quant_algo\": \"NVFP4\"}",
     NULL, "moe_quant_algo"},
    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128], \"activation_scheme\": "
     "\"dynamic\", \"fmt\": \"e5m2\"}",
     NULL, "fmt"},
    {NULL, "{\"quantization\": []}", "quantization: is not an object"},
    {NULL, "{\"quantization\": {}, \"quant_algo\": \"FP8\"}", "stands beside \"quantization\""},
    {NULL, "{\"quant_algo\": 4}", "quant_algo: is not text"},
    {NULL, "{\"quant_algo\": \"NVFP4\", \"group_size\": -1}", "group_size"},
    {NULL, "{\"quant_algo\": \"NVFP4\", \"group_size\": \"16\"}", "group_size"},
    {NULL, "{\"quant_algo\": \"NVFP4\", \"has_zero_point\": true}", "has_zero_point"},
    {NULL, "{\"quant_algo\": \"FP8\", \"quantized_layers\": {\"x\": {\"quant_algo\": \"FP8\"}}}",
     "\"FP8\" and not MIXED_PRECISION"},
    {NULL, "{\"quantized_layers\": {\"x\": {\"quant_algo\": \"FP8\"}}}", "\"null\" and not MIXED"},
    {"{\"quant_algo\": \"MIXED_PRECISION\", \"config_groups\": {\"group_0\": {}}}", NULL,
     "quantized_layers: is missing: config_groups alone"},
    {"{\"config_groups\": {\"group_0\": {}}}", NULL, "quant_algo: is missing: config_groups alone"},
    {"{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128], \"activation_scheme\": "
     "\"static\"}",
     "{\"quant_algo\": \"NVFP4\"}", "activation_scheme"},
    {NULL, "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": []}", "is not an object"},
    {NULL, "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"x\": {}}}",
     "x: has no quant_algo"},
    {NULL, "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"x\": \"FP8\"}}",
     "x: has no quant_algo"},
    {NULL,
     "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"x\": {\"quant_algo\": "
     "\"NVFP4\", \"group_size\": 1.5}}}",
     "x: group_size"},
    {NULL,
     "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"x\": {\"quant_algo\": "
     "\"W4A16_AWQ\", \"has_zero_point\": true}}}",
     "x: has_zero_point"},
    {NULL,
     "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"quantized_layers\": {}, "
     "\"x\": {\"quant_algo\": \"FP8\"}}}",
     "holds both rows and a table"},
    {NULL,
     "{\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": {\"a\\nb\": {\"quant_algo\": "
     "\"FP8\"}}}",
     "control characters"},
    {NULL, "{\"quant_algo\": \"FP8\", \"exclude_modules\": \"lm_head\"}", "is not a list"},
    {NULL, "{\"quant_algo\": \"FP8\", \"exclude_modules\": [1]}", "entry 0 is not text"},
    {NULL, "{\"quant_algo\": \"FP8\", \"exclude_modules\": [\"\"]}", "a name is empty"},
    {NULL, "{\"kv_cache_scheme\": {\"num_bits\": 4, \"type\": \"float\"}}", "kv_cache_scheme"},
    {NULL, "{\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"int\"}}", "kv_cache_scheme"},
    {NULL, "{\"kv_cache_scheme\": \"FP8\", \"kv_cache_quant_algo\": \"NVFP4\"}", "is FP8"},
    {NULL, "{\"kv_cache_quant_algo\": \"FP8\", \"kv_cache_schema_version\": 2}", "schema_version"},
};

static void an_unknown_member_is_a_warning_and_another_scale_format_is_refused(void **state)
{
    (void)state;
    reading r = {0};
    read_texts(NULL,
               "{\"producer\": {}, \"quantization\": {\"quant_algo\": \"MIXED_PRECISION\", "
               "\"newer\": 1, \"quantized_layers\": {\"model.layers.0.mlp.experts\": "
               "{\"quant_algo\": \"FP8\", \"newest\": [2]}}}}",
               &r);
    ASSERT_STATUS(TSR_OK, r.status);
    assert_int_equal(r.problems.count, 2);
    assert_non_null(strstr(r.problems.items[0].text, "newer: is not known"));
    assert_non_null(strstr(r.problems.items[1].text, "model.layers.0.mlp.experts: newest"));
    close_reading(&r);
    read_texts("{\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128], "
               "\"scale_fmt\": \"ue8m0\"}",
               NULL, &r);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, r.status);
    assert_non_null(strstr(r.problems.items[0].text, "scale_fmt: \"ue8m0\" is not served"));
    close_reading(&r);
}

static void what_is_unclear_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        reading r;
        read_texts(refusals[i].config, refusals[i].hf, &r);
        if (r.status != TSR_ERR_CHECKPOINT || r.problems.errors != 1 ||
            !has_problem(&r.problems, TSR_SEVERITY_ERROR, refusals[i].said, NULL))
            fail_msg("row %zu: wanted %s, got %zu: %s", i, refusals[i].said, r.problems.errors,
                     r.problems.count > 0 ? r.problems.items[0].text : "nothing");
        close_reading(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uniform_is_read_from_either_file),
        cmocka_unit_test(mixed_is_read_from_either_file),
        cmocka_unit_test(nothing_declared_is_no_quantization),
        cmocka_unit_test(every_form_of_mixed_is_read),
        cmocka_unit_test(the_original_spelling_is_kept_for_messages),
        cmocka_unit_test(keys_that_mean_one_module_must_agree),
        cmocka_unit_test(kv_alone_is_a_declaration),
        cmocka_unit_test(layerwise_kv_is_read),
        cmocka_unit_test(a_uniform_group_size_is_found_in_the_flat_form),
        cmocka_unit_test(differences_are_warnings_and_hf_quant_config_wins),
        cmocka_unit_test(spelling_is_no_difference),
        cmocka_unit_test(fp8_blocks_of_transformers_are_a_uniform_declaration),
        cmocka_unit_test(fp8_blocks_below_modelopt_are_the_base),
        cmocka_unit_test(an_unknown_member_is_a_warning_and_another_scale_format_is_refused),
        cmocka_unit_test(what_is_unclear_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
