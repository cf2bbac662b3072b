/* Every keyword is a row: what is not here would change which values satisfy a schema, or might. */
#include "runtime/text/grammar/schema_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PLACE_BYTES = 160, REASON_BYTES = 256 };

typedef struct keyword_row {
    const char *name;
    tsr_keyword_kind kind;
} keyword_row;

static const keyword_row rows[] = {
    {"$anchor", TSR_KEYWORD_TELLS},
    {"$comment", TSR_KEYWORD_TELLS},
    {"$defs", TSR_KEYWORD_TELLS},
    {"$id", TSR_KEYWORD_TELLS},
    {"$ref", TSR_KEYWORD_REF},
    {"$schema", TSR_KEYWORD_TELLS},
    {"additionalProperties", TSR_KEYWORD_OBJECT},
    {"allOf", TSR_KEYWORD_ALL},
    {"anyOf", TSR_KEYWORD_ANY},
    {"const", TSR_KEYWORD_VALUES},
    {"contentEncoding", TSR_KEYWORD_TELLS},
    {"contentMediaType", TSR_KEYWORD_TELLS},
    {"default", TSR_KEYWORD_TELLS},
    {"definitions", TSR_KEYWORD_TELLS},
    {"deprecated", TSR_KEYWORD_TELLS},
    {"description", TSR_KEYWORD_TELLS},
    {"enum", TSR_KEYWORD_VALUES},
    {"example", TSR_KEYWORD_TELLS},
    {"examples", TSR_KEYWORD_TELLS},
    {"exclusiveMaximum", TSR_KEYWORD_NUMBER},
    {"exclusiveMinimum", TSR_KEYWORD_NUMBER},
    {"format", TSR_KEYWORD_STRING},
    {"items", TSR_KEYWORD_ARRAY},
    {"maxItems", TSR_KEYWORD_ARRAY},
    {"maxLength", TSR_KEYWORD_STRING},
    {"maximum", TSR_KEYWORD_NUMBER},
    {"minItems", TSR_KEYWORD_ARRAY},
    {"minLength", TSR_KEYWORD_STRING},
    {"minimum", TSR_KEYWORD_NUMBER},
    {"oneOf", TSR_KEYWORD_ANY},
    {"pattern", TSR_KEYWORD_STRING},
    {"prefixItems", TSR_KEYWORD_ARRAY},
    {"properties", TSR_KEYWORD_OBJECT},
    {"readOnly", TSR_KEYWORD_TELLS},
    {"required", TSR_KEYWORD_OBJECT},
    {"title", TSR_KEYWORD_TELLS},
    {"type", TSR_KEYWORD_TYPE},
    {"writeOnly", TSR_KEYWORD_TELLS},
};

tsr_schema_place tsr_schema_inside(const tsr_schema_place *up, const char *name, size_t index)
{
    return (tsr_schema_place){
        .up = up, .name = name, .index = index, .depth = up != NULL ? up->depth + 1 : 0};
}

/* "#/properties/a/anyOf/0", or as much of its end as there is room for. */
static void write_place(const tsr_schema_place *place, char text[PLACE_BYTES])
{
    char *at = text + PLACE_BYTES - 1;
    char part[PLACE_BYTES / 2];

    *at = '\0';
    for (; place != NULL && place->up != NULL; place = place->up) {
        if (place->name != NULL)
            (void)snprintf(part, sizeof(part), "/%s", place->name);
        else
            (void)snprintf(part, sizeof(part), "/%zu", place->index);
        const size_t count = strlen(part);
        if (count + 4 > (size_t)(at - text)) {
            at -= 3;
            memcpy(at, "...", 3);
            break;
        }
        at -= count;
        memcpy(at, part, count);
    }
    *--at = '#';
    memmove(text, at, strlen(at) + 1);
}

void tsr_schema_refuse(const tsr_schema_reader *reader, const tsr_schema_place *place,
                       const char *format, ...)
{
    char at[PLACE_BYTES];
    char reason[REASON_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    write_place(place, at);
    tsr_program_refuse(reader->parts->program, "%s: %s", at, reason);
}

/* 0: it is not served. */
static unsigned kind_of(const char *name)
{
    if (strncmp(name, "x-", 2) == 0)
        return TSR_KEYWORD_TELLS;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].kind;
    }
    return 0;
}

/* True for a keyword that is not served, with a value that asks for nothing. */
static bool is_neutral(const char *name, const json_t *value)
{
    return (strcmp(name, "uniqueItems") == 0 && json_is_false(value)) ||
           (strcmp(name, "nullable") == 0 && json_is_false(value)) ||
           (strcmp(name, "minProperties") == 0 && json_is_integer(value) &&
            json_integer_value(value) == 0);
}

unsigned tsr_schema_keywords(const tsr_schema_reader *reader, const json_t *schema,
                             const tsr_schema_place *place)
{
    const char *name = NULL;
    const json_t *value = NULL;
    unsigned kinds = 0;

    json_object_foreach((json_t *)(uintptr_t)schema, name, value)
    {
        const unsigned kind = kind_of(name);
        if (kind == 0 && !is_neutral(name, value))
            tsr_schema_refuse(reader, place, "%.64s is not served", name);
        kinds |= kind;
    }
    return kinds;
}

int64_t tsr_schema_count(const tsr_schema_reader *reader, const json_t *schema, const char *keyword,
                         const tsr_schema_place *place)
{
    const json_t *given = json_object_get(schema, keyword);
    const double value = json_number_value(given);

    if (given == NULL)
        return -1;
    if (!json_is_number(given) || !(value >= 0) || value > TSR_GRAMMAR_NODES ||
        value != (double)(int64_t)value) {
        tsr_schema_refuse(reader, place, "%s: expected a whole number from 0 to %d", keyword,
                          TSR_GRAMMAR_NODES);
        return -1;
    }
    return (int64_t)value;
}
