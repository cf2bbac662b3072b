/* A line is put together first and written at once, so that lines of ranks which share a stderr
 * stay whole. Nothing is allocated: what has gone wrong may be memory. */
#include "runtime/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 2048 };

static tsr_log_level max_level = TSR_LOG_INFO;
static tsr_log_sink active_sink;
static void *active_context;
static _Thread_local int32_t thread_rank = -1;
static atomic_bool has_error;

static const char *const level_names[] = {"error", "warning", "info", "debug"};

void tsr_log_set_level(tsr_log_level level)
{
    max_level = level;
}

void tsr_log_set_sink(tsr_log_sink sink, void *context)
{
    active_sink = sink;
    active_context = context;
}

void tsr_log_set_rank(int32_t rank)
{
    thread_rank = rank;
}

bool tsr_log_enabled(tsr_log_level level)
{
    return level <= max_level;
}

/* Names and bytes of files get into messages. */
static void make_one_line(char *line)
{
    for (; *line != '\0'; line++) {
        const unsigned char c = (unsigned char)*line;
        if (c < 0x20 || c == 0x7f)
            *line = '?';
    }
}

void tsr_log(tsr_log_level level, const char *format, ...)
{
    if (!tsr_log_enabled(level))
        return;

    char line[LINE_BYTES];
    int used = 0;
    if (thread_rank >= 0)
        used = snprintf(line, sizeof(line), "[rank %d] ", thread_rank);
    if (level != TSR_LOG_INFO)
        used += snprintf(line + used, sizeof(line) - (size_t)used, "%s: ", level_names[level]);

    va_list args;
    va_start(args, format);
    (void)vsnprintf(line + used, sizeof(line) - (size_t)used, format, args);
    va_end(args);
    make_one_line(line);

    if (active_sink != NULL) {
        active_sink(active_context, level, line);
        return;
    }
    (void)fprintf(stderr, "tessera: %s\n", line);
    if (level == TSR_LOG_ERROR)
        atomic_store(&has_error, true);
}

bool tsr_log_has_error(void)
{
    return atomic_load(&has_error);
}
