/* Statuses, arenas, growing text, problems, JSON and file reading. */
#include "runtime/base/arena.h"
#include "runtime/base/dtype.h"
#include "runtime/base/file.h"
#include "runtime/base/format.h"
#include "runtime/base/json_file.h"
#include "runtime/base/log.h"
#include "runtime/base/problems.h"
#include "runtime/base/text_buffer.h"
#include "tests/test.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void every_status_has_a_name_and_an_exit_code_below_126(void **state)
{
    (void)state;
    for (int s = TSR_OK; s <= TSR_ERR_MISMATCH; s++) {
        assert_true(strlen(tsr_status_name((tsr_status)s)) > 1);
        assert_true(strlen(tsr_status_text((tsr_status)s)) > 1);
        assert_in_range(tsr_status_exit_code((tsr_status)s), s == TSR_OK ? 0 : 1,
                        s == TSR_OK ? 0 : 125);
    }
    assert_int_equal(tsr_status_exit_code((tsr_status)9999), 1);
}

static void arena_memory_is_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    tsr_arena *arena = NULL;
    unsigned char *last = NULL;

    ASSERT_STATUS(TSR_OK, tsr_arena_open(100, &arena));
    for (int round = 0; round < 2; round++) {
        for (size_t bytes = 0; bytes < 300; bytes += 7) {
            unsigned char *p = tsr_arena_alloc(arena, bytes);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 64, 0);
            for (size_t i = 0; i < bytes; i++)
                assert_int_equal(p[i], 0);
            memset(p, 0xa5, bytes);
            assert_ptr_not_equal(p, bytes > 0 ? last : NULL);
            last = p;
        }
        tsr_arena_reset(arena);
        assert_int_equal(tsr_arena_used(arena), 0);
    }
    tsr_arena_close(arena);
    tsr_arena_close(NULL);
}

static void a_sealed_arena_refuses_what_does_not_fit_and_keeps_what_does(void **state)
{
    (void)state;
    tsr_arena *arena = NULL;
    ASSERT_STATUS(TSR_OK, tsr_arena_open(256, &arena));
    tsr_arena_seal(arena);
    assert_non_null(tsr_arena_alloc(arena, 128));
    assert_null(tsr_arena_alloc(arena, 129));
    assert_non_null(tsr_arena_alloc(arena, 128));
    assert_null(tsr_arena_alloc(arena, 1));
    tsr_arena_close(arena);
}

static void arena_sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    tsr_arena *arena = NULL;
    ASSERT_STATUS(TSR_OK, tsr_arena_open(64, &arena));
    assert_null(tsr_arena_alloc(arena, SIZE_MAX));
    assert_null(tsr_arena_array(arena, SIZE_MAX / 4, 8));
    assert_null(tsr_arena_text(arena, "x", SIZE_MAX));
    assert_string_equal(tsr_arena_text(arena, "xyz", 2), "xy");
    tsr_arena_close(arena);
}

static void text_grows_drops_and_clears(void **state)
{
    (void)state;
    tsr_text text = {0};
    for (int i = 0; i < 1000; i++)
        ASSERT_STATUS(TSR_OK, tsr_text_add_format(&text, "%03d,", i));
    assert_int_equal(text.count, 4000);
    tsr_text_drop(&text, 3996);
    assert_string_equal(text.bytes, "999,");
    ASSERT_STATUS(TSR_OK, tsr_text_add(&text, "\0z", 2));
    assert_memory_equal(text.bytes, "999,\0z", 7);
    tsr_text_clear(&text);
    assert_string_equal(text.bytes, "");
    ASSERT_STATUS(TSR_ERR_MEMORY, tsr_text_add(&text, "", SIZE_MAX));
    tsr_text_close(&text);
}

static void count_line(void *context, tsr_log_level level, const char *line)
{
    int *counts = context; /* warnings, errors, lines that say how many more there are */
    counts[0] += level == TSR_LOG_WARN;
    counts[1] += level == TSR_LOG_ERROR;
    counts[2] += strstr(line, "and 1504 further problems") != NULL;
}

static void a_log_shows_the_first_problems_and_counts_the_others(void **state)
{
    (void)state;
    tsr_problems problems = {0};
    int counts[3] = {0};

    for (int i = 0; i < 1506; i++)
        tsr_problems_add(&problems, TSR_SEVERITY_ERROR, "tensor %d is missing", i);
    tsr_problems_add(&problems, TSR_SEVERITY_WARNING, "dropped, but counted");
    tsr_log_set_sink(count_line, counts);
    tsr_problems_log(&problems);
    tsr_log_set_sink(NULL, NULL);
    assert_int_equal(counts[0], 0);
    assert_int_equal(counts[1], 3 + 1);
    assert_int_equal(counts[2], 1);
    tsr_problems_close(&problems);
}

static void warnings_beside_a_refusal_leave_it_room(void **state)
{
    (void)state;
    tsr_problems problems = {0};
    int counts[3] = {0};

    for (int i = 0; i < 5; i++)
        tsr_problems_add(&problems, TSR_SEVERITY_WARNING, "field %d", i);
    tsr_log_set_sink(count_line, counts);
    tsr_problems_log(&problems);
    assert_int_equal(counts[0], 2 + 1);
    assert_int_equal(counts[1], 0);
    tsr_problems_add(&problems, TSR_SEVERITY_ERROR, "a name of\n\033[2Jtwo lines");
    tsr_problems_log(&problems);
    tsr_log_set_sink(NULL, NULL);
    assert_int_equal(counts[0], 2 + 1);
    assert_int_equal(counts[1], 1 + 1);
    tsr_problems_close(&problems);
}

static void problems_beyond_the_thousandth_are_counted(void **state)
{
    (void)state;
    tsr_problems problems = {0};
    tsr_problems_add(&problems, TSR_SEVERITY_WARNING, "first %d", 1);
    assert_false(tsr_problems_has_error(&problems));
    for (int i = 0; i < 1500; i++)
        tsr_problems_add(&problems, TSR_SEVERITY_ERROR, "again");
    assert_true(tsr_problems_has_error(&problems));
    assert_int_equal(problems.count, 1000);
    assert_int_equal(problems.dropped, 501);
    assert_int_equal(problems.errors, 1500);
    assert_string_equal(problems.items[0].text, "again"); /* the warning made room */
    tsr_problems_close(&problems);
    assert_int_equal(problems.count, 0);
}

static void warnings_make_room_for_errors(void **state)
{
    (void)state;
    tsr_problems problems = {0};
    for (int i = 0; i < 1001; i++)
        tsr_problems_add(&problems, TSR_SEVERITY_WARNING, "warning %d", i);
    tsr_problems_add(&problems, TSR_SEVERITY_ERROR, "the error");
    tsr_problems_add(&problems, TSR_SEVERITY_ERROR, "the second");
    assert_int_equal(problems.count, 1000);
    assert_int_equal(problems.dropped, 3);
    assert_string_equal(problems.items[999].text, "the error");
    assert_string_equal(problems.items[998].text, "the second");
    assert_string_equal(problems.items[997].text, "warning 997");
    tsr_problems_close(&problems);
}

static void a_pipe_is_refused_and_not_waited_for(void **state)
{
    (void)state;
    char folder[] = "/tmp/tessera-test-XXXXXX";
    char path[64];
    tsr_file file;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    (void)alarm(10);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_file_open(path, &file));
    (void)alarm(0);
    assert_int_equal(errno, ESPIPE);
    assert_int_equal(unlink(path), 0);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_file_open(folder, &file));
    assert_int_equal(errno, EISDIR);
    assert_int_equal(rmdir(folder), 0);
}

static void json_errors_name_file_and_line(void **state)
{
    (void)state;
    static const char *const cases[] = {"{\n\"a\":1,\n}", "{\"a\":1,\"a\":2}", "[1] x", "", "\xff"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_problems problems = {0};
        json_t *json = NULL;
        ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_json_load_bytes("some.json", cases[i],
                                                              strlen(cases[i]), &problems, &json));
        assert_null(json);
        assert_non_null(strstr(problems.items[0].text, "some.json: line "));
        tsr_problems_close(&problems);
    }
}

static void files_are_read_whole_or_not_at_all(void **state)
{
    (void)state;
    char path[] = "/tmp/tessera-base-XXXXXX";
    const int descriptor = mkstemp(path);
    tsr_file file;
    char bytes[8] = {0};
    char *text = NULL;
    size_t count = 0;

    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, "0123456789", 10), 10);
    assert_int_equal(close(descriptor), 0);
    ASSERT_STATUS(TSR_OK, tsr_file_open(path, &file));
    assert_int_equal(file.bytes, 10);
    ASSERT_STATUS(TSR_OK, tsr_file_read(&file, 4, 4, bytes));
    assert_string_equal(bytes, "4567");
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_file_read(&file, 7, 4, bytes));
    tsr_file_close(&file);
    ASSERT_STATUS(TSR_OK, tsr_file_read_text(path, 10, &text, &count));
    assert_string_equal(text, "0123456789");
    free(text);
    text = NULL;
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_file_read_text(path, 9, &text, &count));
    assert_null(text);
    assert_int_equal(remove(path), 0);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_file_open(path, &file));
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, tsr_file_open("/tmp", &file));
}

static void dtypes_and_formats_have_names_both_ways(void **state)
{
    (void)state;
    for (int d = 0; d < TSR_DTYPE_COUNT; d++) {
        tsr_dtype found = TSR_DTYPE_COUNT;
        assert_true(tsr_dtype_from_name(tsr_dtype_name((tsr_dtype)d), &found));
        assert_int_equal(found, d);
        assert_in_range(tsr_dtype_bytes((tsr_dtype)d), 1, 8);
    }
    tsr_dtype untouched = TSR_DTYPE_U8;
    assert_false(tsr_dtype_from_name("bf16", &untouched));
    assert_int_equal(untouched, TSR_DTYPE_U8);
    for (int f = 0; f < TSR_WEIGHT_FORMAT_COUNT; f++)
        assert_string_not_equal(tsr_weight_format_name((tsr_weight_format)f), "?");
    for (int a = 0; a < TSR_ACTIVATION_COUNT; a++)
        assert_string_not_equal(tsr_activation_name((tsr_activation)a), "?");
    assert_int_equal(tsr_kv_format_bytes(TSR_KV_FP8), 1);
}

/* By hand: [768, 2048], and the scales of an edge of [130, 144]. */
static void the_row_of_a_format_says_how_much_is_stored(void **state)
{
    (void)state;
    static const struct {
        tsr_weight_format format;
        int32_t weight, scales, edge_scales;
        int32_t columns;
    } cases[] = {
        {TSR_WEIGHT_F32, 768 * 2048 * 4, 0, 0, 2048},
        {TSR_WEIGHT_F16, 768 * 2048 * 2, 0, 0, 2048},
        {TSR_WEIGHT_BF16, 768 * 2048 * 2, 0, 0, 2048},
        {TSR_WEIGHT_FP8, 768 * 2048, 0, 0, 2048},
        {TSR_WEIGHT_FP8_CHANNEL, 768 * 2048, 768 * 4, 130 * 4, 2048},
        {TSR_WEIGHT_FP8_BLOCK, 768 * 2048, 6 * 16 * 4, 2 * 2 * 4, 2048},
        {TSR_WEIGHT_NVFP4, 768 * 1024, 768 * 128, 130 * 9, 1024},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const tsr_weight_format f = cases[i].format;
        assert_int_equal(tsr_weight_columns(f, 2048), cases[i].columns);
        assert_int_equal(tsr_weight_bytes(f, 768, 2048), cases[i].weight);
        assert_int_equal(tsr_scale_bytes(f, 768, 2048), cases[i].scales);
        assert_int_equal(tsr_scale_bytes(f, 130, 144), cases[i].edge_scales);
        assert_string_not_equal(tsr_format_row_of(f)->looks_like, "");
    }
    assert_int_equal(sizeof(cases) / sizeof(cases[0]), TSR_WEIGHT_FORMAT_COUNT);
    assert_true(tsr_scale_dtype_fits(TSR_WEIGHT_FP8_BLOCK, TSR_DTYPE_BF16));
    assert_false(tsr_scale_dtype_fits(TSR_WEIGHT_NVFP4, TSR_DTYPE_F32));
    tsr_weight_format found = TSR_WEIGHT_NVFP4;
    assert_true(tsr_format_unquantized(TSR_DTYPE_F16, &found));
    assert_int_equal(found, TSR_WEIGHT_F16);
    assert_false(tsr_format_unquantized(TSR_DTYPE_F8_E4M3, &found));
}

/* What a text becomes, written again. */
static void assert_loads_as(const char *text, const char *wanted)
{
    json_error_t error;
    json_t *json = tsr_json_loadb(text, strlen(text), 0, &error);
    char *dumped = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL;
    if (wanted == NULL)
        assert_null(json);
    else if (dumped == NULL || strcmp(dumped, wanted) != 0)
        fail_msg("%s: %s", text, dumped != NULL ? dumped : error.text);
    free(dumped);
    json_decref(json);
}

static void numbers_beyond_64_bits_stay_where_they_are(void **state)
{
#define BEYOND(digits) "{\"a number beyond 64 bits\":\"" digits "\"}"
    (void)state;
    tsr_text many = {0};

    assert_loads_as("[9223372036854775807,-9223372036854775808]",
                    "[9223372036854775807,-9223372036854775808]");
    assert_loads_as("[9223372036854775808, -9223372036854775809,1]",
                    "[" BEYOND("9223372036854775808") "," BEYOND("-9223372036854775809") ",1]");
    assert_loads_as("{\"a\\\"99999999999999999999\":1e999,\"b\":1e-999,\"c\":-1.5E+400}",
                    "{\"a\\\"99999999999999999999\":" BEYOND("1e999") ",\"b\":0.0,\"c\":" BEYOND(
                        "-1.5E+400") "}");
    assert_loads_as("[1000000000000000019884624838656.0]", "[1e30]");
    static const char *const wrong[] = {
        "[099999999999999999999]",  "[99999999999999999999.]",  "[99999999999999999999e]",
        "[x99999999999999999999]",  "[99999999999999999999x]",  "[99999999999999999999",
        "[--99999999999999999999]", "[\"99999999999999999999]", "[99999999999999999999 1]",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_loads_as(wrong[i], NULL);
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&many, "[1"));
    for (int i = 0; i < 1001; i++)
        ASSERT_STATUS(TSR_OK, tsr_text_add_string(&many, ",99999999999999999999"));
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&many, "]"));
    assert_loads_as(many.bytes, NULL);
    tsr_text_close(&many);
#undef BEYOND
}

static char kept_line[128];

static void keep_line(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)snprintf(kept_line, sizeof(kept_line), "%s", line);
}

static void a_log_line_names_its_rank_and_is_one_line(void **state)
{
    (void)state;
    tsr_log_set_sink(keep_line, NULL);
    tsr_log_set_rank(3);
    tsr_log(TSR_LOG_ERROR, "layer %d", 7);
    assert_string_equal(kept_line, "[rank 3] error: layer 7");
    tsr_log(TSR_LOG_DEBUG, "not shown");
    assert_string_equal(kept_line, "[rank 3] error: layer 7");
    tsr_log_set_rank(-1);
    tsr_log(TSR_LOG_INFO, "loading");
    assert_string_equal(kept_line, "loading");
    tsr_log(TSR_LOG_WARN, "tensor \"%s\"", "a\nb\033[2J\x7f\xc3\xa9");
    assert_string_equal(kept_line, "warning: tensor \"a?b?[2J?\xc3\xa9\"");
    tsr_log_set_sink(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_name_and_an_exit_code_below_126),
        cmocka_unit_test(arena_memory_is_zeroed_aligned_and_apart),
        cmocka_unit_test(a_sealed_arena_refuses_what_does_not_fit_and_keeps_what_does),
        cmocka_unit_test(arena_sizes_that_overflow_are_refused),
        cmocka_unit_test(text_grows_drops_and_clears),
        cmocka_unit_test(a_log_shows_the_first_problems_and_counts_the_others),
        cmocka_unit_test(warnings_beside_a_refusal_leave_it_room),
        cmocka_unit_test(problems_beyond_the_thousandth_are_counted),
        cmocka_unit_test(warnings_make_room_for_errors),
        cmocka_unit_test(a_pipe_is_refused_and_not_waited_for),
        cmocka_unit_test(json_errors_name_file_and_line),
        cmocka_unit_test(files_are_read_whole_or_not_at_all),
        cmocka_unit_test(dtypes_and_formats_have_names_both_ways),
        cmocka_unit_test(the_row_of_a_format_says_how_much_is_stored),
        cmocka_unit_test(numbers_beyond_64_bits_stay_where_they_are),
        cmocka_unit_test(a_log_line_names_its_rank_and_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
