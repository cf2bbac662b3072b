/*
 * Arguments are handed on as the model wrote them, so that no number changes; only what a style
 * writes as bare text becomes JSON here: a string where the tool's schema says so or where it is no
 * JSON value, else that value.
 */
#define _GNU_SOURCE /* memmem */
#include "runtime/text/tool_call.h"

#include "runtime/base/json_file.h"

#include <stdlib.h>
#include <string.h>

/* Bytes between two places. */
typedef struct span {
    const char *at;
    const char *end;
} span;

static span span_of(const char *bytes, size_t count)
{
    return (span){.at = bytes, .end = bytes + count};
}

static size_t count_of(span s)
{
    return (size_t)(s.end - s.at);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static span trimmed(span s)
{
    while (s.at < s.end && is_space(*s.at))
        s.at++;
    while (s.at < s.end && is_space(s.end[-1]))
        s.end--;
    return s;
}

/* Where `word` begins, or NULL. */
static const char *find(span in, const char *word)
{
    return memmem(in.at, count_of(in), word, strlen(word));
}

/* Where `word` begins for the last time, or NULL. */
static const char *find_last(span in, const char *word)
{
    const char *last = NULL;

    for (const char *at; (at = find(in, word)) != NULL; in.at = at + 1)
        last = at;
    return last;
}

static bool starts_with(span s, const char *word)
{
    return count_of(s) >= strlen(word) && memcmp(s.at, word, strlen(word)) == 0;
}

const json_t *tsr_tool_find(const json_t *tools, const char *name, size_t bytes)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const json_t *given = json_object_get(function, "name");
        if (json_string_length(given) == bytes && bytes > 0 &&
            memcmp(json_string_value(given), name, bytes) == 0)
            return function;
    }
    return NULL;
}

/* Behind the string that begins at `at`; the end when it is cut off. */
static const char *behind_string(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++) {
        if (*at == '\\' && at + 1 < end)
            at++;
    }
    return at < end ? at + 1 : end;
}

/* Behind the value that begins at `at`, in JSON that is known to be whole. */
static const char *behind_value(const char *at, const char *end)
{
    int depth = 0;

    while (at < end) {
        const char c = *at;
        if (c == '"') {
            at = behind_string(at, end);
        } else {
            if (depth == 0 && (c == ',' || c == '}' || c == ']' || is_space(c)))
                return at;
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
            at++;
        }
        if (depth == 0 && (c == '"' || c == '}' || c == ']'))
            return at;
    }
    return end;
}

/* The value of a key of an object that is known to be JSON, as it stands there. */
static bool find_value(span object, const char *key, span *ret_value)
{
    const size_t key_bytes = strlen(key);
    const char *at = object.at + 1;

    while (at < object.end) {
        while (at < object.end && *at != '"' && *at != '}')
            at++;
        if (at >= object.end || *at == '}')
            return false;
        const span name = {.at = at + 1, .end = behind_string(at, object.end) - 1};
        at = name.end + 1;
        while (at < object.end && (is_space(*at) || *at == ':'))
            at++;
        const span value = {.at = at, .end = behind_value(at, object.end)};
        if (count_of(name) == key_bytes && memcmp(name.at, key, key_bytes) == 0) {
            *ret_value = value;
            return true;
        }
        at = value.end;
    }
    return false;
}

static json_t *parse(span s, size_t flags)
{
    json_error_t error;
    return tsr_json_loadb(s.at, count_of(s), flags, &error);
}

/* True for a JSON value, or only for an object. */
static bool is_json(span s, bool object_only)
{
    json_t *json = parse(s, JSON_DECODE_ANY);
    const bool good = json != NULL && (!object_only || json_is_object(json));

    json_decref(json);
    return good;
}

static tsr_status make_call(span name, span arguments, tsr_tool_call *ret_call)
{
    const tsr_tool_call call = {.name = strndup(name.at, count_of(name)),
                                .arguments = strndup(arguments.at, count_of(arguments))};
    if (call.name == NULL || call.arguments == NULL) {
        free(call.name);
        free(call.arguments);
        return TSR_ERR_MEMORY;
    }
    *ret_call = call;
    return TSR_OK;
}

/* {"name": "f", "arguments": {...}}, the arguments also as a string of JSON. */
static tsr_status read_json(const json_t *tools, span body, tsr_tool_call *ret_call, bool *ret_read)
{
    json_t *json = parse(body, 0);
    const json_t *name = json_object_get(json, "name");
    const json_t *given = json_object_get(json, "arguments");
    const char *key = given != NULL ? "arguments" : "parameters";
    span arguments = span_of("{}", 2);
    tsr_status st = TSR_OK;

    if (given == NULL)
        given = json_object_get(json, key);
    *ret_read = false;
    if (tsr_tool_find(tools, json_string_value(name), json_string_length(name)) != NULL) {
        if (json_is_string(given))
            arguments = span_of(json_string_value(given), json_string_length(given));
        else if (given != NULL && !find_value(body, key, &arguments))
            given = NULL;
        *ret_read = is_json(arguments, true);
    }
    if (*ret_read)
        st = make_call(span_of(json_string_value(name), json_string_length(name)), arguments,
                       ret_call);
    json_decref(json);
    return st;
}

/* True when the schema of a tool says that an argument is a string. */
static bool is_string_by_schema(const json_t *function, span key)
{
    const json_t *properties =
        json_object_get(json_object_get(function, "parameters"), "properties");
    const json_t *type =
        json_object_get(json_object_getn(properties, key.at, count_of(key)), "type");

    if (json_is_array(type))
        type = json_array_size(type) > 0 ? json_array_get(type, 0) : NULL;
    return json_is_string(type) && strcmp(json_string_value(type), "string") == 0;
}

static tsr_status add_string(tsr_text *out, span s)
{
    json_t *string = json_stringn(s.at, count_of(s));
    char *text = string != NULL ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    const tsr_status st = text != NULL ? tsr_text_add_string(out, text) : TSR_ERR_MEMORY;

    free(text);
    json_decref(string);
    return st;
}

/* As Python writes them, which is what some templates show to the model. */
static const char *of_python(span s)
{
    static const char *const words[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"}};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (count_of(s) == strlen(words[i][0]) && starts_with(s, words[i][0]))
            return words[i][1];
    }
    return NULL;
}

/* Adds one argument to an object that is being written. */
static tsr_status add_argument(const json_t *function, span key, span value, tsr_text *out)
{
    const span bare = trimmed(value);

    tsr_status st = tsr_text_add_string(out, out->count > 1 ? ", " : "");
    if (st == TSR_OK)
        st = add_string(out, key);
    if (st == TSR_OK)
        st = tsr_text_add_string(out, ": ");
    if (st != TSR_OK)
        return st;
    if (is_string_by_schema(function, key))
        return add_string(out, value);
    if (of_python(bare) != NULL)
        return tsr_text_add_string(out, of_python(bare));
    return is_json(bare, false) ? tsr_text_add(out, bare.at, count_of(bare))
                                : add_string(out, value);
}

/* The style's own line ends around a value are not part of it. */
static span without_lines(span s)
{
    if (s.at < s.end && *s.at == '\n')
        s.at++;
    if (s.at < s.end && s.end[-1] == '\n')
        s.end--;
    return s;
}

static const char *first_of(const char *a, const char *b)
{
    if (a == NULL || (b != NULL && b < a))
        return b;
    return a;
}

/* The next <parameter=KEY> VALUE, which ends where it is closed, or where the next or the whole
 * does. False: there is none. */
static bool next_parameter(span *rest, span *ret_key, span *ret_value)
{
    static const char open[] = "<parameter=";
    static const char close[] = "</parameter>";
    const char *at = find(*rest, open);
    if (at == NULL)
        return false;

    const span behind = {.at = at + sizeof(open) - 1, .end = rest->end};
    const char *bracket = find(behind, ">");
    if (bracket == NULL)
        return false;
    const span value = {.at = bracket + 1, .end = rest->end};
    const char *end =
        first_of(find(value, close), first_of(find(value, open), find(value, "</function>")));
    *ret_key = (span){.at = behind.at, .end = bracket};
    *ret_value = without_lines((span){.at = value.at, .end = end != NULL ? end : rest->end});
    rest->at = ret_value->end < rest->end && end != NULL ? end : rest->end;
    if (starts_with(*rest, close))
        rest->at += sizeof(close) - 1;
    return true;
}

/* The next <arg_key>KEY</arg_key><arg_value>VALUE</arg_value>. */
static bool next_argument(span *rest, span *ret_key, span *ret_value)
{
    static const char *const tags[] = {"<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"};
    const char *at[4];

    for (size_t i = 0; i < 4; i++) {
        at[i] = find(*rest, tags[i]);
        if (at[i] == NULL)
            return false;
        rest->at = at[i] + strlen(tags[i]);
    }
    *ret_key = trimmed((span){.at = at[0] + strlen(tags[0]), .end = at[1]});
    *ret_value = (span){.at = at[2] + strlen(tags[2]), .end = at[3]};
    return true;
}

/* Where the name of the tool stands, and what follows it. */
static bool find_name(tsr_call_style style, span body, span *ret_name, span *ret_rest)
{
    static const char open[] = "<function=";
    const char *end;

    if (style == TSR_CALLS_ARGUMENT) {
        end = find(body, "<arg_key>");
        *ret_name = trimmed((span){.at = body.at, .end = end != NULL ? end : body.end});
        *ret_rest = (span){.at = end != NULL ? end : body.end, .end = body.end};
        return true;
    }
    if (!starts_with(body, open))
        return false;
    body.at += sizeof(open) - 1;
    end = find(body, ">");
    if (end == NULL)
        return false;
    *ret_name = trimmed((span){.at = body.at, .end = end});
    *ret_rest = (span){.at = end + 1, .end = body.end};
    return true;
}

static tsr_status read_tagged(tsr_call_style style, const json_t *tools, span body,
                              tsr_tool_call *ret_call, bool *ret_read)
{
    tsr_text arguments = {0};
    span name = {0};
    span rest = {0};
    span key = {0};
    span value = {0};

    *ret_read = false;
    if (!find_name(style, body, &name, &rest))
        return TSR_OK;
    const json_t *function = tsr_tool_find(tools, name.at, count_of(name));
    if (function == NULL)
        return TSR_OK;
    tsr_status st = tsr_text_add_string(&arguments, "{");
    while (st == TSR_OK && (style == TSR_CALLS_ARGUMENT ? next_argument(&rest, &key, &value)
                                                        : next_parameter(&rest, &key, &value)))
        st = add_argument(function, key, value, &arguments);
    if (st == TSR_OK)
        st = tsr_text_add_string(&arguments, "}");
    if (st == TSR_OK)
        st = make_call(name, span_of(arguments.bytes, arguments.count), ret_call);
    *ret_read = st == TSR_OK;
    tsr_text_close(&arguments);
    return st;
}

tsr_status tsr_tool_call_read(tsr_call_style style, const json_t *tools, const char *body,
                              size_t bytes, tsr_tool_call *ret_call, bool *ret_read)
{
    const span inside = trimmed(span_of(body, bytes));

    return style == TSR_CALLS_JSON ? read_json(tools, inside, ret_call, ret_read)
                                   : read_tagged(style, tools, inside, ret_call, ret_read);
}

/* True when a string has begun and not ended. */
static bool is_in_string(span s)
{
    bool inside = false;

    for (const char *at = s.at; at < s.end; at++) {
        if (inside && *at == '\\')
            at++;
        else if (*at == '"')
            inside = !inside;
    }
    return inside;
}

bool tsr_tool_call_is_open(tsr_call_style style, const char *body, size_t bytes)
{
    const span inside = span_of(body, bytes);

    if (style == TSR_CALLS_JSON)
        return is_in_string(inside);
    const char *value =
        find_last(inside, style == TSR_CALLS_ARGUMENT ? "<arg_value>" : "<parameter=");
    if (value == NULL)
        return false;
    const span behind = {.at = value, .end = inside.end};
    if (style == TSR_CALLS_ARGUMENT)
        return find(behind, "</arg_value>") == NULL;
    return find(behind, "</parameter>") == NULL && find(behind, "</function>") == NULL;
}
