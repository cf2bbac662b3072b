/*
 * Between dispatch or return and the wait there is nothing else: every other call on the group is
 * refused, with the names of both, and peers hear that the group has ended.
 */
#include "comm/exchange.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

/* A call, made on one rank while `pending` has not been waited for; rows have arrived in `other`. */
typedef struct turn {
    const char *name;
    tsr_status (*call)(rank_run *run, tsr_exchange *pending, tsr_exchange *other);
} turn;

static tsr_exchange_shape shape_of(const rank_run *run)
{
    return (tsr_exchange_shape){2, 2 * run->size, 1, 16, 16};
}

static tsr_status broadcast(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    uint64_t word = 1;
    (void)pending;
    (void)other;
    return tsr_comm_broadcast(run->comm, run->rank, &word, sizeof(word));
}

static tsr_status gather(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    const size_t bytes_of[64] = {0};
    (void)pending;
    (void)other;
    return tsr_comm_gather(run->comm, 0, NULL, bytes_of, NULL);
}

static tsr_status barrier(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    (void)pending;
    (void)other;
    return tsr_comm_barrier(run->comm);
}

static tsr_status open_third(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    const tsr_exchange_shape shape = shape_of(run);
    tsr_exchange *third = NULL;
    (void)pending;
    (void)other;
    const tsr_status st = tsr_exchange_open(run->comm, &shape, &third);
    tsr_exchange_close(third);
    return st;
}

static tsr_status begin_other(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    (void)pending;
    return tsr_exchange_begin(other, 8, run->rows.stream);
}

static tsr_status dispatch_other(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    (void)pending;
    return tsr_exchange_dispatch(other, 0, run->rows.stream);
}

static tsr_status return_other(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    (void)pending;
    return tsr_exchange_return(other, run->rows.stream);
}

static tsr_status begin_again(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    (void)other;
    return tsr_exchange_begin(pending, 8, run->rows.stream);
}

static tsr_status dispatch_again(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    (void)other;
    return tsr_exchange_dispatch(pending, 0, run->rows.stream);
}

static tsr_status return_again(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    (void)other;
    return tsr_exchange_return(pending, run->rows.stream);
}

/* Returns nothing, and leaves the group to be closed when the exchanges are. */
static tsr_status close_group(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    (void)pending;
    (void)other;
    tsr_comm_close(run->comm);
    return tsr_comm_cause(run->comm);
}

static const turn turns[] = {
    {"broadcast", broadcast},
    {"gather", gather},
    {"barrier", barrier},
    {"opening an exchange", open_third},
    {"begin of exchange 1", begin_other},
    {"dispatch of exchange 1", dispatch_other},
    {"return of exchange 1", return_other},
    {"begin of exchange 0", begin_again},
    {"dispatch of exchange 0", dispatch_again},
    {"return of exchange 0", return_again},
    {"closing the group", close_group},
};

static const turn *now;  /* the same for all ranks of a run */
static const char *stop; /* "dispatch", "return": what is pending */

static tsr_status send(const rank_run *run, tsr_exchange *exchange)
{
    const tsr_status st = tsr_exchange_dispatch(exchange, 0, run->rows.stream);
    return st == TSR_OK ? tsr_exchange_wait(exchange, run->rows.stream) : st;
}

/* Leaves `exchange` pending in stage 2 of step 7. */
static tsr_status start(const rank_run *run, tsr_exchange *exchange)
{
    const tsr_stream s = run->rows.stream;
    tsr_status st = tsr_exchange_begin(exchange, 7, s);
    for (int i = 0; i < 2 && st == TSR_OK; i++)
        st = send(run, exchange);
    if (st == TSR_OK)
        st = tsr_exchange_dispatch(exchange, 0, s);
    if (st != TSR_OK || strcmp(stop, "dispatch") == 0)
        return st;
    st = tsr_exchange_wait(exchange, s);
    return st == TSR_OK ? tsr_exchange_return(exchange, s) : st;
}

/* The last rank is out of turn. */
static void step_out(rank_run *run, tsr_exchange *pending, tsr_exchange *other)
{
    char said[128];
    (void)snprintf(said, sizeof(said), "%s: the %s of step 7 stage 2 has not been waited for",
                   now->name, stop);
    RANK_STATUS(run, TSR_OK, start(run, pending));
    RANK_STATUS(run, TSR_ERR_ARG, now->call(run, pending, other));
    RANK_CHECK(run, strstr(run->log, said) != NULL);
    RANK_STATUS(run, TSR_ERR_PEER, tsr_exchange_wait(pending, run->rows.stream));
}

/* The others hear of it sooner or later. */
static void stay_in_turn(rank_run *run, tsr_exchange *pending)
{
    tsr_status st = start(run, pending);
    if (st == TSR_OK)
        st = tsr_exchange_wait(pending, run->rows.stream);
    RANK_CHECK(run, st == TSR_OK || st == TSR_ERR_PEER);
    RANK_STATUS(run, TSR_ERR_ARG, rank_until_the_end(run));
    RANK_CHECK(run, run->log[0] == '\0');
}

static void turn_body(rank_run *run)
{
    const tsr_exchange_shape shape = shape_of(run);
    tsr_exchange *pending = NULL;
    tsr_exchange *other = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &pending));
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &other));
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(other, 7, run->rows.stream));
    RANK_STATUS(run, TSR_OK, send(run, other));
    if (rank_is_last(run))
        step_out(run, pending, other);
    else
        stay_in_turn(run, pending);
    RANK_STATUS(run, TSR_ERR_ARG, tsr_comm_cause(run->comm));
    RANK_STATUS(run, TSR_ERR_PEER, tsr_comm_barrier(run->comm));
    tsr_exchange_close(other);
    tsr_exchange_close(pending);
}

static void run_turns(const char *pending)
{
    stop = pending;
    for (size_t i = 0; i < sizeof(turns) / sizeof(turns[0]); i++) {
        now = &turns[i];
        ranks_run(DEADLINE_MS, turn_body);
    }
}

static void no_call_belongs_between_dispatch_and_wait(void **state)
{
    (void)state;
    run_turns("dispatch");
}

static void no_call_belongs_between_return_and_wait(void **state)
{
    (void)state;
    run_turns("return");
}

/* What is still pending when the group has ended is no fault of the caller's. */
static void ended_body(rank_run *run)
{
    const tsr_exchange_shape shape = shape_of(run);
    tsr_exchange *pending = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &pending));
    const tsr_status st = start(run, pending);
    RANK_CHECK(run, st == TSR_OK || (st == TSR_ERR_PEER && !rank_is_last(run)));
    if (rank_is_last(run))
        tsr_comm_abort(run->comm, TSR_ERR_DEVICE);
    RANK_STATUS(run, TSR_ERR_DEVICE, rank_until_the_end(run));
    RANK_STATUS(run, TSR_ERR_PEER, tsr_comm_barrier(run->comm));
    if (st == TSR_OK)
        RANK_STATUS(run, TSR_ERR_PEER, tsr_exchange_begin(pending, 8, run->rows.stream));
    RANK_STATUS(run, TSR_ERR_DEVICE, tsr_comm_cause(run->comm));
    RANK_CHECK(run, run->log[0] == '\0');
    tsr_exchange_close(pending);
}

static void an_ended_group_refuses_in_silence(void **state)
{
    (void)state;
    stop = "dispatch";
    ranks_run(DEADLINE_MS, ended_body);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_call_belongs_between_dispatch_and_wait),
        cmocka_unit_test(no_call_belongs_between_return_and_wait),
        cmocka_unit_test(an_ended_group_refuses_in_silence),
    };
    if (!ranks_begin(argc, argv))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ranks_end();
    return failed;
}
