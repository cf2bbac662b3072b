/*
 * One block an exchange, every area on its own cache lines:
 *
 *      what the caller sees     send_rows  send_ranks  arrived_rows  answer_of  answers  returned_rows
 *      books                    plan (who gets which row), counts, starts, slot_ranks
 *      staged, for messages     rows and slot ranks by destination; answers by where they come from
 */
#include "comm/exchange_host.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <string.h>

static void lay_out(tsr_host_exchange *x, const tsr_exchange_shape *shape, int32_t ranks,
                    tsr_exchange_block *block)
{
    const uint64_t n = (uint64_t)ranks;
    const uint64_t tokens = (uint64_t)shape->max_tokens;
    const uint64_t slots = (uint64_t)shape->slots;
    const uint64_t copies = tokens * (slots < n ? slots : n);
    const uint64_t arrivals = (uint64_t)shape->max_arrivals;

    x->send_rows = tsr_exchange_block_take(block, tokens, shape->row_bytes);
    x->send_ranks = tsr_exchange_block_take(block, tokens * slots, sizeof(int32_t));
    x->arrived_rows = tsr_exchange_block_take(block, arrivals, shape->row_bytes);
    x->answer_of = tsr_exchange_block_take(block, arrivals * slots, sizeof(int32_t));
    x->answers = tsr_exchange_block_take(block, arrivals * slots, shape->return_row_bytes);
    x->returned_rows = tsr_exchange_block_take(block, tokens * slots, shape->return_row_bytes);

    x->plan.row_first = tsr_exchange_block_take(block, n + 1, sizeof(int32_t));
    x->plan.rows = tsr_exchange_block_take(block, copies, sizeof(int32_t));
    x->plan.answer_first = tsr_exchange_block_take(block, n + 1, sizeof(int32_t));
    x->plan.answers = tsr_exchange_block_take(block, tokens * slots, sizeof(int32_t));
    x->row_count = tsr_exchange_block_take(block, n, sizeof(int32_t));
    x->row_first = tsr_exchange_block_take(block, n + 1, sizeof(int32_t));
    x->answer_first = tsr_exchange_block_take(block, n + 1, sizeof(int32_t));
    x->slot_ranks = tsr_exchange_block_take(block, arrivals * slots, sizeof(int32_t));
    x->waited_ns = tsr_exchange_block_take(block, n, sizeof(int64_t));

    x->staged_rows = tsr_exchange_block_take(block, copies, shape->row_bytes);
    x->staged_ranks = tsr_exchange_block_take(block, copies * slots, sizeof(int32_t));
    x->staged_answers = tsr_exchange_block_take(block, tokens * slots, shape->return_row_bytes);
}

uint64_t tsr_host_exchange_bytes(const tsr_exchange_shape *shape, int32_t ranks)
{
    tsr_host_exchange x = {0};
    tsr_exchange_block block = {0};
    lay_out(&x, shape, ranks, &block);
    return block.used;
}

static tsr_exchange_buffers buffers_of(const tsr_host_exchange *x)
{
    const tsr_exchange_shape *shape = &x->base.shape;
    return (tsr_exchange_buffers){
        .send_rows = x->send_rows,
        .send_ranks = x->send_ranks,
        .arrived_rows = x->arrived_rows,
        .arrived_count = &x->arrived_count,
        .answer_of = x->answer_of,
        .answer_count = &x->answer_count,
        .answers = x->answers,
        .returned_rows = x->returned_rows,
        .arrived_capacity = shape->max_arrivals,
        .answer_capacity = shape->max_arrivals * shape->slots,
    };
}

tsr_status tsr_host_exchange_init(tsr_host_exchange *x, tsr_comm *comm, const tsr_exchange_ops *ops,
                                  const tsr_exchange_shape *shape)
{
    const tsr_status st =
        tsr_exchange_block_open(tsr_host_exchange_bytes(shape, comm->size), &x->block);
    if (st != TSR_OK)
        return st;
    lay_out(x, shape, comm->size, &x->block);
    /* -1: a step that a fault has ended names no rank, and still travels. */
    memset(x->send_ranks, 0xff,
           (size_t)shape->max_tokens * (size_t)shape->slots * sizeof(*x->send_ranks));
    x->base = tsr_exchange_base(comm, ops, shape);
    memset(x->waited_ns, 0, (size_t)comm->size * sizeof(*x->waited_ns));
    x->base.buffers = buffers_of(x);
    x->base.waited_ns = x->waited_ns;
    return TSR_OK;
}

tsr_status tsr_host_exchange_place(tsr_host_exchange *x)
{
    const int32_t most = x->base.shape.max_tokens;
    int64_t sum = 0;
    for (int32_t r = 0; r < x->base.comm->size; r++) {
        if (x->row_count[r] < 0 || x->row_count[r] > most) {
            tsr_log(TSR_LOG_ERROR,
                    "dispatch: rank %" PRId32 " announces %" PRId32
                    " rows, the exchange holds %" PRId32,
                    r, x->row_count[r], most);
            return TSR_ERR_MISMATCH;
        }
        sum += x->row_count[r];
    }
    if (sum > x->base.shape.max_arrivals)
        return tsr_exchange_overflow(&x->base, sum);

    x->row_first[0] = 0;
    for (int32_t r = 0; r < x->base.comm->size; r++)
        x->row_first[r + 1] = x->row_first[r] + x->row_count[r];
    return TSR_OK;
}

void tsr_host_exchange_number(tsr_host_exchange *x)
{
    const tsr_comm *comm = x->base.comm;
    const tsr_answer_plan plan = {
        .answer_of = x->answer_of,
        .answer_first = x->answer_first,
        .row_first = x->row_first,
        .slot_ranks = x->slot_ranks,
        .rank = comm->rank,
        .ranks = comm->size,
        .slots = x->base.shape.slots,
    };
    tsr_answer_plan_build(&plan);
    x->arrived_count = x->row_first[comm->size];
    x->answer_count = x->answer_first[comm->size];
}

void tsr_host_exchange_release(tsr_host_exchange *x)
{
    tsr_exchange_block_close(&x->block);
}
