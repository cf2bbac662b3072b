/*
 * One rank on a device: as exchange_self, nothing travels and nothing is copied. What the host would
 * write for every dispatch is the same for all of them, and put once:
 *
 *      answer_of [T, K] = t * K + k               every slot is named: there is no other rank
 *      row_counts    | 0 | 1 | 2 | .. | max_tokens |
 *      answer_counts | 0 | K | 2 K | .. | max_tokens K |
 *
 * So a dispatch of t rows puts nothing on the stream: its counts are those at t.
 */
#include "comm/exchange_device.h"

#include "runtime/base/sizes.h"

#include <stdlib.h>

typedef struct device_exchange {
    tsr_exchange base; /* first member */
    const tsr_exchange_memory *memory;
    unsigned char *block; /* of the device */
    int32_t *numbers;     /* of the host, what is put into the device's: */
    int32_t *answer_of;   /* [max_tokens, slots] */
    int32_t *row_counts;  /* [max_tokens + 1], right behind it, as are the next */
    int32_t *answer_counts;
    bool numbered; /* they have been put */
} device_exchange;

enum { ALIGNMENT = 256 };

static device_exchange *device_of(tsr_exchange *exchange)
{
    return (device_exchange *)(void *)exchange;
}

/* The next area of the block; NULL where it is only measured. */
static void *cut(unsigned char *block, size_t *used, size_t bytes)
{
    void *area = block != NULL ? block + *used : NULL;

    *used += (size_t)tsr_aligned(bytes, ALIGNMENT);
    return area;
}

/* What is put. */
static size_t numbers_of(const tsr_exchange_shape *shape)
{
    const size_t tokens = (size_t)shape->max_tokens;

    return tokens * (size_t)shape->slots + 2 * (tokens + 1);
}

/* Returns the bytes. */
static size_t lay_out(device_exchange *x, const tsr_exchange_shape *shape)
{
    const size_t tokens = (size_t)shape->max_tokens;
    const size_t pairs = tokens * (size_t)shape->slots;
    tsr_exchange_buffers *b = &x->base.buffers;
    size_t used = 0;

    b->send_rows = cut(x->block, &used, tokens * shape->row_bytes);
    b->answers = cut(x->block, &used, pairs * shape->return_row_bytes);
    b->send_ranks = cut(x->block, &used, pairs * sizeof(int32_t));
    x->answer_of = cut(x->block, &used, numbers_of(shape) * sizeof(int32_t));
    if (x->block != NULL) {
        x->row_counts = x->answer_of + pairs;
        x->answer_counts = x->row_counts + tokens + 1;
    }

    b->answer_of = x->answer_of;
    b->arrived_count = x->row_counts;
    b->answer_count = x->answer_counts;
    b->arrived_rows = b->send_rows;
    b->returned_rows = b->answers;
    b->arrived_capacity = shape->max_arrivals;
    b->answer_capacity = shape->max_arrivals * shape->slots;
    return used;
}

static void fill_numbers(int32_t *numbers, const tsr_exchange_shape *shape)
{
    const int32_t pairs = shape->max_tokens * shape->slots;
    int32_t *row_counts = numbers + pairs;
    int32_t *answer_counts = row_counts + shape->max_tokens + 1;

    for (int32_t i = 0; i < pairs; i++)
        numbers[i] = i;
    for (int32_t t = 0; t <= shape->max_tokens; t++) {
        row_counts[t] = t;
        answer_counts[t] = t * shape->slots;
    }
}

/* The first time it is known on which stream things happen. */
static tsr_status device_begin(tsr_exchange *exchange, tsr_stream stream)
{
    device_exchange *x = device_of(exchange);

    if (x->numbered)
        return TSR_OK;
    x->numbered = true;
    return x->memory->put(x->memory->context, x->answer_of, x->numbers,
                          numbers_of(&exchange->shape) * sizeof(int32_t), stream);
}

static tsr_status device_dispatch(tsr_exchange *exchange, tsr_stream stream)
{
    const device_exchange *x = device_of(exchange);
    const int32_t tokens = exchange->tokens;

    (void)stream;
    if (tokens > exchange->shape.max_arrivals)
        return tsr_exchange_overflow(exchange, tokens);
    exchange->buffers.arrived_count = x->row_counts + tokens;
    exchange->buffers.answer_count = x->answer_counts + tokens;
    return TSR_OK;
}

/* The answers lie where they return to; the stream keeps the order. */
static tsr_status device_return(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    return tsr_exchange_poll_group(exchange);
}

static tsr_status device_wait(tsr_exchange *exchange, tsr_stream stream)
{
    (void)stream;
    return tsr_exchange_poll_group(exchange);
}

static void device_close(tsr_exchange *exchange)
{
    device_exchange *x = device_of(exchange);

    x->memory->release(x->memory->context, x->block);
    x->memory->host_release(x->memory->context, x->numbers);
    free(x);
}

static const tsr_exchange_ops device_ops = {
    .name = "self",
    .begin = device_begin,
    .dispatch = device_dispatch,
    .return_answers = device_return,
    .wait = device_wait,
    .poll = tsr_exchange_poll_group,
    .text = tsr_exchange_text_base,
    .waited_ns = tsr_exchange_waited_base,
    .drain = tsr_exchange_drain_nothing,
    .close = device_close,
};

static tsr_status take_memory(device_exchange *x, const tsr_exchange_shape *shape)
{
    void *block = NULL;
    void *host = NULL;

    tsr_status st = x->memory->alloc(x->memory->context, lay_out(x, shape), &block);
    if (st != TSR_OK)
        return st;
    st = x->memory->host_alloc(x->memory->context, numbers_of(shape) * sizeof(int32_t), &host);
    if (st != TSR_OK) {
        x->memory->release(x->memory->context, block);
        return st;
    }
    x->block = block;
    x->numbers = host;
    (void)lay_out(x, shape);
    fill_numbers(x->numbers, shape);
    return TSR_OK;
}

tsr_status tsr_exchange_device_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                    tsr_exchange **ret_exchange)
{
    device_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return TSR_ERR_MEMORY;
    x->memory = comm->memory;
    const tsr_status st = take_memory(x, shape);
    if (st != TSR_OK) {
        free(x);
        return st;
    }
    const tsr_exchange_buffers buffers = x->base.buffers;
    x->base = tsr_exchange_base(comm, &device_ops, shape);
    x->base.buffers = buffers;
    *ret_exchange = &x->base;
    return TSR_OK;
}
