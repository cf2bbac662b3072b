/* What we make of thousands of texts and ids is what the `tokenizers` library makes of them. */
#include "runtime/text/bpe.h"
#include "runtime/text/detokenizer.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/utf8.h"
#include "tests/test.h"
#include "tests/text/golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128 };

static void print_difference(const char *name, size_t number, const char *text, size_t count)
{
    (void)fprintf(stderr, "%s: text %zu differs:", name, number);
    for (size_t i = 0; i < count && i < 60; i++)
        (void)fprintf(stderr, " %02x", (unsigned char)text[i]);
    (void)fprintf(stderr, "\n");
}

static void texts_become_the_ids_of_the_reference(void **state)
{
    const char *name = *state;
    tsr_tokenizer *tokenizer = golden_tokenizer(name);
    golden texts = golden_open("", "texts.bin");
    golden expected = golden_open(name, "encode.bin");
    const uint32_t count = golden_u32(&texts);
    const uint32_t step = golden_u32(&expected);
    tsr_ids want = {0};
    tsr_ids got = {0};
    size_t cases = 0;
    size_t differences = 0;

    for (uint32_t i = 0; i < count; i++) {
        size_t bytes = 0;
        const char *text = golden_blob(&texts, &bytes);
        for (int plain = 0; i % step == 0 && plain < 2; plain++) {
            const size_t before = expected.at;
            tsr_ids again = {0};
            golden_ids(&expected, &again);
            if (plain == 0 || again.count > 0) {
                expected.at = before;
                golden_ids(&expected, &want);
            }
            tsr_ids_close(&again);

            got.count = 0;
            ASSERT_STATUS(TSR_OK, tsr_tokenizer_encode(tokenizer, text, bytes, plain, &got));
            cases++;
            if (!ids_equal(&want, &got)) {
                differences++;
                print_difference(name, i, text, bytes);
            }
        }
    }
    print_message("           %s: %zu cases, %zu differences\n", name, cases, differences);
    assert_int_equal(0, differences);
    tsr_ids_close(&want);
    tsr_ids_close(&got);
    golden_close(&texts);
    golden_close(&expected);
    tsr_tokenizer_close(tokenizer);
}

/* Decodes id by id and checks that no piece holds an unfinished character. */
static void decode(const tsr_tokenizer *tokenizer, const tsr_ids *ids, bool skip_special,
                   tsr_text *text)
{
    tsr_detokenizer detokenizer = {.tokenizer = tokenizer, .skip_special = skip_special};
    tsr_text_clear(text);
    for (size_t i = 0; i < ids->count; i++) {
        ASSERT_STATUS(TSR_OK, tsr_detokenizer_push(&detokenizer, ids->ids[i], text));
        assert_int_equal(text->count, tsr_utf8_valid_prefix(text->bytes, text->count));
    }
    ASSERT_STATUS(TSR_OK, tsr_detokenizer_finish(&detokenizer, text));
    assert_int_equal(text->count, tsr_utf8_valid_prefix(text->bytes, text->count));
}

static void ids_become_the_text_of_the_reference_without_half_characters(void **state)
{
    const char *name = *state;
    tsr_tokenizer *tokenizer = golden_tokenizer(name);
    golden expected = golden_open(name, "decode.bin");
    const uint32_t count = golden_u32(&expected);
    tsr_ids ids = {0};
    tsr_text text = {0};

    for (uint32_t i = 0; i < count; i++) {
        golden_ids(&expected, &ids);
        for (int skip = 0; skip < 2; skip++) {
            size_t bytes = 0;
            const char *want = golden_blob(&expected, &bytes);
            decode(tokenizer, &ids, skip, &text);
            assert_int_equal(bytes, text.count);
            if (bytes > 0)
                assert_memory_equal(want, text.bytes, bytes);
        }
    }
    print_message("           %s: %u sequences\n", name, 2 * count);
    tsr_ids_close(&ids);
    tsr_text_close(&text);
    golden_close(&expected);
    tsr_tokenizer_close(tokenizer);
}

/* The code points of ranges.bin one after another; false at the end. */
typedef struct walk {
    golden file;
    uint32_t ranges; /* left */
    uint32_t next;
    uint32_t last;
} walk;

static bool walk_next(walk *w, uint32_t *ret_code)
{
    if (w->next > w->last) {
        if (w->ranges == 0)
            return false;
        w->ranges--;
        w->next = golden_u32(&w->file);
        w->last = golden_u32(&w->file);
    }
    *ret_code = w->next++;
    return true;
}

static size_t put(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t bytes = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = bytes - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(lead[bytes] | code);
    return bytes;
}

/* The same text that the oracle wrote for a code point. */
static void add_sweep(tsr_text *text, uint32_t code)
{
    static const char *const around[] = {"a", " ", "1", "'", "s\xcd\x85", "\xcc\xb4\n"};
    char bytes[4];
    const size_t count = put(code, bytes);
    for (size_t i = 0; i < 5; i++) {
        ASSERT_STATUS(TSR_OK, tsr_text_add_string(text, around[i]));
        ASSERT_STATUS(TSR_OK, tsr_text_add(text, bytes, count));
    }
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(text, around[5]));
}

static uint64_t hash_ids(const tsr_ids *ids)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < ids->count; i++) {
        for (unsigned shift = 0; shift < 32; shift += 8)
            h = (h ^ ((uint32_t)ids->ids[i] >> shift & 0xffu)) * 0x100000001b3u;
    }
    return h;
}

static void every_code_point_becomes_the_ids_of_the_reference(void **state)
{
    const char *name = *state;
    tsr_tokenizer *tokenizer = golden_tokenizer(name);
    golden expected = golden_open(name, "sweep.bin");
    walk w = {.file = golden_open("", "ranges.bin"), .next = 1};
    w.ranges = golden_u32(&w.file);
    tsr_text text = {0};
    tsr_ids ids = {0};
    uint32_t codes = 0;
    const uint32_t blocks = golden_u32(&expected);

    for (uint32_t block = 0; block < blocks; block++) {
        uint32_t code = 0;
        uint32_t first = 0;
        tsr_text_clear(&text);
        for (int i = 0; i < BLOCK && walk_next(&w, &code); i++, codes++) {
            first = i == 0 ? code : first;
            add_sweep(&text, code);
        }
        ids.count = 0;
        ASSERT_STATUS(TSR_OK, tsr_tokenizer_encode(tokenizer, text.bytes, text.count, false, &ids));
        if (hash_ids(&ids) != golden_u64(&expected))
            fail_msg("%s: something in U+%04X to U+%04X differs", name, first, code);
    }
    print_message("           %s: %u code points\n", name, codes);
    w.file.at = w.file.count; /* the small tokenizers stop early */
    golden_close(&w.file);
    golden_close(&expected);
    tsr_text_close(&text);
    tsr_ids_close(&ids);
    tsr_tokenizer_close(tokenizer);
}

#define PARITY(name, folder)                                                                       \
    {"texts_become_the_ids_of_the_reference: " name, texts_become_the_ids_of_the_reference, NULL,  \
     NULL, folder},                                                                                \
        {"ids_become_the_text_of_the_reference_without_half_characters: " name,                    \
         ids_become_the_text_of_the_reference_without_half_characters, NULL, NULL, folder},        \
    {                                                                                              \
        "every_code_point_becomes_the_ids_of_the_reference: " name,                                \
            every_code_point_becomes_the_ids_of_the_reference, NULL, NULL, folder                  \
    }

int main(void)
{
    static char folders[][32] = {
        "qwen3", "glm4", "demo", "tiny-normalized", "tiny-byte-level", "tiny-whole-words"};
    const struct CMUnitTest tests[] = {
        PARITY("qwen3", folders[0]),
        PARITY("glm4", folders[1]),
        PARITY("demo", folders[2]),
        PARITY("normalized tokens", folders[3]),
        PARITY("byte level's own", folders[4]),
        PARITY("whole words", folders[5]),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
