/*
 * Weights are read in pieces. However small these are, and wherever a file puts its tensors, the
 * same bytes stand in the device's memory; what is wrong in any piece is found and named.
 */
#include "tests/engine/late_device.h"
#include "tests/model/safetensors_edit.h"
#include "tests/model/served.h"
#include "tests/test.h"

#include "runtime/base/arena.h"
#include "runtime/base/log.h"
#include "runtime/model/load_weights.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 1024 };

/* The last error. */
static char said[LINE_BYTES];

static void keep_error(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    if (level == TSR_LOG_ERROR)
        (void)snprintf(said, sizeof(said), "%s", line);
}

static void heard(const char *name, const char *what)
{
    if (strstr(said, name) == NULL || strstr(said, what) == NULL)
        fail_msg("'%s' and '%s' are not in: %s", name, what, said);
}

/* What one rank holds after loading, or why it does not. */
typedef struct held {
    tsr_status status;
    unsigned char *bytes; /* the caller frees it */
    size_t count;
} held;

/* What it is loaded by. */
typedef enum by { BY_ONE_HAND, BY_THREE_HANDS, BY_A_STREAM, BY_ALL } by;

static tsr_device *device_of(by what)
{
    tsr_device *device = NULL;

    ASSERT_STATUS(TSR_OK,
                  tsr_device_open_cpu(what == BY_THREE_HANDS ? 3 : 1, TSR_CPU_AUTO, &device));
    if (what == BY_A_STREAM)
        ASSERT_STATUS(TSR_OK, late_device_open(device, LATE_AS_LATE_AS_CAN_BE, &device));
    assert_int_equal(tsr_device_loaders(device), what == BY_A_STREAM      ? 0
                                                 : what == BY_THREE_HANDS ? 3
                                                                          : 1);
    return device;
}

/* Threads that lay out what they read take shares of pieces, as small as these. */
static held load(const char *folder, size_t piece_bytes, by what)
{
    tsr_plan *plan = NULL;
    tsr_device *device = device_of(what);
    tsr_stream stream = {0};
    tsr_arena *arena = NULL;
    tsr_loader *loader = NULL;
    tsr_weights weights = {0};
    bool done = false;
    held h = {0};

    served_setup setup = {.folder = folder, .mode = SERVED_DECLARED};
    ASSERT_STATUS(TSR_OK, served_plan(&setup, &plan));
    ASSERT_STATUS(TSR_OK, tsr_device_stream_open(device, &stream));
    ASSERT_STATUS(TSR_OK, tsr_arena_open(1 << 16, &arena));
    ASSERT_STATUS(TSR_OK, tsr_weights_open(plan, device, 0, arena, &weights));
    const tsr_loader_args args = {.plan = plan,
                                  .device = device,
                                  .weights = &weights,
                                  .deadline_ms = 60000,
                                  .stream = stream,
                                  .piece_bytes = what == BY_THREE_HANDS ? 0 : piece_bytes,
                                  .share_bytes = piece_bytes};
    said[0] = '\0';
    h.status = tsr_loader_open(&args, &loader);
    while (h.status == TSR_OK && !done)
        h.status = tsr_loader_run(loader, INT64_MAX, &done);
    h.count = (size_t)weights.bytes;
    h.bytes = malloc(h.count);
    assert_non_null(h.bytes);
    memcpy(h.bytes, weights.memory, h.count);
    tsr_loader_close(loader);
    tsr_device_stream_close(device, stream);
    tsr_weights_close(&weights);
    tsr_arena_close(arena);
    tsr_device_close(device);
    tsr_plan_close(plan);
    return h;
}

/* The longest row of these is 512 bytes. */
static void pieces_of_any_size_load_the_same_bytes(void **state)
{
    (void)state;
    static const char *const fixtures[] = {"glm4-mixed", "qwen3-fp8-block", "qwen3-nvfp4-awq",
                                           "qwen3-fp8-pc-pt", "qwen3-nvfp4-kv-fp8"};
    static const size_t pieces[] = {512, 1000, 4096, 100000};
    for (size_t f = 0; f < sizeof(fixtures) / sizeof(fixtures[0]); f++) {
        char folder[PATH_MAX];
        edit_path(TSR_TEST_DATA, fixtures[f], sizeof(folder), folder);
        held whole = load(folder, 0, BY_A_STREAM);
        ASSERT_STATUS(TSR_OK, whole.status);
        for (size_t p = 0; p < BY_ALL * sizeof(pieces) / sizeof(pieces[0]); p++) {
            held h = load(folder, pieces[p / BY_ALL], (by)(p % BY_ALL));
            ASSERT_STATUS(TSR_OK, h.status);
            assert_int_equal(h.count, whole.count);
            assert_memory_equal(h.bytes, whole.bytes, h.count);
            free(h.bytes);
        }
        free(whole.bytes);
    }
}

/* A copy of a fixture on its way to being changed. */
typedef struct patient {
    char folder[PATH_MAX];
    char weights[PATH_MAX];
    edit_list tensors;
} patient;

static patient copy_of(const char *fixture)
{
    patient p;
    char original[PATH_MAX];
    edit_path(TSR_TEST_DATA, fixture, sizeof(original), original);
    edit_copy_folder(original, sizeof(p.folder), p.folder);
    edit_path(p.folder, "model.safetensors", sizeof(p.weights), p.weights);
    p.tensors = edit_read(p.weights);
    return p;
}

static void forget(patient *p)
{
    edit_close(&p->tensors);
    edit_remove_folder(p->folder);
}

/* A header of any length moves every tensor: BF16 begins at odd addresses then. */
static void tensors_may_begin_anywhere(void **state)
{
    (void)state;
    patient p = copy_of("glm4-mixed");
    edit_write(p.weights, &p.tensors, 0);
    held whole = load(p.folder, 0, BY_ONE_HAND);
    ASSERT_STATUS(TSR_OK, whole.status);
    for (int padding = 1; padding < 4; padding++) {
        edit_write(p.weights, &p.tensors, padding);
        for (size_t i = 0; i < (size_t)2 * BY_ALL; i++) {
            held h = load(p.folder, i / BY_ALL * 1000, (by)(i % BY_ALL));
            ASSERT_STATUS(TSR_OK, h.status);
            assert_memory_equal(h.bytes, whole.bytes, whole.count);
            free(h.bytes);
        }
    }
    free(whole.bytes);
    forget(&p);
}

/* The last element lies in the last of many pieces. */
static void a_nan_in_any_piece_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *fixture, *tensor;
    } cases[] = {
        {"qwen3-bf16", "model.layers.2.self_attn.q_proj.weight"},
        {"qwen3-fp8", "model.layers.2.self_attn.q_proj.weight"},
    };
    for (size_t i = 0; i < 4 * sizeof(cases) / sizeof(cases[0]); i++) {
        const char *name = cases[i / 4].tensor;
        patient p = copy_of(cases[i / 4].fixture);
        edit_tensor *t = edit_find(&p.tensors, name);
        const size_t at = i % 2 == 0 ? 0 : t->bytes - 2;
        memset(t->data + at, 0xff, 2);
        edit_write(p.weights, &p.tensors, 0);
        const held h = load(p.folder, 512, i / 2 % 2 == 0 ? BY_ONE_HAND : BY_THREE_HANDS);
        ASSERT_STATUS(TSR_ERR_CHECKPOINT, h.status);
        heard(name, "model.safetensors: holds NaN or infinity");
        free(h.bytes);
        forget(&p);
    }
}

/* Numbered in the whole tensor, not in its piece: 256 scales of 8 rows of 128. */
static void a_bad_scale_is_named_by_its_place_in_the_tensor(void **state)
{
    (void)state;
    const char *name = "model.layers.1.self_attn.q_proj.weight_scale";
    patient p = copy_of("qwen3-nvfp4");
    edit_tensor *t = edit_find(&p.tensors, name);
    t->data[t->bytes - 1] = 0x7f;
    edit_write(p.weights, &p.tensors, 0);
    const held h = load(p.folder, 512, BY_THREE_HANDS);
    char what[64];
    (void)snprintf(what, sizeof(what), "element %zu is nan", t->bytes - 1);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, h.status);
    heard(name, what);
    free(h.bytes);
    forget(&p);
}

/* Of several, in shares that are read at once, in every run. */
static void the_first_of_many_that_are_wrong_is_named(void **state)
{
    (void)state;
    patient p = copy_of("qwen3-bf16");
    for (size_t i = 0; i < p.tensors.count; i++) {
        edit_tensor *t = &p.tensors.tensors[i];
        if (strstr(t->name, "experts") != NULL)
            memset(t->data + t->bytes - 2, 0xff, 2);
    }
    edit_write(p.weights, &p.tensors, 0);
    held h = load(p.folder, 512, BY_ONE_HAND);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, h.status);
    free(h.bytes);
    char first[LINE_BYTES];
    memcpy(first, said, sizeof(first));
    for (int run = 0; run < 20; run++) {
        h = load(p.folder, 512, BY_THREE_HANDS);
        ASSERT_STATUS(TSR_ERR_CHECKPOINT, h.status);
        assert_string_equal(said, first);
        free(h.bytes);
    }
    forget(&p);
}

static void a_row_that_is_longer_than_a_piece_is_refused_by_name(void **state)
{
    (void)state;
    char folder[PATH_MAX];
    edit_path(TSR_TEST_DATA, "qwen3-bf16", sizeof(folder), folder);
    const held h = load(folder, 255, BY_ONE_HAND); /* a row of 128 in BF16 has 256 bytes */
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, h.status);
    heard(".weight in model.safetensors", "its rows of 256 bytes, 1 together, are too long");
    free(h.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_any_size_load_the_same_bytes),
        cmocka_unit_test(tensors_may_begin_anywhere),
        cmocka_unit_test(a_nan_in_any_piece_is_named),
        cmocka_unit_test(a_bad_scale_is_named_by_its_place_in_the_tensor),
        cmocka_unit_test(the_first_of_many_that_are_wrong_is_named),
        cmocka_unit_test(a_row_that_is_longer_than_a_piece_is_refused_by_name),
    };
    tsr_log_set_sink(keep_error, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
