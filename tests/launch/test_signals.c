/* Signals and limits of the process: what each ends with, what is said and what is kept. */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEMO TSR_TEST_DATA "/demo-mixed"

enum { LONG_ANSWERS = 24, SEQUENCES = 64, IDS = 256 };

static void put_requests(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs("{\"custom_id\":\"first\",\"body\":{\"prompt\":\"a\",\"max_tokens\":1}}\n", file);
    for (int i = 0; i < LONG_ANSWERS; i++)
        (void)fprintf(file,
                      "{\"custom_id\":\"%d\",\"body\":{\"prompt\":\"a\",\"max_tokens\":2000,"
                      "\"ignore_eos\":true}}\n",
                      i);
    assert_int_equal(fclose(file), 0);
}

static int count_lines(const char *path)
{
    char *text = read_whole(path, NULL);
    int lines = 0;
    for (const char *at = strchr(text, '\n'); at != NULL; at = strchr(at + 1, '\n'))
        lines++;
    free(text);
    return lines;
}

/* Starts `launcher`, waits until its first answer is written, and sends the signal to it. 98: the
 * process outlives it for long. */
static int end_by(const char *launcher, const char *options, const char *signal)
{
    put_requests(scratch_path("requests"));
    (void)remove(scratch_path("answers"));
    return run_command_line(
        "{ %s %s run %s --input %s/requests --output %s/answers --threads 1 %s & job=$!; "
        "until [ -s %s/answers ]; do kill -0 $job || exit 99; sleep 0.02; done; kill -%s $job; "
        "(sleep 8; kill -KILL $job; exit 98) & watch=$!; wait $job; code=$?; kill $watch; "
        "exit $code; }",
        launcher, TSR_PROGRAM, DEMO, scratch_folder(), scratch_folder(), options, scratch_folder(),
        signal);
}

/* An interrupt is ignored by what a shell without job control starts in the background: env undoes
 * it. */
static void a_signal_ends_a_run_with_a_line_and_keeps_what_was_answered(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int code;
    } signals[] = {{"HUP", 129}, {"INT", 130}, {"TERM", 143}};
    static const char *const options[] = {"", "--local-ranks 2"};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        char said[32];
        (void)snprintf(said, sizeof(said), "ended by SIG%s", signals[i].name);
        assert_int_equal(end_by("env --default-signal=INT", options[i % 2], signals[i].name),
                         signals[i].code);
        assert_said("err", said);
        assert_error_lines(1);
        assert_int_equal(count_lines(scratch_path("answers")), 1 + LONG_ANSWERS);
    }
}

/* mpirun hands it on to every rank, and rank 0 speaks for all. */
static void a_launcher_that_is_ended_ends_its_ranks(void **state)
{
    (void)state;
    assert_int_equal(end_by(mpirun(3), "", "TERM"), 1); /* mpirun's own code */
#ifndef __SANITIZE_ADDRESS__ /* which is slower than the second that mpirun gives, at times */
    assert_said("err", "ended by SIGTERM");
    assert_error_lines(1);
    assert_int_equal(count_lines(scratch_path("answers")), 1 + LONG_ANSWERS);
#endif
}

/* Also in the middle of writing a checkpoint of its own. */
static void a_bench_that_is_ended_leaves_no_checkpoint(void **state)
{
    (void)state;
    assert_int_equal(
        run_command_line("mkdir %s/made && { %s bench --shape qwen3-30b-a3b --layers 2 --scratch "
                         "%s/made --batch 1 --prefill none & job=$!; "
                         "until ls %s/made/*/*.safetensors; do kill -0 $job || exit 99; done; "
                         "kill -TERM $job; wait $job; }",
                         scratch_folder(), TSR_PROGRAM, scratch_folder(), scratch_folder()),
        143);
    assert_int_equal(run_command_line("rmdir %s/made", scratch_folder()), 0);
}

/* As early as a signal is not what ends every process. */
static void a_job_drains_from_the_start(void **state)
{
    (void)state;
    put_requests(scratch_path("requests"));
    (void)remove(scratch_path("answers"));
    assert_int_equal(
        run_command_line("{ %s run %s --input %s/requests --output %s/answers & job=$!; "
                         "until grep -q '^SigCgt:.*[2367abef]..$' /proc/$job/status; do "
                         "kill -0 $job || exit 99; done; kill -USR1 $job; wait $job; }",
                         TSR_PROGRAM, DEMO, scratch_folder(), scratch_folder()),
        0);
    assert_error_lines(0);
    assert_int_equal(count_lines(scratch_path("answers")), 1 + LONG_ANSWERS);
}

static void put_sequences(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int s = 0; s < SEQUENCES; s++) {
        for (int i = 0; i < IDS; i++)
            (void)fprintf(file, "%s%d", i > 0 ? "," : s > 0 ? "],[" : "[[", 3 + i);
    }
    (void)fputs("]]", file);
    assert_int_equal(fclose(file), 0);
}

static void a_score_that_drains_has_the_sequences_it_took(void **state)
{
    (void)state;
    put_sequences(scratch_path("tokens"));
    (void)remove(scratch_path("logits"));
    assert_int_equal(
        run_command_line("{ %s score %s --tokens %s/tokens --out %s/logits --threads 1 "
                         "--max-num-seqs 1 --max-num-batched-tokens 64 & job=$!; "
                         "until [ -s %s/logits ]; do kill -0 $job || exit 99; done; "
                         "kill -USR1 $job; wait $job; }",
                         TSR_PROGRAM, DEMO, scratch_folder(), scratch_folder(), scratch_folder()),
        0);
    assert_said("err", "asked to drain: ");
    assert_int_equal(
        run_command_line("{ head -c 4000 %s/logits | tr ',' '\n' | grep -c '\"logits[.]'; }",
                         scratch_folder()),
        0);
    char *count = read_whole(scratch_path("out"), NULL);
    assert_in_range(strtol(count, NULL, 10), 1, SEQUENCES - 1);
    free(count);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* The least limit, from `first` on, under which the program begins at all: how much that is depends on
 * what was built into it and on what whoever runs this left open. */
static int least_to_begin(const char *limit, int first, int step)
{
    for (int n = first; n < first + 100 * step; n += step) {
        if (run_command_line("sh -c 'ulimit %s %d; exec %s --version'", limit, n, TSR_PROGRAM) == 0)
            return n;
    }
    fail_msg("ulimit %s: --version never begins", limit);
    return 0;
}

/* Wherever it strikes: a line, and a code of its own. Sanitizers want memory and files themselves. */
static void too_little_memory_for_the_process_exits_with_11(void **state)
{
    (void)state;
    const int least = least_to_begin("-v", 24000, 4000);
    int refused = 0;
    for (int kib = least; kib <= least + 96000; kib += 16000) {
        const int code =
            run_command_line("ulimit -v %d; exec %s run %s --chat hello --max-tokens 1 --threads 1 "
                             "--local-ranks 2 --memory 60M --log-level warn",
                             kib, TSR_PROGRAM, DEMO);
        if (code == 0)
            continue; /* enough */
        assert_int_equal(code, 11);
        assert_said("err", "error: ");
        refused++;
    }
    assert_in_range(refused, 1, 7);
}

/* Of what a process may open, the rest of them is taken. */
static void too_few_open_files_exit_with_11(void **state)
{
    (void)state;
    const int least = least_to_begin("-n", 4, 1);
    put_requests(scratch_path("requests"));
    for (int files = least; files <= least + 1; files++) {
        assert_int_equal(run_command_line("sh -c 'ulimit -n %d; exec %s run %s --input %s/requests "
                                          "--output %s/nothing --threads 1'",
                                          files, TSR_PROGRAM, DEMO, scratch_folder(),
                                          scratch_folder()),
                         11);
        assert_said("err", "Too many open files"); /* of one file or of each that it looks for */
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_ends_a_run_with_a_line_and_keeps_what_was_answered),
        cmocka_unit_test(a_launcher_that_is_ended_ends_its_ranks),
        cmocka_unit_test(a_bench_that_is_ended_leaves_no_checkpoint),
        cmocka_unit_test(a_job_drains_from_the_start),
        cmocka_unit_test(a_score_that_drains_has_the_sequences_it_took),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(too_little_memory_for_the_process_exits_with_11),
        cmocka_unit_test(too_few_open_files_exit_with_11),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
