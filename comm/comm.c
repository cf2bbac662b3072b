/* The front doors: arguments and order are checked here, once, for every backend. */
#include "comm/comm.h"

#include "comm/comm_ops.h"
#include "comm/host_exchange.h"
#include "runtime/base/log.h"

#include <inttypes.h>

enum { ROW_ALIGNMENT = 16, MAX_ROW_BYTES = 1 << 30 };

/* Nobody waits for a rank that has failed: whatever the error, the group ends with it. */
static tsr_status passed(tsr_comm *comm, tsr_status status)
{
    if (status != TSR_OK)
        comm->ops->abort(comm, status);
    return status;
}

static tsr_status refused(tsr_comm *comm, const char *what)
{
    tsr_log(TSR_LOG_ERROR, "%s", what);
    return passed(comm, TSR_ERR_ARG);
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

tsr_status tsr_comm_broadcast(tsr_comm *comm, int32_t root, void *data, size_t bytes)
{
    if (root < 0 || root >= comm->size || (!data && bytes != 0))
        return refused(comm, "broadcast: no such root, or no data");
    return passed(comm, comm->ops->broadcast(comm, root, data, bytes));
}

tsr_status tsr_comm_gather(tsr_comm *comm, int32_t root, const void *send, const size_t *bytes_of,
                           void *recv)
{
    if (root < 0 || root >= comm->size || !bytes_of)
        return refused(comm, "gather: no such root, or no sizes");

    size_t sum = 0;
    for (int32_t r = 0; r < comm->size; r++) {
        if (bytes_of[r] > SIZE_MAX - sum)
            return refused(comm, "gather: the sizes do not fit a size_t");
        sum += bytes_of[r];
    }
    if ((!send && bytes_of[comm->rank] != 0) || (!recv && comm->rank == root && sum != 0))
        return refused(comm, "gather: a buffer is missing");
    return passed(comm, comm->ops->gather(comm, root, send, bytes_of, recv));
}

tsr_status tsr_comm_barrier(tsr_comm *comm)
{
    return passed(comm, comm->ops->barrier(comm));
}

void tsr_comm_abort(tsr_comm *comm, tsr_status cause)
{
    comm->ops->abort(comm, cause == TSR_OK ? TSR_ERR_INTERNAL : cause);
}

tsr_status tsr_comm_cause(tsr_comm *comm)
{
    return comm->ops->cause(comm);
}

void tsr_comm_close(tsr_comm *comm)
{
    if (comm)
        comm->ops->close(comm);
}

static bool row_allowed(size_t bytes)
{
    return bytes != 0 && bytes % ROW_ALIGNMENT == 0 && bytes <= MAX_ROW_BYTES;
}

/* Indices are 32 bits: the largest is that of an answer. */
static bool shape_allowed(const tsr_exchange_shape *shape, int32_t ranks)
{
    return shape->max_tokens >= 1 && shape->slots >= 1 && row_allowed(shape->row_bytes) &&
           row_allowed(shape->return_row_bytes) &&
           (int64_t)shape->max_tokens * shape->slots <= INT32_MAX / ranks;
}

uint64_t tsr_exchange_bytes(const tsr_exchange_shape *shape, int32_t ranks)
{
    return tsr_host_exchange_bytes(shape, ranks);
}

tsr_status tsr_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                             tsr_exchange **ret_exchange)
{
    if (!shape_allowed(shape, comm->size)) {
        tsr_log(TSR_LOG_ERROR,
                "exchange: %" PRId32 " rows of %zu bytes, %" PRId32
                " slots, answers of %zu bytes on %" PRId32
                " ranks: rows are multiples of 16 bytes, answers at most 2^31",
                shape->max_tokens, shape->row_bytes, shape->slots, shape->return_row_bytes,
                comm->size);
        return passed(comm, TSR_ERR_ARG);
    }

    tsr_exchange *exchange = NULL;
    const tsr_status st = comm->ops->exchange_open(comm, shape, &exchange);
    if (st != TSR_OK)
        return passed(comm, st);
    *ret_exchange = exchange;
    return TSR_OK;
}

tsr_exchange_buffers tsr_exchange_buffers_of(const tsr_exchange *exchange)
{
    return exchange->buffers;
}

static bool is_pending(const tsr_exchange *exchange)
{
    return exchange->phase == TSR_PHASE_DISPATCHED || exchange->phase == TSR_PHASE_RETURNING;
}

tsr_status tsr_exchange_dispatch(tsr_exchange *exchange, int32_t tokens, tsr_exchange_mark mark,
                                 tsr_stream stream)
{
    tsr_comm *comm = exchange->comm;
    if (is_pending(exchange))
        return refused(comm, "dispatch: the last operation was not waited for");
    if (tokens < 0 || tokens > exchange->shape.max_tokens) {
        tsr_log(TSR_LOG_ERROR,
                "dispatch of step %" PRIu64 " stage %" PRId32 ": %" PRId32
                " rows, the exchange holds %" PRId32,
                mark.step, mark.stage, tokens, exchange->shape.max_tokens);
        return passed(comm, TSR_ERR_ARG);
    }

    exchange->tokens = tokens;
    exchange->mark = mark;
    const tsr_status st = comm->ops->dispatch(exchange, stream);
    if (st == TSR_OK)
        exchange->phase = TSR_PHASE_DISPATCHED;
    return passed(comm, st);
}

tsr_status tsr_exchange_return(tsr_exchange *exchange, tsr_stream stream)
{
    tsr_comm *comm = exchange->comm;
    if (exchange->phase != TSR_PHASE_ARRIVED)
        return refused(comm, "return: no rows have arrived that are unanswered");

    const tsr_status st = comm->ops->return_answers(exchange, stream);
    if (st == TSR_OK)
        exchange->phase = TSR_PHASE_RETURNING;
    return passed(comm, st);
}

tsr_status tsr_exchange_wait(tsr_exchange *exchange, tsr_stream stream)
{
    tsr_comm *comm = exchange->comm;
    if (!is_pending(exchange))
        return refused(comm, "wait: nothing was started");

    const tsr_status st = comm->ops->wait(exchange, stream);
    exchange->phase = st == TSR_OK && exchange->phase == TSR_PHASE_DISPATCHED ? TSR_PHASE_ARRIVED
                                                                              : TSR_PHASE_IDLE;
    return passed(comm, st);
}

void tsr_exchange_close(tsr_exchange *exchange)
{
    if (!exchange)
        return;
    if (is_pending(exchange))
        exchange->comm->ops->abort(exchange->comm, TSR_ERR_INTERNAL);
    exchange->comm->ops->exchange_close(exchange);
}
