/* Steps: laid out, sealed, opened; and every way in which one can be wrong. */
#include "tests/test.h"

#include "proto/step_plan.h"
#include "proto/step_state.h"
#include "tests/log_lines.h"

#include <string.h>

enum { CAPACITY = 4096, ENTRIES = 4, BLOCKS = 3, MASK_WORDS = 4, ADMISSIONS = 10 };

static const tsr_step_counts counts = {ENTRIES, BLOCKS, MASK_WORDS, ADMISSIONS};

typedef struct fixture {
    _Alignas(8) unsigned char bytes[CAPACITY];
    size_t count;
    tsr_step_plan step;
    tsr_step_bounds bounds;
} fixture;

static log_lines lines;

/* Two ranks: rank 0 releases slot 1 and gives slot 1 to another, rank 1 prefills and decodes. */
static void build(fixture *f)
{
    memset(f, 0, sizeof(*f));
    f->bounds = (tsr_step_bounds){.epoch = 7,
                                  .plan_digest = 0x1111,
                                  .state_digest = 0x2222,
                                  .rank = 1,
                                  .ranks = 2,
                                  .max_num_seqs = 4,
                                  .max_batched_tokens = 16,
                                  .max_model_len = 64,
                                  .kv_blocks = 8,
                                  .vocab = 40};
    assert_int_equal(TSR_OK, tsr_step_plan_lay_out(f->bytes, CAPACITY, &counts, &f->step));
    f->count = tsr_step_plan_bytes(&counts);
    f->step.header->epoch = 7;
    f->step.header->plan_digest = 0x1111;
    f->step.header->state_digest = 0x2222;
    f->step.header->max_rank_tokens = 9;
    f->step.entry[0] = (tsr_step_entry){.rank = 0, .slot = 1, .flags = TSR_ENTRY_RELEASE};
    f->step.entry[1] = (tsr_step_entry){
        .rank = 0, .slot = 1, .flags = TSR_ENTRY_LOGITS, .tokens = 5, .block_count = 1};
    f->step.entry[2] =
        (tsr_step_entry){.rank = 1, .slot = 0, .tokens = 8, .first_block = 1, .block_count = 2};
    f->step.entry[3] = (tsr_step_entry){.rank = 1,
                                        .slot = 3,
                                        .flags = TSR_ENTRY_SAMPLE | TSR_ENTRY_MASKED,
                                        .first_position = 20,
                                        .tokens = 1,
                                        .output_index = 3,
                                        .first_block = 3};
    f->step.block[0] = 7;
    f->step.block[1] = 0;
    f->step.block[2] = 3;
    f->step.mask[0] = 3;
    f->step.mask[1] = 0;
    f->step.mask[2] = 7;
    f->step.mask[3] = 39;
    tsr_step_plan_seal(&f->step);
}

/* Seals the step again, opens it, and expects a refusal that names `field`. */
static void assert_refused(fixture *f, const char *field)
{
    tsr_step_plan opened = {0};

    tsr_step_plan_seal(&f->step);
    log_lines_clear(&lines);
    ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_step_plan_open(f->bytes, f->count, &f->bounds, &opened));
    if (!log_lines_say(&lines, field))
        fail_msg("expected '%s' in: %s", field, lines.text);
    assert_true(log_lines_say(&lines, "step 7 on rank 1"));
    assert_null(opened.header);
}

static void a_sealed_step_opens_with_the_same_fields(void **state)
{
    (void)state;
    fixture f;
    tsr_step_plan opened;

    build(&f);
    ASSERT_STATUS(TSR_OK, tsr_step_plan_open(f.bytes, f.count, &f.bounds, &opened));
    assert_ptr_equal(opened.entry, f.step.entry);
    assert_ptr_equal(opened.block, f.step.block);
    assert_ptr_equal(opened.mask, f.step.mask);
    assert_ptr_equal(opened.admissions, f.step.admissions);
    assert_ptr_equal(opened.admissions + ADMISSIONS, f.bytes + f.count);
    assert_int_equal(5, tsr_step_entry_logit_rows(&opened.entry[1]));
    assert_int_equal(0, tsr_step_entry_logit_rows(&opened.entry[2]));
    assert_int_equal(1, tsr_step_entry_logit_rows(&opened.entry[3]));
}

static void a_step_that_does_not_fit_is_not_laid_out(void **state)
{
    (void)state;
    fixture f;
    const tsr_step_counts most = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    const size_t bytes = tsr_step_plan_bytes(&counts);

    ASSERT_STATUS(TSR_ERR_CAPACITY, tsr_step_plan_lay_out(f.bytes, bytes - 1, &counts, &f.step));
    ASSERT_STATUS(TSR_ERR_CAPACITY, tsr_step_plan_lay_out(f.bytes, CAPACITY, &most, &f.step));
}

static void each_changed_bit_is_found(void **state)
{
    (void)state;
    fixture f;
    tsr_step_plan opened;

    build(&f);
    for (size_t i = 0; i < f.count * 8; i++) {
        f.bytes[i / 8] ^= (unsigned char)(1U << (i % 8));
        ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_step_plan_open(f.bytes, f.count, &f.bounds, &opened));
        f.bytes[i / 8] ^= (unsigned char)(1U << (i % 8));
    }
    ASSERT_STATUS(TSR_OK, tsr_step_plan_open(f.bytes, f.count, &f.bounds, &opened));
}

static void each_other_length_is_refused(void **state)
{
    (void)state;
    fixture f;
    tsr_step_plan opened;

    build(&f);
    for (size_t count = 0; count < f.count + 64; count++) {
        if (count != f.count)
            ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_step_plan_open(f.bytes, count, &f.bounds, &opened));
    }
}

/* A field of the header, what it is changed to, and the name the refusal must give. */
#define HEADER_CASE(field, value)                                                                  \
    build(&f);                                                                                     \
    f.step.header->field = (value);                                                                \
    assert_refused(&f, #field)

static void a_wrong_field_of_the_header_is_named(void **state)
{
    (void)state;
    fixture f;

    HEADER_CASE(epoch, 8);
    HEADER_CASE(plan_digest, 0x1112);
    HEADER_CASE(state_digest, 0x2223);
    HEADER_CASE(max_rank_tokens, 8);
    HEADER_CASE(flags, 8);

    build(&f);
    f.bytes[f.count - 1] ^= 1;
    log_lines_clear(&lines);
    ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_step_plan_open(f.bytes, f.count, &f.bounds, &f.step));
    assert_true(log_lines_say(&lines, ": digest: expected 0x"));
}

#define ENTRY_CASE(index, field, value, named)                                                     \
    build(&f);                                                                                     \
    f.step.entry[index].field = (value);                                                           \
    assert_refused(&f, named)

static void a_wrong_field_of_an_entry_is_named(void **state)
{
    (void)state;
    fixture f;

    ENTRY_CASE(2, rank, 2, "rank of entry 2");
    ENTRY_CASE(2, slot, 4, "slot of entry 2");
    ENTRY_CASE(2, flags, 1U << 31, "unknown flags");
    ENTRY_CASE(2, flags, 21 << TSR_ENTRY_TOP_SHIFT, "top of entry 2");
    ENTRY_CASE(2, flags, 21 << TSR_ENTRY_SCORE_TOP_SHIFT, "top of scores of entry 2");
    ENTRY_CASE(2, tokens, 0, "tokens of entry 2");
    ENTRY_CASE(2, tokens, 17, "tokens of entry 2");
    ENTRY_CASE(2, tokens, 16, "tokens up to entry 3");
    ENTRY_CASE(3, first_position, 64, "end of entry 3");
    ENTRY_CASE(3, first_position, UINT32_MAX, "end of entry 3");
    ENTRY_CASE(3, output_index, 65, "output_index of entry 3");
    ENTRY_CASE(2, first_block, 2, "first_block");
    ENTRY_CASE(2, block_count, 1, "first_block");
    ENTRY_CASE(3, block_count, 1, "blocks");
    ENTRY_CASE(3, block_count, UINT32_MAX, "blocks");
    ENTRY_CASE(0, tokens, 1, "tokens of a release");
    ENTRY_CASE(0, first_position, 1, "first_position of a release");
    ENTRY_CASE(0, output_index, 1, "output_index of a release");
    ENTRY_CASE(0, block_count, 1, "block_count of a release");
    ENTRY_CASE(0, flags, TSR_ENTRY_RELEASE | TSR_ENTRY_SAMPLE, "flags of a release");
}

static void entries_out_of_order_or_twice_are_refused(void **state)
{
    (void)state;
    fixture f;

    ENTRY_CASE(1, rank, 1, "place of entry 2");
    ENTRY_CASE(3, slot, 0, "place of entry 3");
    ENTRY_CASE(1, flags, TSR_ENTRY_RELEASE, "place of entry 1");
}

static void a_block_that_does_not_exist_is_refused(void **state)
{
    (void)state;
    fixture f;

    build(&f);
    f.step.block[2] = 8;
    assert_refused(&f, "block 2");
}

static void a_mask_that_does_not_hold_is_refused(void **state)
{
    (void)state;
    fixture f;
    tsr_step_plan opened;

    build(&f);
    f.step.mask[3] = 40;
    assert_refused(&f, "an id of the mask of entry 3");
    f.step.mask[3] = 7;
    assert_refused(&f, "an id of the mask of entry 3");
    f.step.mask[0] = 2;
    assert_refused(&f, "words of masks: expected 0x3, got 0x4");
    f.step.mask[0] = 4;
    assert_refused(&f, "words of masks with entry 3");
    f.step.mask[0] = UINT32_MAX;
    assert_refused(&f, "words of masks with entry 3");
    f.step.mask[0] = TSR_MASK_BITS; /* 40 ids take two words */
    assert_refused(&f, "words of masks: expected 0x3, got 0x4");
    f.step.entry[3].flags = TSR_ENTRY_MASKED;
    assert_refused(&f, "a mask of an entry that samples nothing");
    f.step.entry[3].flags = TSR_ENTRY_SAMPLE;
    assert_refused(&f, "words of masks: expected 0x0, got 0x4");

    const tsr_step_counts shorter = {ENTRIES, BLOCKS, 3, ADMISSIONS};
    build(&f);
    f.step.header->mask_words = 3;
    f.count = tsr_step_plan_bytes(&shorter);
    f.step.mask[0] = TSR_MASK_BITS;
    tsr_step_plan_seal(&f.step);
    ASSERT_STATUS(TSR_OK, tsr_step_plan_open(f.bytes, f.count, &f.bounds, &opened));
}

static void counts_larger_than_the_buffer_are_refused_before_they_are_followed(void **state)
{
    (void)state;
    fixture f;
    size_t bytes = 0;

    build(&f);
    ASSERT_STATUS(TSR_OK, tsr_step_plan_announced(f.step.header, CAPACITY, &f.bounds, &bytes));
    assert_int_equal(f.count, bytes);
    ASSERT_STATUS(TSR_ERR_MISMATCH,
                  tsr_step_plan_announced(f.step.header, f.count - 1, &f.bounds, &bytes));
    f.step.header->entries = UINT32_MAX;
    f.step.header->blocks = UINT32_MAX;
    f.step.header->admission_bytes = UINT32_MAX;
    ASSERT_STATUS(TSR_ERR_MISMATCH,
                  tsr_step_plan_announced(f.step.header, CAPACITY, &f.bounds, &bytes));
    f.step.header->magic = 1;
    log_lines_clear(&lines);
    ASSERT_STATUS(TSR_ERR_MISMATCH,
                  tsr_step_plan_announced(f.step.header, CAPACITY, &f.bounds, &bytes));
    assert_true(log_lines_say(&lines, "magic"));
}

static void apply(tsr_step_state *s, tsr_step_entry entry, tsr_status expected)
{
    _Alignas(8) unsigned char bytes[256];
    tsr_step_plan step;

    const tsr_step_counts one = {.entries = 1};
    ASSERT_STATUS(TSR_OK, tsr_step_plan_lay_out(bytes, sizeof(bytes), &one, &step));
    step.entry[0] = entry;
    ASSERT_STATUS(expected, tsr_step_state_apply(s, &step, 0));
}

static void ranks_that_followed_the_same_steps_have_the_same_digest(void **state)
{
    (void)state;
    const tsr_step_entry first = {.rank = 1, .slot = 2, .tokens = 5};
    const tsr_step_entry more = {.rank = 1, .slot = 2, .first_position = 5, .tokens = 1};
    const tsr_step_entry gone = {.rank = 1, .slot = 2, .flags = TSR_ENTRY_RELEASE};
    tsr_step_state a;
    tsr_step_state b;

    ASSERT_STATUS(TSR_OK, tsr_step_state_open(2, 4, &a));
    ASSERT_STATUS(TSR_OK, tsr_step_state_open(2, 4, &b));
    apply(&a, first, TSR_OK);
    apply(&b, first, TSR_OK);
    assert_true(a.digest == b.digest);
    apply(&a, more, TSR_OK);
    assert_true(a.digest != b.digest);
    apply(&b, more, TSR_OK);
    assert_true(a.digest == b.digest);
    apply(&a, gone, TSR_OK);
    assert_int_equal(0, a.lengths);
    assert_int_equal(4, a.epoch);
    tsr_step_state_close(&a);
    tsr_step_state_close(&b);
}

static void an_entry_that_does_not_begin_where_its_sequence_ends_is_refused(void **state)
{
    (void)state;
    tsr_step_state s;

    ASSERT_STATUS(TSR_OK, tsr_step_state_open(2, 4, &s));
    apply(&s, (tsr_step_entry){.rank = 1, .slot = 2, .tokens = 5}, TSR_OK);
    log_lines_clear(&lines);
    apply(&s, (tsr_step_entry){.rank = 1, .slot = 2, .first_position = 6, .tokens = 1},
          TSR_ERR_MISMATCH);
    assert_true(log_lines_say(&lines, "first_position of rank 1 slot 2: expected 5, got 6"));
    tsr_step_state_close(&s);
}

int main(void)
{
    tsr_log_set_sink(log_lines_catch, &lines);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sealed_step_opens_with_the_same_fields),
        cmocka_unit_test(a_step_that_does_not_fit_is_not_laid_out),
        cmocka_unit_test(each_changed_bit_is_found),
        cmocka_unit_test(each_other_length_is_refused),
        cmocka_unit_test(a_wrong_field_of_the_header_is_named),
        cmocka_unit_test(a_wrong_field_of_an_entry_is_named),
        cmocka_unit_test(entries_out_of_order_or_twice_are_refused),
        cmocka_unit_test(a_block_that_does_not_exist_is_refused),
        cmocka_unit_test(a_mask_that_does_not_hold_is_refused),
        cmocka_unit_test(counts_larger_than_the_buffer_are_refused_before_they_are_followed),
        cmocka_unit_test(ranks_that_followed_the_same_steps_have_the_same_digest),
        cmocka_unit_test(an_entry_that_does_not_begin_where_its_sequence_ends_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
