/* What the commands refuse: one line that says what is wrong, and the documented exit code, alone
 * and under mpirun. */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEMO TSR_TEST_DATA "/demo-mixed"

static void usage_errors_exit_with_2(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s frobnicate", TSR_PROGRAM), 2);
    assert_said("err", "unknown command frobnicate");
    assert_int_equal(run_command_line("%s run %s --max-model-length 8", TSR_PROGRAM, DEMO), 2);
    assert_said("err", "did you mean --max-model-len?");
    assert_int_equal(run_command_line("%s plan %s --ranks many", TSR_PROGRAM, DEMO), 2);
    assert_said("err", "--ranks many");
    assert_int_equal(run_command_line("%s run %s", TSR_PROGRAM, DEMO), 2);
    assert_said("err", "--chat");
    assert_int_equal(run_command_line("%s run --chat hello", TSR_PROGRAM), 2);
    assert_said("err", "folder");
    assert_int_equal(run_command_line("%s score %s", TSR_PROGRAM, DEMO), 2);
    assert_said("err", "--tokens");
}

static void usage_errors_are_said_once_by_all_ranks_together(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s %s run %s", mpirun(3), TSR_PROGRAM, DEMO), 2);
    assert_error_lines(1);
    assert_int_equal(run_command_line("%s %s score %s", mpirun(3), TSR_PROGRAM, DEMO), 2);
    assert_error_lines(1);
    assert_int_equal(
        run_command_line("%s %s run %s --chat hello --local-ranks 2", mpirun(3), TSR_PROGRAM, DEMO),
        2);
    assert_said("err", "--local-ranks");
    assert_error_lines(1);
}

static void a_usage_error_is_said_though_rank_0_comes_last(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s sh -c '[ \"$OMPI_COMM_WORLD_RANK\" = 0 ] && sleep 1.5; "
                                      "exec %s run %s'",
                                      mpirun(2), TSR_PROGRAM, DEMO),
                     2);
    assert_error_lines(1);
}

static void put_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void a_result_never_overwrites_its_question(void **state)
{
    (void)state;
    static const char request[] =
        "{\"custom_id\": \"1\", \"body\": {\"prompt\": \"a\", \"max_tokens\": 1}}\n";
    char file[64];
    size_t bytes = 0;

    (void)snprintf(file, sizeof(file), "%s/question", scratch_folder());
    put_text(file, request);
    assert_int_equal(run_command_line("%s run %s --input %s --output %s/./question", TSR_PROGRAM,
                                      DEMO, file, scratch_folder()),
                     2);
    assert_said("err", "--output");
    free(read_whole(file, &bytes));
    assert_int_equal(bytes, sizeof(request) - 1);

    put_text(file, "[[1, 2]]");
    assert_int_equal(
        run_command_line("%s score %s --tokens %s --out %s", TSR_PROGRAM, DEMO, file, file), 2);
    assert_said("err", "--out");
    free(read_whole(file, &bytes));
    assert_int_equal(bytes, sizeof("[[1, 2]]") - 1);
}

static void an_answer_never_overwrites_the_weights(void **state)
{
    (void)state;
    char model[256];
    char weights[300];
    size_t before = 0;
    size_t after = 0;
    (void)snprintf(model, sizeof(model), "%s/copy", scratch_folder());
    (void)snprintf(weights, sizeof(weights), "%s/model.safetensors", model);
    assert_int_equal(run_command_line("cp -r %s %s", DEMO, model), 0);
    free(read_whole(weights, &before));

    put_text(scratch_path("tokens"), "[[1, 2]]");
    assert_int_equal(run_command_line("%s score %s --tokens %s --out %s", TSR_PROGRAM, model,
                                      scratch_path("tokens"), weights),
                     2);
    assert_said("err", "--out");
    assert_error_lines(1);
    put_text(scratch_path("question"), "{\"custom_id\": \"1\", \"body\": {\"prompt\": \"a\"}}\n");
    assert_int_equal(run_command_line("%s run %s --input %s --output %s", TSR_PROGRAM, model,
                                      scratch_path("question"), weights),
                     2);
    assert_said("err", "--output");
    free(read_whole(weights, &after));
    assert_int_equal(before, after);
}

static void an_input_that_cannot_be_read_is_said_once(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s run %s --input %s --output %s", TSR_PROGRAM, DEMO,
                                      scratch_folder(), scratch_path("answers")),
                     2);
    assert_said("err", "Is a directory");
    assert_error_lines(1);
}

static void a_gap_among_token_sequences_is_refused(void **state)
{
    (void)state;
    static const char header[] =
        "{\"tokens.0\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]},"
        "\"tokens.2\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[4,8]}} ";
    const uint64_t length = sizeof(header) - 1;
    FILE *file = fopen(scratch_path("gap"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&length, sizeof(length), 1, file), 1);
    assert_int_equal(fwrite(header, 1, length, file), length);
    assert_int_equal(fwrite("\1\0\0\0\2\0\0\0", 1, 8, file), 8);
    assert_int_equal(fclose(file), 0);

    assert_int_equal(run_command_line("%s score %s --tokens %s/gap --out %s/logits", TSR_PROGRAM,
                                      DEMO, scratch_folder(), scratch_folder()),
                     2);
    assert_said("err", "sequence 1: there is no tensor");
}

static void sequences_longer_than_the_model_are_refused_before_a_weight_is_read(void **state)
{
    (void)state;
    put_text(scratch_path("long"), "[[1, 2], [1, 2, 3, 4]]");
    assert_int_equal(run_command_line("%s score %s --tokens %s --out %s --max-model-len 3",
                                      TSR_PROGRAM, DEMO, scratch_path("long"),
                                      scratch_path("none")),
                     2);
    assert_said("err", "sequence 1 has 4 ids, but --max-model-len is 3");
    assert_error_lines(1);
    assert_int_not_equal(access(scratch_path("none"), F_OK), 0);
}

/* stdout goes to a full disk inside the braces, to a file outside. */
static void a_full_disk_is_said_once_and_exits_with_1(void **state)
{
    (void)state;
    static const char *const printing[] = {"inspect", "inspect --json", "plan", "plan --json"};
    for (size_t i = 0; i < sizeof(printing) / sizeof(printing[0]); i++) {
        assert_int_equal(
            run_command_line("{ %s %s %s >/dev/full; }", TSR_PROGRAM, printing[i], DEMO), 1);
        assert_said("err", "No space left");
        assert_error_lines(1);
    }

    put_text(scratch_path("question"), "{\"custom_id\": \"1\", \"body\": {\"prompt\": \"a\"}}\n");
    assert_int_equal(run_command_line("%s run %s --input %s --output /dev/full", TSR_PROGRAM, DEMO,
                                      scratch_path("question")),
                     1);
    assert_error_lines(1);
}

static void a_template_that_is_not_served_refuses_chats_only(void **state)
{
    (void)state;
    char folder[64];
    (void)snprintf(folder, sizeof(folder), "%s", scratch_path("template"));
    assert_int_equal(run_command_line("mkdir %s && ln -s %s/* %s && rm %s/chat_template.jinja",
                                      folder, DEMO, folder, folder),
                     0);
    char template[96];
    (void)snprintf(template, sizeof(template), "%s/chat_template.jinja", folder);
    put_text(template, "{% include x %}");
    assert_int_equal(run_command_line("%s run %s --chat hello", TSR_PROGRAM, folder), 3);
    assert_said("err", "line 1: the statement 'include' is not supported here");
    assert_error_lines(1);
    assert_int_equal(
        run_command_line("%s run %s --prompt hello --max-tokens 1", TSR_PROGRAM, folder), 0);
}

static void a_missing_checkpoint_exits_with_3(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s inspect %s", TSR_PROGRAM, scratch_path("nowhere")), 3);
    assert_said("out", "nowhere");
    assert_int_equal(
        run_command_line("%s run %s --chat hello", TSR_PROGRAM, scratch_path("nowhere")), 3);
    assert_said("err", "nowhere");
    assert_error_lines(1);
    assert_int_equal(run_command_line("%s run %s/config.json --chat hello", TSR_PROGRAM, DEMO), 3);
    assert_said("err", "not a folder");
    assert_error_lines(1);
}

static void a_missing_checkpoint_exits_with_3_under_mpirun(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s %s run %s --chat hello", mpirun(3), TSR_PROGRAM,
                                      scratch_path("nowhere")),
                     3);
    assert_said("err", "nowhere");
}

static void too_little_memory_exits_with_4_before_a_weight_is_read(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s run %s --chat hello --memory 40MB --max-model-len 2048",
                                      TSR_PROGRAM, DEMO),
                     4);
    assert_said("err", "--max-model-len");
    assert_int_equal(
        run_command_line("%s plan %s --target 40MB --max-model-len 2048", TSR_PROGRAM, DEMO), 4);
    assert_int_equal(
        run_command_line("%s plan %s --target 40MB --max-model-len 2048 --json", TSR_PROGRAM, DEMO),
        4);
    assert_said("out", "\"fits\"");
}

static void activations_that_a_target_cannot_exit_with_5(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s run %s --chat hello --activations declared "
                                      "--activations-of h200",
                                      TSR_PROGRAM, DEMO),
                     5);
    assert_said("err", "NVFP4");
}

/* Each would do all of the work: none does any. */
static void processes_that_do_not_find_each_other_exit_with_6(void **state)
{
    (void)state;
    static const char *const words[] = {"SLURM_NTASKS=4 SLURM_PROCID=0", "SLURM_NTASKS=4",
                                        "SLURM_STEP_NUM_TASKS=4 SLURM_NTASKS=8 SLURM_PROCID=0",
                                        "PMI_RANK=0 PMI_SIZE=4",
                                        "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        assert_int_equal(run_command_line("%s %s run %s --chat hello", words[i], TSR_PROGRAM, DEMO),
                         6);
        assert_said("err", "says that there are 4 processes, but MPI finds 1");
        assert_error_lines(1);
    }
    assert_int_equal(
        run_command_line("SLURM_NTASKS=4 SLURM_PROCID=1 %s run %s --chat hello", TSR_PROGRAM, DEMO),
        6);
    assert_error_lines(0); /* process 0 says it */
}

static void a_world_of_another_size_than_expected_exits_with_6(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s %s run %s --chat hello --expect-world-size 3", mpirun(2),
                                      TSR_PROGRAM, DEMO),
                     6);
    assert_said("err", "--expect-world-size 3: there are 2 ranks, for so many were started");
    assert_error_lines(1);
    assert_int_equal(run_command_line("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=3 %s run %s "
                                      "--chat hello --expect-world-size 3",
                                      TSR_PROGRAM, DEMO),
                     6);
    assert_said("err", "--expect-world-size 3: there is 1 rank: OMPI_COMM_WORLD_SIZE says that 3");
    assert_error_lines(1);

    /* a server refuses before it listens, and starts nothing again and again */
    static const char *const servers[] = {"--ranks 2 --expect-world-size 3",
                                          "--expect-world-size 3",
                                          "--local-ranks 2 --expect-world-size 3"};
    for (size_t i = 0; i < sizeof(servers) / sizeof(servers[0]); i++) {
        assert_int_equal(run_command_line("%s serve %s --port 0 %s", TSR_PROGRAM, DEMO, servers[i]),
                         6);
        assert_error_lines(1);
    }
    assert_int_equal(
        run_command_line("SLURM_PROCID=0 SLURM_NTASKS=4 %s serve %s --port 0", TSR_PROGRAM, DEMO),
        6);
    assert_said("err", "SLURM_NTASKS says that there are 4 processes");
    assert_error_lines(1);

    /* of an allocation of four, one process by intent, and two of mpirun's */
    assert_int_equal(run_command_line("SLURM_NTASKS=4 %s run %s --chat hello --max-tokens 1 "
                                      "--expect-world-size 1",
                                      TSR_PROGRAM, DEMO),
                     0);
    assert_int_equal(run_command_line("SLURM_NTASKS=4 %s %s run %s --chat hello --max-tokens 1",
                                      mpirun(2), TSR_PROGRAM, DEMO),
                     0);
}

static void help_of_every_command_has_an_example(void **state)
{
    (void)state;
    static const char *const commands[] = {"inspect", "plan", "run", "score"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(run_command_line("%s %s --help", TSR_PROGRAM, commands[i]), 0);
        assert_said("out", "tessera ");
        assert_said("out", "models/");
    }
}

static void the_version_is_said(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s --version", TSR_PROGRAM), 0);
    assert_said("out", "tessera 0.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_errors_exit_with_2),
        cmocka_unit_test(usage_errors_are_said_once_by_all_ranks_together),
        cmocka_unit_test(a_usage_error_is_said_though_rank_0_comes_last),
        cmocka_unit_test(a_result_never_overwrites_its_question),
        cmocka_unit_test(an_answer_never_overwrites_the_weights),
        cmocka_unit_test(an_input_that_cannot_be_read_is_said_once),
        cmocka_unit_test(a_gap_among_token_sequences_is_refused),
        cmocka_unit_test(sequences_longer_than_the_model_are_refused_before_a_weight_is_read),
        cmocka_unit_test(a_full_disk_is_said_once_and_exits_with_1),
        cmocka_unit_test(a_template_that_is_not_served_refuses_chats_only),
        cmocka_unit_test(a_missing_checkpoint_exits_with_3),
        cmocka_unit_test(a_missing_checkpoint_exits_with_3_under_mpirun),
        cmocka_unit_test(too_little_memory_exits_with_4_before_a_weight_is_read),
        cmocka_unit_test(activations_that_a_target_cannot_exit_with_5),
        cmocka_unit_test(processes_that_do_not_find_each_other_exit_with_6),
        cmocka_unit_test(a_world_of_another_size_than_expected_exits_with_6),
        cmocka_unit_test(help_of_every_command_has_an_example),
        cmocka_unit_test(the_version_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
