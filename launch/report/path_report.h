/*
 * What is computed, and in what: a line for each group of modules, format and treatment of
 * activations, with its layers, and the reason wherever activations are not as declared.
 */
#ifndef TSR_LAUNCH_REPORT_PATH_REPORT_H
#define TSR_LAUNCH_REPORT_PATH_REPORT_H

#include "runtime/plan/plan_build.h"

#include <stdio.h>

/* `request` is what the plan was built for. */
void tsr_path_report_print(const tsr_plan *plan, const tsr_plan_request *request, FILE *out);

/*
 * How one linear is computed: "weights only (W4A16), because h200 has no FP4 tensor cores".
 */
void tsr_path_describe(const tsr_linear_plan *linear, const tsr_plan_request *request,
                       size_t capacity, char *ret_text);

#endif
