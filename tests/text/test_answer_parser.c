/* Thinking, saying and calling, in every style, cut at every byte: the sum must not depend on where.
 * Texts are what the models' own templates make of such turns, and what models make of them. */
#include "tests/test.h"

#include "runtime/text/answer_parser.h"

#include <stdio.h>
#include <string.h>

static const char tools_text[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {\"type\": "
    "\"object\", \"properties\": {\"city\": {\"type\": \"string\"}, \"days\": {\"type\": "
    "\"integer\"}, \"zip\": {\"type\": [\"string\", \"null\"]}}}}}, {\"type\": \"function\", "
    "\"function\": {\"name\": \"weather_map\", \"parameters\": {}}}]";

typedef struct parser_case {
    const char *name;
    tsr_call_style calls;
    bool thinks;
    bool no_tools;
    const char *prompt;
    const char *text;
    const char *reasoning;
    const char *content;
    const char *called; /* "name(arguments)" of all calls, one after the other */
} parser_case;

static const parser_case cases[] = {
    {.name = "plain text", .text = " Hello  \n", .content = " Hello  \n"},
    {.name = "thinking, then saying",
     .thinks = true,
     .text = "<think>\nA < B, so <thin\n</think>\n\nYes.\n",
     .reasoning = "A < B, so <thin",
     .content = "Yes.\n"},
    {.name = "an empty thought",
     .thinks = true,
     .text = "<think>\n\n</think>\n\nYes.",
     .content = "Yes."},
    {.name = "no thought",
     .thinks = true,
     .text = "  <thinking> is a word",
     .content = "  <thinking> is a word"},
    {.name = "the prompt has opened the thought",
     .thinks = true,
     .prompt = "<|assistant|>\n<think>\n",
     .text = "Well\n\nso\n</think>Yes",
     .reasoning = "Well\n\nso",
     .content = "Yes"},
    {.name = "the prompt has closed it",
     .thinks = true,
     .prompt = "<think>\n\n</think>\n\n",
     .text = "Yes <think> no",
     .content = "Yes <think> no"},
    {.name = "cut off in thought",
     .thinks = true,
     .text = "<think>one two </thi",
     .reasoning = "one two </thi"},
    {.name = "JSON: a call",
     .calls = TSR_CALLS_JSON,
     .text = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": "
             "1.50}}\n</tool_call>",
     .called = "weather({\"city\": \"Oslo\", \"days\": 1.50})"},
    {.name = "JSON: words, two calls, words",
     .calls = TSR_CALLS_JSON,
     .text = "Let me see.\n\n<tool_call>\n{\"arguments\": {\"city\": \"a\\\"}</tool_call>\"}, "
             "\"name\": \"weather\"}\n</tool_call>\n<tool_call>{\"name\": \"weather_map\", "
             "\"arguments\": {}}</tool_call>\nDone.",
     .content = "Let me see.Done.",
     .called = "weather({\"city\": \"a\\\"}</tool_call>\"})weather_map({})"},
    {.name = "JSON: arguments as a string, or none",
     .calls = TSR_CALLS_JSON,
     .text = "<tool_call>{\"name\": \"weather\", \"arguments\": \"{\\\"days\\\": 2}\"}</tool_call>"
             "<tool_call>{\"name\": \"weather_map\"}</tool_call>",
     .called = "weather({\"days\": 2})weather_map({})"},
    {.name = "JSON: nothing is closed",
     .calls = TSR_CALLS_JSON,
     .text = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n",
     .called = "weather({})"},
    {.name = "JSON: undeclared, a beginning of a name, and no JSON are content",
     .calls = TSR_CALLS_JSON,
     .text = "a\n<tool_call>{\"name\": \"weath\", \"arguments\": {}}</tool_call> "
             "<tool_call>{\"name\": \"weather\", \"arguments\": [1]}</tool_call>"
             "<tool_call>{oops}</tool_call><tool_call>{\"name\": \"weather_map\", \"arguments\": "
             "{}}</tool_call>",
     .content = "a\n<tool_call>{\"name\": \"weath\", \"arguments\": {}}</tool_call> "
                "<tool_call>{\"name\": \"weather\", \"arguments\": [1]}</tool_call>"
                "<tool_call>{oops}</tool_call>",
     .called = "weather_map({})"},
    {.name = "JSON: a call ends a thought",
     .calls = TSR_CALLS_JSON,
     .thinks = true,
     .text = "<think>\nI call. \n<tool_call>{\"name\": \"weather_map\", \"arguments\": "
             "{}}</tool_call>",
     .reasoning = "I call.",
     .called = "weather_map({})"},
    {.name = "JSON: no tools were declared",
     .calls = TSR_CALLS_JSON,
     .no_tools = true,
     .text = "<tool_call>\n{\"name\": \"weather\"}\n</tool_call>",
     .content = "<tool_call>\n{\"name\": \"weather\"}\n</tool_call>"},
    {.name = "FUNCTION: arguments by their schema",
     .calls = TSR_CALLS_FUNCTION,
     .text = "Now:\n<tool_call>\n<function=weather>\n<parameter=city>\n12\n</parameter>\n"
             "<parameter=days>\n 3 \n</parameter>\n<parameter=more>\nTrue\n</parameter>\n"
             "</function>\n</tool_call>",
     .content = "Now:",
     .called = "weather({\"city\": \"12\", \"days\": 3, \"more\": true})"},
    {.name = "FUNCTION: several lines, tags inside, no outer tag",
     .calls = TSR_CALLS_FUNCTION,
     .text = "<function=weather>\n<parameter=city>\n\nif a < b:\n  </tool_call>\n\n</parameter>\n"
             "</function>\nok",
     .content = "ok",
     .called = "weather({\"city\": \"\\nif a < b:\\n  </tool_call>\\n\"})"},
    {.name = "FUNCTION: a closing tag inside of a value",
     .calls = TSR_CALLS_FUNCTION,
     .text = "<tool_call>\n<function=weather>\n<parameter=city>\n</tool_call>\n</parameter>\n"
             "</function>\n</tool_call>",
     .called = "weather({\"city\": \"</tool_call>\"})"},
    {.name = "FUNCTION: a parameter that is not closed, an undeclared tool",
     .calls = TSR_CALLS_FUNCTION,
     .text = "<tool_call>\n<function=weather>\n<parameter=city>\nx\n<parameter=days>\n[1, 2]\n"
             "</function>\n</tool_call><tool_call><function=wea></function></tool_call>",
     .content = "<tool_call><function=wea></function></tool_call>",
     .called = "weather({\"city\": \"x\", \"days\": [1, 2]})"},
    {.name = "ARGUMENT: in lines",
     .calls = TSR_CALLS_ARGUMENT,
     .thinks = true,
     .text = "\n<think>so</think>\nOK\n<tool_call>weather\n<arg_key>city</arg_key>\n"
             "<arg_value>New\nYork </arg_value>\n<arg_key>days</arg_key>\n<arg_value>2"
             "</arg_value>\n<arg_key>zip</arg_key>\n<arg_value>0123</arg_value>\n</tool_call>",
     .reasoning = "so",
     .content = "OK",
     .called = "weather({\"city\": \"New\\nYork \", \"days\": 2, \"zip\": \"0123\"})"},
    {.name = "ARGUMENT: compact, none, a tag inside of a value",
     .calls = TSR_CALLS_ARGUMENT,
     .thinks = true,
     .prompt = "<|assistant|></think>",
     .text = "<tool_call>weather_map</tool_call><tool_call>weather<arg_key>city</arg_key>"
             "<arg_value></tool_call></arg_value><arg_key>x</arg_key><arg_value>{\"a\": 1e400}"
             "</arg_value></tool_call>",
     .called = "weather_map({})weather({\"city\": \"</tool_call>\", \"x\": {\"a\": 1e400}})"},
};
enum { CASES = sizeof(cases) / sizeof(cases[0]), OUT = 1024 };

typedef struct outcome {
    char reasoning[OUT];
    char content[OUT];
    char called[OUT];
} outcome;

static tsr_answer_parser *open_case(const parser_case *c, const json_t *tools)
{
    const tsr_answer_args args = {.style = {.calls = c->calls, .thinks = c->thinks},
                                  .tools = c->no_tools ? NULL : tools,
                                  .prompt = c->prompt != NULL ? c->prompt : "",
                                  .prompt_bytes = c->prompt != NULL ? strlen(c->prompt) : 0};
    tsr_answer_parser *parser = NULL;
    ASSERT_STATUS(TSR_OK, tsr_answer_parser_open(&args, &parser));
    return parser;
}

static void close_into(tsr_answer_parser *parser, outcome *ret_outcome)
{
    ASSERT_STATUS(TSR_OK, tsr_answer_parser_finish(parser));
    const tsr_answer_parts *parts = tsr_answer_parser_parts(parser);
    size_t at = 0;

    *ret_outcome = (outcome){0};
    (void)snprintf(ret_outcome->reasoning, OUT, "%s",
                   parts->reasoning.bytes != NULL ? parts->reasoning.bytes : "");
    (void)snprintf(ret_outcome->content, OUT, "%s",
                   parts->content.bytes != NULL ? parts->content.bytes : "");
    for (size_t i = 0; i < parts->call_count; i++)
        at += (size_t)snprintf(ret_outcome->called + at, OUT - at, "%s(%s)", parts->calls[i].name,
                               parts->calls[i].arguments);
    tsr_answer_parser_close(parser);
}

static void assert_outcome(const parser_case *c, const outcome *o)
{
    const char *const pairs[][2] = {
        {c->reasoning, o->reasoning}, {c->content, o->content}, {c->called, o->called}};
    for (size_t i = 0; i < 3; i++) {
        const char *expected = pairs[i][0] != NULL ? pairs[i][0] : "";
        if (strcmp(expected, pairs[i][1]) != 0)
            print_error("%s\n", c->name);
        assert_string_equal(expected, pairs[i][1]);
    }
}

/* Two cuts, anywhere: pieces may be empty. */
static void the_sum_does_not_depend_on_the_cuts(void **state)
{
    (void)state;
    json_t *tools = json_loads(tools_text, 0, NULL);
    assert_non_null(tools);

    for (size_t i = 0; i < CASES; i++) {
        const parser_case *c = &cases[i];
        const size_t count = strlen(c->text);
        for (size_t a = 0; a <= count; a++) {
            for (size_t b = a; b <= count; b += 1 + b % 7) {
                outcome o;
                tsr_answer_parser *p = open_case(c, tools);
                ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(p, c->text, a));
                ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(p, c->text + a, b - a));
                ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(p, c->text + b, count - b));
                close_into(p, &o);
                assert_outcome(c, &o);
            }
        }
    }
    json_decref(tools);
}

static void bytes_may_come_alone(void **state)
{
    (void)state;
    json_t *tools = json_loads(tools_text, 0, NULL);

    for (size_t i = 0; i < CASES; i++) {
        const parser_case *c = &cases[i];
        outcome o;
        tsr_answer_parser *p = open_case(c, tools);
        for (const char *at = c->text; *at; at++)
            ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(p, at, 1));
        close_into(p, &o);
        assert_outcome(c, &o);
    }
    json_decref(tools);
}

/* Nobody waits for what is certain. */
static void text_comes_out_as_soon_as_it_can(void **state)
{
    (void)state;
    static const parser_case c = {.calls = TSR_CALLS_JSON, .thinks = true};
    json_t *tools = json_loads(tools_text, 0, NULL);
    tsr_answer_parser *p = open_case(&c, tools);
    const tsr_answer_parts *parts = tsr_answer_parser_parts(p);
    outcome o;

    ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(p, "<think>", 7));
    assert_true(tsr_answer_parser_is_thinking(p));
    ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(p, "ab <", 4));
    assert_string_equal("ab", parts->reasoning.bytes);
    ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(p, "x", 1));
    assert_string_equal("ab <x", parts->reasoning.bytes);
    ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(p, "</think>hi <tool", 16));
    assert_false(tsr_answer_parser_is_thinking(p));
    assert_string_equal("hi", parts->content.bytes);
    ASSERT_STATUS(TSR_OK, tsr_answer_parser_push(p, "box", 3));
    assert_string_equal("hi <toolbox", parts->content.bytes);
    close_into(p, &o);
    json_decref(tools);
}

static void styles_are_known_by_the_template(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        tsr_call_style calls;
        bool thinks;
    } templates[] = {
        {"qwen3", TSR_CALLS_JSON, true},       {"qwen3-coder", TSR_CALLS_FUNCTION, false},
        {"glm-4.6", TSR_CALLS_ARGUMENT, true}, {"glm-4.7", TSR_CALLS_ARGUMENT, true},
        {"llama-3", TSR_CALLS_NONE, false},
    };

    for (size_t i = 0; i < sizeof(templates) / sizeof(templates[0]); i++) {
        static char text[1 << 16];
        char path[4096];
        (void)snprintf(path, sizeof(path), TSR_TEST_DATA "/text/templates/%s.jinja",
                       templates[i].file);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        const size_t count = fread(text, 1, sizeof(text), file);
        (void)fclose(file);
        const tsr_answer_style style = tsr_answer_style_of(text, count);
        assert_int_equal(templates[i].calls, style.calls);
        assert_int_equal(templates[i].thinks, style.thinks);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_does_not_depend_on_the_cuts),
        cmocka_unit_test(bytes_may_come_alone),
        cmocka_unit_test(text_comes_out_as_soon_as_it_can),
        cmocka_unit_test(styles_are_known_by_the_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
