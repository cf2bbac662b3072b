#include "kernels/cpu/threads_cpu.h"

#include "tests/test.h"

#include <time.h>

enum { ITEMS = 1000, MOST = 9 };

typedef struct counts {
    int32_t *of_item;   /* [ITEMS] how often each was met */
    int32_t *of_thread; /* [MOST] */
} counts;

static void count_share(const void *context, int32_t thread, int32_t threads)
{
    const counts *c = context;
    const tsr_thread_range mine = tsr_thread_share(ITEMS, thread, threads);

    c->of_thread[thread]++;
    for (int64_t i = mine.first; i < mine.last; i++)
        c->of_item[i]++;
}

static void every_item_is_met_once_by_any_number_of_threads(void **state)
{
    (void)state;
    for (int32_t threads = 1; threads <= MOST; threads += 2) {
        tsr_threads *team = NULL;
        int32_t of_item[ITEMS] = {0};
        int32_t of_thread[MOST] = {0};
        const counts c = {of_item, of_thread};

        ASSERT_STATUS(TSR_OK, tsr_threads_open(threads, &team));
        assert_int_equal(threads, tsr_threads_count(team));
        for (int run = 0; run < 300; run++)
            tsr_threads_run(team, ITEMS, count_share, &c);
        for (int i = 0; i < ITEMS; i++)
            assert_int_equal(300, of_item[i]);
        for (int i = 0; i < threads; i++)
            assert_int_equal(300, of_thread[i]);
        tsr_threads_close(team);
    }
}

static void fewer_ways_than_threads_use_as_many(void **state)
{
    tsr_threads *team = NULL;
    int32_t of_item[ITEMS] = {0};
    int32_t of_thread[MOST] = {0};
    const counts c = {of_item, of_thread};

    (void)state;
    ASSERT_STATUS(TSR_OK, tsr_threads_open(4, &team));
    tsr_threads_run(team, 2, count_share, &c);
    tsr_threads_run(team, 1, count_share, &c);
    for (int i = 0; i < ITEMS; i++)
        assert_int_equal(2, of_item[i]);
    assert_int_equal(2, of_thread[0]);
    assert_int_equal(1, of_thread[1]);
    assert_int_equal(0, of_thread[2]);
    tsr_threads_close(team);
}

static void dawdle(void)
{
    const struct timespec longer_than_anybody_looks = {.tv_nsec = 1000000};
    (void)nanosleep(&longer_than_anybody_looks, NULL);
}

static void count_late(const void *context, int32_t thread, int32_t threads)
{
    if (thread == threads - 1)
        dawdle();
    count_share(context, thread, threads);
}

static void who_sleeps_is_woken(void **state)
{
    tsr_threads *team = NULL;
    int32_t of_item[ITEMS] = {0};
    int32_t of_thread[MOST] = {0};
    const counts c = {of_item, of_thread};

    (void)state;
    ASSERT_STATUS(TSR_OK, tsr_threads_open(3, &team));
    for (int run = 0; run < 20; run++) {
        dawdle();
        tsr_threads_run(team, run % 2 + 2, count_late, &c);
    }
    for (int i = 0; i < ITEMS; i++)
        assert_int_equal(20, of_item[i]);
    assert_int_equal(20, of_thread[1]);
    assert_int_equal(10, of_thread[2]);
    tsr_threads_close(team);
}

static void a_team_that_never_ran_closes(void **state)
{
    tsr_threads *team = NULL;

    (void)state;
    ASSERT_STATUS(TSR_OK, tsr_threads_open(3, &team));
    tsr_threads_close(team);
    tsr_threads_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_met_once_by_any_number_of_threads),
        cmocka_unit_test(fewer_ways_than_threads_use_as_many),
        cmocka_unit_test(who_sleeps_is_woken),
        cmocka_unit_test(a_team_that_never_ran_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
