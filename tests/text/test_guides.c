/*
 * Guides over a tokenizer: whatever is drawn at random through their bits is what was asked for, by a
 * validator that knows nothing of grammars; and what they say is a function of the outputs alone.
 */
#include "runtime/text/answer_parser.h"
#include "runtime/text/guide_maker.h"
#include "tests/test.h"
#include "tests/text/schema_check.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OUTPUTS = 600, REFUSAL = 512, DRAWS = 40 };

typedef struct bench {
    tsr_tokenizer *tokenizer;
    tsr_guide_maker *maker;
    tsr_guides guides;
    int32_t ids;
    size_t words;
    uint32_t *bits;
    uint32_t *again;
    uint64_t random;
} bench;

static int open_bench(void **state)
{
    bench *b = calloc(1, sizeof(*b));
    tsr_problems problems = {0};

    assert_non_null(b);
    ASSERT_STATUS(TSR_OK,
                  tsr_tokenizer_open(TSR_TEST_DATA "/text/qwen3", &problems, &b->tokenizer));
    tsr_problems_close(&problems);
    b->ids = tsr_tokenizer_ids(b->tokenizer) + 7; /* a model has more than its tokenizer */
    b->words = (size_t)tsr_guide_words(b->ids);
    b->bits = calloc(b->words, sizeof(*b->bits));
    b->again = calloc(b->words, sizeof(*b->again));
    assert_true(b->bits != NULL && b->again != NULL);
    ASSERT_STATUS(TSR_OK, tsr_guide_maker_open(b->tokenizer, b->ids, &b->maker));
    b->guides = tsr_guide_maker_guides(b->maker);
    *state = b;
    return 0;
}

static int close_bench(void **state)
{
    bench *b = *state;

    tsr_guide_maker_close(b->maker);
    tsr_tokenizer_close(b->tokenizer);
    free(b->bits);
    free(b->again);
    free(b);
    return 0;
}

static uint32_t draw(bench *b, uint32_t below)
{
    b->random = b->random * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)((b->random >> 33) % below);
}

static void *open_guide(const bench *b, const char *text)
{
    char refusal[REFUSAL] = "";
    void *guide = NULL;

    const tsr_status st = b->guides.open(b->guides.context, text, refusal, sizeof(refusal), &guide);
    if (st != TSR_OK)
        fail_msg("%s: %s", text, refusal);
    return guide;
}

static bool is_allowed(const uint32_t *bits, int32_t id)
{
    return (bits[id / 32] >> (id % 32) & 1U) != 0;
}

/* Half of the time what opens, closes or counts, so that it ends one day. -1: nothing may come. */
static int32_t draw_token(bench *b)
{
    const bool structural = draw(b, 2) == 0;
    int32_t found = -1;
    uint32_t count = 0;

    for (int pass = structural ? 0 : 1; pass < 2 && found < 0; pass++) {
        for (int32_t id = 0; id < b->ids; id++) {
            const char *bytes = NULL;
            size_t n = 0;
            bool special = false;
            if (!is_allowed(b->bits, id))
                continue;
            assert_true(tsr_tokenizer_bytes(b->tokenizer, id, &bytes, &n, &special));
            assert_false(special);
            if (pass == 0 && (n != 1 || strchr("\"{}[],:0123456789", bytes[0]) == NULL))
                continue;
            if (draw(b, ++count) == 0)
                found = id;
        }
    }
    return found;
}

/* Draws an answer. False: it did not end in time. */
static bool draw_answer(bench *b, void *guide, int32_t *outputs, int32_t *ret_count, tsr_text *text)
{
    for (int32_t n = 0; n < MOST_OUTPUTS; n++) {
        const tsr_guidance g = b->guides.ask(guide, outputs, n, b->bits);
        const char *bytes = NULL;
        size_t count = 0;
        bool special = false;
        assert_null(g.why);
        assert_false(g.is_free);
        outputs[n] = draw_token(b);
        *ret_count = n;
        if (outputs[n] < 0 && !g.may_end)
            fail_msg("nothing may follow %s", text->bytes);
        if (outputs[n] < 0 || (g.may_end && draw(b, 3) == 0))
            return true;
        (void)tsr_tokenizer_bytes(b->tokenizer, outputs[n], &bytes, &count, &special);
        ASSERT_STATUS(TSR_OK, tsr_text_add(text, bytes, count));
    }
    return false;
}

static void check_answer(const char *schema_text, const tsr_text *text)
{
    json_error_t error;
    json_t *schema = json_loads(schema_text, 0, &error);
    json_t *value = json_loadb(text->bytes, text->count, JSON_DECODE_ANY, &error);

    if (value == NULL)
        fail_msg("%s: %s", text->bytes, error.text);
    if (!schema_holds(schema, schema, value))
        fail_msg("%s does not satisfy %s", text->bytes, schema_text);
    json_decref(schema);
    json_decref(value);
}

static const char *const schemas[] = {
    "{}",
    "{\"type\": \"object\"}",
    "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, \"age\": {\"type\": "
    "\"integer\", \"minimum\": 0, \"maximum\": 130}, \"tags\": {\"type\": \"array\", \"items\": "
    "{\"enum\": [\"a\", \"bc\", \"\\\"\"]}, \"maxItems\": 4}}, \"required\": [\"name\", \"age\"], "
    "\"additionalProperties\": false}",
    "{\"type\": \"object\", \"properties\": {\"x\": {\"type\": [\"number\", \"null\"]}}, "
    "\"additionalProperties\": {\"type\": \"boolean\"}}",
    "{\"$defs\": {\"n\": {\"anyOf\": [{\"type\": \"null\"}, {\"type\": \"object\", \"properties\": "
    "{\"v\": {\"type\": \"integer\"}, \"next\": {\"$ref\": \"#/$defs/n\"}}, \"required\": [\"v\", "
    "\"next\"]}]}}, \"$ref\": \"#/$defs/n\"}",
    "{\"type\": \"array\", \"prefixItems\": [{\"type\": \"string\", \"minLength\": 2, "
    "\"maxLength\": 24}, {\"type\": \"number\", \"exclusiveMinimum\": -3, \"maximum\": 12}], "
    "\"items\": {\"const\": {\"k\": [1, \"z\"]}}, \"minItems\": 2, \"maxItems\": 4}",
    "{\"enum\": [1, 1.5, \"one\", null, true, [], {\"a\": {}}]}",
    "{\"type\": \"string\", \"maxLength\": 5}",
};

static void draws_satisfy(void **state)
{
    bench *b = *state;
    int32_t outputs[MOST_OUTPUTS];
    char text[2048];
    int ended = 0;

    for (size_t i = 0; i < sizeof(schemas) / sizeof(schemas[0]); i++) {
        (void)snprintf(text, sizeof(text), "{\"json\": %s}", schemas[i]);
        for (uint32_t n = 0; n < DRAWS; n++) {
            tsr_text answer = {0};
            int32_t count = 0;
            void *guide = open_guide(b, text);
            b->random = n + 1;
            if (draw_answer(b, guide, outputs, &count, &answer)) {
                ended++;
                check_answer(schemas[i], &answer);
            }
            b->guides.close(guide);
            tsr_text_close(&answer);
        }
    }
    assert_in_range(ended, DRAWS * 6, DRAWS * 8);
}

/* True when an answer was drawn; the parser of answers must find one call in it. */
static bool draw_call(bench *b, const char *wanted, const tsr_answer_args *args)
{
    int32_t outputs[MOST_OUTPUTS];
    tsr_answer_parser *parser = NULL;
    tsr_text answer = {0};
    int32_t count = 0;
    void *guide = open_guide(b, wanted);

    ASSERT_STATUS(TSR_OK, tsr_answer_parser_open(args, &parser));
    const bool ended = draw_answer(b, guide, outputs, &count, &answer);
    if (ended) {
        ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(parser, answer.bytes, answer.count));
        ASSERT_STATUS(TSR_OK, tsr_answer_parser_finish(parser));
        if (tsr_answer_parser_parts(parser)->call_count != 1)
            fail_msg("no call: %s", answer.bytes);
    }
    tsr_answer_parser_close(parser);
    b->guides.close(guide);
    tsr_text_close(&answer);
    return ended;
}

static void calls_are_read(void **state)
{
    static const char tools_text[] =
        "[{\"name\": \"look_up\", \"parameters\": {\"type\": \"object\", \"properties\": {\"n\": "
        "{\"type\": \"integer\"}, \"s\": {\"type\": \"string\"}, \"o\": {\"type\": \"object\"}}, "
        "\"required\": [\"n\"]}}]";
    bench *b = *state;
    json_t *bare = json_loads(tools_text, 0, NULL);
    json_t *tools =
        json_pack("[{s:s, s:O}]", "type", "function", "function", json_array_get(bare, 0));
    int ended = 0;

    for (int style = TSR_CALLS_JSON; style <= TSR_CALLS_ARGUMENT; style++) {
        const tsr_answer_args args = {
            .style = {.calls = (tsr_call_style)style}, .tools = tools, .prompt = ""};
        char wanted[1024];
        (void)snprintf(wanted, sizeof(wanted),
                       "{\"calls\": {\"style\": %d, \"many\": false, \"tools\": %s}}", style,
                       tools_text);
        for (uint32_t n = 0; n < DRAWS; n++) {
            b->random = n + 1;
            ended += draw_call(b, wanted, &args);
        }
    }
    assert_true(ended > DRAWS);
    json_decref(tools);
    json_decref(bare);
}

/* A guide that is told everything at once, and one beside others of its text, says the same. */
static void outputs_alone_decide(void **state)
{
    static const char text[] = "{\"json\": {\"type\": \"array\", \"items\": {}}}";
    bench *b = *state;
    int32_t outputs[MOST_OUTPUTS];
    tsr_text answer = {0};
    int32_t count = 0;
    void *guide = open_guide(b, text);

    b->random = 99;
    (void)draw_answer(b, guide, outputs, &count, &answer);
    assert_true(count > 4);
    for (int32_t n = 0; n <= count; n += 3) {
        void *other = open_guide(b, text);
        const tsr_guidance now = b->guides.ask(guide, outputs, n, b->bits);
        const tsr_guidance again = b->guides.ask(other, outputs, n, b->again);
        assert_int_equal(now.may_end, again.may_end);
        assert_memory_equal(b->bits, b->again, b->words * sizeof(*b->bits));
        b->guides.close(other);
    }
    b->guides.close(guide);
    tsr_text_close(&answer);
}

/* Free up to </think>, then held; the tag may be one token or several. */
static void thinking_is_free(void **state)
{
    static const char text[] = "{\"json\": {\"type\": \"null\"}, \"after\": \"</think>\"}";
    static const char *const thoughts[] = {"well </think>", "</ </thin </think>"};
    bench *b = *state;

    for (size_t i = 0; i < 4; i++) {
        const char *thought = thoughts[i % 2];
        int32_t outputs[64];
        int32_t count = 0;
        void *guide = open_guide(b, text);
        tsr_ids ids = {0};
        if (i < 2) {
            ASSERT_STATUS(
                TSR_OK, tsr_tokenizer_encode(b->tokenizer, thought, strlen(thought), false, &ids));
        } else { /* byte by byte */
            for (const char *c = thought; *c != '\0'; c++)
                ASSERT_STATUS(TSR_OK, tsr_tokenizer_encode(b->tokenizer, c, 1, false, &ids));
        }
        for (; count < (int32_t)ids.count; count++) {
            const tsr_guidance g = b->guides.ask(guide, ids.ids, count, b->bits);
            assert_true(g.is_free);
            outputs[count] = ids.ids[count];
        }
        assert_false(b->guides.ask(guide, outputs, count, b->bits).is_free);
        assert_true(is_allowed(b->bits, tsr_tokenizer_id(b->tokenizer, "n")));
        assert_false(is_allowed(b->bits, tsr_tokenizer_id(b->tokenizer, "u")));
        tsr_ids_close(&ids);
        b->guides.close(guide);
    }
}

static void wrong_texts_are_refused(void **state)
{
    static const char *const texts[] = {"", "[", "{}", "{\"json\": {\"not\": {}}}"};
    const bench *b = *state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char refusal[REFUSAL] = "";
        void *guide = NULL;
        ASSERT_STATUS(TSR_ERR_ARG, b->guides.open(b->guides.context, texts[i], refusal,
                                                  sizeof(refusal), &guide));
        assert_true(refusal[0] != '\0');
        assert_null(guide);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_satisfy),           cmocka_unit_test(calls_are_read),
        cmocka_unit_test(outputs_alone_decide),    cmocka_unit_test(thinking_is_free),
        cmocka_unit_test(wrong_texts_are_refused),
    };
    return cmocka_run_group_tests(tests, open_bench, close_bench);
}
