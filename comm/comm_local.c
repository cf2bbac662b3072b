/*
 * Ranks as threads of one process: the backend that the others are compared with.
 *
 * A collective call is a meeting around a table with one seat per rank:
 *
 *      sit            meet                     copy            leave
 *   put call and    all seats taken?        read what peers   last one clears
 *   addresses  -->  calls equal?       -->  put down      --> the table
 *                                       readers + 1          readers - 1
 *
 * Nobody leaves before everybody has copied, so what a rank put down stays while peers read it. A
 * rank that gives up closes the door first (no reader starts once there is a cause) and then waits
 * for the readers inside, who wait for nobody.
 */
#include "comm/call.h"
#include "comm/comm_ops.h"
#include "comm/host_exchange.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_RANKS = 1024 };

typedef struct seat {
    bool taken;
    bool done; /* has copied */
    tsr_call call;
    const void *data;            /* broadcast: at the root; gather: what this rank sends */
    const tsr_host_exchange *of; /* dispatch, return */
} seat;

typedef struct member member;

typedef struct group {
    pthread_mutex_t lock;
    pthread_cond_t turned; /* the table filled or cleared, readers left, or there is a cause */
    int32_t size;
    int32_t open;     /* members not closed yet */
    member *members;  /* [size] they live as long as the group */
    int32_t taken;    /* seats of this meeting */
    int32_t readers;  /* ranks copying from others right now */
    int32_t done;     /* ranks that have copied */
    uint64_t meeting; /* number of meetings cleared */
    int32_t *missing; /* [size] scratch for messages */
    tsr_status cause; /* of the end of this group; TSR_OK: alive */
    seat seats[];     /* [size] */
} group;

struct member {
    tsr_comm base; /* first member */
    group *group;
};

static member *member_of(tsr_comm *comm)
{
    return (member *)(void *)comm;
}

static void lock(group *g)
{
    /* Only a lock that was destroyed or taken by this thread can fail here. */
    if (pthread_mutex_lock(&g->lock) != 0)
        abort();
}

static void unlock(group *g)
{
    if (pthread_mutex_unlock(&g->lock) != 0)
        abort();
}

static void turn(group *g)
{
    if (pthread_cond_broadcast(&g->turned) != 0)
        abort();
}

/* False once the deadline has passed. The lock is held. */
static bool sleep_until(group *g, const struct timespec *deadline)
{
    return pthread_cond_timedwait(&g->turned, &g->lock, deadline) != ETIMEDOUT;
}

/* The lock is held. */
static void end_group(group *g, tsr_status cause)
{
    if (g->cause == TSR_OK)
        g->cause = cause;
    turn(g);
}

/* Waits for those still copying, who wait for nobody, so that buffers may go. The lock is held. */
static void wait_for_readers(group *g)
{
    while (g->readers != 0) {
        if (pthread_cond_wait(&g->turned, &g->lock) != 0)
            abort();
    }
}

/* Puts down what this rank is doing, without waiting. */
static tsr_status sit(member *m, const tsr_call *call, const void *data,
                      const tsr_host_exchange *of)
{
    group *g = m->group;
    lock(g);
    const bool spent = g->cause != TSR_OK;
    if (!spent) {
        g->seats[m->base.rank] = (seat){.taken = true, .call = *call, .data = data, .of = of};
        if (++g->taken == g->size)
            turn(g);
    }
    unlock(g);
    return spent ? TSR_ERR_PEER : TSR_OK;
}

/* Ranks that have not sat down, or have not copied, as a timeout. The lock is held. */
static tsr_status time_out(const member *m, bool copying)
{
    group *g = m->group;
    int32_t count = 0;
    for (int32_t r = 0; r < g->size; r++) {
        if (copying ? !g->seats[r].done : !g->seats[r].taken)
            g->missing[count++] = r;
    }
    return tsr_call_timeout(&g->seats[m->base.rank].call, m->base.deadline_ms, g->missing, count);
}

/* Every rank compares and finds the same; the first says so. The lock is held. */
static tsr_status compare(const member *m)
{
    group *g = m->group;
    const tsr_call *mine = &g->seats[m->base.rank].call;
    for (int32_t r = 0; r < g->size; r++) {
        const tsr_call *theirs = &g->seats[r].call;
        if (!tsr_call_equal(mine, theirs))
            return g->cause == TSR_OK ? tsr_call_mismatch(mine, r, theirs) : TSR_ERR_MISMATCH;
    }
    return TSR_OK;
}

/* Waits for all to sit down. After success this rank may read what they put down, and must
 * leave. */
static tsr_status meet(member *m)
{
    group *g = m->group;
    const struct timespec deadline = tsr_clock_deadline(m->base.deadline_ms);
    tsr_status st = TSR_OK;

    lock(g);
    bool in_time = true;
    while (g->taken < g->size && g->cause == TSR_OK && in_time)
        in_time = sleep_until(g, &deadline);

    /* A disagreement is everybody's finding, also of those who were told of it meanwhile. */
    if (g->taken == g->size)
        st = compare(m);
    if (st == TSR_OK && g->cause != TSR_OK)
        st = TSR_ERR_PEER;
    if (st == TSR_OK && g->taken < g->size)
        st = time_out(m, false);

    if (st == TSR_OK) {
        g->readers++;
    } else {
        end_group(g, st);
        wait_for_readers(g);
    }
    unlock(g);
    return st;
}

/* The lock is held. */
static void clear_table(group *g)
{
    for (int32_t r = 0; r < g->size; r++)
        g->seats[r] = (seat){0};
    g->taken = 0;
    g->done = 0;
    g->meeting++;
    turn(g);
}

/* Waits for all to have copied. */
static tsr_status leave(member *m)
{
    group *g = m->group;
    const struct timespec deadline = tsr_clock_deadline(m->base.deadline_ms);
    tsr_status st = TSR_OK;

    lock(g);
    const uint64_t meeting = g->meeting;
    g->seats[m->base.rank].done = true;
    g->readers--;
    if (++g->done == g->size)
        clear_table(g);
    else if (g->readers == 0 && g->cause != TSR_OK)
        turn(g);

    bool in_time = true;
    while (g->meeting == meeting && g->cause == TSR_OK && in_time)
        in_time = sleep_until(g, &deadline);
    if (g->meeting == meeting) {
        st = g->cause != TSR_OK ? TSR_ERR_PEER : time_out(m, true);
        end_group(g, st);
        wait_for_readers(g);
    }
    unlock(g);
    return st;
}

static tsr_status local_barrier(tsr_comm *comm)
{
    member *m = member_of(comm);
    const tsr_call call = {.kind = TSR_CALL_BARRIER};
    tsr_status st = sit(m, &call, NULL, NULL);
    if (st == TSR_OK)
        st = meet(m);
    if (st == TSR_OK)
        st = leave(m);
    return st;
}

static tsr_status local_broadcast(tsr_comm *comm, int32_t root, void *data, size_t bytes)
{
    member *m = member_of(comm);
    const tsr_call call = {.kind = TSR_CALL_BROADCAST, .root = root, .bytes = bytes};
    tsr_status st = sit(m, &call, data, NULL);
    if (st == TSR_OK)
        st = meet(m);
    if (st != TSR_OK)
        return st;

    if (comm->rank != root && bytes != 0)
        memcpy(data, m->group->seats[root].data, bytes);
    return leave(m);
}

static tsr_status local_gather(tsr_comm *comm, int32_t root, const void *send,
                               const size_t *bytes_of, void *recv)
{
    member *m = member_of(comm);
    tsr_call call = {.kind = TSR_CALL_GATHER, .root = root};
    for (int32_t r = 0; r < comm->size; r++)
        call.bytes += bytes_of[r];
    tsr_status st = sit(m, &call, send, NULL);
    if (st == TSR_OK)
        st = meet(m);
    if (st != TSR_OK)
        return st;

    unsigned char *into = recv;
    for (int32_t r = 0; r < comm->size && comm->rank == root; r++) {
        if (bytes_of[r] == 0)
            continue;
        memcpy(into, m->group->seats[r].data, bytes_of[r]);
        into += bytes_of[r];
    }
    return leave(m);
}

static void local_abort(tsr_comm *comm, tsr_status cause)
{
    group *g = member_of(comm)->group;
    lock(g);
    end_group(g, cause);
    unlock(g);
}

static tsr_status local_cause(tsr_comm *comm)
{
    group *g = member_of(comm)->group;
    lock(g);
    const tsr_status cause = g->cause;
    unlock(g);
    return cause;
}

static tsr_status local_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                      tsr_exchange **ret_exchange)
{
    member *m = member_of(comm);
    tsr_host_exchange *x = NULL;
    tsr_status st = tsr_host_exchange_open(comm, shape, &x);
    if (st != TSR_OK)
        return st;

    const tsr_call call = tsr_call_of_open(&x->base);
    st = sit(m, &call, NULL, NULL);
    if (st == TSR_OK)
        st = meet(m);
    if (st == TSR_OK)
        st = leave(m);
    if (st != TSR_OK) {
        tsr_host_exchange_close(x);
        return st;
    }
    *ret_exchange = &x->base;
    return TSR_OK;
}

static tsr_status local_dispatch(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream; /* one order: the caller's */
    tsr_host_exchange *x = tsr_host_exchange_of(exchange);
    const tsr_call call = tsr_call_of_exchange(exchange, TSR_CALL_DISPATCH);
    const tsr_status st = tsr_send_plan_build(exchange->comm->size, exchange->tokens,
                                              exchange->shape.slots, x->send_ranks, &x->plan);
    return st == TSR_OK ? sit(member_of(exchange->comm), &call, NULL, x) : st;
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

static tsr_status fetch_rows(tsr_host_exchange *x, const seat *seats)
{
    const tsr_comm *comm = x->base.comm;
    for (int32_t s = 0; s < comm->size; s++) {
        const int32_t *first = seats[s].of->plan.row_first;
        x->row_count[s] = first[comm->rank + 1] - first[comm->rank];
    }
    const tsr_status st = tsr_host_exchange_place(x);
    if (st != TSR_OK)
        return st;
    for (int32_t s = 0; s < comm->size; s++)
        copy_rows(x, seats[s].of, s);
    tsr_host_exchange_number(x);
    return TSR_OK;
}

static void fetch_answers(tsr_host_exchange *x, const seat *seats)
{
    const tsr_comm *comm = x->base.comm;
    const size_t bytes = x->base.shape.return_row_bytes;
    for (int32_t d = 0; d < comm->size; d++) {
        const tsr_host_exchange *from = seats[d].of;
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
    return sit(member_of(exchange->comm), &call, NULL, tsr_host_exchange_of(exchange));
}

static tsr_status local_wait(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    member *m = member_of(exchange->comm);
    tsr_host_exchange *x = tsr_host_exchange_of(exchange);
    tsr_status st = meet(m);
    if (st != TSR_OK)
        return st;

    if (exchange->phase == TSR_PHASE_DISPATCHED)
        st = fetch_rows(x, m->group->seats);
    else
        fetch_answers(x, m->group->seats);
    const tsr_status left = leave(m);
    return st == TSR_OK ? left : st;
}

static void local_exchange_close(tsr_exchange *exchange)
{
    group *g = member_of(exchange->comm)->group;
    lock(g);
    wait_for_readers(g);
    unlock(g);
    tsr_host_exchange_close(tsr_host_exchange_of(exchange));
}

static void group_close(group *g)
{
    (void)pthread_cond_destroy(&g->turned);
    (void)pthread_mutex_destroy(&g->lock);
    free(g->missing);
    free(g->members);
    free(g);
}

static void local_close(tsr_comm *comm)
{
    group *g = member_of(comm)->group;
    lock(g);
    const bool last = --g->open == 0;
    unlock(g);
    if (last)
        group_close(g);
}

static const tsr_comm_ops local_ops = {
    .name = "local",
    .broadcast = local_broadcast,
    .gather = local_gather,
    .barrier = local_barrier,
    .abort = local_abort,
    .cause = local_cause,
    .close = local_close,
    .exchange_open = local_exchange_open,
    .dispatch = local_dispatch,
    .return_answers = local_return,
    .wait = local_wait,
    .exchange_close = local_exchange_close,
};

static group *group_open(int32_t ranks)
{
    group *g = calloc(1, sizeof(*g) + (size_t)ranks * sizeof(seat));
    if (!g)
        return NULL;
    g->members = calloc((size_t)ranks, sizeof(*g->members));
    g->missing = calloc((size_t)ranks, sizeof(*g->missing));
    if (!g->members || !g->missing || pthread_mutex_init(&g->lock, NULL) != 0)
        goto free_group;
    if (!tsr_clock_condition(&g->turned))
        goto destroy_lock;
    g->size = ranks;
    g->open = ranks;
    return g;

destroy_lock:
    (void)pthread_mutex_destroy(&g->lock);
free_group:
    free(g->missing);
    free(g->members);
    free(g);
    return NULL;
}

tsr_status tsr_comm_open_local(int32_t ranks, int32_t deadline_ms, tsr_comm **ret_members)
{
    if (ranks < 1 || ranks > MAX_RANKS || deadline_ms < 1 || !ret_members) {
        tsr_log(TSR_LOG_ERROR,
                "local group: %" PRId32 " ranks with a deadline of %" PRId32
                " ms; 1 to %d ranks and at least 1 ms",
                ranks, deadline_ms, MAX_RANKS);
        return TSR_ERR_ARG;
    }
    group *g = group_open(ranks);
    if (!g)
        return TSR_ERR_MEMORY;

    for (int32_t r = 0; r < ranks; r++) {
        member *m = &g->members[r];
        m->base =
            (tsr_comm){.ops = &local_ops, .rank = r, .size = ranks, .deadline_ms = deadline_ms};
        m->group = g;
        ret_members[r] = &m->base;
    }
    return TSR_OK;
}
