/* Jobs of three processes of which one is killed, stopped or reads something that cannot be: all
 * end, soon, and for the right reason. */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEMO  TSR_TEST_DATA "/demo-mixed"
#define NVFP4 TSR_TEST_DATA "/qwen3-nvfp4"

enum { LONG_ANSWERS = 24, LINES = 20000, NAN_E4M3 = 0x7f };

/* The first request ends at once, which shows that steps are computed; the others go on for much
 * longer than the test takes. */
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
    for (int i = LONG_ANSWERS + 1; i < LINES; i++)
        (void)fprintf(file, "{\"custom_id\":\"%d\",\"body\":{\"prompt\":\"a\"}}\n", i);
    assert_int_equal(fclose(file), 0);
}

/* Every line has its answer or its error, whoever was lost. */
static void assert_no_line_is_lost(void)
{
    size_t bytes = 0;
    char *text = read_whole(scratch_path("answers"), &bytes);
    size_t lines = 0;
    size_t lost = 0;

    assert_true(bytes > 0 && text[bytes - 1] == '\n');
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    for (const char *at = text; (at = strstr(at, "\"status_code\":503")) != NULL; at++)
        lost++;
    assert_int_equal(lines, LINES);
    assert_in_range(lost, 1, LINES - 1);
    free(text);
}

/*
 * Starts a job on the demo model, sends `signal` to a rank once the first answer is written, and
 * returns the job's exit code: 99 where it ended before, 98 where a process outlives it.
 * Each rank writes down its process before it becomes the program.
 */
static int lose(int rank, const char *signal)
{
    char folder[64];

    (void)snprintf(folder, sizeof(folder), "%s", scratch_folder());
    put_requests(scratch_path("requests"));
    (void)remove(scratch_path("answers"));
    return run_command_line(
        "{ %s sh -c 'echo $$ >%s/process.$OMPI_COMM_WORLD_RANK; exec %s run %s --input %s/requests "
        "--output %s/answers --step-timeout 3' & job=$!; "
        "until [ -s %s/answers ]; do kill -0 $job || exit 99; sleep 0.02; done; "
        "kill -%s $(cat %s/process.%d); wait $job; code=$?; "
        "for process in $(cat %s/process.*); do for turn in $(seq 100); do "
        "kill -0 $process || continue 2; sleep 0.05; done; exit 98; done; exit $code; }",
        mpirun(3), folder, TSR_PROGRAM, DEMO, folder, folder, folder, signal, folder, rank, folder);
}

static void a_stopped_rank_is_named_and_ends_the_job(void **state)
{
    (void)state;
    assert_int_equal(lose(2, "STOP"), 8);
    assert_said("err", "rank 2 did not come within 2400 ms");
    assert_no_line_is_lost();
    assert_int_equal(lose(0, "STOP"), 8);
    assert_said("err", "rank 0 did not come within 2400 ms");
    assert_no_line_is_lost();
}

static void a_killed_rank_ends_the_job(void **state)
{
    (void)state;
    for (int rank = 0; rank < 3; rank += 2) {
        const int code = lose(rank, "KILL");
        assert_int_not_equal(code, 0);
        assert_in_range(code, 100, 255); /* of the signal, as the launcher gives it */
        if (rank != 0)
            assert_no_line_is_lost();
    }
}

/* A rank whose program never gets to starting MPI, in which the others then wait. */
static void a_rank_that_never_starts_ends_the_job(void **state)
{
    (void)state;
    const int code = run_command_line("%s sh -c '[ $OMPI_COMM_WORLD_RANK = 1 ] && exec sleep 100; "
                                      "exec %s run %s --chat hello --init-timeout 1'",
                                      mpirun(2), TSR_PROGRAM, DEMO);
    assert_int_equal(code, 6);
    assert_said("err", "starting MPI: rank 1 did not come within ");
}

/* Experts 5 to 7 are those of rank 2: the others read nothing that is wrong. */
static void what_one_rank_refuses_is_said_once_and_ends_all(void **state)
{
    (void)state;
    size_t bytes = 0;
    char *model = read_whole(NVFP4 "/model.safetensors", &bytes);
    model[tensor_begin(model, "model.layers.1.mlp.experts.7.up_proj.weight_scale") + 3] = NAN_E4M3;

    assert_int_equal(run_command_line("cp -r %s %s/broken", NVFP4, scratch_folder()), 0);
    FILE *file = fopen(scratch_path("broken/model.safetensors"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(model, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(model);

    assert_int_equal(run_command_line("%s %s score %s/broken --tokens %s/expected.safetensors "
                                      "--out %s/logits",
                                      mpirun(3), TSR_PROGRAM, scratch_folder(), NVFP4,
                                      scratch_folder()),
                     3);
    assert_said("err", "[rank 2] error: model.layers.1.mlp.experts.7.up_proj.weight_scale in "
                       "model.safetensors: element 3 is ");
    assert_error_lines(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stopped_rank_is_named_and_ends_the_job),
        cmocka_unit_test(a_killed_rank_ends_the_job),
        cmocka_unit_test(a_rank_that_never_starts_ends_the_job),
        cmocka_unit_test(what_one_rank_refuses_is_said_once_and_ends_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
