/*
 * Ranks as MPI processes: a group opens with a meeting and closes with one, and its calls are
 * meetings and messages:
 *
 *      barrier     a meeting (mpi_meeting.h)
 *      broadcast   the root's bytes to each
 *      gather      each rank's bytes to where they will lie at the root
 */
#include "comm/exchange_mpi.h"
#include "comm/mpi_meeting.h"
#include "comm/mpi_notes.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <string.h>

static tsr_status mpi_barrier(tsr_comm *comm)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    return tsr_mpi_pass(w, w->meeting, (tsr_call){.kind = TSR_CALL_BARRIER});
}

/* From the root to each: a job has tens of ranks, and whoever waits, waits for the one to name. */
static tsr_status mpi_broadcast(tsr_comm *comm, int32_t root, void *data, size_t bytes)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    const tsr_call call = {.kind = TSR_CALL_BROADCAST, .root = root, .bytes = bytes};
    tsr_status st = tsr_mpi_listen(w);
    if (comm->rank != root) {
        const tsr_mpi_message from = {root, TSR_MPI_BROADCAST, bytes, NULL, data};
        if (st == TSR_OK)
            st = tsr_mpi_start(w, w->flow, &from);
        return st == TSR_OK ? tsr_mpi_finish(w, w->flow, &call, tsr_mpi_deadline(w)) : st;
    }
    for (int32_t r = 0; r < comm->size && st == TSR_OK; r++) {
        const tsr_mpi_message to = {r, TSR_MPI_BROADCAST, bytes, data, NULL};
        if (r != root)
            st = tsr_mpi_start(w, w->flow, &to);
    }
    return st == TSR_OK ? tsr_mpi_finish(w, w->flow, &call, tsr_mpi_deadline(w)) : st;
}

static tsr_status mpi_gather(tsr_comm *comm, int32_t root, const void *send, const size_t *bytes_of,
                             void *recv)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    tsr_call call = {.kind = TSR_CALL_GATHER, .root = root};
    tsr_status st = tsr_mpi_listen(w);
    unsigned char *into = recv;
    for (int32_t r = 0; r < comm->size && st == TSR_OK; r++) {
        const tsr_mpi_message to = {root, TSR_MPI_GATHER, bytes_of[r], send, NULL};
        const tsr_mpi_message from = {r, TSR_MPI_GATHER, bytes_of[r], NULL, into};
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

static void mpi_close(tsr_comm *comm)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    if (w->cause == TSR_OK) {
        const tsr_status st = tsr_mpi_pass(w, w->meeting, (tsr_call){.kind = TSR_CALL_LEAVE});
        if (st != TSR_OK)
            tsr_mpi_abort(comm, st);
    }
    tsr_mpi_meeting_close(w->meeting);
    tsr_mpi_requests_close(w->flow);
    tsr_mpi_world_close(w);
}

static const tsr_comm_ops mpi_ops = {
    .name = "mpi",
    .broadcast = mpi_broadcast,
    .gather = mpi_gather,
    .barrier = mpi_barrier,
    .abort = tsr_mpi_abort,
    .cause = tsr_mpi_cause,
    .ender = tsr_mpi_ender,
    .stay_behind = tsr_mpi_stay_behind,
    .close = mpi_close,
    .exchange_open = tsr_exchange_mpi_open,
};

/* A first meeting, since making a communicator cannot say who is missing; and one that hears
 * notes. */
static tsr_status join(tsr_mpi_world *w)
{
    const tsr_call call = {.kind = TSR_CALL_JOIN};
    tsr_status st = tsr_mpi_meeting_open(w->base.size, &w->meeting);
    if (st == TSR_OK)
        st = tsr_mpi_requests_open(&w->flow);
    if (st == TSR_OK)
        st = tsr_mpi_pass(w, w->meeting, call);
    if (st == TSR_OK)
        st = tsr_mpi_world_connect(w);
    if (st == TSR_OK)
        st = tsr_mpi_pass(w, w->meeting, call);
    return st;
}

tsr_status tsr_comm_open_mpi(int32_t deadline_ms, const tsr_launched *launched, tsr_comm **ret_comm)
{
    tsr_mpi_world *w = NULL;
    if (deadline_ms < 1 || ret_comm == NULL) {
        tsr_log(TSR_LOG_ERROR, "MPI group: a deadline of %" PRId32 " ms; at least 1", deadline_ms);
        return TSR_ERR_ARG;
    }
    tsr_status st = tsr_mpi_world_open(&mpi_ops, deadline_ms, launched, &w);
    if (st != TSR_OK)
        return st;
    st = join(w);
    if (st != TSR_OK) {
        tsr_mpi_abort(&w->base, st);
        return w->cause; /* with what MPI may still hold: see mpi_world.c */
    }
    *ret_comm = &w->base;
    return TSR_OK;
}
