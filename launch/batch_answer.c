/* Flushed line by line, so that what a killed job has answered is in the file. */
#include "launch/batch_answer.h"

#include <string.h>
#include <time.h>

enum { ID_BYTES = 48, HTTP_OK = 200 };

static tsr_status write_line(json_t *line, FILE *out)
{
    if (line == NULL)
        return TSR_ERR_MEMORY;
    const bool good =
        json_dumpf(line, out, JSON_COMPACT) == 0 && fputc('\n', out) != EOF && fflush(out) == 0;
    json_decref(line);
    return good ? TSR_OK : TSR_ERR_OUTPUT;
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

static json_t *choice_json(const tsr_batch_line *line, size_t index)
{
    const tsr_batch_choice *choice = &line->choices[index];
    const tsr_text *text = &choice->stream.text;
    const bool stopped = choice->finish == TSR_FINISH_STOP || choice->stream.matched >= 0;
    json_t *content = json_stringn(text->bytes != NULL ? text->bytes : "", text->count);
    json_t *json = json_pack("{s:i}", "index", (int)index);

    bool good = json != NULL && content != NULL;
    if (line->generation.chat)
        good = good && json_object_set_new(
                           json, "message",
                           json_pack("{s:s, s:O}", "role", "assistant", "content", content)) == 0;
    else
        good = good && json_object_set(json, "text", content) == 0;
    good =
        good && json_object_set_new(json, "logprobs", json_null()) == 0 &&
        json_object_set_new(json, "finish_reason", json_string(stopped ? "stop" : "length")) == 0 &&
        json_object_set_new(json, "stop_reason", stop_reason(line, choice)) == 0;
    json_decref(content);
    if (good)
        return json;
    json_decref(json);
    return NULL;
}

static json_t *body_json(const tsr_batch_line *line, const char *model)
{
    const bool chat = line->generation.chat;
    json_t *choices = json_array();
    char id[ID_BYTES];
    int prompt_tokens = 0;
    int output_tokens = 0;

    bool good = choices != NULL;
    for (size_t i = 0; i < line->generation.prompt_count && good; i++) {
        good = json_array_append_new(choices, choice_json(line, i)) == 0;
        prompt_tokens += line->choices[i].prompt_tokens;
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

tsr_status tsr_batch_answer_write(const tsr_batch_line *line, const char *model, FILE *out)
{
    char id[ID_BYTES];
    (void)snprintf(id, sizeof(id), "batch_req_%llu", (unsigned long long)line->number);
    json_t *body = body_json(line, model);
    if (body == NULL)
        return TSR_ERR_MEMORY;
    return write_line(json_pack("{s:s, s:O, s:{s:i, s:s, s:o}, s:n}", "id", id, "custom_id",
                                line->custom_id, "response", "status_code", HTTP_OK, "request_id",
                                id, "body", body, "error"),
                      out);
}

tsr_status tsr_batch_error_write(const json_t *custom_id, uint64_t number,
                                 const tsr_refusal *refusal, FILE *out)
{
    char id[ID_BYTES];
    (void)snprintf(id, sizeof(id), "batch_req_%llu", (unsigned long long)number);
    return write_line(
        json_pack("{s:s, s:O, s:n, s:{s:s, s:s, s:s?, s:i}}", "id", id, "custom_id", custom_id,
                  "response", "error", "code", refusal->code, "message", refusal->message, "param",
                  refusal->param[0] ? refusal->param : NULL, "status_code", refusal->status),
        out);
}
