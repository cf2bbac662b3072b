/* A token is an event with text in it. Servers hold a token back while it may become a stop string or
 * half a character, so tokens are counted by what the server says it used, and times by its events. */
#include "launch/serve/load_client.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/text_buffer.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATUS_OK = 200, DEFAULT_PORT = 80, MODEL_BYTES = 256, FIRST_ROOM = 1024 };

typedef struct load load;

typedef struct client {
    load *load;
    struct evhttp_connection *connection;
    tsr_text line; /* of the stream, not whole yet */
    int64_t sent_ns;
    int64_t last_ns; /* of its last token; 0: none */
    int64_t prompt_tokens;
    int64_t output_tokens;
    bool failed;
} client;

struct load {
    const tsr_load_args *args;
    struct event_base *base;
    struct evhttp_uri *uri;
    client *clients; /* [args->clients] */
    tsr_load_result *result;
    char path[MODEL_BYTES];
    char model[MODEL_BYTES];
    int32_t begun;
    int32_t ended;
    uint64_t random;
    bool out_of_memory;
};

static void begin_request(client *c);

static void add_time(load *l, tsr_load_times *times, int64_t from_ns, int64_t to_ns)
{
    if (times->count == times->room) {
        const size_t room = times->room > 0 ? times->room * 2 : FIRST_ROOM;
        double *grown = realloc(times->seconds, room * sizeof(*grown));
        if (grown == NULL) {
            l->out_of_memory = true;
            return;
        }
        times->seconds = grown;
        times->room = room;
    }
    times->seconds[times->count++] = (double)(to_ns - from_ns) / 1e9;
}

static void fail(client *c, const char *why)
{
    tsr_load_result *result = c->load->result;

    if (c->failed)
        return;
    c->failed = true;
    if (result->failed++ == 0)
        (void)snprintf(result->error, sizeof(result->error), "%s", why);
}

/* xorshift64*: any ids do, but the same ones in every run. */
static uint32_t draw(load *l, uint32_t below)
{
    l->random ^= l->random >> 12;
    l->random ^= l->random << 25;
    l->random ^= l->random >> 27;
    return (uint32_t)((l->random * 0x2545f4914f6cdd1dU) >> 33) % below;
}

static const char *text_of(const json_t *choice)
{
    const json_t *delta = json_object_get(choice, "delta");
    const char *text = json_string_value(json_object_get(choice, "text"));
    return text != NULL ? text : json_string_value(json_object_get(delta, "content"));
}

static void take_event(client *c, const char *bytes, size_t count)
{
    load *l = c->load;
    json_t *event = json_loadb(bytes, count, 0, NULL);
    const json_t *usage = json_object_get(event, "usage");
    const json_t *error = json_object_get(event, "error");
    const char *text = text_of(json_array_get(json_object_get(event, "choices"), 0));

    if (error != NULL) {
        const char *message = json_string_value(json_object_get(error, "message"));
        fail(c, message != NULL ? message : "an error without a message");
    }
    if (text != NULL && text[0] != '\0') {
        const int64_t now = tsr_clock_ns();
        add_time(l, c->last_ns == 0 ? &l->result->first : &l->result->next,
                 c->last_ns == 0 ? c->sent_ns : c->last_ns, now);
        c->last_ns = now;
    }
    if (json_is_object(usage)) {
        c->prompt_tokens = json_integer_value(json_object_get(usage, "prompt_tokens"));
        c->output_tokens = json_integer_value(json_object_get(usage, "completion_tokens"));
    }
    json_decref(event);
}

static void take_lines(client *c)
{
    static const char front[] = "data: ";
    const size_t skip = sizeof(front) - 1;
    size_t at = 0;

    for (;;) {
        const char *line = c->line.bytes + at;
        const char *end = memchr(line, '\n', c->line.count - at);
        if (end == NULL)
            break;
        const size_t count = (size_t)(end - line);
        if (count > skip && memcmp(line, front, skip) == 0 && line[skip] == '{')
            take_event(c, line + skip, count - skip);
        at += count + 1;
    }
    tsr_text_drop(&c->line, at);
}

static void on_piece(struct evhttp_request *request, void *context)
{
    client *c = context;
    struct evbuffer *in = evhttp_request_get_input_buffer(request);
    const size_t count = evbuffer_get_length(in);

    if (tsr_text_reserve(&c->line, count) != TSR_OK) {
        c->load->out_of_memory = true;
        return;
    }
    (void)evbuffer_remove(in, c->line.bytes + c->line.count, count);
    c->line.count += count;
    if (evhttp_request_get_response_code(request) == STATUS_OK)
        take_lines(c);
}

static void take_status(client *c, struct evhttp_request *request)
{
    char why[64];
    const int status = request != NULL ? evhttp_request_get_response_code(request) : 0;

    if (status == STATUS_OK)
        return;
    if (status == 0) {
        fail(c, "the server closed the connection, or was silent for too long");
        return;
    }
    (void)snprintf(why, sizeof(why), "status %d", status);
    json_t *body = json_loadb(c->line.bytes, c->line.count, 0, NULL);
    const char *message =
        json_string_value(json_object_get(json_object_get(body, "error"), "message"));
    fail(c, message != NULL ? message : why);
    json_decref(body);
}

static void on_end(struct evhttp_request *request, void *context)
{
    client *c = context;
    load *l = c->load;

    take_status(c, request);
    if (!c->failed && c->last_ns == 0)
        fail(c, "an answer without a token");
    if (!c->failed) {
        add_time(l, &l->result->whole, c->sent_ns, tsr_clock_ns());
        l->result->input_tokens += c->prompt_tokens;
        l->result->output_tokens += c->output_tokens;
    }
    l->ended++;
    if (l->begun < l->args->requests)
        begin_request(c);
    else if (l->ended == l->begun)
        (void)event_base_loopbreak(l->base);
}

static json_t *prompt_of(load *l)
{
    json_t *ids = json_array();
    for (int32_t i = 0; i < l->args->input_tokens; i++)
        (void)json_array_append_new(ids, json_integer(draw(l, (uint32_t)l->args->vocab)));
    return ids;
}

static char *body_of(load *l)
{
    json_t *body = json_pack("{s:s, s:o, s:i, s:f, s:b, s:b, s:{s:b}}", "model", l->model, "prompt",
                             prompt_of(l), "max_tokens", l->args->output_tokens, "temperature", 0.0,
                             "ignore_eos", 1, "stream", 1, "stream_options", "include_usage", 1);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;

    json_decref(body);
    return text;
}

static void add_headers(const load *l, struct evhttp_request *request)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    char bearer[MODEL_BYTES];

    (void)evhttp_add_header(headers, "Host", evhttp_uri_get_host(l->uri));
    (void)evhttp_add_header(headers, "Content-Type", "application/json");
    if (l->args->key != NULL) {
        (void)snprintf(bearer, sizeof(bearer), "Bearer %s", l->args->key);
        (void)evhttp_add_header(headers, "Authorization", bearer);
    }
}

static void begin_request(client *c)
{
    load *l = c->load;
    char path[MODEL_BYTES + 16];
    char *body = body_of(l);
    struct evhttp_request *request = evhttp_request_new(on_end, c);

    c->last_ns = 0;
    c->prompt_tokens = 0;
    c->output_tokens = 0;
    c->failed = false;
    tsr_text_clear(&c->line);
    l->begun++;
    if (body == NULL || request == NULL) {
        l->out_of_memory = true;
        (void)event_base_loopbreak(l->base);
    } else {
        evhttp_request_set_chunked_cb(request, on_piece);
        add_headers(l, request);
        (void)evbuffer_add(evhttp_request_get_output_buffer(request), body, strlen(body));
        (void)snprintf(path, sizeof(path), "%s/completions", l->path);
        c->sent_ns = tsr_clock_ns();
        if (evhttp_make_request(c->connection, request, EVHTTP_REQ_POST, path) != 0) {
            l->out_of_memory = true; /* nobody would be told of its end */
            (void)event_base_loopbreak(l->base);
        }
    }
    free(body);
}

static struct evhttp_connection *connect_to(const load *l)
{
    const int port = evhttp_uri_get_port(l->uri);
    struct evhttp_connection *connection = evhttp_connection_base_new(
        l->base, NULL, evhttp_uri_get_host(l->uri), (uint16_t)(port > 0 ? port : DEFAULT_PORT));

    if (connection != NULL)
        evhttp_connection_set_timeout(connection, l->args->timeout_s);
    return connection;
}

static void on_models(struct evhttp_request *request, void *context)
{
    load *l = context;
    struct evbuffer *in = request != NULL ? evhttp_request_get_input_buffer(request) : NULL;
    const size_t count = in != NULL ? evbuffer_get_length(in) : 0;
    const char *bytes = count > 0 ? (const char *)evbuffer_pullup(in, -1) : "";
    json_t *models = json_loadb(bytes, count, 0, NULL);
    const char *id = json_string_value(
        json_object_get(json_array_get(json_object_get(models, "data"), 0), "id"));

    if (id != NULL)
        (void)snprintf(l->model, sizeof(l->model), "%s", id);
    json_decref(models);
    (void)event_base_loopbreak(l->base);
}

/* Asks the server for its model, which also shows that there is a server. */
static tsr_status find_model(load *l)
{
    struct evhttp_connection *connection = connect_to(l);
    struct evhttp_request *request = evhttp_request_new(on_models, l);
    char path[MODEL_BYTES + 16];

    if (connection == NULL || request == NULL)
        return TSR_ERR_MEMORY;
    add_headers(l, request);
    (void)snprintf(path, sizeof(path), "%s/models", l->path);
    if (evhttp_make_request(connection, request, EVHTTP_REQ_GET, path) == 0)
        (void)event_base_dispatch(l->base);
    evhttp_connection_free(connection);
    if (l->args->model != NULL)
        (void)snprintf(l->model, sizeof(l->model), "%s", l->args->model);
    if (l->model[0] != '\0')
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "%s: no OpenAI server answers there: GET %s names no model",
            l->args->url, path);
    return TSR_ERR_PEER;
}

static tsr_status read_url(load *l)
{
    l->uri = evhttp_uri_parse(l->args->url);
    const char *scheme = l->uri != NULL ? evhttp_uri_get_scheme(l->uri) : NULL;
    const char *path = l->uri != NULL ? evhttp_uri_get_path(l->uri) : NULL;

    if (scheme == NULL || strcmp(scheme, "http") != 0 || evhttp_uri_get_host(l->uri) == NULL) {
        tsr_log(TSR_LOG_ERROR, "--url %s: expected http://HOST[:PORT][/v1]", l->args->url);
        return TSR_ERR_ARG;
    }
    size_t count = path != NULL ? strlen(path) : 0;
    while (count > 0 && path[count - 1] == '/')
        count--;
    (void)snprintf(l->path, sizeof(l->path), "%.*s", count > 0 ? (int)count : 3,
                   count > 0 ? path : "/v1");
    return TSR_OK;
}

static tsr_status run_clients(load *l)
{
    const int64_t start_ns = tsr_clock_ns();

    l->clients = calloc((size_t)l->args->clients, sizeof(*l->clients));
    if (l->clients == NULL)
        return TSR_ERR_MEMORY;
    for (int32_t i = 0; i < l->args->clients && i < l->args->requests; i++) {
        client *c = &l->clients[i];
        c->load = l;
        c->connection = connect_to(l);
        if (c->connection == NULL)
            return TSR_ERR_MEMORY;
        begin_request(c);
    }
    if (!l->out_of_memory)
        (void)event_base_dispatch(l->base);
    l->result->wall_s = (double)(tsr_clock_ns() - start_ns) / 1e9;
    return l->out_of_memory ? TSR_ERR_MEMORY : TSR_OK;
}

static void close_load(load *l)
{
    for (int32_t i = 0; l->clients != NULL && i < l->args->clients; i++) {
        if (l->clients[i].connection != NULL)
            evhttp_connection_free(l->clients[i].connection);
        tsr_text_close(&l->clients[i].line);
    }
    free(l->clients);
    if (l->uri != NULL)
        evhttp_uri_free(l->uri);
    if (l->base != NULL)
        event_base_free(l->base);
}

tsr_status tsr_load_run(const tsr_load_args *args, tsr_load_result *ret_result)
{
    tsr_load_result result = {0};
    load l = {.args = args, .result = &result, .random = 0x9e3779b97f4a7c15U};

    tsr_status st = read_url(&l);
    if (st == TSR_OK) {
        l.base = event_base_new();
        st = l.base != NULL ? find_model(&l) : TSR_ERR_MEMORY;
    }
    if (st == TSR_OK)
        st = run_clients(&l);
    close_load(&l);
    if (st == TSR_OK)
        *ret_result = result;
    else
        tsr_load_result_close(&result);
    return st;
}

void tsr_load_result_close(tsr_load_result *result)
{
    free(result->first.seconds);
    free(result->next.seconds);
    free(result->whole.seconds);
    *result = (tsr_load_result){0};
}
