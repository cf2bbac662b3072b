/* transformers reads this file over tokenizer.json: a token that only this one names would get an id
 * of its own there. It is served where both say the same. */
#include "runtime/text/tokenizer_config.h"

#include "runtime/base/field_rows.h"
#include "runtime/base/file.h"
#include "runtime/base/json_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 64 * 1024 * 1024, PATH_BYTES = 4096, DECIMAL = 10 };

static const tsr_known_field rows[] = {
    READ("added_tokens_decoder"),
    READ("additional_special_tokens"), /* chat_template.c, for the template */
    READ("bos_token"),
    READ("chat_template"),
    READ("cls_token"),
    READ("eos_token"),
    READ("mask_token"),
    READ("pad_token"),
    READ("sep_token"),
    READ("unk_token"),
    NEUTRAL("add_bos_token", "false"),
    NEUTRAL("add_eos_token", "false"),
    NEUTRAL("add_prefix_space", "false"),
    NEUTRAL("do_lower_case", "false"),
    NEUTRAL("do_normalize", "false"),
    NEUTRAL("remove_space", "false"),
    NEUTRAL("split_special_tokens", "false"),
    IGNORED("added_tokens"),
    IGNORED("auto_map"),
    IGNORED("backend"),
    IGNORED("clean_up_tokenization_spaces"), /* of decoding, by those who ask for it */
    IGNORED("errors"),
    IGNORED("extra_special_tokens"),
    IGNORED("fix_mistral_regex"),
    IGNORED("is_local"),
    IGNORED("legacy"),
    IGNORED("local_files_only"),
    IGNORED("model_input_names"),
    IGNORED("model_max_length"),
    IGNORED("model_specific_special_tokens"),
    IGNORED("name_or_path"),
    IGNORED("pad_to_multiple_of"),
    IGNORED("pad_token_type_id"),
    IGNORED("padding_side"),
    IGNORED("processor_class"),
    IGNORED("response_schema"),
    IGNORED("special_tokens_map_file"),
    IGNORED("tokenizer_class"),
    IGNORED("tokenizer_file"),
    IGNORED("truncation_side"),
};
static const tsr_field_table table = TABLE(rows);

typedef struct reader {
    const char *path;
    const json_t *config;
    const tsr_tokenizer *tokenizer;
    tsr_problems *problems;
} reader;

static tsr_status check_fields(const reader *r)
{
    tsr_status st = TSR_OK;
    const char *name = NULL;
    json_t *value = NULL;

    json_object_foreach((json_t *)(uintptr_t)r->config, name, value)
    {
        char shown_name[TSR_SHOWN_BYTES];
        char shown[TSR_SHOWN_BYTES];
        const tsr_field_verdict verdict = tsr_field_judge(&table, name, value);
        (void)tsr_field_show_name(name, shown_name);
        (void)tsr_field_show(value, shown);
        if (verdict == TSR_FIELD_UNKNOWN)
            tsr_problems_add(r->problems, TSR_SEVERITY_WARNING,
                             "%s: %s: is not known and has no effect", r->path, shown_name);
        if (verdict != TSR_FIELD_NOT_SERVED)
            continue;
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR, "%s: %s: %s is not served", r->path,
                         shown_name, shown);
        st = TSR_ERR_CHECKPOINT;
    }
    return st;
}

/* Every token that has its id here has the same in tokenizer.json. */
static tsr_status check_added(const reader *r)
{
    json_t *added = json_object_get(r->config, "added_tokens_decoder");
    const char *id_text = NULL;
    json_t *token = NULL;

    json_object_foreach(added, id_text, token)
    {
        const char *content = json_string_value(json_object_get(token, "content"));
        char *end = NULL;
        const long id = strtol(id_text, &end, DECIMAL);
        char shown[TSR_SHOWN_BYTES];
        if (content != NULL && *end == '\0' && end != id_text &&
            tsr_tokenizer_id(r->tokenizer, content) == id)
            continue;
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                         "%s: added_tokens_decoder: %s is not what tokenizer.json has at that id",
                         r->path, tsr_field_show_name(id_text, shown));
        return TSR_ERR_CHECKPOINT;
    }
    return TSR_OK;
}

/* A token is written as its text, or as an object that has the text as "content". */
static tsr_status find_eos(const reader *r, int32_t *ret_eos)
{
    const json_t *token = json_object_get(r->config, "eos_token");
    const json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;
    char shown[TSR_SHOWN_BYTES];

    *ret_eos = -1;
    if (token == NULL || json_is_null(token))
        return TSR_OK;
    if (json_is_string(text) && strlen(json_string_value(text)) == json_string_length(text))
        *ret_eos = tsr_tokenizer_id(r->tokenizer, json_string_value(text));
    if (*ret_eos >= 0)
        return TSR_OK;
    tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                     "%s: eos_token: %s is no token of tokenizer.json", r->path,
                     tsr_field_show(text, shown));
    return TSR_ERR_CHECKPOINT;
}

tsr_status tsr_tokenizer_config_read(const char *folder, const tsr_tokenizer *tokenizer,
                                     tsr_problems *problems, int32_t *ret_eos)
{
    char path[PATH_BYTES];
    json_t *config = NULL;
    int32_t eos = -1;

    tsr_status st = tsr_path_join(folder, "tokenizer_config.json", sizeof(path), path);
    if (st == TSR_OK && tsr_file_exists(path))
        st = tsr_json_load_file(path, MOST_BYTES, problems, &config);
    if (st == TSR_OK && config != NULL && !json_is_object(config)) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: is not a JSON object", path);
        st = TSR_ERR_CHECKPOINT;
    }
    const reader r = {path, config, tokenizer, problems};
    if (st == TSR_OK)
        st = check_fields(&r);
    if (st == TSR_OK)
        st = check_added(&r);
    if (st == TSR_OK)
        st = find_eos(&r, &eos);
    json_decref(config);
    if (st == TSR_OK)
        *ret_eos = eos;
    return st;
}
