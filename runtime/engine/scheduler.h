/*
 * The scheduler: which tokens of which request, on which rank, in the next step. It computes
 * nothing, sends nothing and reads no clock; time is passed in.
 *
 *   submit --> queue --> schedule --> a step plan ... its tokens --> absorb --> outputs
 *
 * A step gives every running sequence that generates one token, then fills what is left of each
 * rank's tokens with prompts, oldest request first, then admits from the queue. In each of these a
 * lower priority goes first, and the order of arrival decides among equals.
 *
 * schedule needs no token of the step before: a caller may plan one step ahead and absorb later;
 * what ends then takes effect one step late. Only a request whose answer is guided waits for its last
 * token: which ids may come next depends on it. The others go on meanwhile; a step behind which all
 * that run would wait says so (TSR_STEP_LAND).
 *
 * Blocks. Each rank's KV blocks are given out here and their ids travel in step entries. A sequence
 * that generates and finds no free block takes those of the request admitted last on its rank,
 * which goes back to its place in the queue and runs again with its tokens as prompt; a prompt only
 * takes what is free. A request is admitted where its prompt fits beside every other prompt under
 * way there, so that prompts never wait for each other.
 */
#ifndef TSR_RUNTIME_ENGINE_SCHEDULER_H
#define TSR_RUNTIME_ENGINE_SCHEDULER_H

#include "proto/plan.h"
#include "proto/step_plan.h"
#include "runtime/base/guides.h"
#include "runtime/base/status.h"
#include "runtime/engine/request.h"
#include "runtime/engine/step_shape.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_scheduler tsr_scheduler;

/* Steps that may be planned and not yet absorbed. */
enum { TSR_STEPS_IN_FLIGHT = 2 };

typedef struct tsr_schedule_options {
    tsr_spread spread;
    int32_t owners;           /* requests go to ranks 0 .. owners - 1 while these have room for
                                 plenty; 0: to all */
    uint64_t seed;            /* requests without a seed draw theirs from it, in order of arrival */
    int32_t prefill_chunk;    /* most tokens of one prompt in one step; 0: what there is room for */
    bool prefix_cache;        /* prefix.h */
    int32_t max_waiting;      /* requests in the queue; 0: as many as all ranks run at once */
    const tsr_guides *guides; /* NULL: requests that ask for one are refused */
} tsr_schedule_options;

/* `plan` is borrowed. TSR_ERR_CAPACITY, logged; TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_scheduler_open(const tsr_plan *plan,
                                           const tsr_schedule_options *options,
                                           tsr_scheduler **ret_scheduler);

/* True while the queue is shorter than its limit. */
bool tsr_scheduler_has_room(const tsr_scheduler *scheduler);

/* True when no request is waiting or running and no step is in flight. */
bool tsr_scheduler_idle(const tsr_scheduler *scheduler);

/*
 * Queues a copy of the request.
 *
 *   ret_refusal  why it can never run, valid until the next call; NULL when it was queued
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_scheduler_submit(tsr_scheduler *scheduler, const tsr_request *request,
                                             int64_t now_ns, const char **ret_refusal);

/* Ends a live request, with its last output; false when there is none of that id. */
bool tsr_scheduler_cancel(tsr_scheduler *scheduler, uint64_t id, tsr_output *ret_output);

/* The same for one that cannot go on; `why` becomes the output's refusal. */
bool tsr_scheduler_fail(tsr_scheduler *scheduler, uint64_t id, const char *why,
                        tsr_output *ret_output);

/*
 * Plans the next step in `buffer` (8-byte aligned, tsr_step_shape.step_bytes of it) and seals it. A
 * step without entries is a heartbeat.
 *
 *   flags  tsr_step_flags
 *
 * TSR_ERR_INTERNAL, logged: too many steps in flight, or a step that does not hold
 */
TSR_MUST_USE tsr_status tsr_scheduler_schedule(tsr_scheduler *scheduler, uint32_t flags,
                                               int64_t now_ns, void *buffer,
                                               tsr_step_plan *ret_step);

/* Of the oldest step in flight: the request that entry `entry` belongs to. False when its results
 * are no longer wanted. */
bool tsr_scheduler_owner(const tsr_scheduler *scheduler, uint32_t entry, uint64_t *ret_id);

/* What a step's results come to. */
typedef struct tsr_absorbed {
    /* [count], each of another request. Valid until the next absorb: whoever is told of them may
     * submit, cancel and fail requests meanwhile, which changes none of them. Most probable ids lie
     * where the results have them. */
    const tsr_output *output;
    const tsr_prompt_scores *scores; /* [scored] the same; to be told first */
    int32_t count;
    int32_t scored;
} tsr_absorbed;

/*
 * Takes the results of the oldest step in flight.
 *
 * TSR_ERR_MISMATCH, logged: results that do not answer the step
 */
TSR_MUST_USE tsr_status tsr_scheduler_absorb(tsr_scheduler *scheduler,
                                             const tsr_step_results *results, int64_t now_ns,
                                             tsr_absorbed *ret_absorbed);

/* Counted so far, and how things stand; steps are those with tokens, times of a run are not the
 * scheduler's. */
tsr_engine_stats tsr_scheduler_stats(const tsr_scheduler *scheduler);

/* NULL is allowed. */
void tsr_scheduler_close(tsr_scheduler *scheduler);

#endif
