/* Problems as a command prints them. */
#ifndef TSR_LAUNCH_REPORT_PROBLEM_LIST_H
#define TSR_LAUNCH_REPORT_PROBLEM_LIST_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"

#include <jansson.h>
#include <stdio.h>

/* A line each: "error: ..."; nothing when there are none. */
void tsr_problem_list_print(const tsr_problems *problems, FILE *out);

/* [ { "severity", "text" } ], or NULL without memory. */
json_t *tsr_problem_list_json(const tsr_problems *problems);

/* Ends what a command printed: flushes it. TSR_ERR_OUTPUT, and a line that says why, when any of it
 * could not be written. */
TSR_MUST_USE tsr_status tsr_print_end(FILE *out);

/* One object and a line end; TSR_ERR_OUTPUT when it cannot be written. Releases `json`. */
TSR_MUST_USE tsr_status tsr_json_print(json_t *json, FILE *out);

#endif
