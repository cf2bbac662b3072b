/*
 * The experts of a layer as one object: what the host sees, what stands in device memory, and what
 * is refused by name when it is made, so that no step has to look again.
 */
#include "tests/kernels/mlps.h"
#include "tests/log_lines.h"
#include "tests/test.h"

#include <string.h>

static log_lines lines;

enum { H = 48, I = 64, E = 8, LOCAL = 3, K = 2 };

static const int32_t local_of[E] = {-1, 2, -1, 0, -1, -1, 1, -1};
static const int32_t tag_of[E] = {0, 1, 2, 3, 0, 1, 2, 3};
static const sample_kind gate_kind = {TSR_WEIGHT_F32, TSR_ACTIVATION_NONE, false, false};

/* A layer that fits, loaded; the tests spoil one thing at a time. */
typedef struct layer {
    tsr_device *device;
    sample_linear *router;
    sample_mlp sample;
    tsr_linear gate;
    tsr_mlp mlps[LOCAL];
    int32_t local_of[E];
    tsr_experts_source source;
} layer;

static void open_layer(layer *l)
{
    sample_random r = {1};

    l->device = sample_device(0, &sample_shape);
    l->router = sample_linear_new(&r, gate_kind, E, H);
    l->sample = sample_mlp_new(&r, 1, H, I);
    l->gate = sample_load(l->device, l->router);
    for (int e = 0; e < LOCAL; e++)
        l->mlps[e] = sample_mlp_load(l->device, &l->sample);
    memcpy(l->local_of, local_of, sizeof(local_of));
    l->source = (tsr_experts_source){
        .router = {.gate = &l->gate,
                   .kind = TSR_ROUTER_SIGMOID,
                   .top_k = K,
                   .groups = 4,
                   .top_groups = 2},
        .mlps = l->mlps,
        .local_of = l->local_of,
        .tag_of = tag_of,
        .experts = E,
        .local = LOCAL,
        .hidden = H,
    };
    log_lines_clear(&lines);
}

static void close_layer(layer *l)
{
    sample_close(l->device);
    sample_linear_free(l->router);
    sample_mlp_free(&l->sample);
}

static void refused(layer *l, const char *what)
{
    tsr_experts experts;
    tsr_experts untouched;

    memset(&experts, 0xee, sizeof(experts));
    memset(&untouched, 0xee, sizeof(untouched));
    ASSERT_STATUS(TSR_ERR_ARG, sample_experts_make(l->device, &l->source, &experts));
    assert_memory_equal(&untouched, &experts, sizeof(experts));
    if (!log_lines_say(&lines, what))
        fail_msg("%s does not say: %s", lines.text, what);
    close_layer(l);
}

static void the_host_sees_shape_and_kinds_and_the_device_the_tables(void **state)
{
    layer l;
    tsr_experts e;
    tsr_mlp mlps[LOCAL];
    int32_t ids[E];

    (void)state;
    open_layer(&l);
    ASSERT_STATUS(TSR_OK, sample_experts_make(l.device, &l.source, &e));
    assert_int_equal(E, e.experts);
    assert_int_equal(LOCAL, e.local);
    assert_int_equal(K, e.top_k);
    assert_int_equal(H, e.hidden);
    assert_int_equal(I, e.intermediate);
    assert_int_equal(tsr_packed_row_bytes(tsr_device_activation_bytes(l.device), H, K),
                     e.row_bytes);
    assert_int_equal(TSR_WEIGHT_NVFP4, e.gate.format);
    assert_int_equal(TSR_ACTIVATION_NVFP4, e.down.activation);
    sample_get(l.device, mlps, e.mlps, sizeof(mlps));
    assert_memory_equal(l.mlps, mlps, sizeof(mlps));
    sample_get(l.device, ids, e.local_of, sizeof(ids));
    assert_memory_equal(local_of, ids, sizeof(ids));
    sample_get(l.device, ids, e.tag_of, sizeof(ids));
    assert_memory_equal(tag_of, ids, sizeof(ids));
    close_layer(&l);
}

static void a_layer_may_have_all_its_experts_elsewhere(void **state)
{
    layer l;
    tsr_experts e;

    (void)state;
    open_layer(&l);
    memset(l.local_of, 0xff, sizeof(l.local_of));
    l.source.local = 0;
    l.source.mlps = NULL;
    ASSERT_STATUS(TSR_OK, sample_experts_make(l.device, &l.source, &e));
    assert_int_equal(0, e.local);
    assert_int_equal(0, e.intermediate);
    close_layer(&l);
}

static void the_tables_take_the_bytes_the_plan_counts(void **state)
{
    (void)state;
    assert_int_equal(128, tsr_experts_bytes(1, 0));
    assert_int_equal(128 + (sizeof(tsr_mlp) + 63) / 64 * 64, tsr_experts_bytes(16, 1));
    assert_int_equal(256 + (5 * sizeof(tsr_mlp) + 63) / 64 * 64, tsr_experts_bytes(17, 5));
}

static void experts_unlike_each_other_are_refused(void **state)
{
    layer l;

    (void)state;
    open_layer(&l);
    l.mlps[0].up.format = TSR_WEIGHT_BF16;
    refused(&l, "up of expert 3 is [64, 48] bf16");
    open_layer(&l);
    l.mlps[1].down.activation = TSR_ACTIVATION_NONE;
    refused(&l, "down of expert 6 is [48, 64] nvfp4 with activation none");
    open_layer(&l);
    l.mlps[1].gate.out = l.mlps[1].up.out = l.mlps[1].down.in = 32;
    refused(&l, "gate of expert 6 is [32, 48]");
}

static void experts_that_do_not_fit_are_refused(void **state)
{
    layer l;

    (void)state;
    open_layer(&l);
    l.mlps[0].down.out = 32;
    refused(&l, "expert 3, gate [64, 48], does not fit rows of 48");
    open_layer(&l);
    l.mlps[1].up.weight = NULL;
    refused(&l, "expert 6, gate [64, 48], does not fit");
    open_layer(&l);
    for (int e = 0; e < LOCAL; e++)
        l.mlps[e].gate.out = l.mlps[e].up.out = l.mlps[e].down.in =
            sample_shape.max_intermediate + 16;
    refused(&l, "does not fit rows of 48 or the workspace");
    open_layer(&l);
    l.source.hidden = sample_shape.hidden + 16;
    refused(&l, "wider than reserved");
    open_layer(&l);
    l.source.experts = sample_shape.max_experts + 1;
    refused(&l, "or more than reserved");
}

static void ids_that_lead_nowhere_are_refused(void **state)
{
    layer l;

    (void)state;
    open_layer(&l);
    l.local_of[0] = LOCAL;
    refused(&l, "expert 0 is local expert 3, of 3 here");
    open_layer(&l);
    l.local_of[2] = 2;
    refused(&l, "expert 2 is local expert 2, of 3 here or of another already");
    open_layer(&l);
    l.local_of[3] = -2;
    refused(&l, "expert 3 is local expert -2");
    open_layer(&l);
    l.local_of[6] = -1;
    refused(&l, "a local expert has no id");
    open_layer(&l);
    l.source.local = E + 1;
    refused(&l, "more are here than there are");
}

static void choices_that_do_not_exist_are_refused(void **state)
{
    layer l;

    (void)state;
    open_layer(&l);
    l.source.router.top_k = 3; /* one group of 2 */
    l.source.router.top_groups = 1;
    refused(&l, "groups do not divide the experts or hold too few");
    open_layer(&l);
    l.source.router.groups = 3;
    refused(&l, "groups do not divide the experts");
    open_layer(&l);
    l.source.router.kind = TSR_ROUTER_SOFTMAX;
    l.source.router.top_k = E + 1;
    refused(&l, "top_k is not in 1..experts");
    open_layer(&l);
    l.source.router.top_k = 0;
    refused(&l, "top_k is not in 1..experts");
    open_layer(&l);
    l.gate.activation = TSR_ACTIVATION_FP8;
    refused(&l, "the gate is not an unquantized linear");
    open_layer(&l);
    l.gate.out = E - 1;
    refused(&l, "the gate does not lead from a row to the experts");
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
        cmocka_unit_test(the_host_sees_shape_and_kinds_and_the_device_the_tables),
        cmocka_unit_test(a_layer_may_have_all_its_experts_elsewhere),
        cmocka_unit_test(the_tables_take_the_bytes_the_plan_counts),
        cmocka_unit_test(experts_unlike_each_other_are_refused),
        cmocka_unit_test(experts_that_do_not_fit_are_refused),
        cmocka_unit_test(ids_that_lead_nowhere_are_refused),
        cmocka_unit_test(choices_that_do_not_exist_are_refused),
    };
    test_choose(argc, argv);
    return cmocka_run_group_tests(tests, catch_lines, NULL);
}
