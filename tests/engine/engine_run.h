/*
 * A checkpoint, its ranks as threads of this process, and an engine over them; with a source that
 * gives a list of requests and a sink that keeps everything that came.
 */
#ifndef TSR_TESTS_ENGINE_ENGINE_RUN_H
#define TSR_TESTS_ENGINE_ENGINE_RUN_H

#include "proto/plan.h"
#include "runtime/base/status.h"
#include "runtime/engine/engine.h"
#include "tests/engine/late_device.h"

#include <stdbool.h>
#include <stdint.h>

enum { RUN_RANKS = 8, RUN_REQUESTS = 12, RUN_TOKENS = 64, RUN_MODEL_LEN = 64 };

/* What came of one request. Zero-initialised: nothing. */
typedef struct run_answer {
    int32_t token[RUN_TOKENS];
    float logprob[RUN_TOKENS];
    int32_t tokens;
    tsr_token_logprob top[RUN_TOKENS][TSR_MOST_TOP]; /* of each token */
    tsr_token_logprob score[RUN_MODEL_LEN];          /* by position in the prompt, from 1 */
    tsr_token_logprob score_top[RUN_MODEL_LEN][TSR_MOST_TOP];
    int32_t scored;
    float *logits; /* [logit_rows, V] */
    int32_t logit_rows;
    tsr_finish finish;
    int32_t ends; /* outputs that ended it */
    int32_t output_tokens;
    char refusal[128];
} run_answer;

/* What the ranks compute on. */
typedef enum run_device {
    RUN_ON_CPU,         /* one step at a time */
    RUN_LATE,           /* two, computed when they are landed: late_device.h */
    RUN_LATE_READ_LAST, /* and, on one rank, the next one before the logits of the last are read */
    RUN_DEVICES,
    RUN_STUCK, /* a device that no step ever comes back from */
} run_device;

/* The source cancels a request once so many outputs have come. */
typedef struct run_cancel {
    int32_t outputs; /* 0: there is none */
    uint64_t id;
} run_cancel;

/* How to run. Zero stands for the default of each field. */
typedef struct run_setup {
    const char *fixture; /* folder in tests/data; "qwen3-mixed" */
    void (*each_output)(
        int32_t outputs); /* called with the number of outputs so far; may be NULL */
    run_cancel cancel[3]; /* in this order */
    tsr_engine_options options;
    run_device device;
    int32_t ranks;              /* 1 */
    int32_t threads;            /* of each rank; 1 */
    int32_t max_batched_tokens; /* 128 */
    int32_t max_num_seqs;       /* RUN_REQUESTS */
    int32_t kv_blocks;          /* RUN_REQUESTS sequences of RUN_MODEL_LEN */
    int32_t block_tokens;       /* 16 */
    int32_t logit_rows;         /* 64 */
    int32_t exchange_tokens;    /* 32 */
    int32_t token_ids;          /* all */
    int32_t deadline_ms;        /* 60000 */
    int32_t other_plan_rank;    /* this rank's plan has another digest; 0: none's */
    int32_t absent_rank;        /* this rank gives up with TSR_ERR_DEVICE instead; 0: none does */
    int32_t at_once;            /* requests given per look at the source; 0: all there are */
    int32_t idle_for_ms;  /* time that the source gives nothing before it ends; less where rows of
                                 experts are told before */
    int32_t cancel_after; /* tokens after which request 0 is cancelled; 0: never */
    int32_t drain_after;  /* requests after which the engine is told to drain; 0: never */
    tsr_status source_fails; /* once the requests are given */
    tsr_status sink_fails;   /* at the third token */
    bool counts_experts;
    bool ignores_room; /* the source gives requests even where there is no room */
} run_setup;

typedef struct run_result {
    run_answer answer[RUN_REQUESTS]; /* by id */
    tsr_status status[RUN_RANKS];    /* that each rank's engine returned */
    tsr_engine_stats stats;
    int32_t vocab;
    int32_t given;         /* requests that the source gave */
    int32_t replays;       /* steps that rank 0 played from a recording */
    uint64_t expert_rows;  /* of all experts and layers, when the source was first told of them */
    uint64_t expert_steps; /* that they were counted in */
    int32_t ahead; /* steps that rank 0 launched while an earlier one was still to compute */
} run_result;

/* Runs requests of ids 0..count-1. Failures outside the engine fail the test. Close *ret_result. */
void engine_run(const run_setup *setup, const tsr_request *requests, int32_t count,
                run_result *ret_result);

void engine_run_close(run_result *result);

/* Every rank ended with `expected`. */
void engine_run_ended(const run_setup *setup, const run_result *result, tsr_status expected);

/* The same tokens, logprobs and logits, bit by bit, and the same end. */
void engine_run_same(const char *what, const run_answer *a, const run_answer *b, int32_t vocab);

#endif
