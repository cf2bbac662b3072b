/*
 * The demo model, asked every question of its grading set through `tessera run --input` on 4 MPI
 * ranks: a trained model answers only when everything between the file and the text is right.
 */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL TSR_TEST_DATA "/demo-mixed"

enum { MAX_QUESTIONS = 4096 };

/* Of 1527 questions the reference implementation answers 1526; at least 99.8 % have to be exact. */
static const double right_least = 0.998;

static json_t *expected_of[MAX_QUESTIONS];

static size_t write_requests(const char *path)
{
    FILE *in = fopen(MODEL "/grading.jsonl", "r");
    FILE *out = fopen(path, "w");
    char line[4096];
    size_t count = 0;

    assert_non_null(in);
    assert_non_null(out);
    while (fgets(line, sizeof(line), in) != NULL) {
        json_t *row = json_loads(line, 0, NULL);
        assert_non_null(row);
        assert_in_range(count, 0, MAX_QUESTIONS - 1);
        json_t *request =
            json_pack("{s:s++, s:s, s:s, s:{s:[{s:s, s:O}], s:i, s:i}}", "custom_id", "q-",
                      json_string_value(json_object_get(row, "id")), "", "method", "POST", "url",
                      "/v1/chat/completions", "body", "messages", "role", "user", "content",
                      json_object_get(row, "question"), "max_tokens", 192, "temperature", 0);
        assert_non_null(request);
        assert_int_equal(json_dumpf(request, out, JSON_COMPACT), 0);
        assert_int_equal(fputc('\n', out), '\n');
        expected_of[count++] = json_incref(row);
        json_decref(request);
        json_decref(row);
    }
    (void)fclose(in);
    assert_int_equal(fclose(out), 0);
    return count;
}

static const json_t *question_of(const char *custom_id, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(json_string_value(json_object_get(expected_of[i], "id")), custom_id + 2) == 0)
            return expected_of[i];
    }
    fail_msg("answer to an unknown question: %s", custom_id);
    return NULL;
}

/* Leading and trailing white space does not count. */
static bool same_text(const char *given, const char *wanted)
{
    given += strspn(given, " \n\t");
    size_t bytes = strlen(given);
    while (bytes > 0 && strchr(" \n\t", given[bytes - 1]) != NULL)
        bytes--;
    return bytes == strlen(wanted) && strncmp(given, wanted, bytes) == 0;
}

static bool is_right(const json_t *answer, size_t count)
{
    const json_t *question =
        question_of(json_string_value(json_object_get(answer, "custom_id")), count);
    const char *content = NULL;
    const int unpacked = json_unpack((json_t *)(uintptr_t)answer, "{s:{s:{s:[{s:{s:s}}]}}}",
                                     "response", "body", "choices", "message", "content", &content);
    const char *wanted = json_string_value(json_object_get(question, "expected"));

    if (unpacked == 0 && same_text(content, wanted))
        return true;
    print_message("asked \"%s\", expected \"%s\", got \"%s\"\n",
                  json_string_value(json_object_get(question, "question")), wanted,
                  unpacked == 0 ? content : "no answer");
    return false;
}

static void four_ranks_answer_the_grading_set(void **state)
{
    (void)state;
    const size_t count = write_requests(scratch_path("requests.jsonl"));
    const int code =
        run_command_line("%s %s run %s --input %s --output %s", mpirun(4), TSR_PROGRAM, MODEL,
                         scratch_path("requests.jsonl"), scratch_path("answers.jsonl"));
    if (code != 0)
        assert_said("err", "exit code 0");

    FILE *answers = fopen(scratch_path("answers.jsonl"), "r");
    assert_non_null(answers);
    char *line = NULL;
    size_t capacity = 0;
    size_t answered = 0;
    size_t right = 0;
    while (getline(&line, &capacity, answers) > 0) {
        json_t *answer = json_loads(line, 0, NULL);
        assert_non_null(answer);
        answered++;
        right += is_right(answer, count);
        json_decref(answer);
    }
    free(line);
    (void)fclose(answers);
    for (size_t i = 0; i < count; i++)
        json_decref(expected_of[i]);

    print_message("%zu of %zu right, at least %.1f %% wanted\n", right, count, 100 * right_least);
    assert_int_equal(answered, count);
    assert_true((double)right >= right_least * (double)count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(four_ranks_answer_the_grading_set)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
