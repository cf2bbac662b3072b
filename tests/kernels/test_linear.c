/*
 * Linears of every format and activation, against their definition in double; batches, chunks and
 * neighbours change no bit.
 */
#include "tests/kernels/samples.h"

#include "runtime/base/numeric.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

/*
 * Against the definition in double. Each of in/16 + 4 additions, the decoding and the epilogue (4
 * roundings) err by at most 2^-24 of the sum of magnitudes.
 */
static void assert_value(const sample_linear *l, const double *row, int32_t o, float y)
{
    const double bound = ((double)l->source.in / 16 + 10) * 0x1p-24;
    double magnitude = 0.0;
    const double expected = sample_dot(l, row, o, &magnitude);

    if (!(fabs((double)y - expected) <= bound * magnitude)) {
        fail_msg("format %s, activation %s, row %d: %.9g, not %.9g",
                 tsr_weight_format_name(l->source.format),
                 tsr_activation_name(l->source.activation), (int)o, (double)y, expected);
    }
}

static void assert_linear(const sample_linear *l, const float *x, const float *y, int32_t tokens)
{
    const size_t in = (size_t)l->source.in;
    double *row = sample_memory(in * sizeof(*row));

    for (int32_t t = 0; t < tokens; t++) {
        sample_quantized(l, x + (size_t)t * in, row);
        for (int32_t o = 0; o < l->source.out; o++)
            assert_value(l, row, o, y[(size_t)t * (size_t)l->source.out + (size_t)o]);
    }
    free(row);
}

static void run_linear(tsr_device *device, const sample_linear *l, const float *x, float *y,
                       int32_t tokens)
{
    const size_t answers = (size_t)l->source.out * (size_t)tokens;
    const tsr_linear linear = sample_load(device, l);
    const tsr_linears_args a = {
        .out = {sample_row_room(device, answers)},
        .linear = {&linear},
        .x = sample_rows(device, x, (size_t)l->source.in * (size_t)tokens),
        .count = 1,
        .tokens = tokens,
    };

    if (tokens > 0)
        ASSERT_STATUS(TSR_OK, device->ops->linears(device, &a, stream));
    sample_get_rows(device, y, a.out[0], answers);
}

/* Every device: right by definition on the first, the same bits on the others. */
static void check_kind(sample_random *r, sample_kind kind, int32_t out, int32_t in, int32_t tokens)
{
    sample_linear *l = sample_linear_new(r, kind, out, in);
    const size_t answers = (size_t)out * (size_t)tokens;
    float *x = sample_memory((size_t)in * (size_t)tokens * sizeof(float));
    float *y = sample_memory(answers * sizeof(float));
    float *other = sample_memory(answers * sizeof(float));

    sample_floats(r, x, (size_t)in * (size_t)tokens, 1.5F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (device == NULL)
            continue;
        run_linear(device, l, x, i == 0 ? y : other, tokens);
        if (i == 0)
            assert_linear(l, x, y, tokens);
        else
            sample_assert_like(i, y, other, answers);
        sample_close(device);
    }
    free(x);
    free(y);
    free(other);
    sample_linear_free(l);
}

static void every_format_and_activation_meets_its_definition(void **state)
{
    sample_random r = {1};

    (void)state;
    for (int f = 0; f < TSR_WEIGHT_FORMAT_COUNT; f++) {
        for (int a = 0; a < TSR_ACTIVATION_COUNT; a++) {
            const sample_kind kind = {(tsr_weight_format)f, (tsr_activation)a, a % 2 == 1,
                                      (a + f) % 2 == 1};
            check_kind(&r, kind, 21, 160, 3);
        }
    }
}

static void every_shape_gives_the_same_bits_on_every_device(void **state)
{
    static const struct {
        int32_t out, in, tokens;
    } shapes[] = {{1, 16, 1},   {3, 32, 2},   {4, 48, 6},   {129, 16, 1}, {130, 144, 5},
                  {17, 256, 9}, {5, 512, 13}, {8, 112, 31}, {7, 128, 0}};
    sample_random r = {2};

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        for (int f = 0; f < TSR_WEIGHT_FORMAT_COUNT; f++) {
            const sample_kind kind = {(tsr_weight_format)f, TSR_ACTIVATION_NONE, true, false};
            check_kind(&r, kind, shapes[i].out, shapes[i].in, shapes[i].tokens);
        }
    }
}

/* All codes of a format through a linear that copies: x picks one input at a time. */
static void check_codes(tsr_weight_format format, int codes)
{
    enum { IN = 256 };
    sample_random r = {3};
    const sample_kind kind = {format, TSR_ACTIVATION_NONE, false, false};
    sample_linear *l = sample_linear_new(&r, kind, 1, IN);
    float x[IN];
    float y = 0.0F;

    for (int c = 0; c < codes; c++) {
        if (format == TSR_WEIGHT_NVFP4)
            ((uint8_t *)l->weight)[c / 2] = (uint8_t)(c / 2 * 2 | (c / 2 * 2 + 1) << 4);
        else
            ((uint8_t *)l->weight)[c] = (uint8_t)((c & 0x7f) == 0x7f ? 0 : c);
    }
    memset(l->scales, 0x38, IN / 16); /* 1.0 in E4M3 */
    l->source.weight_scale = 1.0F;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        for (int c = 0; device != NULL && c < codes; c++) {
            const float expected = format == TSR_WEIGHT_NVFP4 ? tsr_e2m1_to_f32((uint8_t)c)
                                   : (c & 0x7f) == 0x7f       ? 0.0F
                                                              : tsr_e4m3_to_f32((uint8_t)c);
            memset(x, 0, sizeof(x));
            x[c] = 1.0F;
            run_linear(device, l, x, &y, 1);
            assert_true(y == expected);
        }
        sample_close(device);
    }
    sample_linear_free(l);
}

static void every_e4m3_and_e2m1_code_decodes(void **state)
{
    (void)state;
    check_codes(TSR_WEIGHT_FP8, 256);
    check_codes(TSR_WEIGHT_NVFP4, 16);
}

static void every_e4m3_block_scale_decodes(void **state)
{
    enum { IN = 16 };
    sample_random r = {4};
    const sample_kind kind = {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NONE, false, false};
    sample_linear *l = sample_linear_new(&r, kind, 256, IN);
    float x[IN] = {1.0F};
    float y[256];

    (void)state;
    memset(l->weight, 0x22, (size_t)256 * IN / 2); /* every weight 1.0 */
    for (int c = 0; c < 256; c++)
        ((uint8_t *)l->scales)[c] = (uint8_t)((c & 0x7f) == 0x7f ? 0 : c);
    l->source.weight_scale = 1.0F;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (device == NULL)
            continue;
        run_linear(device, l, x, y, 1);
        for (int c = 0; c < 256; c++)
            assert_true((c & 0x7f) == 0x7f || y[c] == tsr_e4m3_to_f32((uint8_t)c));
        sample_close(device);
    }
    sample_linear_free(l);
}

/* Dots in integers. */
static const sample_kind fp4_by_fp4 = {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, true, true};

static void fp4_by_fp4_meets_its_definition_in_every_shape(void **state)
{
    static const struct {
        int32_t out, in, tokens;
    } shapes[] = {{16, 16, 1}, {1, 32, 2}, {33, 144, 23}, {64, 256, 9}, {15, 128, 40}};
    sample_random r = {14};

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        check_kind(&r, fp4_by_fp4, shapes[i].out, shapes[i].in, shapes[i].tokens);
}

/* NaN is no integer, but no answer may look as if it had been a number. */
static void a_nan_in_a_row_of_fp4_reaches_every_answer(void **state)
{
    enum { OUT = 17, IN = 48 };
    sample_random r = {15};
    sample_linear *l = sample_linear_new(&r, fp4_by_fp4, OUT, IN);
    float x[IN];
    float y[OUT];

    (void)state;
    sample_floats(&r, x, IN, 1.0F);
    x[21] = NAN;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (device == NULL)
            continue;
        run_linear(device, l, x, y, 1);
        for (int o = 0; o < OUT; o++)
            assert_true(isnan(y[o]));
        sample_close(device);
    }
    sample_linear_free(l);
}

static void a_row_alone_has_the_bits_it_has_in_a_batch(void **state)
{
    enum { OUT = 33, IN = 144, TOKENS = 23 };
    sample_random r = {5};
    float x[TOKENS * IN];
    float batch[TOKENS * OUT];
    float alone[OUT];

    (void)state;
    sample_floats(&r, x, (size_t)TOKENS * IN, 1.0F);
    for (int f = 0; f <= TSR_WEIGHT_FORMAT_COUNT; f++) {
        const sample_kind kind = {(tsr_weight_format)f, (tsr_activation)(f % TSR_ACTIVATION_COUNT),
                                  true, true};
        const bool last = f == TSR_WEIGHT_FORMAT_COUNT;
        sample_linear *l = sample_linear_new(&r, last ? fp4_by_fp4 : kind, OUT, IN);
        for (int i = 0; i < SAMPLE_DEVICES; i++) {
            tsr_device *device = sample_device(i, &sample_shape);
            if (device == NULL)
                continue;
            run_linear(device, l, x, batch, TOKENS);
            for (size_t t = 0; t < TOKENS; t++) {
                run_linear(device, l, x + t * IN, alone, 1);
                assert_memory_equal(alone, batch + t * OUT, sizeof(alone));
            }
            sample_close(device);
        }
        sample_linear_free(l);
    }
}

/* So many that a GPU has them by other kernels than one, of widths that are cut into slices. */
static void check_batch(tsr_device *device, sample_random *r, sample_kind kind, int32_t in,
                        int32_t tokens)
{
    enum { OUT = 72 };
    sample_linear *l = sample_linear_new(r, kind, OUT, in);
    float *x = sample_memory((size_t)in * (size_t)tokens * sizeof(float));
    float *batch = sample_memory((size_t)OUT * (size_t)tokens * sizeof(float));
    float alone[OUT];

    sample_floats(r, x, (size_t)in * (size_t)tokens, 1.0F);
    run_linear(device, l, x, batch, tokens);
    for (int32_t t = 0; t < tokens; t += tokens / 3) {
        run_linear(device, l, x + (size_t)t * (size_t)in, alone, 1);
        assert_memory_equal(alone, batch + (size_t)t * OUT, sizeof(alone));
    }
    free(x);
    free(batch);
    sample_linear_free(l);
}

static void a_row_has_its_bits_among_dozens_and_hundreds(void **state)
{
    static const struct {
        int32_t in, tokens;
    } shapes[] = {{1104, 33}, {720, 64},  {528, 100}, {528, 128},  {1104, 129},
                  {4704, 37}, {528, 256}, {8192, 34}, {12288, 65}, {64, 513}};
    enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };
    sample_random r = {12};

    (void)state;
    for (int i = 0; i < SHAPES * SAMPLE_DEVICES; i++) {
        const int s = i / SAMPLE_DEVICES;
        const tsr_work_shape room = {.max_tokens = shapes[s].tokens,
                                     .max_in = shapes[s].in,
                                     .max_logit_rows = 1,
                                     .max_experts = 1};
        tsr_device *device = sample_sized_device(i % SAMPLE_DEVICES, &room);
        for (int f = 0; device != NULL && f < TSR_WEIGHT_FORMAT_COUNT; f++) {
            const sample_kind kind = {(tsr_weight_format)f,
                                      (tsr_activation)((f + s) % TSR_ACTIVATION_COUNT), s % 2 == 0,
                                      false};
            check_batch(device, &r, kind, shapes[s].in, shapes[s].tokens);
        }
        sample_close(device);
    }
}

static void rows_of_zeros_give_the_bias_and_no_nan(void **state)
{
    enum { OUT = 5, IN = 160 };
    sample_random r = {6};
    const float x[IN] = {0};
    float y[OUT];

    (void)state;
    for (int a = 0; a < TSR_ACTIVATION_COUNT; a++) {
        const sample_kind kind = {TSR_WEIGHT_FP8, (tsr_activation)a, true, false};
        sample_linear *l = sample_linear_new(&r, kind, OUT, IN);
        for (int i = 0; i < SAMPLE_DEVICES; i++) {
            tsr_device *device = sample_device(i, &sample_shape);
            if (device == NULL)
                continue;
            run_linear(device, l, x, y, 1);
            assert_memory_equal(y, l->bias, sizeof(y));
            sample_close(device);
        }
        sample_linear_free(l);
    }
}

/* q, k, v and a fourth: two share the quantized input, two do not. */
static void linears_together_have_the_bits_of_each_alone(void **state)
{
    enum { OUT = 18, IN = 128, TOKENS = 7, COUNT = 4 };
    static const sample_kind kinds[COUNT] = {
        {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, true, false},
        {TSR_WEIGHT_FP8_CHANNEL, TSR_ACTIVATION_FP8, false, false},
        {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, true},
        {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, true, false},
    };
    sample_random r = {7};
    float x[TOKENS * IN];
    float alone[TOKENS * OUT];
    float together[TOKENS * OUT];

    (void)state;
    sample_floats(&r, x, (size_t)TOKENS * IN, 1.0F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        sample_linear *l[COUNT];
        tsr_linear linear[COUNT];
        tsr_linears_args a = {.count = COUNT, .tokens = TOKENS};
        if (device == NULL)
            continue;
        a.x = sample_rows(device, x, (size_t)TOKENS * IN);
        for (int k = 0; k < COUNT; k++) {
            l[k] = sample_linear_new(&r, kinds[k], OUT, IN);
            linear[k] = sample_load(device, l[k]);
            a.linear[k] = &linear[k];
            a.out[k] = sample_row_room(device, (size_t)TOKENS * OUT);
        }
        ASSERT_STATUS(TSR_OK, device->ops->linears(device, &a, stream));
        for (int k = 0; k < COUNT; k++) {
            run_linear(device, l[k], x, alone, TOKENS);
            sample_get_rows(device, together, a.out[k], (size_t)TOKENS * OUT);
            assert_memory_equal(alone, together, sizeof(alone));
            sample_linear_free(l[k]);
        }
        sample_close(device);
    }
}

/* Blocks of 128 rows of several linears, of which a GPU takes two at a time: 3, 1 and 1 of them. */
static void linears_of_many_rows_have_the_bits_of_each_alone(void **state)
{
    enum { IN = 80, TOKENS = 300, COUNT = 3, MOST = 272 };
    static const int32_t outs[COUNT] = {MOST, 128, 16};
    static const sample_kind kind = {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, true, false};
    static const tsr_work_shape shape = {
        .max_tokens = TOKENS, .max_in = IN, .max_logit_rows = 1, .max_experts = 1};
    sample_random r = {13};
    float *x = sample_memory(sizeof(float) * TOKENS * IN);
    float *alone = sample_memory(sizeof(float) * MOST);
    float *together = sample_memory(sizeof(float) * TOKENS * MOST);

    (void)state;
    sample_floats(&r, x, (size_t)TOKENS * IN, 1.0F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &shape);
        sample_linear *l[COUNT];
        tsr_linear linear[COUNT];
        tsr_linears_args a = {.count = COUNT, .tokens = TOKENS};
        if (device == NULL)
            continue;
        a.x = sample_rows(device, x, (size_t)TOKENS * IN);
        for (int k = 0; k < COUNT; k++) {
            l[k] = sample_linear_new(&r, kind, outs[k], IN);
            linear[k] = sample_load(device, l[k]);
            a.linear[k] = &linear[k];
            a.out[k] = sample_row_room(device, (size_t)TOKENS * (size_t)outs[k]);
        }
        ASSERT_STATUS(TSR_OK, device->ops->linears(device, &a, stream));
        for (int k = 0; k < COUNT; k++) {
            const size_t out = (size_t)outs[k];
            sample_get_rows(device, together, a.out[k], TOKENS * out);
            for (size_t t = 0; t < TOKENS; t += TOKENS - 1) {
                run_linear(device, l[k], x + t * IN, alone, 1);
                assert_memory_equal(alone, together + t * out, out * sizeof(float));
            }
            sample_linear_free(l[k]);
        }
        sample_close(device);
    }
    free(x);
    free(alone);
    free(together);
}

/* How the second of two neighbours differs from the first beside its activation. */
typedef enum difference { ALIKE, OTHER_INPUT_SCALE, OTHER_FACTORS, DIFFERENCES } difference;

/* Two linears together against each alone. */
static void check_neighbours(sample_random *r, sample_kind first, sample_kind second, difference d)
{
    enum { OUT = 5, IN = 64, TOKENS = 2 };
    sample_linear *l[2] = {sample_linear_new(r, first, OUT, IN),
                           sample_linear_new(r, second, OUT, IN)};
    tsr_device *device = sample_device(0, &sample_shape);
    tsr_linear linear[2];
    float x[TOKENS * IN];
    float alone[TOKENS * OUT];
    float together[TOKENS * OUT];

    sample_floats(r, x, (size_t)TOKENS * IN, 1.0F);
    l[1]->source.input_scale = l[0]->source.input_scale * (d == OTHER_INPUT_SCALE ? 0.7F : 1.0F);
    if (first.pre_quant_scale && second.pre_quant_scale && d != OTHER_FACTORS)
        memcpy(l[1]->pre_quant_scale, l[0]->pre_quant_scale, IN * sizeof(float));
    tsr_linears_args a = {.linear = {&linear[0], &linear[1]}, .count = 2, .tokens = TOKENS};
    a.x = sample_rows(device, x, (size_t)TOKENS * IN);
    for (int k = 0; k < 2; k++) {
        linear[k] = sample_load(device, l[k]);
        a.out[k] = sample_row_room(device, (size_t)TOKENS * OUT);
    }
    ASSERT_STATUS(TSR_OK, device->ops->linears(device, &a, stream));
    for (int k = 0; k < 2; k++) {
        run_linear(device, l[k], x, alone, TOKENS);
        sample_get_rows(device, together, a.out[k], (size_t)TOKENS * OUT);
        assert_memory_equal(alone, together, sizeof(alone));
        sample_linear_free(l[k]);
    }
    sample_close(device);
}

static void neighbours_share_a_quantized_input_only_where_it_is_the_same(void **state)
{
    sample_random r = {10};

    (void)state;
    for (int n = 0; n < TSR_ACTIVATION_COUNT * TSR_ACTIVATION_COUNT; n++) {
        const tsr_activation a = (tsr_activation)(n / TSR_ACTIVATION_COUNT);
        const tsr_activation b = (tsr_activation)(n % TSR_ACTIVATION_COUNT);
        for (int k = 0; k < 4 * DIFFERENCES; k++) {
            const sample_kind first = {TSR_WEIGHT_FP8, a, false, k % 2 == 1};
            const sample_kind second = {TSR_WEIGHT_NVFP4, b, false, k / 2 % 2 == 1};
            check_neighbours(&r, first, second, (difference)(k / 4));
        }
    }
}

static void run_head(tsr_device *device, const sample_linear *l, const float *x, float *logits,
                     int32_t rows)
{
    const size_t bytes = (size_t)l->source.out * (size_t)rows * sizeof(float);
    const tsr_linear head = sample_load(device, l);
    const tsr_head_args a = {
        .logits = sample_room(device, bytes),
        .x = sample_rows(device, x, (size_t)l->source.in * (size_t)rows),
        .head = &head,
        .rows = rows,
    };

    ASSERT_STATUS(TSR_OK, device->ops->head(device, &a, stream));
    sample_get(device, logits, a.logits, bytes);
}

static void the_head_gives_the_logits_of_its_linear(void **state)
{
    enum { VOCAB = 50, H = 64, ROWS = 6 };
    const sample_kind kind = {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false};
    sample_random r = {8};
    sample_linear *l = sample_linear_new(&r, kind, VOCAB, H);
    float x[ROWS * H];
    float first[ROWS * VOCAB];
    float logits[ROWS * VOCAB];

    (void)state;
    sample_floats(&r, x, (size_t)ROWS * H, 1.0F);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        if (device == NULL)
            continue;
        run_head(device, l, x, i == 0 ? first : logits, ROWS);
        if (i == 0)
            assert_linear(l, x, first, ROWS);
        else
            sample_assert_like(i, first, logits, (size_t)ROWS * VOCAB);
        sample_close(device);
    }
    sample_linear_free(l);
}

/* More rows than one chunk of the workspace (512), against the last of them alone. */
static void rows_beyond_a_chunk_have_the_bits_of_each_alone(void **state)
{
    enum { OUT = 6, IN = 32, TOKENS = 521, LAST = 15 };
    static const tsr_work_shape shape = {
        .max_tokens = TOKENS, .max_in = IN, .max_logit_rows = TOKENS, .max_experts = 1};
    const sample_kind kind = {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8_TOKEN, true, true};
    sample_random r = {11};
    sample_linear *l = sample_linear_new(&r, kind, OUT, IN);
    tsr_device *device = sample_device(0, &shape);
    float *x = sample_memory(sizeof(float) * TOKENS * IN);
    float *all = sample_memory(sizeof(float) * TOKENS * OUT);
    float alone[LAST * OUT];

    (void)state;
    sample_floats(&r, x, (size_t)TOKENS * IN, 1.0F);
    run_linear(device, l, x + (size_t)(TOKENS - LAST) * IN, alone, LAST);
    run_linear(device, l, x, all, TOKENS);
    assert_memory_equal(all + (size_t)(TOKENS - LAST) * OUT, alone, sizeof(alone));

    memset(all, 0, sizeof(float) * TOKENS * OUT);
    run_head(device, l, x, all, TOKENS);
    assert_memory_equal(all + (size_t)(TOKENS - LAST) * OUT, alone, sizeof(alone));
    free(x);
    free(all);
    sample_close(device);
    sample_linear_free(l);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_and_activation_meets_its_definition),
        cmocka_unit_test(every_shape_gives_the_same_bits_on_every_device),
        cmocka_unit_test(every_e4m3_and_e2m1_code_decodes),
        cmocka_unit_test(every_e4m3_block_scale_decodes),
        cmocka_unit_test(fp4_by_fp4_meets_its_definition_in_every_shape),
        cmocka_unit_test(a_nan_in_a_row_of_fp4_reaches_every_answer),
        cmocka_unit_test(a_row_alone_has_the_bits_it_has_in_a_batch),
        cmocka_unit_test(a_row_has_its_bits_among_dozens_and_hundreds),
        cmocka_unit_test(rows_of_zeros_give_the_bias_and_no_nan),
        cmocka_unit_test(linears_together_have_the_bits_of_each_alone),
        cmocka_unit_test(linears_of_many_rows_have_the_bits_of_each_alone),
        cmocka_unit_test(neighbours_share_a_quantized_input_only_where_it_is_the_same),
        cmocka_unit_test(the_head_gives_the_logits_of_its_linear),
        cmocka_unit_test(rows_beyond_a_chunk_have_the_bits_of_each_alone),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
