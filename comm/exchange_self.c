/*
 * One rank: nothing travels, nothing is copied. What the caller writes is what the caller reads.
 *
 *      send_rows [T]     = arrived_rows [T]         row t arrives as row t, whether it is named or not
 *      send_ranks [T, K] -> answer_of [T, K]        t * K + k, or -1 where the slot names no rank
 *      answers [T * K]   = returned_rows [T, K]     so that each answer lies where it returns to
 */
#include "comm/exchange_self.h"

#include "comm/exchange_block.h"
#include "comm/exchange_plan.h"

#include <stdlib.h>
#include <string.h>

typedef struct self_exchange {
    tsr_exchange base; /* first member */
    tsr_exchange_block block;
    int32_t *send_ranks;
    int32_t *answer_of;
    int32_t arrived_count;
    int32_t answer_count;
} self_exchange;

static self_exchange *self_of(tsr_exchange *exchange)
{
    return (self_exchange *)(void *)exchange;
}

static void lay_out(self_exchange *x, const tsr_exchange_shape *shape, tsr_exchange_block *block)
{
    const uint64_t tokens = (uint64_t)shape->max_tokens;
    const uint64_t slots = (uint64_t)shape->slots;
    tsr_exchange_buffers *b = &x->base.buffers;

    b->send_rows = tsr_exchange_block_take(block, tokens, shape->row_bytes);
    b->answers = tsr_exchange_block_take(block, tokens * slots, shape->return_row_bytes);
    x->send_ranks = tsr_exchange_block_take(block, tokens * slots, sizeof(int32_t));
    x->answer_of = tsr_exchange_block_take(block, tokens * slots, sizeof(int32_t));

    b->send_ranks = x->send_ranks;
    b->answer_of = x->answer_of;
    b->arrived_rows = b->send_rows;
    b->returned_rows = b->answers;
    b->arrived_count = &x->arrived_count;
    b->answer_count = &x->answer_count;
    b->arrived_capacity = shape->max_arrivals;
    b->answer_capacity = shape->max_arrivals * shape->slots;
}

uint64_t tsr_exchange_self_bytes(const tsr_exchange_shape *shape)
{
    self_exchange x = {0};
    tsr_exchange_block block = {0};
    lay_out(&x, shape, &block);
    return block.used;
}

static tsr_status self_dispatch(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream; /* one order: the caller's */
    self_exchange *x = self_of(exchange);
    const int32_t slots = exchange->shape.slots;
    const int32_t pairs = exchange->tokens * slots;
    if (exchange->tokens > exchange->shape.max_arrivals)
        return tsr_exchange_overflow(exchange, exchange->tokens);

    for (int32_t i = 0; i < pairs; i++) {
        const int32_t rank = x->send_ranks[i];
        if (rank < -1 || rank > 0)
            return tsr_send_plan_refuse(i / slots, i % slots, rank, 1);
        x->answer_of[i] = rank == 0 ? i : -1;
    }
    x->arrived_count = exchange->tokens;
    x->answer_count = pairs;
    return TSR_OK;
}

/* The answers lie where they return to. */
static tsr_status self_return(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    return tsr_exchange_poll_group(exchange);
}

static tsr_status self_wait(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    return tsr_exchange_poll_group(exchange);
}

static void self_close(tsr_exchange *exchange)
{
    self_exchange *x = self_of(exchange);
    tsr_exchange_block_close(&x->block);
    free(x);
}

static const tsr_exchange_ops self_ops = {
    .name = "self",
    .begin = tsr_exchange_begin_nothing,
    .dispatch = self_dispatch,
    .return_answers = self_return,
    .wait = self_wait,
    .poll = tsr_exchange_poll_group,
    .text = tsr_exchange_text_base,
    .waited_ns = tsr_exchange_waited_base,
    .drain = tsr_exchange_drain_nothing,
    .close = self_close,
};

tsr_status tsr_exchange_self_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                  tsr_exchange **ret_exchange)
{
    self_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return TSR_ERR_MEMORY;
    const tsr_status st = tsr_exchange_block_open(tsr_exchange_self_bytes(shape), &x->block);
    if (st != TSR_OK) {
        free(x);
        return st;
    }
    x->base = tsr_exchange_base(comm, &self_ops, shape);
    lay_out(x, shape, &x->block);
    /* -1: a step that a fault has ended names no rank, and still travels. */
    memset(x->send_ranks, 0xff,
           (size_t)shape->max_tokens * (size_t)shape->slots * sizeof(*x->send_ranks));
    *ret_exchange = &x->base;
    return TSR_OK;
}
