/*
 * comm moves rows between ranks. It does not know what a token, an expert or a model is.
 *
 * Rules that hold for every function marked collective:
 *
 *   Collective   Every rank of the group calls it, in the same order, with matching arguments; a
 *                rank with nothing to send takes part all the same.
 *   Bounded      No call waits for a peer longer than the deadline the group was opened with, and
 *                a little more where the peer may itself be waiting for another.
 *   Final        After the first error the group is spent: a call that fails has aborted it, peers
 *                get TSR_ERR_PEER, what is left is to close it. The rank that first decides logs
 *                which operation, mark and peer.
 *
 * A tsr_comm is owned by whoever opened it and used by one thread at a time.
 *
 * An exchange moves each row once to every rank that one of its slots names, and brings one answer
 * row back for every (row, slot):
 *
 *      rank 0                                   rank 1
 *      send_rows[t]  --- once per named rank --> arrived_rows[i], answer_of[i, k]
 *      send_ranks[t, k]                              |  (the caller computes)
 *      returned_rows[t, k] <-- one per (row, slot) - answers[answer_of[i, k]]
 *
 * Buffers belong to the backend, which registers them once; every array below, counts included,
 * lies in the backend's memory, so that on a GPU no host ever reads a count.
 */
#ifndef TSR_COMM_COMM_H
#define TSR_COMM_COMM_H

#include "runtime/base/status.h"
#include "runtime/base/stream.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tsr_comm tsr_comm;
typedef struct tsr_exchange tsr_exchange;

int32_t tsr_comm_rank(const tsr_comm *comm);
int32_t tsr_comm_size(const tsr_comm *comm);

/* "local", "mpi". */
const char *tsr_comm_name(const tsr_comm *comm);

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

/*
 * Joins the MPI world (MPI_Init_thread if nobody has). Collective over all processes of the job.
 *
 * Closing the last group finalizes MPI if this call initialised it, except after an abort: MPI
 * cannot be finalized without every peer, so such a process just ends, with the exit code of
 * tsr_comm_cause, and the launcher ends the others.
 *
 * Starting and ending MPI cannot be given up: a process that waits in them for longer than the
 * deadline, and 10 seconds, says so and exits.
 *
 * TSR_ERR_INIT  MPI does not start, or was finalized already
 * TSR_ERR_MEMORY, TSR_ERR_TIMEOUT; the cause of a peer that has joined and given up meanwhile
 */
TSR_MUST_USE tsr_status tsr_comm_open_mpi(int32_t deadline_ms, tsr_comm **ret_comm);

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

/* Collective. TSR_ERR_TIMEOUT, TSR_ERR_PEER, TSR_ERR_MISMATCH (a peer is at another call) */
TSR_MUST_USE tsr_status tsr_comm_barrier(tsr_comm *comm);

/*
 * Gives up on behalf of this rank: every peer's pending and later calls end with TSR_ERR_PEER, and
 * the job will end with `cause`'s exit code, whichever rank exits first. Never waits for a peer.
 */
void tsr_comm_abort(tsr_comm *comm, tsr_status cause);

/* The cause of the first abort in the group, as far as this rank has heard of it; TSR_OK when
 * none. */
tsr_status tsr_comm_cause(tsr_comm *comm);

/* Releases this rank's part; close its exchanges first. NULL is allowed. Collective for `mpi`, not
 * for `local`; never waits beyond the deadline. */
void tsr_comm_close(tsr_comm *comm);

/* The dimensions of an exchange, the same on every rank. */
typedef struct tsr_exchange_shape {
    int32_t max_tokens;      /* most rows a rank sends at once, >= 1 */
    int32_t slots;           /* K, ranks a row may name, >= 1 */
    size_t row_bytes;        /* of a sent row, a multiple of 16, <= 1 GiB */
    size_t return_row_bytes; /* of an answer row, likewise */
} tsr_exchange_shape;

/* Addresses in the backend's memory, fixed for the life of the exchange. */
typedef struct tsr_exchange_buffers {
    void *send_rows;              /* [max_tokens, row_bytes] written before dispatch */
    int32_t *send_ranks;          /* [max_tokens, slots] the rank of each slot, -1: none */
    const void *arrived_rows;     /* [arrived_capacity, row_bytes] in order of (source rank, row) */
    const int32_t *arrived_count; /* [1] */
    const int32_t
        *answer_of; /* [arrived_capacity, slots] index into answers, -1: not this rank's slot */
    const int32_t *answer_count; /* [1] */
    void *answers;               /* [answer_capacity, return_row_bytes] written before return */
    const void *returned_rows;   /* [max_tokens, slots, return_row_bytes] read after return; rows of
                                    slots that name no rank are undefined */
    int32_t arrived_capacity;    /* size * max_tokens */
    int32_t answer_capacity;     /* size * max_tokens * slots */
} tsr_exchange_buffers;

/* Which step and which exchange of it: shown in messages, and compared between peers. */
typedef struct tsr_exchange_mark {
    uint64_t step;
    int32_t stage;
} tsr_exchange_mark;

/* Bytes that an exchange of this shape takes on each rank with the backend that takes most; the
 * plan counts with it. */
uint64_t tsr_exchange_bytes(const tsr_exchange_shape *shape, int32_t ranks);

/*
 * Collective. Allocates and registers every buffer. Close before the comm.
 *
 * TSR_ERR_ARG (also when an index would not fit 31 bits), TSR_ERR_MEMORY, TSR_ERR_TIMEOUT,
 * TSR_ERR_PEER
 * TSR_ERR_MISMATCH  a peer gave another shape
 */
TSR_MUST_USE tsr_status tsr_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                          tsr_exchange **ret_exchange);

tsr_exchange_buffers tsr_exchange_buffers_of(const tsr_exchange *exchange);

/*
 * Collective. Starts sending the first `tokens` rows; ordered after what is on the stream. The
 * arrived_ and answer_ arrays hold once tsr_exchange_wait has returned (on a GPU: for work put on
 * the stream later).
 *
 * TSR_ERR_ARG (tokens beyond max_tokens, a rank beyond size), TSR_ERR_TIMEOUT, TSR_ERR_PEER,
 * TSR_ERR_MISMATCH (a peer is at another mark)
 */
TSR_MUST_USE tsr_status tsr_exchange_dispatch(tsr_exchange *exchange, int32_t tokens,
                                              tsr_exchange_mark mark, tsr_stream stream);

/* Collective, after a dispatch. Starts sending every answer row back. Errors as above. */
TSR_MUST_USE tsr_status tsr_exchange_return(tsr_exchange *exchange, tsr_stream stream);

/*
 * Finishes what the last dispatch or return started, within the deadline. Between starting and
 * waiting the caller may compute on anything but the exchange's buffers.
 */
TSR_MUST_USE tsr_status tsr_exchange_wait(tsr_exchange *exchange, tsr_stream stream);

/* Closing what was started and not waited for aborts the group. NULL is allowed. */
void tsr_exchange_close(tsr_exchange *exchange);

#endif
