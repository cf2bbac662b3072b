/*
 * Who of a job's processes on this host is there, asked beside MPI: starting and ending MPI wait for
 * every process of the job, and cannot say for whom.
 *
 *   rank 0  "tessera.JOB.0" <--- asks, answers ---> "tessera.JOB.2"  rank 2
 *
 * Each process has a socket whose name is no file, so that nothing is left behind. One that is
 * stopped has a name and does not answer.
 */
#ifndef TSR_COMM_ROLL_CALL_H
#define TSR_COMM_ROLL_CALL_H

#include "comm/comm.h"

#include <stdbool.h>

typedef struct tsr_roll_call tsr_roll_call;

/* NULL, and nobody can be named, where the launcher does not say enough. */
tsr_roll_call *tsr_roll_call_open(const tsr_launched *launched);

/* Answers those who have asked; never waits. NULL is allowed. */
void tsr_roll_call_answer(tsr_roll_call *call);

/* What asking everybody has shown. */
typedef struct tsr_roll {
    bool first;     /* of those who are there, this process is the first */
    char text[256]; /* "rank 2", "ranks 1, 3", "processes 1, 3 of host n4", or that others must be
                       missing */
} tsr_roll;

/* Asks, and waits a moment for answers, giving its own meanwhile. NULL is allowed. */
tsr_roll tsr_roll_call_ask(tsr_roll_call *call);

/* Whether the process of a rank has ended: its name is gone. False where ranks are on several hosts,
 * for it may be on another. Never waits; NULL is allowed. */
bool tsr_roll_call_has_left(const tsr_roll_call *call, int32_t rank);

void tsr_roll_call_close(tsr_roll_call *call);

#endif
