/* Which split patterns are taken, and the words they cut. */
#include "runtime/base/text_buffer.h"
#include "runtime/text/split_pattern.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static tsr_status open_pattern(const char *pattern, tsr_split_pattern **ret_pattern)
{
    tsr_problems problems = {0};
    const tsr_status st = tsr_split_pattern_open("file", pattern, &problems, ret_pattern);
    assert_int_equal(st == TSR_OK ? 0 : 1, problems.errors);
    tsr_problems_close(&problems);
    return st;
}

/* Words with a bar between them. */
static void assert_words(const char *pattern, const char *text, const char *expected)
{
    tsr_split_pattern *opened = NULL;
    tsr_splitter *splitter = NULL;
    ASSERT_STATUS(TSR_OK, open_pattern(pattern, &opened));
    ASSERT_STATUS(TSR_OK, tsr_splitter_open(opened, &splitter));
    tsr_splitter_begin(splitter, text, strlen(text));

    tsr_text words = {0};
    const char *word = NULL;
    size_t count = 0;
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&words, ""));
    ASSERT_STATUS(TSR_OK, tsr_splitter_next(splitter, &word, &count));
    while (count > 0) {
        ASSERT_STATUS(TSR_OK, tsr_text_add(&words, word, count));
        ASSERT_STATUS(TSR_OK, tsr_splitter_next(splitter, &word, &count));
        if (count > 0)
            ASSERT_STATUS(TSR_OK, tsr_text_add_string(&words, "|"));
    }
    assert_string_equal(expected, words.bytes);
    tsr_text_close(&words);
    tsr_splitter_close(splitter);
    tsr_split_pattern_close(opened);
}

static void what_matches_and_what_lies_between_are_words(void **state)
{
    (void)state;
    assert_words("\\p{L}+", "ab  cd1", "ab|  |cd|1");
    assert_words("\\p{L}+|\\s+(?!\\S)|\\s+", "ab  cd", "ab| | |cd");
    assert_words("\\p{N}{1,3}", "12345", "123|45");
    assert_words("(?i:'s|'t|'re|'ve|'m|'ll|'d)|\\p{L}+", "it's IT'LL", "it|'s| |IT|'LL");
    assert_words("[^\\r\\n\\p{L}]?\\p{L}+", "a.b\nc", "a|.b|\n|c");
    assert_words("[a-c\\p{Lu}]+(?:x|y)?", "abXxdy", "abXx|dy");
    assert_words("\\p{L}+", "", "");
}

static void white_space_is_that_of_unicode(void **state)
{
    (void)state;
    /* U+0085 and U+3000 are spaces; U+180E and U+200B are not */
    assert_words("\\s+", "a\xc2\x85\xe3\x80\x80z", "a|\xc2\x85\xe3\x80\x80|z");
    assert_words("\\s+", "a\xe1\xa0\x8e\xe2\x80\x8bz", "a\xe1\xa0\x8e\xe2\x80\x8bz");
    assert_words("\\S+", "a\xe1\xa0\x8e z", "a\xe1\xa0\x8e| |z");
    assert_words("[^\\s]+", "a\xe1\xa0\x8e z", "a\xe1\xa0\x8e| |z");
}

static void constructs_that_engines_read_differently_are_refused(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "a++",     "a+?",     "(?:a+)+",     "(?:a|b)*", "(a)",      "(?i:ss)", "\\w+",
        "\\d",     "\\bab",   "^a",          "a$",       ".",        "(?<=a)b", "(?<n>a)",
        "[a[bc]]", "[a&&b]",  "[[:alpha:]]", "[]a]",     "\\p{Han}", "\\p{^L}", "\\pL",
        "a{,3}",   "a{1000}", "{",           "a)",       "(?:a",     "\\",      "[a",
        "[\\S]",   "a*",      "\\s*",        "",         "a|",       "(?!a)",   "a{2}{3}",
        "\\p{Cn}", "\\Qa\\E", "(?:a",        "[^a-]",    "(*UCP)a",  "(?#a)b",  "\\x41",
    };
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        tsr_split_pattern *opened = NULL;
        if (open_pattern(patterns[i], &opened) != TSR_ERR_CHECKPOINT)
            fail_msg("taken: %s", patterns[i]);
    }
}

static void a_pattern_that_takes_too_many_steps_ends_in_a_status(void **state)
{
    (void)state;
    enum { BYTES = 200000 };
    tsr_split_pattern *opened = NULL;
    tsr_splitter *splitter = NULL;
    ASSERT_STATUS(TSR_OK, open_pattern("\\p{L}*\\p{Ll}*\\p{L}*\\p{Ll}*[12]", &opened));
    ASSERT_STATUS(TSR_OK, tsr_splitter_open(opened, &splitter));
    char *text = malloc(BYTES);
    assert_non_null(text);
    memset(text, 'a', BYTES);
    tsr_splitter_begin(splitter, text, BYTES);
    const char *word = NULL;
    size_t count = 0;
    ASSERT_STATUS(TSR_ERR_CAPACITY, tsr_splitter_next(splitter, &word, &count));
    free(text);
    tsr_splitter_close(splitter);
    tsr_split_pattern_close(opened);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_matches_and_what_lies_between_are_words),
        cmocka_unit_test(white_space_is_that_of_unicode),
        cmocka_unit_test(constructs_that_engines_read_differently_are_refused),
        cmocka_unit_test(a_pattern_that_takes_too_many_steps_ends_in_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
