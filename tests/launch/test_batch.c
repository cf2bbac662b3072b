/*
 * `tessera run --input`: every line gets exactly one answer, a bad line fails alone and by name,
 * and an answer does not depend on the lines beside it.
 */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL     TSR_TEST_DATA "/demo-mixed"
#define ASK(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define ADD       "[" ASK("What is 12 + 30?") "]"
#define COUNT     "[" ASK("Count from 3 to 9.") "]"

static const char lines[] =
    "{\"custom_id\":\"chat\",\"url\":\"/v1/chat/completions\",\"body\":{\"messages\":" ADD
    ",\"temperature\":0}}\n"
    "not json\n"
    "\n"
    "{\"custom_id\":\"stop\",\"body\":{\"messages\":" COUNT
    ",\"temperature\":0,\"stop\":[\" 6\"]}}\n"
    "{\"custom_id\":\"short\",\"body\":{\"messages\":" COUNT
    ",\"temperature\":0,\"max_completion_tokens\":3}}\n"
    "{\"custom_id\":\"dry\",\"body\":{\"messages\":" ADD ",\"dry_multiplier\":1}}\n"
    "{\"custom_id\":\"url\",\"url\":\"/v1/completions\",\"body\":{\"messages\":" ADD "}}\n"
    "{\"custom_id\":\"two\",\"body\":{\"prompt\":[\"one two three\",\"four five six\"],"
    "\"max_tokens\":4,\"temperature\":0,\"ignore_eos\":true}}\n"
    "{\"custom_id\":\"one\",\"body\":{\"prompt\":\"four five six\",\"max_tokens\":4,"
    "\"temperature\":0,\"ignore_eos\":true}}\n"
    "{\"custom_id\":\"long\",\"body\":{\"prompt\":\"a\",\"max_tokens\":4000}}\n"
    "{\"body\":{\"prompt\":\"a\"}}\n"
    "{\"custom_id\":\"seed\",\"body\":{\"messages\":" ADD ",\"temperature\":1.5,\"seed\":11,"
    "\"max_tokens\":20,\"ignore_eos\":true}}\n"
    "{\"custom_id\":\"seed-again\",\"body\":{\"messages\":" ADD ",\"temperature\":1.5,\"seed\":11,"
    "\"max_tokens\":20,\"ignore_eos\":true}}\n";
enum { LINES = 12, MAX_ANSWERS = 64 };

static json_t *answers[MAX_ANSWERS];
static size_t answer_count;

static void run_batch(const char *launcher, const char *options)
{
    FILE *out = fopen(scratch_path("requests.jsonl"), "w");
    assert_non_null(out);
    assert_true(fputs(lines, out) >= 0);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(run_command_line("%s %s run %s --input %s --output %s %s", launcher,
                                      TSR_PROGRAM, MODEL, scratch_path("requests.jsonl"),
                                      scratch_path("answers.jsonl"), options),
                     0);

    FILE *in = fopen(scratch_path("answers.jsonl"), "r");
    assert_non_null(in);
    for (json_t *answer; (answer = json_loadf(in, JSON_DISABLE_EOF_CHECK, NULL)) != NULL;) {
        assert_in_range(answer_count, 0, MAX_ANSWERS - 1);
        answers[answer_count++] = answer;
    }
    (void)fclose(in);
}

static void drop_answers(void)
{
    for (size_t i = 0; i < answer_count; i++)
        json_decref(answers[i]);
    answer_count = 0;
}

static json_t *answer_of(const char *custom_id)
{
    for (size_t i = 0; i < answer_count; i++) {
        const char *id = json_string_value(json_object_get(answers[i], "custom_id"));
        if (id != NULL && strcmp(id, custom_id) == 0)
            return answers[i];
    }
    fail_msg("%s was not answered", custom_id);
    return NULL;
}

/* The text of one choice; fails the test when the line failed. */
static const char *text_of(const char *custom_id, size_t choice, const char **ret_finish)
{
    json_t *body = json_object_get(json_object_get(answer_of(custom_id), "response"), "body");
    const json_t *one = json_array_get(json_object_get(body, "choices"), choice);
    const json_t *message = json_object_get(one, "message");
    const char *text = json_string_value(
        json_object_get(message != NULL ? message : one, message != NULL ? "content" : "text"));

    assert_non_null(text);
    if (ret_finish != NULL)
        *ret_finish = json_string_value(json_object_get(one, "finish_reason"));
    return text;
}

static void assert_failed(const char *custom_id, const char *code, const char *param)
{
    const json_t *error = json_object_get(answer_of(custom_id), "error");
    assert_string_equal(json_string_value(json_object_get(error, "code")), code);
    assert_string_equal(json_string_value(json_object_get(error, "param")), param);
    assert_true(json_is_null(json_object_get(answer_of(custom_id), "response")));
}

static void check_answers(void)
{
    const char *finish = NULL;

    assert_int_equal(answer_count, LINES);
    assert_string_equal(text_of("chat", 0, &finish), "42");
    assert_string_equal(finish, "stop");
    assert_string_equal(text_of("stop", 0, &finish), "3, 4, 5,");
    assert_string_equal(finish, "stop");
    (void)text_of("short", 0, &finish);
    assert_string_equal(finish, "length");
    assert_string_equal(text_of("two", 1, NULL), text_of("one", 0, NULL));
    assert_string_equal(text_of("seed", 0, NULL), text_of("seed-again", 0, NULL));
    assert_failed("dry", "unsupported_parameter", "dry_multiplier");
    assert_failed("url", "invalid_value", "prompt");
    assert_failed("long", "context_length_exceeded", "max_tokens");
    json_t *usage = json_object_get(
        json_object_get(json_object_get(answer_of("two"), "response"), "body"), "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "completion_tokens")), 8);
}

static void every_line_is_answered_once_and_bad_ones_by_name(void **state)
{
    (void)state;
    run_batch("", "");
    check_answers();
    drop_answers();
}

static void answers_are_the_same_on_other_ranks_and_in_other_batches(void **state)
{
    (void)state;
    char wanted[256];

    run_batch("", "--max-num-seqs 1");
    (void)snprintf(wanted, sizeof(wanted), "%s", text_of("seed", 0, NULL));
    drop_answers();
    run_batch(mpirun(3), "--max-num-seqs 2 --prefill-chunk 5");
    check_answers();
    assert_string_equal(text_of("seed", 0, NULL), wanted);
    drop_answers();
}

/* Reading the weights of a large model takes minutes: what is wrong is said before. */
static void assert_nothing_was_loaded(void)
{
    char *said = read_whole(scratch_path("err"), NULL);
    assert_null(strstr(said, " GB/s"));
    free(said);
}

static void a_file_that_cannot_be_used_is_named_before_loading(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s run %s --input %s --output /nowhere/answers.jsonl",
                                      TSR_PROGRAM, MODEL, scratch_path("requests.jsonl")),
                     1);
    assert_said("err", "/nowhere/answers.jsonl");
    assert_nothing_was_loaded();
    assert_int_equal(run_command_line("%s run %s --input /nowhere/requests.jsonl --output %s",
                                      TSR_PROGRAM, MODEL, scratch_path("answers.jsonl")),
                     2);
    assert_said("err", "/nowhere/requests.jsonl");
    assert_nothing_was_loaded();
    assert_int_equal(run_command_line("%s run %s --input %s --output /dev/full", TSR_PROGRAM, MODEL,
                                      scratch_path("requests.jsonl")),
                     1);
    assert_said("err", "--output /dev/full: cannot be written");
}

/* The other rank waits for a second at most. */
static void a_pipe_that_nobody_writes_to_yet_holds_up_no_rank(void **state)
{
    (void)state;
    const char *pipe = scratch_path("pipe");
    assert_int_equal(run_command_line("sh -c 'mkfifo %s; (sleep 2; cat %s >%s) & %s run %s "
                                      "--input %s --output %s --local-ranks 2 --step-timeout 1'",
                                      pipe, scratch_path("requests.jsonl"), pipe, TSR_PROGRAM,
                                      MODEL, pipe, scratch_path("answers.jsonl")),
                     0);
    assert_said("err", "12 lines, 5 of them errors");
}

static void a_byte_order_mark_and_line_ends_of_other_systems_do_no_harm(void **state)
{
    (void)state;
    FILE *out = fopen(scratch_path("marked.jsonl"), "w");
    assert_non_null(out);
    (void)fputs("\xef\xbb\xbf{\"custom_id\":\"a\",\"body\":{\"prompt\":\"a\",\"max_tokens\":1}}\r\n"
                "\r\n{\"custom_id\":\"b\",\"body\":{\"prompt\":\"a\",\"max_tokens\":1}}",
                out);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(run_command_line("%s run %s --input %s --output %s", TSR_PROGRAM, MODEL,
                                      scratch_path("marked.jsonl"), scratch_path("answers.jsonl")),
                     0);
    assert_said("err", "2 lines, 0 of them errors");
}

static void a_slow_pipe_holds_up_no_rank(void **state)
{
    (void)state;
    FILE *out = fopen(scratch_path("requests.jsonl"), "w");
    assert_non_null(out);
    assert_true(fputs(lines, out) >= 0);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(run_command_line("sh -c '(head -n 1 %s; sleep 2; tail -n +2 %s) | %s run %s "
                                      "--input /dev/stdin --output %s --local-ranks 2 "
                                      "--step-timeout 1'",
                                      scratch_path("requests.jsonl"),
                                      scratch_path("requests.jsonl"), TSR_PROGRAM, MODEL,
                                      scratch_path("answers.jsonl")),
                     0);
    assert_said("err", "12 lines, 5 of them errors");
}

/* More ids than one step brings to a rank. */
static void long_prompts_that_come_together_are_all_answered(void **state)
{
    (void)state;
    enum { PROMPTS = 24, WORDS = 800 };
    FILE *out = fopen(scratch_path("requests.jsonl"), "w");
    assert_non_null(out);
    for (int i = 0; i < PROMPTS; i++) {
        (void)fprintf(out, "{\"custom_id\":\"%d\",\"body\":{\"max_tokens\":1,\"prompt\":\"%d", i,
                      i);
        for (int word = 0; word < WORDS; word++)
            (void)fprintf(out, " %c", 'a' + word % 8);
        (void)fputs("\"}}\n", out);
    }
    assert_int_equal(fclose(out), 0);
    assert_int_equal(run_command_line("%s run %s --input %s --output %s", TSR_PROGRAM, MODEL,
                                      scratch_path("requests.jsonl"),
                                      scratch_path("answers.jsonl")),
                     0);
    assert_said("err", "24 requests");
}

static void a_drained_job_loses_no_line(void **state)
{
    (void)state;
    FILE *out = fopen(scratch_path("many.jsonl"), "w");
    assert_non_null(out);
    for (int i = 0; i < 4000; i++)
        (void)fprintf(out,
                      "{\"custom_id\":\"%d\",\"body\":{\"prompt\":\"a b c\",\"max_tokens\":40,"
                      "\"ignore_eos\":true}}\n",
                      i);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(
        run_command_line("sh -c '%s run %s --input %s --output %s & job=$!; "
                         "while ! [ -s %s ]; do sleep 0.05; done; kill -USR1 $job; wait $job'",
                         TSR_PROGRAM, MODEL, scratch_path("many.jsonl"), scratch_path("many.out"),
                         scratch_path("many.out")),
        0);
    assert_said("err", "4000 lines");
    char *text = read_whole(scratch_path("many.out"), NULL);
    size_t count = 0;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        count++;
    assert_int_equal(count, 4000);
    assert_non_null(strstr(text, "asked to drain"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_line_is_answered_once_and_bad_ones_by_name),
        cmocka_unit_test(answers_are_the_same_on_other_ranks_and_in_other_batches),
        cmocka_unit_test(a_file_that_cannot_be_used_is_named_before_loading),
        cmocka_unit_test(a_byte_order_mark_and_line_ends_of_other_systems_do_no_harm),
        cmocka_unit_test(a_pipe_that_nobody_writes_to_yet_holds_up_no_rank),
        cmocka_unit_test(a_slow_pipe_holds_up_no_rank),
        cmocka_unit_test(long_prompts_that_come_together_are_all_answered),
        cmocka_unit_test(a_drained_job_loses_no_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
