/* A device that computes late. */
#include "tests/engine/late_device.h"

#include "comm/exchange_ops.h"
#include "kernels/device_ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct late_device late_device;

/* One call that waits. Its arguments are a copy; what they point to is the caller's. */
typedef struct item {
    struct item *next;
    tsr_status (*run)(late_device *d, void *arguments);
    size_t bytes;
    _Alignas(16) unsigned char arguments[];
} item;

typedef struct item_list {
    item *first;
    item *last;
} item_list;

typedef struct late_stream {
    struct late_stream *next; /* of the device */
    item_list waiting;
    uint64_t put;    /* items so far */
    uint64_t run;    /* of those */
    uint64_t marked; /* items in front of the last mark */
    item_list recorded;
    bool records;
} late_stream;

struct tsr_mark {
    late_stream *stream; /* NULL: set where nothing waits */
    uint64_t put;        /* items in front of it */
    bool asked;          /* the first look is always too early */
    bool ahead;          /* counted as a step that was launched early */
};

struct tsr_recording {
    item_list items;
};

struct late_device {
    tsr_device base;
    tsr_device_table table;
    tsr_device *cpu;
    late_stream *streams;
    late_order order;
    tsr_status status; /* the first error of what ran */
    int32_t ahead;
    int32_t replays;
    bool stuck;
};

static _Thread_local late_device *opened_here;

static late_device *late(tsr_device *device)
{
    return (late_device *)(void *)device;
}

static void append(item_list *list, item *i)
{
    if (list->last == NULL)
        list->first = i;
    else
        list->last->next = i;
    list->last = i;
}

static void free_items(item_list *list)
{
    for (item *i = list->first, *next; i != NULL; i = next) {
        next = i->next;
        free(i);
    }
    *list = (item_list){0};
}

static tsr_status put_item(late_stream *s, const item *like, const void *arguments)
{
    item *i = calloc(1, sizeof(*i) + like->bytes);
    if (i == NULL)
        return TSR_ERR_MEMORY;
    i->run = like->run;
    i->bytes = like->bytes;
    memcpy(i->arguments, arguments, like->bytes);
    if (s->records) {
        append(&s->recorded, i);
        return TSR_OK;
    }
    append(&s->waiting, i);
    s->put++;
    return TSR_OK;
}

/* On no stream of ours the call is made at once. */
static tsr_status later(late_device *d, tsr_stream stream,
                        tsr_status (*run)(late_device *d, void *arguments), void *arguments,
                        size_t bytes)
{
    const item like = {.run = run, .bytes = bytes};
    return stream.native == NULL ? run(d, arguments) : put_item(stream.native, &like, arguments);
}

static void run_until(late_device *d, late_stream *s, uint64_t put)
{
    while (s->run < put) {
        item *i = s->waiting.first;
        if (i == NULL)
            abort(); /* what was put and has not run waits, or the counts are wrong */
        s->waiting.first = i->next;
        if (i->next == NULL)
            s->waiting.last = NULL;
        const tsr_status st = d->status == TSR_OK ? i->run(d, i->arguments) : d->status;
        if (d->status == TSR_OK)
            d->status = st;
        s->run++;
        free(i);
    }
}

static tsr_status late_stream_open(tsr_device *device, tsr_stream *ret_stream)
{
    late_stream *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return TSR_ERR_MEMORY;
    s->next = late(device)->streams;
    late(device)->streams = s;
    ret_stream->native = s;
    return TSR_OK;
}

static void late_stream_close(tsr_device *device, tsr_stream stream)
{
    late_stream **at = &late(device)->streams;
    late_stream *s = stream.native;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free_items(&s->waiting);
    free_items(&s->recorded);
    free(s);
}

static tsr_status late_mark_open(tsr_device *device, tsr_mark **ret_mark)
{
    (void)device;
    *ret_mark = calloc(1, sizeof(**ret_mark));
    return *ret_mark != NULL ? TSR_OK : TSR_ERR_MEMORY;
}

static void late_mark_close(tsr_device *device, tsr_mark *mark)
{
    (void)device;
    free(mark);
}

static tsr_status late_mark(tsr_device *device, tsr_mark *mark, tsr_stream stream)
{
    late_stream *s = stream.native;
    *mark = (tsr_mark){.stream = s, .put = s != NULL ? s->put : 0};
    if (s == NULL)
        return TSR_OK;
    mark->ahead = s->run < s->marked;
    late(device)->ahead += mark->ahead;
    s->marked = s->put;
    return TSR_OK;
}

/* What a stream waits for: the other runs so far, when it comes to that. */
static tsr_status run_await(late_device *d, void *arguments)
{
    const tsr_mark *mark = arguments;
    run_until(d, mark->stream, mark->put);
    return TSR_OK;
}

static tsr_status late_await(tsr_device *device, tsr_mark *mark, tsr_stream stream)
{
    tsr_mark now = *mark;
    late(device)->ahead -= mark->ahead; /* it is no step's */
    mark->ahead = false;
    return now.stream == NULL ? TSR_OK : later(late(device), stream, run_await, &now, sizeof(now));
}

static tsr_status late_passed(tsr_device *device, tsr_mark *mark, bool *ret_passed)
{
    late_device *d = late(device);
    if (d->stuck || (mark->stream != NULL && !mark->asked)) {
        mark->asked = true;
        *ret_passed = false;
        return d->status;
    }
    for (late_stream *s = d->streams; s != NULL && d->order == LATE_OTHERS_FIRST; s = s->next) {
        if (s != mark->stream)
            run_until(d, s, s->put);
    }
    if (mark->stream != NULL)
        run_until(d, mark->stream, mark->put);
    *ret_passed = d->status == TSR_OK;
    return d->status;
}

typedef struct copy {
    void *to;
    const void *from;
    size_t bytes;
} copy;

static tsr_status run_copy(late_device *d, void *arguments)
{
    const copy *c = arguments;
    (void)d;
    memcpy(c->to, c->from, c->bytes);
    return TSR_OK;
}

static tsr_status late_copy(tsr_device *device, void *to, const void *from, size_t bytes,
                            tsr_stream stream)
{
    copy c = {to, from, bytes};
    return later(late(device), stream, run_copy, &c, sizeof(c));
}

static tsr_status late_record(tsr_device *device, tsr_stream stream)
{
    late_stream *s = stream.native;
    (void)device;
    s->records = true;
    return TSR_OK;
}

static tsr_status late_recorded(tsr_device *device, tsr_stream stream,
                                tsr_recording **ret_recording)
{
    late_stream *s = stream.native;
    tsr_recording *r = calloc(1, sizeof(*r));
    (void)device;
    if (r == NULL)
        return TSR_ERR_MEMORY;
    r->items = s->recorded;
    s->recorded = (item_list){0};
    s->records = false;
    *ret_recording = r;
    return TSR_OK;
}

static tsr_status late_replay(tsr_device *device, tsr_recording *recording, tsr_stream stream)
{
    tsr_status st = TSR_OK;
    late(device)->replays++;
    for (const item *i = recording->items.first; i != NULL && st == TSR_OK; i = i->next)
        st = put_item(stream.native, i, i->arguments);
    return st;
}

static void late_recording_close(tsr_device *device, tsr_recording *recording)
{
    (void)device;
    free_items(&recording->items);
    free(recording);
}

/* Each block waits with a copy of its arguments, then goes through the CPU's front door. */
#define LATE_BLOCK(name)                                                                           \
    static tsr_status run_##name(late_device *d, void *arguments)                                  \
    {                                                                                              \
        return tsr_block_##name(d->cpu, arguments, (tsr_stream){0});                               \
    }                                                                                              \
    static tsr_status late_##name(tsr_device *device, const tsr_##name##_block *b, tsr_stream s)   \
    {                                                                                              \
        tsr_##name##_block own = *b;                                                               \
        late(device)->stuck = late(device)->order == LATE_NEVER;                                   \
        return later(late(device), s, run_##name, &own, sizeof(own));                              \
    }

LATE_BLOCK(embed)
LATE_BLOCK(attention)
LATE_BLOCK(mlp)
LATE_BLOCK(choose)
LATE_BLOCK(shared)
LATE_BLOCK(experts)
LATE_BLOCK(combine)
LATE_BLOCK(predict)

static const tsr_block_table late_blocks = {
    .embed = late_embed,
    .attention = late_attention,
    .mlp = late_mlp,
    .choose = late_choose,
    .shared = late_shared,
    .experts = late_experts,
    .combine = late_combine,
    .predict = late_predict,
};

static tsr_status late_alloc(tsr_device *device, size_t bytes, void **ret_memory)
{
    return tsr_device_alloc(late(device)->cpu, bytes, ret_memory);
}

static void late_release(tsr_device *device, void *memory)
{
    tsr_device_free(late(device)->cpu, memory);
}

static const tsr_fault *late_fault(tsr_device *device)
{
    tsr_device *cpu = late(device)->cpu;
    return cpu->table->fault(cpu);
}

static tsr_status late_reserve(tsr_device *device, const tsr_work_shape *shape)
{
    return tsr_device_reserve(late(device)->cpu, shape);
}

static tsr_status late_place_linear(tsr_device *device, const tsr_linear_spec *spec, void *memory,
                                    tsr_linear *ret_linear)
{
    return tsr_device_place_linear(late(device)->cpu, spec, memory, ret_linear);
}

typedef struct load_call {
    tsr_linear linear;
    void *memory;
    tsr_linear_rows rows;
} load_call;

static tsr_status run_load_rows(late_device *d, void *arguments)
{
    const load_call *c = arguments;
    return tsr_device_load_rows(d->cpu, &c->linear, c->memory, &c->rows, (tsr_stream){0});
}

static tsr_status late_load_rows(tsr_device *device, const tsr_linear *linear, void *memory,
                                 const tsr_linear_rows *rows, tsr_stream stream)
{
    load_call c = {*linear, memory, *rows};
    return later(late(device), stream, run_load_rows, &c, sizeof(c));
}

typedef struct clock_call {
    uint64_t *at_ns;
} clock_call;

static tsr_status run_clock(late_device *d, void *arguments)
{
    const clock_call *c = arguments;
    return tsr_device_clock(d->cpu, c->at_ns, (tsr_stream){0});
}

static tsr_status late_clock(tsr_device *device, uint64_t *at_ns, tsr_stream stream)
{
    clock_call c = {0};

    c.at_ns = at_ns;
    return later(late(device), stream, run_clock, &c, sizeof(c));
}

static void late_close(tsr_device *device)
{
    late_device *d = late(device);
    if (opened_here == d)
        opened_here = NULL;
    tsr_device_close(d->cpu);
    free(d);
}

/* What has nothing to do with time is the CPU's. */
static tsr_status late_read_bandwidth(tsr_device *device, uint64_t bytes, double *ret_bytes_per_s)
{
    return tsr_device_read_bandwidth(late(device)->cpu, bytes, ret_bytes_per_s);
}

static tsr_device_table table_over(const tsr_device_table *cpu)
{
    tsr_device_table t = *cpu;
    t.flights = 2;
    t.close = late_close;
    t.alloc = late_alloc;
    t.release = late_release;
    t.host_alloc = late_alloc;
    t.host_release = late_release;
    t.stream_open = late_stream_open;
    t.stream_close = late_stream_close;
    t.put = late_copy;
    t.get = late_copy;
    t.mark_open = late_mark_open;
    t.mark_close = late_mark_close;
    t.mark = late_mark;
    t.await = late_await;
    t.passed = late_passed;
    t.clock = late_clock;
    t.record = late_record;
    t.recorded = late_recorded;
    t.replay = late_replay;
    t.recording_close = late_recording_close;
    t.fault = late_fault;
    t.read_bandwidth = late_read_bandwidth;
    t.reserve = late_reserve;
    t.place_linear = late_place_linear;
    t.load_rows = late_load_rows;
    return t;
}

tsr_status late_device_open(tsr_device *cpu, late_order order, tsr_device **ret_device)
{
    late_device *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return TSR_ERR_MEMORY;
    d->cpu = cpu;
    d->order = order;
    d->table = table_over(cpu->table);
    d->base.table = &d->table;
    d->base.blocks = &late_blocks;
    (void)snprintf(d->base.name, sizeof(d->base.name), "late %s", tsr_device_name(cpu));
    opened_here = d;
    *ret_device = &d->base;
    return TSR_OK;
}

/* An exchange whose calls wait on the stream too, then go through the front doors of another. */
typedef struct late_exchange {
    tsr_exchange base;
    tsr_exchange *inner;
    late_device *device;
} late_exchange;

static late_exchange *late_of(tsr_exchange *exchange)
{
    return (late_exchange *)(void *)exchange;
}

typedef struct exchange_call {
    tsr_exchange *inner;
    uint64_t step;
    int32_t tokens;
} exchange_call;

#define LATE_CALL(name, call)                                                                      \
    static tsr_status run_##name(late_device *d, void *arguments)                                  \
    {                                                                                              \
        const exchange_call *c = arguments;                                                        \
        (void)d;                                                                                   \
        return call;                                                                               \
    }                                                                                              \
    static tsr_status late_##name(tsr_exchange *exchange, tsr_stream stream)                       \
    {                                                                                              \
        late_exchange *x = late_of(exchange);                                                      \
        exchange_call c = {x->inner, exchange->step, exchange->tokens};                            \
        return later(x->device, stream, run_##name, &c, sizeof(c));                                \
    }

LATE_CALL(exchange_begin, tsr_exchange_begin(c->inner, c->step, (tsr_stream){0}))
LATE_CALL(exchange_dispatch, tsr_exchange_dispatch(c->inner, c->tokens, (tsr_stream){0}))
LATE_CALL(exchange_return, tsr_exchange_return(c->inner, (tsr_stream){0}))
LATE_CALL(exchange_wait, tsr_exchange_wait(c->inner, (tsr_stream){0}))

static tsr_status late_exchange_poll(tsr_exchange *exchange)
{
    return tsr_exchange_poll(late_of(exchange)->inner);
}

static int32_t late_exchange_text(const tsr_exchange *exchange, size_t capacity, char *text)
{
    const late_exchange *x = (const late_exchange *)(const void *)exchange;
    /* A device that is stuck has begun nothing: where the host is says more. */
    return x->device->stuck ? tsr_exchange_text_base(exchange, capacity, text)
                            : tsr_exchange_text(x->inner, capacity, text);
}

static const int64_t *late_exchange_waited_ns(tsr_exchange *exchange)
{
    return tsr_exchange_waited_ns(late_of(exchange)->inner);
}

static void late_exchange_drain(tsr_exchange *exchange, tsr_stream stream)
{
    tsr_exchange_drain(late_of(exchange)->inner, stream);
}

static void late_exchange_close(tsr_exchange *exchange)
{
    tsr_exchange_close(late_of(exchange)->inner);
    free(exchange);
}

static const tsr_exchange_ops late_exchange_ops = {
    .name = "late",
    .begin = late_exchange_begin,
    .dispatch = late_exchange_dispatch,
    .return_answers = late_exchange_return,
    .wait = late_exchange_wait,
    .poll = late_exchange_poll,
    .text = late_exchange_text,
    .waited_ns = late_exchange_waited_ns,
    .drain = late_exchange_drain,
    .close = late_exchange_close,
};

tsr_status late_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                              tsr_exchange **ret_exchange)
{
    late_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return TSR_ERR_MEMORY;
    const tsr_status st = tsr_exchange_open(comm, shape, &x->inner);
    if (st != TSR_OK) {
        free(x);
        return st;
    }
    x->base = tsr_exchange_base(comm, &late_exchange_ops, shape);
    x->base.buffers = tsr_exchange_buffers_of(x->inner);
    x->device = opened_here;
    *ret_exchange = &x->base;
    return TSR_OK;
}

int32_t late_device_ahead(const tsr_device *device)
{
    return ((const late_device *)(const void *)device)->ahead;
}

int32_t late_device_replays(const tsr_device *device)
{
    return ((const late_device *)(const void *)device)->replays;
}
