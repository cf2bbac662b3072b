/*
 * A line is looked at before it is parsed: parsing takes many times its bytes, and what no model
 * could serve is not worth them. The look also finds whose a line is that does not parse.
 */
#include "launch/batch/batch_line.h"

#include "runtime/base/json_file.h"
#include "runtime/base/json_memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    HTTP_NOT_FOUND = 404,
    HTTP_SERVER_ERROR = 500,
    HTTP_UNAVAILABLE = 503,
    MAX_CONTAINERS = 1 << 16, /* a few hundred bytes each, once parsed */
    MAX_VALUES = 4 << 20,
    ESCAPED_BYTES = 6, /* "\u0041" is one byte of text */
};

/* However short the prompts: names and metadata may be as long as this. */
static const size_t free_string_bytes = (size_t)1 << 20;

/* Bytes of the mark that some editors put in front of a file. */
static size_t mark_bytes(const tsr_line *line)
{
    static const char mark[] = "\xef\xbb\xbf";
    const size_t bytes = sizeof(mark) - 1;
    return line->number == 1 && line->count >= bytes && memcmp(line->bytes, mark, bytes) == 0
               ? bytes
               : 0;
}

tsr_line_scan tsr_batch_line_scan(const tsr_line *line)
{
    const size_t mark = mark_bytes(line);
    return tsr_line_scan_read(line->bytes + mark, line->count - mark);
}

/* What is too much to be parsed. */
static tsr_status check_size(const tsr_line *line, const tsr_line_scan *scan,
                             const tsr_request_context *context, tsr_refusal *ret_refusal)
{
    const unsigned long long number = line->number;
    const size_t prompt = context->max_prompt_bytes * ESCAPED_BYTES;
    const size_t longest = prompt > free_string_bytes ? prompt : free_string_bytes;

    if (line->loss == TSR_LINE_NO_MEMORY)
        return TSR_ERR_MEMORY;
    if (line->loss == TSR_LINE_TOO_LONG)
        return tsr_refuse(ret_refusal, "invalid_json", NULL, "line %llu: longer than %d MiB",
                          number, TSR_MAX_LINE_BYTES >> 20);
    if (scan->containers > MAX_CONTAINERS || scan->values > MAX_VALUES)
        return tsr_refuse(ret_refusal, "invalid_value", NULL,
                          "line %llu: more than %d %s; make several lines of it", number,
                          scan->containers > MAX_CONTAINERS ? MAX_CONTAINERS : MAX_VALUES,
                          scan->containers > MAX_CONTAINERS ? "lists and objects" : "values");
    if (context->max_prompt_bytes > 0 && scan->longest_string > longest)
        return tsr_refuse(
            ret_refusal, "context_length_exceeded", NULL,
            "line %llu: a text of %zu bytes is longer than any prompt of the %d tokens "
            "that this model's context has",
            number, scan->longest_string, context->max_model_len);
    return TSR_OK;
}

static tsr_status parse(const tsr_line *line, json_t **ret_json, tsr_refusal *ret_refusal)
{
    const size_t mark = mark_bytes(line);
    json_error_t error = {0};

    tsr_json_memory_begin();
    *ret_json = tsr_json_loadb(line->bytes + mark, line->count - mark,
                               JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (*ret_json != NULL)
        return TSR_OK;
    if (tsr_json_memory_ran_out())
        return TSR_ERR_MEMORY;
    return tsr_refuse(ret_refusal, "invalid_json", NULL, "line %llu: not valid JSON: %s",
                      (unsigned long long)line->number, error.text);
}

/* The part of a url that says what is asked for: behind scheme and host, and the version. */
static const char *endpoint_of(const char *url)
{
    static const char version[] = "/v1/";
    const char *host = strstr(url, "://");
    const char *path = host != NULL ? strchr(host + 3, '/') : url;

    if (path == NULL)
        return "";
    if (strncmp(path, version, sizeof(version) - 1) == 0)
        return path + sizeof(version) - 1;
    return strncmp(path, version + 1, sizeof(version) - 2) == 0 ? path + sizeof(version) - 2
                                                                : path + (path[0] == '/');
}

static tsr_status read_url(const json_t *line, tsr_body_kind *ret_kind, tsr_refusal *ret_refusal)
{
    const json_t *given = json_object_get(line, "url");
    const char *url = json_string_value(given);

    *ret_kind = TSR_BODY_BY_CONTENT;
    if (given == NULL || json_is_null(given))
        return TSR_OK;
    if (url == NULL)
        return tsr_refuse(ret_refusal, "invalid_value", "url", "url: expected a string");
    const char *endpoint = endpoint_of(url);
    if (strcmp(endpoint, "chat/completions") == 0)
        *ret_kind = TSR_BODY_CHAT;
    else if (strcmp(endpoint, "completions") == 0)
        *ret_kind = TSR_BODY_COMPLETION;
    else {
        const tsr_status st = tsr_refuse(
            ret_refusal, "unsupported_url", "url",
            "url: %.200s is not served; /v1/chat/completions and /v1/completions are", url);
        ret_refusal->status = HTTP_NOT_FOUND;
        return st;
    }
    return TSR_OK;
}

static tsr_status read_fields(const json_t *json, const tsr_request_context *context,
                              tsr_generation *ret_generation, tsr_refusal *ret_refusal)
{
    const json_t *body = json_object_get(json, "body");
    tsr_body_kind kind = TSR_BODY_BY_CONTENT;

    if (!json_is_string(json_object_get(json, "custom_id")))
        return tsr_refuse(ret_refusal, "invalid_value", "custom_id",
                          "custom_id: expected a string");
    if (body == NULL)
        return tsr_refuse(ret_refusal, "invalid_value", "body", "body: missing");
    const tsr_status st = read_url(json, &kind, ret_refusal);
    return st == TSR_OK ? tsr_request_body_read(body, kind, context, ret_generation, ret_refusal)
                        : st;
}

static tsr_status open_choice(const tsr_generation *g, const tsr_tokenizer *tokenizer,
                              const tsr_ids *prompt, tsr_batch_choice *choice)
{
    choice->logprobs.top_count = g->request.top;
    tsr_status st = tsr_text_stream_open(tokenizer, g->skip_special, (const char *const *)g->stops,
                                         g->stop_count, g->include_stop, &choice->stream);
    if (st == TSR_OK && g->echo)
        st = tsr_text_stream_echo(&choice->stream, prompt->ids, prompt->count);
    if (st == TSR_OK && g->request.score_prompt)
        st = tsr_logprobs_add_first(&choice->logprobs, prompt->ids[0]);
    return st;
}

static tsr_status open_choices(tsr_batch_line *line, const tsr_tokenizer *tokenizer)
{
    const tsr_generation *g = &line->generation;
    tsr_status st = TSR_OK;

    if (g->prompt_count == 0)
        return TSR_ERR_INTERNAL;
    line->choice_count = g->prompt_count * (size_t)g->copies;
    line->choices = calloc(line->choice_count, sizeof(*line->choices));
    if (line->choices == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < line->choice_count && st == TSR_OK; i++)
        st = open_choice(g, tokenizer, &g->prompts[i / (size_t)g->copies], &line->choices[i]);
    return st;
}

static size_t longest_prompt(const tsr_generation *g)
{
    size_t longest = 0;

    for (size_t i = 0; i < g->prompt_count; i++)
        longest = g->prompts[i].count > longest ? g->prompts[i].count : longest;
    return longest;
}

/* About what a line holds while it is live. */
static size_t bytes_of(const tsr_batch_line *line)
{
    const tsr_generation *g = &line->generation;
    const size_t told = g->request.score_prompt
                            ? longest_prompt(g) * (size_t)(1 + g->request.top) * sizeof(int64_t)
                            : 0;
    size_t stops = 0;
    size_t bytes = sizeof(*line) + line->custom_id.capacity;

    bytes += g->request.guide != NULL ? strlen(g->request.guide) : 0;
    for (size_t i = 0; i < g->stop_count; i++)
        stops += (1 + sizeof(size_t)) * strlen(g->stops[i]) + sizeof(char *) * 4;
    for (size_t i = 0; i < g->prompt_count; i++)
        bytes += g->prompts[i].capacity * sizeof(int32_t) +
                 (size_t)g->copies * (sizeof(*line->choices) + stops + told);
    return bytes;
}

/* What a server tells, and a file has no place for. */
static tsr_status check_served(const tsr_generation *g, tsr_refusal *ret_refusal)
{
    if (g->kept != g->copies)
        return tsr_refuse(ret_refusal, "unsupported_parameter", "best_of",
                          "best_of: %d is not served in a file where n is %d; leave it out",
                          g->copies, g->kept);
    if (g->prompt_top >= 0)
        return tsr_refuse(
            ret_refusal, "unsupported_parameter", "prompt_logprobs",
            "prompt_logprobs: not served in a file; echo with logprobs tells the same");
    return TSR_OK;
}

static tsr_status make_line(const json_t *json, const tsr_line_scan *scan,
                            const tsr_request_context *context, tsr_batch_line **ret_line,
                            tsr_refusal *ret_refusal)
{
    tsr_batch_line *line = calloc(1, sizeof(*line));
    if (line == NULL)
        return TSR_ERR_MEMORY;

    tsr_status st = read_fields(json, context, &line->generation, ret_refusal);
    if (st == TSR_OK)
        st = check_served(&line->generation, ret_refusal);
    if (st == TSR_OK && scan->custom_id != NULL)
        st = tsr_text_add(&line->custom_id, scan->custom_id, scan->custom_id_bytes);
    line->bytes = bytes_of(line);
    if (st == TSR_OK && line->bytes > TSR_MAX_BATCH_LINE_BYTES)
        st = tsr_refuse(ret_refusal, "invalid_value", NULL,
                        "its prompts and stop strings take %zu MiB of memory, more than %d: make "
                        "several lines of it",
                        line->bytes >> 20, TSR_MAX_BATCH_LINE_BYTES >> 20);
    if (st == TSR_OK &&
        line->generation.prompt_count * (size_t)line->generation.copies > TSR_MOST_BATCH_CHOICES)
        st = tsr_refuse(ret_refusal, "invalid_value", "n",
                        "n times prompts: more than %d answers; make several lines of it",
                        TSR_MOST_BATCH_CHOICES);
    if (st == TSR_OK)
        st = open_choices(line, context->tokenizer);
    if (st != TSR_OK) {
        tsr_batch_line_close(line);
        return st;
    }
    *ret_line = line;
    return TSR_OK;
}

tsr_status tsr_batch_line_read(const tsr_line *line, const tsr_line_scan *scan,
                               const tsr_request_context *context, tsr_batch_line **ret_line,
                               tsr_refusal *ret_refusal)
{
    json_t *json = NULL;

    tsr_status st = check_size(line, scan, context, ret_refusal);
    if (st == TSR_OK)
        st = parse(line, &json, ret_refusal);
    if (st == TSR_OK)
        st = make_line(json, scan, context, ret_line, ret_refusal);
    json_decref(json);
    return st;
}

void tsr_batch_line_close(tsr_batch_line *line)
{
    if (line == NULL)
        return;
    for (size_t i = 0; line->choices != NULL && i < line->choice_count; i++) {
        tsr_text_stream_close(&line->choices[i].stream);
        tsr_logprobs_close(&line->choices[i].logprobs);
    }
    free(line->choices);
    tsr_generation_close(&line->generation);
    tsr_text_close(&line->custom_id);
    free(line);
}

void tsr_batch_fault(tsr_status status, tsr_refusal *ret_refusal)
{
    static const struct {
        tsr_status status;
        int http;
        const char *code;
        const char *message;
    } faults[] = {
        {TSR_OK, HTTP_UNAVAILABLE, "drained", "not started: the job was asked to drain"},
        {TSR_ERR_MEMORY, HTTP_UNAVAILABLE, "out_of_memory", NULL},
        {TSR_ERR_TIMEOUT, HTTP_UNAVAILABLE, "rank_lost", NULL},
        {TSR_ERR_PEER, HTTP_UNAVAILABLE, "rank_lost", NULL},
        {TSR_ERR_MISMATCH, HTTP_SERVER_ERROR, "ranks_disagree", NULL},
        {TSR_ERR_HANGUP, HTTP_UNAVAILABLE, "ended", NULL},
        {TSR_ERR_INTERRUPT, HTTP_UNAVAILABLE, "ended", NULL},
        {TSR_ERR_TERMINATED, HTTP_UNAVAILABLE, "ended", NULL},
    };
    size_t at = 0;

    while (at < sizeof(faults) / sizeof(faults[0]) && faults[at].status != status)
        at++;
    const bool known = at < sizeof(faults) / sizeof(faults[0]);
    (void)tsr_refuse(ret_refusal, known ? faults[at].code : "job_failed", NULL, "%s",
                     known && faults[at].message != NULL ? faults[at].message
                                                         : tsr_status_text(status));
    ret_refusal->status = known ? faults[at].http : HTTP_SERVER_ERROR;
}

void tsr_batch_not_finite(const tsr_output *output, tsr_refusal *ret_refusal)
{
    (void)tsr_refuse(ret_refusal, "not_finite", NULL, "after %d tokens: %s", output->output_tokens,
                     output->refusal);
    ret_refusal->status = HTTP_SERVER_ERROR;
}
