/*
 * Index and headers are compared both ways, since either can lack what the other has: a tensor that
 * is nowhere, or one that a stale file still holds. Names are the files' own here, not yet
 * canonical.
 */
#include "runtime/checkpoint/shard_index.h"

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/folder_json.h"
#include "runtime/checkpoint/model_config.h"
#include "runtime/checkpoint/module_name.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { MOST_FILES = 10000, LONGEST_FILE_NAME = 255 };

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

/* A file of this folder: no path, nothing hidden, nothing that would break a message. */
static bool is_plain_name(const json_t *value)
{
    const char *name = json_string_value(value);

    if (name == NULL || strlen(name) != json_string_length(value) || name[0] == '\0' ||
        name[0] == '.' || strlen(name) > LONGEST_FILE_NAME)
        return false;
    for (; *name != '\0'; name++) {
        if (*name == '/' || (unsigned char)*name < 0x20 || *name == 0x7f)
            return false;
    }
    return true;
}

/* The set of files that the map names, as the keys of an object, in order of first mention. */
static tsr_status collect_files(json_t *weight_map, tsr_problems *problems, json_t *files)
{
    const char *tensor = NULL;
    json_t *value = NULL;
    const char *before = "";

    json_object_foreach(weight_map, tensor, value)
    {
        if (!is_plain_name(value)) {
            tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                             "%s: tensor \"%.200s\": does not name a file of this folder",
                             index_name, tensor);
            return TSR_ERR_CHECKPOINT;
        }
        const char *name = json_string_value(value);
        if (strcmp(name, before) == 0)
            continue;
        before = name;
        if (json_object_get(files, name) == NULL && json_object_set(files, name, value) != 0)
            return TSR_ERR_MEMORY;
    }
    if (json_object_size(files) == 0 || json_object_size(files) > MOST_FILES) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: names %zu files", index_name,
                         json_object_size(files));
        return TSR_ERR_CHECKPOINT;
    }
    return TSR_OK;
}

static tsr_status copy_files(json_t *files, tsr_arena *memory, tsr_shard_index *index)
{
    index->files = tsr_arena_array(memory, json_object_size(files), sizeof(*index->files));
    if (index->files == NULL)
        return TSR_ERR_MEMORY;

    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(files, name, value)
    {
        char *copy = tsr_arena_text(memory, name, strlen(name));
        if (copy == NULL)
            return TSR_ERR_MEMORY;
        index->files[index->file_count++] = copy;
    }
    return TSR_OK;
}

static tsr_status read_index(const char *folder, tsr_arena *memory, tsr_problems *problems,
                             tsr_shard_index *index)
{
    json_t *json = NULL;
    tsr_status st = tsr_folder_json_load(folder, index_name, problems, &json);
    if (st != TSR_OK)
        return st;

    json_t *files = json_object();
    index->weight_map = json_incref(json_object_get(json, "weight_map"));
    if (files == NULL) {
        st = TSR_ERR_MEMORY;
    } else if (!json_is_object(index->weight_map)) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: weight_map is missing", index_name);
        st = TSR_ERR_CHECKPOINT;
    }
    if (st == TSR_OK)
        st = collect_files(index->weight_map, problems, files);
    if (st == TSR_OK)
        st = copy_files(files, memory, index);
    json_decref(files);
    json_decref(json);
    return st;
}

/* The index's own files may be one of that name. */
static tsr_status check_single(const tsr_shard_index *index, tsr_problems *problems)
{
    for (size_t i = 0; i < index->file_count; i++) {
        if (strcmp(index->files[i], single_name) == 0)
            return TSR_OK;
    }
    tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                     "%s: stands beside %s, which does not name it; remove one of them",
                     single_name, index_name);
    return TSR_ERR_CHECKPOINT;
}

static tsr_status use_single(tsr_arena *memory, tsr_shard_index *index)
{
    index->files = tsr_arena_array(memory, 1, sizeof(*index->files));
    char *copy = tsr_arena_text(memory, single_name, strlen(single_name));
    if (index->files == NULL || copy == NULL)
        return TSR_ERR_MEMORY;
    index->files[0] = copy;
    index->file_count = 1;
    return TSR_OK;
}

static bool is_safetensors(const char *name)
{
    static const char end[] = ".safetensors";
    const size_t count = strlen(name);
    return count > sizeof(end) - 1 && strcmp(name + count - (sizeof(end) - 1), end) == 0;
}

/* Neither of the two names is there: says which files are. The first by name, so that a run says
 * what the last one said. */
static tsr_status refuse_folder(const char *folder, tsr_problems *problems)
{
    DIR *directory = opendir(folder);
    char first[LONGEST_FILE_NAME + 1] = "";
    size_t count = 0;

    for (const struct dirent *entry = directory != NULL ? readdir(directory) : NULL; entry != NULL;
         entry = readdir(directory)) {
        if (!is_safetensors(entry->d_name))
            continue;
        if (count++ == 0 || strcmp(entry->d_name, first) < 0)
            (void)snprintf(first, sizeof(first), "%s", entry->d_name);
    }
    if (directory != NULL)
        (void)closedir(directory);
    if (count == 0)
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: has neither %s nor %s", folder,
                         single_name, index_name);
    else
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: has %s%s, but not %s, which says what is in which file: download it "
                         "too; a model in one file is named %s",
                         folder, first, count > 1 ? " and others" : "", index_name, single_name);
    return TSR_ERR_CHECKPOINT;
}

tsr_status tsr_shard_index_open(const char *folder, tsr_arena *memory, tsr_problems *problems,
                                tsr_shard_index *ret_index)
{
    const bool has_index = tsr_folder_has(folder, index_name);
    const bool has_single = tsr_folder_has(folder, single_name);
    tsr_shard_index index = {0};
    tsr_status st = TSR_OK;

    if (has_index) {
        st = read_index(folder, memory, problems, &index);
        if (st == TSR_OK && has_single)
            st = check_single(&index, problems);
    } else if (has_single) {
        st = use_single(memory, &index);
    } else {
        st = refuse_folder(folder, problems);
    }
    if (st == TSR_OK)
        *ret_index = index;
    else
        tsr_shard_index_close(&index);
    return st;
}

static bool may_be_unlisted(const tsr_model_facts *model, const char *name)
{
    char canonical[TSR_MAX_TENSOR_NAME + 8];

    tsr_name_canonical(name, canonical);
    return tsr_model_is_mtp_name(model, canonical);
}

static void report_absent(const tsr_shard_index *index, const tsr_tensor *tensors, size_t count,
                          tsr_problems *problems)
{
    for (size_t i = 0; i < count; i++)
        (void)json_object_del(index->weight_map, tensors[i].name);

    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(index->weight_map, name, value)
    {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: tensor \"%.200s\": is not in %s, though %s says so",
                         json_string_value(value), name, json_string_value(value), index_name);
    }
}

tsr_status tsr_shard_index_check(const tsr_shard_index *index, const tsr_model_facts *model,
                                 const tsr_tensor *tensors, size_t count, tsr_problems *problems)
{
    tsr_status st = TSR_OK;
    size_t listed = 0;

    if (index->weight_map == NULL)
        return TSR_OK;
    for (size_t i = 0; i < count; i++) {
        const tsr_tensor *t = &tensors[i];
        const char *file = index->files[t->file];
        const char *said = json_string_value(json_object_get(index->weight_map, t->name));
        if (said != NULL) {
            listed++;
        } else if (!may_be_unlisted(model, t->name)) {
            tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: tensor \"%s\": is not in %s", file,
                             t->name, index_name);
            st = TSR_ERR_CHECKPOINT;
        }
        if (said != NULL && strcmp(said, file) != 0) {
            tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                             "%s: tensor \"%s\": is in this file, but %s says %s", file, t->name,
                             index_name, said);
            st = TSR_ERR_CHECKPOINT;
        }
    }
    if (listed < json_object_size(index->weight_map)) {
        report_absent(index, tensors, count, problems);
        st = TSR_ERR_CHECKPOINT;
    }
    return st;
}

void tsr_shard_index_close(tsr_shard_index *index)
{
    json_decref(index->weight_map);
    *index = (tsr_shard_index){0};
}
