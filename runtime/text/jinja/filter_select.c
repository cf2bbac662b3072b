/* map, select, reject and their siblings: a filter or a test applied to every item. */
#include "runtime/text/jinja/attribute_path.h"

typedef tsr_jinja_value value;

static const value absent = {.kind = TSR_JINJA_MISSING};

/* The arguments behind the first `taken`. */
static tsr_jinja_args rest_of(const tsr_jinja_args *args, size_t taken)
{
    return (tsr_jinja_args){.values = args->values + taken,
                            .names = args->names,
                            .count = args->count - taken,
                            .named = args->named};
}

static tsr_status new_generator(tsr_jinja_call *call, tsr_jinja_list *items, tsr_jinja_list **ret)
{
    tsr_status st = TSR_OK;
    *items = (tsr_jinja_list){0};
    if (tsr_jinja_truth(call->self))
        st = tsr_jinja_iterate(call->run, call->self, items);
    if (st == TSR_OK)
        st = tsr_jinja_list_new(call->run, TSR_JINJA_GENERATOR, items->count, ret);
    return st;
}

/* map(attribute=..., default=...) */
static tsr_status map_attribute(tsr_jinja_call *call, const tsr_jinja_list *items, value *results)
{
    value path = absent;
    value fallback = absent;
    for (size_t i = 0; i < call->args->named; i++) {
        if (tsr_jinja_text_is(call->args->names[i], "attribute"))
            path = call->args->values[i];
        else if (tsr_jinja_text_is(call->args->names[i], "default"))
            fallback = call->args->values[i];
        else
            return tsr_jinja_fail(call->run, "map does not take the argument '%.*s'",
                                  (int)call->args->names[i].count, call->args->names[i].bytes);
    }
    if (path.kind == TSR_JINJA_MISSING)
        return tsr_jinja_fail(call->run, "map needs a filter or an attribute");
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < items->count && st == TSR_OK; i++)
        st = tsr_jinja_follow(call->run, items->items[i], path, fallback, &results[i]);
    return st;
}

/* The row of a filter or test that is named at run time. */
static tsr_status find(tsr_jinja_call *call, value name, bool test, const tsr_jinja_builtin **ret)
{
    if (name.kind != TSR_JINJA_TEXT)
        return tsr_jinja_fail(call->run, "the name of a %s is not a text",
                              test ? "test" : "filter");
    const tsr_jinja_builtin *row =
        test ? tsr_jinja_find_test(name.as.text) : tsr_jinja_find_filter(name.as.text);
    if (row == NULL)
        return tsr_jinja_fail(call->run, "the %s '%.*s' is not supported", test ? "test" : "filter",
                              name.as.text.count < 40 ? (int)name.as.text.count : 40,
                              name.as.text.bytes);
    *ret = row;
    return TSR_OK;
}

static tsr_status filter_map(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_list items = {0};
    tsr_jinja_list *list = NULL;
    const tsr_jinja_builtin *row = NULL;
    tsr_status st = new_generator(call, &items, &list);
    if (st == TSR_OK && items.count > 0 && call->args->count == call->args->named) {
        st = map_attribute(call, &items, list->items);
    } else if (st == TSR_OK && items.count > 0) {
        const tsr_jinja_args args = rest_of(call->args, 1);
        st = find(call, call->args->values[0], false, &row);
        if (st == TSR_OK)
            st = tsr_jinja_enter(call->run);
        if (st != TSR_OK)
            return st;
        for (size_t i = 0; i < items.count && st == TSR_OK; i++) {
            st = tsr_jinja_spend(call->run, 1);
            if (st == TSR_OK)
                st = tsr_jinja_builtin_call(call->run, row, items.items[i], &args, &list->items[i]);
        }
        tsr_jinja_leave(call->run);
    }
    if (st == TSR_OK)
        *ret = tsr_jinja_list_value(list);
    return st;
}

/* Which items to keep, and by what. */
typedef struct selection {
    bool attribute; /* the first argument says where to look */
    bool keep;      /* those that pass, or those that do not */
} selection;

static tsr_status passes(tsr_jinja_call *call, const selection *how, value item, bool *ret)
{
    const size_t taken = how->attribute ? 1 : 0;
    const tsr_jinja_builtin *row = NULL;
    value answer = item;
    tsr_status st = TSR_OK;
    if (how->attribute)
        st = tsr_jinja_follow(call->run, item, call->args->values[0], absent, &answer);
    if (st == TSR_OK && call->args->count - call->args->named > taken) {
        const tsr_jinja_args args = rest_of(call->args, taken + 1);
        st = find(call, call->args->values[taken], true, &row);
        if (st == TSR_OK)
            st = tsr_jinja_builtin_call(call->run, row, answer, &args, &answer);
    }
    *ret = tsr_jinja_truth(answer) == how->keep;
    return st;
}

static tsr_status select_items(tsr_jinja_call *call, selection how, value *ret)
{
    tsr_jinja_list items = {0};
    tsr_jinja_list *list = NULL;
    tsr_status st = new_generator(call, &items, &list);
    if (st == TSR_OK && items.count > 0 && how.attribute && call->args->count == call->args->named)
        return tsr_jinja_fail(call->run, "the name of an attribute is missing");
    size_t kept = 0;
    for (size_t i = 0; i < items.count && st == TSR_OK; i++) {
        bool keep = false;
        st = tsr_jinja_spend(call->run, 1);
        if (st == TSR_OK)
            st = passes(call, &how, items.items[i], &keep);
        if (st == TSR_OK && keep)
            list->items[kept++] = items.items[i];
    }
    if (st != TSR_OK)
        return st;
    list->count = kept;
    *ret = tsr_jinja_list_value(list);
    return TSR_OK;
}

static tsr_status filter_select(tsr_jinja_call *call, value *ret)
{
    return select_items(call, (selection){.attribute = false, .keep = true}, ret);
}

static tsr_status filter_reject(tsr_jinja_call *call, value *ret)
{
    return select_items(call, (selection){.attribute = false, .keep = false}, ret);
}

static tsr_status filter_selectattr(tsr_jinja_call *call, value *ret)
{
    return select_items(call, (selection){.attribute = true, .keep = true}, ret);
}

static tsr_status filter_rejectattr(tsr_jinja_call *call, value *ret)
{
    return select_items(call, (selection){.attribute = true, .keep = false}, ret);
}

const tsr_jinja_builtin tsr_jinja_select_filters[] = {
    {"map", filter_map, 0, TSR_JINJA_ANY, {""}},
    {"select", filter_select, 0, TSR_JINJA_ANY, {""}},
    {"reject", filter_reject, 0, TSR_JINJA_ANY, {""}},
    {"selectattr", filter_selectattr, 0, TSR_JINJA_ANY, {""}},
    {"rejectattr", filter_rejectattr, 0, TSR_JINJA_ANY, {""}},
    {0},
};
