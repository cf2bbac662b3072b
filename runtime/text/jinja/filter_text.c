/* Filters on text. What is not text becomes it first. */
#include "runtime/text/jinja/run.h"

typedef tsr_jinja_value value;

/* The input as text that stays safe if it was. */
static tsr_status soft_text(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_text text = {0};
    const tsr_status st = tsr_jinja_to_text(call->run, call->self, &text);
    if (st != TSR_OK)
        return st;
    *ret = tsr_jinja_text_value(text);
    ret->safe = call->self.kind == TSR_JINJA_TEXT && call->self.safe;
    return TSR_OK;
}

/* The input as text through the text method of that name. */
static tsr_status through_method(tsr_jinja_call *call, const char *name, value *ret)
{
    tsr_jinja_call inner = *call;
    const tsr_status st = soft_text(call, &inner.self);
    if (st != TSR_OK)
        return st;
    return tsr_jinja_find_text_method(tsr_jinja_text_of(name))->function(&inner, ret);
}

static tsr_status filter_string(tsr_jinja_call *call, value *ret)
{
    return soft_text(call, ret);
}

static tsr_status filter_upper(tsr_jinja_call *call, value *ret)
{
    return through_method(call, "upper", ret);
}

static tsr_status filter_lower(tsr_jinja_call *call, value *ret)
{
    return through_method(call, "lower", ret);
}

static tsr_status filter_capitalize(tsr_jinja_call *call, value *ret)
{
    return through_method(call, "capitalize", ret);
}

static tsr_status filter_trim(tsr_jinja_call *call, value *ret)
{
    return through_method(call, "strip", ret);
}

/* Where the filter, unlike the method, begins a new word. */
static bool begins_word(int32_t code)
{
    return tsr_jinja_is_space(code) || code == '-' || code == '(' || code == '{' || code == '[' ||
           code == '<';
}

static tsr_status add_word(tsr_jinja_text text, size_t from, size_t to, tsr_text *out)
{
    int32_t code = 0;
    if (from == to)
        return TSR_OK;
    const size_t used = tsr_jinja_decode(text, from, &code);
    tsr_status st = tsr_jinja_upper(tsr_jinja_text_part(text, from, from + used), out);
    if (st == TSR_OK)
        st = tsr_jinja_lower(tsr_jinja_text_part(text, from + used, to), out);
    return st;
}

static tsr_status filter_title(tsr_jinja_call *call, value *ret)
{
    tsr_text built = {0};
    tsr_jinja_text text = {0};
    tsr_status st = tsr_jinja_to_text(call->run, call->self, &text);
    size_t from = 0;
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        int32_t code = 0;
        const size_t used = tsr_jinja_decode(text, at, &code);
        if (begins_word(code)) {
            st = add_word(text, from, at, &built);
            if (st == TSR_OK)
                st = tsr_jinja_add(call->run, &built, tsr_jinja_text_part(text, at, at + used));
            from = at + used;
        }
        at += used;
    }
    if (st == TSR_OK)
        st = add_word(text, from, text.count, &built);
    return tsr_jinja_built(call->run, st, &built, ret);
}

/* Everything becomes plain text first, so that nothing is escaped. */
static tsr_status filter_replace(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_call inner = *call;
    tsr_jinja_text text = {0};
    tsr_status st = tsr_jinja_to_text(call->run, call->self, &text);
    inner.self = tsr_jinja_text_value(text);
    for (size_t i = 0; i < 2 && st == TSR_OK; i++) {
        st = tsr_jinja_to_text(call->run, call->slots[i], &text);
        inner.slots[i] = tsr_jinja_text_value(text);
    }
    if (inner.slots[2].kind == TSR_JINJA_NONE)
        inner.slots[2] = (value){.kind = TSR_JINJA_MISSING};
    if (st != TSR_OK)
        return st;
    return tsr_jinja_find_text_method(tsr_jinja_text_of("replace"))->function(&inner, ret);
}

static tsr_status filter_safe(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_text text = {0};
    const tsr_status st = tsr_jinja_to_text(call->run, call->self, &text);
    *ret = tsr_jinja_text_value(text);
    ret->safe = true;
    return st;
}

static tsr_status filter_escape(tsr_jinja_call *call, value *ret)
{
    if (call->self.kind == TSR_JINJA_TEXT && call->self.safe) {
        *ret = call->self;
        return TSR_OK;
    }
    tsr_jinja_text text = {0};
    tsr_text built = {0};
    tsr_status st = tsr_jinja_to_text(call->run, call->self, &text);
    if (st == TSR_OK)
        st = tsr_jinja_escape(call->run, text, &built);
    st = tsr_jinja_built(call->run, st, &built, ret);
    if (st == TSR_OK)
        ret->safe = true;
    return st;
}

/* What stands in front of an indented line. */
static tsr_status indentation(tsr_jinja_call *call, tsr_jinja_text *ret_text)
{
    value width = call->slots[0].kind == TSR_JINJA_MISSING ? tsr_jinja_int(4) : call->slots[0];
    const value sides[] = {tsr_jinja_text_value(tsr_jinja_text_of(" ")), width};
    tsr_status st = TSR_OK;
    if (width.kind != TSR_JINJA_TEXT)
        st = tsr_jinja_binary(call->run, TSR_JINJA_MUL, sides, &width);
    if (st == TSR_OK)
        *ret_text = width.as.text;
    return st;
}

/* The first line only with `first`, empty lines only with `blank`. */
static tsr_status filter_indent(tsr_jinja_call *call, value *ret)
{
    const bool first = tsr_jinja_truth(call->slots[1]);
    const bool blank = tsr_jinja_truth(call->slots[2]);
    tsr_jinja_text indent = {0};
    if (call->self.kind != TSR_JINJA_TEXT)
        return tsr_jinja_fail(call->run, "indent of %s", tsr_jinja_type_name(call->self));
    tsr_status st = indentation(call, &indent);

    const tsr_jinja_text text = call->self.as.text;
    tsr_text built = {0};
    if (st == TSR_OK && first)
        st = tsr_jinja_add(call->run, &built, indent);
    size_t from = 0;
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        int32_t code = 0;
        const size_t end = at;
        at += tsr_jinja_decode(text, at, &code);
        if (!tsr_jinja_is_line_end(code))
            continue;
        if (code == '\r' && at < text.count && text.bytes[at] == '\n')
            at++;
        st = tsr_jinja_add(call->run, &built, tsr_jinja_text_part(text, from, end));
        if (st == TSR_OK)
            st = tsr_jinja_add_string(call->run, &built, "\n");
        from = at;
        int32_t next = '\n';
        if (at < text.count)
            (void)tsr_jinja_decode(text, at, &next);
        if (st == TSR_OK && (blank || !tsr_jinja_is_line_end(next)))
            st = tsr_jinja_add(call->run, &built, indent);
    }
    if (st == TSR_OK)
        st = tsr_jinja_add(call->run, &built, tsr_jinja_text_part(text, from, text.count));
    st = tsr_jinja_built(call->run, st, &built, ret);
    if (st == TSR_OK)
        ret->safe = call->self.safe;
    return st;
}

const tsr_jinja_builtin tsr_jinja_text_filters[] = {
    {"string", filter_string, 0, 0, {""}},
    {"upper", filter_upper, 0, 0, {""}},
    {"lower", filter_lower, 0, 0, {""}},
    {"capitalize", filter_capitalize, 0, 0, {""}},
    {"title", filter_title, 0, 0, {""}},
    {"trim", filter_trim, 0, 1, {"chars"}},
    {"replace", filter_replace, 2, 3, {"old", "new", "count"}},
    {"safe", filter_safe, 0, 0, {""}},
    {"escape", filter_escape, 0, 0, {""}},
    {"e", filter_escape, 0, 0, {""}},
    {"indent", filter_indent, 0, 3, {"width", "first", "blank"}},
    {0},
};
