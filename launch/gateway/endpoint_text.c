/* Text into ids and back, for clients that have no tokenizer; and what the chat template makes of
 * messages. Served before there is an engine. */
#include "launch/gateway/gateway_parts.h"

#include "launch/request/request_prompt.h"
#include "runtime/text/detokenizer.h"

#include <string.h>

enum {
    OK_STATUS = 200,
    UNAVAILABLE = 503,
    MOST_TOKENS = 1 << 20,
    MOST_TEXT_BYTES = 16 << 20,
};

static void fail(tsr_http_exchange *exchange, tsr_status st, tsr_refusal *refusal)
{
    if (st != TSR_ERR_ARG) {
        (void)tsr_refuse(refusal, st == TSR_ERR_MEMORY ? "out_of_memory" : "internal_error", NULL,
                         "%s", tsr_status_text(st));
        refusal->status = UNAVAILABLE;
    }
    tsr_error_reply(exchange, refusal, 0);
}

/* What is rendered here need not fit the context of the model. */
static tsr_request_context loose_context(const tsr_gateway *gateway)
{
    tsr_request_context context = gateway->args.text->context;
    context.max_model_len = MOST_TOKENS;
    context.max_prompt_bytes = MOST_TEXT_BYTES;
    return context;
}

static tsr_status read_flag(const json_t *body, const char *name, bool *value, tsr_refusal *refusal)
{
    const json_t *given = json_object_get(body, name);

    if (given == NULL || json_is_null(given))
        return TSR_OK;
    if (!json_is_boolean(given))
        return tsr_refuse(refusal, "invalid_value", name, "%s: expected true or false", name);
    *value = json_is_true(given);
    return TSR_OK;
}

/* The text to tokenize: a prompt as it stands, or messages in their template. */
static tsr_status read_text(const tsr_gateway *gateway, const json_t *body, tsr_text *text,
                            tsr_refusal *refusal)
{
    const tsr_request_context context = loose_context(gateway);
    const json_t *prompt = json_object_get(body, "prompt");

    if (json_object_get(body, "messages") != NULL)
        return tsr_request_prompt_render(body, &context, text, refusal);
    if (!json_is_string(prompt))
        return tsr_refuse(refusal, "invalid_value", "prompt",
                          "prompt: expected a string, or messages in its place");
    if (json_string_length(prompt) > MOST_TEXT_BYTES)
        return tsr_refuse(refusal, "invalid_value", "prompt", "prompt: more than %d MiB of text",
                          MOST_TEXT_BYTES >> 20);
    return tsr_text_add(text, json_string_value(prompt), json_string_length(prompt));
}

static tsr_status encode(const tsr_gateway *gateway, const tsr_text *text, bool add_special,
                         tsr_ids *ids, tsr_refusal *refusal)
{
    const tsr_tokenizer *tokenizer = gateway->args.text->tokenizer;
    const char *bytes = text->bytes != NULL ? text->bytes : "";

    ids->most = MOST_TOKENS;
    const tsr_status st = add_special
                              ? tsr_tokenizer_encode_alone(tokenizer, bytes, text->count, ids)
                              : tsr_tokenizer_encode(tokenizer, bytes, text->count, false, ids);
    if (st != TSR_ERR_CAPACITY)
        return st;
    return tsr_refuse(refusal, "invalid_value", "prompt",
                      ids->full ? "prompt: more than %d tokens"
                                : "prompt: a word takes too long to find, of %d tokens at most",
                      MOST_TOKENS);
}

static void add_token_strings(const tsr_gateway *gateway, const tsr_ids *ids, tsr_json_text *json)
{
    tsr_json_add(json, "[");
    for (size_t i = 0; i < ids->count; i++) {
        const char *bytes = "";
        size_t count = 0;
        bool special = false;
        (void)tsr_tokenizer_bytes(gateway->args.text->tokenizer, ids->ids[i], &bytes, &count,
                                  &special);
        if (i > 0)
            tsr_json_add(json, ",");
        tsr_json_add_string(json, bytes, count);
    }
    tsr_json_add(json, "]");
}

static void add_max_model_len(const tsr_gateway *gateway, tsr_json_text *json)
{
    if (gateway->facts.max_model_len > 0)
        tsr_json_add(json, "\"max_model_len\":%d", gateway->facts.max_model_len);
    else
        tsr_json_add(json, "\"max_model_len\":null");
}

static void reply_tokens(const tsr_gateway *gateway, tsr_http_exchange *exchange,
                         const tsr_ids *ids, bool strings)
{
    tsr_json_text json = {0};

    tsr_json_add(&json, "{\"count\":%zu,", ids->count);
    add_max_model_len(gateway, &json);
    tsr_json_add(&json, ",\"tokens\":[");
    for (size_t i = 0; i < ids->count; i++)
        tsr_json_add(&json, "%s%d", i > 0 ? "," : "", ids->ids[i]);
    tsr_json_add(&json, "],\"token_strs\":");
    if (strings)
        add_token_strings(gateway, ids, &json);
    else
        tsr_json_add(&json, "null");
    tsr_json_add(&json, "}");
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}

void tsr_serve_tokenize(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    tsr_refusal refusal = {0};
    tsr_text text = {0};
    tsr_ids ids = {0};
    bool strings = false;
    json_t *body = tsr_exchange_read_json(exchange);
    if (body == NULL)
        return;

    bool add_special = json_object_get(body, "messages") == NULL;
    tsr_status st = read_flag(body, "add_special_tokens", &add_special, &refusal);
    if (st == TSR_OK)
        st = read_flag(body, "return_token_strs", &strings, &refusal);
    if (st == TSR_OK)
        st = read_text(gateway, body, &text, &refusal);
    if (st == TSR_OK)
        st = encode(gateway, &text, add_special, &ids, &refusal);
    if (st == TSR_OK)
        reply_tokens(gateway, exchange, &ids, strings);
    else
        fail(exchange, st, &refusal);
    tsr_ids_close(&ids);
    tsr_text_close(&text);
    json_decref(body);
}

static tsr_status decode(const tsr_gateway *gateway, const json_t *tokens, tsr_text *text,
                         tsr_refusal *refusal)
{
    const tsr_tokenizer *tokenizer = gateway->args.text->tokenizer;
    tsr_detokenizer detokenizer = {.tokenizer = tokenizer};
    const size_t count = json_array_size(tokens);
    tsr_status st = TSR_OK;

    if (!json_is_array(tokens) || count > MOST_TOKENS)
        return tsr_refuse(refusal, "invalid_value", "tokens",
                          "tokens: expected a list of up to %d ids", MOST_TOKENS);
    for (size_t i = 0; i < count && st == TSR_OK; i++) {
        const json_t *id = json_array_get(tokens, i);
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= tsr_tokenizer_ids(tokenizer))
            return tsr_refuse(refusal, "invalid_value", "tokens",
                              "tokens: element %zu is not a token id from 0 to %d", i,
                              tsr_tokenizer_ids(tokenizer) - 1);
        st = tsr_detokenizer_push(&detokenizer, (int32_t)value, text);
    }
    return st == TSR_OK ? tsr_detokenizer_finish(&detokenizer, text) : st;
}

/* {"prompt": TEXT} */
static void reply_prompt(tsr_http_exchange *exchange, const tsr_text *text)
{
    tsr_json_text json = {0};

    tsr_json_add(&json, "{\"prompt\":");
    tsr_json_add_string(&json, text->bytes != NULL ? text->bytes : "", text->count);
    tsr_json_add(&json, "}");
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}

void tsr_serve_detokenize(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    tsr_refusal refusal = {0};
    tsr_text text = {0};
    json_t *body = tsr_exchange_read_json(exchange);
    if (body == NULL)
        return;

    const tsr_status st = decode(gateway, json_object_get(body, "tokens"), &text, &refusal);
    if (st == TSR_OK)
        reply_prompt(exchange, &text);
    else
        fail(exchange, st, &refusal);
    tsr_text_close(&text);
    json_decref(body);
}

void tsr_serve_apply_template(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    const tsr_request_context context = loose_context(gateway);
    tsr_refusal refusal = {0};
    tsr_text text = {0};
    json_t *body = tsr_exchange_read_json(exchange);
    if (body == NULL)
        return;

    const tsr_status st = tsr_request_prompt_render(body, &context, &text, &refusal);
    if (st == TSR_OK)
        reply_prompt(exchange, &text);
    else
        fail(exchange, st, &refusal);
    tsr_text_close(&text);
    json_decref(body);
}

void tsr_serve_tokenizer_info(tsr_gateway *gateway, tsr_http_exchange *exchange)
{
    tsr_json_text json = {0};

    tsr_json_add_value(&json, gateway->tokenizer_info);
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}
