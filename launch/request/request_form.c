/*
 * Every way to ask becomes one wish in the words of runtime/text/guide_maker.h, which is compiled
 * here to be refused where it is wrong, and once more where it is followed.
 *
 *   response_format {type: json_schema, json_schema: {schema}}    {"json": SCHEMA}
 *   response_format {type: json_object}                           {"json_object": true}
 *   structured_outputs {json | json_object | choice | regex}      the same names
 *   guided_json, guided_json_object, guided_choice, guided_regex
 *   tool_choice required | {type: function, function: {name}}     {"calls": ...}
 */
#include "launch/request/request_form.h"

#include "launch/request/request_rules.h"
#include "runtime/base/json_file.h"
#include "runtime/text/guide_maker.h"

#include <stdlib.h>
#include <string.h>

/* A body that is being read. */
typedef struct form_reader {
    const json_t *body;
    json_t *wanted;    /* object; NULL: nothing was asked for so far */
    const char *field; /* that did */
    tsr_refusal *refusal;
} form_reader;

static tsr_status refuse_value(const form_reader *r, const char *field, const char *what)
{
    return tsr_refuse(r->refusal, "invalid_value", field, "%s: %s", field, what);
}

static tsr_status refuse_unserved(const form_reader *r, const char *field, const char *what)
{
    return tsr_refuse(r->refusal, "unsupported_parameter", field,
                      "%s: %.64s is not served; leave it out", field, what);
}

/* Notes one wish; `value` is taken over. */
static tsr_status want(form_reader *r, const char *field, const char *kind, json_t *value)
{
    if (r->wanted != NULL) {
        json_decref(value);
        return tsr_refuse(r->refusal, "invalid_value", field,
                          "%s: %s asks for something else already", field, r->field);
    }
    r->wanted = json_object();
    r->field = field;
    if (r->wanted == NULL || value == NULL) {
        json_decref(value);
        return TSR_ERR_MEMORY;
    }
    return json_object_set_new(r->wanted, kind, value) == 0 ? TSR_OK : TSR_ERR_MEMORY;
}

/* A schema, also as text. */
static tsr_status want_schema(form_reader *r, const char *field, json_t *schema)
{
    json_error_t error;

    if (!json_is_string(schema))
        return want(r, field, "json", json_incref(schema));
    json_t *read = tsr_json_loadb(json_string_value(schema), json_string_length(schema),
                                  JSON_REJECT_DUPLICATES, &error);
    if (read == NULL)
        return refuse_value(r, field, "it is a text, but not of JSON");
    return want(r, field, "json", read);
}

static bool is_empty(const json_t *value)
{
    return value == NULL || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_string(value) && json_string_length(value) == 0);
}

static tsr_status read_response_format(form_reader *r)
{
    static const char field[] = "response_format";
    const json_t *format = json_object_get(r->body, field);
    const char *type = json_string_value(json_object_get(format, "type"));

    if (is_empty(format) || (type != NULL && strcmp(type, "text") == 0))
        return TSR_OK;
    if (type == NULL)
        return refuse_value(r, field, "expected an object with a type");
    if (strcmp(type, "json_object") == 0)
        return want(r, field, "json_object", json_true());
    if (strcmp(type, "json_schema") != 0)
        return refuse_unserved(r, field, type);
    json_t *schema = json_object_get(json_object_get(format, "json_schema"), "schema");
    if (schema == NULL)
        return refuse_value(r, field, "json_schema.schema is missing");
    return want_schema(r, field, schema);
}

/* One way of vLLM's; `kind` names it in structured_outputs. An empty schema is one. */
static tsr_status want_kind(form_reader *r, const char *field, const char *kind, json_t *value)
{
    const bool is_schema = strcmp(kind, "json") == 0;

    if (is_schema && (json_is_object(value) || !is_empty(value)))
        return want_schema(r, field, value);
    if (is_empty(value))
        return TSR_OK;
    if (strcmp(kind, "regex") == 0 && !json_is_string(value))
        return refuse_value(r, field, "expected a text");
    if (strcmp(kind, "json_object") == 0 && !json_is_true(value))
        return refuse_value(r, field, "expected true or false");
    return want(r, field, kind, json_incref(value));
}

static bool is_kind(const char *name)
{
    return strcmp(name, "json") == 0 || strcmp(name, "json_object") == 0 ||
           strcmp(name, "choice") == 0 || strcmp(name, "regex") == 0;
}

static tsr_status read_structured_outputs(form_reader *r)
{
    static const char field[] = "structured_outputs";
    const json_t *given = json_object_get(r->body, field);
    const char *name = NULL;
    json_t *value = NULL;
    tsr_status st = TSR_OK;

    if (given != NULL && !json_is_null(given) && !json_is_object(given))
        return refuse_value(r, field, "expected an object");
    json_object_foreach((json_t *)(uintptr_t)given, name, value)
    {
        if (st != TSR_OK)
            break;
        if (is_kind(name))
            st = want_kind(r, field, name, value);
        else if (!is_empty(value))
            st = refuse_unserved(r, field, name);
    }
    return st;
}

static tsr_status read_old_names(form_reader *r)
{
    static const char *const names[][2] = {
        {"guided_json", "json"},
        {"guided_json_object", "json_object"},
        {"guided_choice", "choice"},
        {"guided_regex", "regex"},
    };
    tsr_status st = TSR_OK;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && st == TSR_OK; i++) {
        json_t *value = json_object_get(r->body, names[i][0]);
        if (value != NULL)
            st = want_kind(r, names[i][0], names[i][1], value);
    }
    return st;
}

/* The tools that may be called: all, or the one of that name. NULL: no memory. */
static json_t *callable(const json_t *tools, const char *name)
{
    json_t *list = json_array();

    for (size_t i = 0; i < json_array_size(tools) && list != NULL; i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const char *own = json_string_value(json_object_get(function, "name"));
        json_t *parameters = json_object_get(function, "parameters");
        if (own == NULL || (name != NULL && strcmp(own, name) != 0))
            continue;
        json_t *one = json_pack("{s:s, s:O*}", "name", own, "parameters", parameters);
        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static tsr_status want_calls(form_reader *r, const tsr_generation *g, const char *name)
{
    static const char field[] = "tool_choice";
    const json_t *parallel = json_object_get(r->body, "parallel_tool_calls");
    const bool many = name == NULL && !json_is_false(parallel);

    if (g->tools == NULL)
        return refuse_value(r, field, "there are no tools to call");
    json_t *tools = callable(g->tools, name);
    if (tools == NULL)
        return TSR_ERR_MEMORY;
    if (json_array_size(tools) == 0) {
        json_decref(tools);
        return tsr_refuse(r->refusal, "invalid_value", field, "%s: there is no tool %.64s", field,
                          name != NULL ? name : "");
    }
    json_decref(r->wanted);
    r->wanted = NULL;
    return want(r, field, "calls",
                json_pack("{s:i, s:b, s:o}", "style", (int)g->answer_style.calls, "many", (int)many,
                          "tools", tools));
}

static tsr_status read_tool_choice(form_reader *r, const tsr_generation *g)
{
    static const char field[] = "tool_choice";
    const json_t *choice = json_object_get(r->body, field);
    const char *word = json_string_value(choice);
    const char *type = json_string_value(json_object_get(choice, "type"));
    const char *name =
        json_string_value(json_object_get(json_object_get(choice, "function"), "name"));

    if (choice == NULL || json_is_null(choice) ||
        (word != NULL && (strcmp(word, "none") == 0 || strcmp(word, "auto") == 0)))
        return TSR_OK;
    if (word != NULL && strcmp(word, "required") == 0)
        return want_calls(r, g, NULL);
    if (type != NULL && strcmp(type, "function") == 0 && name != NULL)
        return want_calls(r, g, name);
    if (type != NULL && strcmp(type, "function") != 0)
        return refuse_unserved(r, field, type);
    return refuse_value(r, field,
                        "expected none, auto, required, or an object of type function with the "
                        "function's name");
}

/* A model that may think, or does, is held to nothing before it has. */
static tsr_status add_thinking(const tsr_generation *g, json_t *wanted)
{
    const tsr_thinking thinking =
        g->chat ? tsr_answer_thinking(&g->answer_style, g->prompt_end, g->prompt_end_bytes)
                : TSR_THINKING_NEVER;
    int failed = 0;

    if (thinking == TSR_THINKING_OPEN)
        failed = json_object_set_new(wanted, "after", json_string(tsr_think_close));
    if (thinking == TSR_THINKING_MAY)
        failed = json_object_set_new(wanted, "thinks", json_true());
    return failed == 0 ? TSR_OK : TSR_ERR_MEMORY;
}

/* What is wrong with the wish is said by the one who follows it. */
static tsr_status check(const form_reader *r)
{
    char refusal[512] = "";

    const tsr_status st = tsr_guide_check(r->wanted, refusal, sizeof(refusal));
    if (st != TSR_ERR_ARG)
        return st;
    return tsr_refuse(r->refusal, "invalid_value", r->field, "%s: %s", r->field, refusal);
}

static tsr_status set_guide(const form_reader *r, tsr_generation *g)
{
    char *text = json_dumps(r->wanted, JSON_COMPACT);

    if (text == NULL)
        return TSR_ERR_MEMORY;
    if (strlen(text) > TSR_GUIDE_MOST_BYTES) {
        free(text);
        return tsr_refuse(r->refusal, "invalid_value", r->field, "%s: it is longer than %d bytes",
                          r->field, TSR_GUIDE_MOST_BYTES);
    }
    g->request.guide = text;
    return TSR_OK;
}

/* An answer that is held to a form ends when it has that. */
static tsr_status check_company(const form_reader *r, const tsr_generation *g)
{
    if (g->request.rules != NULL && g->request.rules->min_tokens > 0)
        return tsr_refuse(r->refusal, "invalid_value", "min_tokens",
                          "min_tokens: is not served beside %s", r->field);
    return TSR_OK;
}

static tsr_status read_wishes(form_reader *r, const tsr_generation *g)
{
    bool unused = false;

    tsr_status st = read_response_format(r);
    if (st == TSR_OK)
        st = read_structured_outputs(r);
    if (st == TSR_OK)
        st = read_old_names(r);
    if (st == TSR_OK)
        st = tsr_request_flag(r->body, "parallel_tool_calls", &unused, r->refusal);
    if (st == TSR_OK)
        st = read_tool_choice(r, g);
    return st;
}

tsr_status tsr_request_form_read(const json_t *body, tsr_generation *generation,
                                 tsr_refusal *ret_refusal)
{
    form_reader r = {.body = body, .refusal = ret_refusal};

    tsr_status st = read_wishes(&r, generation);
    if (st == TSR_OK && r.wanted != NULL) {
        st = add_thinking(generation, r.wanted);
        if (st == TSR_OK)
            st = check_company(&r, generation);
        if (st == TSR_OK)
            st = set_guide(&r, generation);
        if (st == TSR_OK)
            st = check(&r);
    }
    json_decref(r.wanted);
    return st;
}
