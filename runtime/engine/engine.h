/*
 * The engine: takes requests from a source, gives tokens to a sink.
 *
 *   source --> queue --> scheduler --> StepPlan
 *                                         | broadcast
 *                                         v
 *   sink <-- tokens, gathered <-- every rank: model, sampling
 *
 * Rank 0 coordinates and computes its own share too; the others follow. Source and sink exist on
 * rank 0 only: the batch file is the first of them, a server's socket the next.
 */
#ifndef TSR_RUNTIME_ENGINE_ENGINE_H
#define TSR_RUNTIME_ENGINE_ENGINE_H

#include "comm/comm.h"
#include "proto/plan.h"
#include "runtime/base/status.h"
#include "runtime/engine/request.h"
#include "runtime/model/model.h"

#include <stdbool.h>
#include <stdint.h>

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
    /* The next request that is not wanted any more, called between steps until it is false: each
     * ends with TSR_FINISH_CANCELLED, unless it has ended by itself. May be NULL. */
    bool (*withdrawn)(void *context, uint64_t *ret_id);
    void *context;
} tsr_source;

/* Where tokens go. Called on rank 0 only, between steps. A status other than TSR_OK ends the
 * engine. */
typedef struct tsr_sink {
    /* *ret_cancel true: the rest of this request is not wanted (a stop string, a client that left);
     * unless this output ended it, one with TSR_FINISH_CANCELLED follows. */
    tsr_status (*token)(void *context, const tsr_output *output, bool *ret_cancel);
    /* Finite rows of logits of a scored request, ascending: [rows, V] of positions first_position .... May
     * be NULL. */
    tsr_status (*logits)(void *context, uint64_t id, int32_t first_position, int32_t rows,
                         const float *logits);
    void *context;
} tsr_sink;

typedef struct tsr_engine_options {
    tsr_spread spread;
    uint64_t seed;         /* of requests without one */
    int32_t prefill_chunk; /* most tokens of one sequence in one step; 0: what the step has room
                              for */
    int32_t idle_ms;       /* an idle engine sends an empty step this often, so that a lost rank is
                              noticed; below the group's deadline; 0: 250 */
    const volatile int *drain; /* nonzero: take no more requests, finish those taken; may be NULL */
} tsr_engine_options;

/* What one rank runs with. All of it is borrowed. */
typedef struct tsr_engine_args {
    const tsr_plan *plan;
    tsr_model *model;
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
