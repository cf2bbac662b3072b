/*
 * Any bytes as a line of a batch: looked at, parsed, and made into requests or refused with a line;
 * the line of output that comes of it is JSON, of the same custom_id where there is one.
 */
#include "tests/fuzz/fuzz.h"

#include "launch/batch/batch_line.h"
#include "launch/request/request_prompt.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEN = 64 };

static tsr_request_context context = {.max_model_len = MAX_LEN};

/* A mistake that is not a memory error must end the run too. */
static void must(bool holds)
{
    if (!holds)
        abort();
}

static void open_context(void)
{
    tsr_problems problems = {0};
    tsr_tokenizer *tokenizer = NULL;
    tsr_chat_template *chat_template = NULL;

    must(tsr_tokenizer_open(TSR_TEST_DATA "/demo-mixed", &problems, &tokenizer) == TSR_OK);
    must(tsr_chat_template_open(TSR_TEST_DATA "/demo-mixed", &problems, &chat_template) == TSR_OK);
    tsr_problems_close(&problems);
    context.tokenizer = tokenizer;
    context.chat_template = chat_template;
    context.max_prompt_bytes = tsr_request_prompt_most_bytes(tokenizer, MAX_LEN);
}

/* What is written of a line can be read by those who read nothing but JSON. */
static void check_written(const tsr_text *text, const char *name)
{
    must(text->count > 0 && text->bytes[text->count - 1] == '\n');
    must(memchr(text->bytes, '\n', text->count) == text->bytes + text->count - 1);
    json_error_t error;
    json_t *json = json_loadb(text->bytes, text->count, JSON_ALLOW_NUL, &error);
    /* a lone surrogate, and a number of more than 64 bits, are JSON; jansson has no place for them */
    if (json == NULL && (json_error_code(&error) == json_error_invalid_syntax ||
                         json_error_code(&error) == json_error_numeric_overflow))
        return;
    must(json != NULL && json_object_get(json, name) != NULL);
    json_decref(json);
}

static void check_refusal(const tsr_line_scan *scan, const tsr_refusal *refusal)
{
    tsr_text text = {0};
    must(refusal->code != NULL && refusal->message[0] != '\0' && refusal->status >= 400);
    must(tsr_batch_error_add(scan->custom_id, scan->custom_id_bytes, 1, refusal, &text) == TSR_OK);
    check_written(&text, "error");
    tsr_text_close(&text);
}

static void check_line(tsr_batch_line *line)
{
    tsr_text text = {0};
    const tsr_generation *g = &line->generation;

    must(g->prompt_count > 0 && line->custom_id.count >= 2);
    must(line->bytes <= TSR_MAX_BATCH_LINE_BYTES);
    must(line->choice_count == g->prompt_count * (size_t)g->copies);
    for (size_t i = 0; i < g->prompt_count; i++)
        must(g->prompts[i].count > 0 && g->prompts[i].count < MAX_LEN);
    for (size_t i = 0; i < line->choice_count; i++)
        line->choices[i].finish = TSR_FINISH_LENGTH;
    must(g->request.max_tokens > (g->echo ? -1 : 0) && g->request.max_tokens < MAX_LEN);
    line->number = 1;
    must(tsr_batch_answer_add(line, context.tokenizer, "fuzz", &text) == TSR_OK);
    check_written(&text, "response");
    tsr_text_close(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    const tsr_line read = {
        .bytes = (const char *)bytes, .count = count, .number = 1, .whole = true};
    tsr_batch_line *line = NULL;
    tsr_refusal refusal = {0};

    if (context.tokenizer == NULL)
        open_context();
    const tsr_line_scan scan = tsr_batch_line_scan(&read);
    const tsr_status st = tsr_batch_line_read(&read, &scan, &context, &line, &refusal);
    must(st == TSR_OK || st == TSR_ERR_ARG);
    if (st == TSR_OK)
        check_line(line);
    else
        check_refusal(&scan, &refusal);
    tsr_batch_line_close(line);
    return 0;
}
