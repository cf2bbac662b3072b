/*
 * A client of an OpenAI-compatible server, this one or another.
 *
 *   open ----> find_model ----> connect ----> post ----> event, event, ... over
 *   the URL    GET /v1/models                 a stream of JSON objects
 */
#ifndef TSR_LAUNCH_CLIENT_API_CLIENT_H
#define TSR_LAUNCH_CLIENT_API_CLIENT_H

#include "runtime/base/text_buffer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct evhttp_connection;
struct evhttp_request;
struct evhttp_uri;

enum { TSR_API_NAME_BYTES = 256, TSR_API_WHY_BYTES = 512 };

/* Zero-initialise; open fills it, close always. */
typedef struct tsr_api_server {
    struct event_base *base; /* borrowed, as the next two */
    const char *url;         /* http://HOST[:PORT][/PATH]; /v1 is added where there is no path */
    const char *key;         /* NULL: none */
    int32_t timeout_s;       /* longest silence */
    struct evhttp_uri *uri;
    char path[TSR_API_NAME_BYTES];
    char model[TSR_API_NAME_BYTES]; /* of find_model */
} tsr_api_server;

/* Reads server->url. TSR_ERR_ARG, logged: it is none. */
TSR_MUST_USE tsr_status tsr_api_open(tsr_api_server *server);

void tsr_api_close(tsr_api_server *server);

/*
 * Asks for a path, which counts from the server's root, and runs the loop until the answer is there.
 *
 *   ret_status  of HTTP; 0: nobody has answered
 *   ret_body    NULL: no JSON
 *
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_api_get(const tsr_api_server *server, const char *path, int *ret_status,
                                    json_t **ret_body);

/* Fills server->model: `model`, or where that is NULL the first that the server names. TSR_ERR_PEER,
 * logged: nobody answers there, or names no model. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_api_find_model(tsr_api_server *server, const char *model);

/* NULL: out of memory. The caller frees it. */
struct evhttp_connection *tsr_api_connect(const tsr_api_server *server);

/* One streamed answer. */
typedef struct tsr_api_call {
    void (*event)(void *context, const json_t *event); /* of each that holds no error */
    /* The answer has ended. TSR_OK; TSR_ERR_ARG: the server refused it; TSR_ERR_TIMEOUT: it was silent
     * for too long; TSR_ERR_PEER: it left, or failed; TSR_ERR_MEMORY. `why` says so. */
    void (*over)(void *context, tsr_status st, const char *why);
    void *context;
    struct evhttp_request *request; /* from here on the client's own; NULL: none under way */
    tsr_text line;                  /* of the stream, not whole yet */
    tsr_status st;
    char why[TSR_API_WHY_BYTES];
} tsr_api_call;

/* `path` counts from the server's own, as in "/completions". TSR_ERR_MEMORY: `over` is not called. */
TSR_MUST_USE tsr_status tsr_api_post(const tsr_api_server *server,
                                     struct evhttp_connection *connection, const char *path,
                                     const json_t *body, tsr_api_call *call);

/* Ends a call that is under way; `over` is not called. */
void tsr_api_cancel(tsr_api_call *call);

void tsr_api_call_close(tsr_api_call *call);

#endif
