/*
 * States, the engine's events, and the loop.
 *
 *   LOADING <--> READY --> DRAINING --> (the loop ends)
 *      \           \
 *       +-----------+----> DEAD
 */
#include "launch/gateway/gateway_parts.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MOST_BODY_BYTES = 64 << 20,
    MOST_QUEUED_BYTES = 4 << 20, /* of a stream; some 20,000 tokens of one choice */
    TICK_MS = 250,
    DRAIN_TICK_MS = 50,
    LAST_BYTES_NS = 2000000000, /* for the ends of answers to be taken, in the end */
    LEAST_QUEUE = 256,
    TOO_MANY = 429,
    UNAVAILABLE = 503,
    MOST_RETRY_S = 60,
    LOADING_RETRY_S = 5,
};

const char *tsr_gateway_state_name(const tsr_gateway *gateway)
{
    static const char *const names[] = {"loading", "ok", "draining", "dead"};
    return names[gateway->state];
}

bool tsr_gateway_has_model(const tsr_gateway *gateway, const char *name)
{
    const tsr_option_list *names = &gateway->args.config->served_model_name;

    if (names->count == 0)
        return strcmp(name, gateway->model_name) == 0;
    for (int32_t i = 0; i < names->count; i++) {
        if (strcmp(name, names->items[i]) == 0)
            return true;
    }
    return false;
}

/* Of the weights, at the pace so far; below 0: there is none. */
static double eta_s(const tsr_gateway *gateway)
{
    const double seconds = (double)(tsr_clock_ns() - gateway->loading_since_ns) / 1e9;
    const double done = (double)gateway->loading_bytes;

    if (gateway->loading_total == 0 || done <= 0)
        return -1;
    return ((double)gateway->loading_total - done) * seconds / done;
}

void tsr_gateway_add_progress(const tsr_gateway *gateway, tsr_json_text *json)
{
    const double left_s = eta_s(gateway);

    if (gateway->loading_total == 0) {
        tsr_json_add(json, "null");
        return;
    }
    tsr_json_add(json, "{\"phase\":\"weights\",\"bytes\":%llu,\"total\":%llu,\"eta_s\":",
                 (unsigned long long)gateway->loading_bytes,
                 (unsigned long long)gateway->loading_total);
    if (left_s >= 0)
        tsr_json_add(json, "%.1f}", left_s);
    else
        tsr_json_add(json, "null}");
}

/* Choices that may wait while others run. */
static size_t most_waiting(const tsr_gateway *gateway)
{
    const int64_t asked = gateway->args.config->max_queue;
    const size_t running = (size_t)gateway->facts.max_num_seqs;

    if (asked > 0)
        return (size_t)asked;
    return running * 4 > LEAST_QUEUE ? running * 4 : LEAST_QUEUE;
}

/* When those that wait may have been served, by what requests took so far. */
static int32_t retry_after_s(const tsr_gateway *gateway, size_t waiting)
{
    const tsr_histogram *whole = &gateway->metrics.histograms[TSR_HISTOGRAM_WHOLE];
    const double each = whole->count > 0 ? whole->sum / (double)whole->count : 1;
    const double seconds =
        each * (double)waiting /
        (double)(gateway->facts.max_num_seqs > 0 ? gateway->facts.max_num_seqs : 1);

    if (seconds < 1)
        return 1;
    return seconds > MOST_RETRY_S ? MOST_RETRY_S : (int32_t)seconds;
}

/* When the weights may be there. */
static int32_t loading_retry_s(const tsr_gateway *gateway)
{
    const double seconds = eta_s(gateway);

    if (seconds < 0)
        return LOADING_RETRY_S;
    return seconds < MOST_RETRY_S ? (int32_t)seconds + 1 : MOST_RETRY_S;
}

static bool refuse_state(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    tsr_refusal refusal = {.code = "model_loading", .status = UNAVAILABLE};

    if (gateway->state == TSR_GATEWAY_READY)
        return false;
    if (gateway->state == TSR_GATEWAY_DRAINING) {
        refusal.code = "draining";
        (void)snprintf(refusal.message, sizeof(refusal.message),
                       "this server is ending and takes no more requests");
    } else if (gateway->state == TSR_GATEWAY_DEAD) {
        refusal.code = "engine_dead";
        (void)snprintf(refusal.message, sizeof(refusal.message), "the engine is gone: %s",
                       gateway->lost);
    } else if (gateway->loading_total > 0) {
        (void)snprintf(
            refusal.message, sizeof(refusal.message), "Loading model: %llu of %llu bytes",
            (unsigned long long)gateway->loading_bytes, (unsigned long long)gateway->loading_total);
    } else {
        (void)snprintf(refusal.message, sizeof(refusal.message), "Loading model");
    }
    tsr_error_reply(exchange, &refusal, loading_retry_s(gateway));
    return true;
}

bool tsr_gateway_takes(tsr_gateway *gateway, tsr_http_exchange *exchange, size_t choices)
{
    const size_t runs = (size_t)gateway->facts.max_num_seqs;
    const size_t live = gateway->answers.live;
    const size_t waiting = live > runs ? live - runs : 0;
    tsr_refusal refusal = {.code = "queue_full", .status = TOO_MANY};

    if (refuse_state(gateway, exchange))
        return false;
    if (choices == 0 || waiting < most_waiting(gateway))
        return true;
    (void)snprintf(refusal.message, sizeof(refusal.message),
                   "%zu requests are waiting already; try again later", waiting);
    tsr_error_reply(exchange, &refusal, retry_after_s(gateway, waiting));
    return false;
}

static void on_loading(void *context, uint64_t bytes, uint64_t total)
{
    tsr_gateway *gateway = context;

    if (bytes < gateway->loading_bytes || gateway->loading_total == 0)
        gateway->loading_since_ns = tsr_clock_ns();
    gateway->loading_bytes = bytes;
    gateway->loading_total = total;
}

/* What a client is given as its base, without the /v1. */
static void say_where(const tsr_gateway_args *args)
{
    const char *host = args->config->host;
    const bool six = strchr(host, ':') != NULL;

    if (args->port != 0)
        tsr_log(TSR_LOG_INFO, "ready at %s://%s%s%s:%d",
                args->config->ssl_certfile != NULL ? "https" : "http", six ? "[" : "", host,
                six ? "]" : "", (int)args->port);
}

static void on_ready(void *context, const tsr_engine_facts *facts)
{
    tsr_gateway *gateway = context;

    free(gateway->info);
    gateway->info = strdup(facts->info != NULL ? facts->info : "null");
    gateway->facts = *facts;
    gateway->facts.info = gateway->info;
    tsr_text_side_set_length(gateway->args.text, facts->max_model_len);
    gateway->loading_bytes = 0;
    gateway->loading_total = 0;
    if (gateway->lost[0] != '\0')
        gateway->metrics.restarts++;
    gateway->lost[0] = '\0';
    if (gateway->state == TSR_GATEWAY_LOADING)
        gateway->state = TSR_GATEWAY_READY;
    say_where(&gateway->args);
}

static void on_output(void *context, const tsr_output *output)
{
    tsr_answer_take_output(context, output);
}

static void on_load(void *context, const tsr_engine_load *load)
{
    tsr_gateway *gateway = context;
    const size_t count = load->expert_token_count;

    if (count > gateway->expert_room) {
        uint64_t *room = realloc(gateway->expert_tokens, count * sizeof(*room));
        if (room == NULL)
            return;
        gateway->expert_tokens = room;
        gateway->expert_room = count;
    }
    const tsr_engine_load before = gateway->load;
    if (count > 0)
        memcpy(gateway->expert_tokens, load->expert_tokens, count * sizeof(*load->expert_tokens));
    gateway->load = *load;
    gateway->load.expert_tokens = gateway->expert_tokens;
    if (count > 0)
        return;
    gateway->load.layers = before.layers; /* they have not changed */
    gateway->load.expert_token_count = before.expert_token_count;
    gateway->load.expert_steps = before.expert_steps;
}

static void on_scores(void *context, const tsr_prompt_scores *scores)
{
    tsr_answer_take_scores(context, scores);
}

static void on_lost(void *context, const char *why)
{
    tsr_gateway *gateway = context;

    (void)snprintf(gateway->lost, sizeof(gateway->lost), "%s", why);
    gateway->load.running = 0;
    gateway->load.waiting = 0;
    gateway->loading_total = 0;
    if (gateway->state == TSR_GATEWAY_READY)
        gateway->state = TSR_GATEWAY_LOADING;
}

static void on_drain(void *context)
{
    tsr_gateway_drain(context);
}

tsr_engine_events tsr_gateway_events(tsr_gateway *gateway)
{
    return (tsr_engine_events){.loading = on_loading,
                               .ready = on_ready,
                               .output = on_output,
                               .scores = on_scores,
                               .load = on_load,
                               .drain = on_drain,
                               .lost = on_lost,
                               .context = gateway};
}

void tsr_gateway_attach(tsr_gateway *gateway, tsr_engine_link *link)
{
    gateway->link = link;
}

static void set_tick(tsr_gateway *gateway, int32_t ms)
{
    const struct timeval time = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    (void)event_add(gateway->tick, &time);
}

/* Ends every answer with the same error. */
static void fail_all(tsr_gateway *gateway, const char *code, const char *why)
{
    tsr_refusal refusal = {.code = code, .status = UNAVAILABLE};

    (void)snprintf(refusal.message, sizeof(refusal.message), "%s", why);
    while (gateway->answers.first != NULL)
        tsr_answer_fail(gateway->answers.first, &refusal);
}

static void begin_end(tsr_gateway *gateway)
{
    gateway->ended = true;
    gateway->ended_ns = tsr_clock_ns();
    set_tick(gateway, DRAIN_TICK_MS);
}

/* Once nothing runs any more, what was written has a moment to be taken. */
static void watch_end(tsr_gateway *gateway)
{
    if (!gateway->ended && gateway->state == TSR_GATEWAY_DRAINING && gateway->answers.first == NULL)
        begin_end(gateway);
    if (gateway->ended && (tsr_http_server_busy(gateway->server) == 0 ||
                           tsr_clock_ns() - gateway->ended_ns > LAST_BYTES_NS))
        (void)event_base_loopbreak(gateway->args.base);
}

static void on_tick(evutil_socket_t fd, short what, void *context)
{
    tsr_gateway *gateway = context;
    const bool ending = gateway->ended || gateway->state == TSR_GATEWAY_DRAINING;

    (void)fd;
    (void)what;
    set_tick(gateway, ending ? DRAIN_TICK_MS : TICK_MS);
    tsr_answer_end_probes(gateway);
    tsr_answer_ping_all(gateway);
    watch_end(gateway);
}

static void on_drain_deadline(evutil_socket_t fd, short what, void *context)
{
    tsr_gateway *gateway = context;

    (void)fd;
    (void)what;
    tsr_log(TSR_LOG_WARN, "%zu requests did not finish within --shutdown-timeout and are cut",
            gateway->answers.live);
    fail_all(gateway, "draining", "this server has ended before the answer was complete");
    begin_end(gateway);
}

void tsr_gateway_drain(tsr_gateway *gateway)
{
    const struct timeval time = {.tv_sec = (time_t)gateway->args.config->shutdown_timeout};

    if (gateway->state == TSR_GATEWAY_DRAINING || gateway->ended)
        return;
    tsr_log(TSR_LOG_INFO, "draining: %zu requests are running", gateway->answers.live);
    gateway->state = TSR_GATEWAY_DRAINING;
    (void)event_add(gateway->end, &time);
    set_tick(gateway, DRAIN_TICK_MS);
}

bool tsr_gateway_is_draining(const tsr_gateway *gateway)
{
    return gateway->state == TSR_GATEWAY_DRAINING;
}

void tsr_gateway_stop(tsr_gateway *gateway, const char *why)
{
    (void)snprintf(gateway->lost, sizeof(gateway->lost), "%s", why);
    gateway->state = TSR_GATEWAY_DEAD;
    fail_all(gateway, "engine_dead", why);
    begin_end(gateway);
}

static tsr_status open_tls(const tsr_config *config, tsr_http_tls **ret_tls)
{
    if (config->ssl_certfile == NULL && config->ssl_keyfile == NULL)
        return TSR_OK;
    if (config->ssl_certfile != NULL && config->ssl_keyfile != NULL)
        return tsr_http_tls_open(config->ssl_certfile, config->ssl_keyfile, ret_tls);
    tsr_log(TSR_LOG_ERROR, "--ssl-certfile and --ssl-keyfile go together");
    return TSR_ERR_ARG;
}

static tsr_status write_fields(const char *origin, char *fields, size_t bytes)
{
    fields[0] = '\0';
    if (origin == NULL)
        return TSR_OK;
    const int used = snprintf(fields, bytes,
                              "Access-Control-Allow-Origin: %s\r\n"
                              "Access-Control-Expose-Headers: x-request-id\r\n",
                              origin);
    if (used > 0 && (size_t)used < bytes && strpbrk(origin, "\r\n") == NULL)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "--cors-origin %.40s: expected an origin like https://example.org",
            origin);
    return TSR_ERR_ARG;
}

static tsr_status open_server(tsr_gateway *gateway)
{
    const tsr_config *config = gateway->args.config;
    const tsr_http_server_args args = {
        .base = gateway->args.base,
        .listener = gateway->args.listener,
        .tls = gateway->tls,
        .hooks = tsr_gateway_hooks(gateway),
        .client_timeout_ms = (int32_t)config->client_timeout * 1000,
        .max_body_bytes = MOST_BODY_BYTES,
        .max_queued_bytes = MOST_QUEUED_BYTES,
        .headers = gateway->fields,
    };

    gateway->args.listener = -1;
    return tsr_http_server_open(&args, &gateway->server);
}

static tsr_status open_parts(tsr_gateway *gateway)
{
    const tsr_config *config = gateway->args.config;
    const tsr_option_list *names = &config->served_model_name;

    tsr_metrics_open(&gateway->metrics);
    gateway->created = (int64_t)time(NULL);
    gateway->begun_ns = tsr_clock_ns();
    gateway->model_name = names->count > 0 ? names->items[0] : gateway->args.text->model_name;
    tsr_status st = tsr_access_keys_open(&config->api_key, &gateway->keys);
    if (st == TSR_OK)
        st = write_fields(config->cors_origin, gateway->fields, sizeof(gateway->fields));
    if (st == TSR_OK)
        st = open_tls(config, &gateway->tls);
    if (st == TSR_OK)
        st = tsr_tokenizer_info_read(gateway->args.folder, &gateway->tokenizer_info);
    if (st == TSR_OK)
        st = open_server(gateway);
    if (st != TSR_OK)
        return st;
    gateway->tick = evtimer_new(gateway->args.base, on_tick, gateway);
    gateway->end = evtimer_new(gateway->args.base, on_drain_deadline, gateway);
    return gateway->tick != NULL && gateway->end != NULL ? TSR_OK : TSR_ERR_MEMORY;
}

tsr_status tsr_gateway_open(const tsr_gateway_args *args, tsr_gateway **ret_gateway)
{
    tsr_gateway *gateway = calloc(1, sizeof(*gateway));
    if (gateway == NULL) {
        (void)evutil_closesocket(args->listener);
        return TSR_ERR_MEMORY;
    }
    gateway->args = *args;
    const tsr_status st = open_parts(gateway);
    if (st != TSR_OK) {
        tsr_gateway_close(gateway);
        return st;
    }
    *ret_gateway = gateway;
    return TSR_OK;
}

tsr_status tsr_gateway_run(tsr_gateway *gateway)
{
    set_tick(gateway, TICK_MS);
    return event_base_dispatch(gateway->args.base) < 0 ? TSR_ERR_INTERNAL : TSR_OK;
}

void tsr_gateway_close(tsr_gateway *gateway)
{
    if (gateway == NULL)
        return;
    tsr_http_server_close(gateway->server);
    if (gateway->args.listener >= 0)
        (void)evutil_closesocket(gateway->args.listener);
    tsr_http_tls_close(gateway->tls);
    if (gateway->tick != NULL)
        event_free(gateway->tick);
    if (gateway->end != NULL)
        event_free(gateway->end);
    tsr_answer_list_close(&gateway->answers);
    json_decref(gateway->tokenizer_info);
    free(gateway->expert_tokens);
    free(gateway->info);
    free(gateway);
}
