/*
 * For `inspect` and `plan` the problems are the answer: all of them go to stdout, where a job logs
 * the first few. An answer that could not be written is an error too: a full disk must not exit
 * with 0.
 */
#include "launch/report/problem_list.h"

#include "runtime/base/log.h"

#include <errno.h>
#include <string.h>

static const char *const severity_names[] = {"note", "warning", "error"};

void tsr_problem_list_print(const tsr_problems *problems, FILE *out)
{
    for (size_t i = 0; i < problems->count; i++)
        (void)fprintf(out, "%s: %s\n", severity_names[problems->items[i].severity],
                      problems->items[i].text);
    if (problems->dropped > 0)
        (void)fprintf(out, "and %zu further problems\n", problems->dropped);
}

json_t *tsr_problem_list_json(const tsr_problems *problems)
{
    json_t *list = json_array();

    for (size_t i = 0; i < problems->count; i++)
        if (json_array_append_new(list, json_pack("{s:s, s:s}", "severity",
                                                  severity_names[problems->items[i].severity],
                                                  "text", problems->items[i].text)) != 0)
            break;
    return list;
}

tsr_status tsr_print_end(FILE *out)
{
    if (fflush(out) == 0 && ferror(out) == 0)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "what was found cannot be written: %s", strerror(errno));
    return TSR_ERR_OUTPUT;
}

tsr_status tsr_json_print(json_t *json, FILE *out)
{
    if (json == NULL)
        return TSR_ERR_MEMORY;
    (void)json_dumpf(json, out, JSON_INDENT(2)); /* what fails here, the stream remembers */
    (void)fputc('\n', out);
    json_decref(json);
    return tsr_print_end(out);
}
