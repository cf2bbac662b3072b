/*
 * Any bytes as a chat template over a conversation of ours, and behind a zero byte any JSON as the
 * variables: parsed and rendered, or refused with a line.
 */
#include "tests/fuzz/fuzz.h"

#include "runtime/text/chat_template.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char conversation[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"be brief\"},{\"role\":\"user\",\"content\":"
    "[{\"type\":\"text\",\"text\":\"h\\u00e9\\u65e5\\ud83d\\ude00\"}]},{\"role\":\"assistant\","
    "\"content\":\"<think>a</think>b\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
    "{\"x\":1,\"y\":[1.5,null,true]}}}]}],\"tools\":[],\"add_generation_prompt\":true,\"n\":-7}";

/* A mistake that is not a memory error must end the run too. */
static void must(bool holds)
{
    if (!holds)
        abort();
}

static json_t *variables_from(const char *bytes, size_t count)
{
    json_t *json = json_loadb(bytes, count, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        json = json_loads(conversation, 0, NULL);
    }
    must(json != NULL);
    return json;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    const char *source = (const char *)bytes;
    const char *zero = count > 0 ? memchr(source, '\0', count) : NULL;
    const size_t source_bytes = zero != NULL ? (size_t)(zero - source) : count;
    tsr_problems problems = {0};
    tsr_chat_template *parsed = NULL;
    tsr_status st = tsr_chat_template_parse("fuzz", source, source_bytes, &problems, &parsed);
    must((st == TSR_ERR_CHECKPOINT) == tsr_problems_has_error(&problems));
    must(st == TSR_OK || st == TSR_ERR_CHECKPOINT);
    if (st == TSR_OK) {
        json_t *variables = variables_from(zero != NULL ? zero + 1 : source,
                                           zero != NULL ? count - source_bytes - 1 : 0);
        tsr_text out = {0};
        st = tsr_chat_template_render(parsed, variables, &problems, &out);
        must((st == TSR_ERR_ARG) == tsr_problems_has_error(&problems));
        must(st == TSR_OK || st == TSR_ERR_ARG);
        tsr_text_close(&out);
        json_decref(variables);
    }
    tsr_chat_template_close(parsed);
    tsr_problems_close(&problems);
    return 0;
}
