/*
 * Messages between the processes of an MPI job, without MPI's types: what comm_mpi.c provides and
 * mpi_calls.c builds the calls of a group from.
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

/* comm_mpi.c */

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

/* mpi_calls.c: the table's entries, and a meeting with nothing behind it. */

tsr_status tsr_mpi_meet(tsr_mpi_world *w, tsr_call call);
tsr_status tsr_mpi_barrier(tsr_comm *comm);
tsr_status tsr_mpi_broadcast(tsr_comm *comm, int32_t root, void *data, size_t bytes);
tsr_status tsr_mpi_gather(tsr_comm *comm, int32_t root, const void *send, const size_t *bytes_of,
                          void *recv);
tsr_status tsr_mpi_exchange_open(tsr_comm *comm, const tsr_exchange_shape *shape,
                                 tsr_exchange **ret_exchange);
tsr_status tsr_mpi_dispatch(tsr_exchange *exchange, tsr_stream stream);
tsr_status tsr_mpi_return(tsr_exchange *exchange, tsr_stream stream);
tsr_status tsr_mpi_wait(tsr_exchange *exchange, tsr_stream stream);
void tsr_mpi_exchange_close(tsr_exchange *exchange);

#endif
