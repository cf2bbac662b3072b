/* On a terminal a line rewrites itself; in a log every line stays, so there is one in ten seconds
 * at most, and the last. */
#include "launch/report/progress.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <stdio.h>
#include <unistd.h>

static const double ns_per_s = 1e9;
static const int64_t redraw_ns = 100000000;
static const int64_t quiet_ns = 10000000000;

tsr_progress tsr_progress_start(void)
{
    const int64_t now = tsr_clock_ns();
    return (tsr_progress){.terminal = isatty(STDERR_FILENO), .start_ns = now, .last_ns = now};
}

void tsr_progress_report(void *context, uint64_t bytes, uint64_t total)
{
    tsr_progress *p = context;
    const int64_t now = tsr_clock_ns();
    const int32_t tenth = total > 0 ? (int32_t)(bytes * 10 / total) : 10;
    const bool done = bytes >= total;
    const bool due = p->terminal ? now - p->last_ns >= redraw_ns
                                 : tenth > p->last_tenth && now - p->last_ns >= quiet_ns;

    if (!done && !due)
        return;
    p->last_ns = now;
    p->last_tenth = tenth;

    const double seconds = (double)(now - p->start_ns) / ns_per_s;
    const double rate = seconds > 0 ? (double)bytes / seconds : 0;
    const double left = rate > 0 ? (double)(total - bytes) / rate : 0;
    char line[128];
    (void)snprintf(line, sizeof(line), "weights %.1f of %.1f MB, %.2f GB/s, %s%.1f s",
                   (double)bytes / 1e6, (double)total / 1e6, rate / 1e9, done ? "" : "left ",
                   done ? seconds : left);
    if (p->terminal && tsr_log_enabled(TSR_LOG_INFO))
        (void)fprintf(stderr, "\rtessera: %-70s%s", line, done ? "\n" : "");
    else
        tsr_log(TSR_LOG_INFO, "%s", line);
}
