/* Filters on sequences as a whole: their ends, their order, their sums. */
#include "runtime/text/jinja/attribute_path.h"

#include <string.h>

typedef tsr_jinja_value value;

static const value absent = {.kind = TSR_JINJA_MISSING};

static bool truthy(value v)
{
    return tsr_jinja_truth(v);
}

static tsr_status filter_items(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_list *list = NULL;
    if (call->self.kind == TSR_JINJA_DICT) {
        const tsr_status st =
            tsr_jinja_dict_view(call->run, call->self.as.dict, TSR_JINJA_ITEMS, ret);
        if (st == TSR_OK)
            ret->as.list->kind = TSR_JINJA_GENERATOR;
        return st;
    }
    if (call->self.kind != TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail(call->run, "items of %s", tsr_jinja_type_name(call->self));
    const tsr_status st = tsr_jinja_list_new(call->run, TSR_JINJA_GENERATOR, 0, &list);
    *ret = tsr_jinja_list_value(list);
    return st;
}

static tsr_status filter_list(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_list items = {0};
    tsr_jinja_list *list = NULL;
    tsr_status st = tsr_jinja_iterate(call->run, call->self, &items);
    if (st == TSR_OK)
        st = tsr_jinja_list_new(call->run, TSR_JINJA_PLAIN_LIST, items.count, &list);
    if (st != TSR_OK)
        return st;
    if (items.count > 0)
        memcpy(list->items, items.items, items.count * sizeof(value));
    *ret = tsr_jinja_list_value(list);
    return TSR_OK;
}

static tsr_status filter_first(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_list items = {0};
    const tsr_status st = tsr_jinja_iterate(call->run, call->self, &items);
    if (st != TSR_OK)
        return st;
    if (items.count == 0)
        return tsr_jinja_undefined_hint(call->run, "the first item of an empty sequence", ret);
    *ret = items.items[0];
    if (call->self.kind == TSR_JINJA_LIST && call->self.as.list->kind == TSR_JINJA_GENERATOR) {
        call->self.as.list->items = items.items + 1;
        call->self.as.list->count = items.count - 1;
    }
    return TSR_OK;
}

/* What has a length has an end to begin from. */
static tsr_status filter_last(tsr_jinja_call *call, value *ret)
{
    size_t length = 0;
    tsr_jinja_list items = {0};
    if (!tsr_jinja_len(call->self, &length))
        return tsr_jinja_fail(call->run, "the last item of %s", tsr_jinja_type_name(call->self));
    const tsr_status st = tsr_jinja_iterate(call->run, call->self, &items);
    if (st == TSR_OK && items.count == 0)
        return tsr_jinja_undefined_hint(call->run, "the last item of an empty sequence", ret);
    if (st == TSR_OK)
        *ret = items.items[items.count - 1];
    return st;
}

static tsr_status filter_reverse(tsr_jinja_call *call, value *ret)
{
    if (call->self.kind == TSR_JINJA_TEXT) {
        const tsr_jinja_slice back = {
            .from = tsr_jinja_none(), .to = tsr_jinja_none(), .step = tsr_jinja_int(-1)};
        return tsr_jinja_slice_of(call->run, call->self, &back, ret);
    }
    const bool generator =
        call->self.kind == TSR_JINJA_LIST && call->self.as.list->kind == TSR_JINJA_GENERATOR;
    const tsr_status st = filter_list(call, ret);
    if (st != TSR_OK)
        return st;
    tsr_jinja_list *list = ret->as.list;
    for (size_t i = 0; i < list->count / 2; i++) {
        const value other = list->items[i];
        list->items[i] = list->items[list->count - 1 - i];
        list->items[list->count - 1 - i] = other;
    }
    if (!generator)
        list->kind = TSR_JINJA_GENERATOR;
    return TSR_OK;
}

static tsr_status filter_join(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_list items = {0};
    tsr_text built = {0};
    tsr_status st = tsr_jinja_iterate(call->run, call->self, &items);
    for (size_t i = 0; i < items.count && st == TSR_OK; i++) {
        value item = {0};
        st = tsr_jinja_spend(call->run, 1);
        if (st == TSR_OK && i > 0 && call->slots[0].kind != TSR_JINJA_MISSING)
            st = tsr_jinja_print(call->run, call->slots[0], &built);
        if (st == TSR_OK)
            st = tsr_jinja_follow(call->run, items.items[i], call->slots[1], absent, &item);
        if (st == TSR_OK)
            st = tsr_jinja_print(call->run, item, &built);
    }
    return tsr_jinja_built(call->run, st, &built, ret);
}

static tsr_status filter_sum(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_list items = {0};
    value sides[2] = {tsr_jinja_int(0), {0}};
    if (call->slots[1].kind != TSR_JINJA_MISSING)
        sides[0] = call->slots[1];
    if (sides[0].kind == TSR_JINJA_TEXT)
        return tsr_jinja_fail(call->run, "sum of texts; use join");
    tsr_status st = tsr_jinja_iterate(call->run, call->self, &items);
    for (size_t i = 0; i < items.count && st == TSR_OK; i++) {
        st = tsr_jinja_follow(call->run, items.items[i], call->slots[0], absent, &sides[1]);
        if (st == TSR_OK)
            st = tsr_jinja_binary(call->run, TSR_JINJA_ADD, sides, &sides[0]);
    }
    *ret = sides[0];
    return st;
}

/* What two items are compared by. */
static tsr_status key_of(tsr_jinja_call *call, value item, value path, bool fold, value *ret)
{
    tsr_status st = tsr_jinja_follow(call->run, item, path, absent, ret);
    if (st == TSR_OK && fold)
        st = tsr_jinja_fold(call->run, *ret, ret);
    return st;
}

static tsr_status extreme(tsr_jinja_call *call, bool largest, value *ret)
{
    tsr_jinja_list items = {0};
    const bool fold = !truthy(call->slots[0]);
    value best = {0};
    tsr_status st = tsr_jinja_iterate(call->run, call->self, &items);
    if (st == TSR_OK && items.count == 0)
        return tsr_jinja_undefined_hint(call->run, "the extreme of an empty sequence", ret);
    for (size_t i = 0; i < items.count && st == TSR_OK; i++) {
        value key = {0};
        bool better = i == 0;
        st = key_of(call, items.items[i], call->slots[1], fold, &key);
        if (st == TSR_OK && i > 0)
            st = largest ? tsr_jinja_less(call->run, best, key, &better)
                         : tsr_jinja_less(call->run, key, best, &better);
        if (better) {
            best = key;
            *ret = items.items[i];
        }
    }
    return st;
}

static tsr_status filter_min(tsr_jinja_call *call, value *ret)
{
    return extreme(call, false, ret);
}

static tsr_status filter_max(tsr_jinja_call *call, value *ret)
{
    return extreme(call, true, ret);
}

/* Merges two sorted runs of pairs (key, item); equal keys keep their order. */
static tsr_status merge(tsr_jinja_run *run, tsr_jinja_pair *pairs, tsr_jinja_pair *spare,
                        const size_t *bounds)
{
    size_t a = bounds[0];
    size_t b = bounds[1];
    tsr_status st = TSR_OK;
    for (size_t to = bounds[0]; to < bounds[2] && st == TSR_OK; to++) {
        bool right = a == bounds[1];
        if (a < bounds[1] && b < bounds[2]) {
            st = tsr_jinja_spend(run, 1);
            if (st == TSR_OK)
                st = tsr_jinja_less(run, pairs[b].key, pairs[a].key, &right);
        }
        spare[to] = right ? pairs[b++] : pairs[a++];
    }
    if (st == TSR_OK)
        memcpy(pairs + bounds[0], spare + bounds[0], (bounds[2] - bounds[0]) * sizeof(*pairs));
    return st;
}

static tsr_status sort_pairs(tsr_jinja_run *run, tsr_jinja_pair *pairs, size_t count)
{
    void *spare = NULL;
    tsr_status st = tsr_jinja_alloc(run, count, sizeof(tsr_jinja_pair), &spare);
    for (size_t width = 1; width < count && st == TSR_OK; width *= 2) {
        for (size_t from = 0; from + width < count && st == TSR_OK; from += 2 * width) {
            const size_t to = from + 2 * width < count ? from + 2 * width : count;
            const size_t bounds[] = {from, from + width, to};
            st = merge(run, pairs, spare, bounds);
        }
    }
    return st;
}

/* Sorts `items` in place by `keys`; backwards keeps the order of equal ones too. */
static tsr_status sort_by(tsr_jinja_run *run, tsr_jinja_list *items, const value *keys,
                          bool backwards)
{
    void *memory = NULL;
    const size_t count = items->count;
    tsr_status st = tsr_jinja_alloc(run, count, sizeof(tsr_jinja_pair), &memory);
    if (st != TSR_OK)
        return st;
    tsr_jinja_pair *pairs = memory;
    for (size_t i = 0; i < count; i++) {
        const size_t from = backwards ? count - 1 - i : i;
        pairs[i] = (tsr_jinja_pair){.key = keys[from], .value = items->items[from]};
    }
    st = sort_pairs(run, pairs, count);
    for (size_t i = 0; i < count && st == TSR_OK; i++)
        items->items[backwards ? count - 1 - i : i] = pairs[i].value;
    return st;
}

/* "a,b" sorts by a and then by b: the key is the list of both. */
static tsr_status sort_key(tsr_jinja_call *call, value item, bool fold, value *ret)
{
    const value path = call->slots[2];
    const bool several = path.kind == TSR_JINJA_TEXT;
    tsr_jinja_list *parts = NULL;
    size_t count = 1;
    for (size_t i = 0; several && i < path.as.text.count; i++)
        count += path.as.text.bytes[i] == ',' ? 1 : 0;
    tsr_status st = tsr_jinja_list_new(call->run, TSR_JINJA_PLAIN_LIST, count, &parts);
    if (st == TSR_OK && !several)
        st = key_of(call, item, path, fold, &parts->items[0]);
    size_t from = 0;
    for (size_t i = 0; several && i < count && st == TSR_OK; i++) {
        size_t to = tsr_jinja_text_find(path.as.text, tsr_jinja_text_of(","), from);
        to = to == SIZE_MAX ? path.as.text.count : to;
        const value part = tsr_jinja_text_value(tsr_jinja_text_part(path.as.text, from, to));
        st = key_of(call, item, part, fold, &parts->items[i]);
        from = to + 1;
    }
    if (st == TSR_OK)
        *ret = tsr_jinja_list_value(parts);
    return st;
}

static tsr_status filter_sort(tsr_jinja_call *call, value *ret)
{
    void *keys = NULL;
    tsr_status st = filter_list(call, ret);
    if (st != TSR_OK)
        return st;
    tsr_jinja_list *list = ret->as.list;
    st = tsr_jinja_alloc(call->run, list->count, sizeof(value), &keys);
    for (size_t i = 0; i < list->count && st == TSR_OK; i++)
        st = sort_key(call, list->items[i], !truthy(call->slots[1]), (value *)keys + i);
    return st == TSR_OK ? sort_by(call->run, list, keys, truthy(call->slots[0])) : st;
}

static tsr_status filter_dictsort(tsr_jinja_call *call, value *ret)
{
    void *memory = NULL;
    size_t part = 0;
    if (call->self.kind != TSR_JINJA_DICT)
        return tsr_jinja_fail(call->run, "dictsort of %s", tsr_jinja_type_name(call->self));
    if (call->slots[1].kind != TSR_JINJA_MISSING) {
        tsr_jinja_text by = {0};
        if (call->slots[1].kind == TSR_JINJA_TEXT)
            by = call->slots[1].as.text;
        part = tsr_jinja_text_is(by, "value") ? 1 : 0;
        if (part == 0 && !tsr_jinja_text_is(by, "key"))
            return tsr_jinja_fail(call->run, "dictsort sorts by key or value");
    }
    tsr_status st = tsr_jinja_dict_view(call->run, call->self.as.dict, TSR_JINJA_ITEMS, ret);
    if (st != TSR_OK)
        return st;
    tsr_jinja_list *list = ret->as.list;
    list->kind = TSR_JINJA_PLAIN_LIST;
    st = tsr_jinja_alloc(call->run, list->count, sizeof(value), &memory);
    value *keys = memory;
    for (size_t i = 0; i < list->count && st == TSR_OK; i++) {
        keys[i] = list->items[i].as.list->items[part];
        if (!truthy(call->slots[0]))
            st = tsr_jinja_fold(call->run, keys[i], &keys[i]);
    }
    return st == TSR_OK ? sort_by(call->run, list, keys, truthy(call->slots[2])) : st;
}

static tsr_status filter_unique(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_list items = {0};
    tsr_jinja_list *list = NULL;
    tsr_jinja_dict *seen = NULL;
    tsr_status st = tsr_jinja_iterate(call->run, call->self, &items);
    if (st == TSR_OK)
        st = tsr_jinja_list_new(call->run, TSR_JINJA_GENERATOR, items.count, &list);
    if (st == TSR_OK)
        st = tsr_jinja_dict_new(call->run, 0, &seen);
    size_t kept = 0;
    for (size_t i = 0; i < items.count && st == TSR_OK; i++) {
        value key = {0};
        const size_t before = seen->count;
        st = key_of(call, items.items[i], call->slots[1], !truthy(call->slots[0]), &key);
        if (st == TSR_OK)
            st = tsr_jinja_dict_put(call->run, seen, key, tsr_jinja_none());
        if (st == TSR_OK && seen->count > before)
            list->items[kept++] = items.items[i];
    }
    if (st != TSR_OK)
        return st;
    list->count = kept;
    *ret = tsr_jinja_list_value(list);
    return TSR_OK;
}

const tsr_jinja_builtin tsr_jinja_sequence_filters[] = {
    {"items", filter_items, 0, 0, {""}},
    {"list", filter_list, 0, 0, {""}},
    {"first", filter_first, 0, 0, {""}},
    {"last", filter_last, 0, 0, {""}},
    {"reverse", filter_reverse, 0, 0, {""}},
    {"join", filter_join, 0, 2, {"d", "attribute"}},
    {"sum", filter_sum, 0, 2, {"attribute", "start"}},
    {"min", filter_min, 0, 2, {"case_sensitive", "attribute"}},
    {"max", filter_max, 0, 2, {"case_sensitive", "attribute"}},
    {"sort", filter_sort, 0, 3, {"reverse", "case_sensitive", "attribute"}},
    {"dictsort", filter_dictsort, 0, 3, {"case_sensitive", "by", "reverse"}},
    {"unique", filter_unique, 0, 2, {"case_sensitive", "attribute"}},
    {0},
};
