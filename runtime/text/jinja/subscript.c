/*
 * value.name, value[key] and value[from:to:step], as Jinja's sandbox has them: a dot looks for a
 * method first and for a key then, brackets the other way round; what is not there is undefined.
 */
#include "runtime/text/jinja/run.h"

#include <string.h>

static const char unsafe_attribute[] = "an attribute the sandbox does not give away";

/* What a sandbox that must not change its values hides. */
static const char *const list_mutators[] = {"append", "clear",   "extend", "insert", "pop",
                                            "remove", "reverse", "sort",   NULL};
static const char *const dict_mutators[] = {"clear",      "pop",    "popitem",
                                            "setdefault", "update", NULL};

/* Attributes that Python's values have and ours do not. */
static const char *const text_others[] = {
    "casefold",     "center",    "encode",      "expandtabs", "format",
    "format_map",   "isalnum",   "isalpha",     "isascii",    "isdecimal",
    "isidentifier", "isnumeric", "isprintable", "istitle",    "ljust",
    "maketrans",    "rindex",    "index",       "rjust",      "rpartition",
    "swapcase",     "translate", "zfill",       "partition",  NULL};
static const char *const number_others[] = {
    "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
    "from_bytes",       "fromhex",   "hex",        "imag",      "is_integer",
    "numerator",        "real",      "to_bytes",   NULL};
static const char *const dict_others[] = {"fromkeys", NULL};
static const char *const view_others[] = {"isdisjoint", "mapping", "start", "stop", "step", NULL};
static const char *const macro_others[] = {"arguments",     "caller",          "catch_kwargs",
                                           "catch_varargs", "explicit_caller", NULL};

static bool among(const char *const *names, tsr_jinja_text name)
{
    for (; *names != NULL; names++) {
        if (tsr_jinja_text_is(name, *names))
            return true;
    }
    return false;
}

static tsr_status bind(tsr_jinja_run *run, const tsr_jinja_builtin *builtin, tsr_jinja_value self,
                       tsr_jinja_value *ret_value)
{
    void *memory = NULL;
    const tsr_status st = tsr_jinja_alloc(run, 1, sizeof(tsr_jinja_method), &memory);
    if (st != TSR_OK)
        return st;
    tsr_jinja_method *method = memory;
    *method = (tsr_jinja_method){.self = self, .builtin = builtin};
    *ret_value = (tsr_jinja_value){.kind = TSR_JINJA_METHOD, .as.method = method};
    return TSR_OK;
}

/* The names a type has in Python and not here, NULL for none. */
static const char *const *others_of(tsr_jinja_value value)
{
    if (value.kind == TSR_JINJA_TEXT)
        return text_others;
    if (value.kind == TSR_JINJA_DICT)
        return dict_others;
    if (value.kind == TSR_JINJA_MACRO)
        return macro_others;
    if (value.kind == TSR_JINJA_INT || value.kind == TSR_JINJA_FLOAT ||
        value.kind == TSR_JINJA_BOOL)
        return number_others;
    return value.kind == TSR_JINJA_LIST ? view_others : NULL;
}

static const tsr_jinja_builtin *method_of(tsr_jinja_value value, tsr_jinja_text name)
{
    if (value.kind == TSR_JINJA_TEXT)
        return tsr_jinja_find_text_method(name);
    if (value.kind == TSR_JINJA_DICT)
        return tsr_jinja_find_dict_method(name);
    return tsr_jinja_is_sequence(value) ? tsr_jinja_find_list_method(name) : NULL;
}

/* What Python's getattr finds. *ret_known false: there is no such attribute. */
static tsr_status python_attribute(tsr_jinja_run *run, tsr_jinja_value value, tsr_jinja_text name,
                                   bool *ret_known, tsr_jinja_value *ret_value)
{
    *ret_known = true;
    if (value.kind == TSR_JINJA_LOOP)
        return tsr_jinja_loop_attribute(run, value.as.loop, name, ret_known, ret_value);
    if (value.kind == TSR_JINJA_NAMESPACE) {
        const tsr_jinja_value *found = tsr_jinja_dict_get(value.as.dict, name);
        *ret_known = found != NULL;
        if (found != NULL && name.bytes[0] == '_')
            return tsr_jinja_undefined_hint(run, unsafe_attribute, ret_value);
        if (found != NULL)
            *ret_value = *found;
        return TSR_OK;
    }
    const tsr_jinja_builtin *method = method_of(value, name);
    if (method != NULL)
        return bind(run, method, value, ret_value);
    if ((value.kind == TSR_JINJA_DICT && among(dict_mutators, name)) ||
        (value.kind == TSR_JINJA_LIST && value.as.list->kind == TSR_JINJA_PLAIN_LIST &&
         among(list_mutators, name)))
        return tsr_jinja_undefined_hint(run, "a list or dict cannot be changed by a template",
                                        ret_value);
    if (value.kind == TSR_JINJA_MACRO && tsr_jinja_text_is(name, "name")) {
        *ret_value = tsr_jinja_text_value(value.as.macro->node->name);
        return TSR_OK;
    }
    const char *const *others = others_of(value);
    if (others != NULL && among(others, name))
        return tsr_jinja_fail(run, "the attribute '%.*s' of %s is not supported", (int)name.count,
                              name.bytes, tsr_jinja_type_name(value));
    *ret_known = false;
    return TSR_OK;
}

tsr_status tsr_jinja_attribute(tsr_jinja_run *run, tsr_jinja_value value, tsr_jinja_text name,
                               tsr_jinja_value *ret_value)
{
    if (value.kind == TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail_undefined(run, value.as.undefined);

    bool known = false;
    tsr_status st = python_attribute(run, value, name, &known, ret_value);
    if (st != TSR_OK || known)
        return st;
    if (value.kind == TSR_JINJA_DICT) {
        st = tsr_jinja_spend(run, value.as.dict->count / 8);
        const tsr_jinja_value *found = tsr_jinja_dict_get(value.as.dict, name);
        if (st == TSR_OK && found != NULL)
            *ret_value = *found;
        if (st != TSR_OK || found != NULL)
            return st;
    }
    return tsr_jinja_undefined_name(run, tsr_jinja_type_name(value), name, ret_value);
}

/* What is at a position counted from either end; false when there is nothing. */
static bool at_position(tsr_jinja_value value, int64_t index, tsr_jinja_value *ret_value)
{
    size_t length = 0;
    (void)tsr_jinja_len(value, &length);
    const int64_t place = index < 0 ? index + (int64_t)length : index;
    if (place < 0 || place >= (int64_t)length)
        return false;
    if (value.kind == TSR_JINJA_LIST) {
        *ret_value = value.as.list->items[place];
        return true;
    }
    const tsr_jinja_text text = value.as.text;
    const size_t from = tsr_jinja_offset(text, (size_t)place);
    int32_t code = 0;
    const size_t used = tsr_jinja_decode(text, from, &code);
    *ret_value = tsr_jinja_text_value(tsr_jinja_text_part(text, from, from + used));
    ret_value->safe = value.safe;
    return true;
}

tsr_status tsr_jinja_item(tsr_jinja_run *run, tsr_jinja_value value, tsr_jinja_value key,
                          tsr_jinja_value *ret_value)
{
    int64_t index = 0;
    tsr_status st =
        tsr_jinja_spend(run, value.kind == TSR_JINJA_TEXT ? value.as.text.count / 64 : 0);
    if (st != TSR_OK)
        return st;
    if (value.kind == TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail_undefined(run, value.as.undefined);
    if ((value.kind == TSR_JINJA_TEXT || tsr_jinja_is_sequence(value)) &&
        tsr_jinja_is_whole(key, &index) && at_position(value, index, ret_value))
        return TSR_OK;
    if (value.kind == TSR_JINJA_DICT && key.kind != TSR_JINJA_DICT &&
        (key.kind != TSR_JINJA_LIST || key.as.list->kind == TSR_JINJA_TUPLE)) {
        tsr_jinja_pair *found = NULL;
        st = tsr_jinja_dict_find(run, value.as.dict, key, &found);
        if (st == TSR_OK && found != NULL)
            *ret_value = found->value;
        if (st != TSR_OK || found != NULL)
            return st;
    }
    if (key.kind == TSR_JINJA_TEXT) {
        bool known = false;
        st = python_attribute(run, value, key.as.text, &known, ret_value);
        if (st != TSR_OK || known)
            return st;
    }
    tsr_jinja_text name = {0};
    st = tsr_jinja_to_text(run, key, &name);
    return st == TSR_OK ? tsr_jinja_undefined_name(run, tsr_jinja_type_name(value), name, ret_value)
                        : st;
}

/* A slice's bound, counted from either end and kept within [low, high]. */
static tsr_status bound(tsr_jinja_run *run, tsr_jinja_value value, const int64_t *limits,
                        int64_t *in_out)
{
    int64_t at = 0;
    if (value.kind == TSR_JINJA_NONE)
        return TSR_OK;
    if (!tsr_jinja_is_whole(value, &at))
        return tsr_jinja_fail(run, "a slice needs integers, not %s", tsr_jinja_type_name(value));
    const int64_t length = limits[2];
    if (at < 0)
        at += length;
    *in_out = at < limits[0] ? limits[0] : at > limits[1] ? limits[1] : at;
    return TSR_OK;
}

/* Places taken by a slice: [from, to) by step, and how many. */
typedef struct places {
    int64_t from, to, step, count;
} places;

static tsr_status resolve(tsr_jinja_run *run, const tsr_jinja_slice *slice, int64_t length,
                          places *ret_places)
{
    int64_t step = 1;
    if (slice->step.kind != TSR_JINJA_NONE && !tsr_jinja_is_whole(slice->step, &step))
        return tsr_jinja_fail(run, "a slice needs integers, not %s",
                              tsr_jinja_type_name(slice->step));
    if (step == 0)
        return tsr_jinja_fail(run, "a slice with a step of zero");
    step = step < -INT32_MAX ? -INT32_MAX : step > INT32_MAX ? INT32_MAX : step;

    const int64_t limits[] = {step < 0 ? -1 : 0, step < 0 ? length - 1 : length, length};
    int64_t from = step < 0 ? limits[1] : limits[0];
    int64_t to = step < 0 ? limits[0] : limits[1];
    tsr_status st = bound(run, slice->from, limits, &from);
    if (st == TSR_OK)
        st = bound(run, slice->to, limits, &to);
    if (st != TSR_OK)
        return st;
    const int64_t span = step > 0 ? to - from : from - to;
    const int64_t stride = step > 0 ? step : -step;
    *ret_places = (places){
        .from = from, .to = to, .step = step, .count = span <= 0 ? 0 : (span - 1) / stride + 1};
    return TSR_OK;
}

static tsr_status slice_text(tsr_jinja_run *run, tsr_jinja_value value, places at,
                             tsr_jinja_value *ret_value)
{
    const tsr_jinja_text text = value.as.text;
    if (at.step == 1) {
        const size_t from = tsr_jinja_offset(text, (size_t)at.from);
        const tsr_jinja_text rest = tsr_jinja_text_part(text, from, text.count);
        const size_t to = tsr_jinja_offset(rest, (size_t)at.count);
        *ret_value = tsr_jinja_text_value(tsr_jinja_text_part(rest, 0, to));
        ret_value->safe = value.safe;
        return TSR_OK;
    }
    tsr_jinja_list characters = {0};
    tsr_text built = {0};
    tsr_status st = tsr_jinja_iterate(run, value, &characters);
    for (int64_t i = 0; i < at.count && st == TSR_OK; i++)
        st = tsr_jinja_add(run, &built, characters.items[at.from + i * at.step].as.text);
    st = tsr_jinja_built(run, st, &built, ret_value);
    if (st == TSR_OK)
        ret_value->safe = value.safe;
    return st;
}

tsr_status tsr_jinja_slice_of(tsr_jinja_run *run, tsr_jinja_value value,
                              const tsr_jinja_slice *slice, tsr_jinja_value *ret_value)
{
    size_t length = 0;
    places at = {0};
    if (value.kind == TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail_undefined(run, value.as.undefined);
    if (value.kind != TSR_JINJA_TEXT && !tsr_jinja_is_sequence(value))
        return tsr_jinja_fail(run, "a value of type %s cannot be sliced",
                              tsr_jinja_type_name(value));
    (void)tsr_jinja_len(value, &length);
    tsr_status st = tsr_jinja_spend(run, length / 64);
    if (st == TSR_OK)
        st = resolve(run, slice, (int64_t)length, &at);
    if (st != TSR_OK)
        return st;
    if (value.kind == TSR_JINJA_TEXT)
        return slice_text(run, value, at, ret_value);

    const tsr_jinja_list *from = value.as.list;
    tsr_jinja_list *list = NULL;
    st = tsr_jinja_list_new(run, from->kind, (size_t)at.count, &list);
    if (st != TSR_OK)
        return st;
    for (int64_t i = 0; i < at.count; i++)
        list->items[i] = from->items[at.from + i * at.step];
    list->start = from->start + at.from * from->step;
    list->step = from->step * at.step;
    list->stop = from->start + at.to * from->step;
    *ret_value = tsr_jinja_list_value(list);
    return TSR_OK;
}
