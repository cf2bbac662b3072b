/*
 * The front doors of an exchange: arguments, order, step and stage are checked and counted here,
 * once, for every exchange; the group remembers which one is pending (comm.c).
 */
#include "comm/exchange.h"

#include "comm/exchange_device.h"
#include "comm/exchange_host.h"
#include "comm/exchange_nccl.h"
#include "comm/exchange_ops.h"
#include "comm/exchange_self.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdio.h>

enum { CALL_BYTES = 48 };

uint64_t tsr_exchange_bytes(const tsr_exchange_shape *shape, int32_t ranks, bool on_gpus)
{
    if (ranks == 1)
        return tsr_exchange_self_bytes(shape);
    return on_gpus ? tsr_exchange_nccl_bytes(shape, ranks) : tsr_host_exchange_bytes(shape, ranks);
}

void tsr_exchange_use_memory(tsr_comm *comm, const tsr_exchange_memory *memory)
{
    comm->memory = memory;
}

static tsr_status open_over_device(tsr_comm *comm, const tsr_exchange_shape *shape,
                                   tsr_exchange **ret_exchange)
{
    if (comm->size == 1)
        return tsr_exchange_device_open(comm, shape, ret_exchange);
    if (comm->memory->is_cuda)
        return tsr_exchange_nccl_open(comm, shape, ret_exchange);
    tsr_log(TSR_LOG_ERROR,
            "exchange: %" PRId32 " ranks, whose rows lie in the memory of a device that is no GPU",
            comm->size);
    return TSR_ERR_DEVICE;
}

static tsr_status open_any(tsr_comm *comm, const tsr_exchange_shape *shape,
                           tsr_exchange **ret_exchange)
{
    if (comm->memory != NULL)
        return open_over_device(comm, shape, ret_exchange);
    return comm->size == 1 ? tsr_exchange_self_open(comm, shape, ret_exchange)
                           : comm->ops->exchange_open(comm, shape, ret_exchange);
}

tsr_status tsr_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                             tsr_exchange **ret_exchange)
{
    tsr_status st = tsr_comm_in_turn(comm, "opening an exchange");
    if (st == TSR_OK)
        st = tsr_exchange_check_shape(comm, shape);
    if (st == TSR_OK)
        st = open_any(comm, shape, ret_exchange);
    return tsr_comm_passed(comm, st);
}

const char *tsr_exchange_name(const tsr_exchange *exchange)
{
    return exchange->ops->name;
}

const int64_t *tsr_exchange_waited_ns(tsr_exchange *exchange)
{
    return exchange->ops->waited_ns(exchange);
}

tsr_exchange_buffers tsr_exchange_buffers_of(const tsr_exchange *exchange)
{
    return exchange->buffers;
}

static tsr_status in_turn(const tsr_exchange *exchange, const char *verb)
{
    char call[CALL_BYTES];
    if (snprintf(call, sizeof(call), "%s of exchange %" PRId32, verb, exchange->number) < 0)
        return tsr_comm_in_turn(exchange->comm, verb);
    return tsr_comm_in_turn(exchange->comm, call);
}

tsr_status tsr_exchange_begin(tsr_exchange *exchange, uint64_t step, tsr_stream stream)
{
    const tsr_status st = in_turn(exchange, "begin");
    if (st != TSR_OK)
        return st;
    exchange->step = step;
    exchange->stage = TSR_NO_STAGE;
    exchange->phase = TSR_PHASE_STANDING;
    return tsr_comm_passed(exchange->comm, exchange->ops->begin(exchange, stream));
}

/* What has been started is pending, in its exchange and in the group, until it is waited for. */
static tsr_status started(tsr_exchange *exchange, tsr_exchange_phase phase, tsr_status st)
{
    if (st == TSR_OK) {
        exchange->phase = phase;
        exchange->comm->pending = exchange;
    }
    return tsr_comm_passed(exchange->comm, st);
}

tsr_status tsr_exchange_expect(tsr_exchange *exchange, int32_t most)
{
    if (most < 0 || most > exchange->shape.max_tokens)
        return tsr_comm_refused(exchange->comm, "expect: more rows than the exchange holds");
    exchange->expected = most;
    return TSR_OK;
}

bool tsr_exchange_hand_over(tsr_exchange *exchange, tsr_exchange_coming *ret_coming)
{
    if (exchange->phase != TSR_PHASE_ARRIVED || exchange->ops->hand_over == NULL ||
        !exchange->ops->hand_over(exchange, ret_coming))
        return false;
    exchange->phase = TSR_PHASE_STANDING;
    return true;
}

tsr_status tsr_exchange_dispatch(tsr_exchange *exchange, int32_t tokens, tsr_stream stream)
{
    tsr_comm *comm = exchange->comm;
    const tsr_status st = in_turn(exchange, "dispatch");
    if (st != TSR_OK)
        return st;
    if (exchange->phase == TSR_PHASE_OPENED)
        return tsr_comm_refused(comm, "dispatch: no step has begun");

    exchange->stage++;
    if (tokens < 0 || tokens > exchange->expected) {
        tsr_log(TSR_LOG_ERROR,
                "dispatch of step %" PRIu64 " stage %" PRId32 ": %" PRId32
                " rows, where no rank sends more than %" PRId32,
                exchange->step, exchange->stage, tokens, exchange->expected);
        return tsr_comm_passed(comm, TSR_ERR_ARG);
    }
    exchange->tokens = tokens;
    exchange->most = exchange->expected;
    return started(exchange, TSR_PHASE_DISPATCHED, exchange->ops->dispatch(exchange, stream));
}

tsr_status tsr_exchange_return(tsr_exchange *exchange, tsr_stream stream)
{
    const tsr_status st = in_turn(exchange, "return");
    if (st != TSR_OK)
        return st;
    if (exchange->phase != TSR_PHASE_ARRIVED)
        return tsr_comm_refused(exchange->comm, "return: no rows have arrived that are unanswered");
    return started(exchange, TSR_PHASE_RETURNING, exchange->ops->return_answers(exchange, stream));
}

tsr_status tsr_exchange_wait(tsr_exchange *exchange, tsr_stream stream)
{
    if (exchange->comm->pending != exchange)
        return tsr_comm_refused(exchange->comm, "wait: nothing was started");

    const tsr_status st = exchange->ops->wait(exchange, stream);
    exchange->comm->pending = NULL;
    exchange->phase = st == TSR_OK && exchange->phase == TSR_PHASE_DISPATCHED ? TSR_PHASE_ARRIVED
                                                                              : TSR_PHASE_STANDING;
    return tsr_comm_passed(exchange->comm, st);
}

tsr_status tsr_exchange_poll(tsr_exchange *exchange)
{
    return tsr_comm_passed(exchange->comm, exchange->ops->poll(exchange));
}

int32_t tsr_exchange_text(const tsr_exchange *exchange, size_t capacity, char *text)
{
    return exchange->ops->text(exchange, capacity, text);
}

void tsr_exchange_drain(tsr_exchange *exchange, tsr_stream stream)
{
    exchange->ops->drain(exchange, stream);
}

void tsr_exchange_close(tsr_exchange *exchange)
{
    if (exchange == NULL)
        return;
    tsr_comm *comm = exchange->comm;
    if (comm->pending == exchange) {
        comm->ops->abort(comm, TSR_ERR_INTERNAL);
        comm->pending = NULL;
    }
    exchange->ops->close(exchange);
}
