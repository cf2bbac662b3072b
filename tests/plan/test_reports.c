/* What `inspect` and `plan` print: text for people, JSON for programs, and a status for scripts. */
#include "launch/plan/inspect_command.h"
#include "launch/plan/plan_command.h"
#include "launch/report/path_report.h"
#include "launch/report/precision_map.h"
#include "tests/plan/made_checkpoint.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a command wrote, and how it ended. */
typedef struct printed {
    tsr_status status;
    char *text;
} printed;

static const char *path_of(const char *name)
{
    static char path[1024];

    (void)snprintf(path, sizeof(path), "%s/%s", TSR_TEST_DATA, name);
    return path;
}

static printed inspect(const char *name, bool json, bool colour)
{
    printed p = {0};
    size_t count;
    FILE *out = open_memstream(&p.text, &count);

    assert_non_null(out);
    const tsr_inspect_args args = {
        .folder = path_of(name), .json = json, .colour = colour, .out = out};
    p.status = tsr_inspect(&args);
    assert_int_equal(0, fclose(out));
    return p;
}

static printed plan(const char *name, const tsr_plan_request *request, bool json)
{
    printed p = {0};
    size_t count;
    FILE *out = open_memstream(&p.text, &count);

    assert_non_null(out);
    p.status = tsr_plan_show(path_of(name), request, json, false, out);
    assert_int_equal(0, fclose(out));
    return p;
}

static json_t *parsed(const printed *p)
{
    json_t *json = json_loads(p->text, 0, NULL);

    assert_non_null(json);
    return json;
}

static void assert_holds(const printed *p, const char *text)
{
    if (strstr(p->text, text) == NULL)
        fail_msg("not printed: %s\n%s", text, p->text);
}

static void the_map_shows_each_layers_formats(void **state)
{
    printed p = inspect("glm4-mixed-keys", false, false);
    (void)state;
    ASSERT_STATUS(TSR_OK, p.status);
    assert_holds(&p, "layers     q k v o       g u d         g u d         g u d");
    assert_holds(&p, "\n  0          4 4 4 4       8 8 4 ");
    assert_holds(&p, "\n  1          8 8 8 4                     8 8 8         4 4 4 ");
    assert_holds(&p, "\n  2          . . . .                     4 4 4         8 8 8 ");
    assert_holds(&p, "\n  3          8 8 8 .                     . . .         . . . ");
    assert_holds(&p, "proven: all 105 linears are stored as declared");
    free(p.text);
}

static void equal_layers_share_a_row(void **state)
{
    printed p = inspect("qwen3-nvfp4", false, false);
    (void)state;
    assert_holds(&p, "\n  0-3        4 4 4 4       4 4 4 ");
    free(p.text);
}

static void colour_is_drawn_only_when_asked_for(void **state)
{
    printed plain = inspect("qwen3-mixed", false, false),
            colour = inspect("qwen3-mixed", false, true);
    (void)state;
    assert_null(strchr(plain.text, '\033'));
    assert_non_null(strchr(colour.text, '\033'));
    free(plain.text);
    free(colour.text);
}

static const char *module_of(json_t *json, size_t layer, const char *module)
{
    json_t *modules =
        json_object_get(json_array_get(json_object_get(json, "layers"), layer), "modules");

    return json_string_value(json_object_get(modules, module));
}

static void inspect_as_json_names_every_module(void **state)
{
    printed p = inspect("glm4-mixed-keys", true, false);
    json_t *json = parsed(&p);
    (void)state;
    assert_true(json_is_true(json_object_get(json, "proven")));
    assert_int_equal(4, json_array_size(json_object_get(json, "layers")));
    assert_string_equal("NVFP4", module_of(json, 1, "experts.gate_proj"));
    assert_string_equal("FP8", module_of(json, 2, "experts.down_proj"));
    assert_string_equal("none", module_of(json, 3, "experts.up_proj"));
    assert_string_equal("NVFP4", module_of(json, 0, "down_proj"));
    assert_string_equal("MIXED_PRECISION", json_string_value(json_object_get(
                                               json_object_get(json, "declared"), "quant_algo")));
    json_decref(json);
    free(p.text);
}

static void a_folder_without_a_checkpoint_is_refused_in_both_forms(void **state)
{
    printed p = inspect("nowhere", false, false);
    (void)state;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, p.status);
    assert_holds(&p, "error: ");
    free(p.text);

    p = inspect("nowhere", true, false);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, p.status);
    json_t *json = parsed(&p);
    assert_true(json_is_false(json_object_get(json, "proven")));
    assert_true(json_array_size(json_object_get(json, "problems")) > 0);
    json_decref(json);
    free(p.text);
}

static tsr_plan_request request_for(const char *target, int32_t ranks, uint64_t memory)
{
    return (tsr_plan_request){
        .ranks = ranks, .target = tsr_target_find(target), .memory_bytes = memory};
}

static void plan_as_json_holds_bytes_of_every_rank(void **state)
{
    tsr_plan_request request = request_for("h200", 3, 0);
    printed p = plan("glm4-mixed-keys", &request, true);
    json_t *json = parsed(&p), *ranks = json_object_get(json, "ranks");
    (void)state;
    ASSERT_STATUS(TSR_OK, p.status);
    assert_true(json_is_true(json_object_get(json, "fits")));
    assert_int_equal(3, json_array_size(ranks));
    for (size_t r = 0; r < 3; r++) {
        static const char *const kinds[] = {"weights_bytes", "kv_bytes", "workspace_bytes",
                                            "buffers_bytes"};
        assert_int_equal(r, json_integer_value(json_object_get(json_array_get(ranks, r), "rank")));
        for (int k = 0; k < 4; k++)
            assert_true(json_integer_value(json_object_get(json_array_get(ranks, r), kinds[k])) >
                        0);
    }
    json_decref(json);
    free(p.text);
}

static void the_path_report_says_what_is_not_as_declared(void **state)
{
    tsr_plan_request request = request_for("h200", 2, 0);
    printed p = plan("glm4-mixed-keys", &request, false);
    (void)state;
    assert_holds(&p, "NVFP4 experts: weights only (W4A16), because h200 has no FP4 tensor cores; "
                     "layer 1\n");
    assert_holds(&p, "FP8 experts: as declared, activations FP8 by the stored input_scale; layer "
                     "2\n");
    assert_holds(&p, "BF16 experts: not quantized; layer 3\n");
    assert_holds(&p, "BF16 embedding, router, head: not quantized\n");
    free(p.text);

    request = request_for("cpu", 2, UINT64_C(1) << 30);
    request.activations_of = tsr_target_find("h200");
    p = plan("glm4-mixed-keys", &request, false);
    assert_holds(&p, "because h200 has no FP4 tensor cores");
    free(p.text);

    request.activations = TSR_ACTIVATIONS_WEIGHT_ONLY;
    p = plan("glm4-mixed-keys", &request, false);
    assert_holds(&p, "as --activations weight-only asks");
    free(p.text);
}

static void a_plan_that_does_not_fit_is_printed_all_the_same(void **state)
{
    tsr_plan_request request = request_for("cpu", 4, 1 << 20);
    printed p = plan("demo-mixed", &request, true);
    json_t *json = parsed(&p);
    (void)state;
    ASSERT_STATUS(TSR_ERR_CAPACITY, p.status);
    assert_true(json_is_false(json_object_get(json, "fits")));
    assert_int_equal(4, json_array_size(json_object_get(json, "ranks")));
    assert_holds(&p, "does not fit: rank 0 needs");
    json_decref(json);
    free(p.text);

    p = plan("demo-mixed", &request, false);
    ASSERT_STATUS(TSR_ERR_CAPACITY, p.status);
    assert_holds(&p, "does not fit\n");
    free(p.text);
}

static void layers_are_written_as_ranges(void **state)
{
    const bool some[] = {true, false, true, true, true, false, true};
    const bool none[] = {false, false};
    char text[64];
    (void)state;
    tsr_layer_ranges(some, 7, sizeof(text), text);
    assert_string_equal("0, 2-4, 6", text);
    tsr_layer_ranges(none, 2, sizeof(text), text);
    assert_string_equal("", text);
    tsr_layer_ranges(some, 7, 6, text); /* as much as there is room for */
    assert_string_equal("0, 2-", text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_map_shows_each_layers_formats),
        cmocka_unit_test(equal_layers_share_a_row),
        cmocka_unit_test(colour_is_drawn_only_when_asked_for),
        cmocka_unit_test(inspect_as_json_names_every_module),
        cmocka_unit_test(a_folder_without_a_checkpoint_is_refused_in_both_forms),
        cmocka_unit_test(plan_as_json_holds_bytes_of_every_rank),
        cmocka_unit_test(the_path_report_says_what_is_not_as_declared),
        cmocka_unit_test(a_plan_that_does_not_fit_is_printed_all_the_same),
        cmocka_unit_test(layers_are_written_as_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
