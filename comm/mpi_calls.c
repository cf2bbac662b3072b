/*
 * The calls of an MPI group, as messages:
 *
 *   meeting   every rank greets every other with its call; a dispatch's greeting carries the number
 *             of rows that follow. Barrier, open, dispatch and close begin with one.
 *   flow      rows, answers and the bytes of broadcasts, from rank to rank, in exact sizes
 *
 *      dispatch                          wait
 *      greetings ----------------------> meet: compare, know who sends how many rows
 *      slot ranks, rows (staged) ------> received to where they will lie
 *
 * MPI's own collectives would say that somebody is missing, but not who.
 */
#include "comm/mpi_calls.h"

#include "comm/host_exchange.h"

#include <string.h>

enum { TAG_GREETING = 1, TAG_SLOT_RANKS, TAG_ROWS, TAG_ANSWERS, TAG_BROADCAST, TAG_GATHER };

enum { MOST_GRACE_MS = 2000 };

/* Starts a meeting. `row_first` [size + 1]: a dispatch's; NULL: no rows follow. */
static tsr_status greet(tsr_mpi_world *w, const tsr_call *call, const int32_t *row_first)
{
    tsr_status st = tsr_mpi_listen(w);
    w->meetings++;
    for (int32_t r = 0; r < w->base.size && st == TSR_OK; r++) {
        const int32_t rows = row_first ? row_first[r + 1] - row_first[r] : 0;
        w->mine[r] = (tsr_mpi_greeting){.call = *call, .rows = rows};
        if (r == w->base.rank) {
            w->theirs[r] = w->mine[r];
            continue;
        }
        const tsr_mpi_message to = {r, TAG_GREETING, sizeof(tsr_mpi_greeting), &w->mine[r], NULL};
        const tsr_mpi_message from = {r, TAG_GREETING, sizeof(tsr_mpi_greeting), NULL,
                                      &w->theirs[r]};
        st = tsr_mpi_start(w, w->meeting, &from);
        if (st == TSR_OK)
            st = tsr_mpi_start(w, w->meeting, &to);
    }
    return st;
}

/* Waits for every rank's greeting, and compares. */
static tsr_status meet(tsr_mpi_world *w, const tsr_call *call, int64_t deadline)
{
    const tsr_status st = tsr_mpi_finish(w, w->meeting, call, deadline);
    if (st != TSR_OK)
        return st;
    for (int32_t r = 0; r < w->base.size; r++) {
        if (tsr_call_equal(call, &w->theirs[r].call))
            continue;
        w->disagreed = w->meetings;
        return w->cause == TSR_OK ? tsr_call_mismatch(call, r, &w->theirs[r].call)
                                  : TSR_ERR_MISMATCH;
    }
    return w->cause == TSR_OK ? TSR_OK : TSR_ERR_PEER;
}

tsr_status tsr_mpi_meet(tsr_mpi_world *w, tsr_call call)
{
    const tsr_status st = greet(w, &call, NULL);
    return st == TSR_OK ? meet(w, &call, tsr_mpi_deadline(w)) : st;
}

tsr_status tsr_mpi_barrier(tsr_comm *comm)
{
    return tsr_mpi_meet(tsr_mpi_world_of(comm), (tsr_call){.kind = TSR_CALL_BARRIER});
}

/*
 * When to give up on the root of a broadcast: it may be waiting for a third rank since a moment
 * ago, and is then the one to say which.
 */
static int64_t root_deadline(const tsr_mpi_world *w)
{
    const int32_t grace = w->base.deadline_ms / 4;
    return tsr_mpi_deadline(w) + (grace < MOST_GRACE_MS ? grace : MOST_GRACE_MS);
}

/* From the root to each: a job has tens of ranks, and whoever waits, waits for the one to name. */
tsr_status tsr_mpi_broadcast(tsr_comm *comm, int32_t root, void *data, size_t bytes)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    const tsr_call call = {.kind = TSR_CALL_BROADCAST, .root = root, .bytes = bytes};
    tsr_status st = tsr_mpi_listen(w);
    if (comm->rank != root) {
        const tsr_mpi_message from = {root, TAG_BROADCAST, bytes, NULL, data};
        if (st == TSR_OK)
            st = tsr_mpi_start(w, w->flow, &from);
        return st == TSR_OK ? tsr_mpi_finish(w, w->flow, &call, root_deadline(w)) : st;
    }
    for (int32_t r = 0; r < comm->size && st == TSR_OK; r++) {
        const tsr_mpi_message to = {r, TAG_BROADCAST, bytes, data, NULL};
        if (r != root)
            st = tsr_mpi_start(w, w->flow, &to);
    }
    return st == TSR_OK ? tsr_mpi_finish(w, w->flow, &call, tsr_mpi_deadline(w)) : st;
}

tsr_status tsr_mpi_gather(tsr_comm *comm, int32_t root, const void *send, const size_t *bytes_of,
                          void *recv)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    tsr_call call = {.kind = TSR_CALL_GATHER, .root = root};
    tsr_status st = tsr_mpi_listen(w);
    unsigned char *into = recv;
    for (int32_t r = 0; r < comm->size && st == TSR_OK; r++) {
        const tsr_mpi_message to = {root, TAG_GATHER, bytes_of[r], send, NULL};
        const tsr_mpi_message from = {r, TAG_GATHER, bytes_of[r], NULL, into};
        call.bytes += bytes_of[r];
        if (comm->rank == root && r != root)
            st = tsr_mpi_start(w, w->flow, &from);
        else if (comm->rank == r && r != root)
            st = tsr_mpi_start(w, w->flow, &to);
        else if (comm->rank == root && bytes_of[r] != 0)
            memcpy(into, send, bytes_of[r]);
        if (comm->rank == root && bytes_of[r] != 0)
            into += bytes_of[r];
    }
    return st == TSR_OK ? tsr_mpi_finish(w, w->flow, &call, tsr_mpi_deadline(w)) : st;
}

tsr_status tsr_mpi_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                 tsr_exchange **ret_exchange)
{
    tsr_host_exchange *x = NULL;
    tsr_status st = tsr_host_exchange_open(comm, shape, &x);
    if (st != TSR_OK)
        return st;
    st = tsr_mpi_meet(tsr_mpi_world_of(comm), tsr_call_of_open(&x->base));
    if (st != TSR_OK) {
        tsr_host_exchange_close(x);
        return st;
    }
    *ret_exchange = &x->base;
    return TSR_OK;
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

tsr_status tsr_mpi_dispatch(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream; /* one order: the caller's */
    tsr_mpi_world *w = tsr_mpi_world_of(exchange->comm);
    tsr_host_exchange *x = tsr_host_exchange_of(exchange);
    const size_t row_bytes = exchange->shape.row_bytes;
    const size_t slots = (size_t)exchange->shape.slots;
    const tsr_call call = tsr_call_of_exchange(exchange, TSR_CALL_DISPATCH);
    tsr_status st = tsr_send_plan_build(w->base.size, exchange->tokens, exchange->shape.slots,
                                        x->send_ranks, &x->plan);
    if (st == TSR_OK)
        st = greet(w, &call, x->plan.row_first);

    for (int32_t r = 0; r < w->base.size && st == TSR_OK; r++) {
        if (r == w->base.rank)
            continue;
        const size_t first = (size_t)x->plan.row_first[r];
        const size_t count = (size_t)x->plan.row_first[r + 1] - first;
        unsigned char *rows = x->staged_rows + first * row_bytes;
        int32_t *ranks = x->staged_ranks + first * slots;
        pack(x, r, rows, ranks);
        const tsr_mpi_message about = {r, TAG_SLOT_RANKS, count * slots * sizeof(int32_t), ranks,
                                       NULL};
        const tsr_mpi_message body = {r, TAG_ROWS, count * row_bytes, rows, NULL};
        st = tsr_mpi_start(w, w->flow, &about);
        if (st == TSR_OK)
            st = tsr_mpi_start(w, w->flow, &body);
    }
    return st;
}

/* The greetings are here: rows may come to where they will lie. */
static tsr_status receive_rows(tsr_mpi_world *w, tsr_host_exchange *x)
{
    const size_t row_bytes = x->base.shape.row_bytes;
    const size_t slots = (size_t)x->base.shape.slots;
    for (int32_t r = 0; r < w->base.size; r++)
        x->row_count[r] = w->theirs[r].rows;

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
        const tsr_mpi_message about = {r, TAG_SLOT_RANKS, count * slots * sizeof(int32_t), NULL,
                                       ranks};
        const tsr_mpi_message body = {r, TAG_ROWS, count * row_bytes, NULL, rows};
        st = tsr_mpi_start(w, w->flow, &about);
        if (st == TSR_OK)
            st = tsr_mpi_start(w, w->flow, &body);
    }
    return st;
}

/* Both sides know every count from the dispatch, so answers come without a greeting. */
tsr_status tsr_mpi_return(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    tsr_mpi_world *w = tsr_mpi_world_of(exchange->comm);
    tsr_host_exchange *x = tsr_host_exchange_of(exchange);
    const size_t bytes = exchange->shape.return_row_bytes;
    tsr_status st = tsr_mpi_listen(w);

    for (int32_t r = 0; r < w->base.size && st == TSR_OK; r++) {
        const size_t given = (size_t)x->answer_first[r];
        const size_t given_bytes = ((size_t)x->answer_first[r + 1] - given) * bytes;
        const size_t due = (size_t)x->plan.answer_first[r];
        const size_t due_bytes = ((size_t)x->plan.answer_first[r + 1] - due) * bytes;
        if (r == w->base.rank)
            continue;
        const tsr_mpi_message to = {r, TAG_ANSWERS, given_bytes, x->answers + given * bytes, NULL};
        const tsr_mpi_message from = {r, TAG_ANSWERS, due_bytes, NULL,
                                      x->staged_answers + due * bytes};
        st = tsr_mpi_start(w, w->flow, &from);
        if (st == TSR_OK)
            st = tsr_mpi_start(w, w->flow, &to);
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

tsr_status tsr_mpi_wait(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    tsr_mpi_world *w = tsr_mpi_world_of(exchange->comm);
    tsr_host_exchange *x = tsr_host_exchange_of(exchange);
    const int64_t deadline = tsr_mpi_deadline(w);
    const bool dispatched = exchange->phase == TSR_PHASE_DISPATCHED;
    const tsr_call call =
        tsr_call_of_exchange(exchange, dispatched ? TSR_CALL_DISPATCH : TSR_CALL_RETURN);

    tsr_status st = dispatched ? meet(w, &call, deadline) : TSR_OK;
    if (st == TSR_OK && dispatched)
        st = receive_rows(w, x);
    if (st == TSR_OK)
        st = tsr_mpi_finish(w, w->flow, &call, deadline);
    if (st != TSR_OK)
        return st;

    if (dispatched)
        tsr_host_exchange_number(x);
    else
        unpack_answers(w, x);
    return TSR_OK;
}

void tsr_mpi_exchange_close(tsr_exchange *exchange)
{
    /* Left to the end of the process when MPI may still read or write it. */
    if (!tsr_mpi_is_pending(tsr_mpi_world_of(exchange->comm)->flow))
        tsr_host_exchange_close(tsr_host_exchange_of(exchange));
}
