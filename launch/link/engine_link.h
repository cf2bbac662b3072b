/*
 * The gateway's end: an engine that may die and come back, as one that only pauses.
 *
 *   submit --> live requests, with every token they were given --> engine
 *                       ^                                             |
 *                       +-------------- outputs ----------------------+--> events
 *
 * A request stays here until its last output. When another engine is attached, each is submitted
 * again with the tokens it has; its seed is the request's own, so it goes on as if nothing had been.
 * All of it runs in the event loop's thread.
 */
#ifndef TSR_LAUNCH_LINK_ENGINE_LINK_H
#define TSR_LAUNCH_LINK_ENGINE_LINK_H

#include "proto/serve_wire.h"
#include "runtime/engine/engine.h"

#include <event2/event.h>

typedef struct tsr_engine_link tsr_engine_link;

/* Of an engine that is ready. */
typedef struct tsr_engine_facts {
    int32_t ranks;
    int32_t max_model_len;
    int32_t vocab;
    int32_t max_num_seqs; /* of all ranks */
    int64_t kv_tokens;    /* of all ranks */
    const char *info;     /* a JSON object: plan and kernel paths */
} tsr_engine_facts;

/* What an engine says of itself about once a second, idle or not. */
typedef tsr_serve_load tsr_engine_load;

/* Called from the event loop; what pointers point to is valid during the call. Any of them may submit
 * and cancel. */
typedef struct tsr_engine_events {
    void (*loading)(void *context, uint64_t bytes, uint64_t total);
    void (*ready)(void *context, const tsr_engine_facts *facts);
    /* One token, or the end of a request, or both. A request that a lost engine takes with it ends
     * with TSR_FINISH_FAILED and a `cause` that is not TSR_OK. */
    void (*output)(void *context, const tsr_output *output);
    /* Of requests that ask how probable their prompt was, each position once. May be NULL. */
    void (*scores)(void *context, const tsr_prompt_scores *scores);
    void (*load)(void *context, const tsr_engine_load *load);
    /* A launcher has asked the engine to drain: no more requests are to be taken. */
    void (*drain)(void *context);
    /* The engine is gone: a pause, or, after tsr_engine_link_fail, the end. */
    void (*lost)(void *context, const char *why);
    void *context;
} tsr_engine_events;

/* Close with tsr_engine_link_close. `base` is borrowed. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_engine_link_open(struct event_base *base,
                                             const tsr_engine_events *events,
                                             tsr_engine_link **ret_link);

/* Whoever looks after the engine is told when it is gone, and whether it had been ready. */
typedef void (*tsr_engine_gone)(void *context, bool was_ready);

/* Takes the socket of a new engine over, in any case; there is none attached. TSR_ERR_MEMORY, TSR_ERR_INTERNAL */
TSR_MUST_USE tsr_status tsr_engine_link_attach(tsr_engine_link *link, int fd, tsr_engine_gone gone,
                                               void *context);

/* Lets the engine go as if it had died. */
void tsr_engine_link_detach(tsr_engine_link *link, const char *why);

bool tsr_engine_link_is_ready(const tsr_engine_link *link);

/* When the engine last said anything, in ms of tsr_clock_ms; 0: none is attached. */
int64_t tsr_engine_link_heard_ms(const tsr_engine_link *link);

/*
 * Copies the request. It has a seed, and its id is not among those that live. Before an engine is
 * ready it waits for one. TSR_ERR_MEMORY, TSR_ERR_CAPACITY
 */
TSR_MUST_USE tsr_status tsr_engine_link_submit(tsr_engine_link *link, const tsr_request *request);

/* An output with TSR_FINISH_CANCELLED follows, unless the request ends by itself; nothing happens
 * where there is none of that id. During the call where no engine has it. */
void tsr_engine_link_cancel(tsr_engine_link *link, uint64_t id);

/* Cancels what lives, and the engine goes. */
void tsr_engine_link_end(tsr_engine_link *link);

/* Ends every live request: no engine will come back. */
void tsr_engine_link_fail(tsr_engine_link *link, tsr_status cause, const char *why);

/* NULL is allowed. */
void tsr_engine_link_close(tsr_engine_link *link);

#endif
