#include "tests/kernels/samples.h"

#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

enum { V = 40 };

typedef struct sampled {
    int32_t token[40];
    float logprob[40];
} sampled;

static void sample(tsr_device *device, const tsr_sample_args *shape, sampled *ret)
{
    tsr_sample_args a = *shape;

    a.token = ret->token;
    a.logprob = ret->logprob;
    ASSERT_STATUS(TSR_OK, tsr_op_sample(device, &a, stream));
}

/* One row of one device. */
static int32_t sample_one(tsr_device *device, const float *logits, int32_t vocab,
                          const tsr_sample_row *row)
{
    const tsr_sample_args a = {
        .logits = logits, .row = row, .rows = 1, .vocab = vocab, .allowed = vocab};
    sampled out;

    sample(device, &a, &out);
    return out.token[0];
}

static void temperature_0_takes_the_largest_and_the_lower_id_of_equals(void **state)
{
    const tsr_sample_row row = {.top_p = 1.0F};

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        float logits[V] = {0};
        if (!device)
            continue;
        assert_int_equal(0, sample_one(device, logits, V, &row));
        logits[37] = logits[21] = 2.0F;
        assert_int_equal(21, sample_one(device, logits, V, &row));
        logits[38] = 2.5F;
        assert_int_equal(38, sample_one(device, logits, V, &row));
        tsr_device_close(device);
    }
}

static void padding_ids_are_never_chosen_nor_counted(void **state)
{
    enum { ALLOWED = 33 };
    float logits[V] = {0};
    sampled out;

    (void)state;
    logits[ALLOWED] = 50.0F;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (!device)
            continue;
        for (uint64_t n = 0; n < 50; n++) {
            static const float temperature[] = {100.0F, 1.0F, 0.0F};
            const tsr_sample_row row = {7, n, temperature[n % 3], n % 4 ? 1.0F : 0.9F,
                                        n % 5 ? 0 : 35};
            const tsr_sample_args a = {
                .logits = logits, .row = &row, .rows = 1, .vocab = V, .allowed = ALLOWED};
            sample(device, &a, &out);
            assert_in_range(out.token[0], 0, ALLOWED - 1);
            assert_true(fabs((double)out.logprob[0] + log((double)ALLOWED)) < 1e-6);
        }
        tsr_device_close(device);
    }
}

/* Rows of every kind at once. */
static void fill_rows(sample_random *r, tsr_sample_row *row, int32_t rows)
{
    for (int32_t i = 0; i < rows; i++) {
        row[i] = (tsr_sample_row){
            .seed = sample_u32(r),
            .output_index = (uint64_t)i,
            .temperature = i % 4 == 0 ? 0.0F : 0.3F * (float)(i % 7 + 1),
            .top_p = i % 3 == 0 ? 1.0F : 0.2F * (float)(i % 5 + 1),
            .top_k = i % 2 == 0 ? 0 : i,
        };
    }
}

static void every_device_samples_the_same_alone_and_in_a_batch(void **state)
{
    enum { ROWS = 40, VOCAB = 2999, ALLOWED = 2990 };
    sample_random r = {1};
    float *logits = sample_memory((size_t)ROWS * VOCAB * sizeof(float));
    tsr_sample_row row[ROWS];
    sampled first = {0};
    sampled out = {0};

    (void)state;
    sample_floats(&r, logits, (size_t)ROWS * VOCAB, 6.0F);
    fill_rows(&r, row, ROWS);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        tsr_sample_args a = {
            .logits = logits, .row = row, .rows = ROWS, .vocab = VOCAB, .allowed = ALLOWED};
        if (!device)
            continue;
        sample(device, &a, i == 0 ? &first : &out);
        if (i > 0)
            assert_memory_equal(&first, &out, sizeof(out));
        a.rows = 1;
        for (int n = 0; n < ROWS; n++) {
            a.logits = logits + (size_t)n * VOCAB;
            a.row = &row[n];
            sample(device, &a, &out);
            assert_int_equal(first.token[n], out.token[0]);
            assert_true(first.logprob[n] == out.logprob[0]);
        }
        a.rows = 0;
        sample(device, &a, &out);
        tsr_device_close(device);
    }
    free(logits);
}

/* Twenty-odd sums in float over lanes of 190, then one log. */
static void the_logprob_is_the_log_softmax_at_temperature_1(void **state)
{
    enum { VOCAB = 2999 };
    sample_random r = {2};
    float logits[VOCAB];
    const tsr_sample_row row = {3, 4, 0.7F, 0.9F, 0};
    sampled out;
    double sum = 0.0;

    (void)state;
    sample_floats(&r, logits, VOCAB, 8.0F);
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)logits[i]);
    tsr_device *device = sample_device(0, &sample_shape);
    const tsr_sample_args a = {
        .logits = logits, .row = &row, .rows = 1, .vocab = VOCAB, .allowed = VOCAB};
    sample(device, &a, &out);
    const double expected = (double)logits[out.token[0]] - log(sum);
    /* sums err by 192 2^-24, the difference of logits by 2^-20 */
    assert_true(fabs((double)out.logprob[0] - expected) < 192.0 * 0x1p-24 + 0x1p-20);
    tsr_device_close(device);
}

/* Which ids can come, in 4000 draws. */
static void seen_of(tsr_device *device, const float *logits, int32_t vocab, tsr_sample_row row,
                    int32_t *count)
{
    memset(count, 0, (size_t)vocab * sizeof(*count));
    for (uint64_t n = 0; n < 4000; n++) {
        row.output_index = n;
        count[sample_one(device, logits, vocab, &row)]++;
    }
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
    tsr_device_close(device);
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
    tsr_device_close(device);
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
        const tsr_sample_row row = {9, n, 1.0F, 0.5F, 0};
        const int32_t token = sample_one(device, logits, VOCAB, &row);
        most = token > most ? token : most;
    }
    assert_in_range(most, VOCAB / 2 - 30, VOCAB / 2 - 1);
    tsr_device_close(device);
}

static void a_tiny_temperature_is_greedy_and_infinite_logits_are_safe(void **state)
{
    tsr_device *device = sample_device(0, &sample_shape);
    float logits[V] = {0};
    const tsr_sample_row cold = {1, 2, 1e-30F, 0.9F, 0};
    const tsr_sample_row warm = {1, 2, 1.0F, 0.9F, 5};

    (void)state;
    logits[17] = 0.001F;
    assert_int_equal(17, sample_one(device, logits, V, &cold));
    for (int i = 0; i < V; i++)
        logits[i] = -INFINITY;
    logits[3] = 1.0F;
    assert_int_equal(3, sample_one(device, logits, V, &warm));
    for (int i = 0; i < V; i++)
        logits[i] = NAN;
    assert_in_range(sample_one(device, logits, V, &warm), 0, V - 1);
    tsr_device_close(device);
}

static void negative_zero_is_no_less_than_zero(void **state)
{
    static const float logits[V] = {-1.0F, -0.0F, 0.0F, -1.0F};
    const tsr_sample_row row = {1, 2, 1e-30F, 1.0F, 1};
    tsr_device *device = sample_device(0, &sample_shape);

    (void)state;
    assert_int_equal(1, sample_one(device, logits, 4, &row));
    tsr_device_close(device);
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
        const tsr_sample_row row = {known[i].seed, known[i].index, 1.0F, 1.0F, 0};
        assert_int_equal((int32_t)(known[i].u * N), sample_one(device, logits, N, &row));
    }
    tsr_device_close(device);
}

static void ids_that_are_not_there_are_never_allowed(void **state)
{
    tsr_device *device = sample_device(0, &sample_shape);
    tsr_sample_args a = {.rows = 1, .vocab = V, .allowed = 0};

    (void)state;
    ASSERT_STATUS(TSR_ERR_ARG, tsr_op_sample(device, &a, stream));
    a.allowed = V + 1;
    ASSERT_STATUS(TSR_ERR_ARG, tsr_op_sample(device, &a, stream));
    tsr_device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(temperature_0_takes_the_largest_and_the_lower_id_of_equals),
        cmocka_unit_test(padding_ids_are_never_chosen_nor_counted),
        cmocka_unit_test(every_device_samples_the_same_alone_and_in_a_batch),
        cmocka_unit_test(the_logprob_is_the_log_softmax_at_temperature_1),
        cmocka_unit_test(top_k_and_top_p_keep_exactly_the_right_tokens),
        cmocka_unit_test(draws_follow_the_distribution_at_any_temperature),
        cmocka_unit_test(a_flat_distribution_keeps_the_right_share),
        cmocka_unit_test(a_tiny_temperature_is_greedy_and_infinite_logits_are_safe),
        cmocka_unit_test(negative_zero_is_no_less_than_zero),
        cmocka_unit_test(random_numbers_are_those_of_philox),
        cmocka_unit_test(ids_that_are_not_there_are_never_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
