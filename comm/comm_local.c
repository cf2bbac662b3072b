/*
 * Ranks as threads of one process: the group that the others are compared with. A call is a meeting
 * at a table (local_table.h) at which each rank copies what it wants from what the others put down:
 *
 *      broadcast   root's data -------> every rank's data
 *      gather      every rank's send -> root's recv, one after the other
 */
#include "comm/exchange_local.h"
#include "comm/local_table.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_RANKS = 1024 };

static tsr_status local_barrier(tsr_comm *comm)
{
    const tsr_call call = {.kind = TSR_CALL_BARRIER};
    return tsr_local_pass(comm, &call);
}

static tsr_status local_broadcast(tsr_comm *comm, int32_t root, void *data, size_t bytes)
{
    const tsr_call call = {.kind = TSR_CALL_BROADCAST, .root = root, .bytes = bytes};
    tsr_status st = tsr_local_sit(comm, &call, data);
    if (st == TSR_OK)
        st = tsr_local_meet(comm);
    if (st != TSR_OK)
        return st;

    if (comm->rank != root && bytes != 0)
        memcpy(data, tsr_local_data(comm, root), bytes);
    return tsr_local_leave(comm);
}

static tsr_status local_gather(tsr_comm *comm, int32_t root, const void *send,
                               const size_t *bytes_of, void *recv)
{
    tsr_call call = {.kind = TSR_CALL_GATHER, .root = root};
    for (int32_t r = 0; r < comm->size; r++)
        call.bytes += bytes_of[r];
    tsr_status st = tsr_local_sit(comm, &call, send);
    if (st == TSR_OK)
        st = tsr_local_meet(comm);
    if (st != TSR_OK)
        return st;

    unsigned char *into = recv;
    for (int32_t r = 0; r < comm->size && comm->rank == root; r++) {
        if (bytes_of[r] == 0)
            continue;
        memcpy(into, tsr_local_data(comm, r), bytes_of[r]);
        into += bytes_of[r];
    }
    return tsr_local_leave(comm);
}

/* Whoever started the threads waits for all of them. */
static void local_stay_behind(tsr_comm *comm)
{
    (void)comm;
}

static const tsr_comm_ops local_ops = {
    .name = "local",
    .broadcast = local_broadcast,
    .gather = local_gather,
    .barrier = local_barrier,
    .abort = tsr_local_abort,
    .cause = tsr_local_cause,
    .ender = tsr_local_ender,
    .stay_behind = local_stay_behind,
    .close = tsr_local_table_close,
    .exchange_open = tsr_exchange_local_open,
};

tsr_status tsr_comm_open_local(int32_t ranks, int32_t deadline_ms, tsr_comm **ret_members)
{
    if (ranks < 1 || ranks > MAX_RANKS || deadline_ms < 1 || ret_members == NULL) {
        tsr_log(TSR_LOG_ERROR,
                "local group: %" PRId32 " ranks with a deadline of %" PRId32
                " ms; 1 to %d ranks and at least 1 ms",
                ranks, deadline_ms, MAX_RANKS);
        return TSR_ERR_ARG;
    }
    return tsr_local_table_open(ranks, deadline_ms, &local_ops, ret_members);
}
