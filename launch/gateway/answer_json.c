/* Objects are written field by field in the order that clients print them in. */
#include "launch/gateway/answer_json.h"

#include "launch/request/chat_message.h"

#include "launch/gateway/gateway_parts.h"

#include <string.h>

static const char own_field[] = "reasoning_content";
static const char other_field[] = "reasoning";

static const char *reason_of(const tsr_choice *choice)
{
    if (choice->finish != TSR_FINISH_STOP && choice->stream.matched < 0)
        return "length";
    return choice->parser != NULL && tsr_answer_parser_parts(choice->parser)->call_count > 0
               ? "tool_calls"
               : "stop";
}

/* The stop string or stop id that ended it; null for the model's own end or a length. */
static void add_stop_reason(const tsr_choice *choice, tsr_json_text *json)
{
    const tsr_generation *g = &choice->answer->generation;

    if (choice->stream.matched >= 0) {
        tsr_json_add_word(json, g->stops[choice->stream.matched]);
        return;
    }
    for (int32_t i = 0; i < g->request.stop_id_count; i++) {
        if (choice->finish == TSR_FINISH_STOP && g->request.stop_ids[i] == choice->last_token) {
            tsr_json_add(json, "%d", choice->last_token);
            return;
        }
    }
    tsr_json_add(json, "null");
}

static void add_unsent(const tsr_choice *choice, tsr_json_text *json)
{
    const tsr_text *text = &choice->stream.text;
    const size_t unsent = text->count - choice->sent;
    tsr_json_add_string(json, unsent > 0 ? text->bytes + choice->sent : "", unsent);
}

/* {"id":..., up to "choices":[ */
static void add_front(const tsr_answer *answer, const char *object, tsr_json_text *json)
{
    tsr_json_add(json, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", answer->id,
                 object, (long long)answer->created);
    tsr_json_add_word(json, answer->gateway->model_name);
    tsr_json_add(json, ",\"system_fingerprint\":\"tessera-%s-ep%d\",\"choices\":[", TSR_VERSION,
                 answer->gateway->facts.ranks);
}

/* Prompts count once, whatever number of answers each has. */
static void add_usage(const tsr_answer *answer, tsr_json_text *json)
{
    long long prompt = 0;
    long long output = 0;
    long long cached = 0;

    for (size_t i = 0; i < answer->generation.prompt_count; i++)
        prompt += (long long)answer->generation.prompts[i].count;
    for (size_t i = 0; i < answer->choice_count; i++) {
        output += answer->choices[i].output_tokens;
        /* the first copy of a prompt shares with requests before this one, the others with it */
        if (i % (size_t)answer->copies == 0)
            cached += answer->choices[i].cached_tokens;
    }
    tsr_json_add(json,
                 "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
                 "\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
                 prompt, output, prompt + output, cached);
}

/* Those that were not told yet, or null. */
static void add_logprobs(tsr_choice *choice, tsr_json_text *json)
{
    const tsr_answer *answer = choice->answer;
    const tsr_tokenizer *tokenizer = answer->gateway->args.text->tokenizer;
    tsr_logprob_list *logprobs = &choice->logprobs;
    json_t *told = NULL;

    if (logprobs->told == logprobs->count) {
        tsr_json_add(json, "null");
        return;
    }
    told = answer->generation.chat ? tsr_logprobs_chat(logprobs, tokenizer)
                                   : tsr_logprobs_completion(logprobs, tokenizer);
    tsr_json_add_value(json, told);
    json_decref(told);
}

/* A field behind others, where it is asked for. */
static void add_prompt_logprobs(const tsr_choice *choice, tsr_json_text *json)
{
    const tsr_answer *answer = choice->answer;

    if (answer->generation.prompt_top < 0)
        return;
    json_t *told =
        tsr_logprobs_prompt(&choice->prompt_logprobs, answer->gateway->args.text->tokenizer);
    tsr_json_add(json, ",\"prompt_logprobs\":");
    tsr_json_add_value(json, told);
    json_decref(told);
}

static bool tells_thoughts_as(const tsr_answer *answer, const char *name)
{
    const char *field = answer->gateway->args.config->reasoning_field;
    return strcmp(field, name) == 0 || strcmp(field, "both") == 0;
}

/* Under the names that clients of this server read. */
static void name_thoughts(const tsr_answer *answer, json_t *message)
{
    json_t *thoughts = json_object_get(message, own_field);

    if (thoughts != NULL && tells_thoughts_as(answer, other_field))
        (void)json_object_set(message, other_field, thoughts);
    if (!tells_thoughts_as(answer, own_field))
        (void)json_object_del(message, own_field);
}

static void add_thoughts(const tsr_answer *answer, const tsr_text *text, tsr_json_text *json)
{
    const char *const names[] = {own_field, other_field};
    bool first = true;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!tells_thoughts_as(answer, names[i]))
            continue;
        tsr_json_add(json, "%s\"%s\":", first ? "" : ",", names[i]);
        tsr_json_add_string(json, text->bytes, text->count);
        first = false;
    }
}

static void add_whole_choice(tsr_choice *choice, tsr_json_text *json)
{
    tsr_json_add(json, "{\"index\":%d,", choice->index);
    if (choice->answer->generation.chat) {
        json_t *message =
            tsr_chat_message_json(tsr_answer_parser_parts(choice->parser), choice->answer->id);
        name_thoughts(choice->answer, message);
        tsr_json_add(json, "\"message\":");
        tsr_json_add_value(json, message);
        tsr_json_add(json, ",");
        json_decref(message);
    } else {
        tsr_json_add(json, "\"text\":");
        add_unsent(choice, json);
        tsr_json_add(json, ",");
    }
    tsr_json_add(json, "\"logprobs\":");
    add_logprobs(choice, json);
    tsr_json_add(json, ",\"finish_reason\":\"%s\",\"stop_reason\":", reason_of(choice));
    add_stop_reason(choice, json);
    if (!choice->answer->generation.chat)
        add_prompt_logprobs(choice, json);
    tsr_json_add(json, "}");
}

void tsr_answer_add_whole(const tsr_answer *answer, tsr_json_text *json)
{
    add_front(answer, answer->generation.chat ? "chat.completion" : "text_completion", json);
    for (size_t i = 0; i < answer->choice_count; i++) {
        if (i % (size_t)answer->copies >= (size_t)answer->generation.kept)
            continue;
        if (i > 0)
            tsr_json_add(json, ",");
        add_whole_choice(&answer->choices[i], json);
    }
    tsr_json_add(json, "],\"usage\":");
    add_usage(answer, json);
    if (answer->generation.chat)
        add_prompt_logprobs(&answer->choices[0], json);
    tsr_json_add(json, "}");
}

static void begin_chunk(const tsr_answer *answer, tsr_json_text *json)
{
    tsr_json_add(json, "data: ");
    add_front(answer, answer->generation.chat ? "chat.completion.chunk" : "text_completion", json);
}

/* What an event says of usage: nothing unless it was asked for, then null where it is not the last,
 * unless it was asked for in each. */
static void end_chunk(const tsr_answer *answer, bool last, tsr_json_text *json)
{
    tsr_json_add(json, "]");
    if (answer->include_usage || answer->continuous_usage) {
        tsr_json_add(json, ",\"usage\":");
        if (last || answer->continuous_usage)
            add_usage(answer, json);
        else
            tsr_json_add(json, "null");
    }
    tsr_json_add(json, "}\n\n");
}

/* Whole: the parser lets no half of a call out. */
static void add_call(const tsr_choice *choice, tsr_json_text *json)
{
    const tsr_answer_parts *parts = tsr_answer_parser_parts(choice->parser);
    const size_t i = choice->calls_sent;
    json_t *call = tsr_chat_call_json(&parts->calls[i], choice->answer->id, i);

    (void)json_object_set_new(call, "index", json_integer((json_int_t)i));
    tsr_json_add(json, "\"delta\":{\"tool_calls\":[");
    tsr_json_add_value(json, call);
    tsr_json_add(json, "]}");
    json_decref(call);
}

static void add_piece(const tsr_choice *choice, tsr_chunk_kind kind, tsr_json_text *json)
{
    if (!choice->answer->generation.chat) {
        tsr_json_add(json, "\"text\":");
        add_unsent(choice, json);
    } else if (kind == TSR_CHUNK_ROLE) {
        tsr_json_add(json, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    } else if (kind == TSR_CHUNK_TEXT) {
        const tsr_text *text = &tsr_answer_parser_parts(choice->parser)->content;
        tsr_json_add(json, "\"delta\":{\"content\":");
        tsr_json_add_string(json, text->bytes, text->count);
        tsr_json_add(json, "}");
    } else if (kind == TSR_CHUNK_THOUGHT) {
        tsr_json_add(json, "\"delta\":{");
        add_thoughts(choice->answer, &tsr_answer_parser_parts(choice->parser)->reasoning, json);
        tsr_json_add(json, "}");
    } else if (kind == TSR_CHUNK_CALL) {
        add_call(choice, json);
    } else {
        tsr_json_add(json, "\"delta\":{}");
    }
}

void tsr_answer_add_chunk(const tsr_answer *answer, tsr_choice *choice, tsr_chunk_kind kind,
                          tsr_json_text *json)
{
    begin_chunk(answer, json);
    tsr_json_add(json, "{\"index\":%d,", choice->index);
    add_piece(choice, kind, json);
    tsr_json_add(json, ",\"logprobs\":");
    if (kind == TSR_CHUNK_ROLE)
        tsr_json_add(json, "null");
    else
        add_logprobs(choice, json);
    tsr_json_add(json, ",\"finish_reason\":");
    if (kind == TSR_CHUNK_END) {
        tsr_json_add(json, "\"%s\",\"stop_reason\":", reason_of(choice));
        add_stop_reason(choice, json);
    } else {
        tsr_json_add(json, "null");
    }
    tsr_json_add(json, "}");
    end_chunk(answer, false, json);
}

void tsr_answer_add_usage_chunk(const tsr_answer *answer, tsr_json_text *json)
{
    begin_chunk(answer, json);
    end_chunk(answer, true, json);
}
