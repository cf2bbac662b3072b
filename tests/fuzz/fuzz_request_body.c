/*
 * Any JSON as the body of a request, a chat or a completion: read into a generation that an engine
 * may be given, or refused with a line.
 */
#include "tests/fuzz/fuzz.h"

#include "launch/request/request_body.h"
#include "launch/request/request_prompt.h"
#include "runtime/base/json_file.h"
#include "runtime/base/log.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEN = 64, MOST_NAMES = 33, TEMPLATES = 2 };

static tsr_request_context context = {.max_model_len = MAX_LEN};
static const tsr_chat_template *templates[TEMPLATES]; /* one of them goes through parts itself */

/* A mistake that is not a memory error must end the run too. */
static void must(bool holds)
{
    if (!holds)
        abort();
}

static void drop_line(void *to, tsr_log_level level, const char *line)
{
    (void)to;
    (void)level;
    must(strchr(line, '\n') == NULL);
}

static void open_context(void)
{
    static const char parts[] = "{% for m in messages %}{% if m.content is string %}{{ m.content }}"
                                "{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}"
                                "{% endif %}{{ m.tool_calls | tojson }}{% endfor %}";
    tsr_problems problems = {0};
    tsr_tokenizer *tokenizer = NULL;
    tsr_chat_template *opened[TEMPLATES] = {NULL};

    must(tsr_tokenizer_open(TSR_TEST_DATA "/demo-mixed", &problems, &tokenizer) == TSR_OK);
    must(tsr_chat_template_open(TSR_TEST_DATA "/demo-mixed", &problems, &opened[0]) == TSR_OK);
    must(tsr_chat_template_parse("parts", parts, sizeof(parts) - 1, &problems, &opened[1]) ==
         TSR_OK);
    must(tsr_chat_template_takes_parts(opened[1]) && !tsr_chat_template_takes_parts(opened[0]));
    tsr_problems_close(&problems);
    templates[0] = opened[0];
    templates[1] = opened[1];
    context.tokenizer = tokenizer;
    context.max_prompt_bytes = tsr_request_prompt_most_bytes(tokenizer, MAX_LEN);
    context.unknown = json_object();
    tsr_log_set_sink(drop_line, NULL);
}

static void check_generation(const tsr_generation *g, tsr_body_kind kind)
{
    const tsr_request *r = &g->request;

    must(g->prompt_count > 0 && (!g->chat || g->prompt_count == 1));
    must(kind == TSR_BODY_BY_CONTENT || g->chat == (kind == TSR_BODY_CHAT));
    for (size_t i = 0; i < g->prompt_count; i++) {
        must(g->prompts[i].count > 0 && g->prompts[i].count < MAX_LEN);
        must((int64_t)g->prompts[i].count + r->max_tokens <= MAX_LEN);
        for (size_t t = 0; t < g->prompts[i].count; t++)
            must(g->prompts[i].ids[t] >= 0 &&
                 g->prompts[i].ids[t] < tsr_tokenizer_ids(context.tokenizer));
    }
    must(r->max_tokens >= 1);
    must(isfinite(r->temperature) && r->temperature >= 0.0F && r->temperature <= 2.0F);
    must(r->top_p > 0.0F && r->top_p <= 1.0F && r->top_k >= 0);
    for (size_t i = 0; i < g->stop_count; i++)
        must(g->stops[i] != NULL && g->stops[i][0] != '\0');
    for (int32_t i = 0; i < r->stop_id_count; i++)
        must(r->stop_ids[i] >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static const tsr_body_kind kinds[] = {TSR_BODY_BY_CONTENT, TSR_BODY_CHAT, TSR_BODY_COMPLETION};
    const tsr_body_kind kind = kinds[count % 3];
    json_error_t error;
    tsr_generation g = {0};
    tsr_refusal refusal = {0};

    if (context.tokenizer == NULL)
        open_context();
    json_t *body =
        tsr_json_loadb((const char *)bytes, count,
                       JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (body == NULL)
        return 0;
    context.chat_template = templates[count / 3 % TEMPLATES];
    const tsr_status st = tsr_request_body_read(body, kind, &context, &g, &refusal);
    json_decref(body);
    must(st == TSR_OK || st == TSR_ERR_ARG);
    must(json_object_size(context.unknown) <= MOST_NAMES);
    if (st == TSR_OK)
        check_generation(&g, kind);
    else
        must(refusal.code != NULL && refusal.message[0] != '\0' && refusal.status == 400);
    tsr_generation_close(&g);
    return 0;
}
