/* Monotonic throughout: a wall clock that is set back would let a wait outlast its deadline.
 * Conditions wait by the same clock, since a deadline of one clock means nothing to another. */
#include "runtime/base/clock.h"

enum { MS_PER_S = 1000, NS_PER_MS = 1000000, NS_PER_S = 1000000000 };

int64_t tsr_clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t tsr_clock_ms(void)
{
    return tsr_clock_ns() / NS_PER_MS;
}

struct timespec tsr_clock_deadline(int32_t ms)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += ms / MS_PER_S;
    at.tv_nsec += (long)(ms % MS_PER_S) * NS_PER_MS;
    if (at.tv_nsec >= NS_PER_S) {
        at.tv_nsec -= NS_PER_S;
        at.tv_sec++;
    }
    return at;
}

bool tsr_clock_condition(pthread_cond_t *condition)
{
    pthread_condattr_t how;
    if (pthread_condattr_init(&how) != 0)
        return false;
    const bool ok = pthread_condattr_setclock(&how, CLOCK_MONOTONIC) == 0 &&
                    pthread_cond_init(condition, &how) == 0;
    (void)pthread_condattr_destroy(&how);
    return ok;
}
