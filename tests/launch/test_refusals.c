/* What the commands refuse: one line that says what is wrong, and the documented exit code, alone
 * and under mpirun. */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

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

static void a_missing_checkpoint_exits_with_3(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s inspect %s", TSR_PROGRAM, scratch_path("nowhere")), 3);
    assert_said("out", "nowhere");
    assert_int_equal(
        run_command_line("%s run %s --chat hello", TSR_PROGRAM, scratch_path("nowhere")), 3);
    assert_said("err", "nowhere");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usage_errors_exit_with_2),
        cmocka_unit_test(a_missing_checkpoint_exits_with_3),
        cmocka_unit_test(a_missing_checkpoint_exits_with_3_under_mpirun),
        cmocka_unit_test(too_little_memory_exits_with_4_before_a_weight_is_read),
        cmocka_unit_test(activations_that_a_target_cannot_exit_with_5),
        cmocka_unit_test(help_of_every_command_has_an_example),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
