/*
 * What sampling tells beside its token: the most probable ids, and how probable a token is that
 * stands in the text.
 */
#include "tests/kernels/sample_case.h"

#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Descending, and as many ids are in front of each as its place says; the largest has the bits that a
 * greedy token has. */
static void assert_ordered(const float *x, int32_t allowed, const tsr_sampled *sampled,
                           const tsr_token_logprob *top, int32_t top_count)
{
    for (int32_t n = 0; n < top_count; n++) {
        const int32_t id = top[n].token;
        int32_t before = 0;
        assert_in_range(id, 0, allowed - 1);
        for (int32_t i = 0; i < allowed; i++)
            before += x[i] > x[id] || (x[i] == x[id] && i < id);
        assert_int_equal(n, before);
        if (id == sampled->token)
            assert_memory_equal(sampled, &top[n], sizeof(*sampled));
    }
}

/* Of each row, in order: no id that is not allowed, the lower of equals first, and what is sampled
 * does not change by it. */
static void the_most_probable_ids_are_told_in_order(void **state)
{
    enum { ROWS = 24, VOCAB = 2999, ALLOWED = 2990, TOPS = ROWS * TSR_MOST_TOP };
    sample_random r = {5};
    float *logits = sample_memory((size_t)ROWS * VOCAB * sizeof(float));
    tsr_sample_row row[ROWS];
    tsr_sampled plain[ROWS];
    tsr_sampled out[ROWS];
    tsr_token_logprob first[TOPS];
    tsr_token_logprob top[TOPS];
    int32_t tops = 0;

    (void)state;
    sample_floats(&r, logits, (size_t)ROWS * VOCAB, 6.0F);
    for (int i = 0; i < ROWS * VOCAB; i++)
        logits[i] = roundf(logits[i] * 16.0F) / 16.0F; /* so that many are equal */
    fill_rows(&r, row, ROWS);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        sample_case c = case_of(logits, row, ROWS, ROWS, VOCAB, ALLOWED);
        if (device == NULL)
            continue;
        for (int n = 0; n < ROWS; n++)
            row[n].top_count = 0;
        sample(device, &c, plain);
        tops = 0;
        for (int n = 0; n < ROWS; n++) {
            row[n].top_count = n > TSR_MOST_TOP ? TSR_MOST_TOP : n;
            row[n].first_top = tops;
            tops += row[n].top_count;
        }
        c.tops = tops;
        c.ret_top = top;
        sample(device, &c, out);
        assert_memory_equal(plain, out, sizeof(out));
        for (int n = 0; n < ROWS; n++)
            assert_ordered(logits + (size_t)n * VOCAB, ALLOWED, &out[n], top + row[n].first_top,
                           row[n].top_count);
        if (i == 0)
            memcpy(first, top, sizeof(top));
        for (int n = 0; n < tops; n++)
            assert_sampled(i, &first[n], &top[n]);
        sample_close(device);
    }
    free(logits);
}

/* There are fewer ids than are asked for; a row without a token has none. */
static void where_there_are_no_more_ids_none_is_told(void **state)
{
    enum { ROWS = 2, TOPS = 10 };
    static const float logits[ROWS * 4] = {1, 3, 2, 9, 1, NAN, 2, 3};

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        tsr_sample_row row[ROWS] = {row_of(1, 2, 0.0F, 1.0F, 0), row_of(1, 2, 0.0F, 1.0F, 0)};
        tsr_token_logprob top[TOPS];
        tsr_sampled out[ROWS];
        sample_case c = case_of(logits, row, ROWS, ROWS, 4, 3);
        if (device == NULL)
            continue;
        for (int n = 0; n < ROWS; n++) {
            row[n].logit_row = n;
            row[n].top_count = 5;
            row[n].first_top = 5 * n;
        }
        c.tops = TOPS;
        c.ret_top = top;
        sample(device, &c, out);
        assert_int_equal(1, out[0].token);
        assert_memory_equal(&out[0], &top[0], sizeof(top[0]));
        assert_int_equal(2, top[1].token);
        assert_int_equal(0, top[2].token);
        for (int n = 3; n < TOPS; n++)
            assert_int_equal(TSR_NO_TOKEN, top[n].token);
        sample_close(device);
    }
}

/* A row says how probable the token of the text is and leaves the text as it is. */
static void a_forced_row_scores_the_token_of_the_text(void **state)
{
    enum { VOCAB = 8, ALLOWED = 7, ROWS = 4 };
    static const float logits[VOCAB] = {0, 1, 2, 3, 4, 5, 6, 50};
    static int32_t ids[4] = {6, 2, 7, 5};
    static const tsr_text_table text = {ids, 2, 2};
    static const int32_t expected[ROWS] = {2, 5, 7, TSR_NO_TOKEN};
    double sum = 0.0;

    (void)state;
    for (int i = 0; i < ALLOWED; i++)
        sum += exp((double)logits[i]);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        tsr_sampled out[ROWS];
        const tsr_sample_row row[ROWS] = {
            {.slot = 0, .position = 1, .flags = TSR_SAMPLE_FORCED},
            {.slot = 1, .position = 1, .flags = TSR_SAMPLE_FORCED},
            {.slot = 1, .position = 0, .flags = TSR_SAMPLE_FORCED}, /* is not allowed */
            {.slot = 1, .position = 2, .flags = TSR_SAMPLE_FORCED}, /* the text has ended */
        };
        sample_case c = case_of(logits, row, 1, ROWS, VOCAB, ALLOWED);
        if (device == NULL)
            continue;
        c.text = &text;
        sample(device, &c, out);
        for (int n = 0; n < ROWS; n++)
            assert_int_equal(expected[n], out[n].token);
        assert_true(fabs((double)out[0].logprob - (2.0 - log(sum))) < 1e-6);
        assert_true(fabs((double)out[1].logprob - (5.0 - log(sum))) < 1e-6);
        assert_true(out[2].logprob == -INFINITY && out[3].logprob == 0.0F);
        sample_close(device);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_probable_ids_are_told_in_order),
        cmocka_unit_test(where_there_are_no_more_ids_none_is_told),
        cmocka_unit_test(a_forced_row_scores_the_token_of_the_text),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
