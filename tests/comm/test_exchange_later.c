/*
 * An exchange of the test's own around the group's: its calls are kept and run later, in their
 * order, as a GPU runs what is on a stream. The front doors assume nothing about an exchange but
 * its table, so control can go on between its calls and theirs.
 *
 *      host    begin dispatch wait | broadcast |            return wait
 *      later                                     begin dispatch wait      return wait
 */
#include "comm/exchange_ops.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CALLS = 8 };

typedef enum call_kind { BEGIN, DISPATCH, RETURN, WAIT } call_kind;

typedef struct call {
    call_kind kind;
    uint64_t step;
    int32_t tokens;
} call;

typedef struct later {
    tsr_exchange base; /* first member */
    tsr_exchange *inner;
    call calls[MOST_CALLS];
    int32_t count;
} later;

static later *later_of(tsr_exchange *exchange)
{
    return (later *)(void *)exchange;
}

static tsr_status keep(tsr_exchange *exchange, call_kind kind)
{
    later *x = later_of(exchange);
    if (x->count == MOST_CALLS)
        return TSR_ERR_CAPACITY;
    x->calls[x->count++] = (call){kind, exchange->step, exchange->tokens};
    return TSR_OK;
}

static tsr_status later_begin(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    return keep(exchange, BEGIN);
}

static tsr_status later_dispatch(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    return keep(exchange, DISPATCH);
}

static tsr_status later_return(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    return keep(exchange, RETURN);
}

static tsr_status later_wait(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    return keep(exchange, WAIT);
}

static tsr_status later_poll(tsr_exchange *exchange)
{
    return tsr_exchange_poll(later_of(exchange)->inner);
}

/* Where the work is, not where the host is. */
static int32_t later_text(const tsr_exchange *exchange, size_t capacity, char *text)
{
    return tsr_exchange_text(((const later *)(const void *)exchange)->inner, capacity, text);
}

static void later_drain(tsr_exchange *exchange, tsr_stream stream)
{
    tsr_exchange_drain(later_of(exchange)->inner, stream);
}

static void later_close(tsr_exchange *exchange)
{
    tsr_exchange_close(later_of(exchange)->inner);
    free(later_of(exchange));
}

static const tsr_exchange_ops later_ops = {
    .name = "later",
    .begin = later_begin,
    .dispatch = later_dispatch,
    .return_answers = later_return,
    .wait = later_wait,
    .poll = later_poll,
    .text = later_text,
    .drain = later_drain,
    .close = later_close,
};

static tsr_status later_open(tsr_comm *comm, const tsr_exchange_shape *shape, later **ret_later)
{
    later *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return TSR_ERR_MEMORY;
    const tsr_status st = tsr_exchange_open(comm, shape, &x->inner);
    if (st != TSR_OK) {
        free(x);
        return st;
    }
    x->base = tsr_exchange_base(comm, &later_ops, shape);
    x->base.buffers = tsr_exchange_buffers_of(x->inner);
    *ret_later = x;
    return TSR_OK;
}

static tsr_status run_one(const later *x, const call *c, tsr_stream stream)
{
    switch (c->kind) {
    case BEGIN:
        return tsr_exchange_begin(x->inner, c->step, stream);
    case DISPATCH:
        return tsr_exchange_dispatch(x->inner, c->tokens, stream);
    case RETURN:
        return tsr_exchange_return(x->inner, stream);
    case WAIT:
        return tsr_exchange_wait(x->inner, stream);
    }
    return TSR_ERR_INTERNAL;
}

static void run_calls(rank_run *run, later *x)
{
    for (int32_t i = 0; i < x->count; i++)
        RANK_STATUS(run, TSR_OK, run_one(x, &x->calls[i], run->rows.stream));
    x->count = 0;
}

static void expect_text(rank_run *run, const later *x, const char *expected)
{
    char text[TSR_EXCHANGE_TEXT_BYTES];
    (void)tsr_exchange_text(&x->base, sizeof(text), text);
    RANK_CHECK(run, strcmp(text, expected) == 0);
}

/* A word that only this rank sends, and what the next rank makes of it. */
static uint64_t word_of(int32_t rank)
{
    return 1000 + (uint64_t)rank;
}

/* Each rank sends one row of two words to the next, which answers with one more. */
static void travel(rank_run *run, later *x)
{
    const tsr_stream s = run->rows.stream;
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(&x->base);
    const int32_t next = (run->rank + 1) % run->size;
    const int32_t before = (run->rank + run->size - 1) % run->size;
    uint64_t row[2] = {word_of(run->rank), 0};
    RANK_STATUS(run, TSR_OK, rows_put(&run->rows, b.send_rows, row, sizeof(row)));
    RANK_STATUS(run, TSR_OK, rows_put(&run->rows, b.send_ranks, &next, sizeof(next)));

    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(&x->base, 5, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(&x->base, 1, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(&x->base, s));
    expect_text(run, x, "start");

    /* The host is past the wait, so control may go on while nothing has travelled. */
    uint64_t told = run->rank == 0 ? 77 : 0;
    RANK_STATUS(run, TSR_OK, tsr_comm_broadcast(run->comm, 0, &told, sizeof(told)));
    RANK_CHECK(run, told == 77);
    RANK_STATUS(run, TSR_OK, tsr_exchange_poll(&x->base));

    run_calls(run, x);
    expect_text(run, x, "arrival of step 5 stage 0");
    RANK_STATUS(run, TSR_OK, rows_get(&run->rows, row, b.arrived_rows, sizeof(row)));
    RANK_CHECK(run, row[0] == word_of(before));
    row[0]++;
    RANK_STATUS(run, TSR_OK, rows_put(&run->rows, b.answers, row, sizeof(row)));
    RANK_STATUS(run, TSR_OK, tsr_exchange_return(&x->base, s));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(&x->base, s));
    run_calls(run, x);
    RANK_STATUS(run, TSR_OK, rows_get(&run->rows, row, b.returned_rows, sizeof(row)));
    RANK_CHECK(run, row[0] == word_of(run->rank) + 1);
}

static void travel_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, run->size, 1, 16, 16};
    later *x = NULL;
    RANK_STATUS(run, TSR_OK, later_open(run->comm, &shape, &x));
    if (x == NULL)
        return;
    RANK_CHECK(run, strcmp(tsr_exchange_name(&x->base), "later") == 0);
    travel(run, x);
    tsr_exchange_close(&x->base);
}

static void an_exchange_of_another_kind_runs_when_it_likes(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, travel_body);
}

/* The front doors keep order for it as for any other. */
static void order_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, run->size, 1, 16, 16};
    later *x = NULL;
    RANK_STATUS(run, TSR_OK, later_open(run->comm, &shape, &x));
    if (x == NULL)
        return;
    rank_last_after_all(run);
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_OK, tsr_exchange_begin(&x->base, 5, run->rows.stream));
        RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(&x->base, 1, run->rows.stream));
        RANK_STATUS(run, TSR_ERR_ARG, tsr_comm_barrier(run->comm));
        RANK_CHECK(run, strstr(run->log, "barrier: the dispatch of step 5 stage 0 has not been "
                                         "waited for") != NULL);
    }
    RANK_STATUS(run, TSR_ERR_ARG, rank_until_the_end(run));
    RANK_STATUS(run, TSR_ERR_PEER, tsr_exchange_poll(&x->base));
    tsr_exchange_close(&x->base);
}

static void its_calls_keep_their_turn(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, order_body);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_exchange_of_another_kind_runs_when_it_likes),
        cmocka_unit_test(its_calls_keep_their_turn),
    };
    if (!ranks_begin(argc, argv))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ranks_end();
    return failed;
}
