/*
 * A head of so many ids that a GPU has a kernel of its own for it and few rows: against the norm and the
 * head of more rows, bit by bit.
 */
#include "tests/kernels/samples.h"
#include "tests/log_lines.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};
static const float eps = 1e-6F;
static log_lines lines;

enum { V = 17001, H = 576, T = 9, PICKED = 6 };

static const tsr_work_shape wide_shape = {
    .max_tokens = T,
    .max_in = H,
    .max_logit_rows = T,
    .max_experts = 1,
    .vocab = V,
    .hidden = H,
};

/* The first rows' logits, each row of x normed, by a block or with all rows of x at once. */
static void run_wide(tsr_device *device, const tsr_predict_block *b, bool by_block, float *ret)
{
    const tsr_norm_args norm = {.out = sample_row_room(device, (size_t)T * H),
                                .x = b->x,
                                .weight = b->norm,
                                .tokens = T,
                                .hidden = H,
                                .eps = eps};
    const tsr_head_args head = {.logits = b->logits, .x = norm.out, .head = b->head, .rows = T};

    if (by_block) {
        ASSERT_STATUS(TSR_OK, tsr_block_predict(device, b, stream));
    } else {
        ASSERT_STATUS(TSR_OK, device->ops->norm(device, &norm, stream));
        ASSERT_STATUS(TSR_OK, device->ops->head(device, &head, stream));
    }
    sample_get(device, ret, b->logits, sizeof(float) * V * T);
}

static void check_wide(tsr_device *device, const sample_linear *l, const float *x,
                       const float *weight)
{
    static const int32_t picked[PICKED] = {8, 0, 3, 8, 5, T};
    static float whole[T * V];
    static float few[T * V];
    const tsr_linear head = sample_load(device, l);
    tsr_predict_block b = {
        .logits = sample_room(device, sizeof(whole)),
        .x = sample_rows(device, x, (size_t)T * H),
        .x_row = sample_put(device, picked, sizeof(picked)),
        .norm = sample_put(device, weight, sizeof(float) * H),
        .head = &head,
        .eps = eps,
    };

    run_wide(device, &b, false, whole);
    for (b.rows = 1; b.rows < PICKED; b.rows += b.rows) {
        run_wide(device, &b, true, few);
        for (int32_t i = 0; i < b.rows; i++)
            assert_memory_equal(few + (size_t)i * V, whole + (size_t)picked[i] * V,
                                sizeof(float) * V);
    }
    b.rows = PICKED;
    ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
    run_wide(device, &b, true, few);
    ASSERT_STATUS(TSR_ERR_ARG, tsr_device_fault(device));
    assert_int_equal(
        1, log_lines_count(&lines, "predict: logits 5 are those of row 9, reserved were 9"));
    log_lines_clear(&lines);
}

static void a_wide_head_has_the_bits_of_its_parts(void **state)
{
    static const sample_kind kinds[] = {
        {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false},
        {TSR_WEIGHT_FP8_CHANNEL, TSR_ACTIVATION_FP8_TOKEN, true, true},
        {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NONE, false, true},
    };
    sample_random r = {6};
    float *x = sample_memory(sizeof(float) * T * H);
    float norm[H];

    (void)state;
    sample_floats(&r, x, (size_t)T * H, 2.0F);
    sample_floats(&r, norm, H, 0.7F);
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        sample_linear *head = sample_linear_new(&r, kinds[k], V, H);
        /* A CPU computes the block by its parts, whatever its instructions: one, and the GPU. */
        for (int n = 0; n < 2; n++) {
            tsr_device *device =
                sample_device(n == 0 ? sample_best_cpu() : SAMPLE_DEVICES - 1, &wide_shape);
            if (device == NULL)
                continue;
            check_wide(device, head, x, norm);
            sample_close(device);
        }
        sample_linear_free(head);
    }
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wide_head_has_the_bits_of_its_parts),
    };

    tsr_log_set_sink(log_lines_catch, &lines);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
