/* Ranks as MPI processes: a group opens with a meeting and closes with one. */
#include "comm/mpi_calls.h"
#include "runtime/base/log.h"

#include <inttypes.h>

static void mpi_close(tsr_comm *comm)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    if (w->cause == TSR_OK) {
        const tsr_status st = tsr_mpi_meet(w, (tsr_call){.kind = TSR_CALL_LEAVE});
        if (st != TSR_OK)
            tsr_mpi_abort(comm, st);
    }
    tsr_mpi_world_close(w);
}

static const tsr_comm_ops mpi_ops = {
    .name = "mpi",
    .broadcast = tsr_mpi_broadcast,
    .gather = tsr_mpi_gather,
    .barrier = tsr_mpi_barrier,
    .abort = tsr_mpi_abort,
    .cause = tsr_mpi_cause,
    .close = mpi_close,
    .exchange_open = tsr_mpi_exchange_open,
    .dispatch = tsr_mpi_dispatch,
    .return_answers = tsr_mpi_return,
    .wait = tsr_mpi_wait,
    .exchange_close = tsr_mpi_exchange_close,
};

/* A first meeting, since making a communicator cannot say who is missing; and one that hears
 * notes. */
static tsr_status join(tsr_mpi_world *w)
{
    const tsr_call call = {.kind = TSR_CALL_JOIN};
    tsr_status st = tsr_mpi_meet(w, call);
    if (st == TSR_OK)
        st = tsr_mpi_world_connect(w);
    if (st == TSR_OK)
        st = tsr_mpi_meet(w, call);
    return st;
}

tsr_status tsr_comm_open_mpi(int32_t deadline_ms, tsr_comm **ret_comm)
{
    tsr_mpi_world *w = NULL;
    if (deadline_ms < 1 || !ret_comm) {
        tsr_log(TSR_LOG_ERROR, "MPI group: a deadline of %" PRId32 " ms; at least 1", deadline_ms);
        return TSR_ERR_ARG;
    }
    tsr_status st = tsr_mpi_world_open(&mpi_ops, deadline_ms, &w);
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
