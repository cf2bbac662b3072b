/* Monotonic time, for deadlines and durations. */
#ifndef TSR_RUNTIME_BASE_CLOCK_H
#define TSR_RUNTIME_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds since an arbitrary start. */
int64_t tsr_clock_ns(void);

/* Milliseconds since the same start. */
int64_t tsr_clock_ms(void);

#endif
