/* Who gets which row: the drawing of exchange_plan.h, and its edges. */
#include "comm/exchange_plan.h"
#include "tests/test.h"

enum { RANKS = 4, ROWS = 3, SLOTS = 3 };

static const int32_t drawn[ROWS * SLOTS] = {1, 1, -1, -1, 0, 3, 0, 1, 1};

static void rows_are_listed_once_per_rank_in_order(void **state)
{
    (void)state;
    int32_t row_first[RANKS + 1];
    int32_t rows[ROWS * SLOTS];
    int32_t answer_first[RANKS + 1];
    int32_t answers[ROWS * SLOTS];
    tsr_send_plan plan = {row_first, rows, answer_first, answers};
    ASSERT_STATUS(TSR_OK, tsr_send_plan_build(RANKS, ROWS, SLOTS, drawn, &plan));

    const int32_t expected_row_first[] = {0, 2, 4, 4, 5};
    const int32_t expected_rows[] = {1, 2, 0, 2, 1};
    const int32_t expected_answer_first[] = {0, 2, 6, 6, 7};
    const int32_t expected_answers[] = {4, 6, 0, 1, 7, 8, 5};
    assert_memory_equal(expected_row_first, row_first, sizeof(expected_row_first));
    assert_memory_equal(expected_rows, rows, sizeof(expected_rows));
    assert_memory_equal(expected_answer_first, answer_first, sizeof(expected_answer_first));
    assert_memory_equal(expected_answers, answers, sizeof(expected_answers));
}

static void no_rows_make_an_empty_plan(void **state)
{
    (void)state;
    int32_t row_first[RANKS + 1];
    int32_t answer_first[RANKS + 1];
    int32_t none[1];
    tsr_send_plan plan = {row_first, none, answer_first, none};
    ASSERT_STATUS(TSR_OK, tsr_send_plan_build(RANKS, 0, SLOTS, drawn, &plan));
    for (int r = 0; r <= RANKS; r++) {
        assert_int_equal(0, row_first[r]);
        assert_int_equal(0, answer_first[r]);
    }
}

static void a_rank_outside_the_group_is_refused(void **state)
{
    (void)state;
    int32_t row_first[RANKS + 1];
    int32_t rows[2];
    int32_t answer_first[RANKS + 1];
    int32_t answers[2];
    tsr_send_plan plan = {row_first, rows, answer_first, answers};
    const int32_t beyond[] = {0, RANKS};
    const int32_t below[] = {0, -2};
    ASSERT_STATUS(TSR_ERR_ARG, tsr_send_plan_build(RANKS, 1, 2, beyond, &plan));
    ASSERT_STATUS(TSR_ERR_ARG, tsr_send_plan_build(RANKS, 1, 2, below, &plan));
}

static void answers_are_numbered_by_source_row_and_slot(void **state)
{
    (void)state;
    /* Rank 1 of the drawing: rows 0 and 2 of rank 0, then row 1 of rank 2. */
    const int32_t slot_ranks[] = {1, 1, -1, 0, 1, 1, 2, 3, 1};
    const int32_t row_first[] = {0, 2, 2, 3, 3};
    int32_t answer_of[9];
    int32_t answer_first[RANKS + 1];
    const tsr_answer_plan plan = {answer_of, answer_first, row_first, slot_ranks, 1, RANKS, SLOTS};
    tsr_answer_plan_build(&plan);

    const int32_t expected_answer_of[] = {0, 1, -1, -1, 2, 3, -1, -1, 4};
    const int32_t expected_answer_first[] = {0, 4, 4, 5, 5};
    assert_memory_equal(expected_answer_of, answer_of, sizeof(answer_of));
    assert_memory_equal(expected_answer_first, answer_first, sizeof(answer_first));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_listed_once_per_rank_in_order),
        cmocka_unit_test(no_rows_make_an_empty_plan),
        cmocka_unit_test(a_rank_outside_the_group_is_refused),
        cmocka_unit_test(answers_are_numbered_by_source_row_and_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
