#include "tests/kernels/samples.h"

#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

enum { H = 48, I = 64 };

/* An MLP of three formats, before and after loading. */
typedef struct sample_mlp {
    sample_linear *gate;
    sample_linear *up;
    sample_linear *down;
} sample_mlp;

typedef struct loaded_mlp {
    tsr_mlp mlp;
    void *memory[3];
} loaded_mlp;

static const sample_kind kinds[][3] = {
    {{TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false},
     {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false},
     {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false}},
    {{TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, false},
     {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, false},
     {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NVFP4, false, true}},
    {{TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, false},
     {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, false},
     {TSR_WEIGHT_FP8_BLOCK, TSR_ACTIVATION_FP8_GROUP, false, false}},
    {{TSR_WEIGHT_FP8_CHANNEL, TSR_ACTIVATION_FP8_TOKEN, false, false},
     {TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NONE, false, true},
     {TSR_WEIGHT_FP8_CHANNEL, TSR_ACTIVATION_FP8_TOKEN, false, false}},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static sample_mlp new_mlp(sample_random *r, int kind)
{
    const sample_mlp m = {
        .gate = sample_linear_new(r, kinds[kind][0], I, H),
        .up = sample_linear_new(r, kinds[kind][1], I, H),
        .down = sample_linear_new(r, kinds[kind][2], H, I),
    };
    return m;
}

static void free_mlp(sample_mlp *m)
{
    sample_linear_free(m->gate);
    sample_linear_free(m->up);
    sample_linear_free(m->down);
}

static void load_mlp(tsr_device *device, const sample_mlp *m, loaded_mlp *ret)
{
    ret->mlp.gate = sample_load(device, m->gate, &ret->memory[0]);
    ret->mlp.up = sample_load(device, m->up, &ret->memory[1]);
    ret->mlp.down = sample_load(device, m->down, &ret->memory[2]);
}

static void unload_mlp(tsr_device *device, loaded_mlp *m)
{
    for (int i = 0; i < 3; i++)
        tsr_device_free(device, m->memory[i]);
}

/*
 * One row in double, with the bound that follows from the linears' own, (in/16 + 10) 2^-24 of the
 * sum of magnitudes: silu is steeper than 1.1 nowhere, and costs 8 roundings. No value here lies so
 * near a rounding boundary that the next code would be as right.
 */
static void assert_mlp(const sample_mlp *m, const float *x, const float *y)
{
    const double bound_in = (H / 16.0 + 10.0) * 0x1p-24;
    const double bound_down = (I / 16.0 + 10.0) * 0x1p-24;
    double row[H];
    double up_row[H];
    double error[I];
    float h[I];
    double quantized[I];

    sample_quantized(m->gate, x, row);
    sample_quantized(m->up, x, up_row);
    for (int32_t i = 0; i < I; i++) {
        double gate_size = 0.0;
        double up_size = 0.0;
        const double g = sample_dot(m->gate, row, i, &gate_size);
        const double u = sample_dot(m->up, up_row, i, &up_size);
        const double s = g / (1.0 + exp(-g));
        h[i] = (float)(s * u);
        error[i] = 1.1 * bound_in * gate_size * fabs(u) + bound_in * up_size * fabs(s) +
                   8.0 * 0x1p-24 * fabs(s * u);
        if (m->down->pre_quant_scale)
            error[i] *= fabs((double)m->down->pre_quant_scale[i]);
    }
    sample_quantized(m->down, h, quantized);
    for (int32_t o = 0; o < H; o++) {
        double size = 0.0;
        double tolerance = 0.0;
        const double expected = sample_dot(m->down, quantized, o, &size);
        for (size_t i = 0; i < I; i++)
            tolerance += fabs(m->down->value[(size_t)o * I + i]) * error[i];
        tolerance += bound_down * size;
        /* A dynamic scale of the row, or group, carries the error of its largest value. */
        tolerance += m->down->source.activation == TSR_ACTIVATION_NONE ? 0.0 : 1e-6 * size;
        if (!(fabs((double)y[o] - expected) <= tolerance))
            fail_msg("row %d: %.9g, not %.9g +- %.2g", (int)o, (double)y[o], expected, tolerance);
    }
}

static void the_mlp_meets_its_definition_with_the_same_bits_everywhere(void **state)
{
    enum { TOKENS = 11 };
    sample_random r = {11};
    float x[TOKENS * H];
    float first[TOKENS * H];
    float y[TOKENS * H];

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        sample_mlp m = new_mlp(&r, kind);
        sample_floats(&r, x, (size_t)TOKENS * H, 1.5F);
        for (int i = 0; i < SAMPLE_DEVICES; i++) {
            tsr_device *device = sample_device(i, &sample_shape);
            loaded_mlp loaded;
            if (!device)
                continue;
            load_mlp(device, &m, &loaded);
            const tsr_mlp_args a = {i == 0 ? first : y, x, &loaded.mlp, TOKENS};
            ASSERT_STATUS(TSR_OK, tsr_op_mlp(device, &a, stream));
            if (i > 0)
                assert_memory_equal(first, y, sizeof(y));
            unload_mlp(device, &loaded);
            tsr_device_close(device);
        }
        for (size_t t = 0; t < TOKENS; t++)
            assert_mlp(&m, x + t * H, first + t * H);
        free_mlp(&m);
    }
}

/* Some 600 answers: more than one chunk of the workspace (512), so an expert lies across. */
enum { E = 6, LOCAL = 4, K = 3, ROWS = 300 };

typedef struct expert_input {
    unsigned char *rows;
    int32_t answer_of[ROWS * K];
    int32_t local_of[E];
    int32_t count;
    size_t row_bytes;
} expert_input;

/* Rows whose ids are here or elsewhere; answers in reverse order. */
static void fill_input(sample_random *r, expert_input *in)
{
    static const int32_t local_of[E] = {2, -1, 0, 3, -1, 1};
    int32_t answers = 0;

    memcpy(in->local_of, local_of, sizeof(local_of));
    in->count = ROWS;
    in->row_bytes = tsr_packed_row_bytes(4, H, K);
    in->rows = sample_memory(ROWS * in->row_bytes);
    for (size_t i = 0; i < ROWS; i++) {
        float *x = (float *)(void *)(in->rows + i * in->row_bytes);
        int32_t *id = (int32_t *)(void *)(x + H);
        sample_floats(r, x, H, 1.0F);
        for (size_t k = 0; k < K; k++) {
            id[k] = (int32_t)(sample_u32(r) % E);
            in->answer_of[i * K + k] = local_of[id[k]] < 0 ? -1 : ROWS * K - 1 - answers++;
        }
    }
}

static tsr_status run_experts(tsr_device *device, const expert_input *in, const tsr_mlp *mlps,
                              float *answers)
{
    tsr_expert_mlp_args a = {
        .rows = in->rows,
        .row_count = &in->count,
        .answer_of = in->answer_of,
        .mlps = mlps,
        .local_of = in->local_of,
        .row_bytes = in->row_bytes,
        .hidden = H,
        .top_k = K,
        .local_experts = LOCAL,
        .experts = E,
    };

    a.answers = answers;
    return tsr_op_expert_mlp(device, &a, stream);
}

/* Each answer has the bits of the expert's MLP over that row alone. */
static void check_answers(tsr_device *device, const expert_input *in, const tsr_mlp *mlps,
                          const float *answers)
{
    for (size_t i = 0; i < ROWS; i++) {
        const float *x = (const float *)(const void *)(in->rows + i * in->row_bytes);
        const int32_t *id = (const int32_t *)(const void *)(x + H);
        for (size_t k = 0; k < K; k++) {
            const int32_t answer = in->answer_of[i * K + k];
            float alone[H];
            if (answer < 0)
                continue;
            const tsr_mlp_args a = {alone, x, &mlps[in->local_of[id[k]]], 1};
            ASSERT_STATUS(TSR_OK, tsr_op_mlp(device, &a, stream));
            assert_memory_equal(alone, answers + (size_t)answer * H, sizeof(alone));
        }
    }
}

static void each_answer_is_its_experts_mlp_of_its_row(void **state)
{
    tsr_work_shape shape = sample_shape;
    sample_random r = {2};
    sample_mlp experts[LOCAL];
    expert_input in;

    (void)state;
    shape.max_rows = ROWS;
    shape.max_answers = ROWS * K;
    fill_input(&r, &in);
    for (int e = 0; e < LOCAL; e++)
        experts[e] = new_mlp(&r, e % KINDS);
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        tsr_device *device = sample_device(i, &shape);
        loaded_mlp loaded[LOCAL];
        tsr_mlp mlps[LOCAL];
        float *answers = sample_memory((size_t)ROWS * K * H * sizeof(float));
        for (int e = 0; device && e < LOCAL; e++) {
            load_mlp(device, &experts[e], &loaded[e]);
            mlps[e] = loaded[e].mlp;
        }
        if (device) {
            ASSERT_STATUS(TSR_OK, run_experts(device, &in, mlps, answers));
            check_answers(device, &in, mlps, answers);
        }
        for (int e = 0; device && e < LOCAL; e++)
            unload_mlp(device, &loaded[e]);
        free(answers);
        tsr_device_close(device);
    }
    for (int e = 0; e < LOCAL; e++)
        free_mlp(&experts[e]);
    free(in.rows);
}

static void no_rows_ask_for_nothing(void **state)
{
    tsr_device *device = sample_device(0, &sample_shape);
    expert_input in = {.row_bytes = tsr_packed_row_bytes(4, H, K)};
    sample_random r = {3};
    sample_mlp expert = new_mlp(&r, 0);
    loaded_mlp loaded;
    tsr_mlp mlps[LOCAL];

    (void)state;
    load_mlp(device, &expert, &loaded);
    for (int e = 0; e < LOCAL; e++)
        mlps[e] = loaded.mlp;
    ASSERT_STATUS(TSR_OK, run_experts(device, &in, mlps, NULL));
    in.count = sample_shape.max_rows + 1;
    ASSERT_STATUS(TSR_ERR_ARG, run_experts(device, &in, mlps, NULL));
    unload_mlp(device, &loaded);
    tsr_device_close(device);
    free_mlp(&expert);
}

static void more_answers_than_reserved_are_refused(void **state)
{
    tsr_work_shape shape = sample_shape;
    sample_random r = {6};
    sample_mlp expert = new_mlp(&r, 0);
    loaded_mlp loaded;
    tsr_mlp mlps[LOCAL];
    expert_input in;
    float *answers = sample_memory((size_t)ROWS * K * H * sizeof(float));
    int32_t wanted = 0;

    (void)state;
    fill_input(&r, &in);
    for (int32_t i = 0; i < ROWS * K; i++)
        wanted += in.answer_of[i] >= 0;
    for (int k = 0; k < 2; k++) {
        shape.max_rows = ROWS;
        shape.max_answers = wanted - k;
        tsr_device *device = sample_device(0, &shape);
        load_mlp(device, &expert, &loaded);
        for (int e = 0; e < LOCAL; e++)
            mlps[e] = loaded.mlp;
        ASSERT_STATUS(k == 0 ? TSR_OK : TSR_ERR_ARG, run_experts(device, &in, mlps, answers));
        unload_mlp(device, &loaded);
        tsr_device_close(device);
    }
    free_mlp(&expert);
    free(in.rows);
    free(answers);
}

static void an_answer_for_an_expert_that_is_elsewhere_is_refused(void **state)
{
    tsr_work_shape shape = sample_shape;
    sample_random r = {4};
    sample_mlp expert = new_mlp(&r, 0);
    loaded_mlp loaded;
    tsr_mlp mlps[LOCAL];
    expert_input in;
    float *answers = sample_memory((size_t)ROWS * K * H * sizeof(float));

    (void)state;
    shape.max_rows = ROWS;
    shape.max_answers = ROWS * K;
    tsr_device *device = sample_device(0, &shape);
    fill_input(&r, &in);
    load_mlp(device, &expert, &loaded);
    for (int e = 0; e < LOCAL; e++)
        mlps[e] = loaded.mlp;
    ((int32_t *)(void *)(in.rows + (size_t)H * 4))[0] = 1;
    in.answer_of[0] = 0;
    ASSERT_STATUS(TSR_ERR_ARG, run_experts(device, &in, mlps, answers));
    ((int32_t *)(void *)(in.rows + (size_t)H * 4))[0] = E;
    ASSERT_STATUS(TSR_ERR_ARG, run_experts(device, &in, mlps, answers));
    unload_mlp(device, &loaded);
    tsr_device_close(device);
    free_mlp(&expert);
    free(in.rows);
    free(answers);
}

/* More pairs than one chunk of the workspace (512). */
static void more_answers_than_a_chunk_are_taken_in_turn(void **state)
{
    enum { MANY = 700 };
    tsr_work_shape shape = sample_shape;
    tsr_device *device = NULL;
    sample_random r = {5};
    sample_mlp expert = new_mlp(&r, 2);
    loaded_mlp loaded;
    float *x = sample_memory((size_t)MANY * H * sizeof(float));
    float *y = sample_memory((size_t)MANY * H * sizeof(float));

    (void)state;
    shape.max_tokens = MANY;
    device = sample_device(4, &shape);
    if (!device)
        device = sample_device(0, &shape);
    sample_floats(&r, x, (size_t)MANY * H, 1.0F);
    load_mlp(device, &expert, &loaded);
    const tsr_mlp_args a = {y, x, &loaded.mlp, MANY};
    ASSERT_STATUS(TSR_OK, tsr_op_mlp(device, &a, stream));
    for (size_t t = 0; t < MANY; t += 37)
        assert_mlp(&expert, x + t * H, y + t * H);
    unload_mlp(device, &loaded);
    tsr_device_close(device);
    free_mlp(&expert);
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mlp_meets_its_definition_with_the_same_bits_everywhere),
        cmocka_unit_test(each_answer_is_its_experts_mlp_of_its_row),
        cmocka_unit_test(no_rows_ask_for_nothing),
        cmocka_unit_test(more_answers_than_reserved_are_refused),
        cmocka_unit_test(an_answer_for_an_expert_that_is_elsewhere_is_refused),
        cmocka_unit_test(more_answers_than_a_chunk_are_taken_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
