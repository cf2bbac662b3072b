/*
 * Messages between the processes of an MPI job, without MPI's types.
 *
 *   comm_mpi   exchange_mpi    control and rows, built from
 *       |   \  /    |
 *       |  mpi_meeting         every rank at the same call, and
 *       |   /      |
 *   mpi_world --- mpi_notes    messages, and what is said beside them: who gives up, who is there
 */
#ifndef TSR_COMM_MPI_WORLD_H
#define TSR_COMM_MPI_WORLD_H

#include "comm/call.h"
#include "comm/comm_ops.h"

/* Messages that were started and have not finished. Who starts them owns the list: those of an
 * exchange that is under way are on no other's. */
typedef struct tsr_mpi_requests tsr_mpi_requests;

/* On which ranks tell each other what no call of theirs does: mpi_notes.h. */
typedef struct tsr_mpi_notes tsr_mpi_notes;

/* MPI's communicator for everything but notes. */
typedef struct tsr_mpi_lane tsr_mpi_lane;

/* Every rank at the same call: mpi_meeting.h. */
typedef struct tsr_mpi_meeting tsr_mpi_meeting;

/* What a message is part of, so that none is taken for another. */
typedef enum tsr_mpi_tag {
    TSR_MPI_GREETING = 1,
    TSR_MPI_BROADCAST,
    TSR_MPI_GATHER,
    TSR_MPI_SLOT_RANKS,
    TSR_MPI_ROWS,
    TSR_MPI_ANSWERS,
} tsr_mpi_tag;

/* What a rank says when it is asked whether it is there. */
typedef enum tsr_mpi_presence {
    TSR_SILENT, /* nothing */
    TSR_BUSY,   /* yes, between two calls on the group */
    TSR_WAITS,  /* yes, in a call */
} tsr_mpi_presence;

typedef struct tsr_mpi_world {
    tsr_comm base; /* first member */
    tsr_mpi_lane *work;
    tsr_mpi_notes *notes;
    tsr_mpi_meeting *meeting;   /* of control calls */
    tsr_mpi_requests *flow;     /* of broadcasts and gathers */
    int32_t *missing;           /* [size] scratch for messages */
    tsr_mpi_presence *presence; /* [size] answers to the last question */
    uint64_t questions;         /* asked so far */
    uint64_t end_meeting;       /* that the end which was heard is about */
    bool root_lost;             /* rank 0 is among those for whom the group has ended */
    bool root_gone;             /* rank 0 has closed its part after an end */
    int64_t ending_ms;          /* when this process was found to be asked to end; 0: it was not */
    uint64_t meetings;          /* begun so far */
    uint64_t disagreed;         /* the meeting in which ranks were found to disagree; 0: none */
    tsr_status cause;           /* of the end of this group; TSR_OK: alive */
    int32_t ender;              /* the rank of that cause */
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
                                           const tsr_launched *launched, tsr_mpi_world **ret_world);

/*
 * Collective. Takes communicators of our own and begins to listen for notes. Before it, messages
 * pass but nobody can be told of an end. TSR_ERR_TIMEOUT, TSR_ERR_PEER
 */
TSR_MUST_USE tsr_status tsr_mpi_world_connect(tsr_mpi_world *w);

/* Collective after a last meeting, and then frees everything but the meeting and the flow; after an
 * abort it only gives the notes a moment to leave. */
void tsr_mpi_world_close(tsr_mpi_world *w);

/* TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_mpi_requests_open(tsr_mpi_requests **ret_list);

/* NULL is allowed. A list on which MPI still holds messages is left to the end of the process; so is
 * the memory they go from and to, by whoever asks tsr_mpi_is_pending. */
void tsr_mpi_requests_close(tsr_mpi_requests *list);

/* From now on came_ns[r] is when the last message of rank r on the list came. Borrowed. */
void tsr_mpi_requests_time(tsr_mpi_requests *list, int64_t *came_ns);

/* The messages that are now started on the list are greetings of the next meeting, whose number it
 * returns. */
uint64_t tsr_mpi_requests_greet(tsr_mpi_world *w, tsr_mpi_requests *list);

typedef struct tsr_mpi_message {
    int32_t peer;
    tsr_mpi_tag tag;
    size_t bytes;
    const void *from; /* to send, or */
    void *into;       /* to receive */
} tsr_mpi_message;

/* Starts a message; none when it is empty, which both sides know. TSR_ERR_MEMORY, TSR_ERR_PEER */
TSR_MUST_USE tsr_status tsr_mpi_start(const tsr_mpi_world *w, tsr_mpi_requests *list,
                                      const tsr_mpi_message *m);

/*
 * Waits for all messages of a list. Before the deadline every rank is asked whether it is there, and
 * those who do not answer are named.
 *
 * TSR_ERR_TIMEOUT, TSR_ERR_PEER
 * TSR_ERR_MISMATCH  a peer sent another number of bytes
 */
TSR_MUST_USE tsr_status tsr_mpi_finish(tsr_mpi_world *w, tsr_mpi_requests *list,
                                       const tsr_call *call, int64_t deadline);

bool tsr_mpi_is_pending(const tsr_mpi_requests *list);

/* Whether a message to or from this rank has not finished. */
bool tsr_mpi_waits_for(const tsr_mpi_requests *list, int32_t rank);

/* Leaves the core to others, after some turns for a while. */
void tsr_mpi_rest(int32_t turns);

/* The time at which a call that begins now gives up. */
int64_t tsr_mpi_deadline(const tsr_mpi_world *w);

#endif
