/*
 * The gated MLP, and the experts' over packed rows: against the definition, each row alone, and
 * beyond one chunk of the workspace.
 */
#include "tests/kernels/mlps.h"

#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static const tsr_stream stream = {NULL};

enum { H = 48, I = 64 };

static void run_mlp(tsr_device *device, const tsr_mlp *mlp, const float *x, float *y,
                    int32_t tokens)
{
    sample_mlp_run(device, mlp, x, y, tokens, H);
}

/* Kind 0 is unquantized. */
static void assert_mlp_like(int i, int kind, const float *first, const float *y, size_t count)
{
    if (kind == 0)
        sample_assert_like(i, first, y, count);
    else
        sample_assert_tipped(i, first, y, count);
}

static void the_mlp_meets_its_definition_with_the_same_bits_everywhere(void **state)
{
    enum { TOKENS = 11 };
    sample_random r = {11};
    float x[TOKENS * H];
    float first[TOKENS * H];
    float y[TOKENS * H];

    (void)state;
    for (int kind = 0; kind < SAMPLE_MLP_KINDS; kind++) {
        sample_mlp m = sample_mlp_new(&r, kind, H, I);
        sample_floats(&r, x, (size_t)TOKENS * H, 1.5F);
        for (int i = 0; i < SAMPLE_DEVICES; i++) {
            tsr_device *device = sample_device(i, &sample_shape);
            if (device == NULL)
                continue;
            const tsr_mlp loaded = sample_mlp_load(device, &m);
            run_mlp(device, &loaded, x, i == 0 ? first : y, TOKENS);
            if (i > 0)
                assert_mlp_like(i, kind, first, y, (size_t)TOKENS * H);
            sample_close(device);
        }
        for (size_t t = 0; t < TOKENS; t++)
            sample_assert_mlp(&m, x + t * H, first + t * H);
        sample_mlp_free(&m);
    }
}

/* Rows of more slices than a GPU's usual CTA has warps: hidden and intermediate of GLM-4.5-Air's dense
 * layer have 8 and 22. */
static void wide_rows_are_alike_everywhere_and_alone(void **state)
{
    enum { TOKENS = 3, WIDE = 4352, NARROW = 64 };
    static float x[TOKENS * WIDE];
    static float first[TOKENS * WIDE];
    static float y[TOKENS * WIDE];
    static float alone[WIDE];
    tsr_work_shape shape = sample_shape;
    sample_random r = {23};

    (void)state;
    shape.max_in = shape.hidden = WIDE;
    shape.max_intermediate = WIDE;
    for (int turn = 0; turn < 2 * SAMPLE_MLP_KINDS; turn++) {
        const int kind = turn / 2;
        const int32_t width = turn % 2 == 0 ? WIDE : NARROW;
        const size_t count = (size_t)TOKENS * (size_t)width;
        sample_mlp m = sample_mlp_new(&r, kind, width, width == WIDE ? NARROW : WIDE);
        sample_floats(&r, x, count, 1.0F);
        for (int i = 0; i < SAMPLE_DEVICES; i++) {
            tsr_device *device = sample_device(i, &shape);
            if (device == NULL)
                continue;
            const tsr_mlp loaded = sample_mlp_load(device, &m);
            sample_mlp_run(device, &loaded, x, i == 0 ? first : y, TOKENS, width);
            if (i > 0)
                assert_mlp_like(i, kind, first, y, count);
            sample_mlp_run(device, &loaded, x, alone, 1, width);
            assert_memory_equal(i == 0 ? first : y, alone, (size_t)width * sizeof(float));
            sample_close(device);
        }
        sample_mlp_free(&m);
    }
}

/* More rows than one chunk of the workspace (512). */
static void more_rows_than_a_chunk_are_taken_in_turn(void **state)
{
    enum { MANY = 700 };
    tsr_work_shape shape = sample_shape;
    tsr_device *device = NULL;
    sample_random r = {5};
    sample_mlp m = sample_mlp_new(&r, 2, H, I);
    float *x = sample_memory((size_t)MANY * H * sizeof(float));
    float *y = sample_memory((size_t)MANY * H * sizeof(float));

    (void)state;
    shape.max_tokens = MANY;
    device = sample_device(4, &shape);
    if (device == NULL)
        device = sample_device(0, &shape);
    sample_floats(&r, x, (size_t)MANY * H, 1.0F);
    const tsr_mlp loaded = sample_mlp_load(device, &m);
    run_mlp(device, &loaded, x, y, MANY);
    for (size_t t = 0; t < MANY; t += 37)
        sample_assert_mlp(&m, x + t * H, y + t * H);
    sample_close(device);
    sample_mlp_free(&m);
    free(x);
    free(y);
}

/* Some 600 answers: more than one chunk of the workspace (512), so an expert lies across. Behind the
 * first rows one of 24 wants answers: there are more slots than a GPU looks at in two rounds. */
enum { E = 6, LOCAL = 4, K = 3, ROWS = 7000, FIRST = 20, WANTED = 24 };

static const int32_t local_of[E] = {2, -1, 0, 3, -1, 1};

/* Rows as they arrive, on the host. */
typedef struct expert_input {
    float x[ROWS * H];
    int32_t id[ROWS * K];
    int32_t answer_of[ROWS * K];
} expert_input;

/* Rows whose ids are here or elsewhere; answers in reverse order. */
static void fill_input(sample_random *r, expert_input *in)
{
    int32_t answers = 0;

    sample_floats(r, in->x, (size_t)ROWS * H, 1.0F);
    for (size_t i = 0; i < (size_t)ROWS * K; i++) {
        in->id[i] = (int32_t)(sample_u32(r) % E);
        const bool is_wanted = i < (size_t)FIRST * K || i / K % WANTED == 0;
        in->answer_of[i] = is_wanted && local_of[in->id[i]] >= 0 ? ROWS * K - 1 - answers++ : -1;
    }
}

/* Packed by the device, so that the rows are of its type. */
static void *packed_rows(tsr_device *device, const expert_input *in, size_t row_bytes)
{
    static const int32_t tags[E] = {0};
    const tsr_pack_args a = {
        .rows = sample_room(device, ROWS * row_bytes),
        .tag = sample_room(device, sizeof(in->id)),
        .x = sample_rows(device, in->x, (size_t)ROWS * H),
        .expert = sample_put(device, in->id, sizeof(in->id)),
        .tag_of = sample_put(device, tags, sizeof(tags)),
        .row_bytes = row_bytes,
        .tokens = ROWS,
        .hidden = H,
        .top_k = K,
    };

    ASSERT_STATUS(TSR_OK, device->ops->pack(device, &a, stream));
    return a.rows;
}

/* A layer of experts, loaded. */
typedef struct expert_layer {
    tsr_mlp mlps[LOCAL];
    tsr_linear gate;
    tsr_experts experts;
} expert_layer;

static void load_layer(tsr_device *device, const sample_mlp *mlps, const sample_linear *gate,
                       expert_layer *ret)
{
    static const int32_t tags[E] = {0};

    for (int e = 0; e < LOCAL; e++)
        ret->mlps[e] = sample_mlp_load(device, &mlps[e]);
    ret->gate = sample_load(device, gate);
    const tsr_experts_source source = {
        .router = {.gate = &ret->gate, .top_k = K},
        .mlps = ret->mlps,
        .local_of = local_of,
        .tag_of = tags,
        .experts = E,
        .local = LOCAL,
        .hidden = H,
    };
    ASSERT_STATUS(TSR_OK, sample_experts_make(device, &source, &ret->experts));
}

/* Each answer has the bits of the expert's MLP over that row alone. */
static void check_answers(tsr_device *device, const expert_input *in, const expert_layer *layer,
                          const float *answers, int32_t rows)
{
    for (size_t i = 0; i < (size_t)rows * K; i++) {
        float alone[H];
        if (in->answer_of[i] < 0)
            continue;
        run_mlp(device, &layer->mlps[local_of[in->id[i]]], in->x + i / K * H, alone, 1);
        assert_memory_equal(alone, answers + (size_t)in->answer_of[i] * H, sizeof(alone));
    }
}

enum { PART_BITS = 6, PART_ROWS = 1 << PART_BITS, PARTS = (ROWS * K + PART_ROWS - 1) / PART_ROWS };

/* Runs the first rows of a block; answers to `ret`, [PARTS, PART_ROWS, H]. */
static void run_first(tsr_device *device, tsr_experts_block b, int32_t rows, void *room, float *ret)
{
    b.row_count = sample_put(device, &rows, sizeof(rows));
    b.most_rows = rows;
    ASSERT_STATUS(TSR_OK, tsr_block_experts(device, &b, stream));
    ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
    sample_get_rows(device, ret, room, (size_t)PARTS * PART_ROWS * H);
}

/* Answers that lie in parts, the last part first, have the same bits; by all kernels that there are
 * for few rows and many. */
static void check_parts(tsr_device *device, const expert_input *in, const expert_layer *layer,
                        tsr_experts_block b)
{
    static float whole[PARTS * PART_ROWS * H];
    static float apart[PARTS * PART_ROWS * H];
    static const int32_t rows[] = {1, 2, 3, FIRST, ROWS};
    const size_t part_bytes = (size_t)PART_ROWS * H * tsr_device_activation_bytes(device);
    unsigned char *room = sample_row_room(device, (size_t)PARTS * PART_ROWS * H);
    void *part[PARTS];

    for (size_t p = 0; p < PARTS; p++)
        part[p] = room + (PARTS - 1 - p) * part_bytes;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        b.answers = room;
        b.parts = NULL;
        run_first(device, b, rows[i], room, whole);
        b.answers = NULL;
        b.parts = sample_put(device, part, sizeof(part));
        b.part_bits = PART_BITS;
        run_first(device, b, rows[i], room, apart);
        if (rows[i] < ROWS)
            check_answers(device, in, layer, whole, rows[i]);
        for (size_t n = 0; n < (size_t)rows[i] * K; n++) {
            const int32_t answer = in->answer_of[n];
            const int32_t at = (PARTS - 1 - answer / PART_ROWS) * PART_ROWS + answer % PART_ROWS;
            if (answer >= 0)
                assert_memory_equal(whole + (size_t)answer * H, apart + (size_t)at * H,
                                    H * sizeof(float));
        }
    }
}

/* `apart`: gate and up quantize their input by different scales. */
static void check_experts(sample_random *r, int kind, bool apart)
{
    static expert_input in;
    static float first[ROWS * K * H];
    static float answers[ROWS * K * H];
    const sample_kind gate_kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};
    sample_linear *gate = sample_linear_new(r, gate_kind, E, H);
    tsr_work_shape shape = sample_shape;
    sample_mlp mlps[LOCAL];

    shape.max_rows = ROWS;
    shape.max_answers = ROWS * K;
    fill_input(r, &in);
    for (int e = 0; e < LOCAL; e++) {
        mlps[e] = sample_mlp_new(r, kind, H, I);
        mlps[e].up->source.input_scale *= apart ? 0.7F : 1.0F;
    }
    for (int i = 0; i < SAMPLE_DEVICES; i++) {
        static const int32_t count = ROWS;
        tsr_device *device = sample_device(i, &shape);
        expert_layer layer;
        if (device == NULL)
            continue;
        load_layer(device, mlps, gate, &layer);
        const tsr_experts_block b = {
            .answers = sample_row_room(device, (size_t)ROWS * K * H),
            .rows = packed_rows(device, &in, layer.experts.row_bytes),
            .row_count = sample_put(device, &count, sizeof(count)),
            .answer_of = sample_put(device, in.answer_of, sizeof(in.answer_of)),
            .experts = &layer.experts,
            .most_rows = ROWS,
        };
        ASSERT_STATUS(TSR_OK, tsr_block_experts(device, &b, stream));
        ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
        sample_get_rows(device, i == 0 ? first : answers, b.answers, (size_t)ROWS * K * H);
        check_answers(device, &in, &layer, i == 0 ? first : answers, ROWS);
        if (i > 0)
            assert_mlp_like(i, kind, first, answers, (size_t)ROWS * K * H);
        if (i == SAMPLE_DEVICES - 1) /* parts are memory of GPUs */
            check_parts(device, &in, &layer, b);
        sample_close(device);
    }
    for (int e = 0; e < LOCAL; e++)
        sample_mlp_free(&mlps[e]);
    sample_linear_free(gate);
}

static void each_answer_is_its_experts_mlp_of_its_row(void **state)
{
    sample_random r = {2};

    (void)state;
    for (int kind = 0; kind < SAMPLE_MLP_KINDS; kind++)
        check_experts(&r, kind, false);
    for (int kind = 1; kind <= 2; kind++)
        check_experts(&r, kind, true);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mlp_meets_its_definition_with_the_same_bits_everywhere),
        cmocka_unit_test(wide_rows_are_alike_everywhere_and_alone),
        cmocka_unit_test(more_rows_than_a_chunk_are_taken_in_turn),
        cmocka_unit_test(each_answer_is_its_experts_mlp_of_its_row),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
