/* What the files of a checkpoint say, through the built program: it changes the answer as it should,
 * or it is refused by name. */
#include "tests/launch/command.h"
#include "tests/model/safetensors_edit.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 512 };

static char folder[PATH_BYTES];

static void use_copy(const char *name)
{
    char from[PATH_BYTES];
    (void)snprintf(from, sizeof(from), "%s/%s", TSR_TEST_DATA, name);
    edit_copy_folder(from, sizeof(folder), folder);
}

static const char *file_of(const char *name)
{
    static char path[2 * PATH_BYTES];
    edit_path(folder, name, sizeof(path), path);
    return path;
}

/* One number of a BF16 tensor. */
static void set_bf16(const char *name, size_t at, uint16_t bits)
{
    edit_list list = edit_read(file_of("model.safetensors"));
    memcpy(edit_find(&list, name)->data + 2 * at, &bits, sizeof(bits));
    edit_write(file_of("model.safetensors"), &list, 0);
    edit_close(&list);
}

/* Whoever has token 5 last gets an infinite logit: its embedding is one large number, and a row of
 * the head takes that times 5e37. */
static void make_token_5_overflow(const char *name)
{
    enum { HIDDEN_OF_QWEN3 = 128, HIDDEN_OF_DEMO = 256, AT = 3 };
    const size_t hidden = strcmp(name, "demo-mixed") == 0 ? HIDDEN_OF_DEMO : HIDDEN_OF_QWEN3;
    use_copy(name);
    set_bf16("model.embed_tokens.weight", 5 * hidden + AT, 0x461c);
    set_bf16("lm_head.weight", 7 * hidden + AT, 0x7e16);
}

static void a_sequence_whose_logits_are_not_finite_fails_alone_in_score(void **state)
{
    (void)state;
    make_token_5_overflow("qwen3-bf16");
    edit_write_text(scratch_path("tokens"), "[[1, 2, 3], [4, 5], [9, 8], [5]]");
    for (int ranks = 1; ranks <= 2; ranks++) {
        assert_int_equal(run_command_line("%s score %s --tokens %s --out %s --local-ranks %d",
                                          TSR_PROGRAM, folder, scratch_path("tokens"),
                                          scratch_path("logits"), ranks),
                         3);
        assert_said("err", "sequence 1: position 1: the logit of id 7 is NaN or infinite");
        assert_said("err", "sequence 3: position 0: the logit of id 7 is NaN or infinite");
        assert_said("err", "2 of 4 sequences");
        assert_error_lines(3);
        edit_list list = edit_read(scratch_path("logits"));
        assert_int_equal(list.count, 4);
        assert_string_equal(list.tensors[0].name, "logits.0");
        assert_string_equal(list.tensors[1].name, "failed.1");
        assert_string_equal(list.tensors[2].name, "logits.2");
        assert_string_equal(list.tensors[3].name, "failed.3");
        edit_close(&list);
    }
    edit_remove_folder(folder);
}

static void a_sequence_without_a_next_token_fails_alone_in_run(void **state)
{
    (void)state;
    make_token_5_overflow("demo-mixed");
    edit_write_text(scratch_path("in"),
                    "{\"custom_id\":\"good\",\"body\":{\"prompt\":[9,8],\"max_tokens\":2}}\n"
                    "{\"custom_id\":\"bad\",\"body\":{\"prompt\":[4,5],\"max_tokens\":2}}\n"
                    "{\"custom_id\":\"stuck\",\"body\":{\"prompt\":[9,8],\"max_tokens\":4,"
                    "\"allowed_token_ids\":[1878],\"min_tokens\":2}}\n");
    assert_int_equal(run_command_line("%s run %s --input %s --output %s", TSR_PROGRAM, folder,
                                      scratch_path("in"), scratch_path("out.jsonl")),
                     0);
    char *answers = read_whole(scratch_path("out.jsonl"), NULL);
    const char *bad = strstr(answers, "\"custom_id\":\"bad\",\"response\":null");
    assert_non_null(bad);
    assert_non_null(strstr(bad, "\"code\":\"not_finite\""));
    assert_non_null(strstr(bad, "\"status_code\":500"));
    const char *stuck = strstr(answers, "\"custom_id\":\"stuck\",\"response\":null");
    assert_non_null(stuck);
    assert_non_null(strstr(stuck, "\"code\":\"no_token_left\""));
    assert_non_null(strstr(stuck, "\"status_code\":400"));
    assert_non_null(strstr(answers, "\"custom_id\":\"good\",\"response\":{"));
    free(answers);
    edit_remove_folder(folder);
}

static void an_answer_ends_at_the_token_that_only_the_tokenizers_file_names(void **state)
{
    (void)state;
    use_copy("demo-mixed");
    edit_replace_text(file_of("generation_config.json"), "1878,", "");
    edit_replace_text(file_of("config.json"), "1878", "1876");
    assert_int_equal(run_command_line("%s run %s --chat 'What is 12 + 30?' --max-tokens 60",
                                      TSR_PROGRAM, folder),
                     0);
    char *answer = read_whole(scratch_path("out"), NULL);
    assert_string_equal(answer, "42\n");
    free(answer);

    edit_replace_text(file_of("tokenizer_config.json"), "<|im_end|>", "<|nowhere|>");
    assert_int_equal(run_command_line("%s run %s --chat hello", TSR_PROGRAM, folder), 3);
    assert_said("err", "eos_token: \"<|nowhere|>\" is no token of tokenizer.json");
    edit_replace_text(file_of("tokenizer_config.json"), "\"eos_token\"",
                      "\"add_bos_token\": true, \"eos_token\"");
    assert_int_equal(run_command_line("%s run %s --chat hello", TSR_PROGRAM, folder), 3);
    assert_said("err", "add_bos_token: true is not served");
    edit_remove_folder(folder);
}

static void sampling_defaults_that_are_not_served_are_refused_and_can_be_left_out(void **state)
{
    (void)state;
    use_copy("demo-mixed");
    edit_replace_text(file_of("generation_config.json"), "\"do_sample\"",
                      "\"typical_p\": 0.5, \"num_beams\": 3, \"do_sample\"");
    assert_int_equal(run_command_line("%s run %s --prompt a --max-tokens 2", TSR_PROGRAM, folder),
                     3);
    assert_said("err", "typical_p 0.5, num_beams 3");
    assert_said("err", "--generation-config none");
    assert_error_lines(1);
    assert_int_equal(run_command_line("%s run %s --prompt a --max-tokens 2 --temperature 0 "
                                      "--generation-config none",
                                      TSR_PROGRAM, folder),
                     0);
    edit_write_text(scratch_path("tokens"), "[[1, 2, 3]]");
    assert_int_equal(run_command_line("%s score %s --tokens %s --out %s", TSR_PROGRAM, folder,
                                      scratch_path("tokens"), scratch_path("logits")),
                     0);
    assert_said("err", "warning: generation_config.json: typical_p 0.5");
    edit_remove_folder(folder);
}

static void a_completion_gets_what_the_post_processor_puts_in_front(void **state)
{
    (void)state;
    use_copy("demo-mixed");
    edit_replace_text(file_of("tokenizer.json"), "\"single\": [",
                      "\"single\": [{\"SpecialToken\": {\"id\": \"<|im_start|>\"}},");
    edit_replace_text(file_of("tokenizer.json"), "\"special_tokens\": {}",
                      "\"special_tokens\": {\"<|im_start|>\": {\"ids\": [1877]}}");
    assert_int_equal(run_command_line("%s run %s --prompt 'What is 12 + 30?' --max-tokens 4",
                                      TSR_PROGRAM, folder),
                     0);
    assert_said("err", "1 request, 11 prompt");
    assert_int_equal(
        run_command_line("%s run %s --chat 'What is 12 + 30?' --max-tokens 4", TSR_PROGRAM, folder),
        0);
    assert_said("err", "1 request, 18 prompt");
    edit_write_text(scratch_path("in"), "{\"custom_id\":\"a\",\"body\":{\"prompt\":\"What is 12 + "
                                        "30?\",\"add_special_tokens\":false}}\n");
    assert_int_equal(run_command_line("%s run %s --input %s --output %s", TSR_PROGRAM, folder,
                                      scratch_path("in"), scratch_path("out.jsonl")),
                     0);
    assert_said("err", "1 request, 10 prompt");
    edit_remove_folder(folder);
}

static void a_number_beyond_64_bits_matters_only_where_it_is_read(void **state)
{
    (void)state;
    use_copy("demo-mixed");
    edit_replace_text(file_of("tokenizer_config.json"), "2048", "1000000000000000019884624838656");
    assert_int_equal(run_command_line("%s run %s --chat 'What is 12 + 30?'", TSR_PROGRAM, folder),
                     0);
    edit_replace_text(file_of("config.json"), "\"max_position_embeddings\": ",
                      "\"max_position_embeddings\": 99999999999999999999");
    assert_int_equal(run_command_line("%s run %s --chat hello", TSR_PROGRAM, folder), 3);
    assert_said("err", "config.json: max_position_embeddings: is not a whole number");
    edit_remove_folder(folder);
}

/* Puts what all experts of a layer have of some projections into one tensor. */
static void fuse(edit_list *list, int layer, const char *const *parts, int part_count,
                 const char *fused)
{
    enum { EXPERTS = 8 };
    unsigned char *data = NULL;
    size_t bytes = 0;
    int64_t rows = 0;
    int64_t columns = 0;

    for (int piece = 0; piece < EXPERTS * part_count; piece++) {
        char name[EDIT_NAME_BYTES];
        (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts.%d.%s.weight", layer,
                       piece / part_count, parts[piece % part_count]);
        const edit_tensor *t = edit_find(list, name);
        data = realloc(data, bytes + t->bytes);
        assert_non_null(data);
        memcpy(data + bytes, t->data, t->bytes);
        bytes += t->bytes;
        rows += t->shape[0];
        columns = t->shape[1];
        if (piece == EXPERTS * part_count - 1) {
            char whole[EDIT_NAME_BYTES];
            (void)snprintf(whole, sizeof(whole), "model.layers.%d.mlp.experts.%s", layer, fused);
            edit_add(list, t, whole);
            edit_tensor *last = edit_find(list, whole);
            free(last->data);
            last->data = data;
            last->bytes = bytes;
            last->rank = 3;
            last->shape[0] = EXPERTS;
            last->shape[1] = rows / EXPERTS;
            last->shape[2] = columns;
        }
        edit_remove(list, name);
    }
}

static void fuse_all(void)
{
    static const char *const up[] = {"gate_proj", "up_proj"};
    static const char *const down[] = {"down_proj"};
    edit_list list = edit_read(file_of("model.safetensors"));
    for (int layer = 0; layer < 4; layer++) {
        fuse(&list, layer, up, 2, "gate_up_proj");
        fuse(&list, layer, down, 1, "down_proj");
    }
    edit_write(file_of("model.safetensors"), &list, 0);
    edit_close(&list);
}

static void experts_fused_into_one_tensor_are_served_or_refused_by_name(void **state)
{
    (void)state;
    static const char score[] = "%s score %s --tokens %s --out %s --local-ranks %d";
    size_t bytes = 0;
    use_copy("qwen3-bf16");
    edit_write_text(scratch_path("tokens"), "[[1, 2, 3], [4, 5]]");
    assert_int_equal(run_command_line(score, TSR_PROGRAM, folder, scratch_path("tokens"),
                                      scratch_path("apart"), 1),
                     0);
    char *apart = read_whole(scratch_path("apart"), &bytes);
    fuse_all();
    for (int ranks = 1; ranks <= 2; ranks++) {
        assert_int_equal(run_command_line(score, TSR_PROGRAM, folder, scratch_path("tokens"),
                                          scratch_path("fused"), ranks),
                         0);
        size_t fused_bytes = 0;
        char *fused = read_whole(scratch_path("fused"), &fused_bytes);
        assert_int_equal(bytes, fused_bytes);
        assert_memory_equal(apart, fused, bytes);
        free(fused);
    }
    free(apart);

    edit_list list = edit_read(file_of("model.safetensors"));
    edit_tensor *t = edit_find(&list, "model.layers.1.mlp.experts.gate_up_proj");
    t->shape[2] /= 2;
    t->shape[1] *= 2;
    t = edit_find(&list, "model.layers.2.mlp.experts.down_proj");
    (void)snprintf(t->dtype, sizeof(t->dtype), "U8");
    t->shape[2] *= 2;
    edit_write(file_of("model.safetensors"), &list, 0);
    edit_close(&list);
    assert_int_equal(run_command_line("%s inspect %s", TSR_PROGRAM, folder), 3);
    assert_said("out", "model.layers.1.mlp.experts.gate_up_proj\": holds all experts of a layer");
    assert_said("out",
                "model.layers.2.mlp.experts.down_proj\": holds all experts of a layer in U8");
    edit_remove_folder(folder);
}

/* All eight ranks read the embedding, at the same time. */
static void what_every_rank_finds_while_loading_is_not_said_by_all_of_them(void **state)
{
    enum { RANKS = 8, MOST_LINES = 4 };
    (void)state;
    use_copy("qwen3-bf16");
    set_bf16("model.embed_tokens.weight", 7, 0x7fc0);
    edit_write_text(scratch_path("tokens"), "[[1, 2, 3]]");
    assert_int_equal(run_command_line("%s score %s --tokens %s --out %s --local-ranks %d",
                                      TSR_PROGRAM, folder, scratch_path("tokens"),
                                      scratch_path("logits"), RANKS),
                     3);
    assert_said("err", "model.embed_tokens.weight in model.safetensors: holds NaN");
    char *said = read_whole(scratch_path("err"), NULL);
    int lines = 0;
    for (const char *at = strstr(said, "error: "); at != NULL; at = strstr(at + 1, "error: "))
        lines++;
    assert_in_range(lines, 1, MOST_LINES);
    free(said);
    edit_remove_folder(folder);
}

static void a_refusal_says_what_was_found(void **state)
{
    (void)state;
    static const char score[] = "%s score %s --tokens %s --out %s";
    char path[2 * PATH_BYTES];
    use_copy("qwen3-fp8-block");
    edit_write_text(scratch_path("tokens"), "[[1, 2, 3], [4, 5]]");
    edit_list list = edit_read(file_of("model.safetensors"));
    for (size_t i = 0; i < list.count; i++) {
        edit_tensor *t = &list.tensors[i];
        if (strstr(t->name, "layers.0.mlp.experts.3.up_proj.weight_scale") == NULL)
            continue;
        (void)snprintf(t->dtype, sizeof(t->dtype), "F8_E8M0");
        t->bytes /= sizeof(float);
    }
    edit_write(file_of("model.safetensors"), &list, 0);
    edit_close(&list);
    assert_int_equal(run_command_line(score, TSR_PROGRAM, folder, scratch_path("tokens"),
                                      scratch_path("logits")),
                     3);
    assert_said("err", "experts.3.up_proj.weight_scale is F8_E8M0 [");
    assert_said("err", "FP8 with E8M0 scales");
    assert_error_lines(1);

    (void)snprintf(path, sizeof(path), "%s", file_of("model-00001-of-00002.safetensors"));
    assert_int_equal(rename(file_of("model.safetensors"), path), 0);
    assert_int_equal(run_command_line(score, TSR_PROGRAM, folder, scratch_path("tokens"),
                                      scratch_path("logits")),
                     3);
    assert_said("err",
                "has model-00001-of-00002.safetensors, but not model.safetensors.index.json");
    assert_error_lines(1);
    edit_remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_whose_logits_are_not_finite_fails_alone_in_score),
        cmocka_unit_test(a_sequence_without_a_next_token_fails_alone_in_run),
        cmocka_unit_test(a_completion_gets_what_the_post_processor_puts_in_front),
        cmocka_unit_test(a_number_beyond_64_bits_matters_only_where_it_is_read),
        cmocka_unit_test(experts_fused_into_one_tensor_are_served_or_refused_by_name),
        cmocka_unit_test(what_every_rank_finds_while_loading_is_not_said_by_all_of_them),
        cmocka_unit_test(a_refusal_says_what_was_found),
        cmocka_unit_test(an_answer_ends_at_the_token_that_only_the_tokenizers_file_names),
        cmocka_unit_test(sampling_defaults_that_are_not_served_are_refused_and_can_be_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
