/* A token is an event with text in it. Servers hold a token back while it may become a stop string or
 * half a character, so tokens are counted by what the server says it used, and times by its events. */
#include "launch/client/load_client.h"

#include "launch/client/api_client.h"
#include "runtime/base/clock.h"

#include <event2/event.h>
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 1024 };

typedef struct load load;

typedef struct client {
    load *load;
    struct evhttp_connection *connection;
    tsr_api_call call;
    int64_t sent_ns;
    int64_t last_ns; /* of its last token; 0: none */
    int64_t prompt_tokens;
    int64_t output_tokens;
} client;

struct load {
    const tsr_load_args *args;
    tsr_api_server server;
    client *clients; /* [args->clients] */
    tsr_load_result *result;
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

static void fail(load *l, const char *why)
{
    tsr_load_result *result = l->result;

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

static void on_event(void *context, const json_t *event)
{
    client *c = context;
    load *l = c->load;
    const json_t *usage = json_object_get(event, "usage");
    const char *text = text_of(json_array_get(json_object_get(event, "choices"), 0));

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
}

static void on_over(void *context, tsr_status st, const char *why)
{
    client *c = context;
    load *l = c->load;

    l->out_of_memory |= st == TSR_ERR_MEMORY;
    if (st != TSR_OK) {
        fail(l, why);
    } else if (c->last_ns == 0) {
        fail(l, "an answer without a token");
    } else {
        add_time(l, &l->result->whole, c->sent_ns, tsr_clock_ns());
        l->result->input_tokens += c->prompt_tokens;
        l->result->output_tokens += c->output_tokens;
    }
    l->ended++;
    if (l->begun < l->args->requests)
        begin_request(c);
    else if (l->ended == l->begun)
        (void)event_base_loopbreak(l->server.base);
}

static json_t *prompt_of(load *l)
{
    json_t *ids = json_array();
    for (int32_t i = 0; i < l->args->input_tokens; i++)
        (void)json_array_append_new(ids, json_integer(draw(l, (uint32_t)l->args->vocab)));
    return ids;
}

static json_t *body_of(load *l)
{
    return json_pack("{s:s, s:o, s:i, s:f, s:b, s:b, s:{s:b}}", "model", l->server.model, "prompt",
                     prompt_of(l), "max_tokens", l->args->output_tokens, "temperature", 0.0,
                     "ignore_eos", 1, "stream", 1, "stream_options", "include_usage", 1);
}

static void begin_request(client *c)
{
    load *l = c->load;
    json_t *body = body_of(l);

    c->last_ns = 0;
    c->prompt_tokens = 0;
    c->output_tokens = 0;
    l->begun++;
    c->sent_ns = tsr_clock_ns();
    if (body == NULL ||
        tsr_api_post(&l->server, c->connection, "/completions", body, &c->call) != TSR_OK) {
        l->out_of_memory = true;
        (void)event_base_loopbreak(l->server.base);
    }
    json_decref(body);
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
        c->call = (tsr_api_call){.event = on_event, .over = on_over, .context = c};
        c->connection = tsr_api_connect(&l->server);
        if (c->connection == NULL)
            return TSR_ERR_MEMORY;
        begin_request(c);
    }
    if (!l->out_of_memory)
        (void)event_base_dispatch(l->server.base);
    l->result->wall_s = (double)(tsr_clock_ns() - start_ns) / 1e9;
    return l->out_of_memory ? TSR_ERR_MEMORY : TSR_OK;
}

static void close_load(load *l)
{
    for (int32_t i = 0; l->clients != NULL && i < l->args->clients; i++) {
        tsr_api_call_close(&l->clients[i].call);
        if (l->clients[i].connection != NULL)
            evhttp_connection_free(l->clients[i].connection);
    }
    free(l->clients);
    tsr_api_close(&l->server);
    if (l->server.base != NULL)
        event_base_free(l->server.base);
}

tsr_status tsr_load_run(const tsr_load_args *args, tsr_load_result *ret_result)
{
    tsr_load_result result = {0};
    load l = {.args = args,
              .server = {.url = args->url, .key = args->key, .timeout_s = args->timeout_s},
              .result = &result,
              .random = 0x9e3779b97f4a7c15U};

    tsr_status st = tsr_api_open(&l.server);
    if (st == TSR_OK) {
        l.server.base = event_base_new();
        st = l.server.base != NULL ? tsr_api_find_model(&l.server, args->model) : TSR_ERR_MEMORY;
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
