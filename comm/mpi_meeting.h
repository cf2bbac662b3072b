/*
 * A meeting of the processes of an MPI group: every rank greets every other with its call, so that
 * all come to the same call or learn who did not. MPI's own collectives would say that somebody is
 * missing, but not who.
 *
 *      rank 0   greet: call, rows that follow --->   theirs[0]
 *               theirs[1]   <--- greet: call, rows   rank 1       meet: all here? all equal?
 *
 * Barrier, open, dispatch and close begin with one. Control calls share one meeting, every exchange
 * has its own.
 */
#ifndef TSR_COMM_MPI_MEETING_H
#define TSR_COMM_MPI_MEETING_H

#include "comm/mpi_world.h"

/* What one rank tells one other at a meeting; no padding. */
typedef struct tsr_mpi_greeting {
    tsr_call call;
    int32_t rows; /* dispatch: that follow to this peer */
    int32_t unused;
} tsr_mpi_greeting;

struct tsr_mpi_meeting {
    tsr_mpi_greeting *mine;   /* [size] */
    tsr_mpi_greeting *theirs; /* [size] */
    tsr_mpi_requests *greetings;
    uint64_t number; /* among the group's, as every rank counts them */
};

/* TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_mpi_meeting_open(int32_t ranks, tsr_mpi_meeting **ret_meeting);

/* NULL is allowed. Left to the end of the process while MPI may still read or write it. */
void tsr_mpi_meeting_close(tsr_mpi_meeting *m);

/* Starts a meeting. `row_first` [size + 1]: a dispatch's; NULL: no rows follow. */
TSR_MUST_USE tsr_status tsr_mpi_greet(tsr_mpi_world *w, tsr_mpi_meeting *m, const tsr_call *call,
                                      const int32_t *row_first);

/*
 * Waits for every rank's greeting, and compares.
 *
 * TSR_ERR_TIMEOUT, TSR_ERR_PEER, TSR_ERR_MISMATCH
 */
TSR_MUST_USE tsr_status tsr_mpi_meet(tsr_mpi_world *w, tsr_mpi_meeting *m, const tsr_call *call,
                                     int64_t deadline);

/* A meeting with nothing behind it. */
TSR_MUST_USE tsr_status tsr_mpi_pass(tsr_mpi_world *w, tsr_mpi_meeting *m, tsr_call call);

#endif
