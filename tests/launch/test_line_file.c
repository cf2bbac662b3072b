/* Lines as they come, from a file and from a pipe whose other end is slow. */
#include "launch/files/line_file.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/tessera-lines-XXXXXX";

static tsr_line_file *open_text(const char *text, size_t count)
{
    tsr_line_file *file = NULL;
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(text, 1, count, out), count);
    assert_int_equal(fclose(out), 0);
    ASSERT_STATUS(TSR_OK, tsr_line_file_open(path, &file));
    return file;
}

static void assert_line(tsr_line_file *file, const char *text, uint64_t number)
{
    tsr_line_state state;
    tsr_line line;
    ASSERT_STATUS(TSR_OK, tsr_line_file_next(file, 0, &state, &line));
    assert_int_equal(state, TSR_LINE_ONE);
    assert_int_equal(line.count, strlen(text));
    assert_memory_equal(line.bytes, text, line.count);
    assert_int_equal(line.number, number);
    assert_int_equal(line.loss, TSR_LINE_KEPT);
}

static void assert_state(tsr_line_file *file, int32_t wait_ms, tsr_line_state wanted)
{
    tsr_line_state state;
    tsr_line line;
    ASSERT_STATUS(TSR_OK, tsr_line_file_next(file, wait_ms, &state, &line));
    assert_int_equal(state, wanted);
}

static void lines_are_given_one_by_one_the_last_without_an_end(void **state)
{
    (void)state;
    tsr_line_file *file = open_text("one\n\nthree\nlast", 15);
    assert_line(file, "one", 1);
    assert_line(file, "", 2);
    assert_line(file, "three", 3);
    assert_line(file, "last", 4);
    assert_state(file, 0, TSR_LINE_END);
    assert_state(file, 0, TSR_LINE_END);
    tsr_line_file_close(file);
    file = open_text("", 0);
    assert_state(file, 0, TSR_LINE_END);
    tsr_line_file_close(file);
}

static void a_line_longer_than_the_limit_is_dropped_and_the_next_is_not(void **state)
{
    (void)state;
    const size_t count = (size_t)TSR_MAX_LINE_BYTES + 100000;
    char *text = malloc(count + 7);
    assert_non_null(text);
    memset(text, 'x', count);
    (void)snprintf(text + count, 7, "\nnext\n");
    tsr_line_file *file = open_text(text, count + 6);
    free(text);

    tsr_line_state line_state;
    tsr_line line;
    ASSERT_STATUS(TSR_OK, tsr_line_file_next(file, 0, &line_state, &line));
    assert_int_equal(line_state, TSR_LINE_ONE);
    assert_int_equal(line.loss, TSR_LINE_TOO_LONG);
    assert_int_equal(line.count, TSR_LINE_HEAD_BYTES);
    assert_true(line.whole && line.bytes[0] == 'x');
    assert_line(file, "next", 2);
    assert_state(file, 0, TSR_LINE_END);
    tsr_line_file_close(file);
}

static void half_a_line_in_a_pipe_is_waited_for_no_longer_than_told(void **state)
{
    (void)state;
    int ends[2];
    char name[64];
    tsr_line_file *file = NULL;

    assert_int_equal(pipe(ends), 0);
    (void)snprintf(name, sizeof(name), "/dev/fd/%d", ends[0]);
    ASSERT_STATUS(TSR_OK, tsr_line_file_open(name, &file));
    assert_state(file, 0, TSR_LINE_NONE);
    assert_int_equal(write(ends[1], "ab", 2), 2);
    assert_state(file, 20, TSR_LINE_NONE);
    assert_int_equal(write(ends[1], "c\nd", 3), 3);
    assert_line(file, "abc", 1);
    assert_state(file, 0, TSR_LINE_NONE);
    assert_int_equal(close(ends[1]), 0);
    assert_line(file, "d", 2);
    assert_state(file, 0, TSR_LINE_END);
    tsr_line_file_close(file);
    assert_int_equal(close(ends[0]), 0);
}

static void what_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    tsr_line_file *file = NULL;
    tsr_line_state line_state;
    tsr_line line;
    ASSERT_STATUS(TSR_ERR_ARG, tsr_line_file_open("/nowhere/lines", &file));
    assert_null(file);
    ASSERT_STATUS(TSR_OK, tsr_line_file_open("/tmp", &file));
    ASSERT_STATUS(TSR_ERR_ARG, tsr_line_file_next(file, 0, &line_state, &line));
    tsr_line_file_close(file);
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
        cmocka_unit_test(lines_are_given_one_by_one_the_last_without_an_end),
        cmocka_unit_test(a_line_longer_than_the_limit_is_dropped_and_the_next_is_not),
        cmocka_unit_test(half_a_line_in_a_pipe_is_waited_for_no_longer_than_told),
        cmocka_unit_test(what_cannot_be_read_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
