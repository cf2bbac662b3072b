/* Stop strings against their definition, for every way of cutting the text. */
#include "runtime/text/stop_strings.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_STOPS = 4, MAX_TEXT = 64 };

typedef struct scene {
    const char *stops[MAX_STOPS];
    size_t count;
    const char *text;
    bool include;
} scene;

/* The definition: the first end at which a stop string stands, there the longest one. */
static int32_t define(const scene *s, size_t *ret_shown)
{
    const size_t count = strlen(s->text);
    for (size_t end = 1; end <= count; end++) {
        int32_t best = -1;
        for (size_t i = 0; i < s->count; i++) {
            const size_t bytes = strlen(s->stops[i]);
            if (bytes <= end && memcmp(s->text + end - bytes, s->stops[i], bytes) == 0 &&
                (best < 0 || bytes > strlen(s->stops[best])))
                best = (int32_t)i;
        }
        if (best >= 0) {
            *ret_shown = s->include ? end : end - strlen(s->stops[best]);
            return best;
        }
    }
    *ret_shown = count;
    return -1;
}

/* Bytes at the end of text[0..count) that begin a stop string. */
static size_t begun(const scene *s, size_t count)
{
    size_t most = 0;
    for (size_t i = 0; i < s->count; i++) {
        const size_t bytes = strlen(s->stops[i]);
        for (size_t n = 1; n < bytes && n <= count; n++) {
            if (memcmp(s->text + count - n, s->stops[i], n) == 0 && n > most)
                most = n;
        }
    }
    return most;
}

/* Pushes the pieces between the set bits of `cuts` and compares with the definition. */
static void check(const scene *s, uint64_t cuts)
{
    const size_t count = strlen(s->text);
    size_t shown = 0;
    const int32_t want = define(s, &shown);
    tsr_stop_strings *stops = NULL;
    ASSERT_STATUS(TSR_OK, tsr_stop_strings_open(s->stops, s->count, s->include, &stops));
    tsr_text out = {0};
    int32_t matched = -1;
    size_t from = 0;
    for (size_t to = 1; to <= count; to++) {
        if (to < count && !(cuts >> to & 1u))
            continue;
        ASSERT_STATUS(TSR_OK,
                      tsr_stop_strings_push(stops, s->text + from, to - from, &out, &matched));
        from = to;
        if (matched < 0)
            assert_int_equal(to - begun(s, to), out.count); /* no more is held than must be */
    }
    assert_int_equal(want, matched);
    ASSERT_STATUS(TSR_OK, tsr_stop_strings_finish(stops, &out));
    assert_int_equal(shown, out.count);
    if (shown > 0)
        assert_memory_equal(s->text, out.bytes, shown);
    tsr_text_close(&out);
    tsr_stop_strings_close(stops);
}

static void check_all_cuts(const scene *s)
{
    const size_t count = strlen(s->text);
    check(s, 0);
    check(s, UINT64_MAX);
    for (size_t a = 1; a < count; a++) {
        for (size_t b = a; b < count; b++)
            check(s, UINT64_C(1) << a | UINT64_C(1) << b);
    }
}

static void the_result_does_not_depend_on_where_the_text_is_cut(void **state)
{
    (void)state;
    const scene scenes[] = {
        {{"END"}, 1, "this is the END of it", false},
        {{"END"}, 1, "this is the END", true},
        {{"END"}, 1, "this is the EN", false},
        {{"\n\n", "\n"}, 2, "one\n\ntwo", true},
        {{"abcd", "bc"}, 2, "xabcdx", false},
        {{"abab", "ababc"}, 2, "abaababc", true},
        {{"aab"}, 1, "aaaaaaab", false},
        {{"</tool_call>", "<|im_end|>"}, 2, "a<b</tool</tool_call><|im_end|>", false},
        {{"\xe2\x82\xac"}, 1, "1 \xe2\x82\xac 2", false},
        {{"b", "ab", "aab"}, 3, "aaab", false},
        {{NULL}, 0, "nothing stops this", false},
    };
    for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++)
        check_all_cuts(&scenes[i]);
}

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void fill(char *text, size_t count, uint32_t letters, uint32_t *seed)
{
    for (size_t i = 0; i < count; i++)
        text[i] = (char)('a' + next(seed) % letters);
    text[count] = '\0';
}

static void random_texts_of_few_letters_follow_the_definition(void **state)
{
    (void)state;
    uint32_t seed = 7;
    for (int round = 0; round < 3000; round++) {
        char texts[MAX_STOPS + 1][MAX_TEXT];
        scene s = {.count = 1 + next(&seed) % MAX_STOPS, .include = next(&seed) % 2};
        const uint32_t letters = 2 + next(&seed) % 2;
        for (size_t i = 0; i < s.count; i++) {
            fill(texts[i], 2 + next(&seed) % 6, letters, &seed);
            s.stops[i] = texts[i];
        }
        fill(texts[MAX_STOPS], 1 + next(&seed) % (MAX_TEXT - 2), letters, &seed);
        s.text = texts[MAX_STOPS];
        check(&s, (uint64_t)next(&seed) << 40 ^ (uint64_t)next(&seed) << 20 ^ next(&seed));
    }
}

static void nothing_comes_out_after_the_end(void **state)
{
    (void)state;
    const char *const list[] = {"stop"};
    tsr_stop_strings *stops = NULL;
    tsr_text out = {0};
    int32_t matched = -1;
    ASSERT_STATUS(TSR_OK, tsr_stop_strings_open(list, 1, true, &stops));
    ASSERT_STATUS(TSR_OK, tsr_stop_strings_push(stops, "a stop b", 8, &out, &matched));
    assert_int_equal(0, matched);
    ASSERT_STATUS(TSR_OK, tsr_stop_strings_push(stops, "more stop", 9, &out, &matched));
    assert_int_equal(0, matched);
    ASSERT_STATUS(TSR_OK, tsr_stop_strings_finish(stops, &out));
    assert_string_equal("a stop", out.bytes);
    tsr_text_close(&out);
    tsr_stop_strings_close(stops);
}

static void an_empty_stop_string_is_refused(void **state)
{
    (void)state;
    const char *const list[] = {"stop", ""};
    tsr_stop_strings *stops = NULL;
    ASSERT_STATUS(TSR_ERR_ARG, tsr_stop_strings_open(list, 2, false, &stops));
    assert_null(stops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_result_does_not_depend_on_where_the_text_is_cut),
        cmocka_unit_test(random_texts_of_few_letters_follow_the_definition),
        cmocka_unit_test(nothing_comes_out_after_the_end),
        cmocka_unit_test(an_empty_stop_string_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
