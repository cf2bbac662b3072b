/*
 * Operations that work on rows: norm, add, embed, rotary, pack, combine. Each against its
 * definition on the first device; the others have to be like it.
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
        if (device == NULL)
            continue;
        void *rows = sample_rows(device, x, count); /* in place */
        const tsr_norm_args a = {
            .out = rows,
            .x = rows,
            .weight = sample_put(device, weight, (size_t)hidden * sizeof(float)),
            .tokens = tokens,
            .hidden = hidden,
            .eps = 1e-6F,
        };
        if (tokens > 0)
            ASSERT_STATUS(TSR_OK, device->ops->norm(device, &a, stream));
        sample_get_rows(device, i == 0 ? first : out, rows, count);
        sample_assert_like(i, first, i == 0 ? first : out, count);
        sample_close(device);
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

/* In any order, and more than once. */
static void norm_takes_the_rows_it_is_told(void **state)
{
    enum { H = 48, TOKENS = 5, ROWS = 7 };
    static const int32_t row[ROWS] = {4, 0, 4, 3, 1, 0, 2};
    sample_random r = {8};
    float x[TOKENS * H];
    float weight[H];
    float all[TOKENS * H];
    float told[ROWS * H];

    (void)state;
    sample_floats(&r, x, (size_t)TOKENS * H, 3.0F);
    sample_floats(&r, weight, H, 1.0F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (device == NULL)
            continue;
        tsr_norm_args a = {
            .out = sample_row_room(device, (size_t)ROWS * H),
            .x = sample_rows(device, x, (size_t)TOKENS * H),
            .weight = sample_put(device, weight, sizeof(weight)),
            .tokens = TOKENS,
            .hidden = H,
            .eps = 1e-6F,
        };
        ASSERT_STATUS(TSR_OK, device->ops->norm(device, &a, stream));
        sample_get_rows(device, all, a.out, (size_t)TOKENS * H);
        a.row = sample_put(device, row, sizeof(row));
        a.tokens = ROWS;
        ASSERT_STATUS(TSR_OK, device->ops->norm(device, &a, stream));
        sample_get_rows(device, told, a.out, (size_t)ROWS * H);
        for (size_t k = 0; k < ROWS; k++)
            assert_memory_equal(told + k * H, all + (size_t)row[k] * H, H * sizeof(float));
        sample_close(device);
    }
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
        float expected[TOKENS * H];
        float out[TOKENS * H];
        if (device == NULL)
            continue;
        sample_floats(&r, a, (size_t)TOKENS * H, 1.0F);
        sample_floats(&r, b, (size_t)TOKENS * H, 1.0F);
        const tsr_add_args args = {
            .out = sample_row_room(device, (size_t)TOKENS * H),
            .a = sample_rows(device, a, (size_t)TOKENS * H),
            .b = sample_rows(device, b, (size_t)TOKENS * H),
            .tokens = TOKENS,
            .hidden = H,
        };
        ASSERT_STATUS(TSR_OK, device->ops->add(device, &args, stream));
        sample_get_rows(device, out, args.out, (size_t)TOKENS * H);
        for (int k = 0; k < TOKENS * H; k++)
            expected[k] = a[k] + b[k];
        sample_assert_like(i, expected, out, (size_t)TOKENS * H);
        sample_close(device);
    }
}

static void embed_copies_the_rows_of_the_ids(void **state)
{
    enum { VOCAB = 9, H = 48, TOKENS = 4, SLOTS = 2, POSITIONS = 3 };
    static const int32_t text[SLOTS * POSITIONS] = {-1, 3, 8, 0, -1, 3};
    static const int32_t slot[TOKENS] = {0, 1, 0, 1};
    static const int32_t position[TOKENS] = {2, 0, 1, 2};
    static const int32_t ids[TOKENS] = {8, 0, 3, 3};
    sample_random r = {3};

    (void)state;
    for (int n = 0; n < 3 * SAMPLE_DEVICES; n++) {
        const sample_kind kind = {(tsr_weight_format)(n % 3), TSR_ACTIVATION_NONE, false, false};
        sample_linear *l = sample_linear_new(&r, kind, VOCAB, H);
        tsr_device *device = sample_device(n / 3, &sample_shape);
        float expected[TOKENS * H];
        float out[TOKENS * H];
        if (device != NULL) {
            const tsr_linear table = sample_load(device, l);
            const tsr_embed_block b = {
                .x = sample_row_room(device, (size_t)TOKENS * H),
                .slot = sample_put(device, slot, sizeof(slot)),
                .position = sample_put(device, position, sizeof(position)),
                .table = &table,
                .text = {sample_put(device, text, sizeof(text)), SLOTS, POSITIONS},
                .tokens = TOKENS,
            };
            ASSERT_STATUS(TSR_OK, tsr_block_embed(device, &b, stream));
            sample_get_rows(device, out, b.x, (size_t)TOKENS * H);
            for (int k = 0; k < TOKENS * H; k++)
                expected[k] = (float)l->value[ids[k / H] * H + k % H]; /* exact */
            sample_assert_like(n / 3, expected, out, (size_t)TOKENS * H);
        }
        sample_close(device);
        sample_linear_free(l);
    }
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
    float norm[256] = {0};
    float cosines[POSITIONS * 64];
    float sines[POSITIONS * 64];
    float first[4096];
    float out[4096];
    int32_t position[8] = {0};

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
        if (device == NULL)
            continue;
        const float *head_norm = sample_put(device, norm, sizeof(norm));
        const tsr_rotary_args a = {
            .q = sample_rows(device, x, q_count),
            .k = sample_rows(device, x + q_count, k_count),
            .q_norm = c->norm ? head_norm : NULL,
            .k_norm = c->norm ? head_norm : NULL,
            .cos = sample_put(device, cosines, POSITIONS * half * sizeof(float)),
            .sin = sample_put(device, sines, POSITIONS * half * sizeof(float)),
            .position = sample_put(device, position, sizeof(position)),
            .tokens = c->tokens,
            .q_heads = c->q_heads,
            .kv_heads = c->kv_heads,
            .head_dim = c->head_dim,
            .rotary_dim = c->rotary_dim,
            .eps = 1e-5F,
        };
        if (c->tokens > 0)
            ASSERT_STATUS(TSR_OK, device->ops->rotary(device, &a, stream));
        float *rotated = i == 0 ? first : out;
        sample_get_rows(device, rotated, a.q, q_count);
        sample_get_rows(device, rotated + q_count, a.k, k_count);
        sample_assert_like(i, first, rotated, q_count + k_count);
        sample_close(device);
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
    enum { TOKENS = 3, H = 16, K = 3, E = 7, MOST_BYTES = 80 };
    static const size_t id_bytes = K * sizeof(int32_t);
    static const int32_t expert[TOKENS * K] = {6, 0, 3, 1, 2, 4, 5, 3, 0};
    static const int32_t tag_of[E] = {10, 11, 12, 13, 14, 15, 16};
    static const unsigned char zeros[16] = {0};
    sample_random r = {6};
    float x[TOKENS * H];

    (void)state;
    assert_int_equal(80, tsr_packed_row_bytes(4, H, K));
    assert_int_equal(48, tsr_packed_row_bytes(2, H, K));
    sample_floats(&r, x, (size_t)TOKENS * H, 1.0F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        unsigned char rows[TOKENS * MOST_BYTES];
        unsigned char given[sizeof(float) * TOKENS * H];
        int32_t tag[TOKENS * K];
        if (device == NULL)
            continue;
        const size_t x_bytes = H * tsr_device_activation_bytes(device);
        const size_t bytes = tsr_packed_row_bytes(tsr_device_activation_bytes(device), H, K);
        memset(rows, 0xee, sizeof(rows));
        const tsr_pack_args a = {
            .rows = sample_put(device, rows, TOKENS * bytes),
            .tag = sample_room(device, sizeof(tag)),
            .x = sample_rows(device, x, (size_t)TOKENS * H),
            .expert = sample_put(device, expert, sizeof(expert)),
            .tag_of = sample_put(device, tag_of, sizeof(tag_of)),
            .row_bytes = bytes,
            .tokens = TOKENS,
            .hidden = H,
            .top_k = K,
        };
        ASSERT_STATUS(TSR_OK, device->ops->pack(device, &a, stream));
        sample_get(device, rows, a.rows, TOKENS * bytes);
        sample_get(device, given, a.x, TOKENS * x_bytes);
        sample_get(device, tag, a.tag, sizeof(tag));
        for (size_t t = 0; t < TOKENS; t++) {
            const unsigned char *row = rows + t * bytes;
            assert_memory_equal(row, given + t * x_bytes, x_bytes);
            assert_memory_equal(row + x_bytes, expert + t * K, id_bytes);
            assert_memory_equal(row + x_bytes + id_bytes, zeros, bytes - x_bytes - id_bytes);
        }
        for (int k = 0; k < TOKENS * K; k++)
            assert_int_equal(tag[k], 10 + expert[k]);
        sample_close(device);
    }
}

enum { COMBINE_T = 4, COMBINE_H = 80, COMBINE_K = 3 };

/* What is combined, on the host. */
typedef struct combined {
    float answers[COMBINE_T * COMBINE_K * COMBINE_H];
    float weight[COMBINE_T * COMBINE_K];
    float shared[COMBINE_T * COMBINE_H];
    float x[COMBINE_T * COMBINE_H];
} combined;

/* The stated order, in float: exact equality. */
static float combined_by_definition(const combined *c, bool shared, size_t at)
{
    const size_t t = at / COMBINE_H;
    float sum = 0.0F;

    for (size_t k = 0; k < COMBINE_K; k++) {
        const size_t slot = t * COMBINE_K + k;
        const float product = c->weight[slot] * c->answers[slot * COMBINE_H + at % COMBINE_H];
        sum = sum + product;
    }
    if (shared)
        sum = sum + c->shared[at];
    return c->x[at] + sum;
}

static void combine_sums_in_slot_order_then_shared_then_x(void **state)
{
    enum { COUNT = COMBINE_T * COMBINE_H, ANSWERS = COUNT * COMBINE_K };
    sample_random r = {7};
    combined c;

    (void)state;
    sample_floats(&r, c.answers, ANSWERS, 2.0F);
    sample_floats(&r, c.weight, (size_t)COMBINE_T * COMBINE_K, 1.0F);
    sample_floats(&r, c.shared, COUNT, 1.0F);
    sample_floats(&r, c.x, COUNT, 4.0F);
    for (int i = 0; i < 2 * SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i / 2, &sample_shape);
        float expected[COUNT];
        float out[COUNT];
        if (device == NULL)
            continue;
        const tsr_combine_block b = {
            .x = sample_rows(device, c.x, COUNT),
            .answers = sample_rows(device, c.answers, ANSWERS),
            .weight = sample_put(device, c.weight, sizeof(c.weight)),
            .shared = i % 2 == 0 ? sample_rows(device, c.shared, COUNT) : NULL,
            .tokens = COMBINE_T,
            .hidden = COMBINE_H,
            .top_k = COMBINE_K,
        };
        ASSERT_STATUS(TSR_OK, tsr_block_combine(device, &b, stream));
        sample_get_rows(device, out, b.x, COUNT);
        for (size_t at = 0; at < COUNT; at++)
            expected[at] = combined_by_definition(&c, b.shared != NULL, at);
        sample_assert_like(i / 2, expected, out, COUNT);
        sample_close(device);
    }
}

/* Answers that come while the kernel is there already: on a device that computes by itself, in a
 * stream beside its own. */
static void combine_takes_answers_as_they_come(void **state)
{
    enum { COUNT = COMBINE_T * COMBINE_H, ANSWERS = COUNT * COMBINE_K };
    static const int32_t ended[2] = {0, 0};
    sample_random r = {8};
    combined c;

    (void)state;
    sample_floats(&r, c.answers, ANSWERS, 2.0F);
    sample_floats(&r, c.weight, (size_t)COMBINE_T * COMBINE_K, 1.0F);
    sample_floats(&r, c.x, COUNT, 4.0F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        uint32_t left[ANSWERS];
        float out[COUNT];
        tsr_stream beside;
        void *late = NULL;
        if (device == NULL || tsr_device_flights(device) == 1) {
            sample_close(device);
            continue;
        }
        ASSERT_STATUS(TSR_OK, tsr_device_stream_open(device, &beside));
        ASSERT_STATUS(TSR_OK, tsr_device_host_alloc(device, sizeof(c.answers), &late));
        memcpy(late, c.answers, sizeof(c.answers));
        memset(left, 0xff, sizeof(left));
        void *answers = sample_put(device, left, sizeof(left));
        const tsr_combine_block b = {
            .x = sample_rows(device, c.x, COUNT),
            .answers = answers,
            .coming = answers,
            .ended = sample_put(device, ended, sizeof(ended)),
            .weight = sample_put(device, c.weight, sizeof(c.weight)),
            .tokens = COMBINE_T,
            .hidden = COMBINE_H,
            .top_k = COMBINE_K,
        };
        ASSERT_STATUS(TSR_OK, tsr_block_combine(device, &b, stream));
        ASSERT_STATUS(TSR_OK, tsr_device_put(device, answers, late, sizeof(c.answers), beside));
        sample_get_rows(device, out, b.x, COUNT);
        for (size_t at = 0; at < COUNT; at++)
            assert_true(out[at] == combined_by_definition(&c, false, at));
        sample_get(device, left, answers, sizeof(left));
        for (size_t at = 0; at < ANSWERS; at++)
            assert_int_equal(left[at], UINT32_MAX);
        tsr_device_stream_close(device, beside);
        tsr_device_host_free(device, late);
        sample_close(device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_meets_its_definition),
        cmocka_unit_test(norm_takes_the_rows_it_is_told),
        cmocka_unit_test(add_adds),
        cmocka_unit_test(embed_copies_the_rows_of_the_ids),
        cmocka_unit_test(rotary_meets_its_definition),
        cmocka_unit_test(packed_rows_hold_activations_ids_and_zeros),
        cmocka_unit_test(combine_sums_in_slot_order_then_shared_then_x),
        cmocka_unit_test(combine_takes_answers_as_they_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
