/*
 * Safetensors files as lists of tensors that a test may change: how a checkpoint is made that no
 * exporter at hand writes. Everything is in memory; failures end the test.
 */
#ifndef TSR_TESTS_MODEL_SAFETENSORS_EDIT_H
#define TSR_TESTS_MODEL_SAFETENSORS_EDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EDIT_NAME_BYTES = 200, EDIT_MAX_RANK = 8 };

typedef struct edit_tensor {
    char name[EDIT_NAME_BYTES];
    char dtype[12];
    int rank;
    int64_t shape[EDIT_MAX_RANK];
    unsigned char *data; /* owned by the list */
    size_t bytes;
} edit_tensor;

typedef struct edit_list {
    edit_tensor *tensors; /* [count] */
    size_t count;
} edit_list;

/* In the order of the file's payload. */
edit_list edit_read(const char *path);

/* Payload in the order of the list; `header_padding` spaces end the header, so that payloads of any
 * alignment can be made. */
void edit_write(const char *path, const edit_list *list, int header_padding);

/* Fails the test when there is none. */
edit_tensor *edit_find(const edit_list *list, const char *name);

/* A copy of `tensor` under another name at the end of the list. */
void edit_add(edit_list *list, const edit_tensor *tensor, const char *name);

/* Takes the tensor of that name out. */
void edit_remove(edit_list *list, const char *name);

void edit_close(edit_list *list);

/* As f32: from F32, BF16 or F8_E4M3. The caller frees it. */
float *edit_floats(const edit_tensor *tensor, size_t *ret_count);

/* Turns an F32 tensor into BF16, rounding. */
void edit_to_bf16(edit_tensor *tensor);

/* Turns a BF16 tensor into F32. */
void edit_to_f32(edit_tensor *tensor);

/* Turns a BF16 tensor into F16; false, and as it was, where that would change a value. */
bool edit_to_f16(edit_tensor *tensor);

/* "folder/name". */
void edit_path(const char *folder, const char *name, size_t capacity, char *ret_path);

/*
 * A folder of its own below the temporary directory with the files of `folder` (not of its
 * subfolders) but `expected.safetensors`; remove it with edit_remove_folder.
 */
void edit_copy_folder(const char *folder, size_t capacity, char *ret_folder);
void edit_copy_file(const char *from, const char *to);
void edit_remove_folder(const char *folder);

/* Replaces every `old` in a text file; fails the test when there is none. */
void edit_replace_text(const char *path, const char *old, const char *with);

void edit_write_text(const char *path, const char *text);

#endif
