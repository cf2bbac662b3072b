#include "tests/checkpoint/temp_folder.h"

#include "tests/test.h"

#include "runtime/base/file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_BYTES = 64 << 20, PATH_BYTES = 512 };

static void path_of(const temp_folder *folder, const char *file, char path[PATH_BYTES])
{
    ASSERT_STATUS(TSR_OK, tsr_path_join(folder->path, file, PATH_BYTES, path));
}

temp_folder temp_folder_open(void)
{
    temp_folder folder;
    const char *base = "/tmp";
    (void)snprintf(folder.path, sizeof(folder.path), "%s/tsr_checkpoint_XXXXXX", base);
    assert_non_null(mkdtemp(folder.path));
    return folder;
}

temp_folder temp_folder_copy(const char *name)
{
    static const char *const files[] = {"config.json", "generation_config.json",
                                        "hf_quant_config.json", "model.safetensors"};
    temp_folder from;
    (void)snprintf(from.path, sizeof(from.path), "%s/%s", TSR_TEST_DATA, name);
    const temp_folder to = temp_folder_open();

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[PATH_BYTES];
        path_of(&from, files[i], path);
        if (!tsr_file_exists(path))
            continue;
        size_t count = 0;
        char *bytes = temp_read(&from, files[i], &count);
        temp_write(&to, files[i], bytes, count);
        free(bytes);
    }
    return to;
}

void temp_folder_close(const temp_folder *folder)
{
    DIR *directory = opendir(folder->path);
    assert_non_null(directory);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_name[0] != '.')
            temp_remove(folder, entry->d_name);
    }
    (void)closedir(directory);
    assert_int_equal(0, rmdir(folder->path));
}

void temp_write(const temp_folder *folder, const char *file, const void *bytes, size_t count)
{
    char path[PATH_BYTES];
    path_of(folder, file, path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(count, fwrite(bytes, 1, count, f));
    assert_int_equal(0, fclose(f));
}

void temp_write_text(const temp_folder *folder, const char *file, const char *text)
{
    temp_write(folder, file, text, strlen(text));
}

void temp_write_json(const temp_folder *folder, const char *file, const json_t *json)
{
    char *text = json_dumps(json, 0);
    assert_non_null(text);
    temp_write_text(folder, file, text);
    free(text);
}

void temp_remove(const temp_folder *folder, const char *file)
{
    char path[PATH_BYTES];
    path_of(folder, file, path);
    assert_int_equal(0, unlink(path));
}

char *temp_read(const temp_folder *folder, const char *file, size_t *ret_count)
{
    char path[PATH_BYTES];
    char *bytes = NULL;
    path_of(folder, file, path);
    ASSERT_STATUS(TSR_OK, tsr_file_read_text(path, MOST_BYTES, &bytes, ret_count));
    return bytes;
}

json_t *temp_read_json(const temp_folder *folder, const char *file)
{
    size_t count = 0;
    char *text = temp_read(folder, file, &count);
    json_t *json = json_loadb(text, count, 0, NULL);
    assert_non_null(json);
    free(text);
    return json;
}

void temp_patch(const temp_folder *folder, const char *file, const char *patch)
{
    json_t *json = temp_read_json(folder, file);
    json_t *changes = json_loads(patch, 0, NULL);
    assert_non_null(changes);
    assert_int_equal(0, json_object_update_recursive(json, changes));
    temp_write_json(folder, file, json);
    json_decref(changes);
    json_decref(json);
}

char *temp_safetensors_bytes(const char *header, size_t payload, size_t *ret_count)
{
    const size_t length = strlen(header);
    char *bytes = calloc(1, 8 + length + payload + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < 8; i++)
        bytes[i] = (char)(length >> (8 * i) & 0xff);
    memcpy(bytes + 8, header, length + 1);
    *ret_count = 8 + length;
    return bytes;
}

void temp_write_safetensors(const temp_folder *folder, const char *file, const temp_tensor *tensors,
                            size_t count)
{
    json_t *header = json_object();
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        json_t *shape = json_loads(tensors[i].shape, 0, NULL);
        assert_non_null(shape);
        const uint64_t end = at + tensors[i].bytes;
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensors[i].dtype, "shape", shape,
                                  "data_offsets", (json_int_t)at, (json_int_t)end);
        assert_int_equal(0, json_object_set_new(header, tensors[i].name, entry));
        at = end;
    }
    char *text = json_dumps(header, 0);
    assert_non_null(text);

    size_t header_count = 0;
    char *bytes = temp_safetensors_bytes(text, (size_t)at, &header_count);
    temp_write(folder, file, bytes, header_count + (size_t)at);
    free(bytes);
    free(text);
    json_decref(header);
}

bool has_problem(const tsr_problems *problems, tsr_severity severity, const char *one,
                 const char *two)
{
    for (size_t i = 0; i < problems->count; i++) {
        const tsr_problem *p = &problems->items[i];
        if (p->severity == severity && (one == NULL || strstr(p->text, one) != NULL) &&
            (two == NULL || strstr(p->text, two) != NULL))
            return true;
    }
    return false;
}
