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

static void run_wide(tsr_device *device, const tsr_mlp *mlp, const float *x, float *y,
                     int32_t tokens, int32_t width)
{
    const size_t count = (size_t)tokens * (size_t)width;
    const tsr_mlp_args a = {
        .out = sample_row_room(device, count),
        .x = sample_rows(device, x, count),
        .mlp = mlp,
        .x_row_bytes = (size_t)width * tsr_device_activation_bytes(device),
        .tokens = tokens,
    };

    ASSERT_STATUS(TSR_OK, device->ops->mlp(device, &a, stream));
    sample_get_rows(device, y, a.out, count);
}

static void run_mlp(tsr_device *device, const tsr_mlp *mlp, const float *x, float *y,
                    int32_t tokens)
{
    run_wide(device, mlp, x, y, tokens, H);
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
            run_wide(device, &loaded, x, i == 0 ? first : y, TOKENS, width);
            if (i > 0)
                assert_mlp_like(i, kind, first, y, count);
            run_wide(device, &loaded, x, alone, 1, width);
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

/* As many experts as a GPU has processors, or nearly: then a CTA may go on from gate and up to down, as
 * CTAs do with a few rows. */
enum { DOZENS = 120, WIDE = 528, DEEP = 144, CHOSEN = 8, MOST_ROWS = 100, MLPS = 3 };

typedef struct dozens_input {
    float x[MOST_ROWS * WIDE];
    int32_t id[MOST_ROWS * CHOSEN];
    int32_t answer_of[MOST_ROWS * CHOSEN];
    int32_t rows;
} dozens_input;

/* All experts have some rows, and the first has more than there is room for in one tile. */
static void fill_dozens(sample_random *r, dozens_input *in, int32_t rows)
{
    in->rows = rows;
    sample_floats(r, in->x, (size_t)rows * WIDE, 1.0F);
    for (int32_t i = 0; i < rows * CHOSEN; i++) {
        in->id[i] = i < 20 * CHOSEN && i % CHOSEN == CHOSEN - 1 ? 0 : i % DOZENS;
        in->answer_of[i] = i;
    }
}

/* A layer of them, loaded. */
typedef struct dozens_layer {
    tsr_mlp mlps[MLPS];
    tsr_linear gate;
    tsr_experts experts;
} dozens_layer;

static void load_dozens(tsr_device *device, const sample_mlp *mlps, const sample_linear *gate,
                        dozens_layer *ret)
{
    static const int32_t tags[DOZENS] = {0};
    tsr_mlp all[DOZENS];
    int32_t local[DOZENS];

    ret->gate = sample_load(device, gate);
    for (int e = 0; e < MLPS; e++)
        ret->mlps[e] = sample_mlp_load(device, &mlps[e]);
    for (int32_t e = 0; e < DOZENS; e++) {
        all[e] = ret->mlps[e % MLPS];
        local[e] = e;
    }
    const tsr_experts_source source = {
        .router = {.gate = &ret->gate, .top_k = CHOSEN, .groups = 1, .top_groups = 1},
        .mlps = all,
        .local_of = local,
        .tag_of = tags,
        .experts = DOZENS,
        .local = DOZENS,
        .hidden = WIDE,
    };
    ASSERT_STATUS(TSR_OK, sample_experts_make(device, &source, &ret->experts));
}

static void *pack_dozens(tsr_device *device, const dozens_input *in, size_t row_bytes)
{
    static const int32_t tags[DOZENS] = {0};
    const tsr_pack_args a = {
        .rows = sample_room(device, (size_t)in->rows * row_bytes),
        .tag = sample_room(device, sizeof(in->id)),
        .x = sample_rows(device, in->x, (size_t)in->rows * WIDE),
        .expert = sample_put(device, in->id, sizeof(in->id)),
        .tag_of = sample_put(device, tags, sizeof(tags)),
        .row_bytes = row_bytes,
        .tokens = in->rows,
        .hidden = WIDE,
        .top_k = CHOSEN,
    };

    ASSERT_STATUS(TSR_OK, device->ops->pack(device, &a, stream));
    return a.rows;
}

/* Each answer has the bits of the expert's MLP over that row alone. */
static void check_dozens(tsr_device *device, const dozens_input *in, const dozens_layer *layer)
{
    static float answers[MOST_ROWS * CHOSEN * WIDE];
    const size_t count = (size_t)in->rows * CHOSEN;
    const tsr_experts_block b = {
        .answers = sample_row_room(device, count * WIDE),
        .rows = pack_dozens(device, in, layer->experts.row_bytes),
        .row_count = sample_put(device, &in->rows, sizeof(in->rows)),
        .answer_of = sample_put(device, in->answer_of, sizeof(in->answer_of)),
        .experts = &layer->experts,
        .most_rows = in->rows,
    };

    ASSERT_STATUS(TSR_OK, tsr_block_experts(device, &b, stream));
    sample_get_rows(device, answers, b.answers, count * WIDE);
    ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
    for (size_t i = 0; i < count; i += in->rows < 64 ? 1 : 7) {
        float alone[WIDE];
        run_wide(device, &layer->mlps[in->id[i] % MLPS], in->x + i / CHOSEN * WIDE, alone, 1, WIDE);
        assert_memory_equal(alone, answers + i * WIDE, sizeof(alone));
    }
}

/* Answers of a row have the bits of its experts' MLPs; the row as the device has it. */
static void check_row(tsr_device *device, const dozens_layer *layer, const tsr_experts_block *b)
{
    const size_t x_bytes = WIDE * tsr_device_activation_bytes(device);
    float answers[CHOSEN * WIDE];
    float x[WIDE];
    int32_t id[CHOSEN];

    sample_get_rows(device, answers, b->answers, (size_t)CHOSEN * WIDE);
    ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
    sample_get_rows(device, x, b->rows, WIDE);
    sample_get(device, id, (const unsigned char *)b->rows + x_bytes, sizeof(id));
    for (size_t k = 0; k < CHOSEN; k++) {
        float alone[WIDE];
        run_wide(device, &layer->mlps[id[k] % MLPS], x, alone, 1, WIDE);
        assert_memory_equal(alone, answers + k * WIDE, sizeof(alone));
    }
}

/* Answers that may be sent are combined to the same bits as those that lie there. */
static void check_combined(tsr_device *device, const tsr_experts_block *b, const float *weight)
{
    float sums[2][WIDE];
    tsr_combine_block c = {
        .answers = b->answers,
        .weight = weight,
        .tokens = 1,
        .hidden = WIDE,
        .top_k = CHOSEN,
    };

    for (int i = 0; i < 2; i++) {
        c.x = sample_row_room(device, WIDE);
        c.computed = i == 0;
        ASSERT_STATUS(TSR_OK, tsr_block_combine(device, &c, stream));
        sample_get_rows(device, sums[i], c.x, WIDE);
    }
    assert_memory_equal(sums[1], sums[0], sizeof(sums[0]));
}

/* In place of a packed row's ids, those that follow the ids of another. */
static void put_others(tsr_device *device, const void *from, unsigned char *row, size_t x_bytes)
{
    int32_t id[CHOSEN];

    sample_get(device, id, (const unsigned char *)from + x_bytes, sizeof(id));
    for (size_t k = 0; k < CHOSEN; k++)
        id[k] = (id[k] + 1) % DOZENS;
    memcpy(row + x_bytes, id, sizeof(id));
}

/* A row whose experts are chosen right in front, by who may tell them before the row is there; and
 * with another row, of other experts, in its place by then. */
static void check_chosen(tsr_device *device, const dozens_input *in, const dozens_layer *layer)
{
    unsigned char other[WIDE * sizeof(float) + CHOSEN * sizeof(int32_t)];
    static const int32_t one = 1;
    const size_t x_bytes = WIDE * tsr_device_activation_bytes(device);
    float norm[WIDE];
    void *rows = sample_room(device, layer->experts.row_bytes);
    const tsr_experts_block b = {
        .answers = sample_row_room(device, (size_t)CHOSEN * WIDE),
        .rows = rows,
        .row_count = sample_put(device, &one, sizeof(one)),
        .answer_of = sample_put(device, in->answer_of, CHOSEN * sizeof(int32_t)),
        .experts = &layer->experts,
        .most_rows = 1,
        .chosen = true,
    };

    for (size_t i = 0; i < WIDE; i++)
        norm[i] = 1.0F;
    const tsr_choose_block choose = {
        .rows = rows,
        .tag = sample_room(device, CHOSEN * sizeof(int32_t)),
        .weight = sample_room(device, CHOSEN * sizeof(float)),
        .x = sample_rows(device, in->x, WIDE),
        .norm = sample_put(device, norm, sizeof(norm)),
        .experts = &layer->experts,
        .tokens = 1,
        .eps = 1e-6F,
    };
    assert_true(layer->experts.row_bytes <= sizeof(other));
    sample_get(device, other, pack_dozens(device, in, layer->experts.row_bytes),
               layer->experts.row_bytes);
    for (int turn = 0; turn < 4; turn++) {
        ASSERT_STATUS(TSR_OK, tsr_block_choose(device, &choose, stream));
        if (turn % 2 == 1) {
            put_others(device, rows, other, x_bytes);
            sample_write(device, rows, other, layer->experts.row_bytes);
        }
        ASSERT_STATUS(TSR_OK, tsr_block_experts(device, &b, stream));
        check_combined(device, &b, choose.weight);
        check_row(device, layer, &b);
    }
}

static void an_expert_for_each_processor_changes_no_bit(void **state)
{
    static const int32_t rows[] = {1, 1, 1, 2, 4, 8, 15, 64, MOST_ROWS};
    static const sample_kind kinds[] = {{TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NONE, false, false},
                                        {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, false}};
    static dozens_input in;
    static const sample_kind gate_kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};
    const tsr_work_shape shape = {
        .max_tokens = MOST_ROWS,
        .max_rows = MOST_ROWS,
        .max_answers = MOST_ROWS * CHOSEN,
        .max_in = WIDE,
        .max_intermediate = DEEP,
        .max_experts = DOZENS,
        .max_logit_rows = 1,
        .hidden = WIDE,
        .top_k = CHOSEN,
    };
    sample_random r = {5};
    dozens_layer layer;

    (void)state;
    for (int n = 0; n < 2 * (SAMPLE_DEVICES + 1); n++) {
        const sample_kind kind = kinds[n % 2];
        sample_linear *gate = sample_linear_new(&r, gate_kind, DOZENS, WIDE);
        sample_mlp mlps[MLPS];
        for (int e = 0; e < MLPS; e++) {
            mlps[e].gate = sample_linear_new(&r, kind, DEEP, WIDE);
            mlps[e].up = sample_linear_new(&r, kind, DEEP, WIDE);
            mlps[e].up->source.input_scale = mlps[e].gate->source.input_scale;
            mlps[e].down = sample_linear_new(&r, kind, WIDE, DEEP);
        }
        tsr_device *device = n / 2 < SAMPLE_DEVICES ? sample_sized_device(n / 2, &shape)
                                                    : sample_shared_device(&shape);
        if (device != NULL)
            load_dozens(device, mlps, gate, &layer);
        for (size_t i = 0; device != NULL && i < sizeof(rows) / sizeof(rows[0]); i++) {
            fill_dozens(&r, &in, rows[i]);
            check_dozens(device, &in, &layer);
            if (rows[i] == 1)
                check_chosen(device, &in, &layer);
        }
        if (device != NULL)
            sample_close(device);
        for (int e = 0; e < MLPS; e++)
            sample_mlp_free(&mlps[e]);
        sample_linear_free(gate);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mlp_meets_its_definition_with_the_same_bits_everywhere),
        cmocka_unit_test(wide_rows_are_alike_everywhere_and_alone),
        cmocka_unit_test(more_rows_than_a_chunk_are_taken_in_turn),
        cmocka_unit_test(each_answer_is_its_experts_mlp_of_its_row),
        cmocka_unit_test(an_expert_for_each_processor_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
