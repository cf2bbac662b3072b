/* Catches what a test logs, so that it can be read and does not clutter the output. */
#ifndef TSR_TESTS_LOG_LINES_H
#define TSR_TESTS_LOG_LINES_H

#include "runtime/base/log.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Zero-initialise; catch with tsr_log_set_sink(log_lines_catch, &lines). */
typedef struct log_lines {
    char text[16384]; /* every line, one after the other; what does not fit is dropped */
    size_t used;
} log_lines;

static pthread_mutex_t log_lines_lock = PTHREAD_MUTEX_INITIALIZER;

static inline void log_lines_catch(void *context, tsr_log_level level, const char *line)
{
    log_lines *lines = context;
    (void)level;

    pthread_mutex_lock(&log_lines_lock);
    const size_t left = sizeof(lines->text) - lines->used;
    const int wrote = snprintf(lines->text + lines->used, left, "%s\n", line);
    if (wrote > 0 && (size_t)wrote < left)
        lines->used += (size_t)wrote;
    pthread_mutex_unlock(&log_lines_lock);
}

static inline void log_lines_clear(log_lines *lines)
{
    lines->used = 0;
    lines->text[0] = '\0';
}

static inline bool log_lines_say(const log_lines *lines, const char *what)
{
    return strstr(lines->text, what) != NULL;
}

/* How many times. */
static inline int log_lines_count(const log_lines *lines, const char *what)
{
    int count = 0;

    for (const char *at = strstr(lines->text, what); at != NULL; at = strstr(at + 1, what))
        count++;
    return count;
}

#endif
