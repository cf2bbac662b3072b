/*
 * Rows between processes, as messages:
 *
 *      dispatch                          wait
 *      greetings ----------------------> meet: compare, know who sends how many rows
 *      slot ranks, rows (staged) ------> received to where they will lie
 *
 *      return                            wait
 *      answers, as they lie -----------> received by where they come from (staged), then each
 *                                        copied to the slot it is for
 *
 * Messages have exact sizes: both sides know every count. Their requests are on lists of the
 * exchange's own.
 */
#include "comm/exchange_mpi.h"

#include "comm/exchange_host.h"
#include "comm/mpi_meeting.h"
#include "comm/mpi_notes.h"
#include "runtime/base/clock.h"

#include <stdlib.h>
#include <string.h>

typedef struct mpi_exchange {
    tsr_host_exchange host; /* first member */
    tsr_mpi_meeting *meeting;
    tsr_mpi_requests *flow; /* rows, slot ranks and answers */
    int64_t *came_ns;       /* [size] when each rank's last message came, whatever it was */
} mpi_exchange;

static mpi_exchange *mpi_exchange_of(tsr_exchange *exchange)
{
    return (mpi_exchange *)(void *)exchange;
}

/* Copies the rows that go to `rank`, and the ranks of their slots, to lie together. */
static void pack(const tsr_host_exchange *x, int32_t rank, unsigned char *rows, int32_t *slot_ranks)
{
    const size_t row_bytes = x->base.shape.row_bytes;
    const size_t slots = (size_t)x->base.shape.slots;
    for (int32_t i = x->plan.row_first[rank]; i < x->plan.row_first[rank + 1]; i++) {
        const size_t row = (size_t)x->plan.rows[i];
        memcpy(rows, x->send_rows + row * row_bytes, row_bytes);
        memcpy(slot_ranks, x->send_ranks + row * slots, slots * sizeof(int32_t));
        rows += row_bytes;
        slot_ranks += slots;
    }
}

static tsr_status mpi_dispatch(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream; /* one order: the caller's */
    tsr_mpi_world *w = tsr_mpi_world_of(exchange->comm);
    mpi_exchange *own = mpi_exchange_of(exchange);
    tsr_host_exchange *x = &own->host;
    const size_t row_bytes = exchange->shape.row_bytes;
    const size_t slots = (size_t)exchange->shape.slots;
    const tsr_call call = tsr_call_of_exchange(exchange, TSR_CALL_DISPATCH);
    tsr_status st = tsr_send_plan_build(w->base.size, exchange->tokens, exchange->shape.slots,
                                        x->send_ranks, &x->plan);
    if (st == TSR_OK)
        st = tsr_mpi_greet(w, own->meeting, &call, x->plan.row_first);

    for (int32_t r = 0; r < w->base.size && st == TSR_OK; r++) {
        if (r == w->base.rank)
            continue;
        const size_t first = (size_t)x->plan.row_first[r];
        const size_t count = (size_t)x->plan.row_first[r + 1] - first;
        unsigned char *rows = x->staged_rows + first * row_bytes;
        int32_t *ranks = x->staged_ranks + first * slots;
        pack(x, r, rows, ranks);
        const tsr_mpi_message about = {r, TSR_MPI_SLOT_RANKS, count * slots * sizeof(int32_t),
                                       ranks, NULL};
        const tsr_mpi_message body = {r, TSR_MPI_ROWS, count * row_bytes, rows, NULL};
        st = tsr_mpi_start(w, own->flow, &about);
        if (st == TSR_OK)
            st = tsr_mpi_start(w, own->flow, &body);
    }
    return st;
}

/* The greetings are here: rows may come to where they will lie. */
static tsr_status receive_rows(tsr_mpi_world *w, mpi_exchange *own)
{
    tsr_host_exchange *x = &own->host;
    const size_t row_bytes = x->base.shape.row_bytes;
    const size_t slots = (size_t)x->base.shape.slots;
    for (int32_t r = 0; r < w->base.size; r++)
        x->row_count[r] = own->meeting->theirs[r].rows;

    tsr_status st = tsr_host_exchange_place(x);
    for (int32_t r = 0; r < w->base.size && st == TSR_OK; r++) {
        const size_t first = (size_t)x->row_first[r];
        const size_t count = (size_t)x->row_count[r];
        unsigned char *rows = x->arrived_rows + first * row_bytes;
        int32_t *ranks = x->slot_ranks + first * slots;
        if (r == w->base.rank) {
            pack(x, r, rows, ranks);
            continue;
        }
        const tsr_mpi_message about = {r, TSR_MPI_SLOT_RANKS, count * slots * sizeof(int32_t), NULL,
                                       ranks};
        const tsr_mpi_message body = {r, TSR_MPI_ROWS, count * row_bytes, NULL, rows};
        st = tsr_mpi_start(w, own->flow, &about);
        if (st == TSR_OK)
            st = tsr_mpi_start(w, own->flow, &body);
    }
    return st;
}

/* Both sides know every count from the dispatch, so answers come without a greeting. */
static tsr_status mpi_return(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    tsr_mpi_world *w = tsr_mpi_world_of(exchange->comm);
    mpi_exchange *own = mpi_exchange_of(exchange);
    tsr_host_exchange *x = &own->host;
    const size_t bytes = exchange->shape.return_row_bytes;
    tsr_status st = tsr_mpi_listen(w);

    for (int32_t r = 0; r < w->base.size && st == TSR_OK; r++) {
        const size_t given = (size_t)x->answer_first[r];
        const size_t given_bytes = ((size_t)x->answer_first[r + 1] - given) * bytes;
        const size_t due = (size_t)x->plan.answer_first[r];
        const size_t due_bytes = ((size_t)x->plan.answer_first[r + 1] - due) * bytes;
        if (r == w->base.rank)
            continue;
        const tsr_mpi_message to = {r, TSR_MPI_ANSWERS, given_bytes, x->answers + given * bytes,
                                    NULL};
        const tsr_mpi_message from = {r, TSR_MPI_ANSWERS, due_bytes, NULL,
                                      x->staged_answers + due * bytes};
        st = tsr_mpi_start(w, own->flow, &from);
        if (st == TSR_OK)
            st = tsr_mpi_start(w, own->flow, &to);
    }
    return st;
}

/* Puts each answer into the slot it is for; this rank's own were never staged. */
static void unpack_answers(const tsr_mpi_world *w, tsr_host_exchange *x)
{
    const size_t bytes = x->base.shape.return_row_bytes;
    for (int32_t r = 0; r < w->base.size; r++) {
        const int32_t due = x->plan.answer_first[r];
        const unsigned char *from = r == w->base.rank
                                        ? x->answers + (size_t)x->answer_first[r] * bytes
                                        : x->staged_answers + (size_t)due * bytes;
        for (int32_t i = due; i < x->plan.answer_first[r + 1]; i++) {
            memcpy(x->returned_rows + (size_t)x->plan.answers[i] * bytes, from, bytes);
            from += bytes;
        }
    }
}

static tsr_status mpi_wait(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    tsr_mpi_world *w = tsr_mpi_world_of(exchange->comm);
    mpi_exchange *own = mpi_exchange_of(exchange);
    tsr_host_exchange *x = &own->host;
    const int64_t deadline = tsr_mpi_deadline(w);
    const int64_t began_ns = tsr_clock_ns();
    const bool dispatched = exchange->phase == TSR_PHASE_DISPATCHED;
    const tsr_call call =
        tsr_call_of_exchange(exchange, dispatched ? TSR_CALL_DISPATCH : TSR_CALL_RETURN);

    tsr_status st = dispatched ? tsr_mpi_meet(w, own->meeting, &call, deadline) : tsr_mpi_listen(w);
    if (st == TSR_OK && dispatched)
        st = receive_rows(w, own);
    if (st == TSR_OK)
        st = tsr_mpi_finish(w, own->flow, &call, deadline);
    if (st != TSR_OK)
        return st;

    for (int32_t r = 0; r < w->base.size; r++)
        tsr_host_exchange_waited(x, r, began_ns, own->came_ns[r]);
    if (dispatched)
        tsr_host_exchange_number(x);
    else
        unpack_answers(w, x);
    return TSR_OK;
}

static void exchange_free(mpi_exchange *x)
{
    tsr_mpi_meeting_close(x->meeting);
    tsr_mpi_requests_close(x->flow);
    free(x->came_ns);
    tsr_host_exchange_release(&x->host);
    free(x);
}

static void mpi_exchange_close(tsr_exchange *exchange)
{
    mpi_exchange *x = mpi_exchange_of(exchange);
    /* Left to the end of the process when MPI may still read or write it. */
    if (!tsr_mpi_is_pending(x->flow) && !tsr_mpi_is_pending(x->meeting->greetings))
        exchange_free(x);
}

static const tsr_exchange_ops mpi_ops = {
    .name = "mpi",
    .begin = tsr_exchange_begin_nothing,
    .dispatch = mpi_dispatch,
    .return_answers = mpi_return,
    .wait = mpi_wait,
    .poll = tsr_exchange_poll_group,
    .text = tsr_exchange_text_base,
    .waited_ns = tsr_exchange_waited_base,
    .drain = tsr_exchange_drain_nothing,
    .close = mpi_exchange_close,
};

tsr_status tsr_exchange_mpi_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                 tsr_exchange **ret_exchange)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    mpi_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return TSR_ERR_MEMORY;
    tsr_status st = tsr_host_exchange_init(&x->host, comm, &mpi_ops, shape);
    if (st == TSR_OK)
        st = tsr_mpi_meeting_open(comm->size, &x->meeting);
    if (st == TSR_OK)
        st = tsr_mpi_requests_open(&x->flow);
    if (st == TSR_OK) {
        x->came_ns = calloc((size_t)comm->size, sizeof(*x->came_ns));
        st = x->came_ns != NULL ? TSR_OK : TSR_ERR_MEMORY;
    }
    if (st == TSR_OK) {
        tsr_mpi_requests_time(x->meeting->greetings, x->came_ns);
        tsr_mpi_requests_time(x->flow, x->came_ns);
    }
    if (st == TSR_OK)
        st = tsr_mpi_pass(w, w->meeting, tsr_call_of_open(&x->host.base));
    if (st != TSR_OK) {
        exchange_free(x);
        return st;
    }
    *ret_exchange = &x->host.base;
    return TSR_OK;
}
