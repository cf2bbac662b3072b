/*
 * Requests with penalties, biases, bad words and so on: what they sample is what a program of its own
 * makes of the same logits and text (tests/oracle/make_sampling_golden.py), on every device.
 */
#include "tests/kernels/sample_case.h"

#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 8, MOST_TEXT = 64, MOST_VOCAB = 128, SLOTS = 2 };

/* One case of the file. */
typedef struct golden {
    tsr_token_rules rules;
    int32_t text[SLOTS][MOST_TEXT]; /* the second slot's is the case's */
    int32_t position;
    float logits[MOST_VOCAB];
    tsr_sample_row row[MOST_ROWS];
    int32_t token[MOST_ROWS];
    int32_t rows;
} golden;

/* The next number's digits, valid until the next. */
static const char *word(FILE *file)
{
    static char bytes[64];

    assert_int_equal(1, fscanf(file, "%63s", bytes));
    return bytes;
}

static double number(FILE *file)
{
    const char *digits = word(file);
    char *end = NULL;
    const double x = strtod(digits, &end);

    assert_true(end != digits && *end == '\0');
    return x;
}

static int32_t whole(FILE *file)
{
    return (int32_t)number(file);
}

static uint64_t large(FILE *file)
{
    const char *digits = word(file);
    char *end = NULL;
    const uint64_t x = strtoull(digits, &end, 10);

    assert_true(end != digits && *end == '\0');
    return x;
}

static int32_t list(FILE *file, int32_t *ids, int32_t room)
{
    const int32_t count = whole(file);

    assert_in_range(count, 0, room);
    for (int32_t i = 0; i < count; i++)
        ids[i] = whole(file);
    return count;
}

static void read_lists(FILE *file, golden *g)
{
    tsr_token_rules *r = &g->rules;

    memset(g->text, 0, sizeof(g->text));
    g->position = list(file, g->text[1], MOST_TEXT);
    r->biases = list(file, r->list, TSR_RULE_LIST);
    assert_int_equal(r->biases, whole(file));
    for (int32_t i = 0; i < r->biases; i++) {
        const float bias = (float)number(file);
        memcpy(&r->list[r->biases + i], &bias, sizeof(bias));
    }
    r->allowed = list(file, r->list + tsr_rules_allowed_at(r), MOST_VOCAB);
    r->bad = list(file, r->list + tsr_rules_bad_at(r), MOST_VOCAB);
    r->endings = list(file, r->list + tsr_rules_endings_at(r), MOST_VOCAB);
}

static void read_golden(FILE *file, int32_t vocab, golden *g)
{
    const int32_t seed = whole(file);

    tsr_rules_clear(&g->rules);
    g->rules.slot = 1;
    g->rules.prompt_tokens = whole(file);
    g->rules.min_tokens = whole(file);
    g->rules.repetition = (float)number(file);
    g->rules.presence = (float)number(file);
    g->rules.frequency = (float)number(file);
    read_lists(file, g);
    for (int32_t i = 0; i < vocab; i++)
        g->logits[i] = (float)((i * 7919 + seed * 104729) % 1009) / 128.0F - 4.0F;
    g->rows = whole(file);
    assert_in_range(g->rows, 1, MOST_ROWS);
    for (int32_t i = 0; i < g->rows; i++) {
        tsr_sample_row *row = &g->row[i];
        *row = (tsr_sample_row){.seed = large(file), .slot = 1, .flags = TSR_SAMPLE_RULED};
        row->output_index = large(file);
        row->temperature = (float)number(file);
        row->top_p = (float)number(file);
        row->min_p = (float)number(file);
        row->top_k = whole(file);
        row->position = g->position;
        g->token[i] = whole(file);
    }
}

/* One row after the other, for all of them write the same place of the text; rules of the slot before
 * it are such that nothing could come of them. */
static void assert_golden(tsr_device *device, golden *g, int32_t vocab, int n)
{
    static tsr_token_rules rules[SLOTS];
    const tsr_text_table text = {g->text[0], SLOTS, MOST_TEXT};

    assert_null(tsr_rules_wrong(&g->rules, tsr_rules_bytes(&g->rules), vocab));
    memset(rules, 0x7f, sizeof(rules[0]));
    memcpy(&rules[1], &g->rules, sizeof(rules[1]));
    for (int32_t i = 0; i < g->rows; i++) {
        sample_case c = case_of(g->logits, &g->row[i], 1, 1, vocab, vocab);
        tsr_sampled out;
        c.text = &text;
        c.rules = rules;
        sample(device, &c, &out);
        if (out.token != g->token[i])
            fail_msg("case %d, row %d: expected %d, got %d", n, i, g->token[i], out.token);
    }
}

static void what_is_sampled_by_rules_is_what_the_oracle_says(void **state)
{
    static golden g;

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        FILE *file = fopen(TSR_TEST_DATA "/sampling/rules.txt", "r");
        assert_non_null(file);
        const int32_t cases = whole(file);
        const int32_t vocab = whole(file);
        assert_in_range(vocab, 1, MOST_VOCAB);
        for (int n = 0; device != NULL && n < cases; n++) {
            read_golden(file, vocab, &g);
            assert_golden(device, &g, vocab, n);
        }
        assert_int_equal(0, fclose(file));
        if (device != NULL)
            sample_close(device);
    }
}

/* A vocabulary that a CTA has no room to count at once, a long text, and every list: one device says
 * what another says, and the logprobs are those of the logits as they were. */
static void every_device_bends_a_large_row_the_same(void **state)
{
    enum { VOCAB = 200000, TEXT = 3000, ROWS = 12 };
    static tsr_token_rules rules;
    static int32_t ids[TEXT];
    sample_random r = {17};
    float *logits = sample_memory(VOCAB * sizeof(float));
    tsr_sample_row row[ROWS] = {{0}};
    tsr_sampled first[ROWS] = {{0}};
    tsr_sampled out[ROWS] = {{0}};
    tsr_work_shape shape = sample_shape;

    (void)state;
    shape.vocab = VOCAB;
    sample_floats(&r, logits, VOCAB, 10.0F);
    for (int i = 0; i < TEXT; i++)
        ids[i] = (int32_t)(sample_u32(&r) % (i % 2 ? VOCAB : 50));
    tsr_rules_clear(&rules);
    rules.prompt_tokens = 700;
    rules.min_tokens = TEXT;
    rules.repetition = 1.3F;
    rules.presence = 0.75F;
    rules.frequency = 0.01F;
    rules.biases = 300;
    for (int32_t i = 0; i < 300; i++) {
        const float bias = sample_float(&r) * 12.0F;
        rules.list[i] = i * 600;
        memcpy(&rules.list[300 + i], &bias, sizeof(bias));
    }
    rules.endings = 80;
    for (int32_t i = 0; i < 80; i++)
        rules.list[600 + i] = i * 2500;
    fill_rows(&r, row, ROWS);
    for (int i = 0; i < ROWS; i++) {
        row[i].logit_row = 0;
        row[i].position = TEXT;
        row[i].min_p = i % 3 == 0 ? 0.01F : 0.0F;
        row[i].flags = TSR_SAMPLE_RULED;
    }
    const tsr_text_table text = {ids, 1, TEXT};
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &shape);
        sample_case c = case_of(logits, row, 1, ROWS, VOCAB, VOCAB);
        if (device == NULL)
            continue;
        c.text = &text;
        c.rules = &rules;
        sample(device, &c, i == 0 ? first : out);
        for (int n = 0; i > 0 && n < ROWS; n++)
            assert_sampled(i, &first[n], &out[n]);
        sample_close(device);
    }
    free(logits);
}

/* The ids of a mask are those that may be chosen, and logprobs are of all: what comes is what comes of
 * logits of which the others were out of reach from the start. */
static void a_mask_rules_all_others_out(void **state)
{
    enum { VOCAB = 1013, ROWS = 24, MASKS = 4, WORDS = (VOCAB + 31) / 32 };
    static uint32_t masks[MASKS * WORDS];
    sample_random r = {23};
    float *logits = sample_memory((size_t)ROWS * VOCAB * sizeof(float));
    float *held = sample_memory((size_t)ROWS * VOCAB * sizeof(float));
    tsr_sample_row row[ROWS] = {{0}};
    tsr_sample_row plain[ROWS];
    tsr_sampled out[ROWS] = {{0}};
    tsr_sampled expected[ROWS] = {{0}};

    (void)state;
    sample_floats(&r, logits, (size_t)ROWS * VOCAB, 4.0F);
    fill_rows(&r, row, ROWS);
    memcpy(plain, row, sizeof(plain));
    for (int32_t i = WORDS; i < MASKS * WORDS; i++)
        masks[i] = sample_u32(&r);
    masks[WORDS + VOCAB / 32] |= 1U << (VOCAB % 32 - 1); /* the last id */
    for (int32_t i = 0; i < ROWS; i++) {
        row[i].mask = i % MASKS;
        row[i].flags = TSR_SAMPLE_MASKED;
        for (int32_t id = 0; id < VOCAB; id++) {
            const uint32_t word = masks[row[i].mask * WORDS + id / 32];
            held[i * VOCAB + id] = (word >> (id % 32) & 1U) != 0 ? logits[i * VOCAB + id] : -1e30F;
        }
    }
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        sample_case c = case_of(logits, row, ROWS, ROWS, VOCAB, VOCAB);
        const sample_case without = case_of(held, plain, ROWS, ROWS, VOCAB, VOCAB);
        if (device == NULL)
            continue;
        c.masks = masks;
        c.mask_rows = MASKS;
        sample(device, &c, out);
        sample(device, &without, expected);
        for (int32_t n = 0; n < ROWS; n++)
            assert_int_equal(row[n].mask == 0 ? TSR_NO_TOKEN_LEFT : expected[n].token,
                             out[n].token);
        sample_close(device);
    }
    free(logits);
    free(held);
}

static void a_mask_that_is_not_there_is_a_fault(void **state)
{
    enum { VOCAB = 64 };
    static const float logits[VOCAB];
    static const tsr_sample_row row = {.top_p = 1.0F, .flags = TSR_SAMPLE_MASKED, .mask = 1};
    static const uint32_t mask[(VOCAB + 31) / 32] = {1};
    static const tsr_stream stream = {NULL};

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (device == NULL)
            continue;
        const tsr_sample_args a = {
            .sampled = sample_room(device, sizeof(tsr_sampled)),
            .logits = sample_put(device, logits, sizeof(logits)),
            .row = sample_put(device, &row, sizeof(row)),
            .masks = sample_put(device, mask, sizeof(mask)),
            .mask_rows = 1,
            .rows = 1,
            .samples = 1,
            .vocab = VOCAB,
            .allowed = VOCAB,
            .is_bent = true,
        };
        tsr_sampled sampled;
        ASSERT_STATUS(TSR_OK, device->ops->sample(device, &a, stream));
        sample_get(device, &sampled, a.sampled, sizeof(sampled)); /* so that it has run */
        ASSERT_STATUS(TSR_ERR_ARG, tsr_device_fault(device));
        sample_close(device);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mask_rules_all_others_out),
        cmocka_unit_test(a_mask_that_is_not_there_is_a_fault),
        cmocka_unit_test(what_is_sampled_by_rules_is_what_the_oracle_says),
        cmocka_unit_test(every_device_bends_a_large_row_the_same),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
