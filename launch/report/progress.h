/* Loading progress on stderr: one line that is rewritten on a terminal, one line per tenth or 10 s
 * elsewhere. */
#ifndef TSR_LAUNCH_REPORT_PROGRESS_H
#define TSR_LAUNCH_REPORT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_progress {
    bool terminal;
    int64_t start_ns;
    int64_t last_ns;
    int32_t last_tenth;
} tsr_progress;

/* Starts the clock. */
tsr_progress tsr_progress_start(void);

/* `context` is a tsr_progress; fits tsr_load_progress. */
void tsr_progress_report(void *context, uint64_t bytes, uint64_t total);

#endif
