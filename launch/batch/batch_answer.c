/* Answers are built with jansson. Errors are written by hand: one of them may say that there is no
 * memory, and of 100,000 lines that a lost job leaves each becomes one. */
#include "launch/batch/batch_answer.h"

#include "launch/request/chat_message.h"
#include "runtime/text/utf8.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ID_BYTES = 48, HTTP_OK = 200 };

static int add_dumped(const char *bytes, size_t count, void *out)
{
    return tsr_text_add(out, bytes, count) == TSR_OK ? 0 : -1;
}

/* What ended it: the stop string, the stop id, or nothing special. */
static json_t *stop_reason(const tsr_batch_line *line, const tsr_batch_choice *choice)
{
    if (choice->stream.matched >= 0)
        return json_string(line->generation.stops[choice->stream.matched]);
    for (int32_t i = 0; i < line->generation.request.stop_id_count; i++) {
        if (choice->finish == TSR_FINISH_STOP &&
            line->generation.request.stop_ids[i] == choice->last_token)
            return json_integer(choice->last_token);
    }
    return json_null();
}

static json_t *text_json(const tsr_text *text)
{
    return json_stringn(text->bytes != NULL ? text->bytes : "", text->count);
}

static json_t *message_json(const tsr_batch_line *line, const tsr_text *text)
{
    char id[ID_BYTES];
    tsr_answer_parser *parser = NULL;
    json_t *message = NULL;

    (void)snprintf(id, sizeof(id), "chatcmpl-%llu", (unsigned long long)line->number);
    tsr_status st = tsr_chat_parser_open(&line->generation, &parser);
    if (st == TSR_OK && text->count > 0)
        st = tsr_answer_parser_push(parser, text->bytes, text->count);
    if (st == TSR_OK)
        st = tsr_answer_parser_finish(parser);
    if (st == TSR_OK)
        message = tsr_chat_message_json(tsr_answer_parser_parts(parser), id);
    tsr_answer_parser_close(parser);
    return message;
}

static json_t *logprobs_json(const tsr_batch_line *line, const tsr_tokenizer *tokenizer,
                             tsr_logprob_list *logprobs)
{
    if (!line->generation.logprobs)
        return json_null();
    return line->generation.chat ? tsr_logprobs_chat(logprobs, tokenizer)
                                 : tsr_logprobs_completion(logprobs, tokenizer);
}

static json_t *choice_json(const tsr_batch_line *line, const tsr_tokenizer *tokenizer, size_t index)
{
    tsr_batch_choice *choice = &line->choices[index];
    const tsr_text *text = &choice->stream.text;
    const bool stopped = choice->finish == TSR_FINISH_STOP || choice->stream.matched >= 0;
    const char *reason = stopped ? "stop" : "length";
    json_t *json = json_pack("{s:i}", "index", (int)index);
    json_t *message = NULL;

    bool good = json != NULL;
    if (line->generation.chat) {
        message = message_json(line, text);
        if (stopped && json_object_get(message, "tool_calls") != NULL)
            reason = "tool_calls";
        good = good && json_object_set_new(json, "message", message) == 0;
    } else {
        good = good && json_object_set_new(json, "text", text_json(text)) == 0;
    }
    good = good &&
           json_object_set_new(json, "logprobs",
                               logprobs_json(line, tokenizer, &choice->logprobs)) == 0 &&
           json_object_set_new(json, "finish_reason", json_string(reason)) == 0 &&
           json_object_set_new(json, "stop_reason", stop_reason(line, choice)) == 0;
    if (good)
        return json;
    json_decref(json);
    return NULL;
}

static json_t *body_json(const tsr_batch_line *line, const tsr_tokenizer *tokenizer,
                         const char *model)
{
    const bool chat = line->generation.chat;
    json_t *choices = json_array();
    char id[ID_BYTES];
    int prompt_tokens = 0;
    int output_tokens = 0;

    bool good = choices != NULL;
    for (size_t i = 0; i < line->generation.prompt_count; i++)
        prompt_tokens += (int)line->generation.prompts[i].count;
    for (size_t i = 0; i < line->choice_count && good; i++) {
        good = json_array_append_new(choices, choice_json(line, tokenizer, i)) == 0;
        output_tokens += line->choices[i].output_tokens;
    }
    if (!good) {
        json_decref(choices);
        return NULL;
    }
    (void)snprintf(id, sizeof(id), "%s-%llu", chat ? "chatcmpl" : "cmpl",
                   (unsigned long long)line->number);
    return json_pack("{s:s, s:s, s:I, s:s, s:o, s:{s:i, s:i, s:i}}", "id", id, "object",
                     chat ? "chat.completion" : "text_completion", "created",
                     (json_int_t)time(NULL), "model", model, "choices", choices, "usage",
                     "prompt_tokens", prompt_tokens, "completion_tokens", output_tokens,
                     "total_tokens", prompt_tokens + output_tokens);
}

/* The line without its id and its custom_id, which come first. */
static json_t *rest_json(const tsr_batch_line *line, const tsr_tokenizer *tokenizer, const char *id,
                         const char *model)
{
    json_t *body = body_json(line, tokenizer, model);
    return body != NULL ? json_pack("{s:{s:i, s:s, s:o}, s:n}", "response", "status_code", HTTP_OK,
                                    "request_id", id, "body", body, "error")
                        : NULL;
}

/* {"id":...,"custom_id":..., without an end. */
static tsr_status add_ids(const char *id, const char *custom_id, size_t id_bytes, tsr_text *out)
{
    tsr_status st = tsr_text_add_string(out, "{\"id\":\"");
    if (st == TSR_OK)
        st = tsr_text_add_string(out, id);
    if (st == TSR_OK)
        st = tsr_text_add_string(out, "\",\"custom_id\":");
    if (st == TSR_OK)
        st = custom_id != NULL ? tsr_text_add(out, custom_id, id_bytes)
                               : tsr_text_add_string(out, "null");
    return st == TSR_OK ? tsr_text_add_string(out, ",") : st;
}

/* Half a line is none. */
static tsr_status take_back(tsr_text *out, size_t count, tsr_status st)
{
    if (st != TSR_OK && out->bytes != NULL) {
        out->count = count;
        out->bytes[count] = '\0';
    }
    return st;
}

tsr_status tsr_batch_answer_add(const tsr_batch_line *line, const tsr_tokenizer *tokenizer,
                                const char *model, tsr_text *out)
{
    const size_t before = out->count;
    char id[ID_BYTES];

    (void)snprintf(id, sizeof(id), "batch_req_%llu", (unsigned long long)line->number);
    json_t *rest = rest_json(line, tokenizer, id, model);
    tsr_status st = rest != NULL ? TSR_OK : TSR_ERR_MEMORY;
    if (st == TSR_OK)
        st = add_ids(id, line->custom_id.bytes, line->custom_id.count, out);
    if (st == TSR_OK && json_dump_callback(rest, add_dumped, out, JSON_COMPACT | JSON_EMBED) != 0)
        st = TSR_ERR_MEMORY;
    if (st == TSR_OK)
        st = tsr_text_add_string(out, "}\n");
    json_decref(rest);
    return take_back(out, before, st);
}

/* A JSON string; bytes that are no UTF-8 become U+FFFD. */
static tsr_status add_string(const char *text, tsr_text *out)
{
    const size_t count = strlen(text);
    tsr_status st = tsr_text_add_string(out, "\"");

    for (size_t at = 0; at < count && st == TSR_OK;) {
        tsr_utf8_kind kind;
        const size_t bytes = tsr_utf8_step(text + at, count - at, &kind);
        if (kind != TSR_UTF8_WHOLE)
            st = tsr_text_add_string(out, TSR_UTF8_REPLACEMENT);
        else if ((unsigned char)text[at] < 0x20)
            st = tsr_text_add_format(out, "\\u%04x", (unsigned)text[at]);
        else if (text[at] == '"' || text[at] == '\\')
            st = tsr_text_add_format(out, "\\%c", text[at]);
        else
            st = tsr_text_add(out, text + at, bytes);
        at += bytes;
    }
    return st == TSR_OK ? tsr_text_add_string(out, "\"") : st;
}

static tsr_status add_field(const char *name, const char *text, tsr_text *out)
{
    const tsr_status st = tsr_text_add_string(out, name);
    return st == TSR_OK ? add_string(text, out) : st;
}

tsr_status tsr_batch_error_add(const char *custom_id, size_t id_bytes, uint64_t number,
                               const tsr_refusal *refusal, tsr_text *out)
{
    const size_t before = out->count;
    char id[ID_BYTES];

    (void)snprintf(id, sizeof(id), "batch_req_%llu", (unsigned long long)number);
    tsr_status st = add_ids(id, custom_id, id_bytes, out);
    if (st == TSR_OK)
        st = add_field("\"response\":null,\"error\":{\"code\":", refusal->code, out);
    if (st == TSR_OK)
        st = add_field(",\"message\":", refusal->message, out);
    if (st == TSR_OK)
        st = refusal->param[0] ? add_field(",\"param\":", refusal->param, out)
                               : tsr_text_add_string(out, ",\"param\":null");
    if (st == TSR_OK)
        st = tsr_text_add_format(out, ",\"status_code\":%d}}\n", refusal->status);
    return take_back(out, before, st);
}
