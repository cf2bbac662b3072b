/*
 * Starts the engine of a gateway, and starts it again when it dies.
 *
 *   gateway --fork--> [mpirun -n N] tessera serve DIR ... --engine-socket NAME
 *      |                                 |
 *      +---- abstract Unix socket <------+  rank 0 connects
 *
 * An engine that dies is started again, sooner the first time than the next, until it has died too
 * often within a while; one that refuses its checkpoint or its command line before it was ever ready
 * would refuse it again. One that says nothing for too long is killed.
 */
#ifndef TSR_LAUNCH_SERVE_SUPERVISOR_H
#define TSR_LAUNCH_SERVE_SUPERVISOR_H

#include "launch/link/engine_link.h"

typedef struct tsr_supervisor tsr_supervisor;

typedef struct tsr_supervisor_args {
    struct event_base *base; /* borrowed, as all of this is */
    tsr_engine_link *link;
    char *const *arguments; /* of this program, NULL behind the last; the engine gets them too */
    const char *hostfile;   /* NULL: this host */
    int32_t ranks;          /* by mpirun; 0: the engine is one process */
    int32_t restarts;       /* within restart_ms, before it gives up */
    int32_t restart_ms;
    int32_t silence_ms; /* of a ready engine, after which it is taken for dead */
    /* The engine has gone for good: as it was told to (TSR_OK), or with the exit code `code`. */
    void (*over)(void *context, int code, const char *why);
    void *context;
} tsr_supervisor_args;

/* Starts the first engine. TSR_ERR_MEMORY; TSR_ERR_BIND, TSR_ERR_INTERNAL, logged */
TSR_MUST_USE tsr_status tsr_supervisor_open(const tsr_supervisor_args *args,
                                            tsr_supervisor **ret_supervisor);

/* No engine is started from here on: the one that is there was told to go. */
void tsr_supervisor_let_go(tsr_supervisor *supervisor);

/* Kills what is left of the engine. NULL is allowed. */
void tsr_supervisor_close(tsr_supervisor *supervisor);

/* The gateway's end of it, for rank 0: TSR_ERR_PEER, logged: nobody listens under this name. */
TSR_MUST_USE tsr_status tsr_supervisor_connect(const char *name, int *ret_fd);

#endif
