/*
 * Chat templates and snippets against what jinja2 made of them, from the golden file that
 * tests/oracle/make_template_golden.py writes. An argument names another file of that form.
 */
#include "tests/test.h"

#include "runtime/base/file.h"
#include "runtime/base/json_file.h"
#include "runtime/text/chat_template.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEMPLATES TSR_TEST_DATA "/text/templates"

enum { GOLDEN_BYTES_MOST = 256 * 1024 * 1024, TEMPLATE_BYTES_MOST = 1024 * 1024, SHOWN_MOST = 20 };

static const char *golden_path = TEMPLATES "/golden.json";
static json_t *golden;

static int open_golden(void **state)
{
    (void)state;
    tsr_problems problems = {0};
    const tsr_status st = tsr_json_load_file(golden_path, GOLDEN_BYTES_MOST, &problems, &golden);
    tsr_problems_log(&problems);
    tsr_problems_close(&problems);
    return st == TSR_OK ? 0 : -1;
}

static int close_golden(void **state)
{
    (void)state;
    json_decref(golden);
    return 0;
}

/* "#length:fnv1a64" stands for a long text. */
static bool matches(const json_t *expected, const tsr_text *text)
{
    char digest[64];
    uint64_t hash = 0xCBF29CE484222325u;
    const char *wanted = json_string_value(expected);
    if (wanted[0] != '#')
        return json_string_length(expected) == text->count &&
               (text->count == 0 || memcmp(wanted, text->bytes, text->count) == 0);
    for (size_t i = 0; i < text->count; i++)
        hash = (hash ^ (unsigned char)text->bytes[i]) * 0x100000001B3u;
    (void)snprintf(digest, sizeof(digest), "#%zu:%016" PRIx64, text->count, hash);
    return strcmp(digest, wanted) == 0;
}

/* One case; what differs is shown. */
static bool agrees(const char *source, size_t bytes, const json_t *variables,
                   const json_t *expected)
{
    tsr_problems problems = {0};
    tsr_chat_template *parsed = NULL;
    tsr_text text = {0};
    tsr_status st = tsr_chat_template_parse("template", source, bytes, &problems, &parsed);
    if (st == TSR_OK)
        st = tsr_chat_template_render(parsed, variables, &problems, &text);
    const bool raised = st == TSR_ERR_ARG || st == TSR_ERR_CHECKPOINT;
    const bool good = json_is_null(expected) ? raised && tsr_problems_has_error(&problems)
                                             : st == TSR_OK && matches(expected, &text);
    if (!good) {
        const char *wanted = json_string_value(expected);
        print_message("%.*s\n  wanted %s\n  got    %s %.*s %s\n", bytes < 400 ? (int)bytes : 400,
                      source, wanted != NULL ? wanted : "an error", tsr_status_name(st),
                      text.count < 600 ? (int)text.count : 600,
                      text.bytes != NULL ? text.bytes : "",
                      problems.count > 0 ? problems.items[0].text : "");
    }
    tsr_text_close(&text);
    tsr_chat_template_close(parsed);
    tsr_problems_close(&problems);
    return good;
}

static char *read_template(const char *name, size_t *ret_bytes)
{
    char path[512];
    char *source = NULL;
    if (strcmp(name, "demo") == 0)
        (void)snprintf(path, sizeof(path), "%s", TSR_TEST_DATA "/demo-mixed/chat_template.jinja");
    else
        (void)snprintf(path, sizeof(path), "%s/%s.jinja", TEMPLATES, name);
    ASSERT_STATUS(TSR_OK, tsr_file_read_text(path, TEMPLATE_BYTES_MOST, &source, ret_bytes));
    return source;
}

static void chat_templates_render_as_in_jinja2(void **state)
{
    (void)state;
    const json_t *conversations = json_object_get(golden, "conversations");
    const json_t *renders = json_object_get(golden, "renders");
    size_t differ = 0;
    for (size_t i = 0; i < json_array_size(renders); i++) {
        const json_t *row = json_array_get(renders, i);
        const char *name = json_string_value(json_array_get(row, 0));
        const size_t place = (size_t)json_integer_value(json_array_get(row, 1));
        size_t bytes = 0;
        char *source = read_template(name, &bytes);
        if (!agrees(source, bytes, json_array_get(conversations, place), json_array_get(row, 2))) {
            print_message("template %s, conversation %zu\n", name, place);
            differ++;
        }
        free(source);
        assert_true(differ < SHOWN_MOST);
    }
    print_message("%zu renders, %zu differ\n", json_array_size(renders), differ);
    assert_int_equal(0, differ);
}

static void snippets_render_as_in_jinja2(void **state)
{
    (void)state;
    const json_t *variables = json_object_get(golden, "variables");
    const json_t *snippets = json_object_get(golden, "snippets");
    size_t differ = 0;
    for (size_t i = 0; i < json_array_size(snippets); i++) {
        const json_t *row = json_array_get(snippets, i);
        const json_t *source = json_array_get(row, 0);
        if (!agrees(json_string_value(source), json_string_length(source), variables,
                    json_array_get(row, 1)))
            differ++;
        assert_true(differ < SHOWN_MOST);
    }
    print_message("%zu snippets, %zu differ\n", json_array_size(snippets), differ);
    assert_int_equal(0, differ);
}

static void what_is_not_supported_is_refused(void **state)
{
    (void)state;
    json_t *nothing = json_null();
    const json_t *variables = json_object_get(golden, "variables");
    const json_t *refused = json_object_get(golden, "refused");
    for (size_t i = 0; i < json_array_size(refused); i++) {
        const json_t *source = json_array_get(refused, i);
        assert_true(
            agrees(json_string_value(source), json_string_length(source), variables, nothing));
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        golden_path = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_templates_render_as_in_jinja2),
        cmocka_unit_test(snippets_render_as_in_jinja2),
        cmocka_unit_test(what_is_not_supported_is_refused),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
