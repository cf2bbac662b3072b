/* Hostile input can be wrong in a million places, so the list ends at a thousand. Errors take the
 * place of warnings then: a refusal never goes without its reason. */
#include "runtime/base/problems.h"

#include "runtime/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT_MOST = 1000, TEXT_BYTES = 1024 };

/* A refusal is four lines at most: three errors, or two warnings beside what refuses; and how many
 * more there are. */
enum { NOTES_LOGGED = 8, WARNINGS_LOGGED = 2, ERRORS_LOGGED = 3 };

/* Where the next problem goes, or NULL when it is not kept: errors take the place of others. */
static tsr_problem *make_room(tsr_problems *problems, tsr_severity severity)
{
    if (problems->count < KEPT_MOST) {
        tsr_problem *grown =
            realloc(problems->items, (problems->count + 1) * sizeof(*problems->items));
        if (grown == NULL)
            return NULL;
        problems->items = grown;
        return &grown[problems->count++];
    }
    for (size_t i = problems->count; severity == TSR_SEVERITY_ERROR && i > 0; i--) {
        if (problems->items[i - 1].severity == TSR_SEVERITY_ERROR)
            continue;
        free(problems->items[i - 1].text);
        problems->dropped++;
        return &problems->items[i - 1];
    }
    return NULL;
}

void tsr_problems_add(tsr_problems *problems, tsr_severity severity, const char *format, ...)
{
    if (severity == TSR_SEVERITY_ERROR)
        problems->errors++;

    char text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);

    char *copy = strdup(text);
    tsr_problem *place = copy != NULL ? make_room(problems, severity) : NULL;
    if (place == NULL) {
        free(copy);
        problems->dropped++;
        return;
    }
    *place = (tsr_problem){.severity = severity, .text = copy};
}

bool tsr_problems_has_error(const tsr_problems *problems)
{
    return problems->errors > 0;
}

void tsr_problems_log(const tsr_problems *problems)
{
    static const tsr_log_level levels[] = {TSR_LOG_INFO, TSR_LOG_WARN, TSR_LOG_ERROR};
    static const size_t most[] = {NOTES_LOGGED, WARNINGS_LOGGED, ERRORS_LOGGED};

    const bool refused = problems->errors > 0;
    size_t logged[sizeof(levels) / sizeof(levels[0])] = {0};
    size_t left = problems->dropped;

    for (size_t i = 0; i < problems->count; i++) {
        const tsr_problem *problem = &problems->items[i];
        const bool shown = !refused || problem->severity == TSR_SEVERITY_ERROR;
        if (shown && logged[problem->severity]++ < most[problem->severity])
            tsr_log(levels[problem->severity], "%s", problem->text);
        else
            left++;
    }
    if (left > 0)
        tsr_log(refused ? TSR_LOG_ERROR : TSR_LOG_WARN,
                "and %zu further problem%s; tessera plan lists them", left, left > 1 ? "s" : "");
}

void tsr_problems_close(tsr_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        free(problems->items[i].text);
    free(problems->items);
    *problems = (tsr_problems){0};
}
