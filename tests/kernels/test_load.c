/*
 * Memory of a device, and what is refused when a linear is loaded.
 */
#include "tests/kernels/samples.h"

#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static tsr_status load(const tsr_linear_source *source)
{
    tsr_device *device = sample_device(0, &sample_shape);
    const uint64_t bytes =
        tsr_device_linear_bytes(device, source->format, source->out, source->in,
                                source->bias != NULL, source->pre_quant_scale != NULL);
    tsr_linear linear = {0};

    const tsr_status st =
        tsr_device_load_linear(device, source, sample_room(device, (size_t)bytes), &linear);
    sample_close(device);
    return st;
}

static void memory_is_zero_and_aligned_also_when_it_was_used_before(void **state)
{
    static const size_t bytes[] = {0, 1, 64, 65, 1000, 100000, (size_t)1 << 21};
    tsr_device *device = sample_device(0, &sample_shape);
    void *none = NULL;

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(bytes) / sizeof(bytes[0]); i++) {
        const size_t size = bytes[i / 2];
        unsigned char *seen = sample_memory(size);
        void *memory[2] = {NULL, NULL};
        for (int k = 0; k < 2; k++) {
            ASSERT_STATUS(TSR_OK, tsr_device_alloc(device, size, &memory[k]));
            assert_int_equal((uintptr_t)memory[k] % 64, 0);
            memset(seen, 0xff, size);
            sample_get(device, seen, memory[k], size);
            for (size_t b = 0; b < size; b++)
                assert_int_equal(seen[b], 0);
            memset(seen, 0xa5, size);
            sample_write(device, memory[k], seen, size);
        }
        tsr_device_free(device, memory[0]);
        tsr_device_free(device, memory[1]);
        free(seen);
    }
    ASSERT_STATUS(TSR_ERR_MEMORY, tsr_device_alloc(device, SIZE_MAX, &none));
    ASSERT_STATUS(TSR_ERR_MEMORY, tsr_device_alloc(device, SIZE_MAX - 64, &none));
    assert_null(none);
    tsr_device_free(device, NULL);
    sample_close(device);
}

static void a_linear_takes_the_bytes_the_plan_counts(void **state)
{
    (void)state;
    assert_int_equal(tsr_cpu_linear_bytes(TSR_WEIGHT_BF16, 768, 2048, false, false),
                     768 * 2048 * 2);
    assert_int_equal(tsr_cpu_linear_bytes(TSR_WEIGHT_FP8, 768, 2048, true, false),
                     768 * 2048 + 768 * 4);
    assert_int_equal(tsr_cpu_linear_bytes(TSR_WEIGHT_FP8_CHANNEL, 5, 16, false, true),
                     128 + 64 + 64);
    assert_int_equal(tsr_cpu_linear_bytes(TSR_WEIGHT_FP8_BLOCK, 130, 144, false, false),
                     18752 + 64);
    /* 4.5 bits per weight and 64 bytes of slack */
    assert_int_equal(tsr_cpu_linear_bytes(TSR_WEIGHT_NVFP4, 768, 2048, false, false),
                     768 * 2048 * 9 / 16 + 64);
}

static void a_nan_weight_is_refused(void **state)
{
    sample_random r = {1};

    (void)state;
    for (int f = TSR_WEIGHT_F32; f <= TSR_WEIGHT_FP8_BLOCK; f++) {
        const sample_kind kind = {(tsr_weight_format)f, TSR_ACTIVATION_NONE, false, false};
        const size_t bytes = f == TSR_WEIGHT_F32 ? 4 : f < TSR_WEIGHT_FP8 ? 2 : 1;
        sample_linear *l = sample_linear_new(&r, kind, 3, 32);
        ASSERT_STATUS(TSR_OK, load(&l->source));
        memset((uint8_t *)l->weight + (3 * 32 - 1) * bytes, 0xff, bytes);
        ASSERT_STATUS(TSR_ERR_CHECKPOINT, load(&l->source));
        sample_linear_free(l);
    }
}

static void a_nan_or_infinite_scale_is_refused(void **state)
{
    sample_random r = {2};

    (void)state;
    for (int f = TSR_WEIGHT_FP8_CHANNEL; f <= TSR_WEIGHT_NVFP4; f++) {
        const sample_kind kind = {(tsr_weight_format)f, TSR_ACTIVATION_NONE, false, false};
        sample_linear *l = sample_linear_new(&r, kind, 3, 32);
        ASSERT_STATUS(TSR_OK, load(&l->source));
        if (f == TSR_WEIGHT_NVFP4)
            ((uint8_t *)l->scales)[5] = 0x7f;
        else
            ((float *)l->scales)[0] = f == TSR_WEIGHT_FP8_BLOCK ? INFINITY : NAN;
        ASSERT_STATUS(TSR_ERR_CHECKPOINT, load(&l->source));
        sample_linear_free(l);
    }
}

static void a_nonfinite_global_scale_is_refused(void **state)
{
    sample_random r = {3};
    const sample_kind kind = {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, true};
    sample_linear *l = sample_linear_new(&r, kind, 3, 32);

    (void)state;
    l->source.weight_scale = NAN;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, load(&l->source));
    l->source.weight_scale = 1.0F;
    l->source.input_scale = INFINITY;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, load(&l->source));
    l->source.input_scale = 1.0F;
    l->pre_quant_scale[31] = NAN;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, load(&l->source));
    sample_linear_free(l);
}

/* However many rows come at once, and whatever lay there before. */
static void rows_in_pieces_are_the_rows_at_once(void **state)
{
    static const int32_t at_once[] = {1, 3, 64, 129};
    sample_random r = {5};
    tsr_device *device = sample_device(0, &sample_shape);

    (void)state;
    for (int f = 0; f <= TSR_WEIGHT_FORMAT_COUNT; f++) {
        /* NVFP4 is kept in its own way where rows are FP4 too. */
        const sample_kind kind =
            f < TSR_WEIGHT_FORMAT_COUNT
                ? (sample_kind){(tsr_weight_format)f, TSR_ACTIVATION_NONE, true, true}
                : (sample_kind){TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, true, true};
        sample_linear *l = sample_linear_new(&r, kind, 261, 144);
        const size_t bytes =
            (size_t)tsr_device_linear_bytes(device, kind.format, 261, 144, true, true);
        unsigned char *whole = sample_memory(bytes);
        unsigned char *pieces = sample_memory(bytes);
        void *memory = sample_room(device, bytes);
        tsr_linear unused;
        ASSERT_STATUS(TSR_OK, tsr_device_load_linear(device, &l->source, memory, &unused));
        sample_get(device, whole, memory, bytes);
        for (int i = 0; i < 4; i++) {
            memset(pieces, 0, bytes);
            sample_write(device, memory, pieces, bytes);
            ASSERT_STATUS(
                TSR_OK, tsr_device_load_linear_by(device, &l->source, memory, at_once[i], &unused));
            sample_get(device, pieces, memory, bytes);
            assert_memory_equal(whole, pieces, bytes);
        }
        free(whole);
        free(pieces);
        sample_linear_free(l);
    }
    sample_close(device);
}

static void rows_that_are_not_there_are_refused(void **state)
{
    sample_random r = {6};
    const sample_kind kind = {TSR_WEIGHT_FP8, TSR_ACTIVATION_NONE, false, false};
    sample_linear *l = sample_linear_new(&r, kind, 5, 32);
    tsr_device *device = sample_device(0, &sample_shape);
    const tsr_linear_rows cases[] = {
        {TSR_LINEAR_WEIGHT, -1, 1, l->weight},         {TSR_LINEAR_WEIGHT, 0, 6, l->weight},
        {TSR_LINEAR_WEIGHT, 5, 1, l->weight},          {TSR_LINEAR_WEIGHT, 1, INT32_MAX, l->weight},
        {TSR_LINEAR_WEIGHT, 0, 0, l->weight},          {TSR_LINEAR_WEIGHT, 0, 1, NULL},
        {TSR_LINEAR_SCALES, 0, 1, l->scales},          {TSR_LINEAR_BIAS, 0, 1, l->scales},
        {TSR_LINEAR_PRE_QUANT_SCALE, 0, 1, l->scales}, {TSR_LINEAR_PARTS, 0, 1, l->weight},
    };
    void *memory = sample_room(
        device, (size_t)tsr_device_linear_bytes(device, kind.format, 5, 32, false, false));
    tsr_linear linear;

    (void)state;
    ASSERT_STATUS(TSR_OK, tsr_device_load_linear(device, &l->source, memory, &linear));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ASSERT_STATUS(TSR_ERR_ARG,
                      tsr_device_load_rows(device, &linear, memory, &cases[i], (tsr_stream){0}));
    sample_close(device);
    sample_linear_free(l);
}

static void odd_widths_and_missing_parts_are_refused(void **state)
{
    sample_random r = {4};
    const sample_kind kind = {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NONE, false, false};
    sample_linear *l = sample_linear_new(&r, kind, 3, 32);

    (void)state;
    l->source.in = 24;
    ASSERT_STATUS(TSR_ERR_ARG, load(&l->source));
    l->source.in = 32;
    l->source.scales = NULL;
    ASSERT_STATUS(TSR_ERR_ARG, load(&l->source));
    sample_linear_free(l);
}

static void a_device_knows_its_name_and_refuses_no_threads(void **state)
{
    tsr_device *device = NULL;

    (void)state;
    ASSERT_STATUS(TSR_ERR_ARG, tsr_device_open_cpu(0, TSR_CPU_AUTO, &device));
    ASSERT_STATUS(TSR_OK, tsr_device_open_cpu(2, TSR_CPU_PLAIN, &device));
    assert_string_equal("cpu plain, 2 threads", tsr_device_name(device));
    assert_int_equal(4, tsr_device_activation_bytes(device));
    ASSERT_STATUS(TSR_OK, tsr_device_reserve(device, &sample_shape));
    ASSERT_STATUS(TSR_ERR_ARG, tsr_device_reserve(device, &sample_shape));
    tsr_device_close(device);
    tsr_device_close(NULL);
}

static void a_device_says_how_fast_its_memory_reads(void **state)
{
    (void)state;
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &sample_shape);
        double bytes_per_s = 0;
        if (device == NULL)
            continue;
        ASSERT_STATUS(TSR_OK, tsr_device_read_bandwidth(device, (uint64_t)8 << 20, &bytes_per_s));
        assert_true(bytes_per_s > 1e6 && bytes_per_s < 1e14);
        sample_close(device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zero_and_aligned_also_when_it_was_used_before),
        cmocka_unit_test(a_linear_takes_the_bytes_the_plan_counts),
        cmocka_unit_test(a_nan_weight_is_refused),
        cmocka_unit_test(a_nan_or_infinite_scale_is_refused),
        cmocka_unit_test(a_nonfinite_global_scale_is_refused),
        cmocka_unit_test(rows_in_pieces_are_the_rows_at_once),
        cmocka_unit_test(rows_that_are_not_there_are_refused),
        cmocka_unit_test(odd_widths_and_missing_parts_are_refused),
        cmocka_unit_test(a_device_says_how_fast_its_memory_reads),
        cmocka_unit_test(a_device_knows_its_name_and_refuses_no_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
