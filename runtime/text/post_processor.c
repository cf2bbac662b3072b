/*
 * Byte levels change no id. Of a template the one for a single text counts; where two templates
 * follow each other, the second goes around the first:
 *
 *   single: <bos> A <eos>        before: <bos>    after: <eos>
 */
#include "runtime/text/post_processor.h"

#include "runtime/base/known_fields.h"

#include <stdbool.h>
#include <string.h>

typedef struct reader {
    tsr_surround *surround;
    tsr_problems *problems;
    const char *path;
    int32_t ids;
} reader;

static tsr_status refuse(const reader *r, const char *what, const char *name)
{
    char shown[TSR_SHOWN_BYTES];
    tsr_problems_add(r->problems, TSR_SEVERITY_ERROR, "%s: post_processor: %s%s", r->path, what,
                     name != NULL ? tsr_field_show_name(name, shown) : "");
    return TSR_ERR_CHECKPOINT;
}

static bool has_type(const json_t *object, const char *type)
{
    const char *found = json_string_value(json_object_get(object, "type"));
    return found != NULL && strcmp(found, type) == 0;
}

/* Adds the ids of a special token to `to`. */
static tsr_status add_special(const reader *r, const json_t *tokens, const json_t *piece,
                              int32_t to[TSR_SURROUND_MOST], size_t *count)
{
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *ids = json_object_get(json_object_get(tokens, name != NULL ? name : ""), "ids");

    if (json_array_size(ids) == 0)
        return refuse(r, "special_tokens has no ids of ", name != NULL ? name : "a nameless token");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= r->ids)
            return refuse(r, "special_tokens has an id that is none of the tokenizer: ", name);
        if (*count == TSR_SURROUND_MOST)
            return refuse(r, "more than 16 ids in front of or behind a text", NULL);
        to[(*count)++] = (int32_t)json_integer_value(id);
    }
    return TSR_OK;
}

/* One template's own ids. */
static tsr_status read_single(const reader *r, const json_t *template, tsr_surround *own)
{
    const json_t *single = json_object_get(template, "single");
    const json_t *tokens = json_object_get(template, "special_tokens");
    bool behind = false;

    if (!json_is_array(single))
        return refuse(r, "single is not a list", NULL);
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        const json_t *special = json_object_get(piece, "SpecialToken");
        const char *sequence =
            json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
        tsr_status st = TSR_OK;
        if (special != NULL)
            st = add_special(r, tokens, special, behind ? own->after : own->before,
                             behind ? &own->after_count : &own->before_count);
        else if (sequence == NULL || strcmp(sequence, "A") != 0 || behind)
            st = refuse(r,
                        "single is not served: it has something other than special tokens "
                        "around one text",
                        NULL);
        else
            behind = true;
        if (st != TSR_OK)
            return st;
    }
    return behind ? TSR_OK : refuse(r, "single has no place for the text", NULL);
}

/* Puts `own` around what there is. */
static tsr_status put_around(const reader *r, const tsr_surround *own)
{
    tsr_surround *s = r->surround;

    if (s->before_count + own->before_count > TSR_SURROUND_MOST ||
        s->after_count + own->after_count > TSR_SURROUND_MOST)
        return refuse(r, "more than 16 ids in front of or behind a text", NULL);
    memmove(s->before + own->before_count, s->before, s->before_count * sizeof(*s->before));
    memcpy(s->before, own->before, own->before_count * sizeof(*s->before));
    memcpy(s->after + s->after_count, own->after, own->after_count * sizeof(*s->after));
    s->before_count += own->before_count;
    s->after_count += own->after_count;
    return TSR_OK;
}

static tsr_status read_one(const reader *r, const json_t *processor)
{
    tsr_surround own = {0};

    if (has_type(processor, "ByteLevel"))
        return TSR_OK;
    if (!has_type(processor, "TemplateProcessing")) {
        const char *type = json_string_value(json_object_get(processor, "type"));
        return refuse(r, "served are ByteLevel and TemplateProcessing, not ",
                      type != NULL ? type : "a nameless one");
    }
    const tsr_status st = read_single(r, processor, &own);
    return st == TSR_OK ? put_around(r, &own) : st;
}

tsr_status tsr_post_processor_read(const char *path, const json_t *post_processor, int32_t ids,
                                   tsr_problems *problems, tsr_surround *surround)
{
    const reader r = {surround, problems, path, ids};
    const json_t *list = json_object_get(post_processor, "processors");

    if (post_processor == NULL || json_is_null(post_processor))
        return TSR_OK;
    if (!has_type(post_processor, "Sequence"))
        return read_one(&r, post_processor);
    if (!json_is_array(list))
        return refuse(&r, "processors is not a list", NULL);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const tsr_status st = read_one(&r, json_array_get(list, i));
        if (st != TSR_OK)
            return st;
    }
    return TSR_OK;
}
