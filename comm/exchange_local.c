/*
 * Rows between ranks that are threads of one process: each copies from its peers' buffers into its
 * own, while all sit at the table (local_table.h).
 *
 *      rank 0, 1, 2   dispatch: plan who gets which row, sit down with the exchange
 *      rank 1         wait: from 0's send_rows, from its own, from 2's --> arrived_rows
 *      rank 1         return: sit down again
 *      rank 0         wait: from each rank's answers, the part for 0 --> returned_rows [t, k]
 */
#include "comm/exchange_local.h"

#include "comm/exchange_host.h"
#include "comm/local_table.h"
#include "runtime/base/clock.h"

#include <stdlib.h>
#include <string.h>

/* What a rank has put down. */
static const tsr_host_exchange *of(const tsr_host_exchange *x, int32_t rank)
{
    return tsr_local_data(x->base.comm, rank);
}

static tsr_status local_dispatch(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream; /* one order: the caller's */
    tsr_host_exchange *x = tsr_host_exchange_of(exchange);
    const tsr_call call = tsr_call_of_exchange(exchange, TSR_CALL_DISPATCH);
    const tsr_status st = tsr_send_plan_build(exchange->comm->size, exchange->tokens,
                                              exchange->shape.slots, x->send_ranks, &x->plan);
    return st == TSR_OK ? tsr_local_sit(exchange->comm, &call, x) : st;
}

/* Rows of `from` that name this rank, and the ranks of their slots. */
static void copy_rows(tsr_host_exchange *x, const tsr_host_exchange *from, int32_t source)
{
    const int32_t rank = x->base.comm->rank;
    const size_t row_bytes = x->base.shape.row_bytes;
    const size_t slots = (size_t)x->base.shape.slots;
    const int32_t *rows = from->plan.rows + from->plan.row_first[rank];

    for (int32_t i = 0; i < x->row_count[source]; i++) {
        const size_t at = (size_t)x->row_first[source] + (size_t)i;
        const size_t row = (size_t)rows[i];
        memcpy(x->arrived_rows + at * row_bytes, from->send_rows + row * row_bytes, row_bytes);
        memcpy(x->slot_ranks + at * slots, from->send_ranks + row * slots, slots * sizeof(int32_t));
    }
}

static tsr_status fetch_rows(tsr_host_exchange *x)
{
    const tsr_comm *comm = x->base.comm;
    for (int32_t s = 0; s < comm->size; s++) {
        const int32_t *first = of(x, s)->plan.row_first;
        x->row_count[s] = first[comm->rank + 1] - first[comm->rank];
    }
    const tsr_status st = tsr_host_exchange_place(x);
    if (st != TSR_OK)
        return st;
    for (int32_t s = 0; s < comm->size; s++)
        copy_rows(x, of(x, s), s);
    tsr_host_exchange_number(x);
    return TSR_OK;
}

static void fetch_answers(tsr_host_exchange *x)
{
    const tsr_comm *comm = x->base.comm;
    const size_t bytes = x->base.shape.return_row_bytes;
    for (int32_t d = 0; d < comm->size; d++) {
        const tsr_host_exchange *from = of(x, d);
        const unsigned char *answer =
            from->answers + (size_t)from->answer_first[comm->rank] * bytes;
        for (int32_t i = x->plan.answer_first[d]; i < x->plan.answer_first[d + 1]; i++) {
            memcpy(x->returned_rows + (size_t)x->plan.answers[i] * bytes, answer, bytes);
            answer += bytes;
        }
    }
}

static tsr_status local_return(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    const tsr_call call = tsr_call_of_exchange(exchange, TSR_CALL_RETURN);
    return tsr_local_sit(exchange->comm, &call, tsr_host_exchange_of(exchange));
}

static tsr_status local_wait(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    tsr_host_exchange *x = tsr_host_exchange_of(exchange);
    const int64_t began_ns = tsr_clock_ns();
    tsr_status st = tsr_local_meet(exchange->comm);
    if (st != TSR_OK)
        return st;

    for (int32_t r = 0; r < exchange->comm->size; r++)
        tsr_host_exchange_waited(x, r, began_ns, tsr_local_sat_ns(exchange->comm, r));
    if (exchange->phase == TSR_PHASE_DISPATCHED)
        st = fetch_rows(x);
    else
        fetch_answers(x);
    const tsr_status left = tsr_local_leave(exchange->comm);
    return st == TSR_OK ? left : st;
}

static void local_exchange_close(tsr_exchange *exchange)
{
    tsr_host_exchange *x = tsr_host_exchange_of(exchange);
    tsr_local_await_readers(exchange->comm);
    tsr_host_exchange_release(x);
    free(x);
}

static const tsr_exchange_ops local_ops = {
    .name = "local",
    .begin = tsr_exchange_begin_nothing,
    .dispatch = local_dispatch,
    .return_answers = local_return,
    .wait = local_wait,
    .poll = tsr_exchange_poll_group,
    .text = tsr_exchange_text_base,
    .waited_ns = tsr_exchange_waited_base,
    .drain = tsr_exchange_drain_nothing,
    .close = local_exchange_close,
};

tsr_status tsr_exchange_local_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                   tsr_exchange **ret_exchange)
{
    tsr_host_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return TSR_ERR_MEMORY;
    tsr_status st = tsr_host_exchange_init(x, comm, &local_ops, shape);
    if (st == TSR_OK) {
        const tsr_call call = tsr_call_of_open(&x->base);
        st = tsr_local_pass(comm, &call);
    }
    if (st != TSR_OK) {
        tsr_host_exchange_release(x);
        free(x);
        return st;
    }
    *ret_exchange = &x->base;
    return TSR_OK;
}
