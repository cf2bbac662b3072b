/* What a rank reads, in which order and into how much memory; and what is computed at the start. */
#include "tests/model/safetensors_edit.h"
#include "tests/model/served.h"
#include "tests/test.h"

#include "runtime/base/arena.h"
#include "runtime/model/load_order.h"
#include "runtime/model/load_weights.h"
#include "runtime/model/read_ahead.h"
#include "runtime/model/rotary_table.h"
#include "runtime/model/weights.h"
#include "runtime/plan/loading.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tsr_plan *plan_for(const char *fixture, int32_t ranks)
{
    char folder[PATH_MAX];
    tsr_plan *plan = NULL;
    edit_path(TSR_TEST_DATA, fixture, sizeof(folder), folder);
    served_setup setup = {.folder = folder, .mode = SERVED_DECLARED, .ranks = ranks};
    ASSERT_STATUS(TSR_OK, served_plan(&setup, &plan));
    assert_non_null(plan);
    return plan;
}

static tsr_arena *arena(void)
{
    tsr_arena *a = NULL;
    ASSERT_STATUS(TSR_OK, tsr_arena_open(1 << 16, &a));
    return a;
}

static tsr_status order_of(const tsr_plan *plan, int32_t rank, tsr_arena *memory,
                           tsr_load_order *ret_order)
{
    tsr_device *device = NULL;
    ASSERT_STATUS(TSR_OK, tsr_device_open_cpu(1, TSR_CPU_AUTO, &device));
    const tsr_load_cut cut = {.device = device, .piece_bytes = TSR_LOAD_PIECE_BYTES};
    const tsr_status st = tsr_load_order_make(plan, rank, &cut, memory, ret_order);
    tsr_device_close(device);
    return st;
}

/* Every piece lies inside its stretch, and a weight comes after everything it needs. */
static void check_order(const tsr_load_order *order)
{
    size_t next = 0;
    for (size_t s = 0; s < order->stretch_count; s++) {
        const tsr_stretch *stretch = &order->stretches[s];
        assert_int_equal(order->first_piece[s], next);
        for (; next < order->first_piece[s + 1]; next++) {
            const tsr_tensor_place *place = &order->pieces[next].place;
            assert_int_equal(place->file, stretch->file);
            assert_true(place->offset >= stretch->begin);
            assert_true(place->offset + place->bytes <= stretch->end);
        }
    }
    assert_int_equal(next, order->piece_count);

    for (size_t i = 0; i < order->piece_count; i++) {
        for (size_t j = i + 1; j < order->piece_count; j++) {
            const tsr_piece *a = &order->pieces[i];
            const tsr_piece *b = &order->pieces[j];
            const bool same_linear =
                a->part != TSR_PART_VECTOR && b->part != TSR_PART_VECTOR && a->owner == b->owner;
            assert_false(same_linear && a->part == TSR_PART_WEIGHT);
        }
    }
}

static void ranks_share_the_experts_and_nothing_is_read_twice(void **state)
{
    (void)state;
    tsr_plan *plan = plan_for("glm4-mixed", 3);
    int *read = calloc((size_t)plan->linear_count, sizeof(*read));
    assert_non_null(read);
    for (int32_t rank = 0; rank < plan->ranks; rank++) {
        tsr_arena *memory = arena();
        tsr_load_order order;
        ASSERT_STATUS(TSR_OK, order_of(plan, rank, memory, &order));
        check_order(&order);
        for (size_t i = 0; i < order.piece_count; i++)
            read[order.pieces[i].owner] += order.pieces[i].part == TSR_PART_WEIGHT ? 1 : 0;
        tsr_arena_close(memory);
    }
    for (int32_t i = 0; i < plan->linear_count; i++)
        assert_int_equal(read[i], plan->linears[i].expert < 0 ? plan->ranks : 1);
    free(read);
    tsr_plan_close(plan);
}

static void a_small_checkpoint_is_few_reads(void **state)
{
    (void)state;
    tsr_plan *plan = plan_for("qwen3-nvfp4", 1);
    tsr_arena *memory = arena();
    tsr_load_order order;
    ASSERT_STATUS(TSR_OK, order_of(plan, 0, memory, &order));
    assert_true(order.piece_count > 400);
    assert_true(order.stretch_count <= 4);
    tsr_arena_close(memory);
    tsr_plan_close(plan);
}

static void a_place_that_contradicts_its_shape_is_refused(void **state)
{
    (void)state;
    tsr_plan *plan = plan_for("qwen3-bf16", 1);
    tsr_arena *memory = arena();
    tsr_load_order order;
    plan->linears[3].weight.bytes -= 2;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, order_of(plan, 0, memory, &order));
    plan->linears[3].weight.bytes += 2;
    plan->linears[3].weight.dtype = TSR_DTYPE_F16;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, order_of(plan, 0, memory, &order));
    plan->linears[3].weight.dtype = TSR_DTYPE_BF16;
    plan->linears[3].weight.file = plan->file_count;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, order_of(plan, 0, memory, &order));
    tsr_arena_close(memory);
    tsr_plan_close(plan);
}

/* A weight without its scales would stand for other numbers. */
static void a_plan_that_leaves_scales_out_is_refused(void **state)
{
    (void)state;
    tsr_plan *plan = plan_for("qwen3-nvfp4", 1);
    tsr_arena *memory = arena();
    tsr_load_order order;
    int32_t first = 0;
    while (plan->linears[first].role != TSR_ROLE_Q)
        first++;
    tsr_linear_plan *q = &plan->linears[first];
    const tsr_linear_plan whole = *q;
    q->scale.file = TSR_NO_FILE;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, order_of(plan, 0, memory, &order));
    *q = whole;
    q->global_scale.file = TSR_NO_FILE;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, order_of(plan, 0, memory, &order));
    *q = whole;
    q->format = TSR_WEIGHT_FP8;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, order_of(plan, 0, memory, &order));
    *q = whole;
    ASSERT_STATUS(TSR_OK, order_of(plan, 0, memory, &order));
    tsr_arena_close(memory);
    tsr_plan_close(plan);
}

/* Ring, scratch and records of every rank, against what the plan holds ready beside the tables. */
static void reading_takes_no_more_than_was_planned(void **state)
{
    (void)state;
    static const char *const fixtures[] = {"demo-mixed", "glm4-mixed", "qwen3-bf16"};
    for (int f = 0; f < 3; f++) {
        tsr_plan *plan = plan_for(fixtures[f], 2);
        for (int32_t rank = 0; rank < 2; rank++) {
            tsr_arena *memory = arena();
            tsr_load_order order;
            ASSERT_STATUS(TSR_OK, order_of(plan, rank, memory, &order));
            const size_t records =
                order.piece_count * TSR_LOAD_PIECE_RECORD_BYTES +
                (size_t)(plan->linear_count + plan->vector_count) * TSR_LOAD_TENSOR_RECORD_BYTES;
            const size_t ring = TSR_LOAD_SLOTS * tsr_load_slot_bytes(order.longest);
            assert_true(ring + TSR_LOAD_SCRATCH_BYTES + records <=
                        plan->budget[rank].loading_bytes);
            tsr_arena_close(memory);
        }
        tsr_plan_close(plan);
    }
}

/* A rank's weights while they load. */
typedef struct loading {
    tsr_plan *plan;
    tsr_device *device;
    tsr_arena *memory;
    tsr_weights weights;
    tsr_loader *loader;
} loading;

static void begin(loading *l, const char *fixture, int32_t ranks, int32_t rank)
{
    *l = (loading){.plan = plan_for(fixture, ranks), .memory = arena()};
    ASSERT_STATUS(TSR_OK, tsr_device_open_cpu(1, TSR_CPU_AUTO, &l->device));
    ASSERT_STATUS(TSR_OK, tsr_weights_open(l->plan, l->device, rank, l->memory, &l->weights));
    const tsr_loader_args args = {.plan = l->plan,
                                  .device = l->device,
                                  .weights = &l->weights,
                                  .rank = rank,
                                  .deadline_ms = 60000};
    ASSERT_STATUS(TSR_OK, tsr_loader_open(&args, &l->loader));
}

static void end(loading *l)
{
    tsr_loader_close(l->loader);
    tsr_weights_close(&l->weights);
    tsr_device_close(l->device);
    tsr_arena_close(l->memory);
    tsr_plan_close(l->plan);
}

static void a_model_takes_the_memory_that_was_planned(void **state)
{
    (void)state;
    for (int32_t rank = 0; rank < 3; rank++) {
        loading l;
        begin(&l, "glm4-mixed", 3, rank);
        assert_int_equal(l.weights.bytes, l.plan->budget[rank].weights_bytes);
        end(&l);
    }
}

static void slices_of_no_time_load_everything_in_the_end(void **state)
{
    (void)state;
    loading l;
    begin(&l, "demo-mixed", 1, 0);
    bool done = false;
    uint64_t before = 0;
    while (!done) {
        ASSERT_STATUS(TSR_OK, tsr_loader_run(l.loader, 0, &done));
        assert_true(tsr_loader_bytes(l.loader) > before);
        before = tsr_loader_bytes(l.loader);
    }
    assert_int_equal(before, tsr_loader_total(l.loader));
    end(&l);
}

static void loading_can_be_given_up_at_any_time(void **state)
{
    (void)state;
    loading untouched;
    begin(&untouched, "demo-mixed", 1, 0);
    end(&untouched);

    loading begun;
    begin(&begun, "demo-mixed", 1, 0);
    bool done = false;
    ASSERT_STATUS(TSR_OK, tsr_loader_run(begun.loader, 0, &done));
    end(&begun);
}

/* A file of the numbers 0, 1, 2 ... 255, 0 ... and stretches of it in any order. */
static void stretches_come_in_the_order_that_was_asked_for(void **state)
{
    (void)state;
    enum { FILE_BYTES = 10000, STRETCHES = 5, SLOT_BYTES = 5120 };
    static _Alignas(64) unsigned char ring[3 * SLOT_BYTES];
    static const tsr_stretch stretches[STRETCHES] = {
        {9000, 10000, 0}, {0, 1, 1}, {1, 5000, 0}, {63, 65, 0}, {64, 128, 1}};
    static unsigned char content[FILE_BYTES];
    char folder[] = "/tmp/tessera-test-XXXXXX";
    char names[2][2] = {"a", "b"};
    char *files[] = {names[0], names[1]};
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < FILE_BYTES; i++)
        content[i] = (unsigned char)(i % 251);
    for (int f = 0; f < 2; f++) {
        char path[PATH_MAX];
        edit_path(folder, files[f], sizeof(path), path);
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(content, 1, FILE_BYTES, file), FILE_BYTES);
        assert_int_equal(fclose(file), 0);
    }

    const tsr_file_mark mark = tsr_file_mark_of(FILE_BYTES, content, 100);
    const tsr_file_mark marks[] = {mark, mark};
    tsr_reading reading = {.folder = folder,
                           .files = files,
                           .marks = marks,
                           .stretches = stretches,
                           .stretch_count = STRETCHES,
                           .file_count = 2,
                           .ring = ring,
                           .slot_bytes = SLOT_BYTES,
                           .slots = 3,
                           .deadline_ms = 60000};
    tsr_read_ahead *reader = NULL;
    ASSERT_STATUS(TSR_OK, tsr_read_ahead_open(&reading, &reader));
    for (int s = 0; s < STRETCHES; s++) {
        tsr_stretch_bytes got;
        ASSERT_STATUS(TSR_OK, tsr_read_ahead_next(reader, &got));
        assert_int_equal((uintptr_t)got.bytes % 64, stretches[s].begin % 64);
        assert_memory_equal(got.bytes, content + stretches[s].begin,
                            stretches[s].end - stretches[s].begin);
    }
    assert_true(tsr_read_ahead_close(reader));
    edit_remove_folder(folder);
}

/* In double the angle differs by what fp32 loses: 2^-23 of the angle for the power, the quotient
 * and the product together, which at position 40000 is 0.005. */
static void rotary_angles_are_those_of_the_formula(void **state)
{
    (void)state;
    enum { DIM = 64 };
    static const int32_t positions[] = {0, 1, 17, 511, 40000};
    for (size_t p = 0; p < sizeof(positions) / sizeof(positions[0]); p++) {
        float c[DIM / 2];
        float s[DIM / 2];
        tsr_rotary_row(1e6, DIM, positions[p], c, s);
        const double tolerance = positions[p] * 1.2e-7 * 2 + 1e-7;
        for (int i = 0; i < DIM / 2; i++) {
            const double angle = positions[p] / pow(1e6, 2.0 * i / DIM);
            assert_true(fabs((double)c[i] - cos(angle)) <= tolerance);
            assert_true(fabs((double)s[i] - sin(angle)) <= tolerance);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_share_the_experts_and_nothing_is_read_twice),
        cmocka_unit_test(a_small_checkpoint_is_few_reads),
        cmocka_unit_test(a_place_that_contradicts_its_shape_is_refused),
        cmocka_unit_test(a_plan_that_leaves_scales_out_is_refused),
        cmocka_unit_test(reading_takes_no_more_than_was_planned),
        cmocka_unit_test(a_model_takes_the_memory_that_was_planned),
        cmocka_unit_test(slices_of_no_time_load_everything_in_the_end),
        cmocka_unit_test(loading_can_be_given_up_at_any_time),
        cmocka_unit_test(stretches_come_in_the_order_that_was_asked_for),
        cmocka_unit_test(rotary_angles_are_those_of_the_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
