/* What was measured, as a table or as JSON. */
#ifndef TSR_LAUNCH_BENCH_BENCH_REPORT_H
#define TSR_LAUNCH_BENCH_BENCH_REPORT_H

#include "launch/bench/bench_run.h"

#include <stdio.h>

typedef struct tsr_bench_facts {
    const char *model;  /* the shape's name, or the folder */
    const char *device; /* of rank 0 */
    const tsr_plan *plan;
    const tsr_bench_cases *cases;
    const tsr_bench_run *run;
    double read_bandwidth; /* bytes a second, of rank 0's device */
    uint64_t load_bytes;   /* of the checkpoint's files */
    int64_t load_ns;       /* from the command's start until every rank has its weights */
} tsr_bench_facts;

/* Cases that were not measured, because the job was asked to drain, are left out. TSR_ERR_OUTPUT,
 * logged */
TSR_MUST_USE tsr_status tsr_bench_report(const tsr_bench_facts *facts, bool json, FILE *out);

#endif
