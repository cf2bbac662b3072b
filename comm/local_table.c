/*
 * One lock over the seats, and one condition on which everybody waits: the table filled or cleared,
 * readers left, or there is a cause. local_table.h draws a meeting.
 */
#include "comm/local_table.h"

#include "runtime/base/clock.h"
#include "runtime/base/ending.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* How often a wait looks whether the process was asked to end. */
enum { SLICE_MS = 100 };

typedef struct seat {
    bool taken;
    bool done; /* has copied */
    tsr_call call;
    const void *data; /* for peers to read */
    int64_t sat_ns;   /* since when it is taken */
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
    int32_t ender;    /* the rank of that cause */
    seat seats[];     /* [size] */
} group;

struct member {
    tsr_comm base; /* first member */
    group *group;
};

static group *group_of(const tsr_comm *comm)
{
    return ((const member *)(const void *)comm)->group;
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

/* Waits for news, or a moment. False once the deadline has passed. The lock is held. */
static bool sleep_a_while(group *g, int64_t deadline_ms)
{
    const int64_t left = deadline_ms - tsr_clock_ms();
    const struct timespec until = tsr_clock_deadline(left < SLICE_MS ? (int32_t)left : SLICE_MS);

    if (left <= 0)
        return false;
    (void)pthread_cond_timedwait(&g->turned, &g->lock, &until);
    return true;
}

/* The lock is held. */
static void end_group(const tsr_comm *comm, tsr_status cause)
{
    group *g = group_of(comm);
    if (g->cause == TSR_OK) {
        g->cause = cause;
        g->ender = comm->rank;
    }
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

tsr_status tsr_local_sit(tsr_comm *comm, const tsr_call *call, const void *data)
{
    group *g = group_of(comm);
    const seat own = {.taken = true, .call = *call, .data = data, .sat_ns = tsr_clock_ns()};
    lock(g);
    const bool spent = g->cause != TSR_OK;
    if (!spent) {
        g->seats[comm->rank] = own;
        if (++g->taken == g->size)
            turn(g);
    }
    unlock(g);
    return spent ? TSR_ERR_PEER : TSR_OK;
}

/* Ranks that have not sat down, or have not copied, as a timeout. The lock is held. */
static tsr_status time_out_ranks(const tsr_comm *comm, bool copying)
{
    group *g = group_of(comm);
    int32_t count = 0;
    for (int32_t r = 0; r < g->size; r++) {
        if (copying ? !g->seats[r].done : !g->seats[r].taken)
            g->missing[count++] = r;
    }
    return tsr_call_timeout(&g->seats[comm->rank].call, comm->deadline_ms, g->missing, count);
}

/* Every rank compares and finds the same; the first says so. The lock is held. */
static tsr_status compare_calls(const tsr_comm *comm)
{
    group *g = group_of(comm);
    const tsr_call *mine = &g->seats[comm->rank].call;
    for (int32_t r = 0; r < g->size; r++) {
        const tsr_call *theirs = &g->seats[r].call;
        if (!tsr_call_equal(mine, theirs))
            return g->cause == TSR_OK ? tsr_call_mismatch(mine, r, theirs) : TSR_ERR_MISMATCH;
    }
    return TSR_OK;
}

tsr_status tsr_local_meet(tsr_comm *comm)
{
    group *g = group_of(comm);
    const int64_t deadline = tsr_clock_ms() + comm->deadline_ms;
    tsr_status st = TSR_OK;

    lock(g);
    bool in_time = true;
    while (g->taken < g->size && g->cause == TSR_OK && in_time && st == TSR_OK) {
        in_time = sleep_a_while(g, deadline);
        st = tsr_ending_status();
    }

    /* A disagreement is everybody's finding, also of those who were told of it meanwhile. */
    if (st == TSR_OK && g->taken == g->size)
        st = compare_calls(comm);
    if (st == TSR_OK && g->cause != TSR_OK)
        st = TSR_ERR_PEER;
    if (st == TSR_OK && g->taken < g->size)
        st = time_out_ranks(comm, false);

    if (st == TSR_OK) {
        g->readers++;
    } else {
        end_group(comm, st);
        wait_for_readers(g);
    }
    unlock(g);
    return st;
}

const void *tsr_local_data(const tsr_comm *comm, int32_t rank)
{
    return group_of(comm)->seats[rank].data;
}

int64_t tsr_local_sat_ns(const tsr_comm *comm, int32_t rank)
{
    return group_of(comm)->seats[rank].sat_ns;
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

tsr_status tsr_local_leave(tsr_comm *comm)
{
    group *g = group_of(comm);
    const int64_t deadline = tsr_clock_ms() + comm->deadline_ms;
    tsr_status st = TSR_OK;

    lock(g);
    const uint64_t meeting = g->meeting;
    g->seats[comm->rank].done = true;
    g->readers--;
    if (++g->done == g->size)
        clear_table(g);
    else if (g->readers == 0 && g->cause != TSR_OK)
        turn(g);

    bool in_time = true;
    while (g->meeting == meeting && g->cause == TSR_OK && in_time)
        in_time = sleep_a_while(g, deadline);
    if (g->meeting == meeting) {
        st = g->cause != TSR_OK ? TSR_ERR_PEER : time_out_ranks(comm, true);
        end_group(comm, st);
        wait_for_readers(g);
    }
    unlock(g);
    return st;
}

tsr_status tsr_local_pass(tsr_comm *comm, const tsr_call *call)
{
    tsr_status st = tsr_local_sit(comm, call, NULL);
    if (st == TSR_OK)
        st = tsr_local_meet(comm);
    if (st == TSR_OK)
        st = tsr_local_leave(comm);
    return st;
}

void tsr_local_await_readers(tsr_comm *comm)
{
    group *g = group_of(comm);
    lock(g);
    wait_for_readers(g);
    unlock(g);
}

void tsr_local_abort(tsr_comm *comm, tsr_status cause)
{
    group *g = group_of(comm);
    lock(g);
    end_group(comm, cause);
    unlock(g);
}

tsr_status tsr_local_cause(tsr_comm *comm)
{
    group *g = group_of(comm);
    lock(g);
    const tsr_status cause = g->cause;
    unlock(g);
    return cause;
}

int32_t tsr_local_ender(const tsr_comm *comm)
{
    group *g = group_of(comm);
    lock(g);
    const int32_t ender = g->cause != TSR_OK ? g->ender : -1;
    unlock(g);
    return ender;
}

static void group_close(group *g)
{
    (void)pthread_cond_destroy(&g->turned);
    (void)pthread_mutex_destroy(&g->lock);
    free(g->missing);
    free(g->members);
    free(g);
}

void tsr_local_table_close(tsr_comm *comm)
{
    group *g = group_of(comm);
    lock(g);
    const bool last = --g->open == 0;
    unlock(g);
    if (last)
        group_close(g);
}

static group *group_open(int32_t ranks)
{
    group *g = calloc(1, sizeof(*g) + (size_t)ranks * sizeof(seat));
    if (g == NULL)
        return NULL;
    g->members = calloc((size_t)ranks, sizeof(*g->members));
    g->missing = calloc((size_t)ranks, sizeof(*g->missing));
    if (g->members == NULL || g->missing == NULL || pthread_mutex_init(&g->lock, NULL) != 0)
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

tsr_status tsr_local_table_open(int32_t ranks, int32_t deadline_ms, const tsr_comm_ops *ops,
                                tsr_comm **ret_members)
{
    group *g = group_open(ranks);
    if (g == NULL)
        return TSR_ERR_MEMORY;
    for (int32_t r = 0; r < ranks; r++) {
        member *m = &g->members[r];
        m->base = (tsr_comm){.ops = ops, .rank = r, .size = ranks, .deadline_ms = deadline_ms};
        m->group = g;
        ret_members[r] = &m->base;
    }
    return TSR_OK;
}
