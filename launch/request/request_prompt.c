/*
 * No text is tokenized that is too long by its bytes, and none further than the context goes; nor is
 * a template run on messages of more text than that.
 *
 * What a client sends is not what templates are written for: parts become a string, arguments that
 * are JSON in a string become JSON. Done on a copy, for the body is the caller's.
 *
 * What the template sees, the later over the earlier: our defaults, --default-chat-template-kwargs,
 * the body's add_generation_prompt and reasoning_effort, its chat_template_kwargs, its messages.
 */
#include "launch/request/request_prompt.h"

#include "runtime/base/json_file.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPTS = 4096, MAX_IDS = 4 << 20 /* of all prompts of a request */ };

/* Bytes of text that normalising may make one of: three parts of a Korean syllable, or a letter
 * under accents. */
enum { NORMALISED_BYTES = 4 };

size_t tsr_request_prompt_most_bytes(const tsr_tokenizer *tokenizer, int32_t max_model_len)
{
    return tsr_tokenizer_longest_token(tokenizer) * NORMALISED_BYTES * (size_t)max_model_len;
}

/* `count` 0: more than the context, nobody has counted them. */
static tsr_status refuse_length(const tsr_request_context *context, bool chat, size_t count,
                                tsr_refusal *ret_refusal)
{
    const char *param = chat ? "messages" : "prompt";
    return tsr_refuse(ret_refusal, "context_length_exceeded", param,
                      "This model's maximum context length is %d tokens. However, your %s has "
                      "%s%zu tokens, which leaves no room for an answer.",
                      context->max_model_len, param, count > 0 ? "" : "more than ",
                      count > 0 ? count : (size_t)context->max_model_len);
}

static tsr_status refuse_total(tsr_refusal *ret_refusal)
{
    return tsr_refuse(ret_refusal, "invalid_value", "prompt",
                      "prompt: more than %d tokens in all; make several requests of it", MAX_IDS);
}

static size_t total_of(const tsr_generation *generation)
{
    size_t total = 0;
    for (size_t i = 0; i < generation->prompt_count; i++)
        total += generation->prompts[i].count;
    return total;
}

static bool is_too_long(const tsr_request_context *context, size_t bytes)
{
    return context->max_prompt_bytes > 0 && bytes > context->max_prompt_bytes;
}

static tsr_status add_text(const tsr_request_context *context, const char *text, size_t bytes,
                           tsr_generation *generation, tsr_refusal *ret_refusal)
{
    const size_t left = MAX_IDS - total_of(generation);
    const size_t most = (size_t)context->max_model_len;
    tsr_ids *ids = &generation->prompts[generation->prompt_count++];

    if (is_too_long(context, bytes))
        return refuse_length(context, generation->chat, 0, ret_refusal);
    if (left == 0)
        return refuse_total(ret_refusal);
    ids->most = most < left ? most : left;
    const tsr_status st = generation->add_special
                              ? tsr_tokenizer_encode_alone(context->tokenizer, text, bytes, ids)
                              : tsr_tokenizer_encode(context->tokenizer, text, bytes, false, ids);
    if (st != TSR_ERR_CAPACITY)
        return st;
    if (!ids->full)
        return tsr_refuse(ret_refusal, "invalid_value", generation->chat ? "messages" : "prompt",
                          "the text has a word that takes too long to find");
    return ids->most == most ? refuse_length(context, generation->chat, 0, ret_refusal)
                             : refuse_total(ret_refusal);
}

static tsr_status add_ids(const tsr_request_context *context, const json_t *array,
                          tsr_generation *generation, tsr_refusal *ret_refusal)
{
    const size_t count = json_array_size(array);

    if (count >= (size_t)context->max_model_len)
        return refuse_length(context, generation->chat, count, ret_refusal);
    if (count > MAX_IDS - total_of(generation))
        return refuse_total(ret_refusal);
    tsr_ids *to = &generation->prompts[generation->prompt_count++];
    to->ids = calloc(count ? count : 1, sizeof(*to->ids));
    if (to->ids == NULL)
        return TSR_ERR_MEMORY;
    to->capacity = count;
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(array, i);
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= tsr_tokenizer_ids(context->tokenizer))
            return tsr_refuse(ret_refusal, "invalid_value", "prompt",
                              "prompt: element %zu is not a token id from 0 to %d", i,
                              tsr_tokenizer_ids(context->tokenizer) - 1);
        to->ids[to->count++] = (int32_t)value;
    }
    return TSR_OK;
}

/* A string, [ids], [strings] or [[ids]]. */
static tsr_status read_prompts(const json_t *prompt, const tsr_request_context *context,
                               tsr_generation *generation, tsr_refusal *ret_refusal)
{
    const json_t *first = json_array_get(prompt, 0);
    const bool many = json_is_string(first) || json_is_array(first);
    const size_t count = many ? json_array_size(prompt) : 1;

    if (count > MAX_PROMPTS || !(json_is_string(prompt) || many || json_is_integer(first)))
        return tsr_refuse(ret_refusal, "invalid_value", "prompt",
                          "prompt: expected a string, an array of token ids, or an array of up to "
                          "%d of either",
                          MAX_PROMPTS);
    generation->prompts = calloc(count, sizeof(*generation->prompts));
    if (generation->prompts == NULL)
        return TSR_ERR_MEMORY;

    tsr_status st = TSR_OK;
    for (size_t i = 0; i < count && st == TSR_OK; i++) {
        const json_t *one = many ? json_array_get(prompt, i) : prompt;
        if (json_is_string(one))
            st = add_text(context, json_string_value(one), json_string_length(one), generation,
                          ret_refusal);
        else if (json_is_array(one))
            st = add_ids(context, one, generation, ret_refusal);
        else
            st = tsr_refuse(ret_refusal, "invalid_value", "prompt",
                            "prompt: element %zu is neither a string nor an array of ids", i);
    }
    return st;
}

/* Parts of text become one string, a line each; templates written for strings need that. The others
 * get the parts, which are checked here all the same. */
static tsr_status flatten_parts(const json_t *parts, size_t at, json_t **ret_content,
                                tsr_refusal *ret_refusal)
{
    tsr_text text = {0};
    tsr_status st = tsr_text_add_string(&text, "");

    for (size_t i = 0; i < json_array_size(parts) && st == TSR_OK; i++) {
        const json_t *part = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *content = json_object_get(part, "text");
        if (type == NULL || strcmp(type, "text") != 0 || !json_is_string(content)) {
            st =
                tsr_refuse(ret_refusal, "invalid_value", "messages",
                           "messages[%zu].content[%zu]: only parts of type text are served", at, i);
            break;
        }
        if (i > 0)
            st = tsr_text_add_string(&text, "\n");
        if (st == TSR_OK)
            st = tsr_text_add(&text, json_string_value(content), json_string_length(content));
    }
    if (st == TSR_OK) {
        json_t *content = json_stringn(text.bytes, text.count);
        st = content != NULL ? TSR_OK : TSR_ERR_MEMORY;
        if (content != NULL)
            *ret_content = content;
    }
    tsr_text_close(&text);
    return st;
}

static bool is_blank(const char *text)
{
    return text[strspn(text, " \t\r\n")] == '\0';
}

/* Arguments of earlier tool calls are JSON in a string on the wire; templates loop over them. A call
 * without arguments may leave the string blank. */
static tsr_status open_arguments(json_t *message, size_t at, tsr_refusal *ret_refusal)
{
    const json_t *calls = json_object_get(message, "tool_calls");

    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *function = json_object_get(json_array_get(calls, i), "function");
        const json_t *given = json_object_get(function, "arguments");
        json_error_t error;
        if (!json_is_string(given))
            continue;
        json_t *arguments =
            is_blank(json_string_value(given))
                ? json_object()
                : tsr_json_loadb(json_string_value(given), json_string_length(given),
                                 JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
        if (!json_is_object(arguments)) {
            const bool parsed = arguments != NULL;
            json_decref(arguments);
            return tsr_refuse(
                ret_refusal, "invalid_value", "messages",
                "messages[%zu].tool_calls[%zu].function.arguments: %s%s", at, i,
                parsed ? "expected a JSON object" : "not valid JSON: ", parsed ? "" : error.text);
        }
        if (json_object_set_new(function, "arguments", arguments) != 0)
            return TSR_ERR_MEMORY;
    }
    return TSR_OK;
}

/* Checks a message and makes of it what templates are written for. A tool's answer is one text for
 * all of them: parts would be taken for several answers. */
static tsr_status settle_message(const tsr_request_context *context, json_t *message, size_t at,
                                 tsr_refusal *ret_refusal)
{
    const json_t *content = json_object_get(message, "content");
    const char *role = json_string_value(json_object_get(message, "role"));
    const bool keeps_parts = role != NULL && strcmp(role, "tool") != 0 &&
                             tsr_chat_template_takes_parts(context->chat_template);
    json_t *flat = NULL;
    tsr_status st = TSR_OK;

    if (role == NULL)
        return tsr_refuse(ret_refusal, "invalid_value", "messages",
                          "messages[%zu]: expected an object with a role", at);
    if (content != NULL && !json_is_array(content) && !json_is_string(content) &&
        !json_is_null(content))
        return tsr_refuse(ret_refusal, "invalid_value", "messages",
                          "messages[%zu].content: expected a string or a list of parts", at);
    if (json_is_array(content))
        st = flatten_parts(content, at, &flat, ret_refusal);
    if (keeps_parts)
        json_decref(flat);
    else if (flat != NULL && json_object_set_new(message, "content", flat) != 0)
        st = TSR_ERR_MEMORY;
    return st == TSR_OK ? open_arguments(message, at, ret_refusal) : st;
}

/* Bytes of all strings in a value. Recursion is bounded by the parser's depth. */
static size_t text_bytes(const json_t *value)
{
    const char *key = NULL;
    const json_t *item = NULL;
    size_t total = json_string_length(value);

    for (size_t i = 0; i < json_array_size(value); i++)
        total += text_bytes(json_array_get(value, i));
    json_object_foreach((json_t *)(uintptr_t)value, key, item) total += text_bytes(item);
    return total;
}

static tsr_status copy_messages(const tsr_request_context *context, const json_t *messages,
                                json_t **ret_copy, tsr_refusal *ret_refusal)
{
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return tsr_refuse(ret_refusal, "invalid_value", "messages",
                          "messages: expected a list of at least one message");

    json_t *copy = json_deep_copy(messages);
    tsr_status st = copy != NULL ? TSR_OK : TSR_ERR_MEMORY;
    for (size_t i = 0; st == TSR_OK && i < json_array_size(copy); i++)
        st = settle_message(context, json_array_get(copy, i), i, ret_refusal);
    if (st == TSR_OK)
        *ret_copy = copy;
    else
        json_decref(copy);
    return st;
}

/* The tools that the model may call; NULL: none. */
static json_t *callable_tools(const json_t *body)
{
    const char *choice = json_string_value(json_object_get(body, "tool_choice"));
    json_t *tools = json_object_get(body, "tools");
    const bool none = choice != NULL && strcmp(choice, "none") == 0;

    return !none && json_array_size(tools) > 0 ? tools : NULL;
}

static tsr_status check_tools(const json_t *body, const tsr_request_context *context,
                              tsr_refusal *ret_refusal)
{
    const json_t *tools = json_object_get(body, "tools");

    if (tools != NULL && !json_is_null(tools) && !json_is_array(tools))
        return tsr_refuse(ret_refusal, "invalid_value", "tools", "tools: expected a list");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        if (json_string_length(json_object_get(function, "name")) == 0)
            return tsr_refuse(ret_refusal, "invalid_value", "tools",
                              "tools[%zu].function.name: expected a string", i);
    }
    if (callable_tools(body) != NULL &&
        tsr_chat_template_answer_style(context->chat_template).calls == TSR_CALLS_NONE)
        return tsr_refuse(ret_refusal, "unsupported_parameter", "tools",
                          "tools: the chat template of this model knows no calls of tools");
    return TSR_OK;
}

/* OpenAI's word for how much is to be thought, for templates that read it; those that can only be told
 * not to think are told that. */
static bool add_effort(const json_t *body, json_t *variables)
{
    json_t *effort = json_object_get(body, "reasoning_effort");
    const bool none = json_is_string(effort) && strcmp(json_string_value(effort), "none") == 0;

    if (!json_is_string(effort))
        return true;
    return json_object_set(variables, "reasoning_effort", effort) == 0 &&
           (!none || json_object_set_new(variables, "enable_thinking", json_false()) == 0);
}

static tsr_status check_effort(const json_t *body, tsr_refusal *ret_refusal)
{
    static const char *const efforts[] = {"none", "minimal", "low", "medium", "high", "xhigh"};
    const json_t *effort = json_object_get(body, "reasoning_effort");

    if (effort == NULL || json_is_null(effort))
        return TSR_OK;
    for (size_t i = 0; i < sizeof(efforts) / sizeof(efforts[0]); i++) {
        if (json_is_string(effort) && strcmp(json_string_value(effort), efforts[i]) == 0)
            return TSR_OK;
    }
    return tsr_refuse(ret_refusal, "invalid_value", "reasoning_effort",
                      "reasoning_effort: expected none, minimal, low, medium, high or xhigh");
}

/* What the template sees: defaults, the body's own switches, its kwargs, then the messages. */
static json_t *merge_variables(const json_t *body, const tsr_request_context *context,
                               json_t *messages)
{
    json_t *variables = json_object();
    json_t *kwargs = json_object_get(body, "chat_template_kwargs");
    json_t *generation_prompt = json_object_get(body, "add_generation_prompt");
    bool good = json_object_set_new(variables, "add_generation_prompt", json_true()) == 0;

    if (context->template_kwargs != NULL)
        good = good &&
               json_object_update(variables, (json_t *)(uintptr_t)context->template_kwargs) == 0;
    if (json_is_boolean(generation_prompt))
        good = good && json_object_set(variables, "add_generation_prompt", generation_prompt) == 0;
    good = good && add_effort(body, variables);
    if (json_is_object(kwargs))
        good = good && json_object_update(variables, kwargs) == 0;
    json_t *tools = callable_tools(body);
    if (tools != NULL)
        good = good && json_object_set(variables, "tools", tools) == 0;
    good = good && json_object_set(variables, "messages", messages) == 0;
    if (good)
        return variables;
    json_decref(variables);
    return NULL;
}

static tsr_status template_variables(const json_t *body, const tsr_request_context *context,
                                     json_t **ret_variables, tsr_refusal *ret_refusal)
{
    const json_t *kwargs = json_object_get(body, "chat_template_kwargs");
    const json_t *generation_prompt = json_object_get(body, "add_generation_prompt");
    if (kwargs != NULL && !json_is_null(kwargs) && !json_is_object(kwargs))
        return tsr_refuse(ret_refusal, "invalid_value", "chat_template_kwargs",
                          "chat_template_kwargs: expected an object");
    if (generation_prompt != NULL && !json_is_null(generation_prompt) &&
        !json_is_boolean(generation_prompt))
        return tsr_refuse(ret_refusal, "invalid_value", "add_generation_prompt",
                          "add_generation_prompt: expected true or false");

    tsr_status st = check_effort(body, ret_refusal);
    if (st == TSR_OK)
        st = check_tools(body, context, ret_refusal);
    if (st != TSR_OK)
        return st;
    if (is_too_long(context, text_bytes(json_object_get(body, "messages")) +
                                 text_bytes(callable_tools(body))))
        return refuse_length(context, true, 0, ret_refusal);
    json_t *messages = NULL;
    st = copy_messages(context, json_object_get(body, "messages"), &messages, ret_refusal);
    if (st != TSR_OK)
        return st;
    json_t *variables = merge_variables(body, context, messages);
    json_decref(messages);
    if (variables == NULL)
        return TSR_ERR_MEMORY;
    *ret_variables = variables;
    return TSR_OK;
}

tsr_status tsr_request_prompt_render(const json_t *body, const tsr_request_context *context,
                                     tsr_text *text, tsr_refusal *ret_refusal)
{
    if (context->chat_template == NULL)
        return tsr_refuse(ret_refusal, "unsupported_parameter", "messages",
                          "messages: this checkpoint has no chat template; send a prompt");

    json_t *variables = NULL;
    tsr_status st = template_variables(body, context, &variables, ret_refusal);
    if (st != TSR_OK)
        return st;

    tsr_problems problems = {0};
    st = tsr_chat_template_render(context->chat_template, variables, &problems, text);
    if (st == TSR_ERR_ARG)
        st = tsr_refuse(ret_refusal, "invalid_value", "messages", "chat template: %s",
                        problems.count > 0 ? problems.items[0].text : "refused");
    tsr_problems_close(&problems);
    json_decref(variables);
    return st;
}

/* What reading the answer takes. */
static void keep_for_answer(const json_t *body, const tsr_request_context *context,
                            const tsr_text *prompt, tsr_generation *generation)
{
    const size_t count =
        prompt->count < TSR_PROMPT_END_BYTES ? prompt->count : TSR_PROMPT_END_BYTES;

    if (count > 0)
        memcpy(generation->prompt_end, prompt->bytes + prompt->count - count, count);
    generation->prompt_end_bytes = count;
    generation->answer_style = tsr_chat_template_answer_style(context->chat_template);
    generation->tools = json_incref(callable_tools(body));
}

static tsr_status read_messages(const json_t *body, const tsr_request_context *context,
                                tsr_generation *generation, tsr_refusal *ret_refusal)
{
    tsr_text text = {0};

    tsr_status st = tsr_request_prompt_render(body, context, &text, ret_refusal);
    if (st == TSR_OK) {
        keep_for_answer(body, context, &text, generation);
        generation->prompts = calloc(1, sizeof(*generation->prompts));
        st = generation->prompts != NULL ? add_text(context, text.bytes != NULL ? text.bytes : "",
                                                    text.count, generation, ret_refusal)
                                         : TSR_ERR_MEMORY;
    }
    tsr_text_close(&text);
    return st;
}

tsr_status tsr_request_prompt_read(const json_t *body, const tsr_request_context *context,
                                   tsr_generation *generation, tsr_refusal *ret_refusal)
{
    const json_t *add_special = json_object_get(body, "add_special_tokens");
    if (add_special != NULL && !json_is_null(add_special) && !json_is_boolean(add_special))
        return tsr_refuse(ret_refusal, "invalid_value", "add_special_tokens",
                          "add_special_tokens: expected true or false");
    if (!generation->chat && json_is_string(json_object_get(body, "reasoning_effort")))
        return tsr_refuse(ret_refusal, "unsupported_parameter", "reasoning_effort",
                          "reasoning_effort: is for chats; leave it out");
    if (!generation->chat && json_array_size(json_object_get(body, "tools")) > 0)
        return tsr_refuse(ret_refusal, "unsupported_parameter", "tools",
                          "tools: completions call none; chat does");
    generation->add_special =
        json_is_boolean(add_special) ? json_is_true(add_special) : !generation->chat;
    const tsr_status st = generation->chat ? read_messages(body, context, generation, ret_refusal)
                                           : read_prompts(json_object_get(body, "prompt"), context,
                                                          generation, ret_refusal);
    if (st != TSR_OK)
        return st;

    for (size_t i = 0; i < generation->prompt_count; i++) {
        const size_t count = generation->prompts[i].count;
        const char *param = generation->chat ? "messages" : "prompt";
        if (count == 0)
            return tsr_refuse(ret_refusal, "invalid_value", param, "%s: empty", param);
        if (count >= (size_t)context->max_model_len)
            return refuse_length(context, generation->chat, count, ret_refusal);
    }
    return TSR_OK;
}
