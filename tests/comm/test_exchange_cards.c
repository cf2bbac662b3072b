/*
 * What an exchange between GPUs finds wrong while the host is elsewhere: calls return at once, and
 * who polls hears of it. And answers that kernels store where they return to.
 */
#include "comm/exchange.h"
#include "tests/comm/keyed_bytes.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POLL_NS = 1000000, A_WHILE = 300 };

/* Until the exchange says that something is wrong, which may be as soon as it is waited for. */
static tsr_status wait_until_wrong(tsr_exchange *x, tsr_stream stream)
{
    const struct timespec poll = {.tv_nsec = POLL_NS};
    tsr_status st = tsr_exchange_wait(x, stream);
    while (st == TSR_OK) {
        (void)nanosleep(&poll, NULL);
        st = tsr_exchange_poll(x);
    }
    return st;
}

static void close_group(rank_run *run, tsr_exchange *x)
{
    tsr_exchange_drain(x, run->rows.stream);
    tsr_exchange_close(x);
}

/* Four rows of each rank, all to the last, which has room for three. */
static void overflow_body(rank_run *run)
{
    const tsr_exchange_shape shape = {4, 3, 1, 16, 16};
    const int32_t last = run->size - 1;
    const int32_t ranks[] = {last, last, last, last};
    const tsr_stream s = run->rows.stream;
    tsr_exchange *x = NULL;
    int32_t count = -1;

    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &x));
    if (x == NULL)
        return;
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(x);
    RANK_STATUS(run, TSR_OK, rows_put(&run->rows, b.send_ranks, ranks, sizeof(ranks)));
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(x, 5, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(x, 4, s));
    const tsr_status found = wait_until_wrong(x, s);
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_ERR_CAPACITY, found);
        RANK_CHECK(run, strstr(run->log, "dispatch of step 5 stage 0: ") != NULL);
        RANK_CHECK(run, strstr(run->log, "the exchange has room for 3 arrivals") != NULL);
    }
    RANK_STATUS(run, TSR_ERR_CAPACITY, rank_until_the_end(run));
    RANK_STATUS(run, TSR_ERR_PEER, tsr_exchange_poll(x));
    RANK_STATUS(run, TSR_OK, rows_get(&run->rows, &count, b.arrived_count, sizeof(count)));
    RANK_CHECK(run, count == 0);
    close_group(run, x);
}

static void more_than_there_is_room_for_ends_the_group(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, overflow_body);
}

static void no_rank_body(rank_run *run)
{
    const tsr_exchange_shape shape = {4, 8, 2, 16, 16};
    const int32_t ranks[] = {-1, -1, 0, 0, -1, run->size, 0, 0};
    const tsr_stream s = run->rows.stream;
    tsr_exchange *x = NULL;

    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &x));
    if (x == NULL)
        return;
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(x);
    RANK_STATUS(run, TSR_OK, rows_put(&run->rows, b.send_ranks, ranks, sizeof(ranks)));
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(x, 5, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(x, rank_is_last(run) ? 4 : 2, s));
    const tsr_status found = wait_until_wrong(x, s);
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_ERR_ARG, found);
        RANK_CHECK(run, strstr(run->log, "row 2 slot 1 names rank") != NULL);
    }
    RANK_STATUS(run, TSR_ERR_ARG, rank_until_the_end(run));
    close_group(run, x);
}

static void a_rank_that_is_none_ends_the_group(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, no_rank_body);
}

/* Each finds it out, or hears of it first. */
static void apart_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, run->size, 1, 16, 16};
    const tsr_stream s = run->rows.stream;
    tsr_exchange *x = NULL;

    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &x));
    if (x == NULL)
        return;
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(x, rank_is_last(run) ? 8 : 7, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(x, 0, s));
    const tsr_status found = wait_until_wrong(x, s);
    RANK_CHECK(run, found == TSR_ERR_MISMATCH || found == TSR_ERR_PEER);
    if (found == TSR_ERR_MISMATCH)
        RANK_CHECK(run,
                   strstr(run->log, rank_is_last(run) ? "at dispatch of step 7 stage 0"
                                                      : "at dispatch of step 8 stage 0") != NULL);
    RANK_STATUS(run, TSR_ERR_MISMATCH, rank_until_the_end(run));
    close_group(run, x);
}

static void ranks_at_different_steps_end_the_group(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, apart_body);
}

static void wait_a_while(void)
{
    const struct timespec poll = {.tv_nsec = POLL_NS};

    for (int i = 0; i < A_WHILE; i++)
        (void)nanosleep(&poll, NULL);
}

/* Ends the group when it has been seen what is waited for, and for whom. */
static void give_up(rank_run *run, tsr_exchange *x, const char *what)
{
    char expected[TSR_EXCHANGE_TEXT_BYTES];
    char text[TSR_EXCHANGE_TEXT_BYTES];

    (void)tsr_exchange_text(x, sizeof(text), text);
    (void)snprintf(expected, sizeof(expected), "%s of step 7 stage 0, waiting for rank %d", what,
                   (int)run->size - 1);
    RANK_CHECK(run, strcmp(text, expected) == 0);
    tsr_comm_abort(run->comm, TSR_ERR_TIMEOUT);
}

/* The last rank does not come; who waits can say so, and is let go. */
static void absent_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, run->size, 1, 16, 16};
    const tsr_stream s = run->rows.stream;
    tsr_exchange *x = NULL;

    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &x));
    if (x == NULL)
        return;
    if (!rank_is_last(run)) {
        RANK_STATUS(run, TSR_OK, tsr_exchange_begin(x, 7, s));
        RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(x, 0, s));
        RANK_STATUS(run, TSR_OK, tsr_exchange_wait(x, s));
        wait_a_while();
        const tsr_status polled = tsr_exchange_poll(x); /* another who waits may have ended it */
        RANK_CHECK(run, polled == TSR_OK || polled == TSR_ERR_PEER);
        give_up(run, x, "dispatch");
    }
    RANK_STATUS(run, TSR_ERR_TIMEOUT, rank_until_the_end(run));
    close_group(run, x);
}

static void a_rank_that_does_not_come_is_named(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, absent_body);
}

/* The last rank answers nobody: who takes answers as they come can say so, and is let go. */
static void silent_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, run->size, 2, 16, 16};
    const int32_t ranks[] = {run->rank, run->size - 1};
    const tsr_stream s = run->rows.stream;
    tsr_exchange_coming coming;
    tsr_exchange *x = NULL;

    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &x));
    if (x == NULL)
        return;
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(x);
    RANK_STATUS(run, TSR_OK, rows_put(&run->rows, b.send_ranks, ranks, sizeof(ranks)));
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(x, 7, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(x, 1, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(x, s));
    RANK_CHECK(run, tsr_exchange_hand_over(x, &coming));
    if (!rank_is_last(run)) {
        RANK_STATUS(run, TSR_OK, tsr_exchange_echo(x, &coming, s));
        wait_a_while();
        give_up(run, x, "return");
    }
    RANK_STATUS(run, TSR_ERR_TIMEOUT, rank_until_the_end(run));
    close_group(run, x);
}

static void a_rank_that_does_not_answer_is_named(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, silent_body);
}

/* A shape of another kind is refused by all, before anything is made. */
static void shapes_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, 1, rank_is_last(run) ? 2 : 1, 16, 16};
    tsr_exchange *x = NULL;

    const tsr_status st = tsr_exchange_open(run->comm, &shape, &x);
    RANK_CHECK(run, st == TSR_ERR_MISMATCH || st == TSR_ERR_PEER);
    RANK_STATUS(run, TSR_ERR_MISMATCH, rank_until_the_end(run));
    RANK_CHECK(run, x == NULL);
}

static void another_shape_is_refused(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, shapes_body);
}

/* All on the first GPU, which nobody asked for. */
static void sharing_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, 1, 1, 16, 16};
    tsr_exchange *x = NULL;

    run->memory.card = 0;
    const tsr_status st = tsr_exchange_open(run->comm, &shape, &x);
    RANK_CHECK(run, st == TSR_ERR_DEVICE || st == TSR_ERR_PEER);
    RANK_STATUS(run, TSR_ERR_DEVICE, rank_until_the_end(run));
    RANK_CHECK(run, x == NULL);
}

static void ranks_on_one_gpu_are_refused(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, sharing_body);
}

enum { ECHO_ROWS = 600, ECHO_SLOTS = 3, ECHO_BYTES = 1040, ECHOES = 30, ECHO_FEW = 100 };

static int32_t echo_target(const rank_run *run, int32_t rank, int32_t round, int32_t slot)
{
    return (int32_t)(mix2(mix2((uint64_t)rank, (uint64_t)round), (uint64_t)slot) %
                     (uint64_t)run->size);
}

static bool put_echo_rows(const rank_run *run, const tsr_exchange_buffers *b, int32_t round)
{
    unsigned char *row = malloc((size_t)ECHO_ROWS * ECHO_BYTES);
    int32_t *ranks = malloc(sizeof(*ranks) * ECHO_ROWS * ECHO_SLOTS);
    tsr_status st = row != NULL && ranks != NULL ? TSR_OK : TSR_ERR_MEMORY;

    for (int32_t i = 0; st == TSR_OK && i < ECHO_ROWS; i++)
        fill(row + (size_t)i * ECHO_BYTES, ECHO_BYTES,
             mix2(mix2((uint64_t)run->rank, (uint64_t)round), (uint64_t)i));
    for (int32_t i = 0; st == TSR_OK && i < ECHO_ROWS * ECHO_SLOTS; i++)
        ranks[i] = echo_target(run, run->rank, round, i);
    if (st == TSR_OK)
        st = rows_put(&run->rows, b->send_rows, row, (size_t)ECHO_ROWS * ECHO_BYTES);
    if (st == TSR_OK)
        st = rows_put(&run->rows, b->send_ranks, ranks, sizeof(*ranks) * ECHO_ROWS * ECHO_SLOTS);
    free(ranks);
    free(row);
    return st == TSR_OK;
}

static bool echoes_are_right(const rank_run *run, const tsr_exchange_buffers *b, int32_t round,
                             int32_t tokens)
{
    const size_t bytes = (size_t)ECHO_ROWS * ECHO_SLOTS * ECHO_BYTES;
    unsigned char *seen = malloc(bytes);
    bool right = seen != NULL && rows_get(&run->rows, seen, b->returned_rows, bytes) == TSR_OK;

    for (int32_t i = 0; right && i < tokens * ECHO_SLOTS; i++)
        right = holds(seen + (size_t)i * ECHO_BYTES, ECHO_BYTES,
                      mix2(mix2((uint64_t)run->rank, (uint64_t)round), (uint64_t)(i / ECHO_SLOTS)));
    free(seen);
    return right;
}

/* How many rows a rank sends. */
static int32_t echo_tokens(int32_t rank, int32_t round)
{
    static const int32_t tokens[] = {ECHO_ROWS, 3, 257, 0, 32};

    return tokens[(round + rank) % 5];
}

static int32_t most_echo_tokens(const rank_run *run, int32_t round)
{
    int32_t most = 0;

    for (int32_t r = 0; r < run->size; r++)
        most = echo_tokens(r, round) > most ? echo_tokens(r, round) : most;
    return most;
}

/* Answers to few rows are taken as they come. */
static void echo(rank_run *run, tsr_exchange *x, bool few)
{
    const tsr_stream s = run->rows.stream;
    tsr_exchange_coming coming;
    const bool takes = tsr_exchange_hand_over(x, &coming);

    RANK_CHECK(run, takes == few);
    RANK_STATUS(run, TSR_OK, tsr_exchange_echo(x, takes ? &coming : NULL, s));
    if (takes)
        return;
    RANK_STATUS(run, TSR_OK, tsr_exchange_return(x, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(x, s));
}

/* Kernels store answers on other GPUs, and the host waits for nothing in between. */
static void echo_body(rank_run *run)
{
    const tsr_exchange_shape shape = {ECHO_ROWS, ECHO_ROWS * run->size, ECHO_SLOTS, ECHO_BYTES,
                                      ECHO_BYTES};
    const tsr_stream s = run->rows.stream;
    tsr_exchange *x = NULL;

    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &x));
    if (x == NULL)
        return;
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(x);
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(x, 1, s));
    for (int32_t i = 0; i < ECHOES && run->failures == 0; i++) {
        const int32_t count = echo_tokens(run->rank, i);
        const int32_t most = most_echo_tokens(run, i);
        RANK_CHECK(run, put_echo_rows(run, &b, i));
        RANK_STATUS(run, TSR_OK, tsr_exchange_expect(x, most));
        RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(x, count, s));
        RANK_STATUS(run, TSR_OK, tsr_exchange_wait(x, s));
        echo(run, x, most <= ECHO_FEW);
        RANK_CHECK(run, echoes_are_right(run, &b, i, count));
    }
    close_group(run, x);
}

static void answers_that_kernels_store_elsewhere_are_there(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, echo_body);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_than_there_is_room_for_ends_the_group),
        cmocka_unit_test(a_rank_that_is_none_ends_the_group),
        cmocka_unit_test(ranks_at_different_steps_end_the_group),
        cmocka_unit_test(a_rank_that_does_not_come_is_named),
        cmocka_unit_test(a_rank_that_does_not_answer_is_named),
        cmocka_unit_test(another_shape_is_refused),
        cmocka_unit_test(ranks_on_one_gpu_are_refused),
        cmocka_unit_test(answers_that_kernels_store_elsewhere_are_there),
    };
    if (!ranks_begin(argc, argv))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ranks_end();
    return failed;
}
