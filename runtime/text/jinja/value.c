#include "runtime/text/jinja/value.h"

#include "runtime/text/jinja/run.h"

#include <string.h>

tsr_jinja_value tsr_jinja_none(void)
{
    return (tsr_jinja_value){.kind = TSR_JINJA_NONE};
}

tsr_jinja_value tsr_jinja_bool(bool truth)
{
    return (tsr_jinja_value){.kind = TSR_JINJA_BOOL, .as.truth = truth};
}

tsr_jinja_value tsr_jinja_int(int64_t integer)
{
    return (tsr_jinja_value){.kind = TSR_JINJA_INT, .as.integer = integer};
}

tsr_jinja_value tsr_jinja_float(double number)
{
    return (tsr_jinja_value){.kind = TSR_JINJA_FLOAT, .as.number = number};
}

tsr_jinja_value tsr_jinja_text_value(tsr_jinja_text text)
{
    return (tsr_jinja_value){.kind = TSR_JINJA_TEXT, .as.text = text};
}

tsr_jinja_value tsr_jinja_list_value(tsr_jinja_list *list)
{
    return (tsr_jinja_value){.kind = TSR_JINJA_LIST, .as.list = list};
}

bool tsr_jinja_is_text(tsr_jinja_value value)
{
    return value.kind == TSR_JINJA_TEXT;
}

bool tsr_jinja_is_whole(tsr_jinja_value value, int64_t *ret_integer)
{
    if (value.kind == TSR_JINJA_BOOL)
        *ret_integer = value.as.truth;
    else if (value.kind == TSR_JINJA_INT)
        *ret_integer = value.as.integer;
    return value.kind == TSR_JINJA_BOOL || value.kind == TSR_JINJA_INT;
}

bool tsr_jinja_is_number(tsr_jinja_value value, double *ret_number)
{
    int64_t integer = 0;
    if (tsr_jinja_is_whole(value, &integer))
        *ret_number = (double)integer;
    else if (value.kind == TSR_JINJA_FLOAT)
        *ret_number = value.as.number;
    else
        return false;
    return true;
}

bool tsr_jinja_is_sequence(tsr_jinja_value value)
{
    return value.kind == TSR_JINJA_LIST &&
           (value.as.list->kind == TSR_JINJA_PLAIN_LIST || value.as.list->kind == TSR_JINJA_TUPLE ||
            value.as.list->kind == TSR_JINJA_RANGE);
}

bool tsr_jinja_truth(tsr_jinja_value value)
{
    switch (value.kind) {
    case TSR_JINJA_MISSING:
    case TSR_JINJA_UNDEFINED:
    case TSR_JINJA_NONE:
        return false;
    case TSR_JINJA_BOOL:
        return value.as.truth;
    case TSR_JINJA_INT:
        return value.as.integer != 0;
    case TSR_JINJA_FLOAT:
        return value.as.number != 0.0;
    case TSR_JINJA_TEXT:
        return value.as.text.count != 0;
    case TSR_JINJA_LIST:
        return value.as.list->count != 0 || value.as.list->kind == TSR_JINJA_GENERATOR;
    case TSR_JINJA_DICT:
        return value.as.dict->count != 0;
    case TSR_JINJA_NAMESPACE:
    case TSR_JINJA_MACRO:
    case TSR_JINJA_LOOP:
    case TSR_JINJA_METHOD:
    case TSR_JINJA_FUNCTION:
        break;
    }
    return true;
}

const char *tsr_jinja_type_name(tsr_jinja_value value)
{
    static const char *const lists[] = {"list",        "tuple",      "range",    "dict_keys",
                                        "dict_values", "dict_items", "generator"};
    static const char *const others[] = {
        [TSR_JINJA_MISSING] = "nothing", [TSR_JINJA_UNDEFINED] = "Undefined",
        [TSR_JINJA_NONE] = "NoneType",   [TSR_JINJA_BOOL] = "bool",
        [TSR_JINJA_INT] = "int",         [TSR_JINJA_FLOAT] = "float",
        [TSR_JINJA_TEXT] = "str",        [TSR_JINJA_LIST] = "list",
        [TSR_JINJA_DICT] = "dict",       [TSR_JINJA_NAMESPACE] = "Namespace",
        [TSR_JINJA_MACRO] = "Macro",     [TSR_JINJA_LOOP] = "LoopContext",
        [TSR_JINJA_METHOD] = "method",   [TSR_JINJA_FUNCTION] = "function",
    };
    return value.kind == TSR_JINJA_LIST ? lists[value.as.list->kind] : others[value.kind];
}

bool tsr_jinja_len(tsr_jinja_value value, size_t *ret_length)
{
    if (value.kind == TSR_JINJA_UNDEFINED)
        *ret_length = 0;
    else if (value.kind == TSR_JINJA_TEXT)
        *ret_length = tsr_jinja_length(value.as.text);
    else if (value.kind == TSR_JINJA_DICT)
        *ret_length = value.as.dict->count;
    else if (value.kind == TSR_JINJA_LIST && value.as.list->kind != TSR_JINJA_GENERATOR)
        *ret_length = value.as.list->count;
    else
        return false;
    return true;
}

tsr_status tsr_jinja_list_new(tsr_jinja_run *run, tsr_jinja_list_kind kind, size_t count,
                              tsr_jinja_list **ret_list)
{
    void *list = NULL;
    void *items = NULL;
    tsr_status st = tsr_jinja_spend(run, count / 8);
    if (st == TSR_OK)
        st = tsr_jinja_alloc(run, 1, sizeof(tsr_jinja_list), &list);
    if (st == TSR_OK)
        st = tsr_jinja_alloc(run, count, sizeof(tsr_jinja_value), &items);
    if (st != TSR_OK)
        return st;
    *ret_list = list;
    **ret_list = (tsr_jinja_list){.kind = kind, .items = items, .count = count};
    return TSR_OK;
}

tsr_status tsr_jinja_tuple_of_two(tsr_jinja_run *run, tsr_jinja_value first, tsr_jinja_value second,
                                  tsr_jinja_value *ret_value)
{
    tsr_jinja_list *list = NULL;
    const tsr_status st = tsr_jinja_list_new(run, TSR_JINJA_TUPLE, 2, &list);
    if (st != TSR_OK)
        return st;
    list->items[0] = first;
    list->items[1] = second;
    *ret_value = tsr_jinja_list_value(list);
    return TSR_OK;
}

tsr_status tsr_jinja_dict_new(tsr_jinja_run *run, size_t capacity, tsr_jinja_dict **ret_dict)
{
    void *dict = NULL;
    void *pairs = NULL;
    tsr_status st = tsr_jinja_alloc(run, 1, sizeof(tsr_jinja_dict), &dict);
    if (st == TSR_OK)
        st = tsr_jinja_alloc(run, capacity, sizeof(tsr_jinja_pair), &pairs);
    if (st != TSR_OK)
        return st;
    *ret_dict = dict;
    **ret_dict = (tsr_jinja_dict){.pairs = pairs, .capacity = capacity};
    return TSR_OK;
}

/* Whether a value may be a key. */
static bool is_hashable(tsr_jinja_value value, int depth)
{
    if (value.kind == TSR_JINJA_DICT || depth == 0)
        return false;
    if (value.kind != TSR_JINJA_LIST)
        return true;
    if (value.as.list->kind == TSR_JINJA_RANGE || value.as.list->kind == TSR_JINJA_GENERATOR ||
        value.as.list->kind == TSR_JINJA_VALUES)
        return true;
    if (value.as.list->kind != TSR_JINJA_TUPLE)
        return false;
    for (size_t i = 0; i < value.as.list->count; i++) {
        if (!is_hashable(value.as.list->items[i], depth - 1))
            return false;
    }
    return true;
}

tsr_status tsr_jinja_dict_find(tsr_jinja_run *run, const tsr_jinja_dict *dict, tsr_jinja_value key,
                               tsr_jinja_pair **ret_found)
{
    *ret_found = NULL;
    if (!is_hashable(key, 16))
        return tsr_jinja_fail(run, "a value of type %s cannot be a key", tsr_jinja_type_name(key));
    tsr_status st = tsr_jinja_spend(run, dict->count / 8);
    for (size_t i = 0; i < dict->count && st == TSR_OK; i++) {
        bool equal = false;
        st = tsr_jinja_equal(run, dict->pairs[i].key, key, &equal);
        if (st == TSR_OK && equal) {
            *ret_found = &dict->pairs[i];
            break;
        }
    }
    return st;
}

const tsr_jinja_value *tsr_jinja_dict_get(const tsr_jinja_dict *dict, tsr_jinja_text key)
{
    for (size_t i = 0; i < dict->count; i++) {
        const tsr_jinja_pair *pair = &dict->pairs[i];
        if (pair->key.kind == TSR_JINJA_TEXT && tsr_jinja_text_equal(pair->key.as.text, key))
            return &pair->value;
    }
    return NULL;
}

tsr_status tsr_jinja_dict_put(tsr_jinja_run *run, tsr_jinja_dict *dict, tsr_jinja_value key,
                              tsr_jinja_value value)
{
    tsr_jinja_pair *found = NULL;
    tsr_status st = tsr_jinja_dict_find(run, dict, key, &found);
    if (st != TSR_OK)
        return st;
    if (found != NULL) {
        found->value = value;
        return TSR_OK;
    }
    if (dict->count == dict->capacity) {
        void *grown = NULL;
        const size_t capacity = dict->capacity * 2 + 4;
        st = tsr_jinja_alloc(run, capacity, sizeof(tsr_jinja_pair), &grown);
        if (st != TSR_OK)
            return st;
        if (dict->count > 0)
            memcpy(grown, dict->pairs, dict->count * sizeof(tsr_jinja_pair));
        dict->pairs = grown;
        dict->capacity = capacity;
    }
    dict->pairs[dict->count++] = (tsr_jinja_pair){.key = key, .value = value};
    return TSR_OK;
}

tsr_status tsr_jinja_dict_view(tsr_jinja_run *run, const tsr_jinja_dict *dict,
                               tsr_jinja_list_kind kind, tsr_jinja_value *ret_value)
{
    tsr_jinja_list *list = NULL;
    tsr_status st = tsr_jinja_list_new(run, kind, dict->count, &list);
    for (size_t i = 0; i < dict->count && st == TSR_OK; i++) {
        const tsr_jinja_pair *pair = &dict->pairs[i];
        if (kind == TSR_JINJA_KEYS)
            list->items[i] = pair->key;
        else if (kind == TSR_JINJA_VALUES)
            list->items[i] = pair->value;
        else
            st = tsr_jinja_tuple_of_two(run, pair->key, pair->value, &list->items[i]);
    }
    if (st == TSR_OK)
        *ret_value = tsr_jinja_list_value(list);
    return st;
}

static tsr_status characters(tsr_jinja_run *run, tsr_jinja_text text, tsr_jinja_list *ret_items)
{
    tsr_jinja_list *list = NULL;
    const tsr_status st =
        tsr_jinja_list_new(run, TSR_JINJA_PLAIN_LIST, tsr_jinja_length(text), &list);
    if (st != TSR_OK)
        return st;
    size_t at = 0;
    for (size_t i = 0; i < list->count; i++) {
        int32_t code = 0;
        const size_t used = tsr_jinja_decode(text, at, &code);
        list->items[i] = tsr_jinja_text_value(tsr_jinja_text_part(text, at, at + used));
        at += used;
    }
    *ret_items = *list;
    return TSR_OK;
}

tsr_status tsr_jinja_iterate(tsr_jinja_run *run, tsr_jinja_value value, tsr_jinja_list *ret_items)
{
    tsr_jinja_value keys = {0};
    if (value.kind == TSR_JINJA_UNDEFINED) {
        *ret_items = (tsr_jinja_list){0};
        return TSR_OK;
    }
    if (value.kind == TSR_JINJA_TEXT)
        return characters(run, value.as.text, ret_items);
    if (value.kind == TSR_JINJA_DICT) {
        const tsr_status st = tsr_jinja_dict_view(run, value.as.dict, TSR_JINJA_KEYS, &keys);
        if (st == TSR_OK)
            *ret_items = *keys.as.list;
        return st;
    }
    if (value.kind != TSR_JINJA_LIST)
        return tsr_jinja_fail(run, "a value of type %s cannot be iterated over",
                              tsr_jinja_type_name(value));
    *ret_items = *value.as.list;
    if (value.as.list->kind == TSR_JINJA_GENERATOR)
        value.as.list->count = 0;
    return TSR_OK;
}
