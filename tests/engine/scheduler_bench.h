/* A scheduler over simulated ranks, a step at a time. */
#ifndef TSR_TESTS_ENGINE_SCHEDULER_BENCH_H
#define TSR_TESTS_ENGINE_SCHEDULER_BENCH_H

#include "tests/engine/sim.h"

enum { BENCH_OUTPUTS = 160, BENCH_PROMPT = 32 };

/* Zero-initialise. */
typedef struct bench {
    sim sim;
    tsr_scheduler *scheduler;
    void *buffer;
    tsr_step_plan step; /* the last one */
    tsr_output output[BENCH_OUTPUTS];
    int32_t outputs; /* of the last step */
} bench;

extern const int32_t bench_prompt[BENCH_PROMPT];

/* 4 sequences of 32 positions, 16 tokens a step, 32 blocks of 4 positions. */
extern const tsr_engine_limits bench_roomy;

void bench_open(bench *b, int32_t ranks, const tsr_engine_limits *limits,
                tsr_schedule_options options);
void bench_close(bench *b);

/* A greedy request of the first tokens of bench_prompt that no eos ends. */
tsr_request bench_request(uint64_t id, int32_t prompt_tokens, int32_t max_tokens);

/* It is not refused. */
void bench_submit(bench *b, tsr_request request, int64_t now);

/* Plans a step and follows it; then takes what came of it; both. */
void bench_plan(bench *b);
void bench_absorb(bench *b, int64_t now);
void bench_step(bench *b);

/* Runs what was submitted to its end; the ids in the order in which they ended. */
void bench_run(bench *b, uint64_t *ended);

/* Of the last step, without blocks. */
void bench_entry_is(const bench *b, uint32_t index, tsr_step_entry expected);

#endif
