/* What is refused in a tokenizer.json, and texts made to be slow. */
#include "runtime/base/json_file.h"
#include "runtime/text/detokenizer.h"
#include "runtime/text/nfc.h"
#include "runtime/text/tokenizer.h"
#include "tests/test.h"
#include "tests/text/golden.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define TINY TSR_TEST_DATA "/text/tiny-whole-words/tokenizer.json"

/* The tiny tokenizer with `change` laid over it, object by object. */
static tsr_status open_changed(const char *change, tsr_problems *problems, tsr_tokenizer **ret)
{
    json_t *file = NULL;
    json_t *patch = NULL;
    ASSERT_STATUS(TSR_OK, tsr_json_load_file(TINY, 1 << 20, problems, &file));
    ASSERT_STATUS(TSR_OK, tsr_json_load_bytes("change", change, strlen(change), problems, &patch));
    assert_int_equal(0, json_object_update_recursive(file, patch));
    char *bytes = json_dumps(file, JSON_COMPACT);
    assert_non_null(bytes);
    json_decref(file);
    json_decref(patch);
    const tsr_status st = tsr_tokenizer_parse("tiny", bytes, strlen(bytes), problems, ret);
    free(bytes);
    return st;
}

/* With this change the tokenizer is refused, and the one line names `what`. */
static void assert_refused(const char *change, const char *what)
{
    tsr_problems problems = {0};
    tsr_tokenizer *tokenizer = NULL;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, open_changed(change, &problems, &tokenizer));
    assert_null(tokenizer);
    assert_int_equal(1, problems.count);
    if (strstr(problems.items[0].text, what) == NULL)
        fail_msg("\"%s\" does not name \"%s\"", problems.items[0].text, what);
    tsr_problems_close(&problems);
}

static void what_is_not_served_is_refused_by_name(void **state)
{
    (void)state;
#define TOKEN(id, content, flags)                                                                  \
    "{\"added_tokens\": [{\"id\": " id ", \"content\": \"" content "\", " flags "}]}"
#define FLAGS(word, left, right)                                                                   \
    "\"single_word\": " word ", \"lstrip\": " left ", \"rstrip\": " right                          \
    ", \"normalized\": false, \"special\": true"
    static const char *const table[][2] = {
        {"{\"model\": {\"type\": \"WordPiece\"}}", "WordPiece"},
        {"{\"model\": {\"dropout\": 0.1}}", "dropout"},
        {"{\"model\": {\"unk_token\": \"<unk>\"}}", "unk_token"},
        {"{\"model\": {\"continuing_subword_prefix\": \"##\"}}", "continuing_subword_prefix"},
        {"{\"model\": {\"end_of_word_suffix\": \"</w>\"}}", "end_of_word_suffix"},
        {"{\"model\": {\"byte_fallback\": true}}", "byte_fallback"},
        {"{\"model\": {\"byte_fallback\": \"no\"}}", "byte_fallback is no, not true or false"},
        {"{\"model\": {\"ignore_merges\": 1}}", "ignore_merges is an integer, not true or false"},
        {"{\"model\": {\"vocab\": []}}", "model.vocab"},
        {"{\"model\": {\"vocab\": {\"zz\": 1}}}", "id 1"},
        {"{\"model\": {\"vocab\": {\"zz\": -1}}}", "zz"},
        {"{\"model\": {\"vocab\": {\"zz\": 99999999}}}", "zz"},
        {"{\"model\": {\"vocab\": {\"zz\": \"1\"}}}", "zz"},
        {"{\"model\": {\"merges\": {}}}", "model.merges"},
        {"{\"model\": {\"merges\": [\"a b c\"]}}", "merges[0]"},
        {"{\"model\": {\"merges\": [[\"a\"]]}}", "merges[0]"},
        {"{\"model\": {\"merges\": [[\"Q\", \"Z\"]]}}", "QZ"},
        {"{\"normalizer\": {\"type\": \"NFKC\"}}", "NFKC"},
        {"{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Strip\"}]}}",
         "Strip"},
        {"{\"pre_tokenizer\": {\"type\": \"Metaspace\"}}", "Metaspace"},
        {"{\"pre_tokenizer\": null}", "pre_tokenizer"},
        {"{\"pre_tokenizer\": {\"pretokenizers\": []}}", "0 steps"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true}}",
         "add_prefix_space"},
        {"{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
         "\"use_regex\": false}}",
         "use_regex"},
        {"{\"decoder\": {\"type\": \"WordPiece\"}}", "WordPiece"},
        {"{\"decoder\": null}", "decoder"},
        {"{\"added_tokens\": {}}", "added_tokens"},
        {TOKEN("345", "<x>", FLAGS("true", "false", "false")), "single_word"},
        {TOKEN("345", "<x>", FLAGS("false", "true", "false")), "lstrip"},
        {TOKEN("345", "<x>", FLAGS("false", "false", "true")), "rstrip"},
        {TOKEN("345", "<x>", "\"special\": true"), "missing"},
        {TOKEN("345", "", FLAGS("false", "false", "false")), "content"},
        {TOKEN("400", "<x>", FLAGS("false", "false", "false")), "its place gives it"},
        {TOKEN("3", "<x>", FLAGS("false", "false", "false")), "its place gives it"},
        {TOKEN("\"3\"", "<x>", FLAGS("false", "false", "false")), "added_tokens[0].id"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_refused(table[i][0], table[i][1]);
}

static void a_missing_or_broken_file_is_refused(void **state)
{
    (void)state;
    tsr_problems problems = {0};
    tsr_tokenizer *tokenizer = NULL;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_tokenizer_open("/nowhere", &problems, &tokenizer));
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_tokenizer_parse("x", "{", 1, &problems, &tokenizer));
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_tokenizer_parse("x", "[]", 2, &problems, &tokenizer));
    assert_int_equal(3, problems.errors);
    tsr_problems_close(&problems);
}

static void ids_and_contents_find_each_other(void **state)
{
    (void)state;
    tsr_tokenizer *tokenizer = golden_tokenizer("qwen3");
    const char *bytes = NULL;
    size_t count = 0;
    bool special = false;
    int32_t last = -1;

    assert_true(tsr_tokenizer_id(tokenizer, "<|im_end|>") > 0);
    assert_int_equal(-1, tsr_tokenizer_id(tokenizer, "<|no_such_token|>"));
    assert_true(tsr_tokenizer_bytes(tokenizer, tsr_tokenizer_id(tokenizer, "<|im_end|>"), &bytes,
                                    &count, &special));
    assert_true(special);
    assert_int_equal(10, count);
    last = tsr_tokenizer_id(tokenizer, "</think>");
    assert_int_equal(last + 1, tsr_tokenizer_ids(tokenizer));
    assert_true(tsr_tokenizer_bytes(tokenizer, last, &bytes, &count, &special));
    assert_false(special);
    assert_true(tsr_tokenizer_bytes(tokenizer, tsr_tokenizer_id(tokenizer, "\xc4\xa0"), &bytes,
                                    &count, &special));
    assert_int_equal(' ', *bytes);
    assert_false(tsr_tokenizer_bytes(tokenizer, -1, &bytes, &count, &special));
    assert_false(tsr_tokenizer_bytes(tokenizer, last + 1, &bytes, &count, &special));
    tsr_tokenizer_close(tokenizer);
}

/* Encodes `count` bytes and decodes them again. */
static void assert_round_trip(const tsr_tokenizer *tokenizer, const char *text, size_t count)
{
    tsr_ids ids = {0};
    tsr_text out = {0};
    tsr_detokenizer detokenizer = {.tokenizer = tokenizer};
    ASSERT_STATUS(TSR_OK, tsr_tokenizer_encode(tokenizer, text, count, false, &ids));
    for (size_t i = 0; i < ids.count; i++)
        ASSERT_STATUS(TSR_OK, tsr_detokenizer_push(&detokenizer, ids.ids[i], &out));
    ASSERT_STATUS(TSR_OK, tsr_detokenizer_finish(&detokenizer, &out));
    assert_int_equal(count, out.count);
    assert_memory_equal(text, out.bytes, count);
    tsr_ids_close(&ids);
    tsr_text_close(&out);
}

static void long_words_take_no_quadratic_time(void **state)
{
    (void)state;
    enum { BYTES = 1 << 19 };
    static const char *const units[] = {"a",   " ", "\n",           "!", "1", "ab",
                                        " \n", "<", "<|im_start|>", "\t"};
    tsr_tokenizer *tokenizer = golden_tokenizer("glm4");
    char *text = malloc(BYTES);
    assert_non_null(text);
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        const size_t unit = strlen(units[u]);
        const size_t count = BYTES / unit * unit;
        for (size_t at = 0; at < count; at += unit)
            memcpy(text + at, units[u], unit);
        assert_round_trip(tokenizer, text, count);
    }
    free(text);
    tsr_tokenizer_close(tokenizer);
}

static void a_long_run_of_marks_is_ordered_in_linear_time(void **state)
{
    (void)state;
    enum { PAIRS = 1 << 17 };
    tsr_text text = {0};
    tsr_text normal = {0};
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&text, "q"));
    for (int i = 0; i < PAIRS; i++)
        ASSERT_STATUS(TSR_OK, tsr_text_add_string(&text, "\xcc\x81\xcc\xa3")); /* above, below */
    ASSERT_STATUS(TSR_OK, tsr_nfc_add(text.bytes, text.count, &normal));
    assert_int_equal(text.count, normal.count);
    for (size_t i = 0; i < PAIRS; i++) {
        assert_memory_equal("\xcc\xa3", normal.bytes + 1 + 2 * i, 2);
        assert_memory_equal("\xcc\x81", normal.bytes + 1 + 2 * (PAIRS + i), 2);
    }
    tsr_text_close(&text);
    tsr_text_close(&normal);
}

enum { THREADS = 4, ROUNDS = 20 };

/* What one of the threads is given and gives back. */
typedef struct share {
    const tsr_tokenizer *tokenizer;
    const char *text;
    tsr_ids ids;
    tsr_status status;
} share;

static void *encode_often(void *context)
{
    share *s = context;
    for (int i = 0; i < ROUNDS && s->status == TSR_OK; i++) {
        s->ids.count = 0;
        s->status = tsr_tokenizer_encode(s->tokenizer, s->text, strlen(s->text), false, &s->ids);
    }
    return NULL;
}

static void threads_may_share_a_tokenizer(void **state)
{
    (void)state;
    tsr_tokenizer *tokenizer = golden_tokenizer("qwen3");
    pthread_t threads[THREADS];
    share shares[THREADS];
    for (int i = 0; i < THREADS; i++) {
        shares[i] = (share){.tokenizer = tokenizer,
                            .text = "<|im_start|>It's e\xcc\x81t\xc3\xa9, 12345 \xe4\xb8\xad\n"};
        assert_int_equal(0, pthread_create(&threads[i], NULL, encode_often, &shares[i]));
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(0, pthread_join(threads[i], NULL));
        ASSERT_STATUS(TSR_OK, shares[i].status);
        assert_true(shares[i].ids.count > 0);
        assert_true(ids_equal(&shares[0].ids, &shares[i].ids));
    }
    for (int i = 0; i < THREADS; i++)
        tsr_ids_close(&shares[i].ids);
    tsr_tokenizer_close(tokenizer);
}

static void a_post_processor_that_is_not_served_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const table[][2] = {
        {"{\"post_processor\": {\"type\": \"BertProcessing\"}}", "not BertProcessing"},
        {"{\"post_processor\": 7}", "not a nameless one"},
        {"{\"post_processor\": {\"type\": \"Sequence\"}}", "processors is not a list"},
        {"{\"post_processor\": {\"type\": \"TemplateProcessing\"}}", "single is not a list"},
        {"{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": []}}",
         "no place for the text"},
        {"{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
         "[{\"Sequence\": {\"id\": \"B\"}}]}}",
         "single is not served"},
        {"{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
         "[{\"SpecialToken\": {\"id\": \"<b>\"}}, {\"Sequence\": {\"id\": \"A\"}}]}}",
         "no ids of <b>"},
        {"{\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
         "[{\"SpecialToken\": {\"id\": \"<b>\"}}, {\"Sequence\": {\"id\": \"A\"}}], "
         "\"special_tokens\": {\"<b>\": {\"ids\": [99999]}}}}",
         "none of the tokenizer: <b>"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_refused(table[i][0], table[i][1]);
}

/* Ids of "a" by itself, under a post-processor. */
static tsr_ids alone(const char *change, size_t warnings)
{
    tsr_problems problems = {0};
    tsr_tokenizer *tokenizer = NULL;
    tsr_ids ids = {0};
    ASSERT_STATUS(TSR_OK, open_changed(change, &problems, &tokenizer));
    assert_int_equal(problems.count, warnings);
    ASSERT_STATUS(TSR_OK, tsr_tokenizer_encode_alone(tokenizer, "a", 1, &ids));
    tsr_tokenizer_close(tokenizer);
    tsr_problems_close(&problems);
    return ids;
}

static void a_text_by_itself_gets_what_the_post_processor_puts_around_it(void **state)
{
    (void)state;
    tsr_ids plain = alone("{\"post_processor\": {\"type\": \"ByteLevel\"}, \"new\": 1, "
                          "\"model\": {\"newer\": 2}}",
                          2);
    tsr_ids around = alone(
        "{\"post_processor\": {\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, "
        "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"b\"}}, "
        "{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"e\"}}], "
        "\"special_tokens\": {\"b\": {\"ids\": [3, 4]}, \"e\": {\"ids\": [5]}}}, "
        "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}, "
        "{\"Sequence\": {\"id\": \"A\"}}], \"special_tokens\": {\"x\": {\"ids\": [9]}}}]}}",
        0);
    assert_int_equal(plain.count, 1);
    const int32_t wanted[] = {9, 3, 4, plain.ids[0], 5};
    assert_int_equal(around.count, 5);
    assert_memory_equal(around.ids, wanted, sizeof(wanted));
    tsr_ids_close(&plain);
    tsr_ids_close(&around);
}

static void no_more_ids_are_found_than_are_wanted(void **state)
{
    (void)state;
    enum { MOST = 5, LONG = 4 << 20 };
    tsr_tokenizer *tokenizer = golden_tokenizer("qwen3");
    char *text = malloc(LONG);
    tsr_ids ids = {.most = MOST};
    assert_non_null(text);

    ASSERT_STATUS(TSR_OK, tsr_tokenizer_encode(tokenizer, "1 2", 3, false, &ids));
    assert_false(ids.full);
    ids.count = 0;
    for (size_t i = 0; i < LONG; i++)
        text[i] = (char)('0' + i % 10); /* words of one digit */
    ASSERT_STATUS(TSR_ERR_CAPACITY, tsr_tokenizer_encode(tokenizer, text, LONG, false, &ids));
    assert_true(ids.full);
    assert_int_equal(ids.count, MOST);
    memset(text, 'a', LONG); /* a word, which is not merged first */
    ids = (tsr_ids){.ids = ids.ids, .capacity = ids.capacity, .most = MOST};
    ASSERT_STATUS(TSR_ERR_CAPACITY, tsr_tokenizer_encode(tokenizer, text, LONG, false, &ids));
    assert_true(ids.full);
    assert_int_equal(ids.count, 0);
    tsr_ids_close(&ids);
    free(text);
    tsr_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_served_is_refused_by_name),
        cmocka_unit_test(a_post_processor_that_is_not_served_is_refused_by_name),
        cmocka_unit_test(a_text_by_itself_gets_what_the_post_processor_puts_around_it),
        cmocka_unit_test(a_missing_or_broken_file_is_refused),
        cmocka_unit_test(ids_and_contents_find_each_other),
        cmocka_unit_test(long_words_take_no_quadratic_time),
        cmocka_unit_test(a_long_run_of_marks_is_ordered_in_linear_time),
        cmocka_unit_test(no_more_ids_are_found_than_are_wanted),
        cmocka_unit_test(threads_may_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
