/* Headers of safetensors files, good and hostile. */
#include "tests/test.h"

#include "runtime/base/text_buffer.h"
#include "runtime/checkpoint/safetensors.h"
#include "tests/checkpoint/temp_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parses a header followed by `payload` bytes that are not there to be read. */
static tsr_status parse(const char *header, uint64_t payload, tsr_arena *memory,
                        tsr_problems *problems, tsr_safetensors *ret_header)
{
    size_t count = 0;
    char *bytes = temp_safetensors_bytes(header, 0, &count);
    const tsr_safetensors_bytes source = {
        .name = "x.safetensors",
        .bytes = bytes,
        .count = count,
        .file_bytes = count + payload,
        .file = 5,
    };
    const tsr_status st = tsr_safetensors_parse(&source, memory, problems, ret_header);
    free(bytes);
    return st;
}

static void a_good_header_is_read(void **state)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[12,16]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
        "\"empty\":{\"dtype\":\"U8\",\"shape\":[4,0],\"data_offsets\":[16,16]}}   ";
    tsr_arena *memory = NULL;
    tsr_problems problems = {0};
    tsr_safetensors parsed = {0};
    (void)state;

    ASSERT_STATUS(TSR_OK, tsr_arena_open(1024, &memory));
    ASSERT_STATUS(TSR_OK, parse(header, 16, memory, &problems, &parsed));
    assert_int_equal(0, problems.count);
    assert_int_equal(3, parsed.count);
    const tsr_tensor *b = &parsed.tensors[0];
    const tsr_tensor *a = &parsed.tensors[1];
    assert_string_equal("b", b->name);
    assert_int_equal(0, b->rank);
    assert_int_equal(4, b->bytes);
    assert_int_equal(8 + strlen(header) + 12, b->offset);
    assert_string_equal("a", a->name);
    assert_int_equal(TSR_DTYPE_BF16, a->dtype);
    assert_int_equal(2, a->rank);
    assert_int_equal(3, a->shape[1]);
    assert_int_equal(8 + strlen(header), a->offset);
    assert_int_equal(12, a->bytes);
    assert_int_equal(5, a->file);
    tsr_arena_close(memory);
}

#define T(name, dtype, shape, begin, end)                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end   \
    "]}"

/* One defect each, the text its line must hold, and how many lines. */
static const struct hostile {
    const char *header;
    uint64_t payload;
    const char *said;
} hostile[] = {
    {"", 0, "not a JSON object"},
    {"[]", 0, "not a JSON object"},
    {" {}", 0, "not a JSON object"},
    {"{", 0, "not valid JSON"},
    {"{}x", 0, "not valid JSON"},
    {"{\"a\":\"\xff\"}", 0, "not valid JSON"},
    {"{" T("a", "U8", "[2]", "0", "2") "," T("a", "U8", "[2]", "0", "2") "}", 2, "duplicate"},
    {"{\"a\":1}", 0, "tensor \"a\": is not"},
    {"{\"a\":{}}", 0, "tensor \"a\": is not"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2],\"x\":1}}", 2, "\"a\": is not"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"offsets\":[0,2]}}", 2, "\"a\": \"data_offsets\""},
    {"{\"a\":{\"type\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "\"a\": \"dtype\""},
    {"{" T("a", "U9", "[2]", "0", "2") "}", 2, "\"a\": dtype \"U9\" is not known"},
    {"{" T("a", "U8\\u0000", "[2]", "0", "2") "}", 2, "\"a\": dtype \"U8\" is not known"},
    {"{" T("a", "U8", "2", "0", "2") "}", 2, "\"a\": \"shape\""},
    {"{" T("a", "U8", "[2.0]", "0", "2") "}", 2, "\"a\": a dimension is not"},
    {"{" T("a", "U8", "[-2]", "0", "2") "}", 2, "\"a\": a dimension is not"},
    {"{" T("a", "U8", "[null]", "0", "2") "}", 2, "\"a\": a dimension is not"},
    {"{" T("a", "U8", "[99999999999999999999]", "0", "2") "}", 2, "\"a\": a dimension is not"},
    {"{" T("a", "U8", "[1,1,1,1,1,1,1,1,2]", "0", "2") "}", 2, "\"a\": more than 8 dimensions"},
    {"{" T("a", "F32", "[4611686018427387904,4]", "0", "0") "}", 0,
     "\"a\": its shape asks for more"},
    {"{" T("a", "F32", "[4294967296,4294967296]", "0", "0") "}", 0,
     "\"a\": its shape asks for more"},
    {"{" T("a", "BF16", "[3]", "0", "4") "}", 4, "ask for 6 bytes, its offsets hold 4"},
    {"{" T("a", "BF16", "[1]", "0", "4") "}", 4, "ask for 2 bytes, its offsets hold 4"},
    {"{" T("a", "U8", "[2]", "2", "0") "}", 2, "\"a\": \"data_offsets\" end before"},
    {"{" T("a", "U8", "[2]", "-2", "0") "}", 2, "\"a\": \"data_offsets\" is not a pair"},
    {"{" T("a", "U8", "[2]", "0.0", "2") "}", 2, "\"a\": \"data_offsets\" is not a pair"},
    {"{" T("a", "U8", "[2]", "0", "2,3") "}", 2, "\"a\": \"data_offsets\" is not a pair"},
    {"{" T("a", "U8", "[2]", "0", "2") "," T("b", "U8", "[2]", "1", "3") "}", 3,
     "tensor \"b\": overlaps tensor \"a\""},
    {"{" T("a", "U8", "[4]", "0", "4") "," T("b", "U8", "[2]", "1", "3") "}", 4,
     "tensor \"b\": overlaps tensor \"a\""},
    {"{" T("a", "U8", "[2]", "0", "2") "," T("b", "U8", "[2]", "0", "2") "}", 2, "overlaps"},
    {"{" T("a", "U8", "[2]", "0", "2") "," T("b", "U8", "[2]", "3", "5") "}", 5,
     "\"b\": 1 bytes in front of it"},
    {"{" T("b", "U8", "[2]", "1", "3") "}", 3, "\"b\": 1 bytes in front of it"},
    {"{" T("a", "U8", "[2]", "0", "2") "}", 3, "1 bytes behind the last tensor"},
    {"{}", 3, "3 bytes behind the last tensor"},
    {"{" T("a", "U8", "[2]", "0", "2") "}", 1, "truncated: its tensors end at byte"},
    {"{" T("a", "U8", "[9223372036854775807]", "0", "9223372036854775807") "}", 1, "truncated"},
    {"{" T("", "U8", "[2]", "0", "2") "}", 2, "name of tensor number 0"},
    {"{" T("a\\nb", "U8", "[2]", "0", "2") "}", 2, "name of tensor number 0"},
    {"{" T("a\\u0000b", "U8", "[2]", "0", "2") "}", 2, "not valid JSON"},
};

static void every_defect_is_one_line_with_file_and_tensor(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
        tsr_arena *memory = NULL;
        tsr_problems problems = {0};
        tsr_safetensors parsed = {.count = 77};
        ASSERT_STATUS(TSR_OK, tsr_arena_open(1024, &memory));
        const tsr_status st =
            parse(hostile[i].header, hostile[i].payload, memory, &problems, &parsed);
        if (st != TSR_ERR_CHECKPOINT || problems.errors != 1 ||
            !has_problem(&problems, TSR_SEVERITY_ERROR, "x.safetensors: ", hostile[i].said))
            fail_msg("%s\n  wanted: %s\n  got %zu: %s", hostile[i].header, hostile[i].said,
                     problems.errors, problems.count > 0 ? problems.items[0].text : "nothing");
        assert_int_equal(77, parsed.count);
        tsr_problems_close(&problems);
        tsr_arena_close(memory);
    }
}

static void lengths_beyond_the_file_are_refused(void **state)
{
    static const struct {
        unsigned char bytes[10];
        size_t count;
        uint64_t file_bytes;
    } rows[] = {
        {{0}, 0, 0},
        {{1, 0, 0, 0, 0, 0, 0}, 7, 7},
        {{3, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, 10, 10},
        {{2, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, 9, 10},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'}, 10, 10},
        {{1, 0, 0x40, 6, 0, 0, 0, 0, '{', '}'}, 10, (uint64_t)1 << 40}, /* 100 MiB and 1 */
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tsr_arena *memory = NULL;
        tsr_problems problems = {0};
        tsr_safetensors parsed = {0};
        ASSERT_STATUS(TSR_OK, tsr_arena_open(1024, &memory));
        const tsr_safetensors_bytes source = {.name = "x.safetensors",
                                              .bytes = (const char *)rows[i].bytes,
                                              .count = rows[i].count,
                                              .file_bytes = rows[i].file_bytes};
        ASSERT_STATUS(TSR_ERR_CHECKPOINT,
                      tsr_safetensors_parse(&source, memory, &problems, &parsed));
        assert_int_equal(1, problems.errors);
        tsr_problems_close(&problems);
        tsr_arena_close(memory);
    }
}

/* `count` tensors of these bytes each; nothing that follows the first closing brace is JSON, so that
 * a header that is parsed after all is refused with other words. */
static void assert_refused_unparsed(size_t count, int bytes, const char *words)
{
    tsr_text header = {0};
    tsr_arena *memory = NULL;
    tsr_problems problems = {0};
    tsr_safetensors parsed = {0};

    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&header, "{}"));
    for (size_t i = 0; i < count; i++)
        ASSERT_STATUS(TSR_OK, tsr_text_add_format(&header, "\"data_offsets\": [7,%d]", 7 + bytes));
    ASSERT_STATUS(TSR_OK, tsr_arena_open(1024, &memory));
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, parse(header.bytes, 0, memory, &problems, &parsed));
    assert_int_equal(1, problems.errors);
    if (strstr(problems.items[0].text, words) == NULL)
        fail_msg("%s", problems.items[0].text);
    tsr_text_close(&header);
    tsr_problems_close(&problems);
    tsr_arena_close(memory);
}

static void tensors_without_end_are_refused_before_they_are_parsed(void **state)
{
    (void)state;
    assert_refused_unparsed(1000, 0, "not valid JSON");
    assert_refused_unparsed(1001, 0, "describes 1001 tensors, 1001 of them empty");
    assert_refused_unparsed(262144, 1, "not valid JSON");
    assert_refused_unparsed(262145, 1, "describes 262145 tensors, 0 of them empty");
}

static void several_defects_are_said_together(void **state)
{
    static const char header[] =
        "{" T("a", "U9", "[2]", "0", "2") "," T("b", "U8", "[3]", "2", "4") "}";
    tsr_arena *memory = NULL;
    tsr_problems problems = {0};
    tsr_safetensors parsed = {0};
    (void)state;

    ASSERT_STATUS(TSR_OK, tsr_arena_open(1024, &memory));
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, parse(header, 4, memory, &problems, &parsed));
    assert_int_equal(2, problems.errors);
    assert_true(has_problem(&problems, TSR_SEVERITY_ERROR, "\"a\"", "U9"));
    assert_true(has_problem(&problems, TSR_SEVERITY_ERROR, "\"b\"", "ask for 3 bytes"));
    tsr_problems_close(&problems);
    tsr_arena_close(memory);
}

static void files_that_were_not_fetched_whole_are_named(void **state)
{
    const temp_folder folder = temp_folder_copy("qwen3-bf16");
    tsr_arena *memory = NULL;
    tsr_problems problems = {0};
    tsr_safetensors parsed = {0};
    char path[300];
    size_t count = 0;
    (void)state;

    char *bytes = temp_read(&folder, "model.safetensors", &count);
    temp_write(&folder, "model.safetensors", bytes, count - 1);
    free(bytes);
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", folder.path);
    ASSERT_STATUS(TSR_OK, tsr_arena_open(1024, &memory));
    ASSERT_STATUS(TSR_ERR_CHECKPOINT,
                  tsr_safetensors_open(path, "short", 0, memory, &problems, &parsed));
    assert_true(has_problem(&problems, TSR_SEVERITY_ERROR, "short: truncated", NULL));
    ASSERT_STATUS(TSR_ERR_CHECKPOINT,
                  tsr_safetensors_open("/nowhere", "none", 0, memory, &problems, &parsed));
    assert_true(has_problem(&problems, TSR_SEVERITY_ERROR, "none: cannot be read", "No such file"));
    temp_write_text(&folder, "model.safetensors",
                    "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
    ASSERT_STATUS(TSR_ERR_CHECKPOINT,
                  tsr_safetensors_open(path, "pointer", 0, memory, &problems, &parsed));
    assert_true(has_problem(&problems, TSR_SEVERITY_ERROR, "pointer: ", "git lfs pull"));
    tsr_problems_close(&problems);
    tsr_arena_close(memory);
    temp_folder_close(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_header_is_read),
        cmocka_unit_test(every_defect_is_one_line_with_file_and_tensor),
        cmocka_unit_test(lengths_beyond_the_file_are_refused),
        cmocka_unit_test(tensors_without_end_are_refused_before_they_are_parsed),
        cmocka_unit_test(several_defects_are_said_together),
        cmocka_unit_test(files_that_were_not_fetched_whole_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
