/* json.dumps, with the options Hugging Face's tojson passes on. */
#include "runtime/text/jinja/run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

typedef struct writer {
    tsr_jinja_run *run;
    const tsr_jinja_json_options *options;
    tsr_text *out;
    size_t level;
} writer;

static tsr_status write_value(writer *w, tsr_jinja_value value);

static tsr_status add(writer *w, const char *text)
{
    return tsr_jinja_add_string(w->run, w->out, text);
}

static tsr_status write_code(writer *w, int32_t code)
{
    char text[16];
    const char *letter = NULL;
    switch (code) {
    case '"':
        letter = "\\\"";
        break;
    case '\\':
        letter = "\\\\";
        break;
    case '\n':
        letter = "\\n";
        break;
    case '\r':
        letter = "\\r";
        break;
    case '\t':
        letter = "\\t";
        break;
    case '\f':
        letter = "\\f";
        break;
    case '\b':
        letter = "\\b";
        break;
    default:
        break;
    }
    if (letter != NULL)
        return add(w, letter);
    if (code < 0x20 || (w->options->ascii && code >= 0x7F && code < 0x10000)) {
        (void)snprintf(text, sizeof(text), "\\u%04x", (unsigned)code);
    } else if (w->options->ascii && code >= 0x10000) {
        const unsigned rest = (unsigned)code - 0x10000;
        (void)snprintf(text, sizeof(text), "\\u%04x\\u%04x", 0xD800 + (rest >> 10),
                       0xDC00 + (rest & 0x3FF));
    } else {
        text[tsr_jinja_encode(code, text)] = '\0';
    }
    return add(w, text);
}

static tsr_status write_text(writer *w, tsr_jinja_text text)
{
    tsr_status st = add(w, "\"");
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        int32_t code = 0;
        at += tsr_jinja_decode(text, at, &code);
        st = write_code(w, code);
    }
    return st == TSR_OK ? add(w, "\"") : st;
}

static tsr_status write_scalar(writer *w, tsr_jinja_value value)
{
    char text[64];
    if (value.kind == TSR_JINJA_NONE)
        return add(w, "null");
    if (value.kind == TSR_JINJA_BOOL)
        return add(w, value.as.truth ? "true" : "false");
    if (value.kind == TSR_JINJA_INT)
        (void)snprintf(text, sizeof(text), "%" PRId64, value.as.integer);
    else if (isnan(value.as.number))
        return add(w, "NaN");
    else if (isinf(value.as.number))
        return add(w, value.as.number < 0 ? "-Infinity" : "Infinity");
    else
        (void)tsr_jinja_float_text(value.as.number, text);
    return add(w, text);
}

/* A new line at the current level, when lines are wanted. */
static tsr_status write_line(writer *w)
{
    if (!w->options->pretty)
        return TSR_OK;
    tsr_status st = add(w, "\n");
    for (size_t i = 0; i < w->level && st == TSR_OK; i++)
        st = tsr_jinja_add(w->run, w->out, w->options->indent);
    return st;
}

static tsr_status write_between(writer *w, bool first)
{
    const tsr_status st = first ? TSR_OK : tsr_jinja_add(w->run, w->out, w->options->item);
    return st == TSR_OK ? write_line(w) : st;
}

static tsr_status write_list(writer *w, const tsr_jinja_list *list)
{
    if (list->count == 0)
        return add(w, "[]");
    tsr_status st = add(w, "[");
    w->level++;
    for (size_t i = 0; i < list->count && st == TSR_OK; i++) {
        st = write_between(w, i == 0);
        if (st == TSR_OK)
            st = write_value(w, list->items[i]);
    }
    w->level--;
    if (st == TSR_OK)
        st = write_line(w);
    return st == TSR_OK ? add(w, "]") : st;
}

static tsr_status write_key(writer *w, tsr_jinja_value key)
{
    tsr_status st = TSR_OK;
    if (key.kind == TSR_JINJA_TEXT)
        st = write_text(w, key.as.text);
    else if (key.kind < TSR_JINJA_NONE || key.kind > TSR_JINJA_FLOAT)
        return tsr_jinja_fail(w->run, "tojson: a key of type %s", tsr_jinja_type_name(key));
    else
        st = add(w, "\"");
    if (st == TSR_OK && key.kind != TSR_JINJA_TEXT)
        st = write_scalar(w, key);
    if (st == TSR_OK && key.kind != TSR_JINJA_TEXT)
        st = add(w, "\"");
    return st == TSR_OK ? tsr_jinja_add(w->run, w->out, w->options->key) : st;
}

/* A dict's places in the order of its keys: insertion, few enough to need nothing better. */
static tsr_status sorted_places(writer *w, const tsr_jinja_dict *dict, size_t **ret_places)
{
    void *memory = NULL;
    tsr_status st = tsr_jinja_alloc(w->run, dict->count, sizeof(size_t), &memory);
    size_t *places = memory;
    for (size_t i = 0; i < dict->count && st == TSR_OK; i++) {
        size_t at = i;
        bool less = true;
        while (at > 0 && st == TSR_OK) {
            st = tsr_jinja_spend(w->run, 1);
            if (st == TSR_OK && w->options->sort)
                st = tsr_jinja_less(w->run, dict->pairs[i].key, dict->pairs[places[at - 1]].key,
                                    &less);
            if (!w->options->sort || !less)
                break;
            places[at] = places[at - 1];
            at--;
        }
        places[at] = i;
    }
    if (st == TSR_OK)
        *ret_places = places;
    return st;
}

static tsr_status write_dict(writer *w, const tsr_jinja_dict *dict)
{
    size_t *places = NULL;
    if (dict->count == 0)
        return add(w, "{}");
    tsr_status st = sorted_places(w, dict, &places);
    if (st == TSR_OK)
        st = add(w, "{");
    w->level++;
    for (size_t i = 0; i < dict->count && st == TSR_OK; i++) {
        const tsr_jinja_pair *pair = &dict->pairs[places[i]];
        st = write_between(w, i == 0);
        if (st == TSR_OK)
            st = write_key(w, pair->key);
        if (st == TSR_OK)
            st = write_value(w, pair->value);
    }
    w->level--;
    if (st == TSR_OK)
        st = write_line(w);
    return st == TSR_OK ? add(w, "}") : st;
}

static tsr_status write_inner(writer *w, tsr_jinja_value value)
{
    if (value.kind == TSR_JINJA_TEXT)
        return write_text(w, value.as.text);
    if (value.kind >= TSR_JINJA_NONE && value.kind <= TSR_JINJA_FLOAT)
        return write_scalar(w, value);
    if (value.kind == TSR_JINJA_DICT)
        return write_dict(w, value.as.dict);
    if (value.kind == TSR_JINJA_LIST && value.as.list->kind <= TSR_JINJA_TUPLE)
        return write_list(w, value.as.list);
    return tsr_jinja_fail(w->run, "tojson: a value of type %s is not JSON",
                          tsr_jinja_type_name(value));
}

static tsr_status write_value(writer *w, tsr_jinja_value value)
{
    tsr_status st = tsr_jinja_spend(w->run, 1);
    if (st == TSR_OK)
        st = tsr_jinja_enter(w->run);
    if (st != TSR_OK)
        return st;
    st = write_inner(w, value);
    tsr_jinja_leave(w->run);
    return st;
}

tsr_status tsr_jinja_json(tsr_jinja_run *run, tsr_jinja_value value,
                          const tsr_jinja_json_options *options, tsr_text *out)
{
    writer w = {.run = run, .options = options, .out = out};
    return write_value(&w, value);
}
