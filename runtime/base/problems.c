#include "runtime/base/problems.h"

#include "runtime/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT_MOST = 1000, LOGGED_MOST = 8, TEXT_BYTES = 1024 };

void tsr_problems_add(tsr_problems *problems, tsr_severity severity, const char *format, ...)
{
    if (severity == TSR_SEVERITY_ERROR)
        problems->errors++;

    char text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);

    tsr_problem *grown = NULL;
    if (problems->count < KEPT_MOST)
        grown = realloc(problems->items, (problems->count + 1) * sizeof(*grown));
    if (!grown) {
        problems->dropped++;
        return;
    }
    problems->items = grown;

    char *copy = strdup(text);
    if (!copy) {
        problems->dropped++;
        return;
    }
    problems->items[problems->count++] = (tsr_problem){.severity = severity, .text = copy};
}

bool tsr_problems_has_error(const tsr_problems *problems)
{
    return problems->errors > 0;
}

void tsr_problems_log(const tsr_problems *problems)
{
    static const tsr_log_level levels[] = {TSR_LOG_INFO, TSR_LOG_WARN, TSR_LOG_ERROR};

    size_t logged[sizeof(levels) / sizeof(levels[0])] = {0};
    size_t left = problems->dropped;

    for (size_t i = 0; i < problems->count; i++) {
        const tsr_problem *problem = &problems->items[i];
        if (logged[problem->severity]++ < LOGGED_MOST)
            tsr_log(levels[problem->severity], "%s", problem->text);
        else
            left++;
    }
    if (left > 0)
        tsr_log(problems->errors > 0 ? TSR_LOG_ERROR : TSR_LOG_WARN,
                "and %zu further problems like these; tessera plan lists them", left);
}

void tsr_problems_close(tsr_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        free(problems->items[i].text);
    free(problems->items);
    *problems = (tsr_problems){0};
}
