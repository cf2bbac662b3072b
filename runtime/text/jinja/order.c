/* Which values are equal, and which comes first. */
#include "runtime/text/jinja/run.h"

/* Exactly as Python, which compares an int with a float by value: a long double holds both. */
static bool numbers_of(tsr_jinja_value a, tsr_jinja_value b, long double *ret_pair)
{
    const tsr_jinja_value both[] = {a, b};
    for (size_t i = 0; i < 2; i++) {
        int64_t integer = 0;
        if (tsr_jinja_is_whole(both[i], &integer))
            ret_pair[i] = (long double)integer;
        else if (both[i].kind == TSR_JINJA_FLOAT)
            ret_pair[i] = (long double)both[i].as.number;
        else
            return false;
    }
    return true;
}

static tsr_status lists_equal(tsr_jinja_run *run, const tsr_jinja_list *a, const tsr_jinja_list *b,
                              bool *ret_equal)
{
    bool equal = a->count == b->count;
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < a->count && equal && st == TSR_OK; i++)
        st = tsr_jinja_equal(run, a->items[i], b->items[i], &equal);
    *ret_equal = equal;
    return st;
}

static tsr_status dicts_equal(tsr_jinja_run *run, const tsr_jinja_dict *a, const tsr_jinja_dict *b,
                              bool *ret_equal)
{
    bool equal = a->count == b->count;
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < a->count && equal && st == TSR_OK; i++) {
        tsr_jinja_pair *other = NULL;
        st = tsr_jinja_dict_find(run, b, a->pairs[i].key, &other);
        if (st == TSR_OK && other != NULL)
            st = tsr_jinja_equal(run, a->pairs[i].value, other->value, &equal);
        else
            equal = false;
    }
    *ret_equal = equal;
    return st;
}

/* Lists of one kind; views of values and generators are equal only to themselves. */
static tsr_status any_lists_equal(tsr_jinja_run *run, const tsr_jinja_list *a,
                                  const tsr_jinja_list *b, bool *ret_equal)
{
    *ret_equal = a == b;
    if (a == b || a->kind != b->kind || a->kind == TSR_JINJA_VALUES ||
        a->kind == TSR_JINJA_GENERATOR)
        return TSR_OK;
    return lists_equal(run, a, b, ret_equal);
}

/* Things that are only equal to themselves. */
static bool same(tsr_jinja_value a, tsr_jinja_value b)
{
    switch (a.kind) {
    case TSR_JINJA_MISSING:
    case TSR_JINJA_UNDEFINED:
    case TSR_JINJA_NONE:
        return true;
    case TSR_JINJA_NAMESPACE:
        return a.as.dict == b.as.dict;
    case TSR_JINJA_MACRO:
        return a.as.macro == b.as.macro;
    case TSR_JINJA_LOOP:
        return a.as.loop == b.as.loop;
    case TSR_JINJA_METHOD:
        return a.as.method == b.as.method;
    case TSR_JINJA_FUNCTION:
        return a.as.function == b.as.function;
    case TSR_JINJA_BOOL:
    case TSR_JINJA_INT:
    case TSR_JINJA_FLOAT:
    case TSR_JINJA_TEXT:
    case TSR_JINJA_LIST:
    case TSR_JINJA_DICT:
        break;
    }
    return false;
}

tsr_status tsr_jinja_equal(tsr_jinja_run *run, tsr_jinja_value a, tsr_jinja_value b,
                           bool *ret_equal)
{
    long double numbers[2];
    if (numbers_of(a, b, numbers)) {
        *ret_equal = numbers[0] == numbers[1];
        return TSR_OK;
    }
    if (a.kind != b.kind) {
        *ret_equal = false;
        return TSR_OK;
    }
    if (a.kind == TSR_JINJA_TEXT) {
        *ret_equal = tsr_jinja_text_equal(a.as.text, b.as.text);
        return *ret_equal ? tsr_jinja_spend(run, a.as.text.count / 256) : TSR_OK;
    }
    if (a.kind != TSR_JINJA_LIST && a.kind != TSR_JINJA_DICT) {
        *ret_equal = same(a, b);
        return TSR_OK;
    }
    tsr_status st = tsr_jinja_spend(run, 1);
    if (st == TSR_OK)
        st = tsr_jinja_enter(run);
    if (st != TSR_OK)
        return st;
    st = a.kind == TSR_JINJA_LIST ? any_lists_equal(run, a.as.list, b.as.list, ret_equal)
                                  : dicts_equal(run, a.as.dict, b.as.dict, ret_equal);
    tsr_jinja_leave(run);
    return st;
}

/* The first items that differ decide; else the shorter list comes first. */
static tsr_status list_less(tsr_jinja_run *run, const tsr_jinja_list *a, const tsr_jinja_list *b,
                            bool *ret_less)
{
    for (size_t i = 0; i < a->count && i < b->count; i++) {
        bool equal = false;
        const tsr_status st = tsr_jinja_equal(run, a->items[i], b->items[i], &equal);
        if (st != TSR_OK)
            return st;
        if (!equal)
            return tsr_jinja_less(run, a->items[i], b->items[i], ret_less);
    }
    *ret_less = a->count < b->count;
    return TSR_OK;
}

tsr_status tsr_jinja_less(tsr_jinja_run *run, tsr_jinja_value a, tsr_jinja_value b, bool *ret_less)
{
    long double numbers[2];
    if (numbers_of(a, b, numbers)) {
        *ret_less = numbers[0] < numbers[1];
        return TSR_OK;
    }
    if (a.kind == TSR_JINJA_TEXT && b.kind == TSR_JINJA_TEXT) {
        *ret_less = tsr_jinja_text_compare(a.as.text, b.as.text) < 0;
        return tsr_jinja_spend(run, a.as.text.count / 256);
    }
    if (a.kind == TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail_undefined(run, a.as.undefined);
    if (b.kind == TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail_undefined(run, b.as.undefined);
    if (a.kind == TSR_JINJA_LIST && b.kind == TSR_JINJA_LIST &&
        a.as.list->kind == b.as.list->kind && a.as.list->kind <= TSR_JINJA_TUPLE) {
        tsr_status st = tsr_jinja_enter(run);
        if (st != TSR_OK)
            return st;
        st = list_less(run, a.as.list, b.as.list, ret_less);
        tsr_jinja_leave(run);
        return st;
    }
    return tsr_jinja_fail(run, "values of types %s and %s cannot be ordered",
                          tsr_jinja_type_name(a), tsr_jinja_type_name(b));
}

/* a <= b is not the same as not b < a where lists hold things without an order, or NaN. */
static tsr_status less_or_equal(tsr_jinja_run *run, tsr_jinja_value a, tsr_jinja_value b,
                                bool *ret_holds)
{
    bool equal = false;
    bool less = false;
    tsr_status st = TSR_OK;
    if (a.kind == TSR_JINJA_LIST && b.kind == TSR_JINJA_LIST &&
        a.as.list->kind == b.as.list->kind && a.as.list->kind <= TSR_JINJA_TUPLE)
        st = lists_equal(run, a.as.list, b.as.list, &equal);
    if (st == TSR_OK && !equal)
        st = tsr_jinja_less(run, a, b, &less);
    if (st == TSR_OK && !equal && !less)
        st = tsr_jinja_equal(run, a, b, &equal);
    *ret_holds = equal || less;
    return st;
}

tsr_status tsr_jinja_compare(tsr_jinja_run *run, tsr_jinja_operator op, tsr_jinja_value a,
                             tsr_jinja_value b, bool *ret_holds)
{
    bool holds = false;
    tsr_status st = TSR_OK;
    if (op == TSR_JINJA_EQ || op == TSR_JINJA_NE)
        st = tsr_jinja_equal(run, a, b, &holds);
    else if (op == TSR_JINJA_LT || op == TSR_JINJA_GT)
        st = op == TSR_JINJA_LT ? tsr_jinja_less(run, a, b, &holds)
                                : tsr_jinja_less(run, b, a, &holds);
    else if (op == TSR_JINJA_LE || op == TSR_JINJA_GE)
        st = op == TSR_JINJA_LE ? less_or_equal(run, a, b, &holds)
                                : less_or_equal(run, b, a, &holds);
    else
        st = tsr_jinja_contains(run, b, a, &holds);
    if (st == TSR_OK)
        *ret_holds = (op == TSR_JINJA_NE || op == TSR_JINJA_NOT_IN) ? !holds : holds;
    return st;
}

/* A dict's views look up the key, which what cannot be a key does not survive. */
static tsr_status must_hash(tsr_jinja_run *run, tsr_jinja_value container, tsr_jinja_value item)
{
    const tsr_jinja_dict nothing = {0};
    tsr_jinja_pair *found = NULL;
    if (container.kind != TSR_JINJA_LIST)
        return TSR_OK;
    if (container.as.list->kind == TSR_JINJA_KEYS)
        return tsr_jinja_dict_find(run, &nothing, item, &found);
    if (container.as.list->kind == TSR_JINJA_ITEMS && item.kind == TSR_JINJA_LIST &&
        item.as.list->kind == TSR_JINJA_TUPLE && item.as.list->count == 2)
        return tsr_jinja_dict_find(run, &nothing, item.as.list->items[0], &found);
    return TSR_OK;
}

tsr_status tsr_jinja_contains(tsr_jinja_run *run, tsr_jinja_value container, tsr_jinja_value item,
                              bool *ret_contains)
{
    if (container.kind == TSR_JINJA_TEXT) {
        if (item.kind != TSR_JINJA_TEXT)
            return tsr_jinja_fail(run, "'in' a text needs a text, not %s",
                                  tsr_jinja_type_name(item));
        *ret_contains = tsr_jinja_text_find(container.as.text, item.as.text, 0) != SIZE_MAX;
        return tsr_jinja_spend(run, container.as.text.count / 32);
    }
    if (container.kind == TSR_JINJA_DICT) {
        tsr_jinja_pair *found = NULL;
        const tsr_status st = tsr_jinja_dict_find(run, container.as.dict, item, &found);
        *ret_contains = found != NULL;
        return st;
    }

    tsr_jinja_list items = {0};
    bool found = false;
    tsr_status st = must_hash(run, container, item);
    if (st == TSR_OK)
        st = tsr_jinja_iterate(run, container, &items);
    if (st == TSR_OK)
        st = tsr_jinja_spend(run, items.count / 8);
    size_t i = 0;
    for (; i < items.count && st == TSR_OK && !found; i++)
        st = tsr_jinja_equal(run, items.items[i], item, &found);
    if (st == TSR_OK && container.kind == TSR_JINJA_LIST &&
        container.as.list->kind == TSR_JINJA_GENERATOR) {
        /* What was looked at is gone, the rest is still there. */
        container.as.list->items = items.items + i;
        container.as.list->count = items.count - i;
    }
    *ret_contains = found;
    return st;
}
