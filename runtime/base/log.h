/*
 * One line per event on stderr, rank in front. Nothing is logged at info inside a step.
 *
 * The rank is per thread, so that ranks which are threads of one process are told apart.
 */
#ifndef TSR_RUNTIME_BASE_LOG_H
#define TSR_RUNTIME_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

typedef enum tsr_log_level {
    TSR_LOG_ERROR,
    TSR_LOG_WARN,
    TSR_LOG_INFO,
    TSR_LOG_DEBUG,
} tsr_log_level;

/* Receives each finished line, without a line end. The text is valid during the call only. */
typedef void (*tsr_log_sink)(void *context, tsr_log_level level, const char *line);

/* Lines above `level` are dropped. Call before threads start. */
void tsr_log_set_level(tsr_log_level level);

/* NULL restores stderr. Call before threads start; `context` must outlive the last line. */
void tsr_log_set_sink(tsr_log_sink sink, void *context);

/* The calling thread's rank, shown as "[rank 3]"; negative shows none (the default). */
void tsr_log_set_rank(int32_t rank);

/* True when a line of this level would be written. */
bool tsr_log_enabled(tsr_log_level level);

/* True when a line of TSR_LOG_ERROR was written to stderr: why the process fails has been said. */
bool tsr_log_has_error(void);

__attribute__((format(printf, 2, 3))) void tsr_log(tsr_log_level level, const char *format, ...);

#endif
