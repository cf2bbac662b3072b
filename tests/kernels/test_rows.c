/*
 * Operations that work on rows: norm, add, embed, rotary, router, pack, combine. Each against its
 * definition in double on the first device, the same bits on the others.
 */
#include "tests/kernels/samples.h"

#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

static void assert_near(double got, double expected, double bound)
{
    if (!(fabs(got - expected) <= bound))
        fail_msg("%.9g is not within %.3g of %.9g", got, bound, expected);
}

static void check_norm(sample_random *r, int32_t tokens, int32_t hidden)
{
    const size_t count = (size_t)tokens * (size_t)hidden;
    float *x = sample_memory(count * sizeof(float));
    float *weight = sample_memory((size_t)hidden * sizeof(float));
    float *first = sample_memory(count * sizeof(float));
    float *out = sample_memory(count * sizeof(float));

    sample_floats(r, x, count, 3.0F);
    sample_floats(r, weight, (size_t)hidden, 1.0F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (!device)
            continue;
        memcpy(out, x, count * sizeof(float)); /* in place */
        const tsr_norm_args a = {out, out, weight, tokens, hidden, 1e-6F};
        ASSERT_STATUS(TSR_OK, tsr_op_norm(device, &a, stream));
        if (i == 0)
            memcpy(first, out, count * sizeof(float));
        assert_memory_equal(first, out, count * sizeof(float));
        tsr_device_close(device);
    }
    for (size_t t = 0; t < (size_t)tokens; t++) {
        double sum = 0.0;
        for (size_t i = 0; i < (size_t)hidden; i++)
            sum += (double)x[t * (size_t)hidden + i] * (double)x[t * (size_t)hidden + i];
        const double factor = 1.0 / sqrt(sum / hidden + (double)1e-6F);
        for (size_t i = 0; i < (size_t)hidden; i++) {
            const size_t at = t * (size_t)hidden + i;
            const double expected = (double)x[at] * factor * (double)weight[i];
            /* hidden / 16 + 4 sums halved by the root, and six roundings */
            assert_near((double)first[at], expected,
                        (hidden / 32.0 + 8.0) * 0x1p-24 * fabs(expected));
        }
    }
    free(x);
    free(weight);
    free(first);
    free(out);
}

static void norm_meets_its_definition(void **state)
{
    sample_random r = {1};

    (void)state;
    check_norm(&r, 0, 16);
    check_norm(&r, 1, 16);
    check_norm(&r, 7, 48);
    check_norm(&r, 3, 2048);
}

static void add_adds(void **state)
{
    enum { TOKENS = 5, H = 48 };
    sample_random r = {2};
    float a[TOKENS * H];
    float b[TOKENS * H];

    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        float out[TOKENS * H];
        if (!device)
            continue;
        sample_floats(&r, a, (size_t)TOKENS * H, 1.0F);
        sample_floats(&r, b, (size_t)TOKENS * H, 1.0F);
        const tsr_add_args args = {out, a, b, TOKENS, H};
        ASSERT_STATUS(TSR_OK, tsr_op_add(device, &args, stream));
        for (int k = 0; k < TOKENS * H; k++)
            assert_true(out[k] == a[k] + b[k]);
        tsr_device_close(device);
    }
}

static void embed_copies_the_rows_of_the_ids(void **state)
{
    enum { VOCAB = 9, H = 48, TOKENS = 4 };
    static const int32_t ids[TOKENS] = {8, 0, 3, 3};
    sample_random r = {3};

    (void)state;
    for (int f = TSR_WEIGHT_F32; f <= TSR_WEIGHT_BF16; f++) {
        const sample_kind kind = {(tsr_weight_format)f, TSR_ACTIVATION_NONE, false, false};
        sample_linear *l = sample_linear_new(&r, kind, VOCAB, H);
        for (int i = 0; i < SAMPLE_DEVICES; i++) {
            tsr_device *device = sample_device(i, &sample_shape);
            float out[TOKENS * H];
            void *memory = NULL;
            if (!device)
                continue;
            const tsr_linear table = sample_load(device, l, &memory);
            const tsr_embed_args a = {out, ids, &table, TOKENS};
            ASSERT_STATUS(TSR_OK, tsr_op_embed(device, &a, stream));
            for (int k = 0; k < TOKENS * H; k++)
                assert_true((double)out[k] == l->value[ids[k / H] * H + k % H]);
            tsr_device_free(device, memory);
            tsr_device_close(device);
        }
        sample_linear_free(l);
    }
}

static void embed_refuses_an_id_that_is_no_row(void **state)
{
    static const int32_t ids[1] = {4};
    sample_random r = {4};
    const sample_kind kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};
    sample_linear *l = sample_linear_new(&r, kind, 4, 16);
    tsr_device *device = sample_device(0, &sample_shape);
    float out[16];
    void *memory = NULL;
    const tsr_linear table = sample_load(device, l, &memory);
    const tsr_embed_args a = {out, ids, &table, 1};

    (void)state;
    ASSERT_STATUS(TSR_ERR_ARG, tsr_op_embed(device, &a, stream));
    tsr_device_free(device, memory);
    tsr_device_close(device);
    sample_linear_free(l);
}

typedef struct rotary_case {
    int32_t tokens, q_heads, kv_heads, head_dim, rotary_dim;
    bool norm;
} rotary_case;

/* One head in double. */
static void rotary_by_definition(const rotary_case *c, const float *x, const float *norm,
                                 const float *cosines, const float *sines, double *out)
{
    const int32_t half = c->rotary_dim / 2;
    double sum = 0.0;
    double y[256] = {0};

    for (int32_t i = 0; i < c->head_dim; i++)
        sum += (double)x[i] * (double)x[i];
    for (int32_t i = 0; i < c->head_dim; i++) {
        y[i] = (double)x[i];
        if (c->norm)
            y[i] *= (double)norm[i] / sqrt(sum / c->head_dim + (double)1e-5F);
        out[i] = y[i];
    }
    for (int32_t i = 0; i < half; i++) {
        out[i] = y[i] * (double)cosines[i] - y[i + half] * (double)sines[i];
        out[i + half] = y[i + half] * (double)cosines[i] + y[i] * (double)sines[i];
    }
}

static void check_rotary(sample_random *r, const rotary_case *c)
{
    enum { POSITIONS = 40 };
    const size_t half = (size_t)c->rotary_dim / 2;
    const size_t q_count = (size_t)c->tokens * (size_t)c->q_heads * (size_t)c->head_dim;
    const size_t k_count = (size_t)c->tokens * (size_t)c->kv_heads * (size_t)c->head_dim;
    float x[4096];
    float norm[256];
    float cosines[POSITIONS * 64];
    float sines[POSITIONS * 64];
    float first[4096];
    float out[4096];
    int32_t position[8];

    sample_floats(r, x, q_count + k_count, 2.0F);
    sample_floats(r, norm, (size_t)c->head_dim, 1.0F);
    for (size_t i = 0; i < POSITIONS * half; i++) {
        cosines[i] = cosf((float)i);
        sines[i] = sinf((float)i);
    }
    for (int32_t t = 0; t < c->tokens; t++)
        position[t] = (t * 17 + 5) % POSITIONS;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (!device)
            continue;
        memcpy(out, x, (q_count + k_count) * sizeof(float));
        const tsr_rotary_args a = {
            .q = out,
            .k = out + q_count,
            .q_norm = c->norm ? norm : NULL,
            .k_norm = c->norm ? norm : NULL,
            .cos = cosines,
            .sin = sines,
            .position = position,
            .tokens = c->tokens,
            .q_heads = c->q_heads,
            .kv_heads = c->kv_heads,
            .head_dim = c->head_dim,
            .rotary_dim = c->rotary_dim,
            .eps = 1e-5F,
        };
        ASSERT_STATUS(TSR_OK, tsr_op_rotary(device, &a, stream));
        if (i == 0)
            memcpy(first, out, (q_count + k_count) * sizeof(float));
        assert_memory_equal(first, out, (q_count + k_count) * sizeof(float));
        tsr_device_close(device);
    }
    for (size_t h = 0; h < (q_count + k_count) / (size_t)c->head_dim; h++) {
        const size_t q_total = (size_t)c->tokens * (size_t)c->q_heads;
        const size_t t = h < q_total ? h / (size_t)c->q_heads : (h - q_total) / (size_t)c->kv_heads;
        const size_t at = h * (size_t)c->head_dim;
        const size_t table = (size_t)position[t] * half;
        double expected[256];
        rotary_by_definition(c, x + at, norm, cosines + table, sines + table, expected);
        for (size_t i = 0; i < (size_t)c->head_dim; i++) /* |values| <= 4, some ten roundings */
            assert_near((double)first[at + i], expected[i], 16.0 * 0x1p-24 * 4.0);
    }
}

static void rotary_meets_its_definition(void **state)
{
    static const rotary_case cases[] = {
        {3, 4, 2, 64, 64, true}, {2, 4, 1, 64, 32, false}, {1, 1, 1, 16, 16, true},
        {2, 3, 3, 32, 10, true}, {0, 1, 1, 16, 16, false}, {1, 2, 1, 128, 128, true},
        {2, 2, 2, 16, 0, false},
    };
    sample_random r = {5};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_rotary(&r, &cases[i]);
}

static void packed_rows_hold_activations_ids_and_zeros(void **state)
{
    enum { TOKENS = 3, H = 16, K = 3, E = 7, BYTES = 80 };
    static const size_t x_bytes = H * sizeof(float);
    static const size_t id_bytes = K * sizeof(int32_t);
    static const int32_t expert[TOKENS * K] = {6, 0, 3, 1, 2, 4, 5, 3, 0};
    static const int32_t tag_of[E] = {10, 11, 12, 13, 14, 15, 16};
    sample_random r = {6};
    float x[TOKENS * H];

    (void)state;
    assert_int_equal(BYTES, tsr_packed_row_bytes(4, H, K));
    sample_floats(&r, x, (size_t)TOKENS * H, 1.0F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        unsigned char rows[TOKENS * BYTES];
        int32_t tag[TOKENS * K];
        static const unsigned char zeros[BYTES - H * 4 - K * 4] = {0};
        if (!device)
            continue;
        memset(rows, 0xee, sizeof(rows));
        const tsr_pack_args a = {rows, tag, x, expert, tag_of, BYTES, TOKENS, H, K};
        ASSERT_STATUS(TSR_OK, tsr_op_pack(device, &a, stream));
        for (size_t t = 0; t < TOKENS; t++) {
            const unsigned char *row = rows + t * BYTES;
            assert_memory_equal(row, x + t * H, x_bytes);
            assert_memory_equal(row + x_bytes, expert + t * K, id_bytes);
            assert_memory_equal(row + x_bytes + id_bytes, zeros, sizeof(zeros));
        }
        for (int k = 0; k < TOKENS * K; k++)
            assert_int_equal(tag[k], 10 + expert[k]);
        tsr_device_close(device);
    }
}

enum { COMBINE_T = 4, COMBINE_H = 80, COMBINE_K = 3 };

/* The stated order, in float: exact equality. */
static void assert_combined(const tsr_combine_args *a, const float *residual, size_t t, size_t h)
{
    const size_t at = t * COMBINE_H + h;
    float sum = 0.0F;

    for (size_t k = 0; k < COMBINE_K; k++) {
        const size_t slot = t * COMBINE_K + k;
        const float product = a->weight[slot] * ((const float *)a->rows)[slot * COMBINE_H + h];
        sum = sum + product;
    }
    if (a->shared)
        sum = sum + ((const float *)a->shared)[at];
    assert_true(((const float *)a->out)[at] == residual[at] + sum);
}

static void combine_sums_in_slot_order_then_shared_then_residual(void **state)
{
    enum { TOKENS = COMBINE_T, H = COMBINE_H, K = COMBINE_K };
    sample_random r = {7};
    float rows[TOKENS * K * H];
    float weight[TOKENS * K];
    float shared[TOKENS * H];
    float residual[TOKENS * H];

    (void)state;
    sample_floats(&r, rows, (size_t)TOKENS * K * H, 2.0F);
    sample_floats(&r, weight, (size_t)TOKENS * K, 1.0F);
    sample_floats(&r, shared, (size_t)TOKENS * H, 1.0F);
    sample_floats(&r, residual, (size_t)TOKENS * H, 4.0F);
    for (int i = 0; i < 2 * SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i / 2, &sample_shape);
        float out[TOKENS * H];
        if (!device)
            continue;
        memcpy(out, residual, sizeof(out)); /* in place */
        const tsr_combine_args a = {out, rows, weight, i % 2 ? NULL : shared, out, TOKENS, H, K};
        ASSERT_STATUS(TSR_OK, tsr_op_combine(device, &a, stream));
        for (size_t n = 0; n < (size_t)TOKENS * H; n++)
            assert_combined(&a, residual, n / H, n % H);
        tsr_device_close(device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_meets_its_definition),
        cmocka_unit_test(add_adds),
        cmocka_unit_test(embed_copies_the_rows_of_the_ids),
        cmocka_unit_test(embed_refuses_an_id_that_is_no_row),
        cmocka_unit_test(rotary_meets_its_definition),
        cmocka_unit_test(packed_rows_hold_activations_ids_and_zeros),
        cmocka_unit_test(combine_sums_in_slot_order_then_shared_then_residual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
