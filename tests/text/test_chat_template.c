/* What parity with jinja2 does not show: folders, messages, and bounds. */
#include "tests/test.h"

#include "runtime/text/chat_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Renders `source`; the status, the text (to be closed) and what was said. */
static tsr_status render(const char *source, const char *variables, tsr_text *text,
                         tsr_problems *problems)
{
    tsr_chat_template *parsed = NULL;
    json_t *json = json_loads(variables, 0, NULL);
    assert_non_null(json);
    tsr_status st = tsr_chat_template_parse("t.jinja", source, strlen(source), problems, &parsed);
    if (st == TSR_OK)
        st = tsr_chat_template_render(parsed, json, problems, text);
    tsr_chat_template_close(parsed);
    json_decref(json);
    return st;
}

static void gives(const char *source, const char *variables, const char *expected)
{
    tsr_text text = {0};
    tsr_problems problems = {0};
    ASSERT_STATUS(TSR_OK, render(source, variables, &text, &problems));
    assert_string_equal(expected, text.bytes != NULL ? text.bytes : "");
    tsr_text_close(&text);
    tsr_problems_close(&problems);
}

static void fails(const char *source, tsr_status expected, const char *message)
{
    tsr_text text = {0};
    tsr_problems problems = {0};
    ASSERT_STATUS(expected, render(source, "{\"x\": 1}", &text, &problems));
    assert_int_equal(0, text.count);
    assert_int_equal(1, problems.count);
    assert_string_equal(message, problems.items[0].text);
    tsr_problems_close(&problems);
}

static void a_refusal_names_line_and_construct(void **state)
{
    (void)state;
    fails("a\n{% with y = 1 %}{% endwith %}", TSR_ERR_CHECKPOINT,
          "t.jinja: line 2: the statement 'with' is not supported here");
    fails("\n\n{{ x | wordcount }}", TSR_ERR_CHECKPOINT,
          "t.jinja: line 3: the filter 'wordcount' is not supported");
    fails("{{ x is sameas 1 }}", TSR_ERR_CHECKPOINT,
          "t.jinja: line 1: the test 'sameas' is not supported");
    fails("{% if x %}\n{{ x | wordcount }}{% endif %}", TSR_ERR_ARG,
          "t.jinja: line 2: the filter 'wordcount' is not supported");
    fails("{% if x is sameas 1 %}{% endif %}", TSR_ERR_ARG,
          "t.jinja: line 1: the test 'sameas' is not supported");
    fails("{% if x %}\n", TSR_ERR_CHECKPOINT,
          "t.jinja: line 1: the template ends where endif was expected");
    fails("{{ x\n\n", TSR_ERR_CHECKPOINT, "t.jinja: line 2: a {{ without its }}");
}

static void what_never_runs_may_use_what_is_not_supported(void **state)
{
    (void)state;
    gives("{% if x is string %}{{ x | from_json }}{% elif no and x is json %}{% else %}"
          "{% for y in [] if y is json %}{{ y | nosuch }}{% endfor %}{{ x }}{% endif %}",
          "{\"x\": 1}", "1");
}

static void an_error_names_the_line_it_happened_on(void **state)
{
    (void)state;
    fails("\n{{ x }}\n{{ nope.y }}", TSR_ERR_ARG, "t.jinja: line 3: 'nope' is undefined");
    fails("{% macro m(a) %}\n{{ a + 1 }}\n{% endmacro %}\n\n{{ m('s') }}", TSR_ERR_ARG,
          "t.jinja: line 2: '+' between str and int is not supported");
    fails("\n{{ raise_exception('only ' ~ x) }}", TSR_ERR_ARG,
          "t.jinja: line 2: the template says: only 1");
}

static void a_template_without_end_is_ended(void **state)
{
    (void)state;
    fails("{% set r = range(9999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
          TSR_ERR_ARG, "t.jinja: line 1: the template takes more than 10000000 steps");
    fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", TSR_ERR_ARG,
          "t.jinja: line 1: macros call one another deeper than 64");
    fails("{% set t = 'a' * 1000000 %}{% for i in range(99999) %}{{ 'b' in t }}{% endfor %}",
          TSR_ERR_ARG, "t.jinja: line 1: the template takes more than 10000000 steps");
    fails("{{ ('a' * 900000).find('a' * 400000 ~ 'b') }}{{ ('a' * 9999).strip('b' * 9999) }}",
          TSR_ERR_ARG, "t.jinja: line 1: strip of more than 1024 bytes of characters");
    fails("{{ range(100001) }}", TSR_ERR_ARG, "t.jinja: line 1: range of more than 100000 items");
    fails("{{ 'x' * 70000000 }}", TSR_ERR_ARG,
          "t.jinja: line 1: a text of more than 67108864 bytes");
    fails("{% set t = 'a' * 1000000 %}{% for i in range(1000) %}{{ t.find('a' * 15 ~ 'b') }}"
          "{{ t.strip('bcdefgha' * 120) }}{% endfor %}",
          TSR_ERR_ARG, "t.jinja: line 1: the template takes more than 10000000 steps");
    fails("{{ ('x' * 100000) * 1000 }}", TSR_ERR_ARG,
          "t.jinja: line 1: a text of more than 67108864 bytes");
    fails("{% set n = namespace(l=['x']) %}{% for i in range(100) %}{% set n.l = n.l + n.l %}"
          "{% endfor %}",
          TSR_ERR_ARG, "t.jinja: line 1: the template takes more than 268435456 bytes");
    fails("{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% endfor %}"
          "{{ n.l }}",
          TSR_ERR_ARG, "t.jinja: line 1: nested deeper than 400");
}

static void a_template_nested_too_deep_is_refused(void **state)
{
    (void)state;
    char source[2000];
    memset(source, '(', sizeof(source));
    memcpy(source, "{{", 2);
    source[sizeof(source) - 1] = '\0';
    fails(source, TSR_ERR_CHECKPOINT, "t.jinja: line 1: brackets nested too deep");
    for (size_t i = 2; i < 1000; i += 4)
        memcpy(source + i, "not ", 4);
    memcpy(source + 1000, "x }}", 5);
    fails(source, TSR_ERR_CHECKPOINT, "t.jinja: line 1: nested deeper than 100");
}

static void strftime_now_gives_the_time(void **state)
{
    (void)state;
    char expected[64];
    const time_t now = time(NULL);
    struct tm parts;
    assert_non_null(localtime_r(&now, &parts));
    assert_true(strftime(expected, sizeof(expected), "%Y-%m", &parts) > 0);
    gives("{{ strftime_now('%Y-%m') }}", "{}", expected);
    (void)snprintf(expected, sizeof(expected), "%d|%02d|%6d|%%", parts.tm_mon + 1, parts.tm_mon + 1,
                   parts.tm_year + 1900);
    gives("{{ strftime_now('%-m|%Om|%_6Y|%') }}", "{}", expected);
    gives("{{ strftime_now('%%a%Z%z%f')[:2] }}{{ strftime_now('%f') | length }}", "{}", "%a6");
}

static void text_with_a_zero_byte_survives(void **state)
{
    (void)state;
    tsr_text text = {0};
    tsr_problems problems = {0};
    tsr_chat_template *parsed = NULL;
    json_t *json = json_pack("{s:s#}", "s", "a\0b", 3);
    assert_non_null(json);
    ASSERT_STATUS(TSR_OK,
                  tsr_chat_template_parse("t", "{{ s }}{{ s | length }}", 23, &problems, &parsed));
    ASSERT_STATUS(TSR_OK, tsr_chat_template_render(parsed, json, &problems, &text));
    assert_int_equal(4, text.count);
    assert_memory_equal("a\0b3", text.bytes, 4);
    tsr_text_close(&text);
    tsr_chat_template_close(parsed);
    json_decref(json);
}

/* A folder of this test's own. */
static int make_folder(void **state)
{
    static char folder[64];
    (void)snprintf(folder, sizeof(folder), "/tmp/tessera-template-XXXXXX");
    *state = mkdtemp(folder);
    return *state != NULL ? 0 : -1;
}

static void remove_file(const char *folder, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    (void)unlink(path);
}

static int remove_folder(void **state)
{
    remove_file(*state, "chat_template.jinja");
    remove_file(*state, "tokenizer_config.json");
    return rmdir(*state);
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(0, fclose(file));
}

/* Opens the folder and renders without variables. */
static void folder_gives(const char *folder, const char *expected)
{
    tsr_text text = {0};
    tsr_problems problems = {0};
    tsr_chat_template *parsed = NULL;
    json_t *json = json_pack("{s:s}", "pad_token", "ours");
    assert_non_null(json);
    ASSERT_STATUS(TSR_OK, tsr_chat_template_open(folder, &problems, &parsed));
    ASSERT_STATUS(TSR_OK, tsr_chat_template_render(parsed, json, &problems, &text));
    assert_string_equal(expected, text.bytes);
    tsr_text_close(&text);
    tsr_chat_template_close(parsed);
    json_decref(json);
}

static void the_file_comes_before_the_configuration(void **state)
{
    const char *folder = *state;
    tsr_problems problems = {0};
    tsr_chat_template *parsed = (tsr_chat_template *)(uintptr_t)1;
    ASSERT_STATUS(TSR_OK, tsr_chat_template_open(folder, &problems, &parsed));
    assert_null(parsed);

    write_file(folder, "tokenizer_config.json", "{\"bos_token\": null}");
    ASSERT_STATUS(TSR_OK, tsr_chat_template_open(folder, &problems, &parsed));
    assert_null(parsed);

    write_file(folder, "tokenizer_config.json",
               "{\"chat_template\": \"C{{ bos_token }}{{ eos_token }}{{ pad_token }}"
               "{{ additional_special_tokens | join }}{{ unk_token is defined }}{{ tools }}\","
               "\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}, \"pad_token\": "
               "\"theirs\", \"unk_token\": null, \"additional_special_tokens\": [\"a\", "
               "{\"content\": \"b\"}]}");
    folder_gives(folder, "C<s></s>oursabFalseNone");

    write_file(folder, "tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T\"}, {\"name\": "
               "\"default\", \"template\": \"D\"}]}");
    folder_gives(folder, "D");

    write_file(folder, "chat_template.jinja", "F\n");
    folder_gives(folder, "F");
}

static void a_broken_configuration_is_refused(void **state)
{
    const char *folder = *state;
    tsr_problems problems = {0};
    tsr_chat_template *parsed = NULL;
    write_file(folder, "tokenizer_config.json", "{\"chat_template\": 5}");
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_chat_template_open(folder, &problems, &parsed));
    write_file(folder, "tokenizer_config.json", "{");
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_chat_template_open(folder, &problems, &parsed));
    assert_int_equal(2, problems.errors);
    assert_null(parsed);
    tsr_problems_close(&problems);
}

static void a_template_that_loops_over_content_takes_parts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool takes;
    } cases[] = {
        {"{% for m in messages %}{{ m.content }}{% endfor %}", false},
        {"{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
         true},
        {"{% for p in messages[0]['content'] | selectattr('type') %}x{% endfor %}", true},
        {"{% macro f(content) %}{% if x %}{% elif y %}{% for p in content or [] %}{% endfor %}"
         "{% endif %}{% endmacro %}",
         true},
        {"{% for p in messages[0].contents %}content{% endfor %}", false},
        {"{% for c in content.split('x') %}{% endfor %}", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_problems problems = {0};
        tsr_chat_template *parsed = NULL;
        ASSERT_STATUS(TSR_OK, tsr_chat_template_parse("case", cases[i].text, strlen(cases[i].text),
                                                      &problems, &parsed));
        if (tsr_chat_template_takes_parts(parsed) != cases[i].takes)
            fail_msg("%s", cases[i].text);
        tsr_chat_template_close(parsed);
        tsr_problems_close(&problems);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_names_line_and_construct),
        cmocka_unit_test(a_template_that_loops_over_content_takes_parts),
        cmocka_unit_test(what_never_runs_may_use_what_is_not_supported),
        cmocka_unit_test(an_error_names_the_line_it_happened_on),
        cmocka_unit_test(a_template_without_end_is_ended),
        cmocka_unit_test(a_template_nested_too_deep_is_refused),
        cmocka_unit_test(strftime_now_gives_the_time),
        cmocka_unit_test(text_with_a_zero_byte_survives),
        cmocka_unit_test_setup_teardown(the_file_comes_before_the_configuration, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_broken_configuration_is_refused, make_folder,
                                        remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
