/*
 * One rank on a device: as exchange_self, nothing travels and nothing is copied. What the host would
 * write for every dispatch is either the same for all of them, and written once:
 *
 *      answer_of [T, K] = t * K + k               every slot is named: there is no other rank
 *
 * or a count, which the stream fetches from a table of all counts, when a step begins and when it
 * changes. So what is put on the stream for a step of so many rows is always the same, and can be
 * recorded:
 *
 *      host     | 0 | 1 | 2 | .. | max_tokens |
 *      device             '--> arrived_count          the same times K: answer_count
 */
#include "comm/exchange_device.h"

#include "runtime/base/sizes.h"

#include <stdlib.h>

typedef struct device_exchange {
    tsr_exchange base; /* first member */
    const tsr_exchange_memory *memory;
    unsigned char *block; /* of the device */
    int32_t *numbers;     /* of the host: answer_of, then the counts of rows and of answers */
    int32_t *row_counts;  /* [max_tokens + 1] */
    int32_t *answer_counts;
    int32_t *arrived_count;
    int32_t *answer_count;
    int32_t *answer_of;
    int32_t counted; /* rows that the counts have been put for in this step, or NOT_COUNTED */
    bool numbered;   /* answer_of has been put */
} device_exchange;

enum { ALIGNMENT = 256, NOT_COUNTED = -1 };

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
    x->answer_of = cut(x->block, &used, pairs * sizeof(int32_t));
    x->arrived_count = cut(x->block, &used, sizeof(int32_t));
    x->answer_count = cut(x->block, &used, sizeof(int32_t));

    b->answer_of = x->answer_of;
    b->arrived_count = x->arrived_count;
    b->answer_count = x->answer_count;
    b->arrived_rows = b->send_rows;
    b->returned_rows = b->answers;
    b->arrived_capacity = shape->max_arrivals;
    b->answer_capacity = shape->max_arrivals * shape->slots;
    return used;
}

static void fill_numbers(device_exchange *x, const tsr_exchange_shape *shape)
{
    const int32_t pairs = shape->max_tokens * shape->slots;

    x->row_counts = x->numbers + pairs;
    x->answer_counts = x->row_counts + shape->max_tokens + 1;
    for (int32_t i = 0; i < pairs; i++)
        x->numbers[i] = i;
    for (int32_t t = 0; t <= shape->max_tokens; t++) {
        x->row_counts[t] = t;
        x->answer_counts[t] = t * shape->slots;
    }
}

static tsr_status put(const device_exchange *x, void *to, const void *from, size_t bytes,
                      tsr_stream stream)
{
    return x->memory->put(x->memory->context, to, from, bytes, stream);
}

/* The first time it is known on which stream things happen. */
static tsr_status device_begin(tsr_exchange *exchange, tsr_stream stream)
{
    device_exchange *x = device_of(exchange);
    const size_t pairs = (size_t)exchange->shape.max_tokens * (size_t)exchange->shape.slots;

    x->counted = NOT_COUNTED;
    if (x->numbered)
        return TSR_OK;
    x->numbered = true;
    return put(x, x->answer_of, x->numbers, pairs * sizeof(int32_t), stream);
}

static tsr_status device_dispatch(tsr_exchange *exchange, tsr_stream stream)
{
    device_exchange *x = device_of(exchange);
    const int32_t tokens = exchange->tokens;

    if (tokens > exchange->shape.max_arrivals)
        return tsr_exchange_overflow(exchange, tokens);
    if (tokens == x->counted)
        return TSR_OK;
    x->counted = tokens;
    const tsr_status st = put(x, x->arrived_count, &x->row_counts[tokens], sizeof(int32_t), stream);
    return st == TSR_OK
               ? put(x, x->answer_count, &x->answer_counts[tokens], sizeof(int32_t), stream)
               : st;
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
    const size_t tokens = (size_t)shape->max_tokens;
    const size_t numbers = tokens * (size_t)shape->slots + 2 * (tokens + 1);
    void *block = NULL;
    void *host = NULL;

    tsr_status st = x->memory->alloc(x->memory->context, lay_out(x, shape), &block);
    if (st != TSR_OK)
        return st;
    st = x->memory->host_alloc(x->memory->context, numbers * sizeof(int32_t), &host);
    if (st != TSR_OK) {
        x->memory->release(x->memory->context, block);
        return st;
    }
    x->block = block;
    x->numbers = host;
    (void)lay_out(x, shape);
    fill_numbers(x, shape);
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
