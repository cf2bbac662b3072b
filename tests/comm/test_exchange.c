/*
 * What exchanges move, one body for `self` (a group of one, on either comm), `local`, `mpi` and `nccl`: each
 * byte is a function of who sent it, so that every rank can tell every byte it should see.
 */
#include "comm/exchange.h"
#include "tests/comm/keyed_bytes.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

typedef enum routing_kind {
    RANDOM,
    NO_TOKENS,
    SOME_WITHOUT,
    ONE_TARGET,
    SAME_TWICE,
    NO_RANK
} routing_kind;

typedef struct routing {
    routing_kind kind;
    uint64_t seed;
    int32_t ranks;
    int32_t max_tokens;
    int32_t slots;
} routing;

static int32_t tokens_of(const routing *r, int32_t source)
{
    const int32_t random =
        (int32_t)(mix2(r->seed, (uint64_t)source) % ((uint64_t)r->max_tokens + 1));
    if (r->kind == NO_TOKENS || (r->kind == SOME_WITHOUT && source % 2 == 0))
        return 0;
    return r->kind == RANDOM || r->kind == SOME_WITHOUT ? random : r->max_tokens;
}

static int32_t target_of(const routing *r, int32_t source, int32_t row, int32_t slot)
{
    const uint64_t key = mix2(mix2(r->seed ^ 0x5157U, (uint64_t)source), (uint64_t)row);
    const uint64_t random = mix2(key, (uint64_t)slot);
    if (r->kind == NO_RANK)
        return -1;
    if (r->kind == ONE_TARGET)
        return r->ranks - 1;
    if (r->kind == SAME_TWICE)
        return (int32_t)(key % (uint64_t)r->ranks);
    return random % 5 == 0 ? -1 : (int32_t)(random / 5 % (uint64_t)r->ranks);
}

static bool names(const routing *r, int32_t source, int32_t row, int32_t rank)
{
    for (int32_t k = 0; k < r->slots; k++) {
        if (target_of(r, source, row, k) == rank)
            return true;
    }
    return false;
}

static uint64_t row_key(const routing *r, int32_t source, int32_t row)
{
    return mix2(mix2(r->seed ^ 0x726f77U, (uint64_t)source), (uint64_t)row);
}

static uint64_t answer_key(const routing *r, int32_t from, int32_t source, int32_t row,
                           int32_t slot)
{
    return mix2(mix2(row_key(r, source, row), (uint64_t)from), (uint64_t)slot);
}

/* With one rank every row is where it arrives, also one that names nobody. */
static bool arrives(const routing *r, int32_t source, int32_t row, int32_t rank)
{
    return r->ranks == 1 || names(r, source, row, rank);
}

/* The test's side of the buffers: what was written, what should be read, room for what is. */
typedef struct copies {
    unsigned char *sent;     /* [max_tokens, row_bytes] */
    int32_t *ranks;          /* [max_tokens, slots] */
    unsigned char *row;      /* [row_bytes] */
    int32_t *answer_of;      /* [max_arrivals, slots] */
    unsigned char *answer;   /* [return_row_bytes] */
    unsigned char *returned; /* [max_tokens, slots, return_row_bytes] */
} copies;

static void copies_free(copies *c)
{
    free(c->sent);
    free(c->ranks);
    free(c->row);
    free(c->answer_of);
    free(c->answer);
    free(c->returned);
}

static bool copies_take(const tsr_exchange_shape *shape, copies *c)
{
    const size_t pairs = (size_t)shape->max_tokens * (size_t)shape->slots;
    c->sent = malloc((size_t)shape->max_tokens * shape->row_bytes);
    c->ranks = malloc(pairs * sizeof(int32_t));
    c->row = malloc(shape->row_bytes);
    c->answer_of = malloc((size_t)shape->max_arrivals * (size_t)shape->slots * sizeof(int32_t));
    c->answer = malloc(shape->return_row_bytes);
    c->returned = malloc(pairs * shape->return_row_bytes);
    return c->sent != NULL && c->ranks != NULL && c->row != NULL && c->answer_of != NULL &&
           c->answer != NULL && c->returned != NULL;
}

/* One exchange there and back, as its parts see it. */
typedef struct journey {
    rank_run *run;
    const routing *routing;
    const tsr_exchange_shape *shape;
    tsr_exchange_buffers buffers;
    copies copies;
} journey;

static void write_rows(journey *t)
{
    const routing *r = t->routing;
    const int32_t tokens = tokens_of(r, t->run->rank);
    const size_t row_bytes = t->shape->row_bytes;
    for (int32_t i = 0; i < tokens; i++) {
        fill(t->copies.sent + (size_t)i * row_bytes, row_bytes, row_key(r, t->run->rank, i));
        for (int32_t k = 0; k < r->slots; k++)
            t->copies.ranks[(ptrdiff_t)i * r->slots + k] = target_of(r, t->run->rank, i, k);
    }
    RANK_STATUS(
        t->run, TSR_OK,
        rows_put(&t->run->rows, t->buffers.send_rows, t->copies.sent, (size_t)tokens * row_bytes));
    RANK_STATUS(t->run, TSR_OK,
                rows_put(&t->run->rows, t->buffers.send_ranks, t->copies.ranks,
                         (size_t)tokens * (size_t)r->slots * sizeof(int32_t)));
}

static int32_t get_count(const journey *t, const int32_t *from)
{
    int32_t count = -1;
    RANK_STATUS(t->run, TSR_OK, rows_get(&t->run->rows, &count, from, sizeof(count)));
    return count;
}

static void check_row(const journey *t, int32_t row, uint64_t key)
{
    const size_t bytes = t->shape->row_bytes;
    const unsigned char *from = t->buffers.arrived_rows;
    RANK_STATUS(t->run, TSR_OK,
                rows_get(&t->run->rows, t->copies.row, from + (size_t)row * bytes, bytes));
    RANK_CHECK(t->run, holds(t->copies.row, bytes, key));
}

/* Row `t` of `source`, which lies at `row`. */
typedef struct arrived {
    int32_t source;
    int32_t t;
    int32_t row;
} arrived;

static void put_answer(const journey *t, int32_t answer, uint64_t key)
{
    const size_t bytes = t->shape->return_row_bytes;

    fill(t->copies.answer, bytes, key);
    RANK_STATUS(t->run, TSR_OK,
                rows_answer(&t->run->rows, &t->buffers, answer, t->copies.answer, bytes));
}

/* The number of the answer to a row's slot `k`, where the next one is `answer`. In parts few rows
 * have theirs behind those of as many as there may be. */
static int32_t number_of(const journey *trip, const arrived *at, int32_t k, int32_t answer)
{
    const int32_t slots = trip->routing->slots;
    const int32_t number = trip->copies.answer_of[(ptrdiff_t)at->row * slots + k];
    if (trip->buffers.answer_parts != NULL) {
        const int32_t few = trip->shape->max_tokens * slots;
        const int32_t first = at->source << trip->buffers.answer_part_bits;
        return (first | (at->t * slots + k)) + (number - first >= few ? few : 0);
    }
    return trip->routing->ranks == 1 ? at->row * slots + k : answer;
}

/* The next row from `row` on that asks this rank: between GPUs few rows go to everybody. */
static int32_t behind_idle_rows(const journey *trip, int32_t row, int32_t count)
{
    const int32_t slots = trip->routing->slots;
    bool idle = trip->buffers.answer_parts != NULL;
    while (row < count && idle) {
        for (int32_t k = 0; k < slots && idle; k++)
            idle = trip->copies.answer_of[(ptrdiff_t)row * slots + k] < 0;
        row += idle ? 1 : 0;
    }
    return row;
}

/* *answer: the next one's number, where they are counted. */
static void answer_row(const journey *trip, const arrived *at, int32_t *answer)
{
    const routing *r = trip->routing;
    check_row(trip, at->row, row_key(r, at->source, at->t));
    for (int32_t k = 0; k < r->slots; k++) {
        const bool ours = target_of(r, at->source, at->t, k) == trip->run->rank;
        const int32_t expected = number_of(trip, at, k, *answer);
        RANK_CHECK(trip->run, trip->copies.answer_of[(ptrdiff_t)at->row * r->slots + k] ==
                                  (ours ? expected : -1));
        if (!ours)
            continue;
        put_answer(trip, expected, answer_key(r, trip->run->rank, at->source, at->t, k));
        (*answer)++;
    }
}

/* Every row that names this rank is here once, in order, and every answer has its place. */
static void check_and_answer(journey *trip)
{
    const routing *r = trip->routing;
    rank_run *run = trip->run;
    const int32_t count = get_count(trip, trip->buffers.arrived_count);
    RANK_CHECK(run, count >= 0 && count <= trip->buffers.arrived_capacity);
    if (run->failures != 0)
        return;
    RANK_STATUS(run, TSR_OK,
                rows_get(&run->rows, trip->copies.answer_of, trip->buffers.answer_of,
                         (size_t)count * (size_t)r->slots * sizeof(int32_t)));

    arrived at = {.row = behind_idle_rows(trip, 0, count)};
    int32_t answer = 0;
    for (; at.source < r->ranks; at.source++) {
        for (at.t = 0; at.t < tokens_of(r, at.source) && at.row < count; at.t++) {
            if (!arrives(r, at.source, at.t, run->rank))
                continue;
            answer_row(trip, &at, &answer);
            at.row = behind_idle_rows(trip, at.row + 1, count);
        }
    }
    RANK_CHECK(run, count == at.row);
    const int32_t *answers = trip->buffers.answer_count;
    RANK_CHECK(run, answers == NULL ||
                        get_count(trip, answers) == (r->ranks == 1 ? count * r->slots : answer));
}

static void check_returned(const journey *trip)
{
    const routing *r = trip->routing;
    rank_run *run = trip->run;
    const size_t bytes = trip->shape->return_row_bytes;
    const int32_t tokens = tokens_of(r, run->rank);
    RANK_STATUS(run, TSR_OK,
                rows_get(&run->rows, trip->copies.returned, trip->buffers.returned_rows,
                         (size_t)tokens * (size_t)r->slots * bytes));
    for (int32_t t = 0; t < tokens; t++) {
        for (int32_t k = 0; k < r->slots; k++) {
            const int32_t from = target_of(r, run->rank, t, k);
            const size_t at = (size_t)t * (size_t)r->slots + (size_t)k;
            if (from >= 0)
                RANK_CHECK(run, holds(trip->copies.returned + at * bytes, bytes,
                                      answer_key(r, from, run->rank, t, k)));
        }
    }
}

/* Of any rank. */
static int32_t most_tokens(const routing *r)
{
    int32_t most = 0;
    for (int32_t source = 0; source < r->ranks; source++)
        most = tokens_of(r, source) > most ? tokens_of(r, source) : most;
    return most;
}

static void travel(journey *t, tsr_exchange *exchange)
{
    rank_run *run = t->run;
    const routing *r = t->routing;
    const int32_t tokens = tokens_of(r, run->rank);
    write_rows(t);
    RANK_STATUS(run, TSR_OK,
                tsr_exchange_expect(exchange, r->seed % 2 == 0 ? most_tokens(r) : r->max_tokens));
    RANK_STATUS(run, TSR_OK, tsr_exchange_dispatch(exchange, tokens, run->rows.stream));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(exchange, run->rows.stream));
    check_and_answer(t);
    tsr_exchange_coming coming;
    RANK_CHECK(run, ranks_have_cards() || !tsr_exchange_hand_over(exchange, &coming));
    RANK_STATUS(run, TSR_OK, tsr_exchange_return(exchange, run->rows.stream));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(exchange, run->rows.stream));
    check_returned(t);
}

static void exchange_once(rank_run *run, tsr_exchange *exchange, const tsr_exchange_shape *shape,
                          const routing *r)
{
    journey t = {
        .run = run,
        .routing = r,
        .shape = shape,
        .buffers = tsr_exchange_buffers_of(exchange),
    };
    const bool room = copies_take(shape, &t.copies);
    RANK_CHECK(run, room);
    if (room)
        travel(&t, exchange);
    copies_free(&t.copies);
}

/* Opens an exchange and does `times` routings of a kind in one step, one directly after the
 * other. */
static void exchange_times(rank_run *run, const tsr_exchange_shape *shape, routing_kind kind,
                           int times)
{
    tsr_exchange *exchange = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, shape, &exchange));
    if (exchange == NULL)
        return;
    RANK_STATUS(run, TSR_OK, tsr_exchange_begin(exchange, 1, run->rows.stream));
    for (int i = 0; i < times && run->failures == 0; i++) {
        const routing r = {kind, (uint64_t)i + 1, run->size, shape->max_tokens, shape->slots};
        exchange_once(run, exchange, shape, &r);
    }
    tsr_exchange_close(exchange);
}

/* What a device records it plays again, with other contents; one that does not record has done it. */
static void play(journey *t, tsr_exchange *exchange, tsr_recording **recording,
                 tsr_status (*start)(tsr_exchange *exchange, int32_t tokens, tsr_stream stream))
{
    tsr_device *device = t->run->rows.device;
    const tsr_stream s = t->run->rows.stream;

    if (*recording == NULL) {
        RANK_STATUS(t->run, TSR_OK, tsr_device_record(device, s));
        RANK_STATUS(t->run, TSR_OK, start(exchange, t->shape->max_tokens, s));
        RANK_STATUS(t->run, TSR_OK, tsr_exchange_wait(exchange, s));
        RANK_STATUS(t->run, TSR_OK, tsr_device_recorded(device, s, recording));
    }
    if (*recording != NULL)
        RANK_STATUS(t->run, TSR_OK, tsr_device_replay(device, *recording, s));
}

static tsr_status start_return(tsr_exchange *exchange, int32_t tokens, tsr_stream stream)
{
    (void)tokens;
    return tsr_exchange_return(exchange, stream);
}

static void play_routings(rank_run *run, tsr_exchange *exchange, const tsr_exchange_shape *shape)
{
    tsr_recording *there = NULL;
    tsr_recording *back = NULL;

    for (uint64_t step = 1; step <= 12 && run->failures == 0; step++) {
        const routing r = {SAME_TWICE, step, run->size, shape->max_tokens, shape->slots};
        journey t = {
            .run = run,
            .routing = &r,
            .shape = shape,
            .buffers = tsr_exchange_buffers_of(exchange),
        };
        RANK_CHECK(run, copies_take(shape, &t.copies));
        write_rows(&t);
        RANK_STATUS(run, TSR_OK, tsr_exchange_begin(exchange, step, run->rows.stream));
        play(&t, exchange, &there, tsr_exchange_dispatch);
        check_and_answer(&t);
        play(&t, exchange, &back, start_return);
        check_returned(&t);
        copies_free(&t.copies);
    }
    if (there != NULL)
        tsr_device_recording_close(run->rows.device, there);
    if (back != NULL)
        tsr_device_recording_close(run->rows.device, back);
}

static void played_body(rank_run *run)
{
    const tsr_exchange_shape shapes[] = {
        {3, 3 * run->size, 4, 4112, 2064},
        {60, 60 * run->size, 3, 8192, 8192},
        {700, 700 * run->size, 2, 48, 16},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        tsr_exchange *exchange = NULL;
        RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shapes[i], &exchange));
        if (exchange == NULL)
            return;
        play_routings(run, exchange, &shapes[i]);
        tsr_exchange_close(exchange);
    }
}

static void what_was_recorded_carries_other_rows(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, played_body);
}

static void random_routings_body(rank_run *run)
{
    const tsr_exchange_shape shapes[] = {
        {9, 9 * run->size, 1, 16, 48},
        {17, 17 * run->size, 3, 48, 16},
        {5, 5 * run->size, 8, 8192, 8192},
        {70, 70 * run->size, 2, 8192, 8192}, /* few on some ranks, many on others */
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        exchange_times(run, &shapes[i], RANDOM, 20);
}

static void every_byte_of_random_routings_arrives(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, random_routings_body);
}

static void no_tokens_body(rank_run *run)
{
    const tsr_exchange_shape shape = {6, 6 * run->size, 2, 16, 16};
    exchange_times(run, &shape, NO_TOKENS, 3);
    exchange_times(run, &shape, SOME_WITHOUT, 3);
    exchange_times(run, &shape, NO_RANK, 3);
}

static void ranks_without_tokens_take_part(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, no_tokens_body);
}

static void one_target_body(rank_run *run)
{
    const tsr_exchange_shape shape = {12, 12 * run->size, 4, 48, 48};
    exchange_times(run, &shape, ONE_TARGET, 3);
}

static void one_rank_can_hold_all_rows(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, one_target_body);
}

static void same_rank_body(rank_run *run)
{
    const tsr_exchange_shape shape = {12, 12 * run->size, 5, 48, 16};
    exchange_times(run, &shape, SAME_TWICE, 3);
}

static void a_row_travels_once_to_a_rank_named_by_many_slots(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, same_rank_body);
}

/* Rows of 18 MiB from each to one: more than a piece of the MPI backend (16 MiB). */
static void large_body(rank_run *run)
{
    const tsr_exchange_shape shape = {2304, 2304 * run->size, 1, 8192, 16};
    exchange_times(run, &shape, ONE_TARGET, 1);
}

static void more_rows_than_one_message_holds_arrive(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, large_body);
}

static void two_exchanges_body(rank_run *run)
{
    const tsr_exchange_shape shape = {7, 7 * run->size, 3, 48, 16};
    tsr_exchange *one = NULL;
    tsr_exchange *two = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &one));
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &two));
    for (uint64_t i = 1; i <= 4 && run->failures == 0; i++) {
        const routing r = {RANDOM, i, run->size, shape.max_tokens, shape.slots};
        tsr_exchange *exchange = i % 2 == 0 ? one : two;
        RANK_STATUS(run, TSR_OK, tsr_exchange_begin(exchange, i, run->rows.stream));
        exchange_once(run, exchange, &shape, &r);
    }
    tsr_exchange_close(one);
    tsr_exchange_close(two);
}

static void two_exchanges_keep_apart(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, two_exchanges_body);
}

/* Room for no more than come: one row of each rank, all to the last. */
static void full_body(rank_run *run)
{
    const tsr_exchange_shape shape = {1, run->size, 2, 16, 16};
    exchange_times(run, &shape, ONE_TARGET, 2);
}

static void as_many_rows_arrive_as_there_is_room_for(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, full_body);
}

static void shape_body(rank_run *run)
{
    const tsr_exchange_shape shape = {6, 4, 3, 16, 32};
    const char *host = ranks_are_local() ? "local" : "mpi";
    const char *name = ranks_have_cards() ? "nccl" : host;
    tsr_exchange *exchange = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &exchange));
    if (exchange == NULL)
        return;
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(exchange);
    RANK_CHECK(run, strcmp(tsr_exchange_name(exchange), run->size == 1 ? "self" : name) == 0);
    RANK_CHECK(run, b.arrived_capacity == 4);
    RANK_CHECK(run, b.answer_capacity == 12);
    RANK_CHECK(run, (b.arrived_rows == b.send_rows) == (run->size == 1));
    RANK_CHECK(run, (b.returned_rows == b.answers) == (run->size == 1));
    tsr_exchange_close(exchange);
}

static void one_rank_copies_nothing(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, shape_body);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_of_random_routings_arrives),
        cmocka_unit_test(what_was_recorded_carries_other_rows),
        cmocka_unit_test(ranks_without_tokens_take_part),
        cmocka_unit_test(one_rank_can_hold_all_rows),
        cmocka_unit_test(as_many_rows_arrive_as_there_is_room_for),
        cmocka_unit_test(a_row_travels_once_to_a_rank_named_by_many_slots),
        cmocka_unit_test(more_rows_than_one_message_holds_arrive),
        cmocka_unit_test(two_exchanges_keep_apart),
        cmocka_unit_test(one_rank_copies_nothing),
    };
    if (!ranks_begin(argc, argv))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ranks_end();
    return failed;
}
