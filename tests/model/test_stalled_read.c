/*
 * A disk that does not answer. The program is linked so that every tsr_file_read comes here first
 * (--wrap): from some read on, none returns. Whoever waits for the weights gives up at the
 * deadline, in one line that names tensor and file, and closing waits for nobody.
 */
#include "tests/engine/late_device.h"
#include "tests/model/served.h"
#include "tests/test.h"

#include "comm/exchange.h"
#include "runtime/base/arena.h"
#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/model/load_weights.h"
#include "runtime/model/model.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { DEADLINE_MS = 300, RANKS = 3, RANKS_DEADLINE_MS = 4000, LINE_BYTES = 1024, NEVER = 1 << 30 };

static atomic_int reads_left = NEVER; /* before the disk stalls for everybody */
static atomic_bool stall_one;         /* for whoever reads next, and for nobody else */
static sem_t never;                   /* is posted */

/* The linker's names for the function that is wrapped, and what it is wrapped in. */
/* NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming) */
tsr_status __real_tsr_file_read(const tsr_file *file, uint64_t offset, size_t bytes, void *into);
tsr_status __wrap_tsr_file_read(const tsr_file *file, uint64_t offset, size_t bytes, void *into);

tsr_status __wrap_tsr_file_read(const tsr_file *file, uint64_t offset, size_t bytes, void *into)
{
    while (atomic_exchange(&stall_one, false) || atomic_fetch_sub(&reads_left, 1) <= 0) {
        for (;;)
            (void)sem_wait(&never);
    }
    return __real_tsr_file_read(file, offset, bytes, into);
}
/* NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming) */

static int errors;
static char said[LINE_BYTES];

static void keep_error(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    if (level != TSR_LOG_ERROR)
        return;
    errors++;
    (void)snprintf(said, sizeof(said), "%s", line);
}

static tsr_plan *plan_of_demo(int32_t ranks)
{
    tsr_plan *plan = NULL;
    served_setup setup = {
        .folder = TSR_TEST_DATA "/demo-mixed", .mode = SERVED_DECLARED, .ranks = ranks};
    ASSERT_STATUS(TSR_OK, served_plan(&setup, &plan));
    return plan;
}

/* From the first read on (the file's header), or from one of the weights; by threads that lay out
 * what they read, and by one that reads ahead. */
static void a_read_that_does_not_end_is_given_up(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        const int reads = i / 2 * 20;
        const bool by_stream = i % 2 == 1;
        tsr_plan *plan = plan_of_demo(1);
        tsr_device *device = NULL;
        tsr_arena *arena = NULL;
        tsr_loader *loader = NULL;
        tsr_weights weights = {0};
        bool done = false;
        ASSERT_STATUS(TSR_OK, tsr_device_open_cpu(3, TSR_CPU_AUTO, &device));
        if (by_stream)
            ASSERT_STATUS(TSR_OK, late_device_open(device, LATE_AS_LATE_AS_CAN_BE, &device));
        tsr_stream stream = {0};
        ASSERT_STATUS(TSR_OK, tsr_device_stream_open(device, &stream));
        ASSERT_STATUS(TSR_OK, tsr_arena_open(1 << 16, &arena));
        ASSERT_STATUS(TSR_OK, tsr_weights_open(plan, device, 0, arena, &weights));
        const tsr_loader_args args = {.plan = plan,
                                      .device = device,
                                      .weights = &weights,
                                      .deadline_ms = DEADLINE_MS,
                                      .stream = stream,
                                      .piece_bytes = 100000};
        atomic_store(&reads_left, reads);
        errors = 0;
        ASSERT_STATUS(TSR_OK, tsr_loader_open(&args, &loader));
        tsr_status st = TSR_OK;
        while (st == TSR_OK && !done)
            st = tsr_loader_run(loader, INT64_MAX, &done);
        ASSERT_STATUS(TSR_ERR_TIMEOUT, st);
        assert_int_equal(errors, 1);
        assert_non_null(strstr(said, "model."));
        assert_non_null(strstr(said, "in model.safetensors: not read from"));

        const int64_t before = tsr_clock_ms();
        tsr_loader_close(loader);
        assert_true(tsr_clock_ms() - before < DEADLINE_MS);
        tsr_weights_close(&weights);
        tsr_arena_close(arena);
        tsr_device_stream_close(device, stream);
        tsr_device_close(device);
        atomic_store(&reads_left, NEVER);
        tsr_plan_close(plan);
    }
}

/* One rank of a model that opens, on its own thread. */
typedef struct opening {
    const tsr_plan *plan;
    tsr_comm *comm;
    tsr_status status;
} opening;

static void *open_model(void *argument)
{
    opening *o = argument;
    tsr_device *device = NULL;
    tsr_model *model = NULL;

    o->status = tsr_device_open_cpu(1, TSR_CPU_AUTO, &device);
    const tsr_model_args args = {
        .plan = o->plan, .device = device, .comm = o->comm, .open_exchange = tsr_exchange_open};
    if (o->status == TSR_OK)
        o->status = tsr_model_open(&args, &model);
    tsr_model_close(model);
    tsr_device_close(device);
    return NULL;
}

/* The rank that waits says so, with tensor and file, before the others say that they wait for
 * it. */
static void a_stalled_rank_ends_all(void **state)
{
    (void)state;
    tsr_plan *plan = plan_of_demo(RANKS);
    tsr_comm *members[RANKS];
    opening ranks[RANKS];
    pthread_t threads[RANKS];
    int timed_out = 0;

    errors = 0;
    atomic_store(&stall_one, true);
    ASSERT_STATUS(TSR_OK, tsr_comm_open_local(RANKS, RANKS_DEADLINE_MS, members));
    for (int r = 0; r < RANKS; r++) {
        ranks[r] = (opening){.plan = plan, .comm = members[r]};
        assert_int_equal(pthread_create(&threads[r], NULL, open_model, &ranks[r]), 0);
    }
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(pthread_join(threads[r], NULL), 0);
    for (int r = 0; r < RANKS; r++) {
        timed_out += ranks[r].status == TSR_ERR_TIMEOUT;
        assert_true(ranks[r].status == TSR_ERR_TIMEOUT || ranks[r].status == TSR_ERR_PEER);
        ASSERT_STATUS(TSR_ERR_TIMEOUT, tsr_comm_cause(members[r]));
    }
    for (int r = 0; r < RANKS; r++)
        tsr_comm_close(members[r]);
    assert_int_equal(timed_out, 1);
    assert_int_equal(errors, 1);
    assert_non_null(strstr(said, "in model.safetensors: not read from"));
    tsr_plan_close(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_that_does_not_end_is_given_up),
        cmocka_unit_test(a_stalled_rank_ends_all),
    };
    (void)sem_init(&never, 0, 0);
    tsr_log_set_sink(keep_error, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
