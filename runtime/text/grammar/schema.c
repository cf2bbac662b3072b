/*
 * One part of a schema after the other, by descent. What a $ref speaks of becomes a routine, which is
 * written when everything else is, so that chains and circles of them take no depth here.
 */
#include "runtime/text/grammar/schema_parts.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTH = 64, POINTER_BYTES = 512 };

typedef struct type_row {
    const char *name;
    unsigned kind; /* of the keywords that speak of it */
    json_type json;
    json_type also;
} type_row;

static const type_row types[] = {
    {"object", TSR_KEYWORD_OBJECT, JSON_OBJECT, JSON_OBJECT},
    {"array", TSR_KEYWORD_ARRAY, JSON_ARRAY, JSON_ARRAY},
    {"string", TSR_KEYWORD_STRING, JSON_STRING, JSON_STRING},
    {"number", TSR_KEYWORD_NUMBER, JSON_INTEGER, JSON_REAL},
    {"integer", 0, JSON_INTEGER, JSON_INTEGER},
    {"boolean", 0, JSON_TRUE, JSON_FALSE},
    {"null", 0, JSON_NULL, JSON_NULL},
};

static const type_row *type_named(const char *name)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]) && name != NULL; i++) {
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    }
    return NULL;
}

static int32_t write_type(tsr_schema_reader *r, const type_row *type, const json_t *schema,
                          const tsr_schema_place *place, int32_t next)
{
    tsr_grammar_program *p = r->parts->program;

    switch (type->json) {
    case JSON_OBJECT:
        return tsr_schema_object(r, schema, place, next);
    case JSON_ARRAY:
        return tsr_schema_array(r, schema, place, next);
    case JSON_STRING:
        return tsr_schema_string(r, schema, place, next);
    case JSON_INTEGER:
    case JSON_REAL:
        return tsr_schema_number(r, schema, place, type->also == JSON_INTEGER, next);
    case JSON_TRUE:
    case JSON_FALSE:
        return tsr_add_split(p, tsr_add_word(p, "true", next), tsr_add_word(p, "false", next));
    case JSON_NULL:
    default:
        return tsr_add_word(p, "null", next);
    }
}

/* The i-th of its types, NULL where there is none of that name, which is refused. */
static const type_row *type_of(const tsr_schema_reader *r, const json_t *schema, size_t i,
                               const tsr_schema_place *place)
{
    const json_t *given = json_object_get(schema, "type");
    const json_t *one = json_is_array(given) ? json_array_get(given, i) : given;
    const type_row *type = type_named(json_string_value(one));

    if (type == NULL)
        tsr_schema_refuse(r, place,
                          "type: expected object, array, string, number, integer, "
                          "boolean, null, or a list of them");
    return type;
}

static size_t type_count(const json_t *schema)
{
    const json_t *given = json_object_get(schema, "type");

    return json_is_array(given) && json_array_size(given) > 0 ? json_array_size(given) : 1;
}

static int32_t write_types(tsr_schema_reader *r, const json_t *schema,
                           const tsr_schema_place *place, int32_t next)
{
    tsr_grammar_program *p = r->parts->program;
    int32_t any = TSR_NODE_NEVER;

    for (size_t i = 0; i < type_count(schema) && p->status == TSR_OK; i++) {
        const type_row *type = type_of(r, schema, i, place);
        if (type != NULL)
            any = tsr_add_split(p, write_type(r, type, schema, place, next), any);
    }
    return any;
}

/* By what its keywords speak of; any value where they speak of nothing. */
static int32_t write_untyped(tsr_schema_reader *r, const json_t *schema, unsigned kinds,
                             const tsr_schema_place *place, int32_t next)
{
    const type_row *found = NULL;

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if ((kinds & types[i].kind) == 0)
            continue;
        if (found != NULL) {
            tsr_schema_refuse(r, place, "it needs a type: its keywords speak of %s and of %s",
                              found->name, types[i].name);
            return TSR_NODE_NEVER;
        }
        found = &types[i];
    }
    return found != NULL ? write_type(r, found, schema, place, next)
                         : tsr_json_value(r->parts, next);
}

/* True where a value is of one of the schema's types. */
static bool has_type(const tsr_schema_reader *r, const json_t *schema, const json_t *value,
                     const tsr_schema_place *place)
{
    if (json_object_get(schema, "type") == NULL)
        return true;
    for (size_t i = 0; i < type_count(schema); i++) {
        const type_row *type = type_of(r, schema, i, place);
        if (type == NULL)
            return false;
        if (type->json == json_typeof(value) || type->also == json_typeof(value))
            return true;
    }
    return false;
}

static int32_t write_values(tsr_schema_reader *r, const json_t *schema,
                            const tsr_schema_place *place, int32_t next)
{
    tsr_grammar_program *p = r->parts->program;
    const json_t *only = json_object_get(schema, "const");
    const json_t *list = json_object_get(schema, "enum");
    int32_t any = TSR_NODE_NEVER;

    if (list != NULL && (!json_is_array(list) || only != NULL)) {
        tsr_schema_refuse(r, place, "enum: expected a list, and no const beside it");
        return TSR_NODE_NEVER;
    }
    for (size_t i = 0; i < (only != NULL ? 1 : json_array_size(list)); i++) {
        const json_t *value = only != NULL ? only : json_array_get(list, i);
        if (has_type(r, schema, value, place))
            any = tsr_add_split(p, tsr_json_constant(r->parts, value, next), any);
    }
    return any;
}

static int32_t write_any(tsr_schema_reader *r, const json_t *schema, const tsr_schema_place *place,
                         int32_t next)
{
    const json_t *any_of = json_object_get(schema, "anyOf");
    const json_t *one_of = json_object_get(schema, "oneOf");
    const char *name = any_of != NULL ? "anyOf" : "oneOf";
    const json_t *list = any_of != NULL ? any_of : one_of;
    const tsr_schema_place at = tsr_schema_inside(place, name, 0);
    int32_t any = TSR_NODE_NEVER;

    if (!json_is_array(list) || json_array_size(list) == 0 || (any_of != NULL && one_of != NULL)) {
        tsr_schema_refuse(r, place, "%s: expected a list of schemas, and one such list", name);
        return TSR_NODE_NEVER;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const tsr_schema_place inside = tsr_schema_inside(&at, NULL, i);
        any = tsr_add_split(r->parts->program,
                            tsr_schema_part(r, json_array_get(list, i), &inside, next), any);
    }
    return any;
}

static int32_t write_all(tsr_schema_reader *r, const json_t *schema, const tsr_schema_place *place,
                         int32_t next)
{
    const json_t *list = json_object_get(schema, "allOf");
    const tsr_schema_place at = tsr_schema_inside(place, "allOf", 0);
    const tsr_schema_place inside = tsr_schema_inside(&at, NULL, 0);

    if (json_array_size(list) != 1) {
        tsr_schema_refuse(r, place, "allOf is not served, but for one schema");
        return TSR_NODE_NEVER;
    }
    return tsr_schema_part(r, json_array_get(list, 0), &inside, next);
}

/* The next name of a JSON pointer, without its escapes. NULL: it is too long. */
static const char *pointer_name(const char *at, char name[POINTER_BYTES])
{
    size_t count = 0;

    for (; *at != '\0' && *at != '/'; at++) {
        if (count + 1 == POINTER_BYTES)
            return NULL;
        name[count] = *at;
        if (at[0] == '~' && (at[1] == '0' || at[1] == '1'))
            name[count] = *++at == '0' ? '~' : '/';
        count++;
    }
    name[count] = '\0';
    return at;
}

/* NULL where there is no such part. */
static const json_t *pointed_at(const json_t *root, const char *pointer)
{
    const json_t *found = root;
    char name[POINTER_BYTES];

    while (pointer != NULL && *pointer == '/' && found != NULL) {
        pointer = pointer_name(pointer + 1, name);
        if (pointer == NULL)
            return NULL;
        found = json_is_array(found) ? json_array_get(found, strtoul(name, NULL, 10))
                                     : json_object_get(found, name);
    }
    return pointer != NULL && *pointer == '\0' ? found : NULL;
}

static int32_t write_ref(tsr_schema_reader *r, const json_t *schema, const tsr_schema_place *place,
                         int32_t next)
{
    tsr_grammar_program *p = r->parts->program;
    const char *name = json_string_value(json_object_get(schema, "$ref"));
    const json_t *found = name != NULL && *name == '#' ? pointed_at(r->root, name + 1) : NULL;
    size_t i = 0;

    if (found == NULL) {
        tsr_schema_refuse(r, place, "$ref: there is no %.64s in this schema",
                          name != NULL ? name : "text");
        return TSR_NODE_NEVER;
    }
    while (i < r->ref_count && r->refs[i].schema != found)
        i++;
    if (i == r->ref_count) {
        const int32_t routine = tsr_add_routine(p);
        if (p->status != TSR_OK)
            return TSR_NODE_NEVER;
        r->refs[r->ref_count++] = (tsr_schema_ref){found, name, routine};
    }
    return tsr_add_call(p, r->refs[i].routine, next);
}

static int32_t write_kinds(tsr_schema_reader *r, const json_t *schema, unsigned kinds,
                           const tsr_schema_place *place, int32_t next)
{
    static const struct {
        unsigned kind;
        unsigned beside;
        const char *name;
        int32_t (*write)(tsr_schema_reader *, const json_t *, const tsr_schema_place *, int32_t);
    } alone[] = {
        {TSR_KEYWORD_REF, 0, "$ref", write_ref},
        {TSR_KEYWORD_ANY, 0, "anyOf or oneOf", write_any},
        {TSR_KEYWORD_ALL, 0, "allOf", write_all},
        {TSR_KEYWORD_VALUES, TSR_KEYWORD_TYPE, "enum or const", write_values},
        {TSR_KEYWORD_TYPE, ~0U, NULL, write_types},
    };

    kinds &= ~(unsigned)TSR_KEYWORD_TELLS;
    for (size_t i = 0; i < sizeof(alone) / sizeof(alone[0]); i++) {
        if ((kinds & alone[i].kind) == 0)
            continue;
        if ((kinds & ~(alone[i].kind | alone[i].beside)) != 0)
            tsr_schema_refuse(r, place, "%s beside other keywords is not served", alone[i].name);
        return alone[i].write(r, schema, place, next);
    }
    return write_untyped(r, schema, kinds, place, next);
}

int32_t tsr_schema_part(tsr_schema_reader *reader, const json_t *schema,
                        const tsr_schema_place *place, int32_t next)
{
    if (reader->parts->program->status != TSR_OK || json_is_false(schema))
        return TSR_NODE_NEVER;
    if (json_is_true(schema))
        return tsr_json_value(reader->parts, next);
    if (!json_is_object(schema) || place->depth > MOST_DEPTH) {
        tsr_schema_refuse(reader, place,
                          place->depth > MOST_DEPTH ? "it is nested too deep"
                                                    : "a schema is an object, true or false");
        return TSR_NODE_NEVER;
    }
    const unsigned kinds = tsr_schema_keywords(reader, schema, place);
    return write_kinds(reader, schema, kinds, place, next);
}

void tsr_schema_begin(tsr_schema_reader *reader, tsr_json_parts *parts, const json_t *root)
{
    *reader = (tsr_schema_reader){
        .parts = parts, .root = root, .refs = calloc(TSR_GRAMMAR_ROUTINES, sizeof(*reader->refs))};
    if (reader->refs == NULL && parts->program->status == TSR_OK)
        parts->program->status = TSR_ERR_MEMORY;
}

void tsr_schema_end(tsr_schema_reader *reader)
{
    const tsr_schema_place root = tsr_schema_inside(NULL, NULL, 0);
    tsr_grammar_program *p = reader->parts->program;

    for (size_t i = 0; i < reader->ref_count && p->status == TSR_OK; i++) {
        const tsr_schema_ref ref = reader->refs[i];
        const tsr_schema_place place = tsr_schema_inside(&root, ref.name + 1, 0);
        tsr_define_routine(p, ref.routine,
                           tsr_schema_part(reader, ref.schema, &place, TSR_NODE_RETURN));
    }
    free(reader->refs);
}

int32_t tsr_schema_value(tsr_json_parts *parts, const json_t *schema, int32_t next)
{
    const tsr_schema_place root = tsr_schema_inside(NULL, NULL, 0);
    tsr_schema_reader r;

    tsr_schema_begin(&r, parts, schema);
    const int32_t start = tsr_schema_part(&r, schema, &root, next);
    tsr_schema_end(&r);
    return start;
}
