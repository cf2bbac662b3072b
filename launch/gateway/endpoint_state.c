/* What a server says of itself: whether it is there, whether it is ready, what it runs. */
#include "launch/gateway/gateway_parts.h"

#include "runtime/base/clock.h"

#include <string.h>

enum { OK_STATUS = 200, ACCEPTED = 202, UNAVAILABLE = 503 };

static const char *message_of(const tsr_gateway *gateway)
{
    switch (gateway->state) {
    case TSR_GATEWAY_LOADING:
        return "Loading model";
    case TSR_GATEWAY_DRAINING:
        return "Draining";
    case TSR_GATEWAY_DEAD:
        return "The engine is gone";
    case TSR_GATEWAY_READY:
        break;
    }
    return "Ready";
}

void tsr_serve_health(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    const bool ready = gateway->state == TSR_GATEWAY_READY;
    tsr_json_text json = {0};

    tsr_json_add(&json, "{");
    if (!ready)
        tsr_json_add(&json,
                     "\"error\":{\"code\":%d,\"message\":\"%s\",\"type\":\"unavailable_error\"},",
                     UNAVAILABLE, message_of(gateway));
    tsr_json_add(&json, "\"status\":\"%s\",\"progress\":", tsr_gateway_state_name(gateway));
    tsr_gateway_add_progress(gateway, &json);
    tsr_json_add(&json, ",\"world_size\":");
    if (gateway->facts.ranks > 0)
        tsr_json_add(&json, "%d}", gateway->facts.ranks);
    else
        tsr_json_add(&json, "null}");
    tsr_exchange_reply_json(exchange, ready ? OK_STATUS : UNAVAILABLE, &json);
}

/* An engine that is ready and has said nothing for much longer than it may take over a step hangs. */
static bool engine_is_alive(const tsr_gateway *gateway)
{
    const int64_t heard_ms = gateway->link != NULL ? tsr_engine_link_heard_ms(gateway->link) : 0;
    const int64_t most_ms = gateway->args.config->step_timeout * 3000;

    if (gateway->state == TSR_GATEWAY_DEAD)
        return false;
    return gateway->state != TSR_GATEWAY_READY || heard_ms == 0 ||
           tsr_clock_ms() - heard_ms < most_ms;
}

void tsr_serve_live(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    const bool alive = engine_is_alive(gateway);
    tsr_json_text json = {0};

    tsr_json_add(&json, "{\"status\":\"%s\"}", alive ? "ok" : "dead");
    tsr_exchange_reply_json(exchange, alive ? OK_STATUS : UNAVAILABLE, &json);
}

void tsr_serve_version(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    tsr_json_text json = {0};

    (void)gateway;
    tsr_json_add(&json, "{\"version\":\"%s\"}", TSR_VERSION);
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}

static void add_names(const tsr_gateway *gateway, tsr_json_text *json)
{
    const tsr_option_list *names = &gateway->args.config->served_model_name;

    tsr_json_add(json, ",\"model\":{\"names\":[");
    tsr_json_add_word(json, gateway->model_name);
    for (int32_t i = 1; i < names->count; i++) {
        tsr_json_add(json, ",");
        tsr_json_add_word(json, names->items[i]);
    }
    tsr_json_add(json, "],\"root\":");
    tsr_json_add_word(json, gateway->args.folder);
    tsr_json_add(json, "}");
}

static void add_load(const tsr_gateway *gateway, tsr_json_text *json)
{
    const tsr_engine_load *load = &gateway->load;

    tsr_json_add(json,
                 ",\"requests\":{\"live\":%zu,\"running\":%d,\"waiting\":%d},\"kv_blocks\":"
                 "{\"used\":%llu,\"all\":%llu}",
                 gateway->answers.live, load->running, load->waiting,
                 (unsigned long long)load->kv_blocks_used, (unsigned long long)load->kv_blocks);
    tsr_json_add(json,
                 ",\"tokens\":{\"prompt\":%llu,\"output\":%llu},\"steps\":%llu,"
                 "\"preemptions\":%llu",
                 (unsigned long long)gateway->metrics.prompt_tokens,
                 (unsigned long long)gateway->metrics.output_tokens,
                 (unsigned long long)load->steps, (unsigned long long)load->preemptions);
}

void tsr_serve_server_info(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    const tsr_engine_facts *facts = &gateway->facts;
    tsr_json_text json = {0};

    tsr_json_add(&json, "{\"version\":\"%s\",\"status\":\"%s\",\"progress\":", TSR_VERSION,
                 tsr_gateway_state_name(gateway));
    tsr_gateway_add_progress(gateway, &json);
    tsr_json_add(&json, ",\"uptime_s\":%.1f,\"engine_restarts\":%llu",
                 (double)(tsr_clock_ns() - gateway->begun_ns) / 1e9,
                 (unsigned long long)gateway->metrics.restarts);
    add_names(gateway, &json);
    tsr_json_add(&json,
                 ",\"ranks\":%d,\"max_model_len\":%d,\"vocab_size\":%d,\"max_num_seqs\":%d,"
                 "\"kv_tokens\":%lld",
                 facts->ranks, facts->max_model_len, facts->vocab, facts->max_num_seqs,
                 (long long)facts->kv_tokens);
    add_load(gateway, &json);
    tsr_json_add(&json,
                 ",\"connections\":%zu,\"engine\":", tsr_http_server_connections(gateway->server));
    /* longer than a piece of json_text.h may be */
    if (json.status == TSR_OK)
        json.status =
            tsr_text_add_string(&json.text, gateway->info != NULL ? gateway->info : "null");
    tsr_json_add(&json, "}");
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}

void tsr_serve_experts(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    const tsr_engine_load *load = &gateway->load;
    const size_t layers = load->layers > 0 ? (size_t)load->layers : 0;
    const size_t experts = layers > 0 ? load->expert_token_count / layers : 0;
    tsr_json_text json = {0};

    tsr_json_add(&json, "{\"layers\":%zu,\"experts\":%zu,\"steps\":%llu,\"tokens\":[", layers,
                 experts, (unsigned long long)load->expert_steps);
    for (size_t layer = 0; layer < layers; layer++) {
        tsr_json_add(&json, "%s[", layer > 0 ? "," : "");
        for (size_t e = 0; e < experts; e++)
            tsr_json_add(&json, "%s%llu", e > 0 ? "," : "",
                         (unsigned long long)load->expert_tokens[layer * experts + e]);
        tsr_json_add(&json, "]");
    }
    tsr_json_add(&json, "]}");
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}

static void add_choice(const tsr_choice *choice, int64_t now_ns, tsr_json_text *json)
{
    const bool ended = choice->id == 0;
    const bool waits = choice->first_ns == 0;

    tsr_json_add(json, "{\"index\":%d,\"state\":\"%s\",\"output_tokens\":%d,\"first_token_s\":",
                 choice->index,
                 ended   ? "ended"
                 : waits ? "waiting"
                         : "running",
                 choice->output_tokens);
    if (waits)
        tsr_json_add(json, "null}");
    else
        tsr_json_add(json, "%.3f}", (double)(now_ns - choice->first_ns) / 1e9);
}

/* Neither texts nor keys: who may look need not be who asked. */
static void add_request(const tsr_answer *answer, int64_t now_ns, tsr_json_text *json)
{
    const tsr_generation *g = &answer->generation;
    size_t prompt_tokens = 0;

    for (size_t i = 0; i < g->prompt_count; i++)
        prompt_tokens += g->prompts[i].count;
    tsr_json_add(json, "{\"id\":\"%s\",\"request_id\":", answer->id);
    tsr_json_add_word(json, answer->exchange->request_id);
    tsr_json_add(
        json,
        ",\"age_s\":%.3f,\"stream\":%s,\"prompts\":%zu,\"prompt_tokens\":%zu,\"max_tokens\":%d,"
        "\"choices\":[",
        (double)(now_ns - answer->exchange->begun_ns) / 1e9, answer->stream ? "true" : "false",
        g->prompt_count, prompt_tokens, g->request.max_tokens);
    for (size_t i = 0; i < answer->choice_count; i++) {
        tsr_json_add(json, i > 0 ? "," : "");
        add_choice(&answer->choices[i], now_ns, json);
    }
    tsr_json_add(json, "]}");
}

void tsr_serve_requests(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    const int64_t now_ns = tsr_clock_ns();
    const tsr_answer *first = gateway->answers.first;
    tsr_json_text json = {0};

    tsr_json_add(&json, "{\"requests\":[");
    for (const tsr_answer *a = first; a != NULL; a = a->next) {
        tsr_json_add(&json, a != first ? "," : "");
        add_request(a, now_ns, &json);
    }
    tsr_json_add(&json, "]}");
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}

void tsr_serve_drain(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    tsr_json_text json = {0};

    tsr_gateway_drain(gateway);
    tsr_json_add(&json, "{\"status\":\"draining\",\"requests\":%zu}", gateway->answers.live);
    tsr_exchange_reply_json(exchange, ACCEPTED, &json);
}
