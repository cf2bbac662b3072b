/* The guard over calls that have no deadline: it ends a process that is late, and no other. And who is
 * there, asked beside MPI. */
#include "comm/mpi_guard.h"
#include "comm/roll_call.h"
#include "tests/test.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT_MS = 50, LATE_S = 20, WRONG_CODE = 77 };

/* Waits in a guarded call in a process of its own. Its exit code, and what it said. */
static int exit_code_of_a_call(int32_t limit_ms, time_t seconds, char *said, size_t capacity)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct timespec call = {.tv_sec = seconds};
        const tsr_mpi_guarded guarded = {
            .what = "the call", .limit_ms = limit_ms, .cause = TSR_ERR_INIT};
        tsr_mpi_guard *guard = NULL;
        if (dup2(ends[1], STDERR_FILENO) < 0 ||
            tsr_mpi_guard_start(&guarded, NULL, &guard) != TSR_OK)
            _exit(WRONG_CODE);
        (void)nanosleep(&call, NULL);
        tsr_mpi_guard_stop(guard);
        _exit(0);
    }

    (void)close(ends[1]);
    const ssize_t count = read(ends[0], said, capacity - 1);
    said[count > 0 ? count : 0] = '\0';
    (void)close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_call_that_takes_too_long_ends_the_process(void **state)
{
    (void)state;
    char said[256];
    assert_int_equal(exit_code_of_a_call(LIMIT_MS, LATE_S, said, sizeof(said)),
                     tsr_status_exit_code(TSR_ERR_INIT));
    assert_non_null(strstr(said, "the call: some rank did not come within 50 ms"));
}

static void a_call_that_returns_in_time_goes_on_in_silence(void **state)
{
    (void)state;
    char said[256];
    assert_int_equal(exit_code_of_a_call(LATE_S * 1000, 0, said, sizeof(said)), 0);
    assert_string_equal(said, "");
}

/* Opens the roll call as rank 0, says so, and stays until it is killed. */
static pid_t start_rank_0(const tsr_launched *launched)
{
    int ends[2];
    char word = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        tsr_launched own = *launched;
        own.local_rank = 0;
        if (tsr_roll_call_open(&own) == NULL || write(ends[1], "!", 1) != 1)
            _exit(WRONG_CODE);
        for (;;)
            (void)pause();
    }
    assert_int_equal(read(ends[0], &word, 1), 1);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return child;
}

static void a_rank_that_is_killed_has_left(void **state)
{
    (void)state;
    char job[32];
    (void)snprintf(job, sizeof(job), "guard.%d", (int)getpid());
    const tsr_launched launched = {.job = job, .size = 2, .local_rank = 1, .local_size = 2};
    const tsr_launched spread = {.job = job, .size = 4, .local_rank = 1, .local_size = 2};
    const pid_t child = start_rank_0(&launched);
    tsr_roll_call *call = tsr_roll_call_open(&launched);

    assert_non_null(call);
    assert_false(tsr_roll_call_has_left(call, 0));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(tsr_roll_call_has_left(call, 0));
    tsr_roll_call_close(call);

    tsr_roll_call *other = tsr_roll_call_open(&spread); /* rank 0 may be on another host */
    assert_non_null(other);
    assert_false(tsr_roll_call_has_left(other, 0));
    tsr_roll_call_close(other);
    assert_false(tsr_roll_call_has_left(NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_takes_too_long_ends_the_process),
        cmocka_unit_test(a_call_that_returns_in_time_goes_on_in_silence),
        cmocka_unit_test(a_rank_that_is_killed_has_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
