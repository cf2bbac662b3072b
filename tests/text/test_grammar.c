/* Grammars, byte by byte: which texts they take, and which wishes are refused. */
#include "runtime/text/grammar/automaton.h"
#include "runtime/text/grammar/grammar.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

/* A grammar that is run. */
typedef struct run {
    tsr_grammar_program program;
    tsr_automaton *automaton;
} run;

static void open_run(const char *text, run *r)
{
    json_error_t error;
    json_t *wanted = json_loads(text, 0, &error);

    if (wanted == NULL)
        fail_msg("%s: %s", text, error.text);
    const tsr_status st = tsr_grammar_compile(wanted, &r->program);
    if (st != TSR_OK)
        fail_msg("%s: %s", text, r->program.refusal);
    json_decref(wanted);
    ASSERT_STATUS(TSR_OK, tsr_automaton_open(&r->program, &r->automaton));
}

static void close_run(run *r)
{
    tsr_automaton_close(r->automaton);
    tsr_program_close(&r->program);
}

static bool takes(const run *r, const char *text)
{
    int32_t state = tsr_automaton_start(r->automaton);

    for (const char *c = text; *c != '\0'; c++)
        state = tsr_automaton_next(r->automaton, state, (unsigned char)*c);
    assert_int_not_equal(TSR_STATE_FULL, state);
    return state != TSR_STATE_NONE && tsr_automaton_facts(r->automaton, state).may_end;
}

enum { MOST_TEXTS = 16 };

/* What a grammar takes and what it does not; NULL behind the last. */
typedef struct scene {
    const char *wanted;
    const char *taken[MOST_TEXTS];
    const char *not_taken[MOST_TEXTS];
} scene;

static void check(const scene *scenes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        run r;
        open_run(scenes[i].wanted, &r);
        for (size_t t = 0; scenes[i].taken[t] != NULL; t++) {
            if (!takes(&r, scenes[i].taken[t]))
                fail_msg("%s does not take %s", scenes[i].wanted, scenes[i].taken[t]);
        }
        for (size_t t = 0; scenes[i].not_taken[t] != NULL; t++) {
            if (takes(&r, scenes[i].not_taken[t]))
                fail_msg("%s takes %s", scenes[i].wanted, scenes[i].not_taken[t]);
        }
        close_run(&r);
    }
}

#define CHECK_SCENES(scenes) check(scenes, sizeof(scenes) / sizeof((scenes)[0]))

static void values_of_json(void **state)
{
    static const scene scenes[] = {
        {"{\"json_object\": true}",
         {"{}", "\n\n{ \"a\": [1, -2.5e+10, true, null], \"b\": {\"c\": \"x\\n\\u00e9\"}}",
          "{\n  \"a\": \"\xc3\xa9\xf0\x9f\x98\x80\"\n}", "{\"\\ud83d\\ude00\": 0}"},
         {"", "[]", "1", "{", "{}x", "{\"a\"}", "{\"a\": 01}", "{\"a\": 1,}", "{\"a\": +1}",
          "{\"a\": \"\\u0000\"}", "{\"a\": \"\\ud83d\"}", "{\"a\": \"\\x\"}", "{\"a\": \"\xc3\"}",
          "{\"a\": \"\xed\xa0\x80\"}", "\n\n\n{}"}},
        {"{\"json\": {}}",
         {"1", "\"x\"", "[]", "[[[]]]", "false", "0.5"},
         {"1 ", "tru", "[1 2]", ".5", "1.", "--1"}},
        {"{\"json\": {\"type\": \"integer\"}}", {"0", "-17", "123"}, {"1.0", "1e3", "00", "-"}},
        {"{\"json\": {\"type\": [\"string\", \"null\"]}}", {"\"\"", "null"}, {"1", "nul"}},
        {"{\"json\": {\"enum\": [\"a\\\"b\", 1, null, {\"x\": [1.5, \"y\"]}]}}",
         {"\"a\\\"b\"", "1", "null", "{\"x\": [1.5, \"y\"]}", "{\"x\":[1.5,\"y\"]}"},
         {"\"a\"", "2", "{\"x\": [1.5]}", "{}"}},
        {"{\"json\": {\"type\": \"string\", \"enum\": [\"a\", 1]}}", {"\"a\""}, {"1"}},
        {"{\"json\": {\"const\": \"\xc3\xa9\"}}", {"\"\xc3\xa9\""}, {"\"\\u00e9\""}},
    };

    (void)state;
    CHECK_SCENES(scenes);
}

static void objects_and_arrays(void **state)
{
    static const scene scenes[] = {
        {"{\"json\": {\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, "
         "\"b\": "
         "{\"type\": \"string\"}, \"c\": {\"type\": \"null\"}}, \"required\": [\"b\"]}}",
         {"{\"a\": 1, \"b\": \"x\", \"c\": null}", "{\"b\":\"\"}", "{\"b\": \"\", \"c\": null}",
          "{ \"a\": 1,\n\"b\": \"x\" }"},
         {"{}", "{\"a\": 1}", "{\"b\": \"\", \"a\": 1}", "{\"b\": 1}", "{\"b\": \"\", \"d\": 1}",
          "{\"b\": \"\", }", "{,\"b\": \"\"}"}},
        {"{\"json\": {\"properties\": {\"ab\": {}, \"abc\": {}, \"\xc3\xa9\": {}}, "
         "\"additionalProperties\": {\"type\": \"integer\"}}}",
         {"{}", "{\"ab\": \"x\", \"q\": 1}",
          "{\"a\": 1, \"abd\": 2, \"\": 3, \"a\xe2\x82\xac\": 4}", "{\"\xc3\xa9\": []}"},
         {"{\"q\": \"x\"}", "{\"a\": 1, \"ab\": 1}", "{\"q\": 1, \"abc\": 1}", "{\"x\\n\": 1}"}},
        {"{\"json\": {\"type\": \"object\", \"properties\": {}, \"required\": [\"z\"]}}",
         {"{\"z\": [1]}"},
         {"{}", "{\"y\": 1}"}},
        {"{\"json\": {\"type\": \"array\", \"items\": {\"type\": \"boolean\"}, \"minItems\": 1, "
         "\"maxItems\": 3}}",
         {"[true]", "[true, false,true]", "[\n  true\n]"},
         {"[]", "[1]", "[true,true,true,true]", "[true,]"}},
        {"{\"json\": {\"type\": \"array\", \"prefixItems\": [{\"type\": \"null\"}, {\"const\": "
         "7}], "
         "\"items\": {\"type\": \"string\"}, \"minItems\": 2}}",
         {"[null, 7]", "[null,7,\"a\",\"b\"]"},
         {"[null]", "[7, null]", "[null, 7, 7]"}},
        {"{\"json\": {\"type\": \"array\", \"prefixItems\": [{\"const\": 1}], \"items\": false}}",
         {"[]", "[1]"},
         {"[1, 1]", "[2]"}},
        {"{\"json\": {\"type\": \"array\"}}", {"[]", "[1, [\"a\"], {}]"}, {"[1", "{}"}},
        {"{\"json\": {\"anyOf\": [{\"type\": \"object\", \"properties\": {\"k\": {\"const\": "
         "\"a\"}}, \"required\": [\"k\"]}, {\"type\": \"object\", \"properties\": {\"k\": "
         "{\"const\": \"b\"}, \"n\": {\"type\": \"integer\"}}, \"required\": [\"k\", \"n\"]}]}}",
         {"{\"k\": \"a\"}", "{\"k\": \"b\", \"n\": 1}"},
         {"{\"k\": \"a\", \"n\": 1}", "{\"k\": \"b\"}"}},
        {"{\"json\": {\"$defs\": {\"tree\": {\"type\": \"object\", \"properties\": {\"v\": "
         "{\"type\": \"integer\"}, \"kids\": {\"type\": \"array\", \"items\": {\"$ref\": "
         "\"#/$defs/tree\"}}}, \"required\": [\"v\"]}}, \"$ref\": \"#/$defs/tree\"}}",
         {"{\"v\": 1}", "{\"v\": 1, \"kids\": [{\"v\": 2, \"kids\": []}, {\"v\": 3}]}"},
         {"{\"v\": 1, \"kids\": [{}]}", "{\"v\": 1, \"kids\": [1]}"}},
    };

    (void)state;
    CHECK_SCENES(scenes);
}

static void strings_and_numbers(void **state)
{
    static const scene scenes[] = {
        {"{\"json\": {\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}}",
         {"\"ab\"", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "\"\\n\\u0041\""},
         {"\"a\"", "\"abcd\"", "\"\""}},
        {"{\"json\": {\"type\": \"string\", \"minLength\": 2}}",
         {"\"ab\"", "\"abcdefgh\""},
         {"\"a\""}},
        {"{\"json\": {\"type\": \"string\", \"pattern\": \"^[a-c]+-\\\\d{2,3}$\"}}",
         {"\"a-12\"", "\"cab-123\""},
         {"\"-12\"", "\"a-1\"", "\"a-1234\"", "\"xa-12\""}},
        {"{\"json\": {\"type\": \"string\", \"pattern\": \"b|^\\\"$\"}}",
         {"\"abc\"", "\"b\"", "\"\\\"\""},
         {"\"ac\"", "\"\""}},
        {"{\"json\": {\"type\": \"string\", \"format\": \"date-time\"}}",
         {"\"2026-11-28T21:00:59.5Z\"", "\"1999-02-28T00:00:00+02:00\""},
         {"\"2026-02-30T00:00:00Z\"", "\"2026-11-28\"", "\"2026-11-28T24:00:00Z\""}},
        {"{\"json\": {\"type\": \"string\", \"format\": \"email\"}}",
         {"\"a.b@c.de\""},
         {"\"a@b\"", "\"@c.de\""}},
        {"{\"json\": {\"type\": \"integer\", \"minimum\": -12, \"maximum\": 137}}",
         {"-12", "-1", "0", "9", "99", "100", "137"},
         {"-13", "138", "1000", "-0", "07"}},
        {"{\"json\": {\"type\": \"integer\", \"exclusiveMinimum\": 0}}",
         {"1", "999999"},
         {"0", "-1"}},
        {"{\"json\": {\"type\": \"number\", \"exclusiveMinimum\": 0, \"maximum\": 10}}",
         {"0.1", "0.001", "5", "9.99", "10", "10.0"},
         {"0", "0.0", "10.1", "-1", "11"}},
        {"{\"json\": {\"type\": \"number\", \"minimum\": -1, \"exclusiveMaximum\": 1}}",
         {"-1", "-1.0", "-0.5", "0.99"},
         {"1", "1.0", "-1.5"}},
        {"{\"json\": {\"maximum\": -5}}", {"-5", "-6.5", "-5.0"}, {"-4", "-4.9", "5"}},
    };

    (void)state;
    CHECK_SCENES(scenes);
}

static void texts(void **state)
{
    static const scene scenes[] = {
        {"{\"choice\": [\"yes\", \"no\", \"not\"]}", {"yes", "no", "not"}, {"y", "yesno", "nott"}},
        {"{\"regex\": \"^(?:\\\\w+@[a-z.]+|x{3}|[^\\\\W\\\\d]\\\\.)$\"}",
         {"me_1@a.b", "xxx", "a."},
         {"xx", "xxxx", "1.", "@a"}},
        {"{\"regex\": \"a.c|\\u20ac*?\"}",
         {"abc", "a\xe2\x82\xac\x63", "", "\xe2\x82\xac\xe2\x82\xac"},
         {"a\nc", "ac"}},
        {"{\"regex\": \"[\\u0430-\\u044f]{2}\"}",
         {"\xd0\xb0\xd1\x8f"},
         {"\xd0\xb0", "\xd0\x90\xd1\x8f", "ab"}},
        {"{\"regex\": \"b+\", \"thinks\": true}",
         {"bb", "<think>a < b\n</think>\n\nb", "<think></think>b"},
         {"<think>b", "\nb", "<think></think>"}},
        {"{\"regex\": \"(a*)*b\"}", {"b", "aaab"}, {"a"}},
    };

    (void)state;
    CHECK_SCENES(scenes);
}

#define TOOLS                                                                                      \
    "\"tools\": [{\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\": "        \
    "{\"n\": {\"type\": \"integer\"}, \"s\": {\"type\": \"string\"}, \"e\": {\"type\": "           \
    "\"string\", \"enum\": [\"u\", \"v\"]}}, \"required\": [\"n\"]}}, {\"name\": \"g\"}]"

static void calls(void **state)
{
    static const scene scenes[] = {
        {"{\"calls\": {\"style\": 1, \"many\": true, " TOOLS "}}",
         {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 1, \"s\": \"x\"}}\n</tool_call>",
          "\n\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
          "{\"name\": \"f\", \"arguments\": {\"n\": 1}}\n</tool_call>"},
         {"<tool_call>\n{\"name\": \"h\", \"arguments\": {}}\n</tool_call>",
          "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>", ""}},
        {"{\"calls\": {\"style\": 2, \"many\": false, " TOOLS "}}",
         {"<tool_call>\n<function=f>\n<parameter=n>\n12\n</parameter>\n<parameter=s>\na </p\n"
          "\"\xc3\xa9\n</parameter>\n</function>\n</tool_call>",
          "<tool_call>\n<function=f>\n<parameter=n>\n1\n</parameter>\n<parameter=e>\nv\n"
          "</parameter>\n</function>\n</tool_call>",
          "<tool_call>\n<function=g>\n</function>\n</tool_call>"},
         {"<tool_call>\n<function=f>\n<parameter=n>\nx\n</parameter>\n</function>\n</tool_call>",
          "<tool_call>\n<function=f>\n</function>\n</tool_call>",
          "<tool_call>\n<function=f>\n<parameter=n>\n1\n</parameter>\n<parameter=s>\n<parameter=\n"
          "</parameter>\n</function>\n</tool_call>",
          "<tool_call>\n<function=g>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n"
          "</function>\n</tool_call>"}},
        {"{\"calls\": {\"style\": 3, \"many\": false, " TOOLS "}}",
         {"<tool_call>f\n<arg_key>n</arg_key>\n<arg_value>-3</arg_value>\n<arg_key>s</arg_key>\n"
          "<arg_value>a < b</arg_value>\n</tool_call>",
          "<tool_call>g\n</tool_call>"},
         {"<tool_call>f\n</tool_call>",
          "<tool_call>f\n<arg_key>n</arg_key>\n<arg_value>x</arg_value>\n</tool_call>"}},
    };

    (void)state;
    CHECK_SCENES(scenes);
}

/* Every refusal names the place and the keyword. */
static void refusals(void **state)
{
    static const char *const cases[][2] = {
        {"{\"json\": {\"type\": \"array\", \"items\": {\"properties\": {\"a\": {\"multipleOf\": "
         "2}}}}}",
         "#/items/properties/a: multipleOf is not served"},
        {"{\"json\": {\"type\": \"array\", \"uniqueItems\": true}}",
         "#: uniqueItems is not served"},
        {"{\"json\": {\"type\": \"thing\"}}", "#: type: expected object"},
        {"{\"json\": {\"$ref\": \"http://x/y\"}}", "there is no http://x/y"},
        {"{\"json\": {\"$ref\": \"#/$defs/none\"}}", "there is no #/$defs/none"},
        {"{\"json\": {\"$ref\": \"#\"}}", "leads back to itself"},
        {"{\"json\": {\"anyOf\": [{\"$ref\": \"#\"}, {\"type\": \"null\"}]}}",
         "leads back to itself"},
        {"{\"json\": {\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}, "
         "\"required\": [\"a\"]}}",
         "nothing satisfies it"},
        {"{\"json\": false}", "nothing satisfies it"},
        {"{\"json\": {\"type\": \"integer\", \"minimum\": 5, \"maximum\": 4}}",
         "nothing satisfies it"},
        {"{\"json\": {\"type\": \"string\", \"minLength\": 5, \"maxLength\": 4}}",
         "nothing satisfies it"},
        {"{\"json\": {\"allOf\": [{}, {}]}}", "#: allOf is not served"},
        {"{\"json\": {\"enum\": [\"a\"], \"minLength\": 1}}", "enum or const beside"},
        {"{\"json\": {\"minLength\": 1, \"minimum\": 1}}", "it needs a type"},
        {"{\"json\": {\"type\": \"string\", \"pattern\": \"(?=a)\"}}",
         "#: pattern: the expression"},
        {"{\"json\": {\"type\": \"string\", \"pattern\": \"a\", \"maxLength\": 3}}",
         "beside each other"},
        {"{\"json\": {\"type\": \"string\", \"format\": \"uri\"}}", "format: uri is not served"},
        {"{\"json\": {\"type\": \"number\", \"minimum\": 0.5}}", "only whole bounds"},
        {"{\"json\": {\"type\": \"array\", \"minItems\": 100000, \"items\": {\"minItems\": 3}}}",
         "larger than"},
        {"{\"json\": 7}", "a schema is an object"},
        {"{\"regex\": \"a(b\"}", ") is missing"},
        {"{\"regex\": \"\\\\bq\"}", "this escape is not served"},
        {"{\"regex\": \"((a{1000}){1000}){1000}\"}", "larger than"},
        {"{\"choice\": []}", "1 to"},
        {"{\"choice\": [\"\"]}", "element 0"},
        {"{\"calls\": {\"style\": 2, \"tools\": [{\"name\": \"f\", \"parameters\": "
         "{\"properties\": "
         "{\"s\": {\"type\": \"string\", \"maxLength\": 2}}}}]}}",
         "bare text"},
        {"{\"x\": 1}", "nothing that an answer"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *wanted = json_loads(cases[i][0], 0, NULL);
        tsr_grammar_program program;
        assert_non_null(wanted);
        ASSERT_STATUS(TSR_ERR_ARG, tsr_grammar_compile(wanted, &program));
        if (strstr(program.refusal, cases[i][1]) == NULL)
            fail_msg("%s: %s, expected %s", cases[i][0], program.refusal, cases[i][1]);
        tsr_program_close(&program);
        json_decref(wanted);
    }
}

/* As deep as calls go it still comes to an end, and no deeper. */
static void depth(void **state)
{
    run r;
    open_run("{\"json_object\": true}", &r);
    int32_t at = tsr_automaton_start(r.automaton);
    int depth = 0;

    (void)state;
    at = tsr_automaton_next(r.automaton, at, '{');
    for (const char *c = "\"a\":"; *c != '\0'; c++)
        at = tsr_automaton_next(r.automaton, at, (unsigned char)*c);
    for (;; depth++) {
        const int32_t next = tsr_automaton_next(r.automaton, at, '[');
        if (next == TSR_STATE_NONE)
            break;
        at = next;
    }
    assert_in_range(depth, TSR_GRAMMAR_DEPTH - 3, TSR_GRAMMAR_DEPTH);
    for (int i = 0; i < depth; i++)
        at = tsr_automaton_next(r.automaton, at, ']');
    at = tsr_automaton_next(r.automaton, at, '}');
    assert_true(tsr_automaton_facts(r.automaton, at).may_end);
    assert_false(tsr_automaton_facts(r.automaton, at).goes_on);
    close_run(&r);
}

/* What is kept over a reset goes on as before. */
static void resets(void **state)
{
    static const char first[] = "{\"a\": {\"b\": [\"";
    static const char rest[] = "x\"], \"c\": 1}}";
    run r;
    open_run("{\"json_object\": true}", &r);
    int32_t at = tsr_automaton_start(r.automaton);

    (void)state;
    for (const char *c = first; *c != '\0'; c++)
        at = tsr_automaton_next(r.automaton, at, (unsigned char)*c);
    at = tsr_automaton_reset(r.automaton, at);
    assert_int_equal(2, tsr_automaton_age(r.automaton));
    for (const char *c = rest; *c != '\0'; c++)
        at = tsr_automaton_next(r.automaton, at, (unsigned char)*c);
    assert_true(at > TSR_STATE_NONE && tsr_automaton_facts(r.automaton, at).may_end);
    assert_true(takes(&r, "{}"));
    close_run(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_json),
        cmocka_unit_test(objects_and_arrays),
        cmocka_unit_test(strings_and_numbers),
        cmocka_unit_test(texts),
        cmocka_unit_test(calls),
        cmocka_unit_test(refusals),
        cmocka_unit_test(depth),
        cmocka_unit_test(resets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
