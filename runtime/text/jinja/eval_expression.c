/* What an expression is worth. */
#include "runtime/text/jinja/run.h"

#include <string.h>

typedef tsr_jinja_node node;
typedef tsr_jinja_value value;

/* Jinja's own globals that no chat template needs: an honest answer instead of "undefined". */
static const char *const unsupported_globals[] = {"lipsum",  "cycler", "joiner", "caller",
                                                  "varargs", "kwargs", "self",   NULL};

/* The variable of the innermost block that has one, NULL when none has. */
static const tsr_jinja_binding *binding_of(const tsr_jinja_run *run, tsr_jinja_text name,
                                           size_t *ret_passed)
{
    size_t passed = 0;
    const tsr_jinja_binding *found = NULL;
    for (const tsr_jinja_scope *scope = run->scope; scope != NULL && found == NULL;
         scope = scope->outer) {
        found = scope->bindings;
        for (; found != NULL && !tsr_jinja_text_equal(found->name, name); found = found->next)
            passed++;
    }
    *ret_passed = passed;
    return found;
}

static tsr_status eval_name(tsr_jinja_run *run, const node *n, value *ret)
{
    size_t passed = 0;
    const tsr_jinja_binding *bound = binding_of(run, n->name, &passed);
    const tsr_status st = tsr_jinja_spend(run, passed / 16);
    if (st != TSR_OK)
        return st;
    if (bound != NULL && bound->value.kind == TSR_JINJA_MISSING)
        return tsr_jinja_undefined_name(run, NULL, n->name, ret);
    if (bound != NULL) {
        *ret = bound->value;
        return TSR_OK;
    }
    const value *given = tsr_jinja_dict_get(run->variables, n->name);
    if (given != NULL) {
        *ret = *given;
        return TSR_OK;
    }
    const tsr_jinja_builtin *global = tsr_jinja_find_global(n->name);
    if (global != NULL) {
        *ret = (value){.kind = TSR_JINJA_FUNCTION, .as.function = global};
        return TSR_OK;
    }
    for (const char *const *name = unsupported_globals; *name != NULL; name++) {
        if (tsr_jinja_text_is(n->name, *name))
            return tsr_jinja_fail(run, "'%s' is not supported", *name);
    }
    return tsr_jinja_undefined_name(run, NULL, n->name, ret);
}

static tsr_status eval_list(tsr_jinja_run *run, const node *n, value *ret)
{
    tsr_jinja_list *list = NULL;
    const tsr_jinja_list_kind kind =
        n->kind == TSR_JINJA_NODE_TUPLE ? TSR_JINJA_TUPLE : TSR_JINJA_PLAIN_LIST;
    tsr_status st = tsr_jinja_list_new(run, kind, n->count, &list);
    for (size_t i = 0; i < n->count && st == TSR_OK; i++)
        st = tsr_jinja_eval(run, n->items[i], &list->items[i]);
    if (st == TSR_OK)
        *ret = tsr_jinja_list_value(list);
    return st;
}

static tsr_status eval_dict(tsr_jinja_run *run, const node *n, value *ret)
{
    tsr_jinja_dict *dict = NULL;
    tsr_status st = tsr_jinja_dict_new(run, n->count / 2, &dict);
    for (size_t i = 0; i < n->count && st == TSR_OK; i += 2) {
        value key = {0};
        value item = {0};
        st = tsr_jinja_eval(run, n->items[i], &key);
        if (st == TSR_OK)
            st = tsr_jinja_eval(run, n->items[i + 1], &item);
        if (st == TSR_OK)
            st = tsr_jinja_dict_put(run, dict, key, item);
    }
    if (st == TSR_OK)
        *ret = (value){.kind = TSR_JINJA_DICT, .as.dict = dict};
    return st;
}

static tsr_status eval_concat(tsr_jinja_run *run, const node *n, value *ret)
{
    tsr_text built = {0};
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < n->count && st == TSR_OK; i++) {
        value part = {0};
        st = tsr_jinja_eval(run, n->items[i], &part);
        if (st == TSR_OK)
            st = tsr_jinja_print(run, part, &built);
    }
    return tsr_jinja_built(run, st, &built, ret);
}

static tsr_status eval_binary(tsr_jinja_run *run, const node *n, value *ret)
{
    value sides[2] = {{0}, {0}};
    tsr_status st = tsr_jinja_eval(run, n->a, &sides[0]);
    if (st == TSR_OK)
        st = tsr_jinja_eval(run, n->b, &sides[1]);
    if (st == TSR_OK)
        st = tsr_jinja_binary(run, n->op, sides, ret);
    return st;
}

/* a < b < c: each operand is evaluated once, and no further than needed. */
static tsr_status eval_compare(tsr_jinja_run *run, const node *n, value *ret)
{
    value left = {0};
    bool holds = true;
    tsr_status st = tsr_jinja_eval(run, n->a, &left);
    for (size_t i = 0; i < n->count && holds && st == TSR_OK; i++) {
        value right = {0};
        st = tsr_jinja_eval(run, n->items[i]->a, &right);
        if (st == TSR_OK)
            st = tsr_jinja_compare(run, n->items[i]->op, left, right, &holds);
        left = right;
    }
    if (st == TSR_OK)
        *ret = tsr_jinja_bool(holds);
    return st;
}

/* and, or, if-else: only one side counts. */
static tsr_status eval_choice(tsr_jinja_run *run, const node *n, value *ret)
{
    value test = {0};
    const tsr_status st = tsr_jinja_eval(run, n->a, &test);
    if (st != TSR_OK)
        return st;
    const bool truth = tsr_jinja_truth(test);
    if (n->kind == TSR_JINJA_NODE_IF_ELSE) {
        const node *taken = truth ? n->b : n->c;
        if (taken != NULL)
            return tsr_jinja_eval(run, taken, ret);
        return tsr_jinja_undefined_hint(run, "the value of an 'if' without 'else' that was false",
                                        ret);
    }
    if (truth == (n->kind == TSR_JINJA_NODE_AND))
        return tsr_jinja_eval(run, n->b, ret);
    *ret = test;
    return TSR_OK;
}

static tsr_status eval_slice(tsr_jinja_run *run, const node *n, value *ret)
{
    value parts[3] = {tsr_jinja_none(), tsr_jinja_none(), tsr_jinja_none()};
    value object = {0};
    tsr_status st = tsr_jinja_eval(run, n->a, &object);
    for (size_t i = 0; i < 3 && st == TSR_OK; i++) {
        if (n->items[i] != NULL)
            st = tsr_jinja_eval(run, n->items[i], &parts[i]);
    }
    const tsr_jinja_slice slice = {.from = parts[0], .to = parts[1], .step = parts[2]};
    return st == TSR_OK ? tsr_jinja_slice_of(run, object, &slice, ret) : st;
}

static tsr_status eval_item(tsr_jinja_run *run, const node *n, value *ret)
{
    value object = {0};
    value key = {0};
    tsr_status st = tsr_jinja_eval(run, n->a, &object);
    if (st == TSR_OK && n->kind == TSR_JINJA_NODE_ATTRIBUTE)
        return tsr_jinja_attribute(run, object, n->name, ret);
    if (st == TSR_OK)
        st = tsr_jinja_eval(run, n->b, &key);
    return st == TSR_OK ? tsr_jinja_item(run, object, key, ret) : st;
}

tsr_status tsr_jinja_eval_args(tsr_jinja_run *run, const node *n, tsr_jinja_args *ret_args)
{
    void *memory = NULL;
    tsr_status st = n->count == 0 ? TSR_OK : tsr_jinja_alloc(run, n->count, sizeof(value), &memory);
    value *values = memory;
    for (size_t i = 0; i < n->count && st == TSR_OK; i++)
        st = tsr_jinja_eval(run, n->items[i], &values[i]);
    if (st == TSR_OK)
        *ret_args = (tsr_jinja_args){
            .values = values, .names = n->names, .count = n->count, .named = n->named};
    return st;
}

static tsr_status eval_call(tsr_jinja_run *run, const node *n, value *ret)
{
    if (n->kind != TSR_JINJA_NODE_CALL && n->builtin == NULL)
        return tsr_jinja_fail(run, "the %s '%.*s' is not supported",
                              n->kind == TSR_JINJA_NODE_FILTER ? "filter" : "test",
                              n->name.count < 40 ? (int)n->name.count : 40, n->name.bytes);
    value callee = {0};
    tsr_jinja_args args = {0};
    tsr_status st = tsr_jinja_eval(run, n->a, &callee);
    if (st == TSR_OK)
        st = tsr_jinja_eval_args(run, n, &args);
    if (st == TSR_OK && n->kind == TSR_JINJA_NODE_CALL)
        return tsr_jinja_value_call(run, callee, &args, ret);
    return st == TSR_OK ? tsr_jinja_builtin_call(run, n->builtin, callee, &args, ret) : st;
}

static tsr_status eval_one(tsr_jinja_run *run, const node *n, value *ret)
{
    value operand = {0};
    const tsr_status st = tsr_jinja_eval(run, n->a, &operand);
    if (st != TSR_OK)
        return st;
    if (n->kind == TSR_JINJA_NODE_UNARY)
        return tsr_jinja_unary(run, n->op, operand, ret);
    *ret = tsr_jinja_bool(!tsr_jinja_truth(operand));
    return TSR_OK;
}

static tsr_status eval_constant(tsr_jinja_run *run, const node *n, value *ret)
{
    *ret = n->kind == TSR_JINJA_NODE_CONST ? n->value : run->block_input;
    return TSR_OK;
}

typedef tsr_status (*eval_function)(tsr_jinja_run *run, const node *n, value *ret);

static const eval_function functions[] = {
    [TSR_JINJA_NODE_CONST] = eval_constant, [TSR_JINJA_NODE_BLOCK_INPUT] = eval_constant,
    [TSR_JINJA_NODE_NAME] = eval_name,      [TSR_JINJA_NODE_LIST] = eval_list,
    [TSR_JINJA_NODE_TUPLE] = eval_list,     [TSR_JINJA_NODE_DICT] = eval_dict,
    [TSR_JINJA_NODE_CONCAT] = eval_concat,  [TSR_JINJA_NODE_UNARY] = eval_one,
    [TSR_JINJA_NODE_NOT] = eval_one,        [TSR_JINJA_NODE_BINARY] = eval_binary,
    [TSR_JINJA_NODE_AND] = eval_choice,     [TSR_JINJA_NODE_OR] = eval_choice,
    [TSR_JINJA_NODE_IF_ELSE] = eval_choice, [TSR_JINJA_NODE_COMPARE] = eval_compare,
    [TSR_JINJA_NODE_ATTRIBUTE] = eval_item, [TSR_JINJA_NODE_ITEM] = eval_item,
    [TSR_JINJA_NODE_SLICE] = eval_slice,    [TSR_JINJA_NODE_CALL] = eval_call,
    [TSR_JINJA_NODE_FILTER] = eval_call,    [TSR_JINJA_NODE_TEST] = eval_call,
};

tsr_status tsr_jinja_eval(tsr_jinja_run *run, const node *n, value *ret_value)
{
    const size_t kinds = sizeof(functions) / sizeof(functions[0]);
    if ((size_t)n->kind >= kinds || functions[n->kind] == NULL)
        return TSR_ERR_INTERNAL;

    tsr_status st = tsr_jinja_spend(run, 1);
    if (st == TSR_OK)
        st = tsr_jinja_enter(run);
    if (st == TSR_OK) {
        value result = {0};
        st = functions[n->kind](run, n, &result);
        if (st == TSR_OK)
            *ret_value = result;
        tsr_jinja_leave(run);
    }
    if (st != TSR_OK && run->error_line == 0)
        run->error_line = n->line;
    return st;
}
