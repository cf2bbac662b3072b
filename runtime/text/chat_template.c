/*
 * Between the checkpoint's files, the caller's JSON and the interpreter in jinja/.
 *
 *   open     chat_template.jinja, else tokenizer_config.json --parse--> nodes, for all renders
 *   render   JSON --convert--> values --run--> text             in an arena of its own, thrown away
 *
 * Parsed once, in front, so that what can be refused unseen is refused before the weights are read.
 * Each render has steps and memory of its own, and its text appears only when it is whole.
 */
#include "runtime/text/chat_template.h"

#include "runtime/base/file.h"
#include "runtime/base/json_file.h"
#include "runtime/text/jinja/run.h"
#include "runtime/text/jinja/takes_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, CONFIG_BYTES_MOST = 64 * 1024 * 1024, ARENA_BYTES = 64 * 1024 };

struct tsr_chat_template {
    char *name; /* stands for the file in messages */
    tsr_arena *arena;
    const tsr_jinja_node *root;
    bool takes_parts;
    tsr_answer_style answer_style;
    json_t *tokens; /* bos_token and friends; NULL for none */
};

tsr_status tsr_chat_template_parse(const char *name, const char *source, size_t bytes,
                                   tsr_problems *problems, tsr_chat_template **ret_template)
{
    tsr_chat_template *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return TSR_ERR_MEMORY;
    made->name = strdup(name);
    tsr_status st = made->name != NULL ? tsr_arena_open(ARENA_BYTES, &made->arena) : TSR_ERR_MEMORY;
    if (st == TSR_OK) {
        const tsr_jinja_source text = {.name = made->name,
                                       .text = {.bytes = source, .count = bytes}};
        st = tsr_jinja_parse(text, made->arena, problems, &made->root);
    }
    if (st == TSR_OK)
        made->takes_parts = tsr_jinja_takes_parts(made->root);
    made->answer_style = tsr_answer_style_of(source, bytes);
    if (st != TSR_OK) {
        tsr_chat_template_close(made);
        return st;
    }
    *ret_template = made;
    return TSR_OK;
}

bool tsr_chat_template_takes_parts(const tsr_chat_template *chat_template)
{
    return chat_template->takes_parts;
}

tsr_answer_style tsr_chat_template_answer_style(const tsr_chat_template *chat_template)
{
    return chat_template->answer_style;
}

void tsr_chat_template_close(tsr_chat_template *chat_template)
{
    if (chat_template == NULL)
        return;
    json_decref(chat_template->tokens);
    tsr_arena_close(chat_template->arena);
    free(chat_template->name);
    free(chat_template);
}

/* A token is written as its text, or as an object that has the text as "content". */
static json_t *token_text(json_t *token)
{
    json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;
    return json_is_string(text) ? text : NULL;
}

/* Copies what tokenizer_config.json says of one special token, or of a list of them. */
static bool copy_token(json_t *config, const char *key, json_t *into)
{
    json_t *token = json_object_get(config, key);
    json_t *text = token_text(token);
    if (text != NULL)
        return json_object_set(into, key, text) == 0;
    if (!json_is_array(token))
        return true;
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < json_array_size(token); i++) {
        text = token_text(json_array_get(token, i));
        if (text != NULL && json_array_append(list, text) != 0) {
            json_decref(list);
            return false;
        }
    }
    return list != NULL && json_object_set_new(into, key, list) == 0;
}

static tsr_status copy_tokens(json_t *config, json_t **ret_tokens)
{
    static const char *const keys[] = {
        "bos_token", "eos_token", "unk_token",  "sep_token",
        "pad_token", "cls_token", "mask_token", "additional_special_tokens"};
    json_t *tokens = json_object();
    for (size_t i = 0; tokens != NULL && i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (!copy_token(config, keys[i], tokens)) {
            json_decref(tokens);
            return TSR_ERR_MEMORY;
        }
    }
    if (tokens == NULL)
        return TSR_ERR_MEMORY;
    *ret_tokens = tokens;
    return TSR_OK;
}

/* The template in tokenizer_config.json: a text, or the one named "default" of a list. */
static const json_t *config_template(const json_t *config)
{
    const json_t *found = json_object_get(config, "chat_template");
    if (!json_is_array(found))
        return found;
    for (size_t i = 0; i < json_array_size(found); i++) {
        const json_t *row = json_array_get(found, i);
        const char *name = json_string_value(json_object_get(row, "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            return json_object_get(row, "template");
    }
    return NULL;
}

static tsr_status parse_file(const char *path, tsr_problems *problems,
                             tsr_chat_template **ret_template)
{
    char *text = NULL;
    size_t bytes = 0;
    tsr_status st = tsr_file_read_text(path, TSR_JINJA_SOURCE_MOST, &text, &bytes);
    if (st != TSR_OK) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: cannot be read: it must be a file of no more than 1 MiB", path);
        return st;
    }
    st = tsr_chat_template_parse(path, text, bytes, problems, ret_template);
    free(text);
    return st;
}

static tsr_status parse_config(const char *path, const json_t *config, tsr_problems *problems,
                               tsr_chat_template **ret_template)
{
    const json_t *text = config_template(config);
    if (text == NULL || json_is_null(text)) {
        *ret_template = NULL;
        return TSR_OK;
    }
    if (!json_is_string(text)) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: chat_template is neither a string nor a list with a \"default\"",
                         path);
        return TSR_ERR_CHECKPOINT;
    }
    return tsr_chat_template_parse(path, json_string_value(text), json_string_length(text),
                                   problems, ret_template);
}

tsr_status tsr_chat_template_open(const char *folder, tsr_problems *problems,
                                  tsr_chat_template **ret_template)
{
    char file[PATH_BYTES];
    char config_file[PATH_BYTES];
    json_t *config = NULL;
    json_t *tokens = NULL;
    tsr_chat_template *made = NULL;
    tsr_status st = tsr_path_join(folder, "chat_template.jinja", sizeof(file), file);
    if (st == TSR_OK)
        st = tsr_path_join(folder, "tokenizer_config.json", sizeof(config_file), config_file);
    if (st == TSR_OK && tsr_file_exists(config_file))
        st = tsr_json_load_file(config_file, CONFIG_BYTES_MOST, problems, &config);
    if (st == TSR_OK)
        st = copy_tokens(config, &tokens);
    if (st == TSR_OK)
        st = tsr_file_exists(file) ? parse_file(file, problems, &made)
                                   : parse_config(config_file, config, problems, &made);
    json_decref(config);
    if (st != TSR_OK || made == NULL) {
        json_decref(tokens);
    } else {
        made->tokens = tokens;
    }
    if (st == TSR_OK)
        *ret_template = made;
    return st;
}

static tsr_status convert(tsr_jinja_run *run, const json_t *json, tsr_jinja_value *ret_value);

static tsr_status convert_list(tsr_jinja_run *run, const json_t *json, tsr_jinja_value *ret_value)
{
    tsr_jinja_list *list = NULL;
    tsr_status st = tsr_jinja_list_new(run, TSR_JINJA_PLAIN_LIST, json_array_size(json), &list);
    for (size_t i = 0; st == TSR_OK && i < list->count; i++)
        st = convert(run, json_array_get(json, i), &list->items[i]);
    if (st == TSR_OK)
        *ret_value = tsr_jinja_list_value(list);
    return st;
}

/* Adds an object's members, whose keys are told apart already. */
static tsr_status convert_members(tsr_jinja_run *run, const json_t *json, tsr_jinja_dict *dict)
{
    tsr_status st = TSR_OK;
    /* jansson's iterators want a pointer to an object that may change; this one does not. */
    json_t *object = (json_t *)(uintptr_t)json;
    for (void *at = json_object_iter(object); at != NULL && st == TSR_OK;
         at = json_object_iter_next(object, at)) {
        tsr_jinja_pair *pair = &dict->pairs[dict->count++];
        pair->key = tsr_jinja_text_value(tsr_jinja_text_of(json_object_iter_key(at)));
        st = convert(run, json_object_iter_value(at), &pair->value);
    }
    return st;
}

static tsr_status convert_dict(tsr_jinja_run *run, const json_t *json, tsr_jinja_value *ret_value)
{
    tsr_jinja_dict *dict = NULL;
    const char *beyond = json_string_value(json_object_get(json, tsr_json_beyond));
    if (beyond != NULL)
        return tsr_jinja_fail(run, "%.64s is a number beyond 64 bits, which is not served", beyond);
    tsr_status st = tsr_jinja_dict_new(run, json_object_size(json), &dict);
    if (st == TSR_OK)
        st = convert_members(run, json, dict);
    if (st == TSR_OK)
        *ret_value = (tsr_jinja_value){.kind = TSR_JINJA_DICT, .as.dict = dict};
    return st;
}

/* Text is not copied: the caller's JSON outlives the render. */
static tsr_status convert(tsr_jinja_run *run, const json_t *json, tsr_jinja_value *ret_value)
{
    tsr_status st = tsr_jinja_enter(run);
    if (st != TSR_OK)
        return st;
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        st = convert_dict(run, json, ret_value);
        break;
    case JSON_ARRAY:
        st = convert_list(run, json, ret_value);
        break;
    case JSON_STRING:
        *ret_value = tsr_jinja_text_value(
            (tsr_jinja_text){.bytes = json_string_value(json), .count = json_string_length(json)});
        break;
    case JSON_INTEGER:
        *ret_value = tsr_jinja_int(json_integer_value(json));
        break;
    case JSON_REAL:
        *ret_value = tsr_jinja_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *ret_value = tsr_jinja_bool(json_is_true(json));
        break;
    case JSON_NULL:
        *ret_value = tsr_jinja_none();
        break;
    }
    tsr_jinja_leave(run);
    return st;
}

/*
 * What the template sees, first found first: the caller's variables, the tokenizer's tokens, and
 * the three that Hugging Face always passes.
 */
static tsr_status all_variables(tsr_jinja_run *run, const json_t *tokens, const json_t *variables)
{
    const tsr_jinja_pair usual[] = {
        {tsr_jinja_text_value(tsr_jinja_text_of("tools")), tsr_jinja_none()},
        {tsr_jinja_text_value(tsr_jinja_text_of("documents")), tsr_jinja_none()},
        {tsr_jinja_text_value(tsr_jinja_text_of("add_generation_prompt")), tsr_jinja_bool(false)},
    };
    const size_t usual_count = sizeof(usual) / sizeof(usual[0]);
    tsr_jinja_dict *dict = NULL;
    tsr_status st = tsr_jinja_dict_new(
        run, json_object_size(variables) + json_object_size(tokens) + usual_count, &dict);
    if (st == TSR_OK)
        st = convert_members(run, variables, dict);
    if (st == TSR_OK && tokens != NULL)
        st = convert_members(run, tokens, dict);
    for (size_t i = 0; i < usual_count && st == TSR_OK; i++)
        dict->pairs[dict->count++] = usual[i];
    if (st == TSR_OK)
        run->variables = dict;
    return st;
}

static tsr_status render(tsr_jinja_run *run, const tsr_chat_template *chat_template,
                         const json_t *variables)
{
    tsr_status st = all_variables(run, chat_template->tokens, variables);
    if (st == TSR_OK)
        st = tsr_jinja_scope_new(run, NULL, &run->scope);
    return st == TSR_OK ? tsr_jinja_exec(run, chat_template->root) : st;
}

tsr_status tsr_chat_template_render(const tsr_chat_template *chat_template, const json_t *variables,
                                    tsr_problems *problems, tsr_text *out)
{
    if (!json_is_object(variables)) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: the variables are not a JSON object",
                         chat_template->name);
        return TSR_ERR_ARG;
    }
    tsr_text built = {0};
    tsr_jinja_run run = {
        .out = &built, .memory_left = TSR_JINJA_MEMORY_MOST, .steps_left = TSR_JINJA_STEPS_MOST};
    tsr_status st = tsr_arena_open(ARENA_BYTES, &run.arena);
    if (st != TSR_OK)
        return st;
    st = render(&run, chat_template, variables);
    if (st == TSR_OK)
        st = tsr_text_add(out, built.bytes, built.count);
    else if (run.error[0] != '\0' && run.error_line > 0)
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: line %d: %s", chat_template->name,
                         (int)run.error_line, run.error);
    else if (run.error[0] != '\0') /* the variables, before a line of the template has run */
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: %s", chat_template->name, run.error);
    tsr_text_close(&built);
    tsr_arena_close(run.arena);
    return st;
}
