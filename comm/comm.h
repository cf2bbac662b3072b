/*
 * How ranks talk: few bytes between hosts, waited for at once. How rows travel is exchange.h.
 * Neither knows what a token, an expert or a model is.
 *
 * Rules that hold for every function marked collective, here and there:
 *
 *   Collective   Every rank of the group calls it, in the same order, with matching arguments; a
 *                rank with nothing to send takes part all the same.
 *   Bounded      No call waits for a peer longer than the deadline, and
 *                a little more where the peer may itself be waiting for another.
 *   Final        After the first error the group is spent: a call that fails has aborted it, peers
 *                get TSR_ERR_PEER, what is left is to close it. The rank that first decides logs
 *                which operation and peer.
 *   In turn      What an exchange has started is waited for before the next call on the group,
 *                which is otherwise TSR_ERR_ARG, logged with the names of both.
 *
 * A tsr_comm is owned by whoever opened it and used by one thread at a time.
 */
#ifndef TSR_COMM_COMM_H
#define TSR_COMM_COMM_H

#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tsr_comm tsr_comm;

int32_t tsr_comm_rank(const tsr_comm *comm);
int32_t tsr_comm_size(const tsr_comm *comm);

/* "local", "mpi". */
const char *tsr_comm_name(const tsr_comm *comm);

/* The longest wait: what the group was opened with, or was given since. */
int32_t tsr_comm_deadline_ms(const tsr_comm *comm);

/* The longest wait from now on, at least 1 ms. Every rank gives the same, at the same place. */
void tsr_comm_set_deadline(tsr_comm *comm, int32_t deadline_ms);

/*
 * Opens a group whose ranks are threads of this process: the reference backend.
 *
 *   ranks        1..1024
 *   deadline_ms  longest wait inside any later call
 *   ret_members  [ranks] written only on success; each is closed by its owner
 *
 * TSR_ERR_ARG, TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_comm_open_local(int32_t ranks, int32_t deadline_ms,
                                            tsr_comm **ret_members);

/* A process among those that a launcher has started. */
typedef struct tsr_launched {
    const char *job;    /* its name, the same for all of them and no other's; NULL: not known */
    int32_t size;       /* processes of the job */
    int32_t local_rank; /* among those of this host; -1: not known */
    int32_t local_size; /* how many they are; 0: not known */
} tsr_launched;

/*
 * Joins the MPI world (MPI_Init_thread if nobody has). Collective over all processes of the job.
 *
 * Closing the last group finalizes MPI if this call initialised it, except after an abort: MPI
 * cannot be finalized without every peer, so such a process just ends, with the exit code of
 * tsr_comm_cause, and the launcher ends the others.
 *
 * Starting and ending MPI cannot be given up: a process that waits in them for longer than the
 * deadline (at least 5 seconds to end) says for whom, and exits.
 *
 *   launched  what the launcher says; NULL: nothing, and who is missing at the start is not named
 *
 * TSR_ERR_INIT  MPI does not start, or was finalized already
 * TSR_ERR_MEMORY, TSR_ERR_TIMEOUT; the cause of a peer that has joined and given up meanwhile
 */
TSR_MUST_USE tsr_status tsr_comm_open_mpi(int32_t deadline_ms, const tsr_launched *launched,
                                          tsr_comm **ret_comm);

/* "Open MPI v4.1.4": the MPI library of this process, started or not. Cut to `capacity`. */
void tsr_comm_mpi_library(size_t capacity, char *ret_name);

/*
 * Collective. `bytes` bytes from `root` to all. The root may return before the others have come.
 *
 * TSR_ERR_ARG, TSR_ERR_TIMEOUT, TSR_ERR_PEER
 * TSR_ERR_MISMATCH  the root sent another number of bytes
 */
TSR_MUST_USE tsr_status tsr_comm_broadcast(tsr_comm *comm, int32_t root, void *data, size_t bytes);

/*
 * Collective. Rank r's bytes_of[r] bytes arrive at `root`, one rank's after the other's.
 *
 *   send      this rank's bytes_of[rank] bytes; NULL when that is 0
 *   bytes_of  [size], the same on every rank
 *   recv      at root: room for the sum; elsewhere ignored
 *
 * TSR_ERR_ARG, TSR_ERR_TIMEOUT, TSR_ERR_PEER
 * TSR_ERR_MISMATCH  a peer sent another number of bytes
 */
TSR_MUST_USE tsr_status tsr_comm_gather(tsr_comm *comm, int32_t root, const void *send,
                                        const size_t *bytes_of, void *recv);

/* Collective. TSR_ERR_ARG, TSR_ERR_TIMEOUT, TSR_ERR_PEER
 * TSR_ERR_MISMATCH  a peer is at another call */
TSR_MUST_USE tsr_status tsr_comm_barrier(tsr_comm *comm);

/*
 * Gives up on behalf of this rank: every peer's pending and later calls end with TSR_ERR_PEER, and
 * the job will end with `cause`'s exit code, whichever rank exits first. Never waits for a peer.
 */
void tsr_comm_abort(tsr_comm *comm, tsr_status cause);

/* The cause of the first abort in the group, as far as this rank has heard of it; TSR_OK when
 * none. */
tsr_status tsr_comm_cause(tsr_comm *comm);

/* The rank of that abort, as far as this rank has heard of it; -1 when there was none. */
int32_t tsr_comm_ender(const tsr_comm *comm);

/*
 * After an abort, on ranks other than 0: waits until rank 0 has closed its part, as long as that may
 * take a rank that is not lost, and for the launcher then to end this process. Launchers end a job
 * with the first process that leaves, and rank 0 may have something to write.
 */
void tsr_comm_stay_behind(tsr_comm *comm);

/*
 * Releases this rank's part; close its exchanges first. NULL is allowed. Collective for `mpi`, not
 * for `local`; never waits beyond the deadline.
 *
 * While an exchange has not been waited for, this ends the group and releases nothing: the comm is
 * there to be closed again after the exchange.
 */
void tsr_comm_close(tsr_comm *comm);

#endif
