/*
 * What a bench measures, a case a row:
 *
 *   --batch 1,8          decode   1 sequence, then 8, at --context positions each
 *   --prefill 4096,8x2048  prefill  a prompt of 4096 ids, then 8 of 2048, each row in one step
 *
 * and what that asks of the plan.
 */
#ifndef TSR_LAUNCH_BENCH_BENCH_CASES_H
#define TSR_LAUNCH_BENCH_BENCH_CASES_H

#include "launch/cli/config.h"
#include "launch/job/job.h"

enum { TSR_BENCH_MOST_CASES = 32 };

/* Steps of a decode case that are not timed: the device records such a step the second time, for
 * each of two flights, and one step is counted instead. */
enum { TSR_BENCH_WARM_STEPS = 8 };

typedef struct tsr_bench_case {
    bool decode;
    int32_t prompts;       /* sequences, over all ranks */
    int32_t prompt_tokens; /* of each */
} tsr_bench_case;

typedef struct tsr_bench_cases {
    tsr_bench_case of[TSR_BENCH_MOST_CASES];
    int32_t count;
    int32_t context; /* of a decode case in the middle of its timed steps */
    int32_t steps;   /* timed, of a decode case */
} tsr_bench_cases;

/* TSR_ERR_ARG, logged */
TSR_MUST_USE tsr_status tsr_bench_cases_read(const tsr_config *config, tsr_bench_cases *ret_cases);

/* Limits with which every case runs as it is meant on so many ranks. TSR_ERR_ARG, logged: more
 * positions than the model has */
TSR_MUST_USE tsr_status tsr_bench_needs(const tsr_bench_cases *cases, const tsr_config *config,
                                        const tsr_model_facts *model, int32_t ranks,
                                        tsr_job_needs *ret_needs);

/* Whether they do in this plan. TSR_ERR_ARG, TSR_ERR_CAPACITY, logged */
TSR_MUST_USE tsr_status tsr_bench_cases_check(const tsr_bench_cases *cases, const tsr_plan *plan);

#endif
