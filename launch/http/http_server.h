/*
 * HTTP/1.1 over libevent, in one thread: connections are read and written as they can be, and none
 * of them holds up another.
 *
 *   accept -> WAITING -> HEAD -> BODY -> HANDLING -> WAITING ...
 *                          \       \         \
 *                           +-------+---------+--> ENDING -> LINGER -> closed
 *
 * A client has a deadline for its head, one for its body that grows with what has come, and must
 * take some of its answer within the same time. What is queued for a client is bounded: one that
 * reads too slowly is cut. A client that leaves is noticed at once, whatever its request waits for.
 */
#ifndef TSR_LAUNCH_HTTP_HTTP_SERVER_H
#define TSR_LAUNCH_HTTP_HTTP_SERVER_H

#include "launch/http/http_head.h"
#include "runtime/base/text_buffer.h"

struct event_base;
typedef struct tsr_http_server tsr_http_server;
typedef struct tsr_http_connection tsr_http_connection;
typedef struct tsr_http_tls tsr_http_tls;

enum { TSR_REQUEST_ID_BYTES = 64 };

/* One request and its answer. It lives until `over` has returned. */
typedef struct tsr_http_exchange {
    tsr_http_head head;
    tsr_text body;
    char request_id[TSR_REQUEST_ID_BYTES]; /* the client's, or one of ours */
    const void *route;                     /* the handler's own */
    void *answer;                          /* likewise: what is being made for it */
    int status;                            /* 0: no answer has begun */
    bool streaming;
    bool cut;         /* the client has left, or reads too slowly: nothing more is sent */
    int64_t begun_ns; /* of tsr_clock_ns: the head was there */
    tsr_http_connection *connection;
} tsr_http_exchange;

typedef struct tsr_http_hooks {
    /* The head is there, its body is not. False: the request was answered. */
    bool (*admit)(void *context, tsr_http_exchange *exchange);
    /* All of it is there. Answers it, now or later. */
    void (*handle)(void *context, tsr_http_exchange *exchange);
    /* The answer is complete, or the client has gone before it was (`cut`). */
    void (*over)(void *context, tsr_http_exchange *exchange);
    /* What is wrong with a request that is none; answers it. */
    void (*refuse)(void *context, tsr_http_exchange *exchange, const tsr_refusal *refusal);
    void *context;
} tsr_http_hooks;

typedef struct tsr_http_server_args {
    struct event_base *base; /* borrowed */
    int listener;            /* a listening socket; taken over */
    tsr_http_tls *tls;       /* NULL: none; borrowed */
    tsr_http_hooks hooks;
    int32_t client_timeout_ms;
    size_t max_body_bytes;
    size_t max_queued_bytes; /* of a stream that its client has not taken */
    const char *headers;     /* whole lines for every answer, or ""; borrowed */
} tsr_http_server_args;

/* Listens at once. TSR_ERR_MEMORY; the listener is closed in any case. */
TSR_MUST_USE tsr_status tsr_http_server_open(const tsr_http_server_args *args,
                                             tsr_http_server **ret_server);

/* Takes no more connections. */
void tsr_http_server_stop(tsr_http_server *server);

/* Connections that are there, and those of them that have something to be sent or answered. */
size_t tsr_http_server_connections(const tsr_http_server *server);
size_t tsr_http_server_busy(const tsr_http_server *server);

/* Cuts every client. NULL is allowed. */
void tsr_http_server_close(tsr_http_server *server);

/* A whole answer. */
typedef struct tsr_http_reply {
    int status;
    const char *type;    /* of the content */
    const char *headers; /* further whole lines; NULL: none */
    const char *bytes;
    size_t count;
    bool close; /* the connection ends with it */
} tsr_http_reply;
void tsr_http_answer(tsr_http_exchange *exchange, const tsr_http_reply *reply);

/* An answer of status 200 in pieces. */
void tsr_http_stream(tsr_http_exchange *exchange, const char *type);
void tsr_http_send(tsr_http_exchange *exchange, const char *bytes, size_t count);
void tsr_http_finish(tsr_http_exchange *exchange);

/* The client is not served any more; `over` follows. */
void tsr_http_cut(tsr_http_exchange *exchange);

/* A name of the client for the log. */
const char *tsr_http_peer(const tsr_http_exchange *exchange);

/*
 * Binds and listens.
 *
 *   ret_port  the one that was taken, where `port` is 0
 *
 * TSR_ERR_BIND, logged
 */
TSR_MUST_USE tsr_status tsr_listen_open(const char *host, int32_t port, int *ret_fd,
                                        int32_t *ret_port);

#endif
