/* Calls: macros, methods, and the functions every template has. */
#include "runtime/text/jinja/run.h"

#include <string.h>
#include <time.h>

/* The argument a macro was called with by name; NULL when it was not. */
static const tsr_jinja_value *named_argument(const tsr_jinja_args *args, tsr_jinja_text name)
{
    const size_t positional = args->count - args->named;
    for (size_t i = 0; i < args->named; i++) {
        if (tsr_jinja_text_equal(args->names[i], name))
            return &args->values[positional + i];
    }
    return NULL;
}

/* Gives every parameter its argument, or nothing yet. */
static tsr_status set_arguments(tsr_jinja_run *run, const tsr_jinja_node *macro,
                                const tsr_jinja_args *args, size_t *ret_named_used)
{
    const size_t positional = args->count - args->named;
    size_t named_used = 0;
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < macro->name_count && st == TSR_OK; i++) {
        const tsr_jinja_value *given =
            i < positional ? &args->values[i] : named_argument(args, macro->names[i]);
        const tsr_jinja_value missing = {.kind = TSR_JINJA_MISSING};
        named_used += given != NULL && i >= positional ? 1 : 0;
        st =
            tsr_jinja_scope_set(run, run->scope, macro->names[i], given != NULL ? *given : missing);
    }
    *ret_named_used = named_used;
    return st;
}

/* The defaults of what was not given, in order: each sees all the other parameters. */
static tsr_status set_defaults(tsr_jinja_run *run, const tsr_jinja_node *macro,
                               const tsr_jinja_args *args)
{
    const size_t positional = args->count - args->named;
    const size_t first = macro->name_count - macro->count;
    tsr_status st = TSR_OK;
    for (size_t i = first; i < macro->name_count && st == TSR_OK; i++) {
        tsr_jinja_value value = {0};
        if (i < positional || named_argument(args, macro->names[i]) != NULL)
            continue;
        st = tsr_jinja_eval(run, macro->items[i - first], &value);
        if (st == TSR_OK)
            st = tsr_jinja_scope_set(run, run->scope, macro->names[i], value);
    }
    return st;
}

static tsr_status run_macro(tsr_jinja_run *run, const tsr_jinja_macro *macro,
                            const tsr_jinja_args *args, tsr_jinja_value *ret_value)
{
    const tsr_jinja_node *node = macro->node;
    tsr_jinja_scope *const caller = run->scope;
    tsr_jinja_scope *scope = NULL;
    size_t named_used = 0;
    tsr_status st = tsr_jinja_scope_new(run, macro->scope, &scope);
    if (st != TSR_OK)
        return st;
    run->scope = scope;
    st = set_arguments(run, node, args, &named_used);
    if (st == TSR_OK)
        st = set_defaults(run, node, args);
    run->scope = caller;
    if (st == TSR_OK && named_used != args->named)
        return tsr_jinja_fail(run, "the macro '%.*s' does not take one of its named arguments",
                              (int)node->name.count, node->name.bytes);
    return st == TSR_OK ? tsr_jinja_capture(run, node->a, scope, ret_value) : st;
}

tsr_status tsr_jinja_macro_call(tsr_jinja_run *run, const tsr_jinja_macro *macro,
                                const tsr_jinja_args *args, tsr_jinja_value *ret_value)
{
    const tsr_jinja_node *node = macro->node;
    if (args->count - args->named > node->name_count)
        return tsr_jinja_fail(run, "the macro '%.*s' takes no more than %zu arguments",
                              (int)node->name.count, node->name.bytes, node->name_count);
    if (run->calls == TSR_JINJA_CALLS_MOST)
        return tsr_jinja_fail(run, "macros call one another deeper than %d", TSR_JINJA_CALLS_MOST);
    run->calls++;
    const tsr_status st = run_macro(run, macro, args, ret_value);
    run->calls--;
    return st;
}

tsr_status tsr_jinja_value_call(tsr_jinja_run *run, tsr_jinja_value callee,
                                const tsr_jinja_args *args, tsr_jinja_value *ret_value)
{
    if (callee.kind == TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail_undefined(run, callee.as.undefined);
    if (callee.kind == TSR_JINJA_MACRO)
        return tsr_jinja_macro_call(run, callee.as.macro, args, ret_value);
    if (callee.kind == TSR_JINJA_METHOD)
        return tsr_jinja_builtin_call(run, callee.as.method->builtin, callee.as.method->self, args,
                                      ret_value);
    if (callee.kind == TSR_JINJA_FUNCTION)
        return tsr_jinja_builtin_call(run, callee.as.function, tsr_jinja_none(), args, ret_value);
    return tsr_jinja_fail(run, "a value of type %s cannot be called", tsr_jinja_type_name(callee));
}

static tsr_status call_range(tsr_jinja_call *call, tsr_jinja_value *ret_value)
{
    int64_t parts[3] = {0, 0, 1};
    size_t given = 0;
    for (; given < 3 && call->slots[given].kind != TSR_JINJA_MISSING; given++) {
        if (!tsr_jinja_is_whole(call->slots[given], &parts[given]))
            return tsr_jinja_fail(call->run, "range needs integers, not %s",
                                  tsr_jinja_type_name(call->slots[given]));
    }
    if (given == 1) {
        parts[1] = parts[0];
        parts[0] = 0;
    }
    if (parts[2] == 0)
        return tsr_jinja_fail(call->run, "range with a step of zero");

    int64_t span = 0;
    const bool up = parts[2] > 0;
    if (__builtin_sub_overflow(up ? parts[1] : parts[0], up ? parts[0] : parts[1], &span) ||
        parts[2] == INT64_MIN)
        return tsr_jinja_fail(call->run, "range of more than %d items", TSR_JINJA_RANGE_MOST);
    const int64_t stride = up ? parts[2] : -parts[2];
    const int64_t count = span <= 0 ? 0 : (span - 1) / stride + 1;
    if (count > TSR_JINJA_RANGE_MOST)
        return tsr_jinja_fail(call->run, "range of more than %d items", TSR_JINJA_RANGE_MOST);

    tsr_jinja_list *list = NULL;
    const tsr_status st = tsr_jinja_list_new(call->run, TSR_JINJA_RANGE, (size_t)count, &list);
    if (st != TSR_OK)
        return st;
    for (int64_t i = 0; i < count; i++)
        list->items[i] = tsr_jinja_int(parts[0] + i * parts[2]);
    list->start = parts[0];
    list->stop = parts[1];
    list->step = parts[2];
    *ret_value = tsr_jinja_list_value(list);
    return TSR_OK;
}

/* The pairs of a dict, or of a list of pairs, into `dict`. */
static tsr_status put_all(tsr_jinja_run *run, tsr_jinja_value from, tsr_jinja_dict *dict)
{
    tsr_jinja_list items = {0};
    tsr_jinja_value pairs = from;
    tsr_status st = TSR_OK;
    if (from.kind == TSR_JINJA_UNDEFINED)
        return TSR_OK;
    if (from.kind == TSR_JINJA_DICT)
        st = tsr_jinja_dict_view(run, from.as.dict, TSR_JINJA_ITEMS, &pairs);
    if (st == TSR_OK)
        st = tsr_jinja_iterate(run, pairs, &items);
    for (size_t i = 0; i < items.count && st == TSR_OK; i++) {
        tsr_jinja_list pair = {0};
        st = tsr_jinja_iterate(run, items.items[i], &pair);
        if (st == TSR_OK && pair.count != 2)
            return tsr_jinja_fail(run, "a dict is made of pairs");
        if (st == TSR_OK)
            st = tsr_jinja_dict_put(run, dict, pair.items[0], pair.items[1]);
    }
    return st;
}

static tsr_status make_dict(tsr_jinja_call *call, tsr_jinja_dict **ret_dict)
{
    tsr_jinja_dict *dict = NULL;
    const size_t positional = call->args->count - call->args->named;
    if (positional > 1)
        return tsr_jinja_fail(call->run, "no more than one dict can be given");
    tsr_status st = tsr_jinja_dict_new(call->run, call->args->named, &dict);
    if (st == TSR_OK && positional == 1)
        st = put_all(call->run, call->args->values[0], dict);
    for (size_t i = 0; i < call->args->named && st == TSR_OK; i++)
        st = tsr_jinja_dict_put(call->run, dict, tsr_jinja_text_value(call->args->names[i]),
                                call->args->values[positional + i]);
    if (st == TSR_OK)
        *ret_dict = dict;
    return st;
}

static tsr_status call_dict(tsr_jinja_call *call, tsr_jinja_value *ret_value)
{
    tsr_jinja_dict *dict = NULL;
    const tsr_status st = make_dict(call, &dict);
    if (st == TSR_OK)
        *ret_value = (tsr_jinja_value){.kind = TSR_JINJA_DICT, .as.dict = dict};
    return st;
}

static tsr_status call_namespace(tsr_jinja_call *call, tsr_jinja_value *ret_value)
{
    tsr_jinja_dict *dict = NULL;
    const tsr_status st = make_dict(call, &dict);
    if (st == TSR_OK)
        *ret_value = (tsr_jinja_value){.kind = TSR_JINJA_NAMESPACE, .as.dict = dict};
    return st;
}

static tsr_status call_raise(tsr_jinja_call *call, tsr_jinja_value *ret_value)
{
    tsr_jinja_text text = {0};
    const tsr_status st = tsr_jinja_to_text(call->run, call->slots[0], &text);
    if (st != TSR_OK)
        return st;
    *ret_value = tsr_jinja_none();
    return tsr_jinja_fail(call->run, "the template says: %.*s",
                          text.count < 300 ? (int)text.count : 300, text.bytes);
}

enum { CONVERSION_BYTES = 8, CONVERTED_BYTES = 128 };

/* Bytes of a conversion behind its %: flags, a width below 100, E or O, and the letter. */
static size_t conversion_bytes(tsr_jinja_text format, size_t at)
{
    static const char *const parts[] = {"_-0^#", "123456789", "0123456789", "EO"};
    size_t n = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const char c = (char)(at + n < format.count ? format.bytes[at + n] : '\0');
        n += c != '\0' && strchr(parts[i], c) != NULL ? 1 : 0;
    }
    return at + n < format.count ? n + 1 : 0;
}

/* What one conversion is now; of those that Python adds, %f is 6 digits, %z and %Z are nothing. */
static tsr_status add_time(tsr_jinja_text conversion, const struct tm *parts, long nanoseconds,
                           tsr_text *out)
{
    /* The format is never the template's own, of which the compiler cannot know the length. */
    size_t (*const write)(char *, size_t, const char *, const struct tm *) = strftime;
    const char letter = conversion.bytes[conversion.count - 1];
    char one[CONVERSION_BYTES] = "%";
    char converted[CONVERTED_BYTES];
    if (letter == 'f' && conversion.count == 1)
        return tsr_text_add_format(out, "%06ld", nanoseconds / 1000);
    if (letter == 'z' || letter == 'Z' || letter == '\0')
        return TSR_OK;
    memcpy(one + 1, conversion.bytes, conversion.count);
    return tsr_text_add(out, converted, write(converted, sizeof(converted), one, parts));
}

static tsr_status call_strftime_now(tsr_jinja_call *call, tsr_jinja_value *ret_value)
{
    if (call->slots[0].kind != TSR_JINJA_TEXT)
        return tsr_jinja_fail(call->run, "strftime_now needs a format");
    const tsr_jinja_text format = call->slots[0].as.text;
    struct timespec now = {0};
    struct tm parts = {0};
    if (clock_gettime(CLOCK_REALTIME, &now) != 0 || localtime_r(&now.tv_sec, &parts) == NULL)
        return tsr_jinja_fail(call->run, "the time is not to be had");

    tsr_text built = {0};
    tsr_status st = TSR_OK;
    for (size_t at = 0; at < format.count && st == TSR_OK; at++) {
        const size_t bytes = format.bytes[at] == '%' ? conversion_bytes(format, at + 1) : 0;
        const tsr_jinja_text conversion = tsr_jinja_text_part(format, at + 1, at + 1 + bytes);
        st = bytes == 0 ? tsr_text_add(&built, format.bytes + at, 1)
                        : add_time(conversion, &parts, now.tv_nsec, &built);
        at += bytes;
    }
    return tsr_jinja_built(call->run, st, &built, ret_value);
}

const tsr_jinja_builtin *tsr_jinja_find_global(tsr_jinja_text name)
{
    static const tsr_jinja_builtin rows[] = {
        {"range", call_range, 1, 3, {"", "", ""}},
        {"dict", call_dict, 0, TSR_JINJA_ANY, {""}},
        {"namespace", call_namespace, 0, TSR_JINJA_ANY, {""}},
        {"raise_exception", call_raise, 1, 1, {"message"}},
        {"strftime_now", call_strftime_now, 1, 1, {"format"}},
        {0},
    };
    return tsr_jinja_find_row(rows, name);
}
