/*
 * How a group ends when ranks disagree, stay away or give up. With a third argument this is a rank
 * of a job that ends so, as a launcher sees it.
 */
#include "comm/comm.h"
#include "runtime/base/clock.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Long enough for a loaded machine to reach a call, short enough to wait for. */
enum { SHORT_MS = 1000, MEDIUM_MS = 2000, JOB_MS = 1500, SLACK_MS = 5000 };
enum { POLL_NS = 1000000, LATER_NS = 150000000 };

static const tsr_stream no_stream;
static const tsr_exchange_shape shape = {4, 2, 16, 16};

static bool is_last(const rank_run *run)
{
    return run->rank == run->size - 1;
}

/* The last rank goes on when all have come this far, so that what it does meets them later. */
static void last_after_all(rank_run *run)
{
    size_t bytes_of[64];
    char here[64] = {0};
    for (int32_t r = 0; r < run->size; r++)
        bytes_of[r] = 1;
    RANK_STATUS(run, TSR_OK, tsr_comm_gather(run->comm, run->size - 1, here, bytes_of, here));
}

static tsr_exchange *open_exchange(rank_run *run)
{
    tsr_exchange *exchange = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &exchange));
    last_after_all(run);
    return exchange;
}

/* A dispatch without rows. */
static tsr_status meet(tsr_exchange *exchange, tsr_exchange_mark mark)
{
    const tsr_status st = tsr_exchange_dispatch(exchange, 0, mark, no_stream);
    return st == TSR_OK ? tsr_exchange_wait(exchange, no_stream) : st;
}

/* Stays out of the group until it has ended. */
static tsr_status until_the_end(tsr_comm *comm)
{
    const struct timespec poll = {.tv_nsec = POLL_NS};
    while (tsr_comm_cause(comm) == TSR_OK)
        (void)nanosleep(&poll, NULL);
    return tsr_comm_cause(comm);
}

static void mark_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    const tsr_exchange_mark mark = {.step = is_last(run) ? 8 : 7, .stage = 2};
    RANK_STATUS(run, TSR_ERR_MISMATCH, meet(exchange, mark));
    RANK_STATUS(run, TSR_ERR_MISMATCH, tsr_comm_cause(run->comm));
    RANK_STATUS(run, TSR_ERR_PEER, tsr_comm_barrier(run->comm));
    if (run->log[0] != '\0' || !ranks_are_local())
        RANK_CHECK(run, run->log[0] == '\0' || (strstr(run->log, "step 7 stage 2") != NULL &&
                                                strstr(run->log, "step 8 stage 2") != NULL));
    tsr_exchange_close(exchange);
}

static void another_mark_is_a_mismatch_on_every_rank(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, mark_body);
}

static void shape_body(rank_run *run)
{
    tsr_exchange_shape mine = shape;
    tsr_exchange *exchange = NULL;
    if (is_last(run))
        mine.slots++;
    RANK_STATUS(run, TSR_ERR_MISMATCH, tsr_exchange_open(run->comm, &mine, &exchange));
    RANK_CHECK(run, exchange == NULL);
    RANK_STATUS(run, TSR_ERR_MISMATCH, tsr_comm_cause(run->comm));
}

static void another_shape_is_a_mismatch_on_every_rank(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, shape_body);
}

static void call_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    const tsr_exchange_mark mark = {.step = 1};
    RANK_STATUS(run, TSR_ERR_MISMATCH,
                is_last(run) ? tsr_comm_barrier(run->comm) : meet(exchange, mark));
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
    const tsr_status st = tsr_comm_broadcast(run->comm, 0, data, is_last(run) ? 32 : 64);
    RANK_CHECK(run, st == TSR_OK || st == TSR_ERR_MISMATCH || st == TSR_ERR_PEER);
    if (is_last(run))
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
    const tsr_exchange_mark mark = {.step = 1, .stage = 1};
    if (is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, until_the_end(run->comm));
    } else {
        const int64_t begun = tsr_clock_ms();
        check_timeout(run, meet(exchange, mark), begun);
    }
    tsr_exchange_close(exchange);
}

static void missing_in_return_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(exchange);
    const tsr_exchange_mark mark = {.step = 1, .stage = 1};
    for (int32_t k = 0; k < shape.slots; k++)
        b.send_ranks[k] = run->size - 1;
    RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(exchange, 1, mark, no_stream));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(exchange, no_stream));
    if (is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, until_the_end(run->comm));
    } else {
        const int64_t begun = tsr_clock_ms();
        RANK_STATUS(run, TSR_OK, tsr_exchange_return(exchange, no_stream));
        check_timeout(run, tsr_exchange_wait(exchange, no_stream), begun);
    }
    tsr_exchange_close(exchange);
}

static void missing_root_body(rank_run *run)
{
    uint64_t told = 0;
    if (is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, until_the_end(run->comm));
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
    if (is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, until_the_end(run->comm));
        return;
    }
    const int64_t begun = tsr_clock_ms();
    tsr_status st = tsr_comm_gather(run->comm, 0, &send, bytes_of, recv);
    if (st == TSR_OK && run->rank != 0) /* whoever only sends may be through */
        st = until_the_end(run->comm) == TSR_ERR_TIMEOUT ? TSR_ERR_PEER : TSR_ERR_INTERNAL;
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
    if (is_last(run)) {
        RANK_STATUS(run, TSR_ERR_TIMEOUT, until_the_end(run->comm));
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
    const tsr_exchange_mark mark = {.step = 3};
    if (is_last(run)) {
        tsr_comm_abort(run->comm, TSR_ERR_CHECKPOINT);
        tsr_comm_abort(run->comm, TSR_ERR_CAPACITY);
    } else {
        const int64_t begun = tsr_clock_ms();
        RANK_STATUS(run, TSR_ERR_PEER, meet(exchange, mark));
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
    tsr_exchange *exchange = open_exchange(run);
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(exchange);
    const tsr_exchange_mark mark = {.step = 4};
    memset(b.send_rows, 1, (size_t)shape.max_tokens * shape.row_bytes);
    for (int32_t i = 0; i < shape.max_tokens * shape.slots; i++)
        b.send_ranks[i] = i % run->size;
    tsr_status st = tsr_exchange_dispatch(exchange, shape.max_tokens, mark, no_stream);
    if (st == TSR_OK && !is_last(run))
        st = tsr_exchange_wait(exchange, no_stream);
    RANK_CHECK(run, st == TSR_OK || (st == TSR_ERR_PEER && !is_last(run)));
    tsr_exchange_close(exchange);
    if (is_last(run))
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
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(exchange);
    const tsr_exchange_mark mark = {.step = 5};
    for (int32_t k = 0; k < shape.slots; k++)
        b.send_ranks[k] = is_last(run) ? run->size : 0;
    tsr_status st = tsr_exchange_dispatch(exchange, 1, mark, no_stream);
    if (!is_last(run) && st == TSR_OK)
        st = tsr_exchange_wait(exchange, no_stream);
    RANK_STATUS(run, is_last(run) ? TSR_ERR_ARG : TSR_ERR_PEER, st);
    RANK_STATUS(run, TSR_ERR_ARG, tsr_comm_cause(run->comm));
    tsr_exchange_close(exchange);
}

static void a_rank_beyond_the_group_is_refused(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, argument_body);
}

static void too_many_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    const tsr_exchange_mark mark = {.step = 6};
    if (is_last(run))
        RANK_STATUS(run, TSR_ERR_ARG,
                    tsr_exchange_dispatch(exchange, shape.max_tokens + 1, mark, no_stream));
    tsr_exchange_close(exchange);
}

static void wait_without_start_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    if (is_last(run))
        RANK_STATUS(run, TSR_ERR_ARG, tsr_exchange_wait(exchange, no_stream));
    tsr_exchange_close(exchange);
}

static void return_without_rows_body(rank_run *run)
{
    tsr_exchange *exchange = open_exchange(run);
    if (is_last(run))
        RANK_STATUS(run, TSR_ERR_ARG, tsr_exchange_return(exchange, no_stream));
    tsr_exchange_close(exchange);
}

static void no_such_root_body(rank_run *run)
{
    RANK_STATUS(run, TSR_ERR_ARG, tsr_comm_broadcast(run->comm, run->size, NULL, 0));
}

static void bad_shape_body(rank_run *run)
{
    const tsr_exchange_shape shapes[] = {
        {0, 1, 16, 16}, {1, 0, 16, 16}, {1, 1, 0, 16},
        {1, 1, 24, 16}, {1, 1, 16, 8},  {1 << 30, 2, 16, 16},
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
    ranks_run(DEADLINE_MS, wait_without_start_body);
    ranks_run(DEADLINE_MS, return_without_rows_body);
    ranks_run(DEADLINE_MS, no_such_root_body);
    ranks_run(DEADLINE_MS, bad_shape_body);
}

/* What `tessera` does with a group that ended: everybody exits with the cause's code. */
static int end_job(const char *how)
{
    rank_run run = {0};
    const tsr_status opened = tsr_comm_open_mpi(JOB_MS, &run.comm);
    if (opened != TSR_OK)
        return tsr_status_exit_code(opened); /* the cause of a rank that was quicker */
    run.rank = tsr_comm_rank(run.comm);
    run.size = tsr_comm_size(run.comm);
    if (is_last(&run) && strcmp(how, "stops") == 0)
        (void)raise(SIGSTOP);
    if (is_last(&run) && strcmp(how, "stays-away") == 0)
        (void)until_the_end(run.comm);
    if (is_last(&run) && strcmp(how, "gives-up") == 0)
        tsr_comm_abort(run.comm, TSR_ERR_CHECKPOINT);

    const tsr_status st = tsr_comm_barrier(run.comm);
    const tsr_status cause = tsr_comm_cause(run.comm);
    tsr_comm_close(run.comm);
    return tsr_status_exit_code(st == TSR_ERR_PEER ? cause : st);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_mark_is_a_mismatch_on_every_rank),
        cmocka_unit_test(another_shape_is_a_mismatch_on_every_rank),
        cmocka_unit_test(another_call_is_a_mismatch_on_every_rank),
        cmocka_unit_test(another_number_of_bytes_is_a_mismatch),
        cmocka_unit_test(a_rank_that_never_comes_is_named_within_the_deadline),
        cmocka_unit_test(an_abort_ends_every_peers_call_with_its_first_cause),
        cmocka_unit_test(closing_what_was_started_ends_the_group),
        cmocka_unit_test(a_rank_beyond_the_group_is_refused),
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
