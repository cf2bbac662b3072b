/*
 * What an exchange tells of itself: where the work is, and for whom it has waited. One body for every
 * exchange, as in test_exchange.
 */
#include "comm/exchange.h"
#include "runtime/base/clock.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <string.h>
#include <time.h>

enum { TEXT_MS = 2000, LATE_MS = 200 };

/* On a GPU an exchange tells where the work is, which comes there in its own time. */
static void expect_text(rank_run *run, const tsr_exchange *exchange, const char *expected)
{
    const int64_t until = tsr_clock_ms() + (ranks_have_cards() ? TEXT_MS : 0);
    char text[TSR_EXCHANGE_TEXT_BYTES];
    do
        (void)tsr_exchange_text(exchange, sizeof(text), text);
    while (strcmp(text, expected) != 0 && tsr_clock_ms() < until);
    RANK_CHECK(run, strcmp(text, expected) == 0);
}

static void text_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, run->size, 1, 16, 16};
    const tsr_stream s = run->rows.stream;
    tsr_exchange *x = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &x));
    expect_text(run, x, "start");
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(x, 6, s));
    expect_text(run, x, "start of step 6");
    for (int i = 0; i < 2; i++) {
        RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(x, 0, s));
        RANK_STATUS(run, TSR_OK, tsr_exchange_poll(x));
        RANK_STATUS(run, TSR_OK, tsr_exchange_wait(x, s));
    }
    expect_text(run, x, "arrival of step 6 stage 1");
    RANK_STATUS(run, TSR_OK, tsr_exchange_return(x, s));
    if (!ranks_have_cards()) /* by now a GPU is at the end */
        expect_text(run, x, "return of step 6 stage 1");
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(x, s));
    expect_text(run, x, "end of step 6 stage 1");
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(x, 7, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(x, 0, s));
    if (!ranks_have_cards()) /* likewise at the arrival */
        expect_text(run, x, "dispatch of step 7 stage 0");
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(x, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_poll(x));
    expect_text(run, x, "arrival of step 7 stage 0");
    tsr_exchange_close(x);
}

static void stages_of_a_step_count_from_0_and_are_told(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, text_body);
}

/* The last rank comes late to a dispatch: the others know that it was this one. */
static void late_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, run->size, 1, 16, 16};
    const struct timespec late = {.tv_nsec = (long)LATE_MS * 1000000};
    const int64_t late_ns = (int64_t)LATE_MS * 1000000;
    const tsr_stream s = run->rows.stream;
    tsr_exchange *x = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &x));
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(x, 1, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_expect(x, 0));
    if (rank_is_last(run))
        (void)nanosleep(&late, NULL);
    RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(x, 0, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(x, s));

    int32_t count = -1; /* once it can be read, a GPU has waited as well */
    RANK_STATUS(
        run, TSR_OK,
        rows_get(&run->rows, &count, tsr_exchange_buffers_of(x).arrived_count, sizeof(count)));

    const int64_t *waited_ns = tsr_exchange_waited_ns(x);
    RANK_CHECK(run, count == 0 && (waited_ns == NULL) == (run->size == 1));
    for (int32_t r = 0; waited_ns != NULL && r < run->size; r++) {
        const bool for_the_late = r == run->size - 1 && !rank_is_last(run);
        RANK_CHECK(run, for_the_late ? waited_ns[r] > late_ns / 2 : waited_ns[r] < late_ns);
    }
    tsr_exchange_close(x);
}

static void who_is_waited_for_is_known(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, late_body);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_of_a_step_count_from_0_and_are_told),
        cmocka_unit_test(who_is_waited_for_is_known),
    };
    if (!ranks_begin(argc, argv))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ranks_end();
    return failed;
}
