/* Threads or this process; what a body counted is gathered when all are through. */
#include "tests/comm/ranks.h"

#include "launch/job/exchange_memory.h"
#include "runtime/base/log.h"
#include "tests/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_RANKS = 8, POLL_NS = 1000000 };

static bool local_backend = true;
static int32_t cards;    /* GPUs, of which each rank takes one; 0: rows lie in host memory */
static tsr_comm *anchor; /* mpi: the group held to the end */
static _Thread_local rank_run *running;

void rank_check(rank_run *run, bool ok, const char *what, const char *file, int line)
{
    if (ok)
        return;
    if (run->failures++ < 3)
        (void)fprintf(stderr, "%s:%d: rank %d of %d: %s\n", file, line, run->rank, run->size, what);
}

void rank_check_status(rank_run *run, tsr_status expected, tsr_status actual, const char *file,
                       int line)
{
    if (expected != actual)
        (void)fprintf(stderr, "expected %s, got %s\n", tsr_status_name(expected),
                      tsr_status_name(actual));
    rank_check(run, expected == actual, "status", file, line);
}

/* Errors are part of what is tested: they go to the rank that caused them. */
static void keep_line(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    if (running == NULL || level != TSR_LOG_ERROR)
        return;
    const size_t used = strlen(running->log);
    (void)snprintf(running->log + used, sizeof(running->log) - used, "%s\n", line);
}

bool ranks_begin(int argc, char **argv)
{
    tsr_log_set_sink(keep_line, NULL);
    local_backend = argc < 2 || strcmp(argv[1], "mpi") != 0;
    if (argc > 2 && strcmp(argv[2], "cuda") == 0) {
        cards = tsr_cuda_cards();
        if (cards < 2) {
            (void)printf("skipped: %d GPUs, needed are 2\n", (int)cards);
            exit(RANKS_SKIPPED);
        }
    }
    return local_backend || tsr_comm_open_mpi(DEADLINE_MS, NULL, &anchor) == TSR_OK;
}

void ranks_end(void)
{
    tsr_comm_close(anchor);
    anchor = NULL;
}

bool ranks_are_local(void)
{
    return local_backend;
}

bool ranks_have_cards(void)
{
    return cards > 0;
}

bool rank_is_last(const rank_run *run)
{
    return run->rank == run->size - 1;
}

void rank_last_after_all(rank_run *run)
{
    size_t bytes_of[MOST_RANKS];
    char here[MOST_RANKS] = {0};
    for (int32_t r = 0; r < run->size; r++)
        bytes_of[r] = 1;
    RANK_STATUS(run, TSR_OK, tsr_comm_gather(run->comm, run->size - 1, here, bytes_of, here));
}

tsr_status rank_until_the_end(const rank_run *run)
{
    const struct timespec poll = {.tv_nsec = POLL_NS};
    while (tsr_comm_cause(run->comm) == TSR_OK)
        (void)nanosleep(&poll, NULL);
    return tsr_comm_cause(run->comm);
}

typedef struct thread_start {
    rank_run run;
    rank_body body;
    pthread_t thread;
} thread_start;

static void run_body(rank_run *run, rank_body body)
{
    running = run;
    tsr_log_set_rank(run->rank);
    run->rank = tsr_comm_rank(run->comm);
    run->size = tsr_comm_size(run->comm);
    const tsr_status opened = rows_open(cards > 0 ? run->rank % cards : NO_CARD, &run->rows);
    RANK_STATUS(run, TSR_OK, opened);
    if (opened == TSR_OK && cards > 0) {
        run->memory = tsr_exchange_memory_on_card(run->rows.device, run->rank % cards, false);
        tsr_exchange_use_memory(run->comm, &run->memory);
    }
    if (opened == TSR_OK)
        body(run);
    else
        tsr_comm_abort(run->comm, opened);
    rows_close(&run->rows);
    tsr_comm_close(run->comm);
    running = NULL;
}

static void *thread_main(void *argument)
{
    thread_start *start = argument;
    run_body(&start->run, start->body);
    return NULL;
}

static void run_local(int32_t ranks, int32_t deadline_ms, rank_body body)
{
    tsr_comm *members[MOST_RANKS];
    thread_start *starts = calloc((size_t)ranks, sizeof(*starts));
    assert_non_null(starts);
    ASSERT_STATUS(TSR_OK, tsr_comm_open_local(ranks, deadline_ms, members));
    for (int32_t r = 0; r < ranks; r++) {
        starts[r].run.comm = members[r];
        starts[r].body = body;
        assert_int_equal(0, pthread_create(&starts[r].thread, NULL, thread_main, &starts[r]));
    }
    int failures = 0;
    for (int32_t r = 0; r < ranks; r++) {
        assert_int_equal(0, pthread_join(starts[r].thread, NULL));
        failures += starts[r].run.failures;
    }
    free(starts);
    assert_int_equal(0, failures);
}

static void run_mpi(int32_t deadline_ms, rank_body body)
{
    rank_run run = {0};
    ASSERT_STATUS(TSR_OK, tsr_comm_barrier(anchor)); /* the deadline may be short */
    ASSERT_STATUS(TSR_OK, tsr_comm_open_mpi(deadline_ms, NULL, &run.comm));
    ASSERT_STATUS(TSR_OK, tsr_comm_barrier(anchor)); /* a body may fail at once: all have opened */
    run_body(&run, body);

    /* All fail when one did, after everybody is through. */
    int failures[MOST_RANKS] = {0};
    size_t bytes_of[MOST_RANKS];
    const int32_t size = tsr_comm_size(anchor);
    assert_in_range(size, 1, MOST_RANKS);
    for (int32_t r = 0; r < size; r++)
        bytes_of[r] = sizeof(int);
    ASSERT_STATUS(TSR_OK, tsr_comm_gather(anchor, 0, &run.failures, bytes_of, failures));
    ASSERT_STATUS(TSR_OK, tsr_comm_broadcast(anchor, 0, failures, sizeof(failures)));
    for (int32_t r = 0; r < size; r++)
        assert_int_equal(0, failures[r]);
}

static void run_each(const int32_t *sizes, size_t count, int32_t deadline_ms, rank_body body)
{
    for (size_t i = 0; i < count && local_backend; i++) {
        if (cards == 0 || (sizes[i] > 1 && sizes[i] <= cards))
            run_local(sizes[i], deadline_ms, body);
    }
    if (!local_backend)
        run_mpi(deadline_ms, body);
}

void ranks_run(int32_t deadline_ms, rank_body body)
{
    static const int32_t sizes[] = {1, 2, 3, 4, 8};
    run_each(sizes, sizeof(sizes) / sizeof(sizes[0]), deadline_ms, body);
}

void ranks_run_several(int32_t deadline_ms, rank_body body)
{
    static const int32_t sizes[] = {2, 3, 8};
    run_each(sizes, sizeof(sizes) / sizeof(sizes[0]), deadline_ms, body);
}
