/*
 * Runs one body on every rank of a group, for either backend: `local` starts a thread per rank,
 * `mpi` is this process. With `cuda` behind it each rank's rows lie on a GPU of its own, in groups
 * of at least two: a single rank has an exchange for itself (test_exchange_device.c). A body
 * counts what is wrong instead of jumping out, so that its peers are not left waiting.
 */
#ifndef TSR_TESTS_COMM_RANKS_H
#define TSR_TESTS_COMM_RANKS_H

#include "comm/exchange.h"
#include "tests/comm/rows.h"

#include <stdbool.h>

enum { DEADLINE_MS = 30000 };

typedef struct rank_run {
    tsr_comm *comm;
    rows rows; /* what its exchanges' buffers are reached by, and the stream they work on */
    tsr_exchange_memory memory; /* cuda: where they lie */
    int32_t rank;
    int32_t size;
    int failures;
    tsr_status ended; /* for a test's own use: read after the run */
    char log[4096];   /* what this rank logged at error level, line by line */
} rank_run;

typedef void (*rank_body)(rank_run *run);

/* Counts and prints a false `ok`. */
void rank_check(rank_run *run, bool ok, const char *what, const char *file, int line);

#define RANK_CHECK(run, ok) rank_check((run), (ok), #ok, __FILE__, __LINE__)
#define RANK_STATUS(run, expected, actual)                                                         \
    rank_check_status((run), (expected), (actual), __FILE__, __LINE__)

void rank_check_status(rank_run *run, tsr_status expected, tsr_status actual, const char *file,
                       int line);

/* What a test program exits with that has nothing to run on. */
enum { RANKS_SKIPPED = 77 };

/* Reads the backend from the command line; for mpi joins a group that is held to the end, since MPI
 * starts only once. Exits with RANKS_SKIPPED where there are not two GPUs for `cuda`. */
bool ranks_begin(int argc, char **argv);

/* A process whose peers still run must not be the first to fail: leaves MPI in order. */
void ranks_end(void);

bool ranks_are_local(void);
bool ranks_have_cards(void);

bool rank_is_last(const rank_run *run);

/* Collective. The last rank goes on when all have come this far, so that what it does meets them
 * later. */
void rank_last_after_all(rank_run *run);

/* Stays out of the group until it has ended, and says why. */
tsr_status rank_until_the_end(const rank_run *run);

/* Runs `body` on all ranks of new groups, of 1, 2, 3, 4 and 8 for local, opened with the deadline;
 * fails the test when a check did. */
void ranks_run(int32_t deadline_ms, rank_body body);

/* The same where at least two ranks are needed, in fewer groups. */
void ranks_run_several(int32_t deadline_ms, rank_body body);

#endif
