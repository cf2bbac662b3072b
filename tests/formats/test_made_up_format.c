/*
 * A format that nobody ships is declared, proven, planned, loaded and computed with, once a row and
 * a kernel file say what it is: nothing else in the program knows formats by name.
 *
 * Two copies of a fixture hold the same numbers, each a code of -127..127 times a power of two: one
 * as I8 with a scale per 32, one as BF16, whose 8 significant bits hold every such product. So
 * every weight has the same value in f32, and the logits the same bits.
 */
#include "tests/model/safetensors_edit.h"
#include "tests/model/served.h"
#include "tests/test.h"

#include "runtime/base/arena.h"
#include "runtime/base/log.h"
#include "runtime/base/numeric.h"
#include "runtime/model/load_order.h"
#include "runtime/plan/targets.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = 32, POSITIONS = 11, VOCAB = 512, LINE_BYTES = 1024 };

typedef struct twins {
    char i8[PATH_MAX];
    char bf16[PATH_MAX];
    char i8_weights[PATH_MAX];
    edit_list i8_tensors;
    edit_list bf16_tensors;
} twins;

static bool is_expert(const edit_tensor *t)
{
    return strstr(t->name, ".experts.") != NULL;
}

/* Replaces the data of a tensor. */
static void give(edit_tensor *t, const char *dtype, int64_t rows, int64_t columns, size_t width)
{
    free(t->data);
    (void)snprintf(t->dtype, sizeof(t->dtype), "%s", dtype);
    t->rank = 2;
    t->shape[0] = rows;
    t->shape[1] = columns;
    t->bytes = (size_t)rows * (size_t)columns * width;
    t->data = calloc(t->bytes, 1);
    assert_non_null(t->data);
}

/* Any code, and scales from 2^-12 to 2^-9, so that every group needs its own. */
static void fill(edit_tensor *codes, edit_tensor *scales, edit_tensor *plain, uint32_t *random)
{
    const size_t columns = (size_t)codes->shape[1];
    float *scale = (float *)(void *)scales->data;
    uint16_t *value = (uint16_t *)(void *)plain->data;

    for (size_t g = 0; g < scales->bytes / sizeof(*scale); g++)
        scale[g] = ldexpf(1.0F, -12 + (int)(g % 4));
    for (size_t i = 0; i < codes->bytes; i++) {
        *random = *random * 1664525U + 1013904223U;
        const int code = (int)(*random >> 24) % 255 - 127;
        const float of = scale[i / columns * (size_t)scales->shape[1] + i % columns / GROUP];
        codes->data[i] = (unsigned char)code;
        value[i] = tsr_f32_to_bf16((float)code * of);
    }
}

static void declare(const char *folder)
{
    char path[PATH_MAX];
    edit_path(folder, "hf_quant_config.json", sizeof(path), path);
    edit_write_text(path, "{\"producer\": {\"name\": \"modelopt\", \"version\": \"0.47.0\"}, "
                          "\"quantization\": {\"quant_algo\": \"W8A16_I8\", \"group_size\": 32, "
                          "\"kv_cache_quant_algo\": null, \"exclude_modules\": [\"lm_head\", "
                          "\"model.embed_tokens\", \"*mlp.gate\", \"*self_attn*\"]}}");
}

static twins make(void)
{
    twins t;
    char original[PATH_MAX];
    char bf16_weights[PATH_MAX];
    uint32_t random = 1;

    edit_path(TSR_TEST_DATA, "qwen3-bf16", sizeof(original), original);
    edit_copy_folder(original, sizeof(t.i8), t.i8);
    edit_copy_folder(original, sizeof(t.bf16), t.bf16);
    edit_path(t.i8, "model.safetensors", sizeof(t.i8_weights), t.i8_weights);
    edit_path(t.bf16, "model.safetensors", sizeof(bf16_weights), bf16_weights);
    t.i8_tensors = edit_read(t.i8_weights);
    t.bf16_tensors = edit_read(bf16_weights);
    const size_t count = t.i8_tensors.count;
    for (size_t i = 0; i < count; i++) {
        edit_tensor *plain = &t.bf16_tensors.tensors[i];
        char name[EDIT_NAME_BYTES + 8];
        if (!is_expert(plain))
            continue;
        (void)snprintf(name, sizeof(name), "%s_scale", plain->name);
        edit_add(&t.i8_tensors, plain, name);
        edit_tensor *codes = &t.i8_tensors.tensors[i];
        edit_tensor *scales = edit_find(&t.i8_tensors, name);
        give(codes, "I8", plain->shape[0], plain->shape[1], 1);
        give(scales, "F32", plain->shape[0], (plain->shape[1] + GROUP - 1) / GROUP, sizeof(float));
        fill(codes, scales, plain, &random);
    }
    edit_write(t.i8_weights, &t.i8_tensors, 0);
    edit_write(bf16_weights, &t.bf16_tensors, 0);
    declare(t.i8);
    return t;
}

static void forget(twins *t)
{
    edit_close(&t->i8_tensors);
    edit_close(&t->bf16_tensors);
    edit_remove_folder(t->i8);
    edit_remove_folder(t->bf16);
}

static void its_logits_have_the_bits_of_a_bf16_twin(void **state)
{
    (void)state;
    static const int32_t tokens[POSITIONS] = {1, 44, 7, 300, 511, 9, 9, 0, 128, 77, 5};
    twins t = make();
    for (int32_t ranks = 1; ranks <= 3; ranks += 2) {
        served_sequence of_i8 = {.tokens = tokens, .count = POSITIONS};
        served_sequence of_bf16 = of_i8;
        served(&(served_setup){.folder = t.i8, .ranks = ranks}, (served_device){0}, &of_i8, 1);
        served(&(served_setup){.folder = t.bf16, .ranks = ranks}, (served_device){0}, &of_bf16, 1);
        served_same_bits("i8-group", of_bf16.logits, of_i8.logits, (size_t)POSITIONS * VOCAB);
        served_free(&of_i8, 1);
        served_free(&of_bf16, 1);
    }
    forget(&t);
}

/* 64 x 128 weights: a byte each, and a float for each 32 of them. */
static void every_target_counts_its_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"cpu", "h200", "b200"};
    for (int i = 0; i < 3; i++) {
        const tsr_target *target = tsr_target_find(names[i]);
        assert_int_equal(target->linear_bytes(TSR_WEIGHT_I8_GROUP, 64, 128, false, false),
                         8192 + 1024);
    }
}

/* The format's kernels take rows by eight: its weights are cut there, and nowhere else. */
static void its_rows_are_read_in_its_own_steps(void **state)
{
    (void)state;
    enum { STEP = 8, NOT_THREE_STEPS = 23 * 64, NOT_ONE_STEP = 7 * 128 };
    twins t = make();
    tsr_plan *plan = NULL;
    tsr_device *device = NULL;
    tsr_arena *arena = NULL;
    tsr_load_order order;
    size_t cuts = 0;
    ASSERT_STATUS(TSR_OK, served_plan(&(served_setup){.folder = t.i8}, &plan));
    ASSERT_STATUS(TSR_OK, tsr_device_open_cpu(1, TSR_CPU_PLAIN, &device));
    ASSERT_STATUS(TSR_OK, tsr_arena_open(1 << 16, &arena));
    assert_int_equal(tsr_device_row_step(device, TSR_WEIGHT_I8_GROUP), STEP);

    /* 23 rows of 64 weights, or 11 of 128, would fit; below, 7 of 128. */
    tsr_load_cut cut = {.device = device, .piece_bytes = NOT_THREE_STEPS};
    ASSERT_STATUS(TSR_OK, tsr_load_order_make(plan, 0, &cut, arena, &order));
    for (size_t i = 0; i < order.piece_count; i++) {
        const tsr_piece *p = &order.pieces[i];
        if (p->part != TSR_PART_WEIGHT || plan->linears[p->owner].format != TSR_WEIGHT_I8_GROUP)
            continue;
        assert_int_equal(p->first % STEP, 0);
        assert_int_equal(p->count % STEP, 0);
        cuts += p->first > 0;
    }
    assert_true(cuts > 0);

    cut.piece_bytes = NOT_ONE_STEP;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_load_order_make(plan, 0, &cut, arena, &order));
    tsr_arena_close(arena);
    tsr_device_close(device);
    tsr_plan_close(plan);
    forget(&t);
}

static char said[LINE_BYTES];

static void keep_error(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    if (level == TSR_LOG_ERROR && said[0] == '\0')
        (void)snprintf(said, sizeof(said), "%s", line);
}

static void refuses(twins *t, const char *what)
{
    static const int32_t token[] = {1};
    served_sequence s = {.tokens = token, .count = 1};
    tsr_plan *plan = NULL;

    said[0] = '\0';
    edit_write(t->i8_weights, &t->i8_tensors, 0);
    tsr_log_set_sink(keep_error, NULL);
    tsr_status st = served_plan(&(served_setup){.folder = t->i8}, &plan);
    if (st == TSR_OK)
        st = served_run(plan, (served_device){0}, &s, 1, NULL);
    tsr_log_set_sink(NULL, NULL);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, st);
    if (strstr(said, what) == NULL)
        fail_msg("'%s' is not in: %s", what, said);
    served_free(&s, 1);
    tsr_plan_close(plan);
}

static void what_contradicts_its_row_is_refused_by_name(void **state)
{
    (void)state;
    const char *name = "model.layers.2.mlp.experts.5.up_proj.weight_scale";
    twins t = make();
    edit_tensor *scales = edit_find(&t.i8_tensors, name);

    ((float *)(void *)scales->data)[3] = INFINITY;
    refuses(&t, "up_proj.weight_scale in model.safetensors: element 3 is inf");

    give(scales, "F32", 64, 5, sizeof(float));
    refuses(&t, "which wants F32 [64, 4]; the stored tensors look like I8 in groups of 32");
    forget(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_logits_have_the_bits_of_a_bf16_twin),
        cmocka_unit_test(its_rows_are_read_in_its_own_steps),
        cmocka_unit_test(every_target_counts_its_bytes),
        cmocka_unit_test(what_contradicts_its_row_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
