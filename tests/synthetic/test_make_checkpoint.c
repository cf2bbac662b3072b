/*
 * make_checkpoint as a user runs it: what it writes is proven by `inspect`, in every precision, and
 * `score` finds finite logits in it.
 */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, SEQUENCE = 8 };

static const char *const formats[] = {"bf16",      "fp8",   "fp8-channel",
                                      "fp8-block", "nvfp4", "w4a16-nvfp4"};
enum { FORMATS = sizeof(formats) / sizeof(formats[0]) };

static void make(const char *options, const char *folder)
{
    const int code =
        run_command_line("rm -rf %s && %s %s --out %s", folder, TSR_MAKER, options, folder);
    if (code != 0)
        assert_said("err", "exit code 0");
}

static json_t *inspect(const char *folder)
{
    if (run_command_line("%s inspect %s --json", TSR_PROGRAM, folder) != 0)
        assert_said("err", "exit code 0");
    json_t *json = json_load_file(scratch_path("out"), 0, NULL);
    assert_non_null(json);
    assert_true(json_is_true(json_object_get(json, "proven")));
    return json;
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* The standard deviation of all logits of one sequence, which must be finite. */
static double score(const char *folder)
{
    write_text(scratch_path("tokens.json"), "[[1, 2, 3, 104, 5, 406, 207, 8]]");
    if (run_command_line("%s score %s --tokens %s --out %s --log-level error", TSR_PROGRAM, folder,
                         scratch_path("tokens.json"), scratch_path("logits.safetensors")) != 0)
        assert_said("err", "exit code 0");

    size_t bytes = 0;
    char *text = read_whole(scratch_path("logits.safetensors"), &bytes);
    uint64_t header = 0;
    memcpy(&header, text, LENGTH_BYTES);
    const size_t first = LENGTH_BYTES + (size_t)header;
    const size_t count = (bytes - first) / sizeof(float);
    double squares = 0;
    assert_true(count > 0 && count % SEQUENCE == 0);
    for (size_t i = 0; i < count; i++) {
        float logit;
        memcpy(&logit, text + first + i * sizeof(logit), sizeof(logit));
        assert_true(isfinite(logit));
        squares += (double)logit * (double)logit;
    }
    free(text);
    return sqrt(squares / (double)count);
}

/* Logits are sums over 128 normed channels times weights of deviation 0.02: 0.02 * sqrt(128) = 0.23.
 * Saturation or a scale that is off by an octave would leave this range. */
static void every_precision_is_served(void **state)
{
    static const char *const shapes[] = {"tiny-qwen3", "tiny-glm4"};
    (void)state;
    for (size_t s = 0; s < 2; s++) {
        for (size_t f = 0; f < FORMATS; f++) {
            char options[256];
            (void)snprintf(
                options, sizeof(options),
                "--shape %s --precision experts=%s,attention=%s,shared=%s,dense=%s,head=%s",
                shapes[s], formats[f], formats[f], formats[f], formats[f], formats[f]);
            make(options, scratch_path("made"));
            json_decref(inspect(scratch_path("made")));
            const double deviation = score(scratch_path("made"));
            assert_true(deviation > 0.15 && deviation < 0.35);
        }
    }
}

static int64_t linears_of(const json_t *inspected, const char *algo)
{
    const json_t *rows = json_object_get(inspected, "formats");

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (strcmp(json_string_value(json_object_get(row, "algo")), algo) == 0)
            return json_integer_value(json_object_get(row, "linears"));
    }
    return 0;
}

/* GLM's first layer is dense, so that its 3 layers with experts take nvfp4, fp8, nvfp4. */
static void formats_take_turns_by_layer(void **state)
{
    (void)state;
    make("--shape tiny-qwen3 --precision experts=nvfp4,fp8", scratch_path("made"));
    json_t *qwen = inspect(scratch_path("made"));
    assert_int_equal(linears_of(qwen, "NVFP4"), 2 * 8 * 3);
    assert_int_equal(linears_of(qwen, "FP8"), 2 * 8 * 3);
    json_decref(qwen);

    make("--shape tiny-glm4 --precision experts=nvfp4,fp8,dense=fp8-block", scratch_path("made"));
    json_t *glm = inspect(scratch_path("made"));
    assert_int_equal(linears_of(glm, "NVFP4"), 2 * 8 * 3);
    assert_int_equal(linears_of(glm, "FP8"), 8 * 3);
    assert_int_equal(linears_of(glm, "FP8_BLOCK_SCALES"), 3);
    json_decref(glm);
}

static void layers_and_vocabulary_are_cut(void **state)
{
    (void)state;
    make("--shape tiny-qwen3 --layers 2 --vocab 300 --precision experts=fp8", scratch_path("made"));
    json_t *json = inspect(scratch_path("made"));
    assert_int_equal(linears_of(json, "FP8"), 2 * 8 * 3);
    json_decref(json);
    assert_int_equal(run_command_line("%s run %s --prompt 'a b' --max-tokens 4 --ignore-eos",
                                      TSR_PROGRAM, scratch_path("made")),
                     0);
    assert_int_equal(run_command_line("%s run %s --chat 'a b' --max-tokens 4", TSR_PROGRAM,
                                      scratch_path("made")),
                     0);
}

static void a_seed_decides_every_byte(void **state)
{
    static const char *const folders[] = {"seed1", "again", "seed2"};
    static const char *const seeds[] = {"1 --threads 1", "1 --threads 3", "2"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char options[128];
        (void)snprintf(options, sizeof(options),
                       "--shape tiny-qwen3 --precision experts=nvfp4 "
                       "--seed %s",
                       seeds[i]);
        make(options, scratch_path(folders[i]));
    }
    const char *folder = scratch_folder();
    assert_int_equal(run_command_line("diff -r %s/seed1 %s/again", folder, folder), 0);
    assert_int_equal(run_command_line("cmp %s/seed1/model-00001-of-00001.safetensors "
                                      "%s/seed2/model-00001-of-00001.safetensors",
                                      folder, folder),
                     1);
}

/* The scalar of one tensor of the checkpoint `inputs`, which has one file. */
static float number_of(const char *tensor)
{
    size_t bytes = 0;
    uint64_t header = 0;
    float number = 0;
    char *text = read_whole(scratch_path("inputs/model-00001-of-00001.safetensors"), &bytes);
    memcpy(&header, text, LENGTH_BYTES);
    json_t *json = json_loadb(text + LENGTH_BYTES, (size_t)header, 0, NULL);
    const json_t *offsets = json_object_get(json_object_get(json, tensor), "data_offsets");
    assert_non_null(offsets);
    const size_t at = (size_t)json_integer_value(json_array_get(offsets, 0));
    memcpy(&number, text + LENGTH_BYTES + header + at, sizeof(number));
    json_decref(json);
    free(text);
    return number;
}

#define EXPERT(layer, expert, linear)                                                              \
    "model.layers." #layer ".mlp.experts." #expert "." linear "_proj.input_scale"

/* As a calibration leaves them: one number for those that see the same rows. */
static void input_scales_belong_to_inputs(void **state)
{
    (void)state;
    make("--shape tiny-qwen3 --precision experts=fp8,attention=fp8", scratch_path("inputs"));
    const float gate = number_of(EXPERT(1, 2, "gate"));
    assert_true(gate > 0 && gate == number_of(EXPERT(1, 2, "up")));
    assert_true(gate != number_of(EXPERT(1, 2, "down")));
    assert_true(gate != number_of(EXPERT(1, 1, "gate")));
    assert_true(gate != number_of(EXPERT(0, 2, "gate")));
    const float q = number_of("model.layers.1.self_attn.q_proj.input_scale");
    assert_true(q == number_of("model.layers.1.self_attn.v_proj.input_scale"));
    assert_true(q != number_of("model.layers.1.self_attn.o_proj.input_scale"));
}

static void a_quantized_head_is_named_apart(void **state)
{
    (void)state;
    make("--shape tiny-qwen3 --precision experts=nvfp4,head=fp8", scratch_path("made"));
    assert_int_equal(
        run_command_line("%s plan %s --ranks 1 --target h200", TSR_PROGRAM, scratch_path("made")),
        0);
    assert_said("out", "FP8 head: as declared, activations FP8 by the stored input_scale\n");
    assert_said("out", "BF16 embedding, router: not quantized\n");
}

static void what_cannot_be_made_is_refused_in_a_line(void **state)
{
    static const struct {
        const char *options;
        const char *said;
    } cases[] = {
        {"--shape gpt", "--shape gpt: expected one of qwen3-30b-a3b"},
        {"--shape tiny-qwen3 --layers 5", "--layers 5: tiny-qwen3 has 4 layers"},
        {"--shape tiny-glm4 --layers 1", "expected 2 to 4"},
        {"--shape tiny-qwen3 --vocab 100", "--vocab 100: tiny-qwen3 has 512 ids"},
        {"--shape tiny-qwen3 --vocab x", "--vocab x: expected a whole number"},
        {"--shape tiny-qwen3 --precision nvfp4", "expected MODULE=FORMAT"},
        {"--shape tiny-qwen3 --precision router=fp8", "--precision router=fp8: expected MODULE"},
        {"--shape tiny-qwen3 --precision experts=int4", "--precision experts=int4: expected one"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(run_command_line("%s %s --out %s", TSR_MAKER, cases[i].options,
                                          scratch_path("refused")),
                         2);
        assert_said("err", cases[i].said);
        assert_error_lines(1);
    }
    make("--shape tiny-qwen3", scratch_path("made"));
    assert_int_equal(
        run_command_line("%s --shape tiny-qwen3 --out %s", TSR_MAKER, scratch_path("made")), 2);
    assert_said("err", "is not empty");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_precision_is_served),
        cmocka_unit_test(formats_take_turns_by_layer),
        cmocka_unit_test(layers_and_vocabulary_are_cut),
        cmocka_unit_test(a_seed_decides_every_byte),
        cmocka_unit_test(input_scales_belong_to_inputs),
        cmocka_unit_test(a_quantized_head_is_named_apart),
        cmocka_unit_test(what_cannot_be_made_is_refused_in_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
