/*
 * Layers of as many experts as a GPU has processors, and shares of them: few rows and dozens, and a row
 * whose experts are chosen right in front of them, by one layer after the other. Each answer has the bits of
 * the expert's MLP of the row alone.
 */
#include "tests/kernels/mlps.h"
#include "tests/log_lines.h"
#include "tests/test.h"

#include <string.h>

static const tsr_stream stream = {NULL};

static log_lines lines;

/* As many experts as a GPU has processors, or nearly: then a CTA may go on from gate and up to down, as
 * CTAs do with a few rows. */
enum { DOZENS = 120, WIDE = 528, DEEP = 144, CHOSEN = 8, MOST_ROWS = 100, MLPS = 3 };

typedef struct dozens_input {
    float x[MOST_ROWS * WIDE];
    int32_t id[MOST_ROWS * CHOSEN];
    int32_t answer_of[MOST_ROWS * CHOSEN];
    int32_t rows;
} dozens_input;

/* All experts have some rows, and the first has more than there is room for in one tile: 23, 30 and 47 of 32,
 * 64 and 100. Answers are wanted of one expert in so many. */
static void fill_dozens(sample_random *r, dozens_input *in, int32_t rows, int32_t one_in)
{
    const int32_t hot = rows > 50 ? rows * 2 / 5 : 20;

    in->rows = rows;
    sample_floats(r, in->x, (size_t)rows * WIDE, 1.0F);
    for (int32_t i = 0; i < rows * CHOSEN; i++) {
        in->id[i] = i / CHOSEN < hot && i % CHOSEN == CHOSEN - 1 ? 0 : i % DOZENS;
        in->answer_of[i] = in->id[i] % one_in == 0 ? i : -1;
    }
}

/* A layer of them, loaded. */
typedef struct dozens_layer {
    tsr_mlp mlps[MLPS];
    tsr_linear gate;
    tsr_experts experts;
} dozens_layer;

/* One in so many is here. */
static void load_dozens(tsr_device *device, const sample_mlp *mlps, const sample_linear *gate,
                        int32_t one_in, dozens_layer *ret)
{
    static const int32_t tags[DOZENS] = {0};
    tsr_mlp all[DOZENS];
    int32_t local[DOZENS];

    ret->gate = sample_load(device, gate);
    for (int e = 0; e < MLPS; e++)
        ret->mlps[e] = sample_mlp_load(device, &mlps[e]);
    for (int32_t e = 0; e < DOZENS; e++) {
        local[e] = e % one_in == 0 ? e / one_in : -1;
        if (local[e] >= 0)
            all[local[e]] = ret->mlps[e % MLPS];
    }
    const tsr_experts_source source = {
        .router = {.gate = &ret->gate, .top_k = CHOSEN, .groups = 1, .top_groups = 1},
        .mlps = all,
        .local_of = local,
        .tag_of = tags,
        .experts = DOZENS,
        .local = DOZENS / one_in,
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
        if (in->answer_of[i] < 0)
            continue;
        sample_mlp_run(device, &layer->mlps[in->id[i] % MLPS], in->x + i / CHOSEN * WIDE, alone, 1,
                       WIDE);
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
        sample_mlp_run(device, &layer->mlps[id[k] % MLPS], x, alone, 1, WIDE);
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

/* Where a layer chooses for a row, and has it computed. */
typedef struct chosen_row {
    tsr_choose_block choose;
    tsr_experts_block experts;
} chosen_row;

static void new_chosen(tsr_device *device, const dozens_input *in, const dozens_layer *layer,
                       chosen_row *ret)
{
    static const int32_t one = 1;
    float norm[WIDE];
    void *rows = sample_room(device, layer->experts.row_bytes);

    for (size_t i = 0; i < WIDE; i++)
        norm[i] = 1.0F;
    ret->experts = (tsr_experts_block){
        .answers = sample_row_room(device, (size_t)CHOSEN * WIDE),
        .rows = rows,
        .row_count = sample_put(device, &one, sizeof(one)),
        .answer_of = sample_put(device, in->answer_of, CHOSEN * sizeof(int32_t)),
        .experts = &layer->experts,
        .most_rows = 1,
        .chosen = true,
    };
    ret->choose = (tsr_choose_block){
        .rows = rows,
        .tag = sample_room(device, CHOSEN * sizeof(int32_t)),
        .weight = sample_room(device, CHOSEN * sizeof(float)),
        .x = sample_rows(device, in->x, WIDE),
        .norm = sample_put(device, norm, sizeof(norm)),
        .experts = &layer->experts,
        .tokens = 1,
        .eps = 1e-6F,
        .stays = true,
    };
}

/* The ids that a chosen row asks for. */
static void get_ids(tsr_device *device, const chosen_row *c, int32_t id[CHOSEN])
{
    const size_t x_bytes = WIDE * tsr_device_activation_bytes(device);

    sample_get(device, id, (const unsigned char *)c->choose.rows + x_bytes, CHOSEN * sizeof(id[0]));
}

/* The same by another layer, of a row that differs little, so that it asks for much the same experts. */
static void compute_between(tsr_device *device, const dozens_input *in, const dozens_layer *layer,
                            int32_t ret_id[CHOSEN])
{
    static dozens_input other;
    chosen_row c;

    other = *in;
    other.x[0] = 1.5F * in->x[0] + 0.25F;
    new_chosen(device, &other, layer, &c);
    ASSERT_STATUS(TSR_OK, tsr_block_choose(device, &c.choose, stream));
    ASSERT_STATUS(TSR_OK, tsr_block_experts(device, &c.experts, stream));
    check_combined(device, &c.experts, c.choose.weight);
    get_ids(device, &c, ret_id);
}

/* Fails unless a row asks for an expert where another did: else neither could be taken for the other. */
static void assert_same_somewhere(tsr_device *device, const chosen_row *c, const int32_t *other)
{
    int32_t id[CHOSEN];
    int same = 0;

    get_ids(device, c, id);
    for (int k = 0; k < CHOSEN; k++)
        same += id[k] == other[k];
    assert_int_not_equal(same, 0);
}

/* A row whose experts are chosen right in front, by who may tell them before the row is there; and
 * with another row, of other experts, in its place by then. Between may be another layer, or NULL. */
static void check_chosen(tsr_device *device, const dozens_input *in, const dozens_layer *layer,
                         const dozens_layer *between)
{
    unsigned char other[WIDE * sizeof(float) + CHOSEN * sizeof(int32_t)];
    const size_t x_bytes = WIDE * tsr_device_activation_bytes(device);
    int32_t id[CHOSEN] = {0};
    chosen_row c;

    new_chosen(device, in, layer, &c);
    assert_true(layer->experts.row_bytes <= sizeof(other));
    sample_get(device, other, pack_dozens(device, in, layer->experts.row_bytes),
               layer->experts.row_bytes);
    for (int turn = 0; turn < 4; turn++) {
        if (between != NULL)
            compute_between(device, in, between, id);
        ASSERT_STATUS(TSR_OK, tsr_block_choose(device, &c.choose, stream));
        if (turn % 2 == 1) {
            put_others(device, c.choose.rows, other, x_bytes);
            sample_write(device, c.choose.rows, other, layer->experts.row_bytes);
        }
        ASSERT_STATUS(TSR_OK, tsr_block_experts(device, &c.experts, stream));
        if (between != NULL && turn % 2 == 0)
            assert_same_somewhere(device, &c, id);
        check_combined(device, &c.experts, c.choose.weight);
        check_row(device, layer, &c.experts);
    }
}

static void new_mlps(sample_random *r, sample_kind kind, sample_mlp mlps[MLPS])
{
    for (int e = 0; e < MLPS; e++) {
        mlps[e].gate = sample_linear_new(r, kind, DEEP, WIDE);
        mlps[e].up = sample_linear_new(r, kind, DEEP, WIDE);
        mlps[e].up->source.input_scale = mlps[e].gate->source.input_scale;
        mlps[e].down = sample_linear_new(r, kind, WIDE, DEEP);
    }
}

static void free_mlps(sample_mlp mlps[MLPS])
{
    for (int e = 0; e < MLPS; e++)
        sample_mlp_free(&mlps[e]);
}

static const sample_kind kinds[] = {{TSR_WEIGHT_NVFP4, TSR_ACTIVATION_NONE, false, false},
                                    {TSR_WEIGHT_FP8, TSR_ACTIVATION_FP8, false, false}};

static const sample_kind gate_kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};

/* A device that the layers fit on; NULL: there is none. One more than usual: a GPU that is shared. */
static tsr_device *device_for(int i)
{
    static const tsr_work_shape shape = {
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

    return i < SAMPLE_DEVICES ? sample_sized_device(i, &shape) : sample_shared_device(&shape);
}

static void check_shares(tsr_device *device, sample_random *r, sample_kind kind, int32_t one_in)
{
    static const int32_t rows[] = {1, 1, 1, 2, 4, 8, 15, 32, 64, MOST_ROWS};
    static dozens_input in;
    sample_linear *gate = sample_linear_new(r, gate_kind, DOZENS, WIDE);
    sample_mlp mlps[MLPS];
    dozens_layer layer;

    new_mlps(r, kind, mlps);
    load_dozens(device, mlps, gate, one_in, &layer);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fill_dozens(r, &in, rows[i], one_in);
        check_dozens(device, &in, &layer);
        if (rows[i] == 1 && one_in == 1)
            check_chosen(device, &in, &layer, NULL);
    }
    free_mlps(mlps);
    sample_linear_free(gate);
}

/* All, and a part of them that leaves several processors for each. */
static void an_expert_for_each_processor_changes_no_bit(void **state)
{
    sample_random r = {5};

    (void)state;
    for (int n = 0; n < 4 * (SAMPLE_DEVICES + 1); n++) {
        tsr_device *device = device_for(n / 4);
        if (device == NULL)
            continue;
        check_shares(device, &r, kinds[n % 2], n / 2 % 2 == 0 ? 1 : 4);
        sample_close(device);
    }
}

/* Layers of a model in turn, as of a checkpoint of mixed precision: experts that a kernel for a single row
 * takes, and those in BF16 that it does not, which are told nothing that others could hear. */
static void layers_of_mixed_precision_do_not_hear_each_other(void **state)
{
    static const sample_kind bf16 = {TSR_WEIGHT_BF16, TSR_ACTIVATION_NONE, false, false};
    static dozens_input in;
    sample_random r = {6};

    (void)state;
    for (int n = 0; n < 2 * (SAMPLE_DEVICES + 1); n++) {
        sample_linear *gate = sample_linear_new(&r, gate_kind, DOZENS, WIDE);
        tsr_device *device = device_for(n / 2);
        sample_mlp mlps[2][MLPS];
        dozens_layer layer[2];
        new_mlps(&r, kinds[n % 2], mlps[0]);
        new_mlps(&r, bf16, mlps[1]);
        fill_dozens(&r, &in, 1, 1);
        for (int i = 0; device != NULL && i < 2; i++)
            load_dozens(device, mlps[i], gate, 1, &layer[i]);
        if (device != NULL) {
            check_chosen(device, &in, &layer[0], &layer[1]);
            sample_close(device);
        }
        free_mlps(mlps[0]);
        free_mlps(mlps[1]);
        sample_linear_free(gate);
    }
}

/* A row asks for an expert that is not here, behind a block that was right: it is told, and no answer to the
 * others is written, by what is known of that block. */
static void check_fault(tsr_device *device, sample_random *r, sample_kind kind)
{
    enum { ROWS = 32, ONE_IN = 4, WRONG = 5 };
    static float before[ROWS * CHOSEN * WIDE];
    static float after[ROWS * CHOSEN * WIDE];
    static dozens_input in;
    const size_t count = (size_t)ROWS * CHOSEN * WIDE;
    sample_linear *gate = sample_linear_new(r, gate_kind, DOZENS, WIDE);
    sample_mlp mlps[MLPS];
    dozens_layer layer;

    new_mlps(r, kind, mlps);
    load_dozens(device, mlps, gate, ONE_IN, &layer);
    fill_dozens(r, &in, ROWS, ONE_IN);
    check_dozens(device, &in, &layer);
    sample_floats(r, before, count, 1.0F);
    in.answer_of[WRONG] = WRONG;
    const tsr_experts_block b = {
        .answers = sample_rows(device, before, count),
        .rows = pack_dozens(device, &in, layer.experts.row_bytes),
        .row_count = sample_put(device, &in.rows, sizeof(in.rows)),
        .answer_of = sample_put(device, in.answer_of, sizeof(in.answer_of)),
        .experts = &layer.experts,
        .most_rows = in.rows,
    };
    ASSERT_STATUS(TSR_OK, tsr_block_experts(device, &b, stream));
    sample_get_rows(device, after, b.answers, count);
    ASSERT_STATUS(TSR_ERR_ARG, tsr_device_fault(device));
    assert_memory_equal(before, after, sizeof(before));
    free_mlps(mlps);
    sample_linear_free(gate);
}

static void a_fault_behind_a_good_block_leaves_no_answer(void **state)
{
    sample_random r = {7};

    (void)state;
    for (int n = 0; n < 2 * (SAMPLE_DEVICES + 1); n++) {
        tsr_device *device = device_for(n / 2);
        if (device == NULL)
            continue;
        log_lines_clear(&lines);
        check_fault(device, &r, kinds[n % 2]);
        if (log_lines_count(&lines,
                            "experts: row 0, slot 5 asks for expert 5, which is not here") != 1)
            fail_msg("not said once:\n%s", lines.text);
        sample_close(device);
    }
}

static int catch_lines(void **state)
{
    (void)state;
    tsr_log_set_sink(log_lines_catch, &lines);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expert_for_each_processor_changes_no_bit),
        cmocka_unit_test(layers_of_mixed_precision_do_not_hear_each_other),
        cmocka_unit_test(a_fault_behind_a_good_block_leaves_no_answer),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, catch_lines, NULL);
}
