/* One word, which a handler may write at any time. */
#include "runtime/base/ending.h"

#include <signal.h>
#include <stdatomic.h>

static atomic_int asked;

void tsr_ending_ask(int signal_number)
{
    int nobody = 0;
    (void)atomic_compare_exchange_strong(&asked, &nobody, signal_number);
}

tsr_status tsr_ending_status(void)
{
    switch (atomic_load_explicit(&asked, memory_order_relaxed)) {
    case 0:
        return TSR_OK;
    case SIGHUP:
        return TSR_ERR_HANGUP;
    case SIGINT:
        return TSR_ERR_INTERRUPT;
    default:
        return TSR_ERR_TERMINATED;
    }
}
