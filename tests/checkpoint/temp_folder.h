/* A checkpoint folder to spoil: a copy of one of tests/data under a name of mkdtemp. */
#ifndef TSR_TESTS_CHECKPOINT_TEMP_FOLDER_H
#define TSR_TESTS_CHECKPOINT_TEMP_FOLDER_H

#include "runtime/base/problems.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct temp_folder {
    char path[256];
} temp_folder;

/* A tensor of a file to be written; its payload is zeros. */
typedef struct temp_tensor {
    const char *name;
    const char *dtype;
    const char *shape; /* JSON: "[16, 16]" */
    uint64_t bytes;
} temp_tensor;

/* Every failure below ends the test. */
temp_folder temp_folder_open(void);

/* A copy of tests/data/NAME: config.json, the other two JSON files and model.safetensors. */
temp_folder temp_folder_copy(const char *name);

/* Removes the folder and its files. */
void temp_folder_close(const temp_folder *folder);

void temp_write(const temp_folder *folder, const char *file, const void *bytes, size_t count);
void temp_write_text(const temp_folder *folder, const char *file, const char *text);
void temp_write_json(const temp_folder *folder, const char *file, const json_t *json);
void temp_remove(const temp_folder *folder, const char *file);
json_t *temp_read_json(const temp_folder *folder, const char *file);

/* The whole file; the caller frees it. */
char *temp_read(const temp_folder *folder, const char *file, size_t *ret_count);

/* Replaces members of a JSON file, recursively. */
void temp_patch(const temp_folder *folder, const char *file, const char *patch);

/*
 * Length and header, and room for `payload` zeros behind them; the caller frees it.
 * *ret_count is that of length and header.
 */
char *temp_safetensors_bytes(const char *header, size_t payload, size_t *ret_count);

/* A safetensors file of these tensors, back to back. */
void temp_write_safetensors(const temp_folder *folder, const char *file, const temp_tensor *tensors,
                            size_t count);

/* True when a problem of that severity holds both texts; NULL stands for any. */
bool has_problem(const tsr_problems *problems, tsr_severity severity, const char *one,
                 const char *two);

#endif
