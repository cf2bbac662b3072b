#include "runtime/checkpoint/checkpoint.h"

#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/checkpoint/folder_json.h"
#include "runtime/checkpoint/generation_config.h"
#include "runtime/checkpoint/model_config.h"
#include "runtime/checkpoint/module_name.h"
#include "runtime/checkpoint/quant_config.h"
#include "runtime/checkpoint/shard_index.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 1 << 20 };

/* JSON files of the folder; those that may be missing are NULL then. */
typedef struct config_files {
    json_t *config;
    json_t *generation;
    json_t *hf_quant;
} config_files;

static tsr_status load_if_there(const char *folder, const char *name, tsr_problems *problems,
                                json_t **ret_json)
{
    if (!tsr_folder_has(folder, name))
        return TSR_OK;
    return tsr_folder_json_load(folder, name, problems, ret_json);
}

static tsr_status load_files(const char *folder, tsr_problems *problems, config_files *files)
{
    tsr_status st = tsr_folder_json_load(folder, "config.json", problems, &files->config);

    if (load_if_there(folder, "generation_config.json", problems, &files->generation) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (load_if_there(folder, "hf_quant_config.json", problems, &files->hf_quant) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_folder_has(folder, "quant_cfg.json")) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "quant_cfg.json: overlays are not read; put its rows into "
                         "hf_quant_config.json and remove it");
        st = TSR_ERR_CHECKPOINT;
    }
    return st;
}

static void close_files(config_files *files)
{
    json_decref(files->config);
    json_decref(files->generation);
    json_decref(files->hf_quant);
}

/* The ids that end an answer, and sampling defaults. */
static tsr_status read_generation(const config_files *files, tsr_problems *problems,
                                  tsr_checkpoint *checkpoint)
{
    const tsr_fields config = {files->config, "config.json", problems};
    const tsr_fields generation = {files->generation, "generation_config.json", problems};

    tsr_status st = tsr_eos_read(&generation, &checkpoint->model);
    if (tsr_eos_read(&config, &checkpoint->model) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (tsr_generation_config_read(&generation, &checkpoint->generation) != TSR_OK)
        st = TSR_ERR_CHECKPOINT;
    if (st == TSR_OK && checkpoint->model.eos_count == 0)
        tsr_problems_add(problems, TSR_SEVERITY_WARNING,
                         "config.json: eos_token_id: is missing: only their length ends answers");
    return st;
}

static tsr_status read_files(const config_files *files, tsr_problems *problems,
                             tsr_checkpoint *checkpoint)
{
    const tsr_fields config = {files->config, "config.json", problems};

    tsr_status st = tsr_model_config_read(&config, &checkpoint->model);
    if (st == TSR_OK)
        st = read_generation(files, problems, checkpoint);

    const tsr_status quant_st = tsr_quant_config_read(
        files->config, files->hf_quant, checkpoint->memory, problems, &checkpoint->declared);
    return st == TSR_OK ? quant_st : st;
}

static tsr_status read_configs(const char *folder, tsr_problems *problems,
                               tsr_checkpoint *checkpoint)
{
    config_files files = {0};

    tsr_status st = load_files(folder, problems, &files);
    if (st == TSR_OK)
        st = read_files(&files, problems, checkpoint);
    close_files(&files);
    return st;
}

static int compare_names(const void *left, const void *right)
{
    const tsr_tensor *a = left;
    const tsr_tensor *b = right;
    return strcmp(a->name, b->name);
}

/* Names that say "language_model." lose it; all others stay where they are. */
static tsr_status make_canonical(tsr_checkpoint *checkpoint)
{
    for (size_t i = 0; i < checkpoint->tensor_count; i++) {
        tsr_tensor *t = &checkpoint->tensors[i];
        char canonical[TSR_MAX_TENSOR_NAME + 8];
        tsr_name_canonical(t->name, canonical);
        if (strcmp(canonical, t->name) == 0)
            continue;
        t->name = tsr_arena_text(checkpoint->memory, canonical, strlen(canonical));
        if (!t->name)
            return TSR_ERR_MEMORY;
    }
    return TSR_OK;
}

static tsr_status sort_tensors(tsr_checkpoint *checkpoint, tsr_problems *problems)
{
    tsr_tensor *tensors = checkpoint->tensors;
    tsr_status st = TSR_OK;

    qsort(tensors, checkpoint->tensor_count, sizeof(*tensors), compare_names);
    for (size_t i = 1; i < checkpoint->tensor_count; i++) {
        if (strcmp(tensors[i - 1].name, tensors[i].name) != 0)
            continue;
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: tensor \"%s\": is in %s as well",
                         checkpoint->files[tensors[i].file], tensors[i].name,
                         checkpoint->files[tensors[i - 1].file]);
        st = TSR_ERR_CHECKPOINT;
    }
    return st;
}

static tsr_status join_headers(const tsr_safetensors *headers, tsr_checkpoint *checkpoint)
{
    size_t count = 0;
    for (size_t i = 0; i < checkpoint->file_count; i++)
        count += headers[i].count;

    checkpoint->tensors = tsr_arena_array(checkpoint->memory, count + 1, sizeof(tsr_tensor));
    if (!checkpoint->tensors)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < checkpoint->file_count; i++) {
        if (headers[i].count > 0)
            memcpy(checkpoint->tensors + checkpoint->tensor_count, headers[i].tensors,
                   headers[i].count * sizeof(tsr_tensor));
        checkpoint->tensor_count += headers[i].count;
    }
    return TSR_OK;
}

static tsr_status read_header(const char *folder, size_t file, tsr_problems *problems,
                              tsr_checkpoint *checkpoint, tsr_safetensors *ret_header)
{
    char path[TSR_PATH_BYTES];
    const char *name = checkpoint->files[file];

    if (tsr_path_join(folder, name, sizeof(path), path) != TSR_OK) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: the folder's path is too long", name);
        return TSR_ERR_CHECKPOINT;
    }
    const tsr_status st =
        tsr_safetensors_open(path, name, (int32_t)file, checkpoint->memory, problems, ret_header);
    if (st == TSR_OK)
        checkpoint->file_bytes[file] = ret_header->file_bytes;
    return st;
}

/* Reads every header, also after a bad one, so that all bad files are named at once. */
static tsr_status read_headers(const char *folder, tsr_problems *problems,
                               tsr_checkpoint *checkpoint)
{
    const size_t count = checkpoint->file_count;
    tsr_safetensors *headers = calloc(count + 1, sizeof(*headers));
    checkpoint->file_bytes =
        tsr_arena_array(checkpoint->memory, count + 1, sizeof(*checkpoint->file_bytes));
    tsr_status st = headers && checkpoint->file_bytes ? TSR_OK : TSR_ERR_MEMORY;

    for (size_t i = 0; st != TSR_ERR_MEMORY && i < count; i++) {
        const tsr_status file_st = read_header(folder, i, problems, checkpoint, &headers[i]);
        if (file_st != TSR_OK)
            st = file_st;
    }
    if (st == TSR_OK)
        st = join_headers(headers, checkpoint);
    free(headers);
    return st;
}

/* Without a model there are no layers to tell further prediction by; headers are checked alone. */
static tsr_status read_tensors(const char *folder, bool model_known, tsr_problems *problems,
                               tsr_checkpoint *checkpoint)
{
    tsr_shard_index index = {0};
    tsr_status st = tsr_shard_index_open(folder, checkpoint->memory, problems, &index);
    if (st != TSR_OK)
        return st;

    checkpoint->files = index.files;
    checkpoint->file_count = index.file_count;
    st = read_headers(folder, problems, checkpoint);
    if (st == TSR_OK && model_known)
        st = tsr_shard_index_check(&index, &checkpoint->model, checkpoint->tensors,
                                   checkpoint->tensor_count, problems);
    tsr_shard_index_close(&index);
    if (st == TSR_OK)
        st = make_canonical(checkpoint);
    if (st == TSR_OK)
        st = sort_tensors(checkpoint, problems);
    return st;
}

static tsr_status read_folder(const char *folder, tsr_problems *problems,
                              tsr_checkpoint *checkpoint)
{
    checkpoint->folder = tsr_arena_text(checkpoint->memory, folder, strlen(folder));
    if (!checkpoint->folder)
        return TSR_ERR_MEMORY;

    const tsr_status st = read_configs(folder, problems, checkpoint);
    const tsr_status tensors_st = read_tensors(folder, st == TSR_OK, problems, checkpoint);
    return st == TSR_OK ? tensors_st : st;
}

tsr_status tsr_checkpoint_open(const char *folder, tsr_problems *problems,
                               tsr_checkpoint **ret_checkpoint)
{
    tsr_arena *memory = NULL;
    tsr_status st = tsr_arena_open(FIRST_BYTES, &memory);
    if (st != TSR_OK)
        return st;

    tsr_checkpoint *checkpoint = tsr_arena_alloc(memory, sizeof(*checkpoint));
    if (checkpoint) {
        checkpoint->memory = memory;
        st = read_folder(folder, problems, checkpoint);
    } else {
        st = TSR_ERR_MEMORY;
    }
    if (st == TSR_OK)
        *ret_checkpoint = checkpoint;
    else
        tsr_arena_close(memory);
    return st;
}

const tsr_tensor *tsr_checkpoint_find(const tsr_checkpoint *checkpoint, const char *name)
{
    const tsr_tensor wanted = {.name = name};

    return bsearch(&wanted, checkpoint->tensors, checkpoint->tensor_count, sizeof(wanted),
                   compare_names);
}

void tsr_checkpoint_close(tsr_checkpoint *checkpoint)
{
    if (checkpoint)
        tsr_arena_close(checkpoint->memory);
}
