/*
 * Sampling: which tokens can come, how often, and where they go.
 */
#include "tests/kernels/sample_case.h"

#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

enum { V = 40, DRAWS = 4000 };

/* One row of one device. */
static int32_t sample_one(tsr_device *device, const float *logits, int32_t vocab,
                          const tsr_sample_row *row)
{
    const sample_case c = case_of(logits, row, 1, 1, vocab, vocab);
    tsr_sampled out;

    sample(device, &c, &out);
    return out.token;
}

static void temperature_0_takes_the_largest_and_the_lower_id_of_equals(void **state)
{
    const tsr_sample_row row = {.top_p = 1.0F};

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        float logits[V] = {0};
        if (device == NULL)
            continue;
        assert_int_equal(0, sample_one(device, logits, V, &row));
        logits[37] = logits[21] = 2.0F;
        assert_int_equal(21, sample_one(device, logits, V, &row));
        logits[38] = 2.5F;
        assert_int_equal(38, sample_one(device, logits, V, &row));
        sample_close(device);
    }
}

static void padding_ids_are_never_chosen_nor_counted(void **state)
{
    enum { ALLOWED = 33 };
    float logits[V] = {0};
    tsr_sampled out;

    (void)state;
    logits[ALLOWED] = 50.0F;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (device == NULL)
            continue;
        for (uint64_t n = 0; n < 50; n++) {
            static const float temperature[] = {100.0F, 1.0F, 0.0F};
            const tsr_sample_row row =
                row_of(7, n, temperature[n % 3], n % 4 ? 1.0F : 0.9F, n % 5 ? 0 : 35);
            const sample_case c = case_of(logits, &row, 1, 1, V, ALLOWED);
            sample(device, &c, &out);
            assert_in_range(out.token, 0, ALLOWED - 1);
            assert_true(fabs((double)out.logprob + log((double)ALLOWED)) < 1e-6);
        }
        sample_close(device);
    }
}

static void every_device_samples_the_same_alone_and_in_a_batch(void **state)
{
    enum { ROWS = 40, VOCAB = 2999, ALLOWED = 2990 };
    sample_random r = {1};
    float *logits = sample_memory((size_t)ROWS * VOCAB * sizeof(float));
    tsr_sample_row row[ROWS];
    tsr_sampled first[ROWS] = {{0}};
    tsr_sampled out[ROWS] = {{0}};

    (void)state;
    sample_floats(&r, logits, (size_t)ROWS * VOCAB, 6.0F);
    fill_rows(&r, row, ROWS);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        sample_case c = case_of(logits, row, ROWS, ROWS, VOCAB, ALLOWED);
        if (device == NULL)
            continue;
        sample(device, &c, i == 0 ? first : out);
        for (int n = 0; i > 0 && n < ROWS; n++)
            assert_sampled(i, &first[n], &out[n]);
        c.rows = c.samples = 1;
        for (int n = 0; n < ROWS; n++) {
            tsr_sample_row alone = row[n];
            alone.logit_row = 0;
            c.logits = logits + (size_t)n * VOCAB;
            c.row = &alone;
            sample(device, &c, out);
            assert_sampled(i, &first[n], &out[0]);
        }
        sample_close(device);
    }
    free(logits);
}

/* By index: in another order, and each more than once. */
static void rows_are_sampled_in_any_order_and_again(void **state)
{
    enum { ROWS = 40, VOCAB = 300, SAMPLES = 117 };
    sample_random r = {11};
    float logits[ROWS * VOCAB];
    tsr_sample_row row[ROWS];
    tsr_sample_row shuffled[SAMPLES];
    tsr_sampled in_order[ROWS];
    tsr_sampled out[SAMPLES];

    (void)state;
    sample_floats(&r, logits, (size_t)ROWS * VOCAB, 6.0F);
    fill_rows(&r, row, ROWS);
    for (int i = 0; i < SAMPLES; i++)
        shuffled[i] = row[(i * 17 + 5) % ROWS];
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        const sample_case plain = case_of(logits, row, ROWS, ROWS, VOCAB, VOCAB);
        const sample_case other = case_of(logits, shuffled, ROWS, SAMPLES, VOCAB, VOCAB);
        if (device == NULL)
            continue;
        sample(device, &plain, in_order);
        sample(device, &other, out);
        for (int n = 0; n < SAMPLES; n++)
            assert_memory_equal(&in_order[(n * 17 + 5) % ROWS], &out[n], sizeof(out[n]));
        sample_close(device);
    }
}

/* Each token to its own place; none where the text has ended, and nothing beside them. */
static void tokens_go_into_the_text(void **state)
{
    enum { SLOTS = 3, POSITIONS = 4, SAMPLES = 5 };
    static const float logits[2 * 4] = {0, 5, 0, 0, 0, 0, 0, 7};
    static const tsr_sample_row row[SAMPLES] = {
        {.top_p = 1.0F, .logit_row = 1, .slot = 2, .position = 3},
        {.top_p = 1.0F, .logit_row = 0, .slot = 0, .position = 0},
        {.top_p = 1.0F, .logit_row = 0, .slot = 1, .position = 2},
        {.top_p = 1.0F, .logit_row = 1, .slot = 1, .position = POSITIONS},
        {.top_p = 1.0F, .logit_row = 1, .slot = 0, .position = -1},
    };
    static const int32_t expected[SLOTS * POSITIONS] = {1, -1, -1, -1, -1, -1,
                                                        1, -1, -1, -1, -1, 3};

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        int32_t text[SLOTS * POSITIONS];
        if (device == NULL)
            continue;
        memset(text, 0xff, sizeof(text));
        const tsr_sample_args a = {
            .sampled = sample_room(device, SAMPLES * sizeof(tsr_sampled)),
            .logits = sample_put(device, logits, sizeof(logits)),
            .row = sample_put(device, row, sizeof(row)),
            .text = {sample_put(device, text, sizeof(text)), SLOTS, POSITIONS},
            .rows = 2,
            .samples = SAMPLES,
            .vocab = 4,
            .allowed = 4,
        };
        ASSERT_STATUS(TSR_OK, device->ops->sample(device, &a, stream));
        ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
        sample_get(device, text, a.text.ids, sizeof(text));
        assert_memory_equal(expected, text, sizeof(text));
        sample_close(device);
    }
}

/* Twenty-odd sums in float over lanes of 190, then one log. */
static void the_logprob_is_the_log_softmax_at_temperature_1(void **state)
{
    enum { VOCAB = 2999 };
    sample_random r = {2};
    float logits[VOCAB];
    const tsr_sample_row row = row_of(3, 4, 0.7F, 0.9F, 0);
    tsr_sampled out;
    double sum = 0.0;

    (void)state;
    sample_floats(&r, logits, VOCAB, 8.0F);
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)logits[i]);
    tsr_device *device = sample_device(0, &sample_shape);
    const sample_case c = case_of(logits, &row, 1, 1, VOCAB, VOCAB);
    sample(device, &c, &out);
    const double expected = (double)logits[out.token] - log(sum);
    /* sums err by 192 2^-24, the difference of logits by 2^-20 */
    assert_true(fabs((double)out.logprob - expected) < 192.0 * 0x1p-24 + 0x1p-20);
    sample_close(device);
}

/* Which ids can come, in 4000 draws. */
static void seen_of(tsr_device *device, const float *logits, int32_t vocab, tsr_sample_row row,
                    int32_t *count)
{
    tsr_sample_row rows[DRAWS] = {{0}};
    tsr_sampled out[DRAWS];
    const sample_case c = case_of(logits, rows, 1, DRAWS, vocab, vocab);

    memset(count, 0, (size_t)vocab * sizeof(*count));
    for (int n = 0; n < DRAWS; n++) {
        row.output_index = (uint64_t)n;
        rows[n] = row;
    }
    sample(device, &c, out);
    for (int n = 0; n < DRAWS; n++)
        count[out[n].token]++;
}

static void top_k_and_top_p_keep_exactly_the_right_tokens(void **state)
{
    /* p = .4 .3 .1 .1 .1 in the order 4 1 0 2 3, the three smallest equal */
    static const double p[5] = {0.1, 0.3, 0.1, 0.1, 0.4};
    static const struct {
        float top_p;
        int32_t top_k;
        bool kept[5];
    } cases[] = {
        {1.0F, 0, {true, true, true, true, true}},
        {1.0F, 1, {false, false, false, false, true}},
        {1.0F, 3, {true, true, false, false, true}}, /* of equals the lower id */
        {1.0F, 4, {true, true, true, false, true}},
        {1.0F, 5, {true, true, true, true, true}},
        {1.0F, 9, {true, true, true, true, true}},
        {0.01F, 0, {false, false, false, false, true}},
        {0.39F, 0, {false, false, false, false, true}},
        {0.41F, 0, {false, true, false, false, true}},
        {0.69F, 0, {false, true, false, false, true}},
        {0.71F, 0, {true, true, false, false, true}},
        {0.99F, 0, {true, true, true, true, true}},
        {0.55F, 2, {false, false, false, false, true}}, /* .4 / .7 = .57: top_k first */
    };
    tsr_device *device = sample_device(0, &sample_shape);
    float logits[5];
    int32_t count[5];

    (void)state;
    for (int i = 0; i < 5; i++)
        logits[i] = (float)log(p[i]);
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        const tsr_sample_row row = {
            .seed = c, .temperature = 1.0F, .top_p = cases[c].top_p, .top_k = cases[c].top_k};
        seen_of(device, logits, 5, row, count);
        for (int i = 0; i < 5; i++)
            assert_int_equal(cases[c].kept[i], count[i] > 0);
    }
    sample_close(device);
}

/* Pearson's statistic of 4000 draws over n tokens. */
static double chi_square(const int32_t *count, const double *p, int n)
{
    double sum = 0.0;

    for (int i = 0; i < n; i++) {
        const double expected = 4000.0 * p[i];
        sum += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
    }
    return sum;
}

/* With 9 degrees of freedom the statistic passes 27.9 in one of a thousand seeds. */
static void draws_follow_the_distribution_at_any_temperature(void **state)
{
    enum { N = 10 };
    tsr_device *device = sample_device(0, &sample_shape);
    float logits[N];
    int32_t count[N];

    (void)state;
    for (int i = 0; i < N; i++)
        logits[i] = 0.25F * (float)((i * 7) % N);
    for (int c = 0; c < 3; c++) {
        const tsr_sample_row row = {
            .seed = 12345, .temperature = 0.5F * (float)(c + 1), .top_p = c == 2 ? 0.9999F : 1.0F};
        double p[N];
        double sum = 0.0;
        for (int i = 0; i < N; i++)
            sum += p[i] = exp((double)logits[i] / (double)row.temperature);
        for (int i = 0; i < N; i++)
            p[i] /= sum;
        seen_of(device, logits, N, row, count);
        assert_true(chi_square(count, p, N) < 27.9);
    }
    sample_close(device);
}

/* The sum of so many equal parts reaches top_p only after several rounds of candidates. */
static void a_flat_distribution_keeps_the_right_share(void **state)
{
    enum { VOCAB = 3000 };
    const float logits[VOCAB] = {0};
    tsr_device *device = sample_device(0, &sample_shape);
    int32_t most = 0;

    (void)state;
    for (uint64_t n = 0; n < 2000; n++) {
        const tsr_sample_row row = row_of(9, n, 1.0F, 0.5F, 0);
        const int32_t token = sample_one(device, logits, VOCAB, &row);
        most = token > most ? token : most;
    }
    assert_in_range(most, VOCAB / 2 - 30, VOCAB / 2 - 1);
    sample_close(device);
}

static void a_tiny_temperature_is_greedy(void **state)
{
    tsr_device *device = sample_device(0, &sample_shape);
    float logits[V] = {0};
    const tsr_sample_row cold = row_of(1, 2, 1e-30F, 0.9F, 0);

    (void)state;
    logits[17] = 0.001F;
    assert_int_equal(17, sample_one(device, logits, V, &cold));
    sample_close(device);
}

/* One id of one row at a time, in front, in the middle and last; what lies behind the allowed ids
 * does not count, and the rows beside it get their tokens. */
static void a_row_that_is_not_finite_has_no_token(void **state)
{
    enum { ALLOWED = V - 3, ROWS = 3 };
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    static const int32_t places[] = {0, 16, ALLOWED - 1, ALLOWED};

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        for (size_t n = 0; device != NULL && n < 12; n++) {
            const int32_t at = places[n / 3];
            float logits[ROWS * V] = {0};
            tsr_sample_row row[ROWS];
            tsr_sampled out[ROWS];
            for (int32_t r = 0; r < ROWS; r++) {
                row[r] = row_of(7, n, (float)(n % 2), n % 4 < 2 ? 1.0F : 0.9F, n % 5 ? 0 : 7);
                row[r].logit_row = r;
                logits[r * V + 5] = 60.0F;
            }
            logits[V + at] = wrong[n % 3];
            const sample_case c = case_of(logits, row, ROWS, ROWS, V, ALLOWED);
            sample(device, &c, out);
            assert_int_equal(5, out[0].token);
            assert_int_equal(at < ALLOWED ? TSR_NO_TOKEN : 5, out[1].token);
            assert_true(out[1].logprob == 0.0F || at == ALLOWED);
            assert_int_equal(5, out[2].token);
        }
        if (device != NULL)
            sample_close(device);
    }
}

static void negative_zero_is_no_less_than_zero(void **state)
{
    static const float logits[V] = {-1.0F, -0.0F, 0.0F, -1.0F};
    const tsr_sample_row row = row_of(1, 2, 1e-30F, 1.0F, 1);
    tsr_device *device = sample_device(0, &sample_shape);

    (void)state;
    assert_int_equal(1, sample_one(device, logits, 4, &row));
    sample_close(device);
}

/*
 * Among n equal logits the random number u takes id floor(u n). The numbers were computed by
 * another program, which agrees with the three published vectors of Philox4x32-10; the first is
 * one of them.
 */
static void random_numbers_are_those_of_philox(void **state)
{
    enum { N = 2999 };
    static const struct {
        uint64_t seed, index;
        double u;
    } known[] = {
        {0, 0, 0.3990464708489645},
        {UINT64_C(0x123456789abcdef0), 5, 0.4315076779431112},
        {UINT64_MAX, (UINT64_C(1) << 40) + 3, 0.677062030938396},
    };
    static const float logits[N] = {0};
    tsr_device *device = sample_device(0, &sample_shape);

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        const tsr_sample_row row = row_of(known[i].seed, known[i].index, 1.0F, 1.0F, 0);
        assert_int_equal((int32_t)(known[i].u * N), sample_one(device, logits, N, &row));
    }
    sample_close(device);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(temperature_0_takes_the_largest_and_the_lower_id_of_equals),
        cmocka_unit_test(padding_ids_are_never_chosen_nor_counted),
        cmocka_unit_test(every_device_samples_the_same_alone_and_in_a_batch),
        cmocka_unit_test(rows_are_sampled_in_any_order_and_again),
        cmocka_unit_test(tokens_go_into_the_text),
        cmocka_unit_test(the_logprob_is_the_log_softmax_at_temperature_1),
        cmocka_unit_test(top_k_and_top_p_keep_exactly_the_right_tokens),
        cmocka_unit_test(draws_follow_the_distribution_at_any_temperature),
        cmocka_unit_test(a_flat_distribution_keeps_the_right_share),
        cmocka_unit_test(a_tiny_temperature_is_greedy),
        cmocka_unit_test(a_row_that_is_not_finite_has_no_token),
        cmocka_unit_test(negative_zero_is_no_less_than_zero),
        cmocka_unit_test(random_numbers_are_those_of_philox),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
