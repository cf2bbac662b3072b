/* A connection and its place among the others. Private to http_*.c. */
#ifndef TSR_LAUNCH_HTTP_HTTP_CONNECTION_H
#define TSR_LAUNCH_HTTP_HTTP_CONNECTION_H

#include "launch/http/http_chunks.h"
#include "launch/http/http_server.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

enum { TSR_HTTP_PEER_BYTES = 64 };

typedef enum tsr_http_state {
    TSR_HTTP_WAITING, /* for the first byte of a request */
    TSR_HTTP_READING, /* a head */
    TSR_HTTP_BODY,
    TSR_HTTP_HANDLING, /* the answer is not complete */
    TSR_HTTP_ENDING,   /* it is, and the connection ends when it is sent */
    TSR_HTTP_LINGER,   /* everything is sent; what still comes is dropped for a while, lest a reset
                          takes the answer away from the client */
} tsr_http_state;

struct tsr_http_connection {
    tsr_http_connection *next;
    tsr_http_connection *previous;
    tsr_http_server *server;
    struct bufferevent *stream;
    struct event *timer; /* the deadline of the state */
    struct event *turn;  /* what must not be done inside a handler: reads on, or closes */
    tsr_http_state state;
    tsr_http_exchange exchange;
    tsr_text head; /* bytes that exchange.head points into */
    tsr_http_chunks chunks;
    size_t searched; /* bytes of a head without an end */
    size_t counted;  /* of the body, in the server's sum */
    int64_t state_since_ms;
    bool close;  /* after this answer */
    bool doomed; /* closed at the next turn */
    char peer[TSR_HTTP_PEER_BYTES];
};

struct tsr_http_server {
    tsr_http_server_args args;
    struct evconnlistener *listener;
    tsr_http_connection *first;
    size_t connections;
    size_t most_connections;
    size_t body_bytes; /* of all requests that are being read */
    uint64_t serial;   /* of request ids */
    uint32_t word;     /* in front of them, this server's own */
    bool full;         /* no more connections are accepted until one ends */
    bool stopped;
};

/* What comes after: enters the state and sets its deadline. */
void tsr_http_enter(tsr_http_connection *connection, tsr_http_state state);

/* Closes it at the next turn of the loop. */
void tsr_http_doom(tsr_http_connection *connection);

/* Takes a connected socket over; NULL where there is no memory. */
tsr_http_connection *tsr_http_connection_open(tsr_http_server *server, int fd, const char *peer);
void tsr_http_connection_close(tsr_http_connection *connection);

/* Empties the exchange after its answer. */
void tsr_http_exchange_over(tsr_http_connection *connection);

/* Bytes that the client has not taken. */
size_t tsr_http_waiting(const tsr_http_connection *connection);

#endif
