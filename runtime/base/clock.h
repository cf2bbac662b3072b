/* Monotonic time, for deadlines and durations. */
#ifndef TSR_RUNTIME_BASE_CLOCK_H
#define TSR_RUNTIME_BASE_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* Nanoseconds since an arbitrary start. */
int64_t tsr_clock_ns(void);

/* Milliseconds since the same start. */
int64_t tsr_clock_ms(void);

/* The time `ms` from now, for the timed waits of a condition on this clock. */
struct timespec tsr_clock_deadline(int32_t ms);

/* Initialises a condition whose timed waits no change of the date moves. */
bool tsr_clock_condition(pthread_cond_t *condition);

#endif
