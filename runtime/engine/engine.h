/*
 * The engine: takes requests from a source, gives tokens to a sink.
 *
 *   source --> queue --> scheduler --> StepPlan --broadcast--> every rank: model --> tokens -->
 * sink
 *
 * Rank 0 coordinates and computes its own share too; the others follow. Source and sink exist on
 * rank 0 only: the batch file is the first of them, a server's socket the next.
 */
#ifndef TSR_RUNTIME_ENGINE_ENGINE_H
#define TSR_RUNTIME_ENGINE_ENGINE_H

#include "comm/comm.h"
#include "proto/plan.h"
#include "runtime/base/status.h"
#include "runtime/model/model.h"

#include <stdbool.h>
#include <stdint.h>

/* What a request wants. The engine stops on ids and lengths; strings belong to text. */
typedef struct tsr_request {
    uint64_t id;           /* the source's own, unique among live requests */
    const int32_t *prompt; /* [prompt_tokens]; copied by the engine */
    int32_t prompt_tokens; /* >= 1 */
    int32_t max_tokens;    /* >= 1 unless want_logits; clipped to the room the context leaves */
    float temperature;     /* 0: greedy */
    float top_p;           /* (0, 1] */
    int32_t top_k;         /* 0: all */
    bool has_seed;         /* false: the coordinator draws one */
    uint64_t seed;
    bool ignore_eos;
    bool want_logits;        /* score: the logits of every prompt position, nothing is sampled */
    const int32_t *stop_ids; /* [stop_id_count] end the request besides the model's eos; copied */
    int32_t stop_id_count;
} tsr_request;

typedef enum tsr_finish {
    TSR_FINISH_NONE,   /* more is coming */
    TSR_FINISH_STOP,   /* an eos or stop id, which is the last token given */
    TSR_FINISH_LENGTH, /* max_tokens or the context is reached; a scored prompt is through */
    TSR_FINISH_CANCELLED,
    TSR_FINISH_REFUSED, /* never started: see `refusal` */
} tsr_finish;

/*
 * One token of one request. Room for logprobs from the start.
 *
 * Every request ends with exactly one output whose finish is not TSR_FINISH_NONE.
 */
typedef struct tsr_output {
    uint64_t id;
    int32_t token; /* -1 when there is none (cancelled, refused, scored) */
    float logprob; /* of `token` */
    tsr_finish finish;
    int32_t prompt_tokens;
    int32_t output_tokens; /* so far, this one included */
    const char *refusal;   /* one line, only with TSR_FINISH_REFUSED */
} tsr_output;

/* Where requests come from. Called on rank 0 only, between steps. */
typedef struct tsr_source {
    /*
     * The next request, if there is one now. *ret_request stays valid until the next call.
     *   *ret_more false: none now
     *   *ret_ended true: none ever again; the engine drains and stops
     * An idle engine calls it in a loop: it may block for up to `wait_ms`.
     */
    tsr_status (*next)(void *context, int32_t wait_ms, tsr_request *ret_request, bool *ret_more,
                       bool *ret_ended);
    void *context;
} tsr_source;

/* Where tokens go. Called on rank 0 only, between steps. A status other than TSR_OK ends the
 * engine. */
typedef struct tsr_sink {
    /* *ret_cancel true: the rest of this request is not wanted (a stop string, a client that left);
     * unless this output ended it, one with TSR_FINISH_CANCELLED follows. */
    tsr_status (*token)(void *context, const tsr_output *output, bool *ret_cancel);
    /* Rows of logits of a scored request, ascending: [rows, V] of positions first_position .... May
     * be NULL. */
    tsr_status (*logits)(void *context, uint64_t id, int32_t first_position, int32_t rows,
                         const float *logits);
    void *context;
} tsr_sink;

/* How a new request finds its rank. The bits do not depend on it. */
typedef enum tsr_spread {
    TSR_SPREAD_LEAST_LOADED,
    TSR_SPREAD_ROUND_ROBIN,
    TSR_SPREAD_FIRST, /* all to rank 0 while it has room: for tests */
} tsr_spread;

typedef struct tsr_engine_options {
    tsr_spread spread;
    uint64_t seed;         /* of requests without one */
    int32_t prefill_chunk; /* most tokens of one sequence in one step; 0: what the step has room
                              for */
    int32_t idle_ms;       /* an idle engine sends an empty step this often, so that a lost rank is
                              noticed; below the group's deadline; 0: 1000 */
    const volatile int *drain; /* nonzero: take no more requests, finish those taken; may be NULL */
} tsr_engine_options;

/* Counted over the whole run, on rank 0. */
typedef struct tsr_engine_stats {
    uint64_t steps;
    uint64_t requests;
    uint64_t prompt_tokens;
    uint64_t output_tokens;
    uint64_t preemptions;
    int64_t first_token_ns_sum; /* from submission to first token, over first_tokens requests */
    uint64_t first_tokens;
    int64_t run_ns; /* from the first step to the last */
} tsr_engine_stats;

/* What one rank runs with. All of it is borrowed. */
typedef struct tsr_engine_args {
    const tsr_plan *plan;
    tsr_model *model;
    tsr_device *device;
    tsr_comm *comm;
    const tsr_engine_options *options; /* rank 0's decide; the others may give NULL */
    const tsr_source *source;          /* rank 0 only, else NULL */
    const tsr_sink *sink;              /* rank 0 only, else NULL */
} tsr_engine_args;

/*
 * Collective. Runs until the source has ended and every request is finished. On ranks other than 0
 * `ret_stats` is NULL; on rank 0 it may be.
 *
 * On error the group is spent and every rank returns the status of whoever gave up first, as far
 * as it has heard of it.
 *
 * TSR_ERR_MISMATCH, logged: a rank disagrees with a step
 * TSR_ERR_TIMEOUT, TSR_ERR_PEER: a rank is lost
 * any status of the source or the sink
 */
TSR_MUST_USE tsr_status tsr_engine_run(const tsr_engine_args *args, tsr_engine_stats *ret_stats);

#endif
