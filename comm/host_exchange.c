#include "comm/host_exchange.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdlib.h>

/* Every area starts on a cache line, for SIMD loads and so that no two threads share one. */
enum { ALIGNMENT = 64 };

/* Hands out areas of a block one after the other; with no block it only measures. */
typedef struct cursor {
    unsigned char *block;
    uint64_t used;
} cursor;

static void *take(cursor *c, uint64_t count, uint64_t bytes)
{
    void *area = c->block ? c->block + c->used : NULL;
    c->used += (count * bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return area;
}

static void lay_out(tsr_host_exchange *x, const tsr_exchange_shape *shape, int32_t ranks, cursor *c)
{
    const uint64_t n = (uint64_t)ranks;
    const uint64_t tokens = (uint64_t)shape->max_tokens;
    const uint64_t slots = (uint64_t)shape->slots;
    const uint64_t copies = tokens * (slots < n ? slots : n);
    const uint64_t arrivals = tokens * n;

    x->send_rows = take(c, tokens, shape->row_bytes);
    x->send_ranks = take(c, tokens * slots, sizeof(int32_t));
    x->arrived_rows = take(c, arrivals, shape->row_bytes);
    x->answer_of = take(c, arrivals * slots, sizeof(int32_t));
    x->answers = take(c, arrivals * slots, shape->return_row_bytes);
    x->returned_rows = take(c, tokens * slots, shape->return_row_bytes);

    x->plan.row_first = take(c, n + 1, sizeof(int32_t));
    x->plan.rows = take(c, copies, sizeof(int32_t));
    x->plan.answer_first = take(c, n + 1, sizeof(int32_t));
    x->plan.answers = take(c, tokens * slots, sizeof(int32_t));
    x->row_count = take(c, n, sizeof(int32_t));
    x->row_first = take(c, n + 1, sizeof(int32_t));
    x->answer_first = take(c, n + 1, sizeof(int32_t));
    x->slot_ranks = take(c, arrivals * slots, sizeof(int32_t));

    x->staged_rows = take(c, copies, shape->row_bytes);
    x->staged_ranks = take(c, copies * slots, sizeof(int32_t));
    x->staged_answers = take(c, tokens * slots, shape->return_row_bytes);
}

uint64_t tsr_host_exchange_bytes(const tsr_exchange_shape *shape, int32_t ranks)
{
    tsr_host_exchange x = {0};
    cursor c = {0};
    lay_out(&x, shape, ranks, &c);
    return c.used;
}

static tsr_exchange_buffers buffers_of(const tsr_host_exchange *x, const tsr_exchange_shape *shape,
                                       int32_t ranks)
{
    return (tsr_exchange_buffers){
        .send_rows = x->send_rows,
        .send_ranks = x->send_ranks,
        .arrived_rows = x->arrived_rows,
        .arrived_count = &x->arrived_count,
        .answer_of = x->answer_of,
        .answer_count = &x->answer_count,
        .answers = x->answers,
        .returned_rows = x->returned_rows,
        .arrived_capacity = ranks * shape->max_tokens,
        .answer_capacity = ranks * shape->max_tokens * shape->slots,
    };
}

tsr_status tsr_host_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                  tsr_host_exchange **ret_exchange)
{
    const uint64_t bytes = tsr_host_exchange_bytes(shape, comm->size);
    tsr_host_exchange *x = calloc(1, sizeof(*x));
    if (!x)
        return TSR_ERR_MEMORY;
    if (posix_memalign(&x->block, ALIGNMENT, bytes) != 0) {
        free(x);
        return TSR_ERR_MEMORY;
    }

    cursor c = {.block = x->block};
    lay_out(x, shape, comm->size, &c);
    x->base.comm = comm;
    x->base.shape = *shape;
    x->base.number = comm->exchanges++;
    x->base.buffers = buffers_of(x, shape, comm->size);
    *ret_exchange = x;
    return TSR_OK;
}

tsr_status tsr_host_exchange_place(tsr_host_exchange *x)
{
    const int32_t most = x->base.shape.max_tokens;
    x->row_first[0] = 0;
    for (int32_t r = 0; r < x->base.comm->size; r++) {
        if (x->row_count[r] < 0 || x->row_count[r] > most) {
            tsr_log(TSR_LOG_ERROR,
                    "dispatch: rank %" PRId32 " announces %" PRId32
                    " rows, the exchange holds %" PRId32,
                    r, x->row_count[r], most);
            return TSR_ERR_MISMATCH;
        }
        x->row_first[r + 1] = x->row_first[r] + x->row_count[r];
    }
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

void tsr_host_exchange_close(tsr_host_exchange *x)
{
    if (!x)
        return;
    free(x->block);
    free(x);
}
