/*
 * Forms of checkpoints that no folder of tests/data holds, each made from one that it does: the
 * logits must keep their bits, or be what the definition says.
 */
#include "tests/model/definition.h"
#include "tests/model/safetensors_edit.h"
#include "tests/model/served.h"
#include "tests/test.h"

#include "runtime/base/text_buffer.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A copy of a folder of tests/data, and what the original gives. */
typedef struct variant {
    char original[PATH_MAX];
    char folder[PATH_MAX];
    char weights[PATH_MAX]; /* model.safetensors of the copy */
    edit_list tensors;
    served_expected e;
} variant;

static variant vary(const char *fixture)
{
    variant v;
    edit_path(TSR_TEST_DATA, fixture, sizeof(v.original), v.original);
    edit_copy_folder(v.original, sizeof(v.folder), v.folder);
    edit_path(v.folder, "model.safetensors", sizeof(v.weights), v.weights);
    v.tensors = edit_read(v.weights);
    v.e = served_expectation(v.original, SERVED_DECLARED);
    return v;
}

static void forget(variant *v)
{
    edit_close(&v->tensors);
    served_expected_free(&v->e);
    edit_remove_folder(v->folder);
}

/* Both sequences of the variant's fixture, as some folder gives them. */
static void run_pair(const variant *v, const char *folder, served_mode mode,
                     served_sequence sequences[2])
{
    for (int i = 0; i < 2; i++)
        sequences[i] = (served_sequence){.tokens = v->e.tokens[i], .count = v->e.count[i]};
    served(&(served_setup){.folder = folder, .mode = mode}, (served_device){0}, sequences, 2);
}

static void same_logits(const variant *v, const char *a, const char *b, served_mode mode)
{
    served_sequence of_a[2];
    served_sequence of_b[2];
    run_pair(v, a, mode, of_a);
    run_pair(v, b, mode, of_b);
    for (int i = 0; i < 2; i++) {
        const size_t values = (size_t)v->e.count[i] * (size_t)v->e.vocab;
        served_same_bits(v->original, of_a[i].logits, of_b[i].logits, values);
    }
    served_free(of_a, 2);
    served_free(of_b, 2);
}

static void keeps_every_bit(const variant *v)
{
    same_logits(v, v->original, v->folder, SERVED_DECLARED);
    same_logits(v, v->original, v->folder, SERVED_WEIGHT_ONLY);
}

static bool ends_with(const char *name, const char *suffix)
{
    const size_t n = strlen(name);
    const size_t s = strlen(suffix);
    return n >= s && strcmp(name + n - s, suffix) == 0;
}

static void declare_again(const variant *v, const char *old, const char *with)
{
    static const char *const files[] = {"config.json", "hf_quant_config.json"};
    for (int f = 0; f < 2; f++) {
        char path[PATH_MAX];
        edit_path(v->folder, files[f], sizeof(path), path);
        edit_replace_text(path, old, with);
    }
}

static void swap_in(const variant *v, const char *declaration)
{
    static const char *const files[] = {"config.json", "hf_quant_config.json"};
    char from_folder[PATH_MAX];
    edit_path(v->original, declaration, sizeof(from_folder), from_folder);
    for (int f = 0; f < 2; f++) {
        char from[PATH_MAX];
        char to[PATH_MAX];
        edit_path(from_folder, files[f], sizeof(from), from);
        edit_path(v->folder, files[f], sizeof(to), to);
        edit_copy_file(from, to);
    }
}

static void uniform_and_mixed_alike_give_the_same_bits(void **state)
{
    (void)state;
    variant v = vary("qwen3-nvfp4");
    swap_in(&v, "as-block");
    keeps_every_bit(&v);
    swap_in(&v, "as-keys");
    keeps_every_bit(&v);
    forget(&v);
}

static void another_spelling_of_an_algorithm_changes_no_bit(void **state)
{
    (void)state;
    variant v = vary("qwen3-fp8-block");
    declare_again(&v, "fp8_pb_wo", "FP8_PB_WO");
    keeps_every_bit(&v);
    forget(&v);
}

static void inverse_names_and_scales_of_rank_2_change_no_bit(void **state)
{
    (void)state;
    variant v = vary("qwen3-fp8-block");
    for (size_t i = 0; i < v.tensors.count; i++) {
        edit_tensor *t = &v.tensors.tensors[i];
        if (!ends_with(t->name, ".weight_scale"))
            continue;
        assert_int_equal(t->rank, 4);
        t->shape[1] = t->shape[2];
        t->rank = 2;
        (void)strncat(t->name, "_inv", sizeof(t->name) - strlen(t->name) - 1);
    }
    edit_write(v.weights, &v.tensors, 0);
    keeps_every_bit(&v);
    forget(&v);
}

/* The head as codes of E4M3 that are no NaN, with a scale of 1/64. */
static void code_head(edit_list *list)
{
    const float by = 1.0F / 64;

    edit_add(list, edit_find(list, "model.layers.0.self_attn.q_proj.weight_scale"),
             "lm_head.weight_scale");
    memcpy(edit_find(list, "lm_head.weight_scale")->data, &by, sizeof(by));
    edit_tensor *head = edit_find(list, "lm_head.weight");
    assert_string_equal(head->dtype, "BF16");
    head->bytes /= 2;
    for (size_t i = 0; i < head->bytes; i++)
        head->data[i] = (unsigned char)(i * 37 % 126 | (i * 11 & 0x80U));
    (void)snprintf(head->dtype, sizeof(head->dtype), "F8_E4M3");
}

/* Such codes as their values, which BF16 has, too. */
static void decode_head(edit_list *list)
{
    edit_tensor *head = edit_find(list, "lm_head.weight");
    size_t count = 0;
    float *value = edit_floats(head, &count);

    for (size_t i = 0; i < count; i++)
        value[i] /= 64;
    free(head->data);
    head->data = (unsigned char *)value;
    head->bytes = count * sizeof(*value);
    (void)snprintf(head->dtype, sizeof(head->dtype), "F32");
    edit_to_bf16(head);
    edit_remove(list, "lm_head.weight_scale");
}

static void a_head_in_fp8_has_the_logits_of_its_values(void **state)
{
    (void)state;
    variant plain = vary("qwen3-mixed");
    variant coded = vary("qwen3-mixed");
    code_head(&plain.tensors);
    code_head(&coded.tensors);
    decode_head(&plain.tensors);
    edit_write(plain.weights, &plain.tensors, 0);
    edit_write(coded.weights, &coded.tensors, 0);
    declare_again(&coded, "\"quantized_layers\": {",
                  "\"quantized_layers\": {\"lm_head\": {\"quant_algo\": \"FP8\"},");
    same_logits(&plain, plain.folder, coded.folder, SERVED_WEIGHT_ONLY);
    forget(&plain);
    forget(&coded);
}

static bool is_scalar(const edit_tensor *t)
{
    return t->rank == 0 || (t->rank == 1 && t->shape[0] == 1);
}

static void scalars_of_shape_1_change_no_bit(void **state)
{
    (void)state;
    static const char *const of[] = {"qwen3-mixed", "qwen3-nvfp4-kv-fp8", "glm4-mixed-keys"};
    for (int f = 0; f < 3; f++) {
        variant v = vary(of[f]);
        for (size_t i = 0; i < v.tensors.count; i++) {
            edit_tensor *t = &v.tensors.tensors[i];
            if (!is_scalar(t))
                continue;
            t->rank = 1 - t->rank; /* [] and [1] trade places */
            t->shape[0] = 1;
        }
        edit_write(v.weights, &v.tensors, 0);
        keeps_every_bit(&v);
        forget(&v);
    }
}

/* BF16 scalars are compared with the same numbers in F32. */
static void scalars_in_bf16_mean_the_same_numbers(void **state)
{
    (void)state;
    variant rounded = vary("qwen3-mixed");
    variant narrow = vary("qwen3-mixed");
    for (size_t i = 0; i < narrow.tensors.count; i++) {
        edit_tensor *t = &narrow.tensors.tensors[i];
        if (!is_scalar(t))
            continue;
        edit_to_bf16(t);
        size_t count = 0;
        float *value = edit_floats(t, &count);
        memcpy(rounded.tensors.tensors[i].data, value, sizeof(*value));
        free(value);
    }
    edit_write(rounded.weights, &rounded.tensors, 0);
    edit_write(narrow.weights, &narrow.tensors, 0);
    same_logits(&narrow, rounded.folder, narrow.folder, SERVED_DECLARED);
    forget(&rounded);
    forget(&narrow);
}

/* Norms, biases, routers, the embedding and whole layers: whatever is BF16. */
static void unquantized_numbers_may_be_f32_or_f16(void **state)
{
    (void)state;
    static const char *const of[] = {"qwen3-dense-mixed", "glm4-mixed"};
    for (int f = 0; f < 4; f++) {
        variant v = vary(of[f % 2]);
        int vectors = 0;
        for (size_t i = 0; i < v.tensors.count; i++) {
            edit_tensor *t = &v.tensors.tensors[i];
            if (strcmp(t->dtype, "BF16") != 0)
                continue;
            bool changed = true;
            if (f < 2)
                edit_to_f32(t);
            else
                changed = edit_to_f16(t);
            vectors += changed && t->rank == 1;
        }
        assert_true(vectors > 5);
        edit_write(v.weights, &v.tensors, 0);
        keeps_every_bit(&v);
        forget(&v);
    }
}

/* Deals the tensors to three files; an odd header makes every payload unaligned. */
static void write_shards(const variant *v, const char *const *names, const edit_list *shards)
{
    tsr_text index = {0};
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&index, "{\"metadata\":{},\"weight_map\":{"));
    const char *comma = "";
    for (int s = 0; s < 3; s++) {
        char path[PATH_MAX];
        edit_path(v->folder, names[s], sizeof(path), path);
        edit_write(path, &shards[s], 1 + s);
        for (size_t i = 0; i < shards[s].count; i++, comma = ",")
            ASSERT_STATUS(TSR_OK, tsr_text_add_format(&index, "%s\"%s\":\"%s\"", comma,
                                                      shards[s].tensors[i].name, names[s]));
    }
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&index, "}}"));
    char path[PATH_MAX];
    edit_path(v->folder, "model.safetensors.index.json", sizeof(path), path);
    edit_write_text(path, index.bytes);
    tsr_text_close(&index);
}

static void shards_give_the_same_bits(void **state)
{
    (void)state;
    static const char *const names[] = {"model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    variant v = vary("glm4-mixed");
    edit_list shards[3] = {{0}};
    for (size_t i = 0; i < v.tensors.count; i++)
        edit_add(&shards[i % 3], &v.tensors.tensors[i], v.tensors.tensors[i].name);
    write_shards(&v, names, shards);
    assert_int_equal(unlink(v.weights), 0);
    keeps_every_bit(&v);
    for (int s = 0; s < 3; s++)
        edit_close(&shards[s]);
    forget(&v);
}

static void the_order_of_tensors_in_a_file_changes_no_bit(void **state)
{
    (void)state;
    variant v = vary("qwen3-mixed");
    edit_list backwards = {0};
    for (size_t i = v.tensors.count; i > 0; i--)
        edit_add(&backwards, &v.tensors.tensors[i - 1], v.tensors.tensors[i - 1].name);
    edit_write(v.weights, &backwards, 0);
    keeps_every_bit(&v);
    edit_close(&backwards);
    forget(&v);
}

/* A layer beyond the last: what GLM checkpoints keep their multi-token prediction in. */
static void add_prediction_layer(const variant *v, edit_list *to)
{
    static const char last[] = "model.layers.3.";
    for (size_t i = 0, n = v->tensors.count; i < n; i++) {
        const edit_tensor *t = &v->tensors.tensors[i];
        char name[EDIT_NAME_BYTES];
        if (strncmp(t->name, last, strlen(last)) != 0)
            continue;
        assert_true(snprintf(name, sizeof(name), "model.layers.4.%s", t->name + strlen(last)) <
                    EDIT_NAME_BYTES);
        edit_add(to, &v->tensors.tensors[i], name);
    }
    edit_add(to, edit_find(&v->tensors, "model.norm.weight"), "model.layers.4.enorm.weight");
    edit_add(to, edit_find(&v->tensors, "model.norm.weight"), "model.layers.4.hnorm.weight");
    edit_add(to, edit_find(&v->tensors, "model.embed_tokens.weight"),
             "model.layers.4.embed_tokens.weight");
}

static void prediction_layers_in_the_file_change_no_bit(void **state)
{
    (void)state;
    variant v = vary("glm4-bf16");
    add_prediction_layer(&v, &v.tensors);
    edit_write(v.weights, &v.tensors, 0);
    keeps_every_bit(&v);
    forget(&v);
}

static void prediction_layers_in_a_file_of_their_own_change_no_bit(void **state)
{
    (void)state;
    variant v = vary("glm4-mixed");
    edit_list aside = {0};
    char path[PATH_MAX];
    add_prediction_layer(&v, &aside);
    edit_path(v.folder, "mtp.safetensors", sizeof(path), path);
    edit_write(path, &aside, 0);
    keeps_every_bit(&v);
    edit_close(&aside);
    forget(&v);
}

static void declared_block_scales_keep_the_weights_of_weight_only_blocks(void **state)
{
    (void)state;
    variant v = vary("qwen3-fp8-block");
    declare_again(&v, "fp8_pb_wo", "FP8_BLOCK_SCALES");
    same_logits(&v, v.original, v.folder, SERVED_WEIGHT_ONLY);
    forget(&v);
}

static definition block_definition(const variant *v)
{
    return (definition){
        .tensors = v->tensors,
        .layers = 2,
        .hidden = 256,
        .q_heads = 4,
        .kv_heads = 2,
        .head_dim = 32,
        .experts = 8,
        .top_k = 2,
        .vocab = 512,
        .eps = 1e-6,
        .theta = 1e6,
    };
}

/* float32 against double: 1e-5 of the largest logit leaves room for 2 layers of sums over 256. With
 * quantized activations the limit is that of test_fixture_parity.c. */
static void against_definition(const variant *v, served_mode mode, const definition *d,
                               double limit)
{
    served_sequence sequences[2];
    run_pair(v, v->folder, mode, sequences);
    const size_t values = (size_t)v->e.count[0] * (size_t)v->e.vocab;
    float *logits = definition_logits(d, v->e.tokens[0], v->e.count[0]);
    const double distance = served_distance(sequences[0].logits, logits, values);
    print_message("definition in double, %s: %.1e\n", served_mode_name(mode), distance);
    assert_true(distance <= limit);
    free(logits);
    served_free(sequences, 2);
}

static void declared_block_scales_quantize_groups_of_128(void **state)
{
    (void)state;
    variant v = vary("qwen3-fp8-block");
    definition d = block_definition(&v);
    declare_again(&v, "fp8_pb_wo", "FP8_BLOCK_SCALES");
    against_definition(&v, SERVED_WEIGHT_ONLY, &d, 1e-5);
    d.group_activations = true;
    against_definition(&v, SERVED_DECLARED, &d, 1e-3);
    against_definition(&v, SERVED_HOPPER, &d, 1e-3);
    forget(&v);
}

/* Large enough to be felt in every norm, the heads' too. */
static void eps_and_theta_are_those_of_the_config(void **state)
{
    (void)state;
    variant v = vary("qwen3-fp8-block");
    definition d = block_definition(&v);
    char config[PATH_MAX];
    edit_path(v.folder, "config.json", sizeof(config), config);
    edit_replace_text(config, "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 0.1");
    edit_replace_text(config, "\"rope_theta\": 1000000.0", "\"rope_theta\": 100.0");
    d.eps = 0.1;
    d.theta = 100;
    against_definition(&v, SERVED_WEIGHT_ONLY, &d, 1e-5);
    forget(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uniform_and_mixed_alike_give_the_same_bits),
        cmocka_unit_test(another_spelling_of_an_algorithm_changes_no_bit),
        cmocka_unit_test(inverse_names_and_scales_of_rank_2_change_no_bit),
        cmocka_unit_test(a_head_in_fp8_has_the_logits_of_its_values),
        cmocka_unit_test(scalars_of_shape_1_change_no_bit),
        cmocka_unit_test(scalars_in_bf16_mean_the_same_numbers),
        cmocka_unit_test(unquantized_numbers_may_be_f32_or_f16),
        cmocka_unit_test(shards_give_the_same_bits),
        cmocka_unit_test(the_order_of_tensors_in_a_file_changes_no_bit),
        cmocka_unit_test(prediction_layers_in_the_file_change_no_bit),
        cmocka_unit_test(prediction_layers_in_a_file_of_their_own_change_no_bit),
        cmocka_unit_test(declared_block_scales_keep_the_weights_of_weight_only_blocks),
        cmocka_unit_test(declared_block_scales_quantize_groups_of_128),
        cmocka_unit_test(eps_and_theta_are_those_of_the_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
