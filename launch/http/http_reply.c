/* Answers as bytes: a status line, fields, and a body of known length or in chunks. */
#include "launch/http/http_connection.h"

#include "runtime/base/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { DATE_BYTES = 48, OK_STATUS = 200 };

static const char *phrase_of(int status)
{
    static const struct {
        int status;
        const char *phrase;
    } phrases[] = {
        {200, "OK"},
        {202, "Accepted"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };

    for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++) {
        if (phrases[i].status == status)
            return phrases[i].phrase;
    }
    return "Error";
}

/* One text a second. */
static const char *date(void)
{
    static char text[DATE_BYTES];
    static time_t second;
    const time_t now = time(NULL);
    struct tm parts;

    if (now != second && gmtime_r(&now, &parts) != NULL) {
        (void)strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts);
        second = now;
    }
    return text;
}

/* The head of an answer up to the fields of its own. */
static void write_head(tsr_http_connection *connection, int status, const char *type,
                       const char *headers)
{
    const tsr_http_server_args *args = &connection->server->args;
    struct evbuffer *out = bufferevent_get_output(connection->stream);

    connection->exchange.status = status;
    (void)evbuffer_add_printf(
        out,
        "HTTP/1.1 %d %s\r\nDate: %s\r\nServer: tessera\r\n"
        "Content-Type: %s\r\nx-request-id: %s\r\n%s%s%s",
        status, phrase_of(status), date(), type, connection->exchange.request_id,
        connection->close ? "Connection: close\r\n" : "",
        args->headers != NULL ? args->headers : "", headers != NULL ? headers : "");
}

/* The answer is complete, though not yet sent. */
static void complete(tsr_http_connection *connection)
{
    tsr_http_enter(connection, connection->close ? TSR_HTTP_ENDING : TSR_HTTP_WAITING);
    event_active(connection->turn, EV_TIMEOUT, 0);
}

void tsr_http_answer(tsr_http_exchange *exchange, const tsr_http_reply *reply)
{
    tsr_http_connection *connection = exchange->connection;
    struct evbuffer *out = bufferevent_get_output(connection->stream);

    if (exchange->cut)
        return;
    connection->close |= reply->close;
    write_head(connection, reply->status, reply->type, reply->headers);
    (void)evbuffer_add_printf(out, "Content-Length: %zu\r\n\r\n", reply->count);
    if (exchange->head.method != TSR_HTTP_HEAD && reply->count > 0 &&
        evbuffer_add(out, reply->bytes, reply->count) != 0)
        tsr_http_doom(connection);
    complete(connection);
}

void tsr_http_stream(tsr_http_exchange *exchange, const char *type)
{
    tsr_http_connection *connection = exchange->connection;

    if (exchange->cut)
        return;
    exchange->streaming = true;
    connection->close |= exchange->head.old;
    write_head(connection, OK_STATUS, type, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    (void)evbuffer_add_printf(bufferevent_get_output(connection->stream), "%s\r\n",
                              exchange->head.old ? "" : "Transfer-Encoding: chunked\r\n");
}

void tsr_http_send(tsr_http_exchange *exchange, const char *bytes, size_t count)
{
    tsr_http_connection *connection = exchange->connection;
    struct evbuffer *out = bufferevent_get_output(connection->stream);

    if (exchange->cut || count == 0)
        return;
    if (tsr_http_waiting(connection) + count > connection->server->args.max_queued_bytes) {
        tsr_log(TSR_LOG_WARN, "http %s: reads too slowly: %zu bytes of its answer wait for it; cut",
                connection->peer, tsr_http_waiting(connection));
        tsr_http_doom(connection);
        return;
    }
    const bool chunked = !exchange->head.old;
    bool good = !chunked || evbuffer_add_printf(out, "%zx\r\n", count) > 0;
    good = good && evbuffer_add(out, bytes, count) == 0;
    if (chunked)
        good = good && evbuffer_add(out, "\r\n", 2) == 0;
    if (!good)
        tsr_http_doom(connection);
}

void tsr_http_finish(tsr_http_exchange *exchange)
{
    tsr_http_connection *connection = exchange->connection;

    if (exchange->cut)
        return;
    if (!exchange->head.old &&
        evbuffer_add(bufferevent_get_output(connection->stream), "0\r\n\r\n", 5) != 0)
        tsr_http_doom(connection);
    complete(connection);
}

void tsr_http_cut(tsr_http_exchange *exchange)
{
    tsr_http_doom(exchange->connection);
}

const char *tsr_http_peer(const tsr_http_exchange *exchange)
{
    return exchange->connection->peer;
}
