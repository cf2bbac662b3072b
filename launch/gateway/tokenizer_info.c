/* The file is read as it is: what it means for ids has been checked by whoever opened the
 * tokenizer. */
#include "launch/gateway/tokenizer_info.h"

#include "runtime/base/json_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_CONFIG_BYTES = 64 << 20, MOST_TEMPLATE_BYTES = 4 << 20, PATH_BYTES = 4096 };

/* "</s>", or {"content": "</s>", ...}. */
static json_t *flat(json_t *value)
{
    json_t *content = json_object_get(value, "content");
    return json_is_string(content) ? content : value;
}

static bool copy_fields(json_t *config, json_t *info)
{
    const char *name = NULL;
    json_t *value = NULL;
    bool good = true;

    json_object_foreach(config, name, value)
    {
        const bool plain = !json_is_object(flat(value)) && !json_is_array(value);
        const bool is_template = strcmp(name, "chat_template") == 0;
        if (plain || is_template)
            good = good && json_object_set(info, name, flat(value)) == 0;
    }
    return good;
}

/* The file's text; NULL where there is none. */
static json_t *read_template(const char *folder)
{
    char path[PATH_BYTES];
    json_t *text = NULL;

    (void)snprintf(path, sizeof(path), "%s/chat_template.jinja", folder);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    char *bytes = malloc(MOST_TEMPLATE_BYTES);
    if (bytes != NULL) {
        const size_t count = fread(bytes, 1, MOST_TEMPLATE_BYTES, file);
        if (count < MOST_TEMPLATE_BYTES && ferror(file) == 0)
            text = json_stringn(bytes, count);
    }
    free(bytes);
    (void)fclose(file);
    return text;
}

tsr_status tsr_tokenizer_info_read(const char *folder, json_t **ret_info)
{
    char path[PATH_BYTES];
    tsr_problems problems = {0};
    json_t *config = NULL;
    json_t *info = json_object();
    tsr_status st = info != NULL ? TSR_OK : TSR_ERR_MEMORY;

    (void)snprintf(path, sizeof(path), "%s/tokenizer_config.json", folder);
    if (st == TSR_OK && access(path, F_OK) == 0)
        st = tsr_json_load_file(path, MOST_CONFIG_BYTES, &problems, &config);
    tsr_problems_log(&problems);
    tsr_problems_close(&problems);
    json_t *text = st == TSR_OK ? read_template(folder) : NULL;
    if (st == TSR_OK && !copy_fields(config, info))
        st = TSR_ERR_MEMORY;
    if (st == TSR_OK && text != NULL && json_object_set(info, "chat_template", text) != 0)
        st = TSR_ERR_MEMORY;
    if (st == TSR_OK && json_object_get(info, "eos_token") == NULL &&
        json_object_set_new(info, "eos_token", json_null()) != 0)
        st = TSR_ERR_MEMORY;
    json_decref(text);
    json_decref(config);
    if (st == TSR_OK)
        *ret_info = info;
    else
        json_decref(info);
    return st;
}
