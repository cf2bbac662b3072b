/* libevent's client, with what an OpenAI server's answers have in them: events of a stream, and errors
 * that come as a status, as an event or as silence. */
#include "launch/client/api_client.h"

#include "runtime/base/log.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OK_STATUS = 200,
    FIRST_ERROR = 400,
    UNAUTHORIZED = 401,
    FIRST_FAILURE = 500,
    DEFAULT_PORT = 80,
    MORE_BYTES = 32,
    MOST_LINE_BYTES = 64 << 20,
};

tsr_status tsr_api_open(tsr_api_server *server)
{
    server->uri = evhttp_uri_parse(server->url);
    const char *scheme = server->uri != NULL ? evhttp_uri_get_scheme(server->uri) : NULL;
    const char *path = server->uri != NULL ? evhttp_uri_get_path(server->uri) : NULL;
    const char *host = server->uri != NULL ? evhttp_uri_get_host(server->uri) : NULL;

    if (scheme == NULL || strcmp(scheme, "http") != 0 || host == NULL || host[0] == '\0') {
        tsr_log(TSR_LOG_ERROR, "--url %s: expected http://HOST[:PORT][/v1]", server->url);
        return TSR_ERR_ARG;
    }
    size_t count = path != NULL ? strlen(path) : 0;
    while (count > 0 && path[count - 1] == '/')
        count--;
    (void)snprintf(server->path, sizeof(server->path), "%.*s", count > 0 ? (int)count : 3,
                   count > 0 ? path : "/v1");
    return TSR_OK;
}

void tsr_api_close(tsr_api_server *server)
{
    if (server->uri != NULL)
        evhttp_uri_free(server->uri);
    server->uri = NULL;
}

static int port_of(const tsr_api_server *server)
{
    const int port = evhttp_uri_get_port(server->uri);
    return port > 0 ? port : DEFAULT_PORT;
}

struct evhttp_connection *tsr_api_connect(const tsr_api_server *server)
{
    const char *host = evhttp_uri_get_host(server->uri);
    char bare[TSR_API_NAME_BYTES];
    const size_t skip = host[0] == '[' ? 1 : 0; /* an address of IPv6 */

    (void)snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(host + skip, "]"), host + skip);
    struct evhttp_connection *connection =
        evhttp_connection_base_new(server->base, NULL, bare, (uint16_t)port_of(server));
    if (connection != NULL)
        evhttp_connection_set_timeout(connection, server->timeout_s);
    return connection;
}

static void add_headers(const tsr_api_server *server, struct evhttp_request *request)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    char text[TSR_API_NAME_BYTES + MORE_BYTES];

    (void)snprintf(text, sizeof(text), "%s:%d", evhttp_uri_get_host(server->uri), port_of(server));
    (void)evhttp_add_header(headers, "Host", text);
    (void)evhttp_add_header(headers, "Content-Type", "application/json");
    if (server->key != NULL) {
        (void)snprintf(text, sizeof(text), "Bearer %s", server->key);
        (void)evhttp_add_header(headers, "Authorization", text);
    }
}

typedef struct get {
    struct event_base *base;
    int status;
    json_t *body;
} get;

static void on_got(struct evhttp_request *request, void *context)
{
    get *g = context;
    struct evbuffer *in = request != NULL ? evhttp_request_get_input_buffer(request) : NULL;
    const size_t count = in != NULL ? evbuffer_get_length(in) : 0;
    const char *bytes = count > 0 ? (const char *)evbuffer_pullup(in, -1) : NULL;

    if (request != NULL)
        g->status = evhttp_request_get_response_code(request);
    if (bytes != NULL)
        g->body = json_loadb(bytes, count, 0, NULL);
    (void)event_base_loopbreak(g->base);
}

tsr_status tsr_api_get(const tsr_api_server *server, const char *path, int *ret_status,
                       json_t **ret_body)
{
    get g = {.base = server->base};
    struct evhttp_connection *connection = tsr_api_connect(server);
    if (connection == NULL)
        return TSR_ERR_MEMORY;
    struct evhttp_request *request = evhttp_request_new(on_got, &g);
    if (request == NULL) {
        evhttp_connection_free(connection);
        return TSR_ERR_MEMORY;
    }
    add_headers(server, request);
    if (evhttp_make_request(connection, request, EVHTTP_REQ_GET, path) == 0)
        (void)event_base_dispatch(server->base);
    evhttp_connection_free(connection);
    *ret_status = g.status;
    *ret_body = g.body;
    return TSR_OK;
}

tsr_status tsr_api_find_model(tsr_api_server *server, const char *model)
{
    char path[TSR_API_NAME_BYTES + MORE_BYTES];
    json_t *models = NULL;
    int status = 0;

    (void)snprintf(path, sizeof(path), "%s/models", server->path);
    const tsr_status st = tsr_api_get(server, path, &status, &models);
    if (st != TSR_OK)
        return st;
    const char *id = json_string_value(
        json_object_get(json_array_get(json_object_get(models, "data"), 0), "id"));
    if (model != NULL)
        id = model;
    if (id != NULL)
        (void)snprintf(server->model, sizeof(server->model), "%s", id);
    json_decref(models);
    if (status != 0 && server->model[0] != '\0')
        return TSR_OK;
    if (status == 0)
        tsr_log(TSR_LOG_ERROR, "%s: nobody answers there: start a server, or name another --url",
                server->url);
    else
        tsr_log(TSR_LOG_ERROR,
                "%s: no OpenAI server that answers: GET %s has status %d and names no model%s",
                server->url, path, status, status == UNAUTHORIZED ? ": --api-key" : "");
    return TSR_ERR_PEER;
}

static void fail(tsr_api_call *call, tsr_status st, const char *why)
{
    if (call->st != TSR_OK)
        return;
    call->st = st;
    (void)snprintf(call->why, sizeof(call->why), "%s", why);
}

/* Of {"error": {"message": ...}}, or of what some servers say instead. */
static const char *message_of(const json_t *body)
{
    const json_t *error = json_object_get(body, "error");
    const char *message = json_string_value(json_object_get(error, "message"));

    if (message == NULL)
        message = json_string_value(json_object_get(body, "message"));
    return message != NULL ? message : json_string_value(error);
}

static void take_event(tsr_api_call *call, const char *bytes, size_t count)
{
    json_t *event = json_loadb(bytes, count, 0, NULL);

    if (event == NULL) {
        fail(call, TSR_ERR_PEER, "an event that is no JSON");
    } else if (json_object_get(event, "error") != NULL) {
        const char *message = message_of(event);
        fail(call, TSR_ERR_PEER, message != NULL ? message : "an error without a message");
    } else {
        call->event(call->context, event);
    }
    json_decref(event);
}

static void take_lines(tsr_api_call *call)
{
    static const char front[] = "data:";
    const size_t skip = sizeof(front) - 1;
    size_t at = 0;

    for (;;) {
        const char *line = call->line.bytes + at;
        const char *end = memchr(line, '\n', call->line.count - at);
        if (end == NULL)
            break;
        const char *object = line + skip;
        if ((size_t)(end - line) > skip && memcmp(line, front, skip) == 0) {
            while (*object == ' ')
                object++;
            if (*object == '{')
                take_event(call, object, (size_t)(end - object));
        }
        at += (size_t)(end - line) + 1;
    }
    tsr_text_drop(&call->line, at);
}

static void on_piece(struct evhttp_request *request, void *context)
{
    tsr_api_call *call = context;
    struct evbuffer *in = evhttp_request_get_input_buffer(request);
    const size_t count = evbuffer_get_length(in);

    if (call->line.count + count > MOST_LINE_BYTES) {
        fail(call, TSR_ERR_PEER, "a line of an answer that has no end");
        return;
    }
    if (tsr_text_reserve(&call->line, count) != TSR_OK) {
        fail(call, TSR_ERR_MEMORY, tsr_status_text(TSR_ERR_MEMORY));
        return;
    }
    (void)evbuffer_remove(in, call->line.bytes + call->line.count, count);
    call->line.count += count;
    call->line.bytes[call->line.count] = '\0';
    if (evhttp_request_get_response_code(request) == OK_STATUS)
        take_lines(call);
}

static void on_error(enum evhttp_request_error error, void *context)
{
    tsr_api_call *call = context;

    if (error == EVREQ_HTTP_TIMEOUT)
        fail(call, TSR_ERR_TIMEOUT, "the server was silent for too long");
    else
        fail(call, TSR_ERR_PEER, "the server has closed the connection");
}

static void take_status(tsr_api_call *call, int status)
{
    char line[64];

    if (status == OK_STATUS)
        return;
    if (status == 0) {
        fail(call, TSR_ERR_PEER, "nobody answers there, or the connection was closed");
        return;
    }
    (void)snprintf(line, sizeof(line), "status %d", status);
    json_t *body = json_loadb(call->line.bytes, call->line.count, 0, NULL);
    const char *message = message_of(body);
    const bool refused = status >= FIRST_ERROR && status < FIRST_FAILURE;
    fail(call, refused ? TSR_ERR_ARG : TSR_ERR_PEER, message != NULL ? message : line);
    json_decref(body);
}

static void on_end(struct evhttp_request *request, void *context)
{
    tsr_api_call *call = context;

    call->request = NULL;
    take_status(call, request != NULL ? evhttp_request_get_response_code(request) : 0);
    call->over(call->context, call->st, call->why);
}

tsr_status tsr_api_post(const tsr_api_server *server, struct evhttp_connection *connection,
                        const char *path, const json_t *body, tsr_api_call *call)
{
    char whole[TSR_API_NAME_BYTES + MORE_BYTES];
    char *text = json_dumps(body, JSON_COMPACT);
    struct evhttp_request *request = text != NULL ? evhttp_request_new(on_end, call) : NULL;

    call->st = TSR_OK;
    call->why[0] = '\0';
    tsr_text_clear(&call->line);
    if (request == NULL) {
        free(text);
        return TSR_ERR_MEMORY;
    }
    evhttp_request_set_chunked_cb(request, on_piece);
    evhttp_request_set_error_cb(request, on_error);
    add_headers(server, request);
    (void)evbuffer_add(evhttp_request_get_output_buffer(request), text, strlen(text));
    free(text);
    (void)snprintf(whole, sizeof(whole), "%s%s", server->path, path);
    call->request = request;
    if (evhttp_make_request(connection, request, EVHTTP_REQ_POST, whole) == 0)
        return TSR_OK;
    call->request = NULL; /* nobody would be told of its end */
    return TSR_ERR_MEMORY;
}

void tsr_api_cancel(tsr_api_call *call)
{
    if (call->request != NULL)
        evhttp_cancel_request(call->request);
    call->request = NULL;
}

void tsr_api_call_close(tsr_api_call *call)
{
    tsr_api_cancel(call);
    tsr_text_close(&call->line);
}
