/* Whole folders: the fixtures, shards and their index, files that disagree, layers of further
 * prediction, files of released size. */
#include "tests/test.h"

#include "runtime/checkpoint/checkpoint.h"
#include "tests/checkpoint/temp_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TENSORS = 1000 };

static const char first_shard[] = "model-00001-of-00002.safetensors";
static const char second_shard[] = "model-00002-of-00002.safetensors";
static const char index_name[] = "model.safetensors.index.json";

/* A copy of a fixture, what opening it gave, and where to look at it. */
typedef struct opened {
    tsr_checkpoint *checkpoint;
    tsr_problems problems;
    tsr_status status;
} opened;

static opened open_folder(const char *path)
{
    opened o = {0};
    o.status = tsr_checkpoint_open(path, &o.problems, &o.checkpoint);
    assert_int_equal(o.status == TSR_OK, o.checkpoint != NULL);
    return o;
}

static void close_opened(opened *o)
{
    tsr_checkpoint_close(o->checkpoint);
    tsr_problems_close(&o->problems);
}

static void assert_opens(const temp_folder *folder)
{
    opened o = open_folder(folder->path);
    if (o.status != TSR_OK || o.problems.count > 0)
        fail_msg("%s", o.problems.count > 0 ? o.problems.items[0].text : "no problem given");
    close_opened(&o);
}

/* Refused, with exactly this many errors, one of which holds both texts. */
static void assert_refused(const temp_folder *folder, size_t errors, const char *one,
                           const char *two)
{
    opened o = open_folder(folder->path);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, o.status);
    if (o.problems.errors != errors || !has_problem(&o.problems, TSR_SEVERITY_ERROR, one, two))
        fail_msg("wanted %zu of %s / %s, got %zu: %s", errors, one, two != NULL ? two : "",
                 o.problems.errors, o.problems.count > 0 ? o.problems.items[0].text : "nothing");
    close_opened(&o);
}

static void every_fixture_opens_without_a_problem(void **state)
{
    static const char *const names[] = {
        "demo-mixed",         "glm4-air-mixed",       "glm4-bf16",
        "glm4-mixed",         "glm4-mixed-keys",      "glm4-nvfp4",
        "qwen3-bf16",         "qwen3-dense-mixed",    "qwen3-fp8",
        "qwen3-fp8-block",    "qwen3-fp8-pc-pt",      "qwen3-mixed",
        "qwen3-mixed-keys",   "qwen3-nvfp4",          "qwen3-nvfp4-awq",
        "qwen3-nvfp4-kv-fp8", "qwen3-mixed-unsynced",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        temp_folder folder;
        (void)snprintf(folder.path, sizeof(folder.path), "%s/%s", TSR_TEST_DATA, names[i]);
        assert_opens(&folder);
    }
}

static void the_other_declarations_of_one_fixture_open_too(void **state)
{
    static const char *const forms[] = {"as-block", "as-keys"};
    static const char *const files[] = {"config.json", "hf_quant_config.json"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const temp_folder folder = temp_folder_copy("qwen3-nvfp4");
        temp_folder form;
        (void)snprintf(form.path, sizeof(form.path), "%s/qwen3-nvfp4/%s", TSR_TEST_DATA, forms[i]);
        for (size_t k = 0; k < 2; k++) {
            json_t *json = temp_read_json(&form, files[k]);
            temp_write_json(&folder, files[k], json);
            json_decref(json);
        }
        assert_opens(&folder);
        temp_folder_close(&folder);
    }
}

static void tensors_are_found_by_name(void **state)
{
    temp_folder folder;
    (void)state;
    (void)snprintf(folder.path, sizeof(folder.path), "%s/glm4-mixed", TSR_TEST_DATA);
    opened o = open_folder(folder.path);
    assert_non_null(o.checkpoint);
    const tsr_checkpoint *c = o.checkpoint;

    assert_string_equal(folder.path, c->folder);
    assert_int_equal(1, c->file_count);
    assert_string_equal("model.safetensors", c->files[0]);
    assert_int_equal(306, c->tensor_count);
    const tsr_tensor *t = tsr_checkpoint_find(c, "model.layers.1.mlp.gate.e_score_correction_bias");
    assert_non_null(t);
    assert_int_equal(TSR_DTYPE_F32, t->dtype);
    assert_int_equal(1, t->rank);
    assert_int_equal(8, t->shape[0]);
    assert_true(t->offset + t->bytes <= c->marks[t->file].bytes);
    assert_null(tsr_checkpoint_find(c, "model.layers.0.mlp.gate.weight"));
    assert_null(tsr_checkpoint_find(c, ""));
    assert_int_equal(2, c->model.eos_count);
    assert_true(c->declared.mixed);
    close_opened(&o);
}

/* The tensors of a fixture as its own file has them, without their bytes. */
typedef struct listing {
    tsr_checkpoint *checkpoint;
    temp_tensor tensors[MOST_TENSORS];
    char shapes[MOST_TENSORS][64];
    size_t count;
} listing;

static listing *listing_open(const char *name)
{
    listing *l = calloc(1, sizeof(*l));
    tsr_problems problems = {0};
    temp_folder folder;
    assert_non_null(l);
    (void)snprintf(folder.path, sizeof(folder.path), "%s/%s", TSR_TEST_DATA, name);
    ASSERT_STATUS(TSR_OK, tsr_checkpoint_open(folder.path, &problems, &l->checkpoint));
    l->count = l->checkpoint->tensor_count;
    assert_true(l->count < MOST_TENSORS);
    for (size_t i = 0; i < l->count; i++) {
        const tsr_tensor *t = &l->checkpoint->tensors[i];
        json_t *shape = json_array();
        for (int32_t d = 0; d < t->rank; d++)
            assert_int_equal(0, json_array_append_new(shape, json_integer(t->shape[d])));
        char *text = json_dumps(shape, 0);
        assert_non_null(text);
        (void)snprintf(l->shapes[i], sizeof(l->shapes[i]), "%s", text);
        free(text);
        json_decref(shape);
        l->tensors[i] = (temp_tensor){t->name, tsr_dtype_name(t->dtype), l->shapes[i], t->bytes};
    }
    return l;
}

static void listing_close(listing *l)
{
    tsr_checkpoint_close(l->checkpoint);
    free(l);
}

/* {"weight_map": ...} for the first tensors in one shard and the others in the second. */
static json_t *index_of(const listing *l, size_t in_first)
{
    json_t *map = json_object();
    for (size_t i = 0; i < l->count; i++) {
        const char *file = i < in_first ? first_shard : second_shard;
        assert_int_equal(0, json_object_set_new(map, l->tensors[i].name, json_string(file)));
    }
    return json_pack("{s:{}, s:o}", "metadata", "weight_map", map);
}

/* A fixture's tensors over two shards. */
static temp_folder shard(const char *name, const listing *l, size_t in_first)
{
    const temp_folder folder = temp_folder_copy(name);
    temp_remove(&folder, "model.safetensors");
    temp_write_safetensors(&folder, first_shard, l->tensors, in_first);
    temp_write_safetensors(&folder, second_shard, l->tensors + in_first, l->count - in_first);
    json_t *index = index_of(l, in_first);
    temp_write_json(&folder, index_name, index);
    json_decref(index);
    return folder;
}

static json_t *map_of(json_t *index)
{
    return json_object_get(index, "weight_map");
}

static void shards_give_the_tensors_of_the_single_file(void **state)
{
    listing *l = listing_open("qwen3-mixed");
    const temp_folder folder = shard("qwen3-mixed", l, 200);
    opened o = open_folder(folder.path);
    (void)state;

    ASSERT_STATUS(TSR_OK, o.status);
    assert_int_equal(2, o.checkpoint->file_count);
    assert_int_equal(l->count, o.checkpoint->tensor_count);
    for (size_t i = 0; i < l->count; i++) {
        const tsr_tensor *t = &o.checkpoint->tensors[i];
        assert_string_equal(l->tensors[i].name, t->name);
        assert_int_equal(l->tensors[i].bytes, t->bytes);
        assert_string_equal(i < 200 ? first_shard : second_shard, o.checkpoint->files[t->file]);
    }
    close_opened(&o);
    temp_folder_close(&folder);
    listing_close(l);
}

static void a_missing_or_short_shard_is_named(void **state)
{
    listing *l = listing_open("qwen3-bf16");
    const temp_folder folder = shard("qwen3-bf16", l, 50);
    size_t count = 0;
    (void)state;

    char *bytes = temp_read(&folder, second_shard, &count);
    temp_write(&folder, second_shard, bytes, count - 2);
    assert_refused(&folder, 1, second_shard, "truncated");
    temp_write(&folder, second_shard, bytes, 100);
    assert_refused(&folder, 1, second_shard, "truncated");
    temp_write(&folder, second_shard, bytes, 0);
    assert_refused(&folder, 1, second_shard, "too few");
    free(bytes);
    temp_remove(&folder, second_shard);
    assert_refused(&folder, 1, second_shard, "No such file");
    temp_remove(&folder, first_shard);
    assert_refused(&folder, 2, first_shard, "No such file");
    temp_folder_close(&folder);
    listing_close(l);
}

static void index_and_files_must_agree(void **state)
{
    static const char lm_head[] = "lm_head.weight";
    listing *l = listing_open("qwen3-bf16");
    const temp_folder folder = shard("qwen3-bf16", l, 50);
    json_t *index = index_of(l, 50);
    json_t *map = map_of(index);
    (void)state;

    assert_int_equal(0, json_object_set_new(map, lm_head, json_string(second_shard)));
    temp_write_json(&folder, index_name, index);
    assert_refused(&folder, 1, "tensor \"lm_head.weight\": is in this file", second_shard);

    assert_int_equal(0, json_object_del(map, lm_head));
    temp_write_json(&folder, index_name, index);
    assert_refused(&folder, 1, "tensor \"lm_head.weight\": is not in model.safetensors.index.json",
                   first_shard);

    assert_int_equal(0, json_object_set_new(map, lm_head, json_string(first_shard)));
    assert_int_equal(0, json_object_set_new(map, "absent.weight", json_string(first_shard)));
    temp_write_json(&folder, index_name, index);
    assert_refused(&folder, 1, "tensor \"absent.weight\": is not in", first_shard);

    assert_int_equal(0, json_object_set_new(map, "absent.weight", json_string("third")));
    temp_write_json(&folder, index_name, index);
    assert_refused(&folder, 1, "third: cannot be read", NULL);
    json_decref(index);
    temp_folder_close(&folder);
    listing_close(l);
}

static void malformed_indexes_are_refused(void **state)
{
    static const struct {
        const char *text;
        const char *said;
    } rows[] = {
        {"{}", "weight_map is missing"},
        {"[]", "is not a JSON object"},
        {"{\"weight_map\": []}", "weight_map is missing"},
        {"{\"weight_map\": {}}", "names 0 files"},
        {"{\"weight_map\": {\"a\": 1}}", "does not name a file"},
        {"{\"weight_map\": {\"a\": \"\"}}", "does not name a file"},
        {"{\"weight_map\": {\"a\": \"../model.safetensors\"}}", "does not name a file"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "does not name a file"},
        {"{\"weight_map\": {\"a\": \"..\"}}", "does not name a file"},
        {"{\"weight_map\": {\"a\": \"x\\u0000y\"}}", "does not name a file"},
        {"{\"weight_map\": {\"a\": \"x\", \"a\": \"x\"}}", "duplicate"},
    };
    const temp_folder folder = temp_folder_copy("qwen3-bf16");
    (void)state;
    temp_remove(&folder, "model.safetensors");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        temp_write_text(&folder, index_name, rows[i].text);
        assert_refused(&folder, 1, index_name, rows[i].said);
    }
    temp_folder_close(&folder);
}

static void a_tensor_in_two_files_is_refused(void **state)
{
    listing *l = listing_open("qwen3-bf16");
    const temp_folder folder = shard("qwen3-bf16", l, 50);
    (void)state;
    /* the second shard begins one tensor earlier */
    temp_write_safetensors(&folder, second_shard, l->tensors + 49, l->count - 49);
    json_t *index = index_of(l, 50);
    temp_write_json(&folder, index_name, index);
    assert_refused(&folder, 1, l->tensors[49].name, second_shard);
    json_decref(index);
    temp_folder_close(&folder);
    listing_close(l);
}

/* A single file may have an index that names it; another index contradicts it. */
static void a_single_file_beside_an_index_must_be_in_it(void **state)
{
    listing *l = listing_open("qwen3-bf16");
    const temp_folder sharded = shard("qwen3-bf16", l, 50);
    const temp_folder single = temp_folder_copy("qwen3-bf16");
    json_t *index = index_of(l, 0);
    (void)state;

    for (size_t i = 0; i < l->count; i++)
        assert_int_equal(0, json_object_set_new(map_of(index), l->tensors[i].name,
                                                json_string("model.safetensors")));
    temp_write_json(&single, index_name, index);
    assert_opens(&single);
    temp_write_safetensors(&sharded, "model.safetensors", l->tensors, l->count);
    assert_refused(&sharded, 1, "model.safetensors: stands beside", "remove one");
    json_decref(index);
    temp_folder_close(&single);
    temp_folder_close(&sharded);
    listing_close(l);
}

/* Layer 4 of a model of 4 layers: in the index, out of it, in a file of its own. */
static void layers_of_further_prediction_may_stand_anywhere(void **state)
{
    static const temp_tensor extra[] = {
        {"model.layers.4.enorm.weight", "BF16", "[128]", 256},
        {"model.layers.4.mlp.experts.0.up_proj.weight", "BF16", "[64, 128]", 16384},
    };
    listing *l = listing_open("glm4-mixed");
    const temp_folder folder = shard("glm4-mixed", l, 100);
    json_t *index = index_of(l, 100);
    (void)state;

    temp_write_safetensors(&folder, "mtp.safetensors", extra, 2);
    opened side = open_folder(folder.path);
    ASSERT_STATUS(TSR_OK, side.status);
    assert_int_equal(l->count, side.checkpoint->tensor_count);
    close_opened(&side);

    assert_int_equal(
        0, json_object_set_new(map_of(index), extra[0].name, json_string("mtp.safetensors")));
    temp_write_json(&folder, index_name, index);
    opened half = open_folder(folder.path);
    ASSERT_STATUS(TSR_OK, half.status);
    assert_int_equal(3, half.checkpoint->file_count);
    assert_int_equal(l->count + 2, half.checkpoint->tensor_count);
    assert_non_null(tsr_checkpoint_find(half.checkpoint, extra[0].name));
    close_opened(&half);
    json_decref(index);
    temp_folder_close(&folder);
    listing_close(l);
}

static void other_tensors_out_of_the_index_are_refused(void **state)
{
    static const temp_tensor extra[] = {{"model.layers.4.enorm.weight", "BF16", "[128]", 256}};
    listing *l = listing_open("qwen3-bf16");
    const temp_folder folder = shard("qwen3-bf16", l, 50);
    json_t *index = index_of(l, 50);
    (void)state;

    /* Qwen3 has no such layers, so an unlisted one is a defect */
    assert_int_equal(0,
                     json_object_set_new(map_of(index), l->tensors[0].name, json_string("extra")));
    temp_write_safetensors(&folder, "extra", extra, 1);
    temp_write_json(&folder, index_name, index);
    assert_refused(&folder, 2, "extra: tensor \"model.layers.4.enorm.weight\"", "is not in");
    json_decref(index);
    temp_folder_close(&folder);
    listing_close(l);
}

static void prefixes_of_tensor_names_are_stripped(void **state)
{
    static const temp_tensor tensors[] = {
        {"model.language_model.layers.0.mlp.gate.weight", "BF16", "[8, 128]", 2048},
        {"language_model.lm_head.weight", "BF16", "[512, 128]", 131072},
    };
    const temp_folder folder = temp_folder_copy("qwen3-bf16");
    (void)state;
    temp_write_safetensors(&folder, "model.safetensors", tensors, 2);
    opened o = open_folder(folder.path);
    ASSERT_STATUS(TSR_OK, o.status);
    assert_non_null(tsr_checkpoint_find(o.checkpoint, "model.layers.0.mlp.gate.weight"));
    assert_non_null(tsr_checkpoint_find(o.checkpoint, "lm_head.weight"));
    close_opened(&o);
    temp_folder_close(&folder);
}

static void missing_and_broken_files_are_named(void **state)
{
    const temp_folder folder = temp_folder_copy("qwen3-mixed");
    const temp_folder empty = temp_folder_open();
    (void)state;

    assert_refused(&empty, 2, "config.json: cannot be read", empty.path);
    assert_refused(&empty, 2, "has neither model.safetensors", empty.path);
    temp_folder_close(&empty);
    assert_refused(&empty, 1, empty.path, "give the folder");

    temp_write_text(&folder, "quant_cfg.json", "{}");
    assert_refused(&folder, 1, "quant_cfg.json: overlays", NULL);
    temp_remove(&folder, "quant_cfg.json");
    temp_write_text(&folder, "generation_config.json", "{");
    assert_refused(&folder, 1, "generation_config.json: line 1", "not valid JSON");
    temp_write_text(&folder, "generation_config.json", "[]");
    assert_refused(&folder, 1, "generation_config.json: is not a JSON object", NULL);
    temp_remove(&folder, "generation_config.json");
    assert_opens(&folder);
    temp_write_text(&folder, "hf_quant_config.json", "{\"a\": 1, \"a\": 2}");
    assert_refused(&folder, 1, "hf_quant_config.json: line 1", "duplicate");
    temp_remove(&folder, "hf_quant_config.json");
    assert_opens(&folder);
    temp_folder_close(&folder);
}

/* One bad file does not hide the others. */
static void defects_of_all_files_are_said_together(void **state)
{
    const temp_folder folder = temp_folder_copy("qwen3-mixed");
    (void)state;
    temp_patch(&folder, "config.json", "{\"hidden_act\": \"gelu\"}");
    temp_patch(&folder, "hf_quant_config.json", "{\"quantization\": {\"quant_algo\": \"FP8\"}}");
    temp_write_text(&folder, "model.safetensors", "xxxxxxxxxxxxxxxx");
    opened o = open_folder(folder.path);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, o.status);
    assert_int_equal(3, o.problems.errors);
    assert_true(has_problem(&o.problems, TSR_SEVERITY_ERROR, "hidden_act", "gelu"));
    assert_true(has_problem(&o.problems, TSR_SEVERITY_ERROR, "quantized_layers", "FP8"));
    assert_true(has_problem(&o.problems, TSR_SEVERITY_ERROR, "model.safetensors", "header"));
    close_opened(&o);
    temp_folder_close(&folder);
}

static void files_that_disagree_are_served_with_a_warning(void **state)
{
    const temp_folder folder = temp_folder_copy("qwen3-mixed");
    (void)state;
    temp_patch(&folder, "hf_quant_config.json",
               "{\"quantization\": {\"quantized_layers\": {\"model.layers.1.mlp.experts\": "
               "{\"quant_algo\": \"NVFP4\"}}}}");
    opened o = open_folder(folder.path);
    ASSERT_STATUS(TSR_OK, o.status);
    assert_int_equal(1, o.problems.count);
    assert_true(has_problem(&o.problems, TSR_SEVERITY_WARNING,
                            "first \"model.layers.1.mlp.experts\" (NVFP4, FP8)", NULL));
    close_opened(&o);

    temp_patch(&folder, "config.json", "{\"eos_token_id\": null}");
    temp_remove(&folder, "generation_config.json");
    opened endless = open_folder(folder.path);
    ASSERT_STATUS(TSR_OK, endless.status);
    assert_true(has_problem(&endless.problems, TSR_SEVERITY_WARNING, "eos_token_id", NULL));
    close_opened(&endless);
    temp_folder_close(&folder);
}

/* As transformers 5: what ties the head says nothing where a head is stored. */
static void a_stored_head_is_used_though_it_is_called_tied(void **state)
{
    const temp_folder folder = temp_folder_copy("qwen3-bf16");
    (void)state;
    temp_patch(&folder, "config.json", "{\"tie_word_embeddings\": true}");
    opened o = open_folder(folder.path);
    ASSERT_STATUS(TSR_OK, o.status);
    assert_false(o.checkpoint->model.tied_head);
    assert_true(has_problem(&o.problems, TSR_SEVERITY_NOTE, "tie_word_embeddings", "lm_head"));
    close_opened(&o);
    temp_folder_close(&folder);

    const temp_folder tied = temp_folder_copy("qwen3-dense-mixed");
    opened t = open_folder(tied.path);
    ASSERT_STATUS(TSR_OK, t.status);
    assert_true(t.checkpoint->model.tied_head);
    assert_int_equal(0, t.problems.count);
    close_opened(&t);
    temp_folder_close(&tied);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fixture_opens_without_a_problem),
        cmocka_unit_test(the_other_declarations_of_one_fixture_open_too),
        cmocka_unit_test(tensors_are_found_by_name),
        cmocka_unit_test(shards_give_the_tensors_of_the_single_file),
        cmocka_unit_test(a_missing_or_short_shard_is_named),
        cmocka_unit_test(index_and_files_must_agree),
        cmocka_unit_test(malformed_indexes_are_refused),
        cmocka_unit_test(a_tensor_in_two_files_is_refused),
        cmocka_unit_test(a_single_file_beside_an_index_must_be_in_it),
        cmocka_unit_test(layers_of_further_prediction_may_stand_anywhere),
        cmocka_unit_test(other_tensors_out_of_the_index_are_refused),
        cmocka_unit_test(prefixes_of_tensor_names_are_stripped),
        cmocka_unit_test(missing_and_broken_files_are_named),
        cmocka_unit_test(defects_of_all_files_are_said_together),
        cmocka_unit_test(files_that_disagree_are_served_with_a_warning),
        cmocka_unit_test(a_stored_head_is_used_though_it_is_called_tied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
