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
#include "runtime/base/guides.h"
#include "runtime/base/status.h"
#include "runtime/engine/request.h"
#include "runtime/model/model.h"

#include <stdbool.h>
#include <stdint.h>

/* What an engine tells its source when it asks. */
typedef struct tsr_question {
    bool room; /* a request would be taken now; one that comes without is refused */
    /* The source may take so long to answer: an idle engine has time. 0: others wait for the step. */
    int32_t wait_ms;
    const tsr_engine_stats *stats; /* so far, without times of the run */
} tsr_question;

/* What a source may answer. */
typedef enum tsr_wish_kind {
    TSR_WISH_NOTHING, /* now; an idle engine asks again at once */
    TSR_WISH_REQUEST, /* take this one */
    TSR_WISH_CANCEL, /* end a request, wherever it is, with TSR_FINISH_CANCELLED unless it has ended by
                         itself */
    TSR_WISH_DRAIN, /* take no more, finish those taken, then stop; the source is asked on between
                         steps, and may cancel. May be answered again and again */
    TSR_WISH_END,   /* nothing ever again: finish those taken, then stop */
} tsr_wish_kind;

typedef struct tsr_wish {
    tsr_wish_kind kind;
    tsr_request
        request;     /* with TSR_WISH_REQUEST; what it points to stays until the next question */
    uint64_t cancel; /* with TSR_WISH_CANCEL: the request's id */
} tsr_wish;

/* Where requests come from. Called on rank 0 only, between steps: again and again until it has
 * nothing. */
typedef struct tsr_source {
    /* *ret_wish is all zero: nothing. */
    tsr_status (*ask)(void *context, const tsr_question *question, tsr_wish *ret_wish);
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
    /* Of requests that ask for them. May be NULL. */
    tsr_status (*scores)(void *context, const tsr_prompt_scores *scores);
    void *context;
} tsr_sink;

typedef struct tsr_engine_options {
    tsr_spread spread;
    int32_t owners;        /* ranks that requests go to while these have room for plenty; 0: all */
    uint64_t seed;         /* of requests without one */
    int32_t prefill_chunk; /* most tokens of one sequence in one step; 0: what the step has room
                              for */
    bool prefix_cache; /* a prompt holds the blocks of what it begins with, where they are there */
    int32_t max_waiting;      /* requests in the queue; 0: as many as run at once */
    const tsr_guides *guides; /* of requests that have one; NULL: such are refused */
    int32_t idle_ms; /* an idle engine sends an empty step this often, so that a lost rank is
                              noticed; below the group's deadline; 0: 250 */
} tsr_engine_options;

/* What one rank runs with. All of it is borrowed. */
typedef struct tsr_engine_args {
    const tsr_plan *plan;
    tsr_model *model;
    tsr_comm *comm;
    const tsr_engine_options *options; /* rank 0's decide; the others may give NULL */
    const tsr_source *source;          /* rank 0 only, else NULL */
    const tsr_sink *sink;              /* rank 0 only, else NULL */
    bool
        counts_experts; /* the rows that every expert gets, on all ranks or none: told with the stats */
} tsr_engine_args;

/*
 * Collective. Runs until the source has ended or drains and every request is finished. On ranks other than 0
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
