/* Methods of dicts and lists. None of them changes its object. */
#include "runtime/text/jinja/run.h"

typedef tsr_jinja_value value;

static tsr_status dict_items(tsr_jinja_call *call, value *ret)
{
    return tsr_jinja_dict_view(call->run, call->self.as.dict, TSR_JINJA_ITEMS, ret);
}

static tsr_status dict_keys(tsr_jinja_call *call, value *ret)
{
    return tsr_jinja_dict_view(call->run, call->self.as.dict, TSR_JINJA_KEYS, ret);
}

static tsr_status dict_values(tsr_jinja_call *call, value *ret)
{
    return tsr_jinja_dict_view(call->run, call->self.as.dict, TSR_JINJA_VALUES, ret);
}

static tsr_status dict_get(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_pair *found = NULL;
    const tsr_status st =
        tsr_jinja_dict_find(call->run, call->self.as.dict, call->slots[0], &found);
    if (st != TSR_OK)
        return st;
    *ret = call->slots[1].kind == TSR_JINJA_MISSING ? tsr_jinja_none() : call->slots[1];
    if (found != NULL)
        *ret = found->value;
    return TSR_OK;
}

/* Nothing can change a dict or list, so that a copy is the thing itself. */
static tsr_status copy(tsr_jinja_call *call, value *ret)
{
    *ret = call->self;
    return TSR_OK;
}

const tsr_jinja_builtin *tsr_jinja_find_dict_method(tsr_jinja_text name)
{
    static const tsr_jinja_builtin rows[] = {
        {"items", dict_items, 0, 0, {""}},   {"keys", dict_keys, 0, 0, {""}},
        {"values", dict_values, 0, 0, {""}}, {"get", dict_get, 1, 2, {"", ""}},
        {"copy", copy, 0, 0, {""}},          {0},
    };
    return tsr_jinja_find_row(rows, name);
}

static tsr_status list_count(tsr_jinja_call *call, value *ret)
{
    const tsr_jinja_list *list = call->self.as.list;
    int64_t count = 0;
    tsr_status st = tsr_jinja_spend(call->run, list->count / 8);
    for (size_t i = 0; i < list->count && st == TSR_OK; i++) {
        bool equal = false;
        st = tsr_jinja_equal(call->run, list->items[i], call->slots[0], &equal);
        count += equal ? 1 : 0;
    }
    *ret = tsr_jinja_int(count);
    return st;
}

static tsr_status list_index(tsr_jinja_call *call, value *ret)
{
    const tsr_jinja_list *list = call->self.as.list;
    tsr_status st = tsr_jinja_spend(call->run, list->count / 8);
    for (size_t i = 0; i < list->count && st == TSR_OK; i++) {
        bool equal = false;
        st = tsr_jinja_equal(call->run, list->items[i], call->slots[0], &equal);
        if (st == TSR_OK && equal) {
            *ret = tsr_jinja_int((int64_t)i);
            return TSR_OK;
        }
    }
    return st == TSR_OK ? tsr_jinja_fail(call->run, "index of something that is not there") : st;
}

const tsr_jinja_builtin *tsr_jinja_find_list_method(tsr_jinja_text name)
{
    static const tsr_jinja_builtin rows[] = {
        {"count", list_count, 1, 1, {""}},
        {"index", list_index, 1, 1, {""}},
        {"copy", copy, 0, 0, {""}},
        {0},
    };
    return tsr_jinja_find_row(rows, name);
}
