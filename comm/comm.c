/*
 * The front doors of a group: arguments and order are checked here, once, for every backend.
 *
 * While rows are under way nothing else may be: the messages of two operations would meet where
 * each backend keeps those of one, and a rank that comes to the wait finds another's bytes.
 */
#include "comm/comm_ops.h"
#include "comm/exchange_ops.h"
#include "runtime/base/log.h"

/* Nobody waits for a rank that has failed: whatever the error, the group ends with it. */
tsr_status tsr_comm_passed(tsr_comm *comm, tsr_status status)
{
    if (status != TSR_OK)
        comm->ops->abort(comm, status);
    return status;
}

tsr_status tsr_comm_refused(tsr_comm *comm, const char *what)
{
    tsr_log(TSR_LOG_ERROR, "%s", what);
    return tsr_comm_passed(comm, TSR_ERR_ARG);
}

tsr_status tsr_comm_in_turn(tsr_comm *comm, const char *what)
{
    char at[TSR_EXCHANGE_TEXT_BYTES];
    if (comm->pending == NULL)
        return TSR_OK;
    if (comm->ops->cause(comm) != TSR_OK)
        return TSR_ERR_PEER;
    tsr_exchange_text_base(comm->pending, sizeof(at), at);
    tsr_log(TSR_LOG_ERROR, "%s: the %s has not been waited for", what, at);
    return tsr_comm_passed(comm, TSR_ERR_ARG);
}

int32_t tsr_comm_rank(const tsr_comm *comm)
{
    return comm->rank;
}

int32_t tsr_comm_size(const tsr_comm *comm)
{
    return comm->size;
}

const char *tsr_comm_name(const tsr_comm *comm)
{
    return comm->ops->name;
}

int32_t tsr_comm_deadline_ms(const tsr_comm *comm)
{
    return comm->deadline_ms;
}

void tsr_comm_set_deadline(tsr_comm *comm, int32_t deadline_ms)
{
    comm->deadline_ms = deadline_ms < 1 ? 1 : deadline_ms;
}

tsr_status tsr_comm_broadcast(tsr_comm *comm, int32_t root, void *data, size_t bytes)
{
    if (root < 0 || root >= comm->size || (data == NULL && bytes != 0))
        return tsr_comm_refused(comm, "broadcast: no such root, or no data");
    tsr_status st = tsr_comm_in_turn(comm, "broadcast");
    if (st == TSR_OK)
        st = tsr_comm_passed(comm, comm->ops->broadcast(comm, root, data, bytes));
    return st;
}

tsr_status tsr_comm_gather(tsr_comm *comm, int32_t root, const void *send, const size_t *bytes_of,
                           void *recv)
{
    if (root < 0 || root >= comm->size || bytes_of == NULL)
        return tsr_comm_refused(comm, "gather: no such root, or no sizes");

    size_t sum = 0;
    for (int32_t r = 0; r < comm->size; r++) {
        if (bytes_of[r] > SIZE_MAX - sum)
            return tsr_comm_refused(comm, "gather: the sizes do not fit a size_t");
        sum += bytes_of[r];
    }
    if ((send == NULL && bytes_of[comm->rank] != 0) ||
        (recv == NULL && comm->rank == root && sum != 0))
        return tsr_comm_refused(comm, "gather: a buffer is missing");
    tsr_status st = tsr_comm_in_turn(comm, "gather");
    if (st == TSR_OK)
        st = tsr_comm_passed(comm, comm->ops->gather(comm, root, send, bytes_of, recv));
    return st;
}

tsr_status tsr_comm_barrier(tsr_comm *comm)
{
    tsr_status st = tsr_comm_in_turn(comm, "barrier");
    if (st == TSR_OK)
        st = tsr_comm_passed(comm, comm->ops->barrier(comm));
    return st;
}

void tsr_comm_abort(tsr_comm *comm, tsr_status cause)
{
    comm->ops->abort(comm, cause == TSR_OK ? TSR_ERR_INTERNAL : cause);
}

tsr_status tsr_comm_cause(tsr_comm *comm)
{
    return comm->ops->cause(comm);
}

int32_t tsr_comm_ender(const tsr_comm *comm)
{
    return comm->ops->ender(comm);
}

void tsr_comm_stay_behind(tsr_comm *comm)
{
    comm->ops->stay_behind(comm);
}

void tsr_comm_close(tsr_comm *comm)
{
    if (comm != NULL && tsr_comm_in_turn(comm, "closing the group") == TSR_OK)
        comm->ops->close(comm);
}
