/*
 * Messages between the processes of an MPI job, without MPI's types.
 *
 *   comm_mpi    opens and closes a group
 *      |
 *   mpi_calls   its calls, built from messages
 *      |
 *   mpi_world   MPI: messages, and notes from ranks that give up
 */
#ifndef TSR_COMM_MPI_WORLD_H
#define TSR_COMM_MPI_WORLD_H

#include "comm/call.h"
#include "comm/comm_ops.h"

/* Messages that were started and have not finished. */
typedef struct tsr_mpi_requests tsr_mpi_requests;

/* Where a rank that gives up is heard. */
typedef struct tsr_mpi_notes tsr_mpi_notes;

/* MPI's communicator for everything but notes. */
typedef struct tsr_mpi_lane tsr_mpi_lane;

/* What one rank tells one other at a meeting; no padding. */
typedef struct tsr_mpi_greeting {
    tsr_call call;
    int32_t rows; /* dispatch: that follow to this peer */
    int32_t unused;
} tsr_mpi_greeting;

typedef struct tsr_mpi_world {
    tsr_comm base;
    tsr_mpi_greeting *mine;   /* [size] */
    tsr_mpi_greeting *theirs; /* [size] */
    tsr_mpi_lane *work;
    tsr_mpi_requests *meeting;
    tsr_mpi_requests *flow;
    tsr_mpi_notes *notes;
    int32_t *missing;   /* [size] scratch for messages */
    uint64_t meetings;  /* begun so far */
    uint64_t disagreed; /* the meeting in which ranks were found to disagree; 0: none */
    tsr_status cause;   /* of the end of this group; TSR_OK: alive */
} tsr_mpi_world;

static inline tsr_mpi_world *tsr_mpi_world_of(tsr_comm *comm)
{
    return (tsr_mpi_world *)(void *)comm;
}

/*
 * Starts MPI if nobody has, and looks around: every process of the job is a rank. Close *ret_world,
 * except when connecting it failed.
 *
 * TSR_ERR_INIT  MPI does not start, or was finalized already
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_mpi_world_open(const tsr_comm_ops *ops, int32_t deadline_ms,
                                           tsr_mpi_world **ret_world);

/*
 * Collective. Takes communicators of our own and begins to listen for notes. Before it, messages
 * pass but nobody can be told of an end. TSR_ERR_TIMEOUT, TSR_ERR_PEER
 */
TSR_MUST_USE tsr_status tsr_mpi_world_connect(tsr_mpi_world *w);

/* Collective after a last meeting, and then frees everything; after an abort it only gives the
 * notes a moment to leave. */
void tsr_mpi_world_close(tsr_mpi_world *w);

/* The table's entries: tells every peer of an end; what this rank has heard of one. */
void tsr_mpi_abort(tsr_comm *comm, tsr_status cause);
tsr_status tsr_mpi_cause(tsr_comm *comm);

typedef struct tsr_mpi_message {
    int32_t peer;
    int tag;
    size_t bytes;
    const void *from; /* to send, or */
    void *into;       /* to receive */
} tsr_mpi_message;

/* Starts a message; none when it is empty, which both sides know. TSR_ERR_MEMORY, TSR_ERR_PEER */
TSR_MUST_USE tsr_status tsr_mpi_start(const tsr_mpi_world *w, tsr_mpi_requests *list,
                                      const tsr_mpi_message *m);

/*
 * Waits for all messages of a list.
 *
 * TSR_ERR_TIMEOUT, TSR_ERR_PEER
 * TSR_ERR_MISMATCH  a peer sent another number of bytes
 */
TSR_MUST_USE tsr_status tsr_mpi_finish(tsr_mpi_world *w, tsr_mpi_requests *list,
                                       const tsr_call *call, int64_t deadline);

bool tsr_mpi_is_pending(const tsr_mpi_requests *list);

/* TSR_ERR_PEER when the group has ended, as far as this rank has heard by now. */
TSR_MUST_USE tsr_status tsr_mpi_listen(tsr_mpi_world *w);

/* The time at which a call that begins now gives up. */
int64_t tsr_mpi_deadline(const tsr_mpi_world *w);

#endif
