/*
 * Reading goes on after an error where it can, so that one run names what is wrong in every file.
 * An overlay that would change the declarations is refused: left unread, it would change them in
 * silence.
 */
#include "runtime/checkpoint/configs.h"

#include "runtime/checkpoint/folder_json.h"
#include "runtime/checkpoint/generation_config.h"
#include "runtime/checkpoint/model_config.h"
#include "runtime/checkpoint/quant_config.h"

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

    st = tsr_status_of_two(
        st, load_if_there(folder, "generation_config.json", problems, &files->generation));
    st = tsr_status_of_two(
        st, load_if_there(folder, "hf_quant_config.json", problems, &files->hf_quant));
    if (tsr_folder_has(folder, "quant_cfg.json")) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "quant_cfg.json: overlays are not read; put its rows into "
                         "hf_quant_config.json and remove it");
        st = tsr_status_of_two(st, TSR_ERR_CHECKPOINT);
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
static tsr_status read_generation(const char *folder, const config_files *files,
                                  tsr_problems *problems, tsr_configs *configs)
{
    const tsr_fields config = {files->config, "config.json", problems};
    const tsr_fields generation = {files->generation, "generation_config.json", problems};

    tsr_status st = tsr_eos_read(&generation, &configs->model);
    st = tsr_status_of_two(st, tsr_eos_read(&config, &configs->model));
    st = tsr_status_of_two(st, tsr_generation_config_read(&generation, &configs->generation));
    /* what a tokenizer's own configuration names is for those who have the tokenizer */
    if (st == TSR_OK && configs->model.eos_count == 0 &&
        !tsr_folder_has(folder, "tokenizer_config.json"))
        tsr_problems_add(problems, TSR_SEVERITY_WARNING,
                         "config.json: eos_token_id: is missing: only their length ends answers");
    return st;
}

static tsr_status read_files(const char *folder, const config_files *files, tsr_arena *memory,
                             tsr_problems *problems, tsr_configs *configs)
{
    const tsr_fields config = {files->config, "config.json", problems};

    tsr_status st = tsr_model_config_read(&config, &configs->model);
    if (st == TSR_OK)
        st = read_generation(folder, files, problems, configs);

    const tsr_status quant_st =
        tsr_quant_config_read(files->config, files->hf_quant, memory, problems, &configs->declared);
    return tsr_status_of_two(st, quant_st);
}

tsr_status tsr_configs_read(const char *folder, tsr_arena *memory, tsr_problems *problems,
                            tsr_configs *ret_configs)
{
    config_files files = {0};
    tsr_configs configs = {0};

    tsr_status st = load_files(folder, problems, &files);
    if (st == TSR_OK)
        st = read_files(folder, &files, memory, problems, &configs);
    close_files(&files);
    if (st == TSR_OK)
        *ret_configs = configs;
    return st;
}
