/*
 * Properties come in the order of the schema. Behind each it may end, if all that are required have
 * come, or go on:
 *
 *   {  space  name 0 : value 0   ,  name 1 : value 1   ,  others ...  space  }
 *             '-- where it need not come, the way leads past it --'
 *
 *   comes[i]   the names that may come, from the i-th on        behind[i]   what may stand in front of it
 */
#include "runtime/text/grammar/schema_parts.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_NAME = 512 };

typedef struct object_schema {
    json_t *properties;  /* those given, and those that are required without being there; owned */
    const json_t *other; /* of names that are not among them; NULL: none may come */
    json_t *required;    /* object of names; owned */
    const char **names;  /* [count] in order; owned */
    size_t count;
} object_schema;

static void close_object(object_schema *o)
{
    json_decref(o->properties);
    json_decref(o->required);
    free(o->names);
}

static bool read_properties(const tsr_schema_reader *r, const json_t *schema,
                            const tsr_schema_place *place, object_schema *o)
{
    const json_t *given = json_object_get(schema, "properties");
    const json_t *other = json_object_get(schema, "additionalProperties");
    const char *name = NULL;
    json_t *value = NULL;

    if (given != NULL && !json_is_object(given)) {
        tsr_schema_refuse(r, place, "properties: expected an object");
        return false;
    }
    json_object_foreach((json_t *)(uintptr_t)given, name, value)
    {
        if (strlen(name) > MOST_NAME) {
            tsr_schema_refuse(r, place, "properties: a name is longer than %d bytes", MOST_NAME);
            return false;
        }
        if (json_object_set(o->properties, name, value) != 0)
            return false;
    }
    o->other = other;
    if (other == NULL && given == NULL)
        o->other = json_true();
    return true;
}

/* A name that is required and not among the properties is like any other. */
static bool read_required(const tsr_schema_reader *r, const json_t *schema,
                          const tsr_schema_place *place, object_schema *o)
{
    const json_t *given = json_object_get(schema, "required");
    json_t *open = o->other == NULL ? json_true() : (json_t *)(uintptr_t)o->other;

    if (given != NULL && !json_is_array(given)) {
        tsr_schema_refuse(r, place, "required: expected a list of names");
        return false;
    }
    for (size_t i = 0; i < json_array_size(given); i++) {
        const char *name = json_string_value(json_array_get(given, i));
        if (name == NULL || strlen(name) > MOST_NAME) {
            tsr_schema_refuse(r, place, "required: expected a list of names");
            return false;
        }
        if (json_object_set_new(o->required, name, json_true()) != 0)
            return false;
        if (json_object_get(o->properties, name) == NULL &&
            json_object_set(o->properties, name, open) != 0)
            return false;
    }
    return true;
}

static bool read_object(const tsr_schema_reader *r, const json_t *schema,
                        const tsr_schema_place *place, object_schema *o)
{
    const char *name = NULL;
    const json_t *value = NULL;

    o->properties = json_object();
    o->required = json_object();
    if (o->properties == NULL || o->required == NULL || !read_properties(r, schema, place, o) ||
        !read_required(r, schema, place, o))
        return false;
    o->names = calloc(json_object_size(o->properties) + 1, sizeof(*o->names));
    if (o->names == NULL)
        return false;
    json_object_foreach(o->properties, name, value) o->names[o->count++] = name;
    return true;
}

/* ':' and the value. */
static int32_t write_member(tsr_schema_reader *r, const json_t *schema,
                            const tsr_schema_place *place, int32_t next)
{
    const int32_t value = tsr_schema_part(r, schema, place, next);

    if (value == TSR_NODE_NEVER)
        return value;
    return tsr_add_word(r->parts->program, ":", tsr_json_space(r->parts, value));
}

static int32_t write_name(tsr_schema_reader *r, const char *name, int32_t next)
{
    json_t *text = json_string(name);
    const int32_t at = text != NULL ? tsr_json_constant(r->parts, text, next) : TSR_NODE_NEVER;

    json_decref(text);
    return next == TSR_NODE_NEVER ? next : at;
}

/* Names beyond the properties, any number of them, behind what stands at `behind`, a hole. */
static int32_t write_others(tsr_schema_reader *r, const object_schema *o,
                            const tsr_schema_place *place, int32_t behind)
{
    const tsr_schema_place at = tsr_schema_inside(place, "additionalProperties", 0);
    const int32_t value = write_member(r, o->other, &at, behind);

    return value == TSR_NODE_NEVER ? value : tsr_json_other_name(r->parts, o->properties, value);
}

static int32_t write_object(tsr_schema_reader *r, const object_schema *o,
                            const tsr_schema_place *place, int32_t next)
{
    tsr_grammar_program *p = r->parts->program;
    const tsr_schema_place properties = tsr_schema_inside(place, "properties", 0);
    const int32_t bracket = tsr_add_word(p, "}", next);
    const int32_t end = tsr_json_space(r->parts, bracket);
    int32_t behind = tsr_add_hole(p);
    int32_t comes = o->other != NULL ? write_others(r, o, place, behind) : TSR_NODE_NEVER;
    bool may_end = true;

    if (comes != TSR_NODE_NEVER)
        tsr_fill_hole(p, behind, tsr_add_word(p, ",", tsr_json_space(r->parts, comes)), end);
    else
        behind = end;
    for (size_t i = o->count; i-- > 0 && p->status == TSR_OK;) {
        const char *name = o->names[i];
        const tsr_schema_place at = tsr_schema_inside(&properties, name, 0);
        const bool required = json_object_get(o->required, name) != NULL;
        const int32_t one =
            write_name(r, name, write_member(r, json_object_get(o->properties, name), &at, behind));
        comes = tsr_add_split(p, one, required ? TSR_NODE_NEVER : comes);
        may_end = may_end && !required;
        behind = comes != TSR_NODE_NEVER ? tsr_add_word(p, ",", tsr_json_space(r->parts, comes))
                                         : TSR_NODE_NEVER;
        behind = tsr_add_split(p, may_end ? end : TSR_NODE_NEVER, behind);
    }
    const int32_t first = tsr_add_split(p, comes, may_end ? bracket : TSR_NODE_NEVER);
    return first == TSR_NODE_NEVER ? first : tsr_add_word(p, "{", tsr_json_space(r->parts, first));
}

int32_t tsr_schema_object(tsr_schema_reader *reader, const json_t *schema,
                          const tsr_schema_place *place, int32_t next)
{
    object_schema o = {0};
    int32_t at = TSR_NODE_NEVER;

    if (read_object(reader, schema, place, &o))
        at = write_object(reader, &o, place, next);
    else if (reader->parts->program->status == TSR_OK)
        reader->parts->program->status = TSR_ERR_MEMORY;
    close_object(&o);
    return at;
}
