/*
 * /v1/completions and /v1/chat/completions: a body into requests of the engine. What is the
 * gateway's own to answer (model, n, stream) is taken out of the body before it is read as a
 * generation.
 */
#include "launch/gateway/gateway_parts.h"
#include "launch/request/chat_message.h"

#include "launch/request/request_body.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define PROBE_NS (20 * (int64_t)1000000000)

enum { MOST_CHOICES = 4096, NOT_FOUND = 404, UNAVAILABLE = 503 };

static tsr_status read_bool(const json_t *object, const char *name, bool *value,
                            tsr_refusal *refusal)
{
    const json_t *given = json_object_get(object, name);

    if (given == NULL || json_is_null(given))
        return TSR_OK;
    if (!json_is_boolean(given))
        return tsr_refuse(refusal, "invalid_value", name, "%s: expected true or false", name);
    *value = json_is_true(given);
    return TSR_OK;
}

static tsr_status read_stream(json_t *body, tsr_answer *answer, tsr_refusal *refusal)
{
    const json_t *options = json_object_get(body, "stream_options");
    tsr_status st = read_bool(body, "stream", &answer->stream, refusal);

    if (st == TSR_OK && options != NULL && !json_is_null(options) && !json_is_object(options))
        st = tsr_refuse(refusal, "invalid_value", "stream_options",
                        "stream_options: expected an object");
    if (st == TSR_OK)
        st = read_bool(options, "include_usage", &answer->include_usage, refusal);
    if (st == TSR_OK)
        st = read_bool(options, "continuous_usage_stats", &answer->continuous_usage, refusal);
    (void)json_object_del(body, "stream");
    (void)json_object_del(body, "stream_options");
    return st;
}

static tsr_status read_model(const tsr_gateway *gateway, json_t *body, tsr_refusal *refusal)
{
    const json_t *given = json_object_get(body, "model");
    const char *name = json_string_value(given);

    if (given == NULL || json_is_null(given))
        return TSR_OK;
    if (name == NULL)
        return tsr_refuse(refusal, "invalid_value", "model", "model: expected a string");
    if (tsr_gateway_has_model(gateway, name))
        return TSR_OK;
    const tsr_status st = tsr_refuse(refusal, "model_not_found", "model",
                                     "The model `%.200s` does not exist; this server has `%.200s`",
                                     name, gateway->model_name);
    refusal->status = NOT_FOUND;
    return st;
}

/* With --strict-api a field that nobody knows is a mistake. */
static tsr_status check_unknown(const tsr_gateway *gateway, const json_t *unknown,
                                tsr_refusal *refusal)
{
    const char *name = json_object_iter_key(json_object_iter((json_t *)(uintptr_t)unknown));

    if (!gateway->args.config->strict_api || name == NULL)
        return TSR_OK;
    return tsr_refuse(refusal, "unsupported_parameter", name, "%.64s: not known", name);
}

static tsr_status read_generation(const tsr_gateway *gateway, const json_t *body,
                                  tsr_body_kind kind, tsr_answer *answer, tsr_refusal *refusal)
{
    tsr_request_context context = gateway->args.text->context;
    const bool strict = gateway->args.config->strict_api;

    if (strict)
        context.unknown = json_object();
    tsr_status st = tsr_request_body_read(body, kind, &context, &answer->generation, refusal);
    if (st == TSR_OK)
        st = check_unknown(gateway, strict ? context.unknown : NULL, refusal);
    if (strict)
        json_decref(context.unknown);
    return st;
}

static tsr_status open_choice(tsr_choice *choice, const tsr_generation *g,
                              const tsr_tokenizer *tokenizer)
{
    const tsr_ids *prompt = &g->prompts[choice->index / g->copies];

    choice->logprobs.top_count = g->request.top;
    choice->prompt_logprobs.top_count = g->prompt_top > 0 ? g->prompt_top : 0;
    tsr_status st = tsr_text_stream_open(tokenizer, g->skip_special, (const char *const *)g->stops,
                                         g->stop_count, g->include_stop, &choice->stream);
    if (st == TSR_OK && g->chat)
        st = tsr_chat_parser_open(g, &choice->parser);
    if (st == TSR_OK && g->echo)
        st = tsr_text_stream_echo(&choice->stream, prompt->ids, prompt->count);
    if (st == TSR_OK && g->echo && g->logprobs)
        st = tsr_logprobs_add_first(&choice->logprobs, prompt->ids[0]);
    if (st == TSR_OK && g->prompt_top >= 0)
        st = tsr_logprobs_add_first(&choice->prompt_logprobs, prompt->ids[0]);
    return st;
}

static tsr_status open_choices(tsr_answer *answer, tsr_refusal *refusal)
{
    const tsr_generation *g = &answer->generation;
    const size_t count = g->prompt_count * (size_t)answer->copies;
    tsr_status st = TSR_OK;

    if (count > MOST_CHOICES)
        return tsr_refuse(refusal, "invalid_value", "n",
                          "n times prompts: more than %d answers; make several requests of it",
                          MOST_CHOICES);
    answer->choices = calloc(count, sizeof(*answer->choices));
    if (answer->choices == NULL)
        return TSR_ERR_MEMORY;
    answer->choice_count = count;
    for (size_t i = 0; i < count; i++) {
        answer->choices[i].answer = answer;
        answer->choices[i].index = (int32_t)i;
        answer->choices[i].stream.matched = -1;
        if (st == TSR_OK)
            st = open_choice(&answer->choices[i], g, answer->gateway->args.text->tokenizer);
    }
    return st;
}

/* What is known of an answer, or of its prompt, once it is whole. */
static tsr_status check_stream(const tsr_answer *answer, tsr_refusal *refusal)
{
    const tsr_generation *g = &answer->generation;

    if (!answer->stream || (g->kept == g->copies && g->prompt_top < 0))
        return TSR_OK;
    return tsr_refuse(refusal, "invalid_value", g->prompt_top >= 0 ? "prompt_logprobs" : "best_of",
                      "%s: is not told in a stream",
                      g->prompt_top >= 0 ? "prompt_logprobs" : "best_of of more than n");
}

static tsr_status read_answer(tsr_gateway *gateway, json_t *body, tsr_body_kind kind,
                              tsr_answer *answer, tsr_refusal *refusal)
{
    tsr_status st = read_model(gateway, body, refusal);
    if (st == TSR_OK)
        st = read_stream(body, answer, refusal);
    if (st == TSR_OK)
        st = read_generation(gateway, body, kind, answer, refusal);
    answer->copies = st == TSR_OK ? answer->generation.copies : 1;
    if (st == TSR_OK)
        st = check_stream(answer, refusal);
    return st == TSR_OK ? open_choices(answer, refusal) : st;
}

/* A seed that nobody gave: an answer must be able to go on where it was when its engine is lost. */
static uint64_t draw_seed(void)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint64_t)tsr_clock_ns() * 0x9e3779b97f4a7c15U;
    return seed;
}

static tsr_status submit(tsr_answer *answer)
{
    tsr_gateway *gateway = answer->gateway;
    const tsr_generation *g = &answer->generation;

    for (size_t i = 0; i < answer->choice_count; i++) {
        tsr_choice *choice = &answer->choices[i];
        const tsr_ids *prompt = &g->prompts[i / (size_t)answer->copies];
        tsr_request request = g->request;
        tsr_status st = tsr_answer_list_name(&gateway->answers, choice);
        if (st != TSR_OK)
            return st;
        request.id = choice->id;
        request.prompt = prompt->ids;
        request.prompt_tokens = (int32_t)prompt->count;
        request.seed =
            g->request.has_seed ? g->request.seed + i % (size_t)answer->copies : draw_seed();
        request.has_seed = true;
        st = tsr_engine_link_submit(gateway->link, &request);
        if (st != TSR_OK) {
            tsr_answer_list_unname(&gateway->answers, choice);
            return st;
        }
    }
    return TSR_OK;
}

static void observe_request(const tsr_answer *answer)
{
    tsr_metrics *metrics = &answer->gateway->metrics;

    tsr_metrics_observe(metrics, TSR_HISTOGRAM_COPIES, answer->copies);
    tsr_metrics_observe(metrics, TSR_HISTOGRAM_MAX_TOKENS, answer->generation.request.max_tokens);
    for (size_t i = 0; i < answer->generation.prompt_count; i++)
        tsr_metrics_observe(metrics, TSR_HISTOGRAM_PROMPT_TOKENS,
                            (double)answer->generation.prompts[i].count);
}

static void fail_reading(tsr_answer *answer, tsr_status st, tsr_refusal *refusal)
{
    if (st != TSR_ERR_ARG) {
        (void)tsr_refuse(refusal, st == TSR_ERR_MEMORY ? "out_of_memory" : "internal_error", NULL,
                         "%s", tsr_status_text(st));
        refusal->status = UNAVAILABLE;
    }
    tsr_answer_fail(answer, refusal);
}

/* NULL: out of memory, and said so. */
static tsr_answer *open_answer(tsr_gateway *gateway, tsr_http_exchange *exchange,
                               const char *id_front)
{
    tsr_answer *answer = calloc(1, sizeof(*answer));

    if (answer == NULL) {
        tsr_error_say(exchange, UNAVAILABLE, "out_of_memory", "%s",
                      tsr_status_text(TSR_ERR_MEMORY));
        return NULL;
    }
    answer->gateway = gateway;
    answer->exchange = exchange;
    answer->created = (int64_t)time(NULL);
    answer->sent_ns = tsr_clock_ns();
    (void)snprintf(answer->id, sizeof(answer->id), "%s-%016llx", id_front,
                   (unsigned long long)draw_seed());
    exchange->answer = answer;
    tsr_answer_list_add(&gateway->answers, answer);
    return answer;
}

static void run_answer(tsr_answer *answer, json_t *body, tsr_body_kind kind)
{
    tsr_refusal refusal = {0};

    tsr_status st = read_answer(answer->gateway, body, kind, answer, &refusal);
    if (st == TSR_OK) {
        observe_request(answer);
        st = submit(answer);
    }
    if (st != TSR_OK)
        fail_reading(answer, st, &refusal);
}

static void begin_answer(tsr_gateway *gateway, tsr_http_exchange *exchange, tsr_body_kind kind)
{
    if (!tsr_gateway_takes(gateway, exchange, 1))
        return;
    json_t *body = tsr_exchange_read_json(exchange);
    if (body == NULL)
        return;
    tsr_answer *answer =
        open_answer(gateway, exchange, kind == TSR_BODY_CHAT ? "chatcmpl" : "cmpl");
    if (answer != NULL)
        run_answer(answer, body, kind);
    json_decref(body);
}

/* One token, before whatever waits. Where the engine has no room for it, others' tokens speak for it. */
void tsr_serve_health_generate(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    if (!tsr_gateway_takes(gateway, exchange, 0))
        return;
    json_t *body = json_pack("{s:[[i]], s:i, s:f, s:b, s:i}", "prompt", 0, "max_tokens", 1,
                             "temperature", 0.0, "ignore_eos", 1, "priority", INT32_MIN);
    tsr_answer *answer = open_answer(gateway, exchange, "health");
    if (answer != NULL) {
        answer->is_probe = true;
        answer->due_ns = tsr_clock_ns() + PROBE_NS;
        answer->tokens_before = gateway->metrics.output_tokens;
        run_answer(answer, body, TSR_BODY_COMPLETION);
    }
    json_decref(body);
}

void tsr_serve_completions(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    begin_answer(gateway, exchange, TSR_BODY_COMPLETION);
}

void tsr_serve_chat(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    begin_answer(gateway, exchange, TSR_BODY_CHAT);
}
