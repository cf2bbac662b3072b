/* Ids of calls are made of the answer's: unique, and the same when it is asked for again. */
#include "launch/request/chat_message.h"

#include <stdio.h>
#include <string.h>

enum { ID_BYTES = 80 };

tsr_status tsr_chat_parser_open(const tsr_generation *generation, tsr_answer_parser **ret_parser)
{
    const tsr_answer_args args = {
        .style = generation->answer_style,
        .tools = generation->tools,
        .prompt = generation->prompt_end,
        .prompt_bytes = generation->prompt_end_bytes,
    };
    return tsr_answer_parser_open(&args, ret_parser);
}

json_t *tsr_chat_call_json(const tsr_tool_call *call, const char *id, size_t index)
{
    const char *own = strrchr(id, '-');
    char name[ID_BYTES];

    (void)snprintf(name, sizeof(name), "call_%s_%zu", own != NULL ? own + 1 : id, index);
    return json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", name, "type", "function", "function", "name",
                     call->name, "arguments", call->arguments);
}

static json_t *text_json(const tsr_text *text)
{
    return json_stringn(text->count > 0 ? text->bytes : "", text->count);
}

static json_t *calls_json(const tsr_answer_parts *parts, const char *id)
{
    json_t *calls = json_array();
    bool good = calls != NULL;

    for (size_t i = 0; i < parts->call_count && good; i++)
        good = json_array_append_new(calls, tsr_chat_call_json(&parts->calls[i], id, i)) == 0;
    if (good)
        return calls;
    json_decref(calls);
    return NULL;
}

json_t *tsr_chat_message_json(const tsr_answer_parts *parts, const char *id)
{
    const bool silent = parts->content.count == 0 && parts->call_count > 0;
    json_t *message = json_pack("{s:s}", "role", "assistant");

    bool good = json_object_set_new(message, "content",
                                    silent ? json_null() : text_json(&parts->content)) == 0;
    if (good && parts->reasoning.count > 0)
        good = json_object_set_new(message, "reasoning_content", text_json(&parts->reasoning)) == 0;
    if (good && parts->call_count > 0)
        good = json_object_set_new(message, "tool_calls", calls_json(parts, id)) == 0;
    if (good)
        return message;
    json_decref(message);
    return NULL;
}
