#include "tests/model/safetensors_edit.h"

#include "tests/test.h"

#include "runtime/base/file.h"
#include "runtime/base/numeric.h"
#include "runtime/base/text_buffer.h"

#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE_BYTES = 64 << 20 };

static char *whole_file(const char *path, size_t *ret_bytes)
{
    char *bytes = NULL;
    ASSERT_STATUS(TSR_OK, tsr_file_read_text(path, MAX_FILE_BYTES, &bytes, ret_bytes));
    return bytes;
}

static void write_bytes(const char *path, const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static edit_tensor tensor_of(const char *name, const json_t *entry, const char *payload)
{
    edit_tensor t = {0};
    (void)snprintf(t.name, sizeof(t.name), "%s", name);
    (void)snprintf(t.dtype, sizeof(t.dtype), "%s",
                   json_string_value(json_object_get(entry, "dtype")));
    const json_t *shape = json_object_get(entry, "shape");
    t.rank = (int)json_array_size(shape);
    assert_true(t.rank <= EDIT_MAX_RANK);
    for (int d = 0; d < t.rank; d++)
        t.shape[d] = json_integer_value(json_array_get(shape, (size_t)d));

    const json_t *offsets = json_object_get(entry, "data_offsets");
    const size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    t.bytes = (size_t)json_integer_value(json_array_get(offsets, 1)) - begin;
    t.data = malloc(t.bytes + 1);
    assert_non_null(t.data);
    memcpy(t.data, payload + begin, t.bytes);
    return t;
}

edit_list edit_read(const char *path)
{
    size_t bytes = 0;
    char *file = whole_file(path, &bytes);
    uint64_t header = 0;
    memcpy(&header, file, sizeof(header));
    json_t *root = json_loadb(file + sizeof(header), (size_t)header, 0, NULL);
    assert_non_null(root);

    edit_list list = {.tensors = calloc(json_object_size(root) + 1, sizeof(edit_tensor))};
    assert_non_null(list.tensors);
    const char *name = NULL;
    json_t *entry = NULL;
    json_object_foreach(root, name, entry)
    {
        if (strcmp(name, "__metadata__") != 0)
            list.tensors[list.count++] = tensor_of(name, entry, file + sizeof(header) + header);
    }
    json_decref(root);
    free(file);
    return list;
}

static void add_entry(tsr_text *header, const edit_tensor *t, size_t begin)
{
    const char *comma = header->count > 1 ? "," : "";
    ASSERT_STATUS(TSR_OK, tsr_text_add_format(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[",
                                              comma, t->name, t->dtype));
    for (int d = 0; d < t->rank; d++)
        ASSERT_STATUS(TSR_OK, tsr_text_add_format(header, "%s%lld", d > 0 ? "," : "",
                                                  (long long)t->shape[d]));
    ASSERT_STATUS(TSR_OK, tsr_text_add_format(header, "],\"data_offsets\":[%zu,%zu]}", begin,
                                              begin + t->bytes));
}

void edit_write(const char *path, const edit_list *list, int header_padding)
{
    tsr_text header = {0};
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&header, "{"));
    size_t begin = 0;
    for (size_t i = 0; i < list->count; i++) {
        add_entry(&header, &list->tensors[i], begin);
        begin += list->tensors[i].bytes;
    }
    ASSERT_STATUS(TSR_OK, tsr_text_add_format(&header, "}%*s", header_padding, ""));

    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    uint64_t header_bytes = header.count;
    assert_int_equal(fwrite(&header_bytes, sizeof(header_bytes), 1, file), 1);
    assert_int_equal(fwrite(header.bytes, 1, header.count, file), header.count);
    for (size_t i = 0; i < list->count; i++)
        assert_int_equal(fwrite(list->tensors[i].data, 1, list->tensors[i].bytes, file),
                         list->tensors[i].bytes);
    assert_int_equal(fclose(file), 0);
    tsr_text_close(&header);
}

edit_tensor *edit_find(const edit_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->tensors[i].name, name) == 0)
            return &list->tensors[i];
    }
    print_error("no tensor %s\n", name);
    abort();
}

void edit_add(edit_list *list, const edit_tensor *tensor, const char *name)
{
    edit_tensor copy = *tensor;
    (void)snprintf(copy.name, sizeof(copy.name), "%s", name);
    copy.data = malloc(copy.bytes + 1);
    assert_non_null(copy.data);
    memcpy(copy.data, tensor->data, copy.bytes);

    edit_tensor *longer = realloc(list->tensors, (list->count + 1) * sizeof(*longer));
    assert_non_null(longer);
    list->tensors = longer;
    list->tensors[list->count++] = copy;
}

void edit_remove(edit_list *list, const char *name)
{
    edit_tensor *t = edit_find(list, name);
    free(t->data);
    const size_t behind = list->count - 1 - (size_t)(t - list->tensors);
    memmove(t, t + 1, behind * sizeof(*t));
    list->count--;
}

void edit_close(edit_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->tensors[i].data);
    free(list->tensors);
    *list = (edit_list){0};
}

float *edit_floats(const edit_tensor *tensor, size_t *ret_count)
{
    const size_t element = strcmp(tensor->dtype, "F32") == 0    ? 4
                           : strcmp(tensor->dtype, "BF16") == 0 ? 2
                                                                : 1;
    const size_t count = tensor->bytes / element;
    float *values = calloc(count + 1, sizeof(*values));
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        uint16_t half = 0;
        if (element == 4) {
            memcpy(&values[i], tensor->data + 4 * i, 4);
        } else if (element == 2) {
            memcpy(&half, tensor->data + 2 * i, 2);
            values[i] = tsr_bf16_to_f32(half);
        } else {
            assert_string_equal(tensor->dtype, "F8_E4M3");
            values[i] = tsr_e4m3_to_f32(tensor->data[i]);
        }
    }
    *ret_count = count;
    return values;
}

void edit_to_bf16(edit_tensor *tensor)
{
    assert_string_equal(tensor->dtype, "F32");
    size_t count = 0;
    float *values = edit_floats(tensor, &count);
    for (size_t i = 0; i < count; i++) {
        uint16_t half = tsr_f32_to_bf16(values[i]);
        memcpy(tensor->data + 2 * i, &half, sizeof(half));
    }
    free(values);
    (void)snprintf(tensor->dtype, sizeof(tensor->dtype), "BF16");
    tensor->bytes = 2 * count;
}

void edit_to_f32(edit_tensor *tensor)
{
    size_t count = 0;
    float *values = edit_floats(tensor, &count);
    free(tensor->data);
    tensor->data = (unsigned char *)values;
    tensor->bytes = count * sizeof(*values);
    (void)snprintf(tensor->dtype, sizeof(tensor->dtype), "F32");
}

/* False where the value is no normal half. */
static bool as_half(float value, uint16_t *ret_half)
{
    const uint32_t u = tsr_f32_bits(value);
    const uint32_t exponent = u >> 23 & 255U;
    const bool fits = exponent >= 127 - 14 && exponent <= 127 + 15 && (u & 0x1fffU) == 0;

    *ret_half = (uint16_t)(u >> 16 & 0x8000U);
    if (fits)
        *ret_half = (uint16_t)(*ret_half | (exponent - 112U) << 10 | (u >> 13 & 0x3ffU));
    return fits || value == 0.0F;
}

bool edit_to_f16(edit_tensor *tensor)
{
    size_t count = 0;
    float *values = edit_floats(tensor, &count);
    uint16_t *halves = calloc(count + 1, sizeof(*halves));
    bool exact = true;

    assert_non_null(halves);
    for (size_t i = 0; i < count && exact; i++)
        exact = as_half(values[i], &halves[i]);
    free(values);
    if (!exact) {
        free(halves);
        return false;
    }
    free(tensor->data);
    tensor->data = (unsigned char *)halves;
    tensor->bytes = count * sizeof(*halves);
    (void)snprintf(tensor->dtype, sizeof(tensor->dtype), "F16");
    return true;
}

void edit_path(const char *folder, const char *name, size_t capacity, char *ret_path)
{
    ASSERT_STATUS(TSR_OK, tsr_path_join(folder, name, capacity, ret_path));
}

void edit_copy_file(const char *from, const char *to)
{
    size_t bytes = 0;
    char *content = whole_file(from, &bytes);
    write_bytes(to, content, bytes);
    free(content);
}

void edit_copy_folder(const char *folder, size_t capacity, char *ret_folder)
{
    assert_true(snprintf(ret_folder, capacity, "/tmp/tessera-test-XXXXXX") < (int)capacity);
    assert_non_null(mkdtemp(ret_folder));
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    for (const struct dirent *e = readdir(listing); e != NULL; e = readdir(listing)) {
        char from[PATH_MAX];
        char to[PATH_MAX];
        struct stat info;
        edit_path(folder, e->d_name, sizeof(from), from);
        edit_path(ret_folder, e->d_name, sizeof(to), to);
        if (strcmp(e->d_name, "expected.safetensors") != 0 && stat(from, &info) == 0 &&
            S_ISREG(info.st_mode))
            edit_copy_file(from, to);
    }
    assert_int_equal(closedir(listing), 0);
}

void edit_remove_folder(const char *folder)
{
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    for (const struct dirent *e = readdir(listing); e != NULL; e = readdir(listing)) {
        char path[PATH_MAX];
        edit_path(folder, e->d_name, sizeof(path), path);
        if (e->d_name[0] != '.')
            assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(closedir(listing), 0);
    assert_int_equal(rmdir(folder), 0);
}

void edit_replace_text(const char *path, const char *old, const char *with)
{
    size_t bytes = 0;
    char *text = NULL;
    ASSERT_STATUS(TSR_OK, tsr_file_read_text(path, MAX_FILE_BYTES, &text, &bytes));
    tsr_text result = {0};
    const char *at = text;
    const char *hit = strstr(at, old);
    assert_non_null(hit);
    for (; hit != NULL; hit = strstr(at, old)) {
        ASSERT_STATUS(TSR_OK, tsr_text_add(&result, at, (size_t)(hit - at)));
        ASSERT_STATUS(TSR_OK, tsr_text_add_string(&result, with));
        at = hit + strlen(old);
    }
    ASSERT_STATUS(TSR_OK, tsr_text_add_string(&result, at));
    write_bytes(path, result.bytes, result.count);
    tsr_text_close(&result);
    free(text);
}

void edit_write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}
