/*
 * A batch of any length takes the memory of a short one. `test_flat_memory 20000` tries as many
 * requests; without a number it is a few thousand.
 */
#include "tests/launch/command.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define DEMO TSR_TEST_DATA "/demo-mixed"

/* More than are live at once, so that every place has been used. */
enum { SHORT = 1200, MOST_MORE_KIB = 2560 };

static int many = 3000;

/* The most that any command so far has had resident. */
static long most_kib(int requests)
{
    char question[256];
    struct rusage usage;

    (void)snprintf(question, sizeof(question), "%s/question", scratch_folder());
    FILE *file = fopen(question, "w");
    assert_non_null(file);
    for (int i = 0; i < requests; i++)
        (void)fprintf(
            file,
            "{\"custom_id\":\"%d\",\"body\":{\"messages\":[{\"role\":\"user\",\"content\":"
            "\"a b %d\"}],\"max_tokens\":%d,\"stop\":[\"x\"]}}\n",
            i, i % 100, 1 + i % 3);
    assert_int_equal(fclose(file), 0);
    (void)remove(scratch_path("answers"));
    assert_int_equal(run_command_line("%s run %s --input %s --output %s --threads 2", TSR_PROGRAM,
                                      DEMO, question, scratch_path("answers")),
                     0);
    assert_said("err", " 0 of them errors");
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &usage), 0);
    return usage.ru_maxrss;
}

static void a_long_batch_takes_no_more_memory_than_a_short_one(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they keep what was freed */
#endif
    const long before = most_kib(SHORT);
    const long after = most_kib(many);
    (void)printf("%d requests: %ld KiB, %d requests: %ld KiB\n", SHORT, before, many, after);
    assert_in_range(after, before, before + MOST_MORE_KIB);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_batch_takes_no_more_memory_than_a_short_one),
    };
    if (argc > 1)
        many = (int)strtol(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
