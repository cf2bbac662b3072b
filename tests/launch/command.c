#include "tests/launch/command.h"

#include "tests/test.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COMMAND_BYTES = 4096, PATH_BYTES = 512, KEPT_PATHS = 4 };

static char folder[] = "/tmp/tessera-test-XXXXXX";

static void remove_folder(void)
{
    char command[PATH_BYTES];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    if (system(command) != 0)
        (void)fprintf(stderr, "%s could not be removed\n", folder);
}

const char *scratch_folder(void)
{
    static int made;
    if (!made) {
        made = 1;
        assert_non_null(mkdtemp(folder));
        (void)atexit(remove_folder);
        (void)setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
        (void)setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
        (void)setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe", 1);
    }
    return folder;
}

const char *scratch_path(const char *name)
{
    static char paths[KEPT_PATHS][PATH_BYTES];
    static int next;
    char *path = paths[next++ % KEPT_PATHS];
    (void)snprintf(path, PATH_BYTES, "%s/%s", scratch_folder(), name);
    return path;
}

int run_command_line(const char *format, ...)
{
    char asked[COMMAND_BYTES];
    char command[COMMAND_BYTES + 2 * PATH_BYTES];
    va_list args;

    va_start(args, format);
    const int used = vsnprintf(asked, sizeof(asked), format, args);
    va_end(args);
    assert_in_range(used, 1, sizeof(asked) - 1);
    (void)snprintf(command, sizeof(command), "%s >'%s' 2>'%s' </dev/null", asked,
                   scratch_path("out"), scratch_path("err"));

    const int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

const char *mpirun(int ranks)
{
    static char text[PATH_BYTES];
    (void)scratch_folder();
    (void)snprintf(text, sizeof(text), "mpirun -n %d --oversubscribe --bind-to none", ranks);
    return text;
}

char *read_whole(const char *path, size_t *ret_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("%s cannot be read", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long bytes = ftell(file);
    assert_true(bytes >= 0);
    rewind(file);

    char *text = malloc((size_t)bytes + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)bytes, file), bytes);
    text[bytes] = '\0';
    (void)fclose(file);
    if (ret_bytes != NULL)
        *ret_bytes = (size_t)bytes;
    return text;
}

size_t tensor_begin(const char *bytes, const char *tensor)
{
    uint64_t header_bytes = 0;
    memcpy(&header_bytes, bytes, sizeof(header_bytes));
    json_t *header = json_loadb(bytes + sizeof(header_bytes), header_bytes, 0, NULL);
    json_t *offsets = json_object_get(json_object_get(header, tensor), "data_offsets");
    assert_int_equal(json_array_size(offsets), 2);
    const size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    json_decref(header);
    return sizeof(header_bytes) + header_bytes + begin;
}

void assert_said(const char *stream, const char *text)
{
    char *said = read_whole(scratch_path(stream), NULL);
    if (strstr(said, text) == NULL)
        fail_msg("expected \"%s\" on %s, got:\n%s", text, stream, said);
    free(said);
}

void assert_error_lines(int count)
{
    char *said = read_whole(scratch_path("err"), NULL);
    int lines = 0;
    for (const char *at = strstr(said, "error: "); at != NULL; at = strstr(at + 1, "error: "))
        lines++;
    if (lines != count)
        fail_msg("expected %d lines of error, got:\n%s", count, said);
    free(said);
}
