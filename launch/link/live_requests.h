/* Requests between submit and their last output, found by id: a hash table whose chains are the
 * requests themselves. */
#ifndef TSR_LAUNCH_LINK_LIVE_REQUESTS_H
#define TSR_LAUNCH_LINK_LIVE_REQUESTS_H

#include "runtime/engine/engine.h"

#include <stddef.h>

typedef struct tsr_live_request tsr_live_request;

struct tsr_live_request {
    tsr_live_request *chain; /* same bucket */
    tsr_live_request *next;  /* in order of arrival */
    tsr_live_request *previous;
    tsr_request request; /* prompt, stop ids, rules and guide point to what is below */
    int32_t *tokens;     /* [token_count] prompt, then what was answered */
    int32_t *stop_ids;
    int32_t token_count;
    int32_t token_room;
    tsr_token_rules *rules; /* NULL: none */
    char *guide;            /* NULL: none */
    int32_t scored;         /* positions of the prompt whose scores have come, plus one */
    bool is_scored;         /* all have */
    bool sent;              /* the engine that is attached has it */
};

typedef struct tsr_live_requests {
    tsr_live_request **bucket; /* [buckets] a power of two */
    size_t buckets;
    size_t count;
    tsr_live_request *first;
    tsr_live_request *last;
} tsr_live_requests;

/* A copy, last in order. Zero-initialise the table. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_live_requests_add(tsr_live_requests *live, const tsr_request *request,
                                              tsr_live_request **ret_added);

/* NULL when there is none. */
tsr_live_request *tsr_live_requests_find(const tsr_live_requests *live, uint64_t id);

/* One more token of its answer. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_live_request_answer(tsr_live_request *request, int32_t token);

void tsr_live_requests_remove(tsr_live_requests *live, tsr_live_request *request);

void tsr_live_requests_close(tsr_live_requests *live);

#endif
