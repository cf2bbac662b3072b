/* Admissions: there and back, and every way in which one can be wrong. */
#include "tests/test.h"

#include "proto/admission.h"
#include "tests/log_lines.h"

#include <math.h>
#include <string.h>

enum { CAPACITY = 512, ROOM = 8 };

static log_lines lines;
static const int32_t some_tokens[] = {5, 0, 151935, INT32_MAX, 7};

static tsr_admission some_admission(void)
{
    return (tsr_admission){.rank = 3,
                           .slot = 17,
                           .seed = 0xfedcba9876543210U,
                           .temperature = 0.7F,
                           .top_p = 0.95F,
                           .top_k = 20,
                           .token_count = 5,
                           .tokens = some_tokens};
}

static void admissions_come_back_as_they_were(void **state)
{
    (void)state;
    unsigned char bytes[CAPACITY];
    int32_t tokens[ROOM];
    size_t count = 0;
    tsr_admission sent[2] = {some_admission(), some_admission()};
    tsr_admission got;
    bool more;

    sent[1] = (tsr_admission){.top_p = 1.0F, .token_count = 1, .tokens = some_tokens};
    for (int i = 0; i < 2; i++) {
        assert_in_range(tsr_admission_bytes(&sent[i]), 1,
                        tsr_admission_max_bytes(sent[i].token_count, 0));
        tsr_admission_pack(&sent[i], bytes + count);
        count += tsr_admission_bytes(&sent[i]);
    }
    tsr_admission_reader reader = {.bytes = bytes, .count = count};
    for (int i = 0; i < 2; i++) {
        ASSERT_STATUS(TSR_OK, tsr_admission_next(&reader, tokens, ROOM, &got, &more));
        assert_true(more);
        assert_int_equal(sent[i].rank, got.rank);
        assert_int_equal(sent[i].slot, got.slot);
        assert_true(sent[i].seed == got.seed);
        assert_true(sent[i].temperature == got.temperature && sent[i].top_p == got.top_p);
        assert_int_equal(sent[i].top_k, got.top_k);
        assert_int_equal(sent[i].token_count, got.token_count);
        assert_memory_equal(sent[i].tokens, got.tokens, sent[i].token_count * sizeof(int32_t));
    }
    ASSERT_STATUS(TSR_OK, tsr_admission_next(&reader, tokens, ROOM, &got, &more));
    assert_false(more);
}

/* Packs it and expects a refusal that says `what`. */
static void assert_refused(const tsr_admission *admission, uint32_t capacity, const char *what)
{
    unsigned char bytes[CAPACITY];
    int32_t tokens[ROOM];
    tsr_admission got;
    bool more;

    tsr_admission_pack(admission, bytes);
    tsr_admission_reader reader = {.bytes = bytes, .count = tsr_admission_bytes(admission)};
    log_lines_clear(&lines);
    ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_admission_next(&reader, tokens, capacity, &got, &more));
    if (!log_lines_say(&lines, what))
        fail_msg("expected '%s' in: %s", what, lines.text);
}

static void values_beyond_their_ranges_are_refused(void **state)
{
    (void)state;
    static const int32_t negative[] = {-1};
    tsr_admission a = some_admission();

    assert_refused(&a, 4, "more tokens");
    a.token_count = 0;
    assert_refused(&a, ROOM, "no tokens");
    a = some_admission();
    a.temperature = NAN;
    assert_refused(&a, ROOM, "temperature");
    a.temperature = -1;
    assert_refused(&a, ROOM, "temperature");
    a = some_admission();
    a.top_p = 0;
    assert_refused(&a, ROOM, "top_p");
    a.top_p = NAN;
    assert_refused(&a, ROOM, "top_p");
    a = some_admission();
    a.top_k = -1;
    assert_refused(&a, ROOM, "top_k");
    a = some_admission();
    a.token_count = 1;
    a.tokens = negative;
    assert_refused(&a, ROOM, "negative token id");
}

static void an_admission_that_is_cut_off_is_refused(void **state)
{
    (void)state;
    unsigned char bytes[CAPACITY];
    int32_t tokens[ROOM];
    const tsr_admission a = some_admission();
    tsr_admission got;
    bool more;

    tsr_admission_pack(&a, bytes);
    for (size_t count = 1; count < tsr_admission_bytes(&a); count++) {
        tsr_admission_reader reader = {.bytes = bytes, .count = count};
        ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_admission_next(&reader, tokens, ROOM, &got, &more));
        assert_int_equal(0, reader.at);
    }
}

/* Any bit may be wrong: an admission within its bounds comes out, or a refusal. */
static void a_changed_bit_never_leads_beyond_the_bounds(void **state)
{
    (void)state;
    unsigned char bytes[CAPACITY];
    int32_t tokens[ROOM + 1];
    const tsr_admission a = some_admission();
    const size_t count = tsr_admission_bytes(&a);

    tsr_admission_pack(&a, bytes);
    for (size_t i = 0; i < count * 8; i++) {
        tsr_admission_reader reader = {.bytes = bytes, .count = count};
        tsr_admission got = {0};
        bool more;

        tokens[ROOM] = 12345;
        bytes[i / 8] ^= (unsigned char)(1U << (i % 8));
        if (tsr_admission_next(&reader, tokens, ROOM, &got, &more) == TSR_OK)
            assert_in_range(got.token_count, 1, ROOM);
        assert_int_equal(12345, tokens[ROOM]);
        bytes[i / 8] ^= (unsigned char)(1U << (i % 8));
    }
}

int main(void)
{
    tsr_log_set_sink(log_lines_catch, &lines);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(admissions_come_back_as_they_were),
        cmocka_unit_test(values_beyond_their_ranges_are_refused),
        cmocka_unit_test(an_admission_that_is_cut_off_is_refused),
        cmocka_unit_test(a_changed_bit_never_leads_beyond_the_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
