/*
 * The exchange of one rank whose rows lie in the memory of a device: here memory of the host that
 * takes what is put only when the stream is run, so that nothing can come too early.
 */
#include "comm/exchange.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_PUTS = 16, TOKENS = 5, SLOTS = 3, DEADLINE_MS = 1000 };

static const tsr_exchange_shape shape = {TOKENS, TOKENS, SLOTS, 32, 16};
static const tsr_stream stream = {NULL};

typedef struct one_put {
    void *to;
    const void *from;
    size_t bytes;
} one_put;

typedef struct late_memory {
    one_put puts[MOST_PUTS];
    int count;
    int taken;    /* pieces that were not given back */
    int fails_at; /* the taking that fails; 0: none */
} late_memory;

static tsr_status take(void *context, size_t bytes, void **ret_memory)
{
    late_memory *m = context;

    if (m->fails_at > 0 && --m->fails_at == 0)
        return TSR_ERR_MEMORY;
    *ret_memory = calloc(1, bytes);
    assert_non_null(*ret_memory);
    m->taken++;
    return TSR_OK;
}

static void give_back(void *context, void *memory)
{
    late_memory *m = context;

    m->taken -= memory != NULL;
    free(memory);
}

static tsr_status put(void *context, void *to, const void *from, size_t bytes, tsr_stream s)
{
    late_memory *m = context;

    (void)s;
    assert_in_range(m->count, 0, MOST_PUTS - 1);
    m->puts[m->count++] = (one_put){to, from, bytes};
    return TSR_OK;
}

static void run_stream(late_memory *m)
{
    for (int i = 0; i < m->count; i++)
        memcpy(m->puts[i].to, m->puts[i].from, m->puts[i].bytes);
    m->count = 0;
}

static tsr_exchange_memory face_of(late_memory *m)
{
    return (tsr_exchange_memory){
        .context = m,
        .alloc = take,
        .release = give_back,
        .host_alloc = take,
        .host_release = give_back,
        .put = put,
    };
}

static void there_and_back(tsr_exchange *x, int32_t tokens)
{
    ASSERT_STATUS(TSR_OK, tsr_exchange_dispatch(x, tokens, stream));
    ASSERT_STATUS(TSR_OK, tsr_exchange_wait(x, stream));
    ASSERT_STATUS(TSR_OK, tsr_exchange_return(x, stream));
    ASSERT_STATUS(TSR_OK, tsr_exchange_wait(x, stream));
}

static void counts_are_those_of_a_dispatch_and_answers_go_where_they_return_to(void **state)
{
    late_memory m = {0};
    const tsr_exchange_memory memory = face_of(&m);
    tsr_comm *comm = NULL;
    tsr_exchange *x = NULL;

    (void)state;
    ASSERT_STATUS(TSR_OK, tsr_comm_open_local(1, DEADLINE_MS, &comm));
    tsr_exchange_use_memory(comm, &memory);
    ASSERT_STATUS(TSR_OK, tsr_exchange_open(comm, &shape, &x));
    tsr_exchange_buffers b = tsr_exchange_buffers_of(x);
    assert_ptr_equal(b.arrived_rows, b.send_rows);
    assert_ptr_equal(b.returned_rows, b.answers);
    assert_int_equal(b.arrived_capacity, TOKENS);
    assert_int_equal(b.answer_capacity, TOKENS * SLOTS);
    for (int32_t step = 0; step < 2; step++) {
        ASSERT_STATUS(TSR_OK, tsr_exchange_begin(x, (uint64_t)step, stream));
        for (int32_t tokens = 0; tokens <= TOKENS; tokens++) {
            there_and_back(x, tokens);
            run_stream(&m);
            b = tsr_exchange_buffers_of(x);
            assert_int_equal(*b.arrived_count, tokens);
            assert_int_equal(*b.answer_count, tokens * SLOTS);
            for (int32_t i = 0; i < TOKENS * SLOTS; i++)
                assert_int_equal(b.answer_of[i], i);
        }
        there_and_back(x, 0);
        run_stream(&m);
    }
    tsr_exchange_close(x);
    tsr_comm_close(comm);
    assert_int_equal(m.taken, 0);
}

/* A copy costs a stream more than what it carries: there is one, when it is first known where to put it.
 * A recording knows the addresses of its counts. */
static void a_dispatch_puts_nothing(void **state)
{
    late_memory m = {0};
    const tsr_exchange_memory memory = face_of(&m);
    tsr_comm *comm = NULL;
    tsr_exchange *x = NULL;
    tsr_exchange_buffers first = {0};

    (void)state;
    ASSERT_STATUS(TSR_OK, tsr_comm_open_local(1, DEADLINE_MS, &comm));
    tsr_exchange_use_memory(comm, &memory);
    ASSERT_STATUS(TSR_OK, tsr_exchange_open(comm, &shape, &x));
    for (uint64_t step = 1; step <= 3; step++) {
        ASSERT_STATUS(TSR_OK, tsr_exchange_begin(x, step, stream));
        assert_int_equal(m.count, step == 1 ? 1 : 0);
        run_stream(&m);
        there_and_back(x, 4);
        there_and_back(x, 3);
        assert_int_equal(m.count, 0);
        const tsr_exchange_buffers b = tsr_exchange_buffers_of(x);
        assert_int_equal(*b.arrived_count, 3);
        assert_int_equal(*b.answer_count, 3 * SLOTS);
        if (step == 1)
            first = b;
        assert_memory_equal(&first, &b, sizeof(b));
    }
    tsr_exchange_close(x);
    tsr_comm_close(comm);
}

static void memory_that_is_missing_leaves_nothing_behind(void **state)
{
    (void)state;
    for (int fails_at = 1; fails_at <= 2; fails_at++) {
        late_memory m = {.fails_at = fails_at};
        const tsr_exchange_memory memory = face_of(&m);
        tsr_comm *comm = NULL;
        tsr_exchange *x = NULL;
        ASSERT_STATUS(TSR_OK, tsr_comm_open_local(1, DEADLINE_MS, &comm));
        tsr_exchange_use_memory(comm, &memory);
        ASSERT_STATUS(TSR_ERR_MEMORY, tsr_exchange_open(comm, &shape, &x));
        assert_null(x);
        assert_int_equal(m.taken, 0);
        tsr_comm_close(comm);
    }
}

static void several_ranks_are_refused(void **state)
{
    late_memory m = {0};
    const tsr_exchange_memory memory = face_of(&m);
    tsr_comm *members[2] = {NULL, NULL};
    tsr_exchange *x = NULL;

    (void)state;
    ASSERT_STATUS(TSR_OK, tsr_comm_open_local(2, DEADLINE_MS, members));
    tsr_exchange_use_memory(members[0], &memory);
    ASSERT_STATUS(TSR_ERR_DEVICE, tsr_exchange_open(members[0], &shape, &x));
    assert_null(x);
    tsr_comm_close(members[0]);
    tsr_comm_close(members[1]);
}

/* What one rank sends and answers, and no more; rounded up to cache lines. */
static void one_rank_takes_what_it_sends_and_answers(void **state)
{
    (void)state;
    const tsr_exchange_shape one = {6, 6, 3, 64, 128};
    const tsr_exchange_shape two = {6, 12, 3, 64, 128};
    const uint64_t pairs = (uint64_t)6 * 3;
    const uint64_t ints = (pairs * sizeof(int32_t) + 63) / 64 * 64;
    const uint64_t sent = 6 * (uint64_t)64;
    assert_int_equal(tsr_exchange_bytes(&one, 1, false), sent + pairs * 128 + 2 * ints);
    assert_true(tsr_exchange_bytes(&two, 2, false) > 2 * tsr_exchange_bytes(&one, 1, false));
    /* Between GPUs answers have no place on the rank that computes them. */
    const tsr_exchange_shape many = {600, 1200, 3, 64, 128};
    assert_true(tsr_exchange_bytes(&many, 2, true) < tsr_exchange_bytes(&many, 2, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_a_dispatch_and_answers_go_where_they_return_to),
        cmocka_unit_test(a_dispatch_puts_nothing),
        cmocka_unit_test(memory_that_is_missing_leaves_nothing_behind),
        cmocka_unit_test(several_ranks_are_refused),
        cmocka_unit_test(one_rank_takes_what_it_sends_and_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
