/*
 * Checkpoints of released size, header-only: sparse files that hold every tensor's name, type and
 * place and no weights. `inspect` and `plan` must count the right bytes; how long they took is
 * printed beside the limit of 2 s that a user should not have to exceed.
 *
 * One NVFP4 linear takes out * in / 2 bytes of codes, out * in / 16 of scales and two floats.
 */
#include "runtime/base/clock.h"
#include "tests/launch/command.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 8, LIMIT_MS = 2000 };

typedef struct released {
    const char *name;
    int64_t expert_layers;
    int64_t experts;
    int64_t hidden;
    int64_t intermediate;
    int64_t kv_bytes_per_token; /* bf16 */
} released;

static const released models[] = {
    {"qwen3-235b-a22b", 94, 128, 4096, 1536, 192512},
    {"glm-4.6", 89, 160, 5120, 1536, 376832},
};

static json_t *run_json(const char *command, const char *folder, const char *options)
{
    const int64_t start = tsr_clock_ms();
    const int code = run_command_line("%s %s %s --json %s", TSR_PROGRAM, command, folder, options);
    const int64_t took = tsr_clock_ms() - start;
    if (code != 0)
        assert_said("err", "exit code 0");
    print_message("%s %s: %lld ms (limit %d ms)\n", command, folder, (long long)took, LIMIT_MS);

    json_t *json = json_load_file(scratch_path("out"), 0, NULL);
    assert_non_null(json);
    return json;
}

static int64_t bytes_of_format(const json_t *formats, const char *algo)
{
    for (size_t i = 0; i < json_array_size(formats); i++) {
        const json_t *row = json_array_get(formats, i);
        if (strcmp(json_string_value(json_object_get(row, "algo")), algo) == 0)
            return json_integer_value(json_object_get(row, "bytes"));
    }
    return -1;
}

static int64_t expert_bytes(const released *m)
{
    const int64_t elements = m->hidden * m->intermediate;
    return m->expert_layers * m->experts * 3 *
           (elements / 2 + elements / 16 + 2 * (int64_t)sizeof(float));
}

static void check_inspect(const released *m, const char *folder)
{
    json_t *json = run_json("inspect", folder, "");
    assert_true(json_is_true(json_object_get(json, "proven")));
    assert_int_equal(bytes_of_format(json_object_get(json, "formats"), "NVFP4"), expert_bytes(m));
    json_decref(json);
}

/* Every rank holds its share of the experts and all of the rest, aligned: within 1 % of the sum. */
static void check_plan(const released *m, const char *folder)
{
    json_t *inspected = json_load_file(scratch_path("out"), 0, NULL);
    assert_non_null(inspected);
    const int64_t stored = json_integer_value(json_object_get(inspected, "stored_bytes"));
    json_decref(inspected);

    json_t *json = run_json("plan", folder, "--ranks 8 --target h200 --max-model-len 32K");
    const json_t *ranks = json_object_get(json, "ranks");
    const json_t *limits = json_object_get(json, "limits");
    const int64_t blocks = json_integer_value(json_object_get(limits, "kv_blocks"));
    const int64_t block_tokens = json_integer_value(json_object_get(limits, "kv_block_tokens"));
    const double expected = (double)(stored - expert_bytes(m)) + (double)expert_bytes(m) / RANKS;

    assert_true(json_is_true(json_object_get(json, "fits")));
    assert_int_equal(json_array_size(ranks), RANKS);
    for (size_t r = 0; r < RANKS; r++) {
        const json_t *rank = json_array_get(ranks, r);
        const double weights = (double)json_integer_value(json_object_get(rank, "weights_bytes"));
        assert_true(weights > 0.99 * expected && weights < 1.01 * expected);
        assert_int_equal(json_integer_value(json_object_get(rank, "kv_bytes")),
                         blocks * block_tokens * m->kv_bytes_per_token);
    }
    json_decref(json);
}

/* A rank for each expert: hardly any weights, and buffers that do not grow with the ranks. */
static void check_most_ranks(const released *m, const char *folder)
{
    char options[64];
    (void)snprintf(options, sizeof(options), "--ranks %d --target h200", (int)m->experts);
    json_t *json = run_json("plan", folder, options);
    assert_true(json_is_true(json_object_get(json, "fits")));
    assert_int_equal(json_array_size(json_object_get(json, "ranks")), m->experts);
    json_decref(json);
}

static void released_sizes_are_counted_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        const char *folder = scratch_path(models[i].name);
        assert_int_equal(run_command_line("python3 %s/../oracle/make_sparse_checkpoint.py %s %s",
                                          TSR_TEST_DATA, models[i].name, folder),
                         0);
        check_inspect(&models[i], scratch_path(models[i].name));
        check_plan(&models[i], scratch_path(models[i].name));
        check_most_ranks(&models[i], scratch_path(models[i].name));
        assert_int_equal(run_command_line("rm -rf %s", scratch_path(models[i].name)), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(released_sizes_are_counted_right)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
