/* A value that is given is checked before it is used; one that is not comes from the checkpoint's
 * generation_config.json, else from OpenAI's API. */
#include "launch/request/request_body.h"

#include "launch/request/request_fields.h"
#include "launch/request/request_form.h"
#include "launch/request/request_prompt.h"
#include "launch/request/request_rules.h"

#include <stdlib.h>
#include <string.h>

enum {
    COMPLETION_TOKENS = 16, /* OpenAI's default for completions */
    MAX_STOP_IDS = 64,
    MAX_STOP_STRINGS = 64, /* each byte of an answer is held against every one */
    MAX_STOP_BYTES = 1024,
};

static tsr_status read_sampling(const json_t *body, const tsr_request_context *context,
                                tsr_request *request, tsr_refusal *ret_refusal)
{
    static const tsr_body_range temperature_range = {"temperature", 0, 2, false};
    static const tsr_body_range top_p_range = {"top_p", 1e-9, 1, false};
    static const tsr_body_range top_k_range = {"top_k", -1, 1e6, true};
    const tsr_generation_defaults *defaults = &context->generation;
    double temperature = defaults->has_temperature ? (double)defaults->temperature : 1.0;
    double top_p = defaults->has_top_p ? (double)defaults->top_p : 1.0;
    double top_k = defaults->has_top_k ? (double)defaults->top_k : 0.0;

    tsr_status st = tsr_request_number(body, &temperature_range, &temperature, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_number(body, &top_p_range, &top_p, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_number(body, &top_k_range, &top_k, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_flag(body, "ignore_eos", &request->ignore_eos, ret_refusal);
    if (st != TSR_OK)
        return st;

    const json_t *seed = json_object_get(body, "seed");
    if (seed != NULL && !json_is_null(seed) && !json_is_integer(seed))
        return tsr_refuse(ret_refusal, "invalid_value", "seed",
                          "seed: expected a whole number of 64 bits");
    request->has_seed = json_is_integer(seed);
    request->seed = (uint64_t)json_integer_value(seed);
    request->temperature = (float)temperature;
    request->top_p = (float)top_p;
    request->top_k = top_k > 0 ? (int32_t)top_k : 0;
    return TSR_OK;
}

/* Requests share with those of the same salt alone; it is told by 64 bits (FNV-1a, mixed at the end). */
static uint64_t salt_of(const char *text)
{
    uint64_t h = 0xcbf29ce484222325U;

    for (const char *c = text; *c != '\0'; c++)
        h = (h ^ (unsigned char)*c) * 0x100000001b3U;
    h = (h ^ (h >> 32)) * 0x9e3779b97f4a7c15U;
    return h ^ (h >> 29);
}

/* When it is computed, and with whom it shares keys and values. */
static tsr_status read_place(const json_t *body, tsr_request *request, tsr_refusal *ret_refusal)
{
    static const tsr_body_range priority_range = {"priority", INT32_MIN, INT32_MAX, true};
    const json_t *salt = json_object_get(body, "cache_salt");
    double priority = 0;

    const tsr_status st = tsr_request_number(body, &priority_range, &priority, ret_refusal);
    if (st != TSR_OK)
        return st;
    request->priority = (int32_t)priority;
    if (salt == NULL || json_is_null(salt))
        return TSR_OK;
    if (!json_is_string(salt) || json_string_length(salt) == 0)
        return tsr_refuse(ret_refusal, "invalid_value", "cache_salt",
                          "cache_salt: expected a text that is not empty");
    request->cache_salt = salt_of(json_string_value(salt));
    return TSR_OK;
}

/* The room an answer has: what was asked for, or the rest of the context. */
static tsr_status read_max_tokens(const json_t *body, const tsr_request_context *context,
                                  tsr_generation *generation, tsr_refusal *ret_refusal)
{
    static const tsr_body_range old_name = {"max_tokens", 0, INT32_MAX, true};
    static const tsr_body_range new_name = {"max_completion_tokens", 1, INT32_MAX, true};
    double asked = 0;
    size_t longest = 0;

    for (size_t i = 0; i < generation->prompt_count; i++) {
        if (generation->prompts[i].count > longest)
            longest = generation->prompts[i].count;
    }
    tsr_status st = tsr_request_number(body, &old_name, &asked, ret_refusal);
    if (st == TSR_OK && generation->chat)
        st = tsr_request_number(body, &new_name, &asked, ret_refusal);
    if (st != TSR_OK)
        return st;

    const int32_t room = context->max_model_len - (int32_t)longest;
    if (asked == 0 && json_is_integer(json_object_get(body, old_name.name))) {
        generation->request.max_tokens = 0;
        return generation->echo ? TSR_OK
                                : tsr_refuse(ret_refusal, "invalid_value", "max_tokens",
                                             "max_tokens: 0 is for prompts that are echoed");
    }
    if (asked > (double)room)
        return tsr_refuse(ret_refusal, "context_length_exceeded", "max_tokens",
                          "This model's maximum context length is %d tokens. However, you "
                          "requested %.0f tokens (%zu in the %s, %.0f in the completion).",
                          context->max_model_len, asked + (double)longest, longest,
                          generation->chat ? "messages" : "prompt", asked);
    if (asked == 0 && context->generation.max_new_tokens > 0)
        asked =
            context->generation.max_new_tokens < room ? context->generation.max_new_tokens : room;
    if (asked == 0 && !generation->chat)
        asked = room < COMPLETION_TOKENS ? room : COMPLETION_TOKENS;
    generation->request.max_tokens = asked > 0 ? (int32_t)asked : room;
    return TSR_OK;
}

static tsr_status read_stops(const json_t *body, tsr_generation *generation,
                             tsr_refusal *ret_refusal)
{
    const json_t *stop = json_object_get(body, "stop");
    const size_t count = json_is_string(stop) ? 1 : json_array_size(stop);

    if (stop != NULL && !json_is_null(stop) && !json_is_string(stop) && !json_is_array(stop))
        return tsr_refuse(ret_refusal, "invalid_value", "stop",
                          "stop: expected a string or a list of strings");
    if (count > MAX_STOP_STRINGS)
        return tsr_refuse(ret_refusal, "invalid_value", "stop",
                          "stop: expected up to %d strings, there are %zu", MAX_STOP_STRINGS,
                          count);
    if (count == 0)
        return TSR_OK;
    generation->stops = calloc(count, sizeof(char *));
    if (generation->stops == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const json_t *one = json_is_string(stop) ? stop : json_array_get(stop, i);
        const char *text = json_string_value(one);
        if (text == NULL || text[0] == '\0' || strlen(text) != json_string_length(one))
            return tsr_refuse(ret_refusal, "invalid_value", "stop",
                              "stop: element %zu is not a string, is empty or holds a zero byte",
                              i);
        if (strlen(text) > MAX_STOP_BYTES)
            return tsr_refuse(ret_refusal, "invalid_value", "stop",
                              "stop: element %zu is longer than %d bytes", i, MAX_STOP_BYTES);
        generation->stops[i] = strdup(text);
        if (generation->stops[i] == NULL)
            return TSR_ERR_MEMORY;
        generation->stop_count++;
    }
    return TSR_OK;
}

static tsr_status read_stop_ids(const json_t *body, tsr_request *request, tsr_refusal *ret_refusal)
{
    const json_t *given = json_object_get(body, "stop_token_ids");
    const size_t count = json_array_size(given);

    if (given != NULL && !json_is_null(given) && (!json_is_array(given) || count > MAX_STOP_IDS))
        return tsr_refuse(ret_refusal, "invalid_value", "stop_token_ids",
                          "stop_token_ids: expected a list of up to %d ids", MAX_STOP_IDS);
    if (count == 0)
        return TSR_OK;

    int32_t *ids = calloc(count, sizeof(*ids));
    if (ids == NULL)
        return TSR_ERR_MEMORY;
    request->stop_ids = ids;
    request->stop_id_count = (int32_t)count;
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(given, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return tsr_refuse(ret_refusal, "invalid_value", "stop_token_ids",
                              "stop_token_ids: element %zu is not a token id", i);
        ids[i] = (int32_t)json_integer_value(id);
    }
    return TSR_OK;
}

static tsr_status read_kind(const json_t *body, tsr_body_kind kind, tsr_generation *generation,
                            tsr_refusal *ret_refusal)
{
    if (!json_is_object(body))
        return tsr_refuse(ret_refusal, "invalid_value", "body", "body: expected an object");
    const bool messages = json_object_get(body, "messages") != NULL;
    const bool prompt = json_object_get(body, "prompt") != NULL;

    if (kind == TSR_BODY_BY_CONTENT && messages == prompt)
        return tsr_refuse(ret_refusal, "invalid_value", messages ? "messages" : "body",
                          "body: expected either messages or prompt");
    generation->chat = kind == TSR_BODY_CHAT || (kind == TSR_BODY_BY_CONTENT && messages);
    if (generation->chat ? !messages : !prompt)
        return tsr_refuse(ret_refusal, "invalid_value", generation->chat ? "messages" : "prompt",
                          "body: %s is missing", generation->chat ? "messages" : "prompt");
    return TSR_OK;
}

tsr_status tsr_request_body_read(const json_t *body, tsr_body_kind kind,
                                 const tsr_request_context *context, tsr_generation *ret_generation,
                                 tsr_refusal *ret_refusal)
{
    tsr_generation g = {.skip_special = true};

    tsr_status st = read_kind(body, kind, &g, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_fields_check(body, context, ret_refusal);
    if (st == TSR_OK)
        st = read_sampling(body, context, &g.request, ret_refusal);
    if (st == TSR_OK)
        st = read_place(body, &g.request, ret_refusal);
    if (st == TSR_OK)
        st = read_stops(body, &g, ret_refusal);
    if (st == TSR_OK)
        st = read_stop_ids(body, &g.request, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_rules_read(body, context, &g, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_told_read(body, &g, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_flag(body, "include_stop_str_in_output", &g.include_stop, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_flag(body, "skip_special_tokens", &g.skip_special, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_prompt_read(body, context, &g, ret_refusal);
    if (st == TSR_OK)
        st = tsr_request_form_read(body, &g, ret_refusal);
    if (st == TSR_OK)
        st = read_max_tokens(body, context, &g, ret_refusal);

    if (st == TSR_OK)
        *ret_generation = g;
    else
        tsr_generation_close(&g);
    return st;
}
