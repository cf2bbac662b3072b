/*
 * The life of a connection. A handler may answer, cut or be told nothing of it; whatever follows is
 * left to the next turn of the loop, so that an exchange outlives the call that it is used in.
 */
#include "launch/http/http_connection.h"

#include "launch/http/http_tls.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IDLE_MS = 75000, /* between requests */
    LINGER_MS = 2000,
    BODY_BYTES_PER_MS = 16, /* a body has its deadline, and more for so many bytes that came */
    READ_AHEAD_BYTES = 128 << 10,
    PIPELINED_BYTES = 64 << 10, /* no further request is read while so much is not taken */
    ALL_BODIES_BYTES = 1 << 30,
    TIMED_OUT = 408,
    BODY_TOO_LARGE = 413,
    HEAD_TOO_LARGE = 431,
    UNAVAILABLE = 503,
    BAD_REQUEST = 400,
};

size_t tsr_http_waiting(const tsr_http_connection *connection)
{
    return evbuffer_get_length(bufferevent_get_output(connection->stream));
}

static void set_timer(tsr_http_connection *connection, int64_t ms)
{
    const struct timeval time = {.tv_sec = (time_t)(ms / 1000),
                                 .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    (void)event_add(connection->timer, &time);
}

void tsr_http_enter(tsr_http_connection *connection, tsr_http_state state)
{
    const int32_t timeout = connection->server->args.client_timeout_ms;

    connection->state = state;
    connection->state_since_ms = tsr_clock_ms();
    if (state == TSR_HTTP_HANDLING || state == TSR_HTTP_ENDING)
        (void)event_del(connection->timer); /* the client's taking has a deadline of its own */
    else if (state == TSR_HTTP_WAITING)
        set_timer(connection, IDLE_MS);
    else
        set_timer(connection, state == TSR_HTTP_LINGER ? LINGER_MS : timeout);
}

static void turn_soon(tsr_http_connection *connection)
{
    event_active(connection->turn, EV_TIMEOUT, 0);
}

void tsr_http_doom(tsr_http_connection *connection)
{
    connection->doomed = true;
    connection->exchange.cut = true;
    turn_soon(connection);
}

/* Says what is wrong with a request that cannot be read on. */
static void refuse(tsr_http_connection *connection, int status, const char *code,
                   const char *message)
{
    tsr_refusal refusal;

    (void)tsr_refuse(&refusal, code, NULL, "%s", message);
    refusal.status = status;
    connection->close = true;
    tsr_http_enter(connection, TSR_HTTP_HANDLING);
    connection->server->args.hooks.refuse(connection->server->args.hooks.context,
                                          &connection->exchange, &refusal);
}

void tsr_http_exchange_over(tsr_http_connection *connection)
{
    tsr_http_exchange *exchange = &connection->exchange;
    tsr_http_server *server = connection->server;

    if (exchange->connection == NULL)
        return;
    server->args.hooks.over(server->args.hooks.context, exchange);
    server->body_bytes -= connection->counted;
    connection->counted = 0;
    tsr_text_close(&exchange->body);
    *exchange = (tsr_http_exchange){0};
}

/* A request has begun to come. */
static void begin_exchange(tsr_http_connection *connection)
{
    tsr_http_server *server = connection->server;
    tsr_http_exchange *exchange = &connection->exchange;

    *exchange = (tsr_http_exchange){.connection = connection, .begun_ns = tsr_clock_ns()};
    (void)snprintf(exchange->request_id, sizeof(exchange->request_id), "req_%08x%08llx",
                   server->word, (unsigned long long)server->serial++);
    connection->chunks = (tsr_http_chunks){0};
    connection->searched = 0;
    connection->close = false;
    tsr_http_enter(connection, TSR_HTTP_READING);
}

/* The client's own name for its request, where it is one word. */
static void take_request_id(tsr_http_exchange *exchange)
{
    const char *id = exchange->head.request_id;
    size_t bytes = 0;

    while (id != NULL && id[bytes] > ' ' && id[bytes] < '\x7f' && bytes < TSR_REQUEST_ID_BYTES)
        bytes++;
    if (bytes > 0 && bytes < TSR_REQUEST_ID_BYTES && id[bytes] == '\0')
        memcpy(exchange->request_id, id, bytes + 1);
}

/* The head is there: asks whether its body is wanted. */
static void take_head(tsr_http_connection *connection)
{
    tsr_http_server *server = connection->server;
    tsr_http_exchange *exchange = &connection->exchange;
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    tsr_refusal refusal = {0};

    if (tsr_http_head_parse(connection->head.bytes, connection->head.count, &exchange->head,
                            &refusal) != TSR_OK) {
        refuse(connection, refusal.status, refusal.code, refusal.message);
        return;
    }
    take_request_id(exchange);
    const bool has_body = exchange->head.chunked || exchange->head.length > 0;
    /* a request that is refused ends the connection where its body is not read */
    connection->close = !exchange->head.keep_alive || has_body;
    tsr_http_enter(connection, TSR_HTTP_BODY);
    if (exchange->head.length > server->args.max_body_bytes) {
        refuse(connection, BODY_TOO_LARGE, "body_too_large", "the body is too large");
        return;
    }
    if (!server->args.hooks.admit(server->args.hooks.context, exchange))
        return;
    connection->close = !exchange->head.keep_alive;
    if (has_body && exchange->head.expects_continue)
        (void)bufferevent_write(connection->stream, go_on, sizeof(go_on) - 1);
}

/* Bytes up to the end of the head. True: there is a step to follow. */
static bool read_head(tsr_http_connection *connection, struct evbuffer *in)
{
    struct evbuffer_ptr from;

    if (connection->state == TSR_HTTP_WAITING) {
        /* empty lines in front of a request are none (RFC 9112, 2.2) */
        while (evbuffer_get_length(in) >= 2 && memcmp(evbuffer_pullup(in, 2), "\r\n", 2) == 0)
            (void)evbuffer_drain(in, 2);
        if (evbuffer_get_length(in) == 0 || tsr_http_waiting(connection) > PIPELINED_BYTES)
            return false;
        begin_exchange(connection);
    }
    const size_t length = evbuffer_get_length(in);
    const size_t back = connection->searched > 3 ? connection->searched - 3 : 0;
    (void)evbuffer_ptr_set(in, &from, back, EVBUFFER_PTR_SET);
    const struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, &from);
    const size_t bytes = end.pos >= 0 ? (size_t)end.pos + 4 : length;
    connection->searched = length;
    if (bytes > TSR_HTTP_MAX_HEAD_BYTES) {
        refuse(connection, HEAD_TOO_LARGE, "head_too_large",
               "the head of the request is too large");
        return false;
    }
    if (end.pos < 0)
        return false;

    tsr_text_clear(&connection->head);
    const char *head = (const char *)evbuffer_pullup(in, (ev_ssize_t)bytes);
    if (head == NULL || tsr_text_add(&connection->head, head, bytes) != TSR_OK) {
        tsr_http_doom(connection);
        return false;
    }
    (void)evbuffer_drain(in, bytes);
    take_head(connection);
    return connection->state == TSR_HTTP_BODY;
}

/* A piece of the body as it lies in memory. */
static tsr_status take_piece(tsr_http_connection *connection, tsr_http_piece piece,
                             size_t *ret_used, bool *ret_ended)
{
    tsr_http_exchange *exchange = &connection->exchange;
    const size_t most = connection->server->args.max_body_bytes;

    if (exchange->head.chunked)
        return tsr_http_chunks_push(&connection->chunks, piece, most, &exchange->body, ret_used,
                                    ret_ended);
    const size_t left = (size_t)exchange->head.length - exchange->body.count;
    const size_t used = piece.count < left ? piece.count : left;
    const tsr_status st = tsr_text_add(&exchange->body, piece.bytes, used);
    *ret_used = used;
    *ret_ended = used == left;
    return st;
}

static void refuse_body(tsr_http_connection *connection, tsr_status st)
{
    if (st == TSR_ERR_CAPACITY)
        refuse(connection, BODY_TOO_LARGE, "body_too_large", "the body is too large");
    else if (st == TSR_ERR_ARG)
        refuse(connection, BAD_REQUEST, "invalid_http", "the body is not in chunks");
    else
        refuse(connection, UNAVAILABLE, "out_of_memory",
               "there is no memory for the body now; try again");
}

static void read_body(tsr_http_connection *connection, struct evbuffer *in)
{
    tsr_http_server *server = connection->server;
    tsr_http_exchange *exchange = &connection->exchange;
    bool ended = !exchange->head.chunked && exchange->head.length == 0;
    tsr_status st = TSR_OK;

    while (st == TSR_OK && !ended && evbuffer_get_length(in) > 0) {
        const size_t count = evbuffer_get_contiguous_space(in);
        const char *bytes = (const char *)evbuffer_pullup(in, (ev_ssize_t)count);
        size_t used = 0;
        st = take_piece(connection, (tsr_http_piece){bytes, count}, &used, &ended);
        (void)evbuffer_drain(in, used);
        server->body_bytes += exchange->body.count - connection->counted;
        connection->counted = exchange->body.count;
        if (st == TSR_OK && server->body_bytes > ALL_BODIES_BYTES)
            st = TSR_ERR_MEMORY;
    }
    if (st != TSR_OK) {
        refuse_body(connection, st);
    } else if (ended) {
        tsr_http_enter(connection, TSR_HTTP_HANDLING);
        server->args.hooks.handle(server->args.hooks.context, exchange);
    }
}

/* Reads what is there; the input that a request leaves waits for the next one. */
static void read_on(tsr_http_connection *connection)
{
    struct evbuffer *in = bufferevent_get_input(connection->stream);

    if (connection->state == TSR_HTTP_LINGER || connection->state == TSR_HTTP_ENDING)
        (void)evbuffer_drain(in, evbuffer_get_length(in));
    if (connection->state == TSR_HTTP_WAITING || connection->state == TSR_HTTP_READING) {
        if (!read_head(connection, in))
            return;
    }
    if (connection->state == TSR_HTTP_BODY)
        read_body(connection, in);
}

/* The answer is out. */
static void end_sending(tsr_http_connection *connection)
{
    if (connection->state != TSR_HTTP_ENDING || tsr_http_waiting(connection) > 0)
        return;
    tsr_http_enter(connection, TSR_HTTP_LINGER);
    if (connection->server->args.tls == NULL)
        (void)shutdown(bufferevent_getfd(connection->stream), SHUT_WR);
    else
        tsr_http_tls_end(connection->stream);
}

static void on_turn(evutil_socket_t fd, short what, void *context)
{
    tsr_http_connection *connection = context;

    (void)fd;
    (void)what;
    if (connection->doomed) {
        tsr_http_connection_close(connection);
        return;
    }
    if (connection->state == TSR_HTTP_WAITING || connection->state == TSR_HTTP_ENDING) {
        tsr_http_exchange_over(connection);
        end_sending(connection);
    }
    read_on(connection);
}

static void on_read(struct bufferevent *stream, void *context)
{
    tsr_http_connection *connection = context;

    (void)stream;
    /* an answer that was completed outside of a turn is still to be put away */
    if (!connection->doomed && connection->exchange.connection != NULL &&
        connection->state == TSR_HTTP_WAITING)
        return;
    if (!connection->doomed)
        read_on(connection);
}

static void on_written(struct bufferevent *stream, void *context)
{
    (void)stream;
    turn_soon(context);
}

static void on_event(struct bufferevent *stream, short what, void *context)
{
    tsr_http_connection *connection = context;
    const bool answered =
        connection->state == TSR_HTTP_WAITING || connection->state == TSR_HTTP_ENDING;

    if (what & BEV_EVENT_CONNECTED)
        return;
    if ((what & BEV_EVENT_TIMEOUT) && (what & BEV_EVENT_WRITING))
        tsr_log(TSR_LOG_DEBUG, "http %s: took nothing of its answer in time", connection->peer);
    if ((what & BEV_EVENT_EOF) && answered && tsr_http_waiting(connection) > 0) {
        /* it has sent all it wants to and waits for the end of the answer */
        connection->close = true;
        (void)bufferevent_disable(stream, EV_READ);
        tsr_http_enter(connection, TSR_HTTP_ENDING);
        turn_soon(connection);
        return;
    }
    tsr_http_doom(connection);
}

static void on_deadline(evutil_socket_t fd, short what, void *context)
{
    tsr_http_connection *connection = context;
    const int64_t passed = tsr_clock_ms() - connection->state_since_ms;

    (void)fd;
    (void)what;
    if (connection->doomed)
        return;
    if (connection->state == TSR_HTTP_BODY) {
        const int64_t most = connection->server->args.client_timeout_ms +
                             (int64_t)connection->exchange.body.count / BODY_BYTES_PER_MS;
        if (passed < most) {
            set_timer(connection, most - passed + 1);
            return;
        }
    }
    if (connection->state == TSR_HTTP_BODY || connection->state == TSR_HTTP_READING)
        refuse(connection, TIMED_OUT, "request_timeout", "the request did not come in time");
    else if (connection->state == TSR_HTTP_WAITING && tsr_http_waiting(connection) > 0)
        tsr_http_enter(connection, TSR_HTTP_WAITING);
    else
        tsr_http_doom(connection);
}

static bool open_events(tsr_http_connection *connection, int fd)
{
    const tsr_http_server_args *args = &connection->server->args;
    const struct timeval taking = {.tv_sec = args->client_timeout_ms / 1000,
                                   .tv_usec = (suseconds_t)(args->client_timeout_ms % 1000) * 1000};

    connection->timer = evtimer_new(args->base, on_deadline, connection);
    connection->turn = evtimer_new(args->base, on_turn, connection);
    connection->stream =
        args->tls != NULL ? tsr_http_tls_stream(args->tls, args->base, fd)
                          : bufferevent_socket_new(args->base, fd,
                                                   BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    if (connection->stream == NULL) {
        (void)close(fd);
        return false;
    }
    if (connection->timer == NULL || connection->turn == NULL)
        return false;
    bufferevent_setcb(connection->stream, on_read, on_written, on_event, connection);
    bufferevent_setwatermark(connection->stream, EV_READ, 0, READ_AHEAD_BYTES);
    (void)bufferevent_set_timeouts(connection->stream, NULL, &taking);
    return bufferevent_enable(connection->stream, EV_READ | EV_WRITE) == 0;
}

tsr_http_connection *tsr_http_connection_open(tsr_http_server *server, int fd, const char *peer)
{
    tsr_http_connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL) {
        (void)close(fd);
        return NULL;
    }
    connection->server = server;
    (void)snprintf(connection->peer, sizeof(connection->peer), "%s", peer);
    connection->next = server->first;
    if (server->first != NULL)
        server->first->previous = connection;
    server->first = connection;
    server->connections++;
    if (!open_events(connection, fd)) {
        tsr_http_connection_close(connection);
        return NULL;
    }
    tsr_http_enter(connection, TSR_HTTP_WAITING);
    /* who says nothing at all has a client's deadline, not that of one who has been served */
    set_timer(connection, server->args.client_timeout_ms);
    return connection;
}

void tsr_http_connection_close(tsr_http_connection *connection)
{
    tsr_http_server *server = connection->server;

    if (connection->state != TSR_HTTP_WAITING && connection->state != TSR_HTTP_ENDING)
        connection->exchange.cut = true;
    tsr_http_exchange_over(connection);
    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        server->first = connection->next;
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    server->connections--;
    if (server->full && !server->stopped)
        (void)evconnlistener_enable(server->listener);
    server->full = false;
    if (connection->timer != NULL)
        event_free(connection->timer);
    if (connection->turn != NULL)
        event_free(connection->turn);
    if (connection->stream != NULL)
        bufferevent_free(connection->stream);
    tsr_text_close(&connection->head);
    free(connection);
}
