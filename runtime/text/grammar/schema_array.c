/*
 * Elements by number as far as numbers matter, then one after the other:
 *
 *   [  element 0   ,  element 1   ,  any number of items  ]
 *                ]              ]        where there are enough
 */
#include "runtime/text/grammar/schema_parts.h"

#include <string.h>

typedef struct array_schema {
    const json_t *prefix; /* array or NULL */
    const json_t *items;  /* NULL: any */
    int64_t least;
    int64_t most; /* -1: any number */
    int32_t item; /* the routine of items */
    const tsr_schema_place *place;
} array_schema;

static bool read_array(const tsr_schema_reader *r, const json_t *schema,
                       const tsr_schema_place *place, array_schema *a)
{
    const int64_t least = tsr_schema_count(r, schema, "minItems", place);

    a->prefix = json_object_get(schema, "prefixItems");
    a->items = json_object_get(schema, "items");
    a->least = least > 0 ? least : 0;
    a->most = tsr_schema_count(r, schema, "maxItems", place);
    a->place = place;
    if (a->prefix != NULL && !json_is_array(a->prefix))
        tsr_schema_refuse(r, place, "prefixItems: expected a list of schemas");
    if (json_is_array(a->items))
        tsr_schema_refuse(r, place, "items: a list is not served; prefixItems is");
    if (json_is_false(a->items) && (a->most < 0 || a->most > (int64_t)json_array_size(a->prefix)))
        a->most = (int64_t)json_array_size(a->prefix);
    return r->parts->program->status == TSR_OK;
}

static int32_t write_element(tsr_schema_reader *r, const array_schema *a, int64_t i, int32_t next)
{
    const tsr_schema_place prefix = tsr_schema_inside(a->place, "prefixItems", 0);
    const tsr_schema_place at = tsr_schema_inside(&prefix, NULL, (size_t)i);

    if (i < (int64_t)json_array_size(a->prefix))
        return tsr_schema_part(r, json_array_get(a->prefix, (size_t)i), &at, next);
    return a->items != NULL ? tsr_add_call(r->parts->program, a->item, next)
                            : tsr_json_value(r->parts, next);
}

/* Behind an element that is followed by another. */
static int32_t write_next(tsr_schema_reader *r, const array_schema *a, int64_t i, int32_t next)
{
    const int32_t element = write_element(r, a, i, next);

    if (element == TSR_NODE_NEVER)
        return element;
    return tsr_add_word(r->parts->program, ",", tsr_json_space(r->parts, element));
}

static int32_t write_elements(tsr_schema_reader *r, const array_schema *a, int32_t bracket)
{
    tsr_grammar_program *p = r->parts->program;
    const int32_t end = tsr_json_space(r->parts, bracket);
    const int64_t prefix = (int64_t)json_array_size(a->prefix);
    int64_t count = a->most;
    int32_t behind = end;

    if (a->most < 0) {
        count = a->least > prefix ? a->least : prefix;
        count = count > 1 ? count : 1;
        behind = tsr_add_hole(p);
        tsr_fill_hole(p, behind, write_next(r, a, count, behind), end);
    }
    for (int64_t i = count - 1; i > 0 && p->status == TSR_OK; i--)
        behind =
            tsr_add_split(p, write_next(r, a, i, behind), i >= a->least ? end : TSR_NODE_NEVER);
    const int32_t first = count > 0 ? write_element(r, a, 0, behind) : TSR_NODE_NEVER;
    return tsr_add_split(p, first, a->least == 0 ? bracket : TSR_NODE_NEVER);
}

int32_t tsr_schema_array(tsr_schema_reader *reader, const json_t *schema,
                         const tsr_schema_place *place, int32_t next)
{
    tsr_grammar_program *p = reader->parts->program;
    const tsr_schema_place items = tsr_schema_inside(place, "items", 0);
    array_schema a = {0};

    if (!read_array(reader, schema, place, &a) || (a.most >= 0 && a.least > a.most))
        return TSR_NODE_NEVER;
    if (a.items != NULL) {
        a.item = tsr_add_routine(p);
        tsr_define_routine(p, a.item, tsr_schema_part(reader, a.items, &items, TSR_NODE_RETURN));
    }
    const int32_t first = write_elements(reader, &a, tsr_add_word(p, "]", next));
    if (first == TSR_NODE_NEVER)
        return first;
    return tsr_add_word(p, "[", tsr_json_space(reader->parts, first));
}
