/* What `score` reads and writes: files of tokens, good and bad, and files of logits. */
#include "launch/score/logits_file.h"
#include "launch/score/token_file.h"
#include "runtime/checkpoint/safetensors.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 10, TEXT_BYTES = 4096 };

static char path[] = "/tmp/tessera-score-XXXXXX";

typedef struct tokens {
    tsr_arena *memory;
    tsr_problems problems;
    tsr_token_file file;
    tsr_status status;
} tokens;

static void put(const void *bytes, size_t count)
{
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, count, out), count);
    assert_int_equal(fclose(out), 0);
}

static tokens read_tokens(void)
{
    tokens t = {0};
    ASSERT_STATUS(TSR_OK, tsr_arena_open(1 << 12, &t.memory));
    t.status = tsr_token_file_read(path, VOCAB, t.memory, &t.problems, &t.file);
    return t;
}

static void close_tokens(tokens *t)
{
    tsr_problems_close(&t->problems);
    tsr_arena_close(t->memory);
}

/* A header and so many ids: 0 to 9, then 0 again. */
static void put_tensors(const char *header, int32_t ids)
{
    const uint64_t length = strlen(header);
    FILE *out = fopen(path, "wb");

    assert_non_null(out);
    assert_int_equal(fwrite(&length, sizeof(length), 1, out), 1);
    assert_int_equal(fwrite(header, 1, length, out), length);
    for (int32_t i = 0; i < ids; i++) {
        const int32_t id = i % VOCAB;
        assert_int_equal(fwrite(&id, sizeof(id), 1, out), 1);
    }
    assert_int_equal(fclose(out), 0);
}

/* The file that is there is refused, and the words say why. */
static void assert_refused(const char *words)
{
    tokens t = read_tokens();
    ASSERT_STATUS(TSR_ERR_ARG, t.status);
    assert_int_equal(t.problems.count, 1);
    if (strstr(t.problems.items[0].text, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", t.problems.items[0].text, words);
    close_tokens(&t);
}

static void lists_of_ids_are_read(void **state)
{
    (void)state;
    static const char text[] = " [[1, 2, 9],\n[0]]\n";
    put(text, sizeof(text) - 1);
    tokens t = read_tokens();
    ASSERT_STATUS(TSR_OK, t.status);
    assert_int_equal(t.file.count, 2);
    assert_int_equal(t.file.longest, 3);
    assert_int_equal(t.file.sequences[0].ids[2], 9);
    assert_int_equal(t.file.sequences[1].count, 1);
    close_tokens(&t);
}

static void lists_of_anything_else_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "not valid JSON"},
        {"[]", "array of arrays"},
        {"{}", "array of arrays"},
        {"[1, 2]", "sequence 0: expected a list"},
        {"[[1], []]", "sequence 1: expected a list of at least one id"},
        {"[[1], null]", "sequence 1: expected a list"},
        {"[[1, 10]]", "sequence 0, position 1: id 10 is not one of the model's 0 to 9"},
        {"[[1, -1]]", "whole number"},
        {"[[1.0]]", "whole number"},
        {"[[\"1\"]]", "whole number"},
        {"[[true]]", "whole number"},
        {"[[4294967297]]", "whole number"},
        {"[[99999999999999999999]]", "whole number"},
        {"[[1]] [[2]]", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put(bad[i][0], strlen(bad[i][0]));
        assert_refused(bad[i][1]);
    }
}

/* In any order, beside other tensors, and more than ten of them. */
static void tensors_are_read_by_their_numbers(void **state)
{
    (void)state;
    char header[TEXT_BYTES] = "{\"other\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
    static const int order[] = {10, 0, 3, 2, 1, 9, 8, 4, 5, 7, 6};
    for (int i = 0; i < 11; i++) {
        const size_t used = strlen(header);
        (void)snprintf(
            header + used, sizeof(header) - used,
            ",\"tokens.%d\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[%d,%d]}%s", order[i],
            4 * order[i], 4 * order[i] + 4, i == 10 ? "}" : "");
    }
    put_tensors(header, 11);
    tokens t = read_tokens();
    ASSERT_STATUS(TSR_OK, t.status);
    assert_int_equal(t.file.count, 11);
    for (int i = 0; i < 11; i++)
        assert_int_equal(t.file.sequences[i].ids[0], i % VOCAB);
    close_tokens(&t);
}

static void a_number_beyond_the_tensors_is_a_gap(void **state)
{
    (void)state;
    put_tensors("{\"tokens.0\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                "\"tokens.1\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[4,8]},"
                "\"tokens.29\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
                3);
    assert_refused("sequence 2: there is no tensor");
}

static void tensors_of_anything_else_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *dtype;
        const char *shape;
        int32_t bytes;
        const char *words;
    } bad[] = {
        {"tokens.0", "I64", "[1]", 8, "sequence 0: expected int32 [T]"},
        {"tokens.0", "F32", "[2]", 8, "sequence 0: expected int32 [T]"},
        {"tokens.0", "I32", "[1,2]", 8, "sequence 0: expected int32 [T]"},
        {"tokens.0", "I32", "[0]", 0, "sequence 0: expected int32 [T]"},
        {"tokens.1", "I32", "[2]", 8, "sequence 0: there is no tensor"},
        {"tokens.00", "I32", "[2]", 8, "sequence 0: there is no tensor"},
        {"tokens.x", "I32", "[2]", 8, "sequence 0: there is no tensor"},
        {"tokens.", "I32", "[2]", 8, "sequence 0: there is no tensor"},
        {"tokens", "I32", "[2]", 8, "sequence 0: there is no tensor"},
        {"tokens.18446744073709551616", "I32", "[2]", 8, "sequence 0: there is no tensor"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char header[TEXT_BYTES];
        (void)snprintf(header, sizeof(header),
                       "{\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[0,%d]}}",
                       bad[i].name, bad[i].dtype, bad[i].shape, bad[i].bytes);
        put_tensors(header, bad[i].bytes / 4);
        assert_refused(bad[i].words);
    }
}

static tsr_status open_written(tsr_arena *memory, tsr_safetensors *ret_header)
{
    tsr_problems problems = {0};
    const tsr_status st = tsr_safetensors_open(path, path, 0, memory, &problems, ret_header);
    tsr_problems_close(&problems);
    return st;
}

/* A killed job leaves what was written so far: all but the finish, in the worst case. */
static void logits_are_no_safetensors_file_before_the_end(void **state)
{
    (void)state;
    static const int32_t ids[] = {1, 2, 3};
    tsr_token_sequence sequences[] = {{ids, 2}, {ids, 3}};
    const tsr_token_file asked = {.sequences = sequences, .count = 2, .longest = 3};
    const float rows[3 * VOCAB] = {1.0F, 2.0F};
    tsr_logits_file *file = NULL;
    tsr_arena *memory = NULL;
    tsr_safetensors header;

    assert_int_equal(remove(path), 0);
    ASSERT_STATUS(TSR_OK, tsr_arena_open(1 << 12, &memory));
    ASSERT_STATUS(TSR_OK, tsr_logits_file_open(path, &asked, VOCAB, &file));
    ASSERT_STATUS(TSR_OK, tsr_logits_file_write(file, 1, 0, 3, rows));
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, open_written(memory, &header));
    ASSERT_STATUS(TSR_OK, tsr_logits_file_write(file, 0, 1, 1, rows));
    ASSERT_STATUS(TSR_OK, tsr_logits_file_write(file, 0, 0, 1, rows));
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, open_written(memory, &header));
    ASSERT_STATUS(TSR_OK, tsr_logits_file_finish(file, 2));
    tsr_logits_file_close(file);

    ASSERT_STATUS(TSR_OK, open_written(memory, &header));
    assert_int_equal(header.count, 2);
    assert_string_equal(header.tensors[0].name, "logits.0");
    assert_int_equal(header.tensors[0].dtype, TSR_DTYPE_F32);
    assert_int_equal(header.tensors[1].shape[0], 3);
    assert_int_equal(header.tensors[1].shape[1], VOCAB);
    tsr_arena_close(memory);
}

/* Nor do they take the place of logits that are there, those of the test before. */
static void logits_with_rows_that_never_came_stay_none(void **state)
{
    (void)state;
    static const int32_t ids[] = {1, 2, 3};
    tsr_token_sequence sequence = {ids, 3};
    const tsr_token_file asked = {.sequences = &sequence, .count = 1, .longest = 3};
    const float rows[2 * VOCAB] = {0.0F};
    tsr_logits_file *file = NULL;
    tsr_arena *memory = NULL;
    tsr_safetensors header;

    ASSERT_STATUS(TSR_OK, tsr_arena_open(1 << 12, &memory));
    ASSERT_STATUS(TSR_OK, tsr_logits_file_open(path, &asked, VOCAB, &file));
    ASSERT_STATUS(TSR_OK, tsr_logits_file_write(file, 0, 1, 2, rows));
    ASSERT_STATUS(TSR_ERR_OUTPUT, tsr_logits_file_finish(file, 1));
    tsr_logits_file_close(file);
    ASSERT_STATUS(TSR_OK, open_written(memory, &header));
    assert_int_equal(header.count, 2);

    assert_int_equal(remove(path), 0);
    ASSERT_STATUS(TSR_OK, tsr_logits_file_open(path, &asked, VOCAB, &file));
    ASSERT_STATUS(TSR_OK, tsr_logits_file_write(file, 0, 1, 2, rows));
    ASSERT_STATUS(TSR_ERR_OUTPUT, tsr_logits_file_finish(file, 1));
    tsr_logits_file_close(file);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, open_written(memory, &header));
    tsr_arena_close(memory);
    put("", 0); /* for whoever removes it */
}

/* A job that drains scores the first of its sequences. */
static void logits_of_the_first_sequences_are_a_file(void **state)
{
    (void)state;
    static const int32_t ids[] = {1, 2, 3};
    tsr_token_sequence sequences[] = {{ids, 2}, {ids, 3}, {ids, 1}};
    const tsr_token_file asked = {.sequences = sequences, .count = 3, .longest = 3};
    const float rows[3 * VOCAB] = {1.0F, 2.0F};

    for (size_t scored = 1; scored <= 3; scored++) {
        tsr_logits_file *file = NULL;
        tsr_arena *memory = NULL;
        tsr_safetensors header;

        assert_int_equal(remove(path), 0);
        ASSERT_STATUS(TSR_OK, tsr_arena_open(1 << 12, &memory));
        ASSERT_STATUS(TSR_OK, tsr_logits_file_open(path, &asked, VOCAB, &file));
        for (size_t i = 0; i < scored; i++)
            ASSERT_STATUS(TSR_OK,
                          tsr_logits_file_write(file, i, 0, asked.sequences[i].count, rows));
        ASSERT_STATUS(TSR_OK, tsr_logits_file_finish(file, scored));
        tsr_logits_file_close(file);
        ASSERT_STATUS(TSR_OK, open_written(memory, &header));
        assert_int_equal(header.count, scored);
        tsr_arena_close(memory);
    }
}

static int make_file(void **state)
{
    (void)state;
    const int descriptor = mkstemp(path);
    return descriptor < 0 ? -1 : close(descriptor);
}

static int remove_file(void **state)
{
    (void)state;
    return remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_of_ids_are_read),
        cmocka_unit_test(lists_of_anything_else_are_refused),
        cmocka_unit_test(tensors_are_read_by_their_numbers),
        cmocka_unit_test(a_number_beyond_the_tensors_is_a_gap),
        cmocka_unit_test(tensors_of_anything_else_are_refused),
        cmocka_unit_test(logits_are_no_safetensors_file_before_the_end),
        cmocka_unit_test(logits_with_rows_that_never_came_stay_none),
        cmocka_unit_test(logits_of_the_first_sequences_are_a_file),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
