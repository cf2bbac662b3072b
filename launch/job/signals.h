/*
 * What signals mean, from the first instruction of main on:
 *
 *   SIGUSR1                    drain: no new requests, finish those that run
 *   SIGHUP, SIGINT, SIGTERM    end at once, with a line and 128 + the signal as exit code
 *
 * A process with nothing to keep ends inside the handler. One that has begun a job is given a
 * moment in which it ends as after any error, so that what was answered is kept, peers are told and
 * files that were made are removed; SIGINT for the second time does not wait for it.
 */
#ifndef TSR_LAUNCH_JOB_SIGNALS_H
#define TSR_LAUNCH_JOB_SIGNALS_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stdint.h>

void tsr_signals_watch(void);

/*
 * Who this process is when it is asked to end.
 *
 *   rank    of a job of processes; -1: the only one. The launcher asks every rank, and one line is
 *           enough: rank 0 says at once which signal has come, another when it ends without having
 *           told the others.
 *   keeps   has something to keep
 */
void tsr_signals_be(int32_t rank, bool keeps);

/* Whether this process says at once which signal has come. */
bool tsr_signals_are_loud(void);

/* Nothing is left to do but to go: from here on a signal ends the process with `code`, in silence, and
 * but for SIGINT after a moment, which is rank 0's. */
void tsr_signals_leave(int code);

/* From here on SIGINT is a word of the user's to this program, and ends nothing; what waits for input is
 * interrupted by it. */
void tsr_signals_take_interrupts(void);

/* Whether one has come since this was last asked. */
bool tsr_signals_interrupted(void);

/*
 * For a read of the user's input. A signal that comes after its word was looked at and before the read
 * would be noticed by neither, so those that end or interrupt are held back from the look on, and come
 * in where input is awaited, and at the end. Held back at most once at a time.
 */
void tsr_signals_hold(void);
void tsr_signals_release(void);

/* Between the two: whether there is input, or its end, on `fd`; false: errno says why, EINTR where one
 * of those signals has come. */
bool tsr_signals_await_input(int fd);

/* True once SIGUSR1 has come. */
bool tsr_signals_drain(void);

#endif
