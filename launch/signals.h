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
#ifndef TSR_LAUNCH_SIGNALS_H
#define TSR_LAUNCH_SIGNALS_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stdint.h>

void tsr_signals_watch(void);

/*
 * How this process ends when it is asked to.
 *
 *   loud    says at once which signal has come; the launcher sends it to every rank, and one line
 *           is enough
 *   keeps   has something to keep
 */
void tsr_signals_be(bool loud, bool keeps);

/* Nothing is left to do but to go: from here on a signal ends the process with `code`, in silence, and
 * but for SIGINT after a moment, which is rank 0's. */
void tsr_signals_leave(int code);

/* Nonzero: drain. */
const volatile int *tsr_signals_drain(void);

#endif
