/*
 * What calls and exchanges move, on every backend: each byte is a function of who sent it, so that
 * every rank can tell every byte it should see.
 */
#include "comm/comm.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static const tsr_stream no_stream;

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

static uint64_t mix2(uint64_t a, uint64_t b)
{
    return mix(mix(a) ^ b);
}

/* `bytes` bytes, a multiple of 8, that only this key gives. */
static void fill(void *into, size_t bytes, uint64_t key)
{
    unsigned char *at = into;
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        const uint64_t word = key + i * 0x9e3779b97f4a7c15U;
        memcpy(at + i, &word, sizeof(word));
    }
}

static bool holds(const void *from, size_t bytes, uint64_t key)
{
    const unsigned char *at = from;
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        const uint64_t word = key + i * 0x9e3779b97f4a7c15U;
        if (memcmp(at + i, &word, sizeof(word)) != 0)
            return false;
    }
    return true;
}

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
    const uint64_t key = mix2(r->seed ^ 0x5157U, (uint64_t)source << 40 | (uint64_t)row << 8);
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
    return mix2(r->seed ^ 0x726f77U, (uint64_t)source << 32 | (uint64_t)row);
}

static uint64_t answer_key(const routing *r, int32_t from, int32_t source, int32_t row,
                           int32_t slot)
{
    return mix2(row_key(r, source, row), (uint64_t)from << 32 | (uint64_t)slot);
}

static void write_rows(const routing *r, const tsr_exchange_buffers *b, size_t row_bytes,
                       int32_t me)
{
    for (int32_t t = 0; t < tokens_of(r, me); t++) {
        fill((unsigned char *)b->send_rows + (size_t)t * row_bytes, row_bytes, row_key(r, me, t));
        for (int32_t k = 0; k < r->slots; k++)
            b->send_ranks[(ptrdiff_t)t * r->slots + k] = target_of(r, me, t, k);
    }
}

/* Every row that names this rank is here once, in order, and every answer has its place. */
static void check_and_answer(rank_run *run, const routing *r, const tsr_exchange_buffers *b,
                             const tsr_exchange_shape *shape)
{
    int32_t row = 0;
    int32_t answer = 0;
    for (int32_t source = 0; source < r->ranks; source++) {
        for (int32_t t = 0; t < tokens_of(r, source); t++) {
            if (!names(r, source, t, run->rank))
                continue;
            const unsigned char *bytes = b->arrived_rows;
            RANK_CHECK(run, holds(bytes + (size_t)row * shape->row_bytes, shape->row_bytes,
                                  row_key(r, source, t)));
            for (int32_t k = 0; k < r->slots; k++) {
                const bool ours = target_of(r, source, t, k) == run->rank;
                const ptrdiff_t at = (ptrdiff_t)row * r->slots + k;
                RANK_CHECK(run, b->answer_of[at] == (ours ? answer : -1));
                if (ours)
                    fill((unsigned char *)b->answers + (size_t)answer++ * shape->return_row_bytes,
                         shape->return_row_bytes, answer_key(r, run->rank, source, t, k));
            }
            row++;
        }
    }
    RANK_CHECK(run, *b->arrived_count == row);
    RANK_CHECK(run, *b->answer_count == answer);
}

static void check_returned(rank_run *run, const routing *r, const tsr_exchange_buffers *b,
                           size_t bytes)
{
    const unsigned char *returned = b->returned_rows;
    for (int32_t t = 0; t < tokens_of(r, run->rank); t++) {
        for (int32_t k = 0; k < r->slots; k++) {
            const int32_t from = target_of(r, run->rank, t, k);
            const size_t at = (size_t)t * (size_t)r->slots + (size_t)k;
            if (from >= 0)
                RANK_CHECK(
                    run, holds(returned + at * bytes, bytes, answer_key(r, from, run->rank, t, k)));
        }
    }
}

static void exchange_once(rank_run *run, tsr_exchange *exchange, const tsr_exchange_shape *shape,
                          const routing *r)
{
    const tsr_exchange_buffers b = tsr_exchange_buffers_of(exchange);
    const tsr_exchange_mark mark = {.step = r->seed, .stage = (int32_t)r->kind};
    write_rows(r, &b, shape->row_bytes, run->rank);
    RANK_STATUS(run, TSR_OK,
                tsr_exchange_dispatch(exchange, tokens_of(r, run->rank), mark, no_stream));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(exchange, no_stream));
    check_and_answer(run, r, &b, shape);
    RANK_STATUS(run, TSR_OK, tsr_exchange_return(exchange, no_stream));
    RANK_STATUS(run, TSR_OK, tsr_exchange_wait(exchange, no_stream));
    check_returned(run, r, &b, shape->return_row_bytes);
}

/* Opens an exchange and does `times` routings of a kind, one directly after the other. */
static void exchange_times(rank_run *run, const tsr_exchange_shape *shape, routing_kind kind,
                           int times)
{
    tsr_exchange *exchange = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, shape, &exchange));
    if (!exchange)
        return;
    for (int i = 0; i < times && run->failures == 0; i++) {
        const routing r = {kind, (uint64_t)i + 1, run->size, shape->max_tokens, shape->slots};
        exchange_once(run, exchange, shape, &r);
    }
    tsr_exchange_close(exchange);
}

static void random_routings_body(rank_run *run)
{
    const tsr_exchange_shape shapes[] = {{9, 1, 16, 48}, {17, 3, 48, 16}, {5, 8, 8192, 8192}};
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
    const tsr_exchange_shape shape = {6, 2, 16, 16};
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
    const tsr_exchange_shape shape = {12, 4, 48, 48};
    exchange_times(run, &shape, ONE_TARGET, 3);
}

static void one_rank_can_hold_all_rows(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, one_target_body);
}

static void same_rank_body(rank_run *run)
{
    const tsr_exchange_shape shape = {12, 5, 48, 16};
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
    const tsr_exchange_shape shape = {2304, 1, 8192, 16};
    exchange_times(run, &shape, ONE_TARGET, 1);
}

static void more_rows_than_one_message_holds_arrive(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, large_body);
}

static void two_exchanges_body(rank_run *run)
{
    const tsr_exchange_shape shape = {7, 3, 48, 16};
    tsr_exchange *one = NULL;
    tsr_exchange *two = NULL;
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &one));
    RANK_STATUS(run, TSR_OK, tsr_exchange_open(run->comm, &shape, &two));
    for (uint64_t i = 1; i <= 4 && run->failures == 0; i++) {
        const routing r = {RANDOM, i, run->size, shape.max_tokens, shape.slots};
        exchange_once(run, i % 2 == 0 ? one : two, &shape, &r);
    }
    tsr_exchange_close(one);
    tsr_exchange_close(two);
}

static void two_exchanges_keep_apart(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, two_exchanges_body);
}

static void broadcast_body(rank_run *run)
{
    const size_t sizes[] = {0, 8, 4096, (size_t)18 << 20};
    unsigned char *data = malloc(sizes[3]);
    RANK_CHECK(run, data != NULL);
    for (int32_t root = 0; data && root < run->size; root++) {
        for (size_t i = 0; i < (root == 0 ? 4U : 3U); i++) {
            const uint64_t key = mix2((uint64_t)root, sizes[i]);
            fill(data, sizes[i], run->rank == root ? key : 0);
            RANK_STATUS(run, TSR_OK, tsr_comm_broadcast(run->comm, root, data, sizes[i]));
            RANK_CHECK(run, holds(data, sizes[i], key));
        }
    }
    free(data);
}

static void broadcasts_reach_all_from_every_root(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, broadcast_body);
}

/* Rank r sends r * unit bytes, so that one rank sends nothing. */
static void gather_to(rank_run *run, int32_t root, size_t unit)
{
    size_t bytes_of[64] = {0};
    size_t sum = 0;
    for (int32_t r = 0; r < run->size; r++) {
        bytes_of[r] = (size_t)r * unit;
        sum += bytes_of[r];
    }
    unsigned char *send = malloc(bytes_of[run->rank] + 1);
    unsigned char *recv = malloc(sum + 1);
    RANK_CHECK(run, send && recv);
    if (send && recv) {
        fill(send, bytes_of[run->rank], mix((uint64_t)run->rank));
        RANK_STATUS(run, TSR_OK,
                    tsr_comm_gather(run->comm, root, bytes_of[run->rank] != 0 ? send : NULL,
                                    bytes_of, run->rank == root ? recv : NULL));
        const unsigned char *at = recv;
        for (int32_t r = 0; r < run->size && run->rank == root; r++) {
            RANK_CHECK(run, holds(at, bytes_of[r], mix((uint64_t)r)));
            at += bytes_of[r];
        }
    }
    free(send);
    free(recv);
}

static void gather_body(rank_run *run)
{
    for (int32_t root = 0; root < run->size; root++)
        gather_to(run, root, 808);
    gather_to(run, 0, (size_t)6 << 20);
}

static void gathers_bring_each_ranks_own_number_of_bytes(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, gather_body);
}

/* Rank 0 tells a new number after each barrier; a rank that passed too early would read the old. */
static void barrier_body(rank_run *run)
{
    for (uint64_t i = 0; i < 50 && run->failures == 0; i++) {
        uint64_t told = run->rank == 0 ? mix(i) : 0;
        RANK_STATUS(run, TSR_OK, tsr_comm_barrier(run->comm));
        RANK_STATUS(run, TSR_OK, tsr_comm_broadcast(run->comm, 0, &told, sizeof(told)));
        RANK_STATUS(run, TSR_OK, tsr_comm_barrier(run->comm));
        RANK_CHECK(run, told == mix(i));
    }
}

static void barriers_and_broadcasts_alternate(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, barrier_body);
}

static void name_body(rank_run *run)
{
    RANK_CHECK(run, strcmp(tsr_comm_name(run->comm), ranks_are_local() ? "local" : "mpi") == 0);
    RANK_CHECK(run, run->rank >= 0 && run->rank < run->size);
    RANK_STATUS(run, TSR_OK, tsr_comm_cause(run->comm));
}

static void a_group_knows_its_name_and_no_cause(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, name_body);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_knows_its_name_and_no_cause),
        cmocka_unit_test(every_byte_of_random_routings_arrives),
        cmocka_unit_test(ranks_without_tokens_take_part),
        cmocka_unit_test(one_rank_can_hold_all_rows),
        cmocka_unit_test(a_row_travels_once_to_a_rank_named_by_many_slots),
        cmocka_unit_test(more_rows_than_one_message_holds_arrive),
        cmocka_unit_test(two_exchanges_keep_apart),
        cmocka_unit_test(broadcasts_reach_all_from_every_root),
        cmocka_unit_test(gathers_bring_each_ranks_own_number_of_bytes),
        cmocka_unit_test(barriers_and_broadcasts_alternate),
    };
    if (!ranks_begin(argc, argv))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ranks_end();
    return failed;
}
