/* What a step has to read, counted from the plan and from what was routed. */
#ifndef TSR_LAUNCH_BENCH_BENCH_BYTES_H
#define TSR_LAUNCH_BENCH_BENCH_BYTES_H

#include "launch/bench/bench_run.h"

typedef struct tsr_bench_bytes {
    uint64_t weights; /* each once a step, routed experts once a round, those that rows came for */
    uint64_t kv;      /* keys and values of every position of every sequence, once */
    double experts;   /* read in a layer that has them, on average */
} tsr_bench_bytes;

/* Of rank 0, in the step of the case that was counted. */
tsr_bench_bytes tsr_bench_bytes_of(const tsr_plan *plan, const tsr_bench_cases *cases,
                                   const tsr_bench_case *c, const tsr_bench_result *result);

#endif
