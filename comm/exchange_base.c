/*
 * What every exchange is made of, whoever opens it: the check of its shape, its base, and where it
 * stands in words. Below the front doors and the groups, which all lean on it:
 *
 *   exchange.c --> comm.c ------------.
 *       |                             v
 *       '--> exchange_self ... --> exchange_base
 */
#include "comm/exchange_ops.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <inttypes.h>
#include <stdio.h>

enum { MAX_ROW_BYTES = 1 << 30 };

static bool row_allowed(size_t bytes)
{
    return bytes != 0 && bytes % TSR_ROW_ALIGNMENT == 0 && bytes <= MAX_ROW_BYTES;
}

/* Indices are 32 bits: the largest are those of a slot and of an answer. */
static bool shape_allowed(const tsr_exchange_shape *shape, int32_t ranks)
{
    return shape->max_tokens >= 1 && shape->slots >= 1 && row_allowed(shape->row_bytes) &&
           row_allowed(shape->return_row_bytes) && shape->max_arrivals >= 1 &&
           shape->max_arrivals <= (int64_t)ranks * shape->max_tokens &&
           (int64_t)shape->max_tokens * shape->slots <= INT32_MAX &&
           (int64_t)shape->max_arrivals * shape->slots <= INT32_MAX;
}

tsr_status tsr_exchange_check_shape(const tsr_comm *comm, const tsr_exchange_shape *shape)
{
    if (shape_allowed(shape, comm->size))
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR,
            "exchange: %" PRId32 " rows of %zu bytes of which %" PRId32 " arrive, %" PRId32
            " slots, answers of %zu bytes on %" PRId32
            " ranks: rows are multiples of 16 bytes, answers at most 2^31, and no more arrive than "
            "all ranks send",
            shape->max_tokens, shape->row_bytes, shape->max_arrivals, shape->slots,
            shape->return_row_bytes, comm->size);
    return TSR_ERR_ARG;
}

tsr_exchange tsr_exchange_base(tsr_comm *comm, const tsr_exchange_ops *ops,
                               const tsr_exchange_shape *shape)
{
    return (tsr_exchange){
        .ops = ops,
        .comm = comm,
        .shape = *shape,
        .number = comm->exchanges++,
        .stage = TSR_NO_STAGE,
        .expected = shape->max_tokens,
    };
}

tsr_status tsr_exchange_overflow(const tsr_exchange *exchange, int64_t rows)
{
    tsr_log(TSR_LOG_ERROR,
            "dispatch of step %" PRIu64 " stage %" PRId32 ": %" PRId64
            " rows come to this rank, the exchange has room for %" PRId32 " arrivals",
            exchange->step, exchange->stage, rows, exchange->shape.max_arrivals);
    return TSR_ERR_CAPACITY;
}

tsr_status tsr_exchange_begin_nothing(tsr_exchange *exchange, tsr_stream stream)
{
    (void)exchange;
    (void)stream;
    return TSR_OK;
}

tsr_status tsr_exchange_poll_group(tsr_exchange *exchange)
{
    return exchange->comm->ops->cause(exchange->comm) == TSR_OK ? TSR_OK : TSR_ERR_PEER;
}

void tsr_exchange_drain_nothing(tsr_exchange *exchange, tsr_stream stream)
{
    (void)exchange;
    (void)stream;
}

/* Of which stage of the step it is at; NULL: of none. */
static const char *part_of_stage(const tsr_exchange *x)
{
    switch (x->phase) {
    case TSR_PHASE_OPENED:
        return NULL;
    case TSR_PHASE_STANDING:
        return x->stage == TSR_NO_STAGE ? NULL : "end";
    case TSR_PHASE_DISPATCHED:
        return "dispatch";
    case TSR_PHASE_ARRIVED:
        return "arrival";
    case TSR_PHASE_RETURNING:
        return "return";
    }
    return NULL;
}

static int text_of(const tsr_exchange *x, size_t capacity, char *text)
{
    const char *part = part_of_stage(x);
    if (part != NULL)
        return snprintf(text, capacity, "%s of step %" PRIu64 " stage %" PRId32, part, x->step,
                        x->stage);
    return x->phase == TSR_PHASE_OPENED
               ? snprintf(text, capacity, "start")
               : snprintf(text, capacity, "start of step %" PRIu64, x->step);
}

int32_t tsr_exchange_text_base(const tsr_exchange *exchange, size_t capacity, char *text)
{
    if (text_of(exchange, capacity, text) < 0)
        text[0] = '\0';
    return part_of_stage(exchange) != NULL ? exchange->stage : TSR_NO_STAGE;
}

const int64_t *tsr_exchange_waited_base(tsr_exchange *exchange)
{
    return exchange->waited_ns;
}
