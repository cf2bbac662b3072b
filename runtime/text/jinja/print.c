/* str() and repr(), as far as a template can see them. */
#include "runtime/text/jinja/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static tsr_status add_escaped(tsr_jinja_run *run, tsr_text *out, int32_t code, char quote)
{
    char text[16];
    if (code == '\n' || code == '\r' || code == '\t')
        (void)snprintf(text, sizeof(text), "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
    else if (code == '\\' || code == quote)
        (void)snprintf(text, sizeof(text), "\\%c", (char)code);
    else if (tsr_jinja_is_printable(code))
        text[tsr_jinja_encode(code, text)] = '\0';
    else if (code < 0x100)
        (void)snprintf(text, sizeof(text), "\\x%02x", (unsigned)code);
    else if (code < 0x10000)
        (void)snprintf(text, sizeof(text), "\\u%04x", (unsigned)code);
    else
        (void)snprintf(text, sizeof(text), "\\U%08x", (unsigned)code);
    return tsr_jinja_add_string(run, out, text);
}

/* In single quotes, unless that takes escaping and double quotes do not. */
static tsr_status quote_text(tsr_jinja_run *run, tsr_jinja_value value, tsr_text *out)
{
    const tsr_jinja_text text = value.as.text;
    const bool has_single = text.count > 0 && memchr(text.bytes, '\'', text.count) != NULL;
    const bool has_double = text.count > 0 && memchr(text.bytes, '"', text.count) != NULL;
    const char quote = has_single && !has_double ? '"' : '\'';
    const char quotes[] = {quote, '\0'};
    tsr_status st = value.safe ? tsr_jinja_add_string(run, out, "Markup(") : TSR_OK;
    if (st == TSR_OK)
        st = tsr_jinja_add_string(run, out, quotes);
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        int32_t code = 0;
        at += tsr_jinja_decode(text, at, &code);
        st = add_escaped(run, out, code, quote);
    }
    if (st == TSR_OK)
        st = tsr_jinja_add_string(run, out, quotes);
    if (st == TSR_OK && value.safe)
        st = tsr_jinja_add_string(run, out, ")");
    return st;
}

static tsr_status print_range(tsr_jinja_run *run, const tsr_jinja_list *range, tsr_text *out)
{
    char text[80];
    if (range->step == 1)
        (void)snprintf(text, sizeof(text), "range(%" PRId64 ", %" PRId64 ")", range->start,
                       range->stop);
    else
        (void)snprintf(text, sizeof(text), "range(%" PRId64 ", %" PRId64 ", %" PRId64 ")",
                       range->start, range->stop, range->step);
    return tsr_jinja_add_string(run, out, text);
}

static tsr_status print_list(tsr_jinja_run *run, const tsr_jinja_list *list, tsr_text *out)
{
    static const char *const opens[] = {
        "[", "(", "", "dict_keys([", "dict_values([", "dict_items([", ""};
    static const char *const closes[] = {"]", ")", "", "])", "])", "])", ""};
    if (list->kind == TSR_JINJA_RANGE)
        return print_range(run, list, out);
    if (list->kind == TSR_JINJA_GENERATOR)
        return tsr_jinja_fail(run, "a generator is printed; put |list or |join behind it");

    tsr_status st = tsr_jinja_add_string(run, out, opens[list->kind]);
    for (size_t i = 0; i < list->count && st == TSR_OK; i++) {
        if (i > 0)
            st = tsr_jinja_add_string(run, out, ", ");
        if (st == TSR_OK)
            st = tsr_jinja_print_quoted(run, list->items[i], out);
    }
    if (st == TSR_OK && list->kind == TSR_JINJA_TUPLE && list->count == 1)
        st = tsr_jinja_add_string(run, out, ",");
    return st == TSR_OK ? tsr_jinja_add_string(run, out, closes[list->kind]) : st;
}

static tsr_status print_dict(tsr_jinja_run *run, const tsr_jinja_dict *dict, tsr_text *out)
{
    tsr_status st = tsr_jinja_add_string(run, out, "{");
    for (size_t i = 0; i < dict->count && st == TSR_OK; i++) {
        if (i > 0)
            st = tsr_jinja_add_string(run, out, ", ");
        if (st == TSR_OK)
            st = tsr_jinja_print_quoted(run, dict->pairs[i].key, out);
        if (st == TSR_OK)
            st = tsr_jinja_add_string(run, out, ": ");
        if (st == TSR_OK)
            st = tsr_jinja_print_quoted(run, dict->pairs[i].value, out);
    }
    return st == TSR_OK ? tsr_jinja_add_string(run, out, "}") : st;
}

static tsr_status print_number(tsr_jinja_run *run, tsr_jinja_value value, tsr_text *out)
{
    char text[64];
    if (value.kind == TSR_JINJA_INT)
        (void)snprintf(text, sizeof(text), "%" PRId64, value.as.integer);
    else
        (void)tsr_jinja_float_text(value.as.number, text);
    return tsr_jinja_add_string(run, out, text);
}

static tsr_status print_namespace(tsr_jinja_run *run, const tsr_jinja_dict *dict, tsr_text *out)
{
    tsr_status st = tsr_jinja_add_string(run, out, "<Namespace ");
    if (st == TSR_OK)
        st = print_dict(run, dict, out);
    return st == TSR_OK ? tsr_jinja_add_string(run, out, ">") : st;
}

static tsr_status print_inner(tsr_jinja_run *run, tsr_jinja_value value, tsr_text *out)
{
    switch (value.kind) {
    case TSR_JINJA_UNDEFINED:
        return tsr_jinja_add_string(run, out, "Undefined");
    case TSR_JINJA_NONE:
        return tsr_jinja_add_string(run, out, "None");
    case TSR_JINJA_BOOL:
        return tsr_jinja_add_string(run, out, value.as.truth ? "True" : "False");
    case TSR_JINJA_INT:
    case TSR_JINJA_FLOAT:
        return print_number(run, value, out);
    case TSR_JINJA_TEXT:
        return quote_text(run, value, out);
    case TSR_JINJA_LIST:
        return print_list(run, value.as.list, out);
    case TSR_JINJA_DICT:
        return print_dict(run, value.as.dict, out);
    case TSR_JINJA_NAMESPACE:
        return print_namespace(run, value.as.dict, out);
    case TSR_JINJA_MISSING:
    case TSR_JINJA_MACRO:
    case TSR_JINJA_LOOP:
    case TSR_JINJA_METHOD:
    case TSR_JINJA_FUNCTION:
        break;
    }
    return tsr_jinja_fail(run, "printing a value of type %s is not supported",
                          tsr_jinja_type_name(value));
}

tsr_status tsr_jinja_print_quoted(tsr_jinja_run *run, tsr_jinja_value value, tsr_text *out)
{
    tsr_status st = tsr_jinja_spend(run, 1);
    if (st == TSR_OK)
        st = tsr_jinja_enter(run);
    if (st != TSR_OK)
        return st;
    st = print_inner(run, value, out);
    tsr_jinja_leave(run);
    return st;
}

tsr_status tsr_jinja_print(tsr_jinja_run *run, tsr_jinja_value value, tsr_text *out)
{
    if (value.kind == TSR_JINJA_TEXT)
        return tsr_jinja_add(run, out, value.as.text);
    return value.kind == TSR_JINJA_UNDEFINED ? TSR_OK : tsr_jinja_print_quoted(run, value, out);
}

tsr_status tsr_jinja_to_text(tsr_jinja_run *run, tsr_jinja_value value, tsr_jinja_text *ret_text)
{
    if (value.kind == TSR_JINJA_TEXT) {
        *ret_text = value.as.text;
        return TSR_OK;
    }
    tsr_text built = {0};
    tsr_jinja_value text = {0};
    tsr_status st = tsr_jinja_print(run, value, &built);
    st = tsr_jinja_built(run, st, &built, &text);
    if (st == TSR_OK)
        *ret_text = text.as.text;
    return st;
}
