/*
 * A limit for calls that have none: starting and ending MPI wait for every process of the job, and
 * nothing can take them back. When the time is up this process ends, with a line that says in what
 * it waited, and the launcher ends the others.
 */
#ifndef TSR_COMM_MPI_GUARD_H
#define TSR_COMM_MPI_GUARD_H

#include "comm/roll_call.h"
#include "runtime/base/status.h"

#include <stdint.h>

typedef struct tsr_mpi_guard tsr_mpi_guard;

typedef struct tsr_mpi_guarded {
    const char *what; /* the call, for the message; outlives the guard */
    int32_t limit_ms;
    tsr_status cause; /* the process exits with its code */
} tsr_mpi_guarded;

/*
 * Answers for this process as long as it guards. In the end the first of those who are there names
 * those who are not, and leaves; the others give the launcher a moment to end them.
 *
 *   roll_call  NULL: nobody can be named
 *
 * TSR_ERR_MEMORY, logged: no thread starts
 */
TSR_MUST_USE tsr_status tsr_mpi_guard_start(const tsr_mpi_guarded *guarded,
                                            tsr_roll_call *roll_call, tsr_mpi_guard **ret_guard);

/* The call has returned. */
void tsr_mpi_guard_stop(tsr_mpi_guard *guard);

#endif
