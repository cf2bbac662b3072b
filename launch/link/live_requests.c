/* A request is one piece of memory and its two arrays; the table grows by doubling and is never made smaller. */
#include "launch/link/live_requests.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BUCKETS = 64, FIRST_ANSWER = 32 };

/* Ids are drawn in sequence: the low bits spread well. */
static tsr_live_request **bucket_of(const tsr_live_requests *live, uint64_t id)
{
    return &live->bucket[id & (live->buckets - 1)];
}

static tsr_status grow(tsr_live_requests *live)
{
    if (live->count < live->buckets)
        return TSR_OK;

    const size_t buckets = live->buckets > 0 ? live->buckets * 2 : FIRST_BUCKETS;
    tsr_live_request **bucket = calloc(buckets, sizeof(tsr_live_request *));
    if (bucket == NULL)
        return TSR_ERR_MEMORY;
    free(live->bucket);
    live->bucket = bucket;
    live->buckets = buckets;
    for (tsr_live_request *r = live->first; r != NULL; r = r->next) {
        tsr_live_request **at = bucket_of(live, r->request.id);
        r->chain = *at;
        *at = r;
    }
    return TSR_OK;
}

static void free_request(tsr_live_request *request)
{
    if (request == NULL)
        return;
    free(request->tokens);
    free(request->stop_ids);
    free(request->rules);
    free(request->guide);
    free(request);
}

static tsr_status copy_request(const tsr_request *request, tsr_live_request **ret_copy)
{
    const size_t stops = (size_t)request->stop_id_count;
    tsr_live_request *copy = calloc(1, sizeof(*copy));
    if (copy == NULL)
        return TSR_ERR_MEMORY;

    copy->request = *request;
    copy->token_count = request->prompt_tokens;
    copy->token_room = request->prompt_tokens + FIRST_ANSWER;
    copy->tokens = malloc((size_t)copy->token_room * sizeof(int32_t));
    copy->stop_ids = malloc((stops > 0 ? stops : 1) * sizeof(int32_t));
    if (request->rules != NULL)
        copy->rules = calloc(1, sizeof(*copy->rules));
    if (request->guide != NULL)
        copy->guide = strdup(request->guide);
    if (copy->tokens == NULL || copy->stop_ids == NULL ||
        (request->guide != NULL && copy->guide == NULL) ||
        (request->rules != NULL && copy->rules == NULL)) {
        free_request(copy);
        return TSR_ERR_MEMORY;
    }
    memcpy(copy->tokens, request->prompt, (size_t)request->prompt_tokens * sizeof(int32_t));
    if (stops > 0)
        memcpy(copy->stop_ids, request->stop_ids, stops * sizeof(int32_t));
    copy->request.prompt = copy->tokens;
    copy->request.stop_ids = copy->stop_ids;
    if (request->rules != NULL)
        memcpy(copy->rules, request->rules, tsr_rules_bytes(request->rules));
    copy->request.rules = copy->rules;
    copy->request.guide = copy->guide;
    *ret_copy = copy;
    return TSR_OK;
}

tsr_status tsr_live_requests_add(tsr_live_requests *live, const tsr_request *request,
                                 tsr_live_request **ret_added)
{
    tsr_live_request *added = NULL;

    tsr_status st = grow(live);
    if (st == TSR_OK)
        st = copy_request(request, &added);
    if (st != TSR_OK)
        return st;
    tsr_live_request **at = bucket_of(live, request->id);
    added->chain = *at;
    *at = added;
    added->previous = live->last;
    if (live->last != NULL)
        live->last->next = added;
    else
        live->first = added;
    live->last = added;
    live->count++;
    *ret_added = added;
    return TSR_OK;
}

tsr_live_request *tsr_live_requests_find(const tsr_live_requests *live, uint64_t id)
{
    tsr_live_request *r = live->buckets > 0 ? *bucket_of(live, id) : NULL;
    while (r != NULL && r->request.id != id)
        r = r->chain;
    return r;
}

tsr_status tsr_live_request_answer(tsr_live_request *request, int32_t token)
{
    if (request->token_count == request->token_room) {
        const int32_t room = request->token_room + request->token_room / 2;
        int32_t *grown = realloc(request->tokens, (size_t)room * sizeof(int32_t));
        if (grown == NULL)
            return TSR_ERR_MEMORY;
        request->tokens = grown;
        request->token_room = room;
        request->request.prompt = grown;
    }
    request->tokens[request->token_count++] = token;
    return TSR_OK;
}

void tsr_live_requests_remove(tsr_live_requests *live, tsr_live_request *request)
{
    tsr_live_request **at = bucket_of(live, request->request.id);
    while (*at != request)
        at = &(*at)->chain;
    *at = request->chain;

    if (request->previous != NULL)
        request->previous->next = request->next;
    else
        live->first = request->next;
    if (request->next != NULL)
        request->next->previous = request->previous;
    else
        live->last = request->previous;
    live->count--;
    free_request(request);
}

void tsr_live_requests_close(tsr_live_requests *live)
{
    for (tsr_live_request *r = live->first; r != NULL;) {
        tsr_live_request *next = r->next;
        free_request(r);
        r = next;
    }
    free(live->bucket);
    *live = (tsr_live_requests){0};
}
