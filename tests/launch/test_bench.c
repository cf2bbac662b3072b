/*
 * `tessera bench` on small shapes: what it prints can be read by a program, what it counts is what
 * can be counted by hand, and what cannot be measured is refused in a line.
 */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define SMALL "--context 64 --steps 3"

static json_t *bench(const char *options)
{
    const int code =
        run_command_line("%s bench %s --json --scratch %s", TSR_PROGRAM, options, scratch_folder());
    if (code != 0)
        assert_said("err", "exit code 0");
    json_t *json = json_load_file(scratch_path("out"), 0, NULL);
    assert_non_null(json);
    return json;
}

static double number(const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, field);
    if (!json_is_number(value))
        fail_msg("%s is no number", field);
    return json_number_value(value);
}

static void assert_near(double a, double b)
{
    assert_true(a > 0.999 * b && a < 1.001 * b);
}

/* What every row says, and how its numbers belong together. */
static void check_row(const json_t *json, const json_t *row, double tokens)
{
    const double step_s = number(row, "step_ms") / 1e3;
    const double bytes = number(row, "bytes_per_step");

    assert_near(number(row, "tokens_per_s"), tokens / step_s);
    assert_near(number(row, "bytes_per_token"), bytes / tokens);
    assert_near(number(row, "weight_bytes") + number(row, "kv_bytes"), bytes);
    assert_near(number(row, "read_bandwidth"), number(json, "read_bandwidth"));
    assert_near(number(row, "ratio"), bytes / step_s / number(row, "read_bandwidth"));
    assert_true(number(row, "experts_per_layer") > 0);
    const json_t *stages = json_object_get(row, "stages_us");
    assert_true(number(stages, "attention") > 0 && number(stages, "experts") > 0);
    assert_true(number(stages, "predict") > 0);
}

static const json_t *row_of(const json_t *json, const char *kind, size_t index)
{
    return json_array_get(json_object_get(json, kind), index);
}

static void every_row_is_there_and_its_numbers_fit(void **state)
{
    static const char *const shapes[] = {"tiny-qwen3", "tiny-glm4"};
    static const double prefill[] = {100, 3 * 50};
    (void)state;
    for (size_t s = 0; s < 2; s++) {
        char options[256];
        (void)snprintf(options, sizeof(options),
                       "--shape %s --precision experts=nvfp4,fp8,attention=fp8 --batch 1,4 "
                       "--prefill 100,3x50 " SMALL,
                       shapes[s]);
        json_t *json = bench(options);
        assert_string_equal(json_string_value(json_object_get(json, "model")), shapes[s]);
        assert_int_equal(json_array_size(json_object_get(json, "decode")), 2);
        assert_int_equal(json_array_size(json_object_get(json, "prefill")), 2);
        assert_true(number(json, "read_bandwidth") > 1e8);
        assert_true(number(json_object_get(json, "load"), "bytes") > 1e6);
        assert_true(number(json_object_get(json, "load"), "bytes_per_s") > 0);
        for (size_t i = 0; i < 2; i++) {
            check_row(json, row_of(json, "decode", i), i == 0 ? 1 : 4);
            check_row(json, row_of(json, "prefill", i), prefill[i]);
        }
        assert_int_equal(number(row_of(json, "decode", 1), "batch"), 4);
        assert_int_equal(number(row_of(json, "decode", 1), "context"), 64);
        assert_int_equal(number(row_of(json, "prefill", 1), "prompts"), 3);
        assert_int_equal(number(row_of(json, "prefill", 1), "prompt_tokens"), 50);
        json_decref(json);
    }
}

/*
 * tiny-qwen3: H 128, 4 heads of 32, 2 for keys and values, 8 experts of 64 wide, 2 for each token, 4
 * layers, 512 ids. One token reads, in elements:
 *
 *   a layer   q, o 2 * 128 * 128, k, v 2 * 64 * 128, router 8 * 128, 2 experts 3 * 64 * 128
 *   head      512 * 128
 */
static void bytes_are_those_that_one_token_reads(void **state)
{
    enum {
        FIXED = 2 * 128 * 128 + 2 * 64 * 128 + 8 * 128,
        EXPERT = 3 * 64 * 128,
        HEAD = 512 * 128,
        NVFP4 = EXPERT / 2 + EXPERT / 16,
    };
    (void)state;
    json_t *plain = bench("--shape tiny-qwen3 --batch 1 --prefill none " SMALL);
    const json_t *row = row_of(plain, "decode", 0);
    assert_int_equal(number(row, "weight_bytes"), 2 * (4 * (FIXED + 2 * EXPERT) + HEAD));
    assert_int_equal(number(row, "kv_bytes"), 64 * 4 * 2 * 2 * 32 * (int)sizeof(float));
    assert_true(number(row, "experts_per_layer") == 2);
    assert_int_equal(json_array_size(json_object_get(plain, "prefill")), 0);
    json_decref(plain);

    json_t *mixed = bench("--shape tiny-qwen3 --precision experts=nvfp4,fp8 --batch 1 "
                          "--kv-cache-dtype bf16 --prefill none " SMALL);
    row = row_of(mixed, "decode", 0);
    assert_int_equal(number(row, "weight_bytes"),
                     2 * (4 * FIXED + HEAD) + 2 * (2 * NVFP4 + 2 * EXPERT));
    assert_int_equal(number(row, "kv_bytes"), 64 * 4 * 2 * 2 * 32 * 2);
    json_decref(mixed);
}

/* All experts, twice as often where an exchange carries half of the tokens. */
static void every_round_reads_the_experts_again(void **state)
{
    double experts[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        json_t *json = bench(i == 0 ? "--shape tiny-qwen3 --batch none --prefill 200"
                                    : "--shape tiny-qwen3 --batch none --prefill 200 "
                                      "--exchange-tokens 100");
        experts[i] = number(row_of(json, "prefill", 0), "experts_per_layer");
        json_decref(json);
    }
    assert_true(experts[0] == 8);
    assert_true(experts[1] == 16);
}

static void ranks_share_the_sequences(void **state)
{
    (void)state;
    json_t *json = bench("--shape tiny-glm4 --local-ranks 3 --batch 2,7 --prefill 4x30 " SMALL);
    assert_int_equal(number(json, "ranks"), 3);
    check_row(json, row_of(json, "decode", 1), 7);
    check_row(json, row_of(json, "prefill", 0), 120);
    json_decref(json);
    assert_int_equal(run_command_line("%s %s bench --shape tiny-qwen3 --batch 3 --prefill none "
                                      "--scratch %s " SMALL,
                                      mpirun(2), TSR_PROGRAM, scratch_folder()),
                     0);
    assert_said("out", "tiny-qwen3, 4 layers, on 2 ranks of cpu");
    assert_said("out", "3 at 64");
}

static void the_exchange_is_measured_alone(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s bench comm --backend cpu --local-ranks 2", TSR_PROGRAM),
                     0);
    assert_said("out", "2 ranks of cpu");
    assert_said("out", "16 KiB a peer: dispatch");
    assert_said("out", "16384 KiB a peer: dispatch");
}

static void a_checkpoint_is_measured_as_it_is(void **state)
{
    (void)state;
    json_t *json = bench(TSR_TEST_DATA "/qwen3-mixed --batch 2 --prefill 40 " SMALL);
    assert_int_equal(number(json, "layers"), 4);
    check_row(json, row_of(json, "decode", 0), 2);
    check_row(json, row_of(json, "prefill", 0), 40);
    json_decref(json);
}

/* Neither when all went well nor when it did not. */
static void nothing_is_left_where_the_checkpoint_was_made(void **state)
{
    (void)state;
    json_decref(bench("--shape tiny-qwen3 --batch 1 --prefill none " SMALL));
    assert_int_equal(run_command_line("%s bench --shape tiny-qwen3 --context 4096 --scratch %s",
                                      TSR_PROGRAM, scratch_folder()),
                     2);
    assert_said("err", "the model has 512");
    assert_int_equal(run_command_line("ls -d %s/tessera-bench-*", scratch_folder()), 2);
}

static void what_cannot_be_measured_is_refused_in_a_line(void **state)
{
    static const struct {
        const char *options;
        int code;
        const char *said;
    } cases[] = {
        {"", 2, "bench needs the folder of a checkpoint"},
        {"x --shape tiny-qwen3", 2, "bench needs either DIR or --shape NAME"},
        {"x --precision experts=fp8", 2, "belong to --shape"},
        {"--shape gpt", 2, "--shape gpt: expected one of qwen3-30b-a3b"},
        {"--shape tiny-qwen3 --layers 9", 2, "--layers 9: tiny-qwen3 has 4 layers"},
        {"--shape tiny-qwen3 --precision experts=int4", 2, "experts=int4: expected one of"},
        {"--shape tiny-qwen3 --batch 1,,2", 2, "--batch 1,,2: expected numbers such as 1,8,32"},
        {"--shape tiny-qwen3 --batch 0", 2, "--batch 0: expected"},
        {"--shape tiny-qwen3 --prefill 2x", 2, "--prefill 2x: expected numbers such as"},
        {"--shape tiny-qwen3 --batch none --prefill 4096", 2,
         "get to 4097 positions, the model has 512"},
        {"--shape tiny-qwen3 --context 64 --prefill 2x50 --max-num-batched-tokens 60", 2,
         "100 tokens of a rank in one step, which takes 60 (--max-num-batched-tokens)"},
        {"--shape tiny-qwen3 --context 64 --batch 4 --prefill none --max-num-seqs 2", 2,
         "4 sequences of a rank at once, which takes 2 (--max-num-seqs)"},
        {"--shape tiny-qwen3 --context 64 --batch 4 --prefill none --max-model-len 70", 2,
         "--max-model-len is 70"},
        {"--shape tiny-qwen3 --context 300 --batch 64 --prefill none --memory 80M", 4,
         "on a rank do not fit: its KV cache holds"},
        {"--shape tiny-qwen3 --scratch /nowhere", 1, "--scratch /nowhere: cannot be written to"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(
            run_command_line("cd %s && %s bench %s%s%s", scratch_folder(), TSR_PROGRAM,
                             strstr(cases[i].options, "--scratch") != NULL ? "" : "--scratch ",
                             strstr(cases[i].options, "--scratch") != NULL ? "" : ". ",
                             cases[i].options),
            cases[i].code);
        assert_said("err", cases[i].said);
        assert_error_lines(1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_there_and_its_numbers_fit),
        cmocka_unit_test(bytes_are_those_that_one_token_reads),
        cmocka_unit_test(every_round_reads_the_experts_again),
        cmocka_unit_test(ranks_share_the_sequences),
        cmocka_unit_test(the_exchange_is_measured_alone),
        cmocka_unit_test(a_checkpoint_is_measured_as_it_is),
        cmocka_unit_test(nothing_is_left_where_the_checkpoint_was_made),
        cmocka_unit_test(what_cannot_be_measured_is_refused_in_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
