/*
 * Ranks as processes or as threads; rank_main cannot tell which.
 *
 *   mpirun -n 4         process = rank       a comm each, opened over MPI
 *   --local-ranks 4     thread = rank        4 comms of one group, opened before any thread starts
 *   neither             one thread           the same way, so that it is no case of its own
 *
 * A rank that fails aborts its group before it leaves: nobody waits out a deadline for it. Of
 * several errors the cause counts, not the echo that a peer has gone.
 */
#include "launch/job/ranks.h"

#include "launch/job/signals.h"
#include "runtime/base/ending.h"
#include "runtime/base/log.h"

#include <pthread.h>
#include <stdlib.h>

typedef struct rank_thread {
    tsr_comm *comm;
    tsr_rank_main rank_main;
    void *context;
    tsr_status status;
    pthread_t thread;
    bool named;
} rank_thread;

/* Nobody says that memory has run out where it does, for there are hundreds of places: the process
 * does, in the end, unless something better was said. */
static void say_memory_ran_out(tsr_status st)
{
    if (st == TSR_ERR_MEMORY && !tsr_log_has_error())
        tsr_log(TSR_LOG_ERROR, "%s", tsr_status_text(st));
}

/* Said by the rank whose end is everybody's. */
static void say_why(tsr_comm *comm, tsr_status st)
{
    if (tsr_comm_ender(comm) != tsr_comm_rank(comm))
        return;
    say_memory_ran_out(st);
    if (st == tsr_ending_status() && !tsr_signals_are_loud() && !tsr_log_has_error())
        tsr_log(TSR_LOG_ERROR, "%s", tsr_status_text(st));
}

static tsr_status run_rank(tsr_comm *comm, tsr_rank_main rank_main, void *context)
{
    tsr_status st = rank_main(comm, context);
    if (st != TSR_OK) {
        tsr_comm_abort(comm, st);
        if (tsr_comm_cause(comm) != TSR_OK)
            st = tsr_comm_cause(comm);
        say_why(comm, st);
    }
    return st;
}

static void *thread_main(void *argument)
{
    rank_thread *t = argument;

    tsr_log_set_rank(t->named ? tsr_comm_rank(t->comm) : -1);
    t->status = run_rank(t->comm, t->rank_main, t->context);
    tsr_comm_close(t->comm);
    return NULL;
}

/* The first cause; TSR_ERR_PEER is only its echo. */
static tsr_status worse(tsr_status a, tsr_status b)
{
    if (a == TSR_OK || (a == TSR_ERR_PEER && b != TSR_OK))
        return b;
    return a;
}

/* Every thread runs to its end, also when a later one cannot be started: its comm is aborted. */
static tsr_status run_threads(int32_t ranks, rank_thread *threads)
{
    tsr_status st = TSR_OK;
    int32_t started = 0;

    for (; started < ranks; started++) {
        if (pthread_create(&threads[started].thread, NULL, thread_main, &threads[started]) != 0) {
            tsr_log(TSR_LOG_ERROR, "cannot start a thread for rank %d", started);
            st = TSR_ERR_MEMORY;
            break;
        }
    }
    for (int32_t r = started; r < ranks; r++) {
        tsr_comm_abort(threads[r].comm, st);
        tsr_comm_close(threads[r].comm);
    }
    for (int32_t r = 0; r < started; r++) {
        (void)pthread_join(threads[r].thread, NULL);
        st = worse(st, threads[r].status);
    }
    return st;
}

static tsr_status run_local(const tsr_config *config, tsr_rank_main rank_main, void *context)
{
    const int32_t ranks = config->local_ranks > 0 ? (int32_t)config->local_ranks : 1;
    rank_thread *threads = calloc((size_t)ranks, sizeof(*threads));
    tsr_comm **members = calloc((size_t)ranks, sizeof(tsr_comm *));
    tsr_status st = threads != NULL && members != NULL ? TSR_OK : TSR_ERR_MEMORY;

    if (st == TSR_OK)
        st = tsr_comm_open_local(ranks, (int32_t)config->init_timeout * 1000, members);
    if (st == TSR_OK) {
        for (int32_t r = 0; r < ranks; r++)
            threads[r] = (rank_thread){
                .comm = members[r], .rank_main = rank_main, .context = context, .named = ranks > 1};
        st = run_threads(ranks, threads);
    }
    say_memory_ran_out(st);
    free(members);
    free(threads);
    return st;
}

/* Too few (or many) were started, or those that were do not find each other. */
static void say_other_size(const tsr_launch_info *info, int32_t expected, int32_t ranks)
{
    const char *verb = ranks == 1 ? "is" : "are";
    const char *plural = ranks == 1 ? "" : "s";

    if (info->size == expected)
        tsr_log(
            TSR_LOG_ERROR,
            "--expect-world-size %d: there %s %d rank%s: %s says that %d were started, but they "
            "do not find each other; start them with the mpirun of this program's MPI, or srun "
            "--mpi=pmix",
            expected, verb, ranks, plural, info->size_name, info->size);
    else
        tsr_log(
            TSR_LOG_ERROR,
            "--expect-world-size %d: there %s %d rank%s, for so many were started; check mpirun "
            "-n and the slots of its hosts, srun -n, or --ranks",
            expected, verb, ranks, plural);
}

/*
 * Processes that a launcher started together, but that do not find each other, would each do all
 * of the work and write the same files. One of them says so.
 */
tsr_status tsr_ranks_check_size(const tsr_config *config, const tsr_launch_info *info,
                                int32_t ranks)
{
    const int32_t expected = (int32_t)config->expect_world_size;

    if (expected > 0 && ranks != expected) {
        if (info->rank == 0)
            say_other_size(info, expected, ranks);
        return TSR_ERR_INIT;
    }
    const int32_t processes = info->mpi ? ranks : 1;
    if (expected > 0 || info->size <= processes)
        return TSR_OK;
    if (info->rank == 0)
        tsr_log(TSR_LOG_ERROR,
                "%s says that there are %d processes, but MPI finds %d: start them with mpirun or "
                "srun --mpi=pmix; --expect-world-size 1 lets this one work alone",
                info->size_name, info->size, processes);
    return TSR_ERR_INIT;
}

tsr_status tsr_ranks_run(const tsr_config *config, const tsr_launch_info *info,
                         tsr_rank_main rank_main, void *context)
{
    tsr_comm *comm = NULL;
    tsr_status st = TSR_OK;

    if (!info->mpi) {
        st = tsr_ranks_check_size(config, info,
                                  config->local_ranks > 0 ? (int32_t)config->local_ranks : 1);
        if (st != TSR_OK)
            return st;
        tsr_signals_be(-1, true);
        return run_local(config, rank_main, context);
    }
    const tsr_launched launched = {.job = info->job,
                                   .size = info->size,
                                   .local_rank = info->local_rank,
                                   .local_size = info->local_size};
    st = tsr_comm_open_mpi((int32_t)config->init_timeout * 1000, &launched, &comm);
    say_memory_ran_out(st);
    if (st != TSR_OK)
        return st;
    if (tsr_comm_size(comm) > 1)
        tsr_log_set_rank(tsr_comm_rank(comm));
    st = tsr_ranks_check_size(config, info, tsr_comm_size(comm));
    if (st != TSR_OK) {
        tsr_comm_close(comm); /* all find the same, and none has to hear it */
        return st;
    }
    tsr_signals_be(tsr_comm_size(comm) > 1 ? tsr_comm_rank(comm) : -1, true);
    st = run_rank(comm, rank_main, context);
    if (st != TSR_OK) {
        tsr_signals_leave(tsr_status_exit_code(st));
        tsr_comm_stay_behind(comm);
    }
    tsr_signals_be(tsr_comm_size(comm) > 1 ? tsr_comm_rank(comm) : -1, false);
    tsr_comm_close(comm);
    return st;
}
