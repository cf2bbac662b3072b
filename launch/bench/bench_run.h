/*
 * Cases as requests: a source that submits the prompts of one case after the other, and a sink that
 * looks at the clock.
 *
 *   decode   prompts ... all have begun | one step counted, one by stages, some to warm up | timed
 *            ... | cancel all
 *   prefill  prompts, one step counted | prompts, by stages | prompts, timed | prompts, timed | ...
 *
 * The engine does the rest as it always does: steps under way at once, recordings, sampling.
 */
#ifndef TSR_LAUNCH_BENCH_BENCH_RUN_H
#define TSR_LAUNCH_BENCH_BENCH_RUN_H

#include "launch/bench/bench_cases.h"
#include "runtime/engine/engine.h"
#include "runtime/model/model.h"

/* What came of a case. */
typedef struct tsr_bench_result {
    int64_t step_ns;       /* median; 0: not measured */
    int32_t tokens;        /* of rank 0 in the step that was counted */
    int64_t *experts;      /* [layers] of rank 0 that were read in it */
    tsr_stage_times times; /* of rank 0 in another step, block after block */
} tsr_bench_result;

typedef struct tsr_bench_run tsr_bench_run;

/* `cases` is borrowed; close it with tsr_bench_run_close. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_bench_run_open(const tsr_bench_cases *cases, const tsr_plan *plan,
                                           uint64_t seed, tsr_bench_run **ret_run);

/* Whose steps are counted; before the first request. */
void tsr_bench_run_use(tsr_bench_run *run, tsr_model *model);

tsr_source tsr_bench_run_source(tsr_bench_run *run);

/* The sink's status is TSR_ERR_INTERNAL, logged, when a request ends before it was measured, or what
 * was measured was no step of the whole case. */
tsr_sink tsr_bench_run_sink(tsr_bench_run *run);

/* Of case `index`; owned by the run. */
const tsr_bench_result *tsr_bench_run_result(const tsr_bench_run *run, int32_t index);

/* NULL is allowed. */
void tsr_bench_run_close(tsr_bench_run *run);

#endif
