/*
 * How a group ends when ranks disagree, stay away or give up. With a third argument this is a rank
 * of a job that ends so, as a launcher sees it.
 */
#include "comm/exchange.h"
#include "runtime/base/clock.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Long enough for a loaded machine to reach a call, short enough to wait for. */
enum { SHORT_MS = 1000, MEDIUM_MS = 2000, JOB_MS = 1500, SLACK_MS = 5000 };
enum { LATER_NS = 150000000 };

/* Room for every row of every rank. */
static tsr_exchange_shape shape_of(const rank_run *run)
{
    return (tsr_exchange_shape){4, 4 * run->size, 2, 16, 16};
}

static tsr_exchange *open_exchange(rank_run *run)
{
    const tsr_exchange_shape shape = shape_of(run);
    tsr_exchange *exchange = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &exchange));
    rank_last_after_all(run);
    return exchange;
}

static void begin(rank_run *run, tsr_exchange *exchange, uint64_t step)
{
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(exchange, step, run->rows.stream));
}

/* A dispatch of the first rows, with whatever is in them. */
static tsr_status send(const rank_run *run, tsr_exchange *exchange, int32_t tokens)
{
    const tsr_status st = tsr_exchange_dispatch(exchange, tokens, run->rows.stream);
    return st == TSR_OK ? tsr_exchange_wait(exchange, run->rows.stream) : st;
}

/* Every slot of every row names this rank. */
static void name_rank(rank_run *run, tsr_exchange *exchange, int32_t rank)
{
    const tsr_exchange_shape shape = shape_of(run);
    int32_t ranks[8];
    for (int32_t i = 0; i < shape.max_tokens * shape.slots; i++)
        ranks[i] = rank;
    RANK_STATUS(
        run, TSR_OK,
        rows_put(&run->rows, tsr_exchange_buffers_of(exchange).send_ranks, ranks, sizeof(ranks)));
}

/* On every rank, and whoever says so says both. */
static void check_mismatch(rank_run *run, tsr_status st, const char *here, const char *there)
{
    RANK_STATUS(run, TSR_ERR_MISMATCH, st);
    RANK_STATUS(run, TSR_ERR_MISMATCH, tsr_comm_cause(run->comm));
    RANK_STATUS(run, TSR_ERR_PEER, tsr_comm_barrier(run->comm));
    RANK_CHECK(run, run->log[0] == '\0' ||
                        (strstr(run->log, here) != NULL && strstr(run->log, there) != NULL));
}

static void step_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    begin(run, exchange, rank_is_last(run) ? 8 : 7);
    check_mismatch(run, send(run, exchange, 0), "step 7 stage 0", "step 8 stage 0");
    tsr_exchange_close(exchange);
}

/* The last rank begins the step once more. */
static void stage_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    begin(run, exchange, 7);
    for (int i = 0; i < 2; i++)
        RANK_STATUS(run, TSR_OK, send(run, exchange, 0));
    if (rank_is_last(run))
        begin(run, exchange, 7);
    check_mismatch(run, send(run, exchange, 0), "step 7 stage 2", "step 7 stage 0");
    tsr_exchange_close(exchange);
}

static void another_step_or_stage_is_a_mismatch_on_every_rank(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, step_body);
    ranks_run_several(DEADLINE_MS, stage_body);
}

static void check_shape(rank_run *run, tsr_exchange_shape mine)
{
    tsr_exchange *exchange = NULL;
    RANK_STATUS(run, TSR_ERR_MISMATCH, tsr_exchange_open(run->comm, &mine, &exchange));
    RANK_CHECK(run, exchange == NULL);
    RANK_STATUS(run, TSR_ERR_MISMATCH, tsr_comm_cause(run->comm));
}

static void slots_body(rank_run *run)
{
    tsr_exchange_shape mine = shape_of(run);
    if (rank_is_last(run))
        mine.slots++;
    check_shape(run, mine);
}

static void arrivals_body(rank_run *run)
{
    tsr_exchange_shape mine = shape_of(run);
    if (rank_is_last(run))
        mine.max_arrivals--;
    check_shape(run, mine);
}

static void another_shape_is_a_mismatch_on_every_rank(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, slots_body);
    ranks_run_several(DEADLINE_MS, arrivals_body);
}

static void call_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    begin(run, exchange, 1);
    RANK_STATUS(run, TSR_ERR_MISMATCH,
                rank_is_last(run) ? tsr_comm_barrier(run->comm) : send(run, exchange, 0));
    tsr_exchange_close(exchange);
}

static void another_call_is_a_mismatch_on_every_rank(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, call_body);
}

static void size_body(rank_run *run)
{
    unsigned char data[64] = {0};
    const tsr_status st = tsr_comm_broadcast(run->comm, 0, data, rank_is_last(run) ? 32 : 64);
    RANK_CHECK(run, st == TSR_OK || st == TSR_ERR_MISMATCH || st == TSR_ERR_PEER);
    if (rank_is_last(run))
        RANK_STATUS(run, TSR_ERR_MISMATCH, st);
    RANK_STATUS(run, TSR_ERR_PEER, tsr_comm_barrier(run->comm));
    RANK_STATUS(run, TSR_ERR_MISMATCH, tsr_comm_cause(run->comm));
}

static void another_number_of_bytes_is_a_mismatch(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, size_body);
}

/* Those who came: the first to notice names who did not, the others hear of it. */
static void check_timeout(rank_run *run, tsr_status st, int64_t begun)
{
    char missing[64];
    (void)snprintf(missing, sizeof(missing), "rank %d did not come within %d ms", run->size - 1,
                   SHORT_MS);
    RANK_CHECK(run, st == TSR_ERR_TIMEOUT || st == TSR_ERR_PEER);
    RANK_CHECK(run, (st == TSR_ERR_TIMEOUT) == (strstr(run->log, missing) != NULL));
    RANK_CHECK(run, tsr_clock_ms() - begun < SHORT_MS + SLACK_MS);
    RANK_STATUS(run, TSR_ERR_TIMEOUT, tsr_comm_cause(run->comm));
}

static void missing_in_dispatch_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    begin(run, exchange, 1);
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, rank_until_the_end(run));
    } else {
        const int64_t begun = tsr_clock_ms();
        check_timeout(run, send(run, exchange, 0), begun);
    }
    tsr_exchange_close(exchange);
}

static void missing_in_return_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    begin(run, exchange, 1);
    name_rank(run, exchange, run->size - 1);
    RANK_STATUS(run, TSR_OK, send(run, exchange, 1));
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, rank_until_the_end(run));
    } else {
        const int64_t begun = tsr_clock_ms();
        RANK_STATUS(run, TSR_OK, tsr_exchange_return(exchange, run->rows.stream));
        check_timeout(run, tsr_exchange_wait(exchange, run->rows.stream), begun);
    }
    tsr_exchange_close(exchange);
}

static void missing_root_body(rank_run *run)
{
    uint64_t told = 0;
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, rank_until_the_end(run));
    } else {
        const int64_t begun = tsr_clock_ms();
        check_timeout(run, tsr_comm_broadcast(run->comm, run->size - 1, &told, sizeof(told)),
                      begun);
    }
}

static void missing_in_gather_body(rank_run *run)
{
    size_t bytes_of[64];
    uint64_t recv[64];
    const uint64_t send = 1;
    for (int32_t r = 0; r < run->size; r++)
        bytes_of[r] = sizeof(send);
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, rank_until_the_end(run));
        return;
    }
    const int64_t begun = tsr_clock_ms();
    tsr_status st = tsr_comm_gather(run->comm, 0, &send, bytes_of, recv);
    if (st == TSR_OK && run->rank != 0) /* whoever only sends may be through */
        st = rank_until_the_end(run) == TSR_ERR_TIMEOUT ? TSR_ERR_PEER : TSR_ERR_INTERNAL;
    check_timeout(run, st, begun);
}

/* Rank 0, which the others wait for, has begun to wait for the last rank a little later than they:
 * nobody may take it for the one that does not come. */
static void missing_behind_the_root_body(rank_run *run)
{
    const struct timespec later = {.tv_nsec = LATER_NS};
    size_t bytes_of[64] = {0};
    uint64_t word = 1;
    bytes_of[run->size - 1] = sizeof(word);
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, rank_until_the_end(run));
        return;
    }
    if (run->rank == 0)
        (void)nanosleep(&later, NULL);
    tsr_status st = tsr_comm_gather(run->comm, 0, NULL, bytes_of, &word);
    if (st == TSR_OK)
        st = tsr_comm_broadcast(run->comm, 0, &word, sizeof(word));
    RANK_CHECK(run, st == TSR_ERR_TIMEOUT || st == TSR_ERR_PEER);
    RANK_CHECK(run, strstr(run->log, "rank 0 did not come") == NULL);
    RANK_STATUS(run, TSR_ERR_TIMEOUT, tsr_comm_cause(run->comm));
}

static void a_rank_that_never_comes_is_named_within_the_deadline(void **state)
{
    (void)state;
    ranks_run_several(MEDIUM_MS, missing_behind_the_root_body);
    ranks_run_several(SHORT_MS, missing_in_dispatch_body);
    ranks_run_several(SHORT_MS, missing_in_return_body);
    ranks_run_several(SHORT_MS, missing_root_body);
    ranks_run_several(SHORT_MS, missing_in_gather_body);
}

static void abort_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    begin(run, exchange, 3);
    if (rank_is_last(run)) {
        tsr_comm_abort(run->comm, TSR_ERR_CHECKPOINT);
        tsr_comm_abort(run->comm, TSR_ERR_CAPACITY);
    } else {
        const int64_t begun = tsr_clock_ms();
        RANK_STATUS(run, TSR_ERR_PEER, send(run, exchange, 0));
        RANK_CHECK(run, tsr_clock_ms() - begun < SLACK_MS);
    }
    RANK_STATUS(run, TSR_ERR_CHECKPOINT, tsr_comm_cause(run->comm));
    RANK_STATUS(run, TSR_ERR_PEER, tsr_comm_barrier(run->comm));
    tsr_exchange_close(exchange);
}

static void an_abort_ends_every_peers_call_with_its_first_cause(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, abort_body);
}

/* Peers may be copying from the rank that leaves: only its buffers' lifetime is at stake. */
static void leave_body(rank_run *run)
{
    const tsr_exchange_shape shape = shape_of(run);
    const unsigned char row[64] = {1};
    int32_t ranks[8];
    tsr_exchange *exchange = open_exchange(run);
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(exchange);
    begin(run, exchange, 4);
    for (int32_t i = 0; i < shape.max_tokens * shape.slots; i++)
        ranks[i] = i % run->size;
    RANK_STATUS(run, TSR_OK, rows_put(&run->rows, b.send_rows, row, sizeof(row)));
    RANK_STATUS(run, TSR_OK, rows_put(&run->rows, b.send_ranks, ranks, sizeof(ranks)));
    tsr_status st = tsr_exchange_dispatch(exchange, shape.max_tokens, run->rows.stream);
    if (st == TSR_OK && !rank_is_last(run))
        st = tsr_exchange_wait(exchange, run->rows.stream);
    RANK_CHECK(run, st == TSR_OK || (st == TSR_ERR_PEER && !rank_is_last(run)));
    tsr_exchange_close(exchange);
    if (rank_is_last(run))
        RANK_STATUS(run, TSR_ERR_INTERNAL, tsr_comm_cause(run->comm));
}

static void closing_what_was_started_ends_the_group(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, leave_body);
}

static void argument_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    begin(run, exchange, 5);
    name_rank(run, exchange, rank_is_last(run) ? run->size : 0);
    const tsr_status st = send(run, exchange, 1);
    char said[80];
    (void)snprintf(said, sizeof(said), "row 0 slot 0 names rank %d of a group of %d", run->size,
                   run->size);
    RANK_STATUS(run, rank_is_last(run) ? TSR_ERR_ARG : TSR_ERR_PEER, st);
    RANK_CHECK(run, !rank_is_last(run) || strstr(run->log, said) != NULL);
    RANK_STATUS(run, TSR_ERR_ARG, tsr_comm_cause(run->comm));
    tsr_exchange_close(exchange);
}

static void a_rank_beyond_the_group_is_refused(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, argument_body);
}

/* All ranks send everything to the last, which has room for one row less. */
static void overflow_body(rank_run *run)
{
    tsr_exchange_shape shape = shape_of(run);
    tsr_exchange *exchange = NULL;
    char said[128];
    shape.max_arrivals--;
    (void)snprintf(said, sizeof(said),
                   "dispatch of step 9 stage 0: %d rows come to this rank, the exchange has room "
                   "for %d arrivals",
                   shape.max_arrivals + 1, shape.max_arrivals);
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &exchange));
    begin(run, exchange, 9);
    name_rank(run, exchange, run->size - 1);
    const tsr_status st = send(run, exchange, shape.max_tokens);
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_ERR_CAPACITY, st);
        RANK_CHECK(run, strstr(run->log, said) != NULL);
    } else {
        RANK_CHECK(run, st == TSR_OK || st == TSR_ERR_PEER); /* as far as it had heard */
        RANK_STATUS(run, TSR_ERR_CAPACITY, rank_until_the_end(run));
    }
    RANK_STATUS(run, TSR_ERR_PEER, tsr_comm_barrier(run->comm));
    tsr_exchange_close(exchange);
}

static void more_rows_than_there_is_room_for_end_the_group(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, overflow_body);
}

/* Who waits for a device hears of the end by polling. */
static void poll_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    begin(run, exchange, 2);
    if (rank_is_last(run))
        tsr_comm_abort(run->comm, TSR_ERR_DEVICE);
    tsr_status st = TSR_OK;
    while (st == TSR_OK)
        st = tsr_exchange_poll(exchange);
    RANK_STATUS(run, TSR_ERR_PEER, st);
    RANK_STATUS(run, TSR_ERR_DEVICE, tsr_comm_cause(run->comm));
    tsr_exchange_close(exchange);
}

static void a_poll_hears_of_the_end(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, poll_body);
}

static void too_many_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    begin(run, exchange, 6);
    if (rank_is_last(run))
        RANK_STATUS(
            run, TSR_ERR_ARG,
            tsr_exchange_dispatch(exchange, shape_of(run).max_tokens + 1, run->rows.stream));
    tsr_exchange_close(exchange);
}

static void dispatch_without_step_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    if (rank_is_last(run))
        RANK_STATUS(run, TSR_ERR_ARG, tsr_exchange_dispatch(exchange, 0, run->rows.stream));
    tsr_exchange_close(exchange);
}

static void wait_without_start_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    if (rank_is_last(run))
        RANK_STATUS(run, TSR_ERR_ARG, tsr_exchange_wait(exchange, run->rows.stream));
    tsr_exchange_close(exchange);
}

static void return_without_rows_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    if (rank_is_last(run))
        RANK_STATUS(run, TSR_ERR_ARG, tsr_exchange_return(exchange, run->rows.stream));
    tsr_exchange_close(exchange);
}

static void no_such_root_body(rank_run *run)
{
    RANK_STATUS(run, TSR_ERR_ARG, tsr_comm_broadcast(run->comm, run->size, NULL, 0));
}

static void bad_shape_body(rank_run *run)
{
    const tsr_exchange_shape shapes[] = {
        {0, 1, 1, 16, 16},
        {1, 1, 0, 16, 16},
        {1, 1, 1, 0, 16},
        {1, 1, 1, 24, 16},
        {1, 1, 1, 16, 8},
        {1, 0, 1, 16, 16},
        {1, run->size + 1, 1, 16, 16},
        {1 << 30, 1, 2, 16, 16},
        {1 << 29, 1 << 29, 4, 16, 16},
    };
    tsr_exchange *exchange = NULL;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        RANK_STATUS(run, TSR_ERR_ARG, tsr_exchange_open(run->comm, &shapes[i], &exchange));
    RANK_CHECK(run, exchange == NULL);
}

static void calls_out_of_order_or_bounds_are_refused(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, too_many_body);
    ranks_run(DEADLINE_MS, dispatch_without_step_body);
    ranks_run(DEADLINE_MS, wait_without_start_body);
    ranks_run(DEADLINE_MS, return_without_rows_body);
    ranks_run(DEADLINE_MS, no_such_root_body);
    ranks_run(DEADLINE_MS, bad_shape_body);
}

/* What `tessera` does with a group that ended: everybody exits with the cause's code. */
static int end_job(const char *how)
{
    rank_run run = {0};
    const tsr_status opened = tsr_comm_open_mpi(JOB_MS, NULL, &run.comm);
    if (opened != TSR_OK)
        return tsr_status_exit_code(opened); /* the cause of a rank that was quicker */
    run.rank = tsr_comm_rank(run.comm);
    run.size = tsr_comm_size(run.comm);
    if (rank_is_last(&run) && strcmp(how, "stops") == 0)
        (void)raise(SIGSTOP);
    if (rank_is_last(&run) && strcmp(how, "stays-away") == 0)
        (void)rank_until_the_end(&run);
    if (rank_is_last(&run) && strcmp(how, "gives-up") == 0)
        tsr_comm_abort(run.comm, TSR_ERR_CHECKPOINT);

    const tsr_status st = tsr_comm_barrier(run.comm);
    const tsr_status cause = tsr_comm_cause(run.comm);
    tsr_comm_close(run.comm);
    return tsr_status_exit_code(st == TSR_ERR_PEER ? cause : st);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_step_or_stage_is_a_mismatch_on_every_rank),
        cmocka_unit_test(another_shape_is_a_mismatch_on_every_rank),
        cmocka_unit_test(another_call_is_a_mismatch_on_every_rank),
        cmocka_unit_test(another_number_of_bytes_is_a_mismatch),
        cmocka_unit_test(a_rank_that_never_comes_is_named_within_the_deadline),
        cmocka_unit_test(an_abort_ends_every_peers_call_with_its_first_cause),
        cmocka_unit_test(closing_what_was_started_ends_the_group),
        cmocka_unit_test(a_rank_beyond_the_group_is_refused),
        cmocka_unit_test(more_rows_than_there_is_room_for_end_the_group),
        cmocka_unit_test(a_poll_hears_of_the_end),
        cmocka_unit_test(calls_out_of_order_or_bounds_are_refused),
    };
    if (argc > 2)
        return end_job(argv[2]);
    if (!ranks_begin(argc, argv))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ranks_end();
    return failed;
}
