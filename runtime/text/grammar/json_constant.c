/* Values that are given, and names that are not among those given. */
#include "runtime/text/grammar/json_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES = 40, MOST_PRECISION = 17 };

static int32_t dumped(tsr_json_parts *parts, const json_t *value, int32_t next)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

    if (text == NULL) {
        parts->program->status = TSR_ERR_MEMORY;
        return TSR_NODE_NEVER;
    }
    next = tsr_add_word(parts->program, text, next);
    free(text);
    return next;
}

/* In as few digits as tell it. */
static int32_t real(tsr_json_parts *parts, double value, int32_t next)
{
    char text[NUMBER_BYTES];

    for (int precision = 1; precision <= MOST_PRECISION; precision++) {
        (void)snprintf(text, sizeof(text), "%.*g", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    return tsr_add_word(parts->program, text, next);
}

/* From the last element to the first, each with what stands in front of it. */
static int32_t array(tsr_json_parts *parts, const json_t *value, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    int32_t at = tsr_add_word(p, "]", next);

    if (json_array_size(value) > 0)
        at = tsr_json_space(parts, at);
    for (size_t i = json_array_size(value); i-- > 0;) {
        at = tsr_json_space(parts, tsr_json_constant(parts, json_array_get(value, i), at));
        if (i > 0)
            at = tsr_add_word(p, ",", at);
    }
    return tsr_add_word(p, "[", at);
}

static int32_t member(tsr_json_parts *parts, const char *name, const json_t *value, int32_t next)
{
    json_t *text = json_string(name);
    const int32_t behind = tsr_json_space(parts, tsr_json_constant(parts, value, next));
    const int32_t at = dumped(parts, text, tsr_add_word(parts->program, ":", behind));

    json_decref(text);
    return tsr_json_space(parts, at);
}

/* Members stand in the order in which they were given, and the program is built from the last. */
static int32_t object(tsr_json_parts *parts, const json_t *value, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const size_t count = json_object_size(value);
    const char **names = calloc(count + 1, sizeof(*names));
    const char *name = NULL;
    json_t *one = NULL;
    size_t n = 0;
    int32_t at = tsr_add_word(p, "}", next);

    if (names == NULL) {
        p->status = TSR_ERR_MEMORY;
        return TSR_NODE_NEVER;
    }
    json_object_foreach((json_t *)(uintptr_t)value, name, one) names[n++] = name;
    if (count > 0)
        at = tsr_json_space(parts, at);
    for (size_t i = count; i-- > 0;) {
        at = member(parts, names[i], json_object_get(value, names[i]), at);
        if (i > 0)
            at = tsr_add_word(p, ",", at);
    }
    free(names);
    return tsr_add_word(p, "{", at);
}

int32_t tsr_json_constant(tsr_json_parts *parts, const json_t *value, int32_t next)
{
    if (parts->program->status != TSR_OK)
        return TSR_NODE_NEVER;
    if (json_is_array(value))
        return array(parts, value, next);
    if (json_is_object(value))
        return object(parts, value, next);
    if (json_is_real(value))
        return real(parts, json_real_value(value), next);
    return dumped(parts, value, next);
}
