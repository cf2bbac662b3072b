/*
 * The one error type. Everything that can fail returns a tsr_status; questions return bool.
 *
 * Who first decides that something failed says so once (log.h or problems.h); who passes a status
 * on is silent. Each status has the exit code a command ends with, documented in
 * docs/operations.md.
 */
#ifndef TSR_RUNTIME_BASE_STATUS_H
#define TSR_RUNTIME_BASE_STATUS_H

#define TSR_MUST_USE __attribute__((warn_unused_result))

/* X(name, exit code, text) */
#define TSR_STATUS_LIST(X)                                                                         \
    X(OK, 0, "ok")                                                                                 \
    X(ERR_INTERNAL, 1, "internal error")                                                           \
    X(ERR_MEMORY, 11, "out of host memory, threads or open files")                                 \
    X(ERR_OUTPUT, 1, "cannot write an output file")                                                \
    X(ERR_ARG, 2, "invalid argument")                                                              \
    X(ERR_CHECKPOINT, 3, "checkpoint invalid or unsupported")                                      \
    X(ERR_CAPACITY, 4, "does not fit")                                                             \
    X(ERR_DEVICE, 5, "hardware or precision not available")                                        \
    X(ERR_INIT, 6, "distributed start failed")                                                     \
    X(ERR_BIND, 7, "cannot bind")                                                                  \
    X(ERR_TIMEOUT, 8, "a peer did not come before the deadline")                                   \
    X(ERR_PEER, 9, "a peer gave up")                                                               \
    X(ERR_MISMATCH, 10, "ranks disagree")                                                          \
    X(ERR_HANGUP, 129, "ended by SIGHUP")                                                          \
    X(ERR_INTERRUPT, 130, "ended by SIGINT")                                                       \
    X(ERR_TERMINATED, 143, "ended by SIGTERM")

typedef enum tsr_status {
#define TSR_STATUS_ENUM(name, code, text) TSR_##name,
    TSR_STATUS_LIST(TSR_STATUS_ENUM)
#undef TSR_STATUS_ENUM
} tsr_status;

/* "ERR_CHECKPOINT"; never NULL. */
const char *tsr_status_name(tsr_status status);

/* "checkpoint invalid or unsupported"; never NULL. */
const char *tsr_status_text(tsr_status status);

/* Of a call of the system that failed with `error`: memory, threads and open files have run out on
 * the machine, and are nobody else's fault; else `otherwise`. */
tsr_status tsr_status_of_error(int error, tsr_status otherwise);

/* Of two things that were tried: the first that failed, but memory that ran out explains whatever
 * else went wrong. */
tsr_status tsr_status_of_two(tsr_status first, tsr_status second);

/* The code a process that ends with this status exits with. */
int tsr_status_exit_code(tsr_status status);

#endif
