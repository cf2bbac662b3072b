/* What a statement does. */
#include "runtime/text/jinja/run.h"

#include <string.h>

typedef tsr_jinja_node node;

tsr_status tsr_jinja_scope_new(tsr_jinja_run *run, tsr_jinja_scope *outer,
                               tsr_jinja_scope **ret_scope)
{
    void *memory = NULL;
    const tsr_status st = tsr_jinja_alloc(run, 1, sizeof(tsr_jinja_scope), &memory);
    if (st != TSR_OK)
        return st;
    tsr_jinja_scope *scope = memory;
    scope->outer = outer;
    *ret_scope = scope;
    return TSR_OK;
}

tsr_status tsr_jinja_scope_set(tsr_jinja_run *run, tsr_jinja_scope *scope, tsr_jinja_text name,
                               tsr_jinja_value value)
{
    size_t passed = 0;
    for (tsr_jinja_binding *b = scope->bindings; b != NULL; b = b->next) {
        if (tsr_jinja_text_equal(b->name, name)) {
            b->value = value;
            return TSR_OK;
        }
        passed++;
    }
    void *memory = run->spare_bindings;
    tsr_status st = tsr_jinja_spend(run, passed / 16);
    if (st == TSR_OK && memory != NULL)
        run->spare_bindings = run->spare_bindings->next;
    else if (st == TSR_OK)
        st = tsr_jinja_alloc(run, 1, sizeof(tsr_jinja_binding), &memory);
    if (st != TSR_OK)
        return st;
    tsr_jinja_binding *binding = memory;
    *binding = (tsr_jinja_binding){.next = scope->bindings, .name = name, .value = value};
    scope->bindings = binding;
    return TSR_OK;
}

void tsr_jinja_scope_clear(tsr_jinja_run *run, tsr_jinja_scope *scope)
{
    while (scope->bindings != NULL) {
        tsr_jinja_binding *binding = scope->bindings;
        scope->bindings = binding->next;
        binding->next = run->spare_bindings;
        run->spare_bindings = binding;
    }
}

/* ns.name = value */
static tsr_status assign_attribute(tsr_jinja_run *run, const node *target, tsr_jinja_value value)
{
    const node name = {.kind = TSR_JINJA_NODE_NAME, .line = target->line, .name = target->name};
    tsr_jinja_value space = {0};
    const tsr_status st = tsr_jinja_eval(run, &name, &space);
    if (st != TSR_OK)
        return st;
    if (space.kind != TSR_JINJA_NAMESPACE)
        return tsr_jinja_fail(run, "an attribute can only be set on a namespace, not on %s",
                              tsr_jinja_type_name(space));
    return tsr_jinja_dict_put(run, space.as.dict, tsr_jinja_text_value(target->names[0]), value);
}

tsr_status tsr_jinja_assign(tsr_jinja_run *run, const node *target, tsr_jinja_value value)
{
    if (target->kind == TSR_JINJA_NODE_NAME)
        return tsr_jinja_scope_set(run, run->scope, target->name, value);
    if (target->kind == TSR_JINJA_NODE_TARGET)
        return assign_attribute(run, target, value);

    tsr_jinja_list items = {0};
    tsr_status st = tsr_jinja_iterate(run, value, &items);
    if (st == TSR_OK && items.count != target->count)
        return tsr_jinja_fail(run, "%zu values for %zu names", items.count, target->count);
    for (size_t i = 0; i < target->count && st == TSR_OK; i++)
        st = tsr_jinja_assign(run, target->items[i], items.items[i]);
    return st;
}

tsr_status tsr_jinja_capture(tsr_jinja_run *run, const node *body, tsr_jinja_scope *scope,
                             tsr_jinja_value *ret_value)
{
    tsr_text built = {0};
    tsr_text *const out = run->out;
    tsr_jinja_scope *const outer = run->scope;
    run->out = &built;
    run->scope = scope;
    const tsr_status st = tsr_jinja_exec(run, body);
    run->out = out;
    run->scope = outer;
    return tsr_jinja_built(run, st, &built, ret_value);
}

static tsr_status exec_body(tsr_jinja_run *run, const node *n)
{
    static const tsr_jinja_value missing = {.kind = TSR_JINJA_MISSING};
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < n->unset->count && st == TSR_OK; i++)
        st = tsr_jinja_scope_set(run, run->scope, n->unset->items[i], missing);
    for (size_t i = 0; i < n->count && st == TSR_OK && run->flow == TSR_JINJA_FLOW_ON; i++)
        st = tsr_jinja_exec(run, n->items[i]);
    return st;
}

static tsr_status exec_data(tsr_jinja_run *run, const node *n)
{
    return tsr_jinja_add(run, run->out, n->name);
}

static tsr_status exec_output(tsr_jinja_run *run, const node *n)
{
    tsr_jinja_value value = {0};
    const tsr_status st = tsr_jinja_eval(run, n->a, &value);
    return st == TSR_OK ? tsr_jinja_print(run, value, run->out) : st;
}

static tsr_status exec_if(tsr_jinja_run *run, const node *n)
{
    while (n != NULL && n->kind == TSR_JINJA_NODE_IF) {
        tsr_jinja_value test = {0};
        const tsr_status st = tsr_jinja_eval(run, n->a, &test);
        if (st != TSR_OK)
            return st;
        if (tsr_jinja_truth(test))
            return tsr_jinja_exec(run, n->b);
        n = n->c;
    }
    return n != NULL ? tsr_jinja_exec(run, n) : TSR_OK;
}

static tsr_status exec_set(tsr_jinja_run *run, const node *n)
{
    tsr_jinja_value value = {0};
    const tsr_status st = tsr_jinja_eval(run, n->b, &value);
    return st == TSR_OK ? tsr_jinja_assign(run, n->a, value) : st;
}

/* `filter` over a text that was captured. */
static tsr_status filter_captured(tsr_jinja_run *run, const node *filter, tsr_jinja_value *in_out)
{
    const tsr_jinja_value before = run->block_input;
    run->block_input = *in_out;
    const tsr_status st = tsr_jinja_eval(run, filter, in_out);
    run->block_input = before;
    return st;
}

static tsr_status exec_set_block(tsr_jinja_run *run, const node *n)
{
    tsr_jinja_value text = {0};
    tsr_jinja_scope *scope = NULL;
    tsr_status st = tsr_jinja_scope_new(run, run->scope, &scope);
    if (st == TSR_OK)
        st = tsr_jinja_capture(run, n->b, scope, &text);
    if (st != TSR_OK || run->flow != TSR_JINJA_FLOW_ON)
        return st;
    if (n->c != NULL)
        st = filter_captured(run, n->c, &text);
    return st == TSR_OK ? tsr_jinja_assign(run, n->a, text) : st;
}

static tsr_status exec_filter_block(tsr_jinja_run *run, const node *n)
{
    tsr_jinja_value text = {0};
    tsr_jinja_scope *scope = NULL;
    tsr_status st = tsr_jinja_scope_new(run, run->scope, &scope);
    if (st == TSR_OK)
        st = tsr_jinja_capture(run, n->a, scope, &text);
    if (st != TSR_OK || run->flow != TSR_JINJA_FLOW_ON)
        return st;
    st = filter_captured(run, n->b, &text);
    return st == TSR_OK ? tsr_jinja_print(run, text, run->out) : st;
}

static tsr_status exec_macro(tsr_jinja_run *run, const node *n)
{
    void *memory = NULL;
    const tsr_status st = tsr_jinja_alloc(run, 1, sizeof(tsr_jinja_macro), &memory);
    if (st != TSR_OK)
        return st;
    tsr_jinja_macro *macro = memory;
    *macro = (tsr_jinja_macro){.node = n, .scope = run->scope};
    const tsr_jinja_value value = {.kind = TSR_JINJA_MACRO, .as.macro = macro};
    return tsr_jinja_scope_set(run, run->scope, n->name, value);
}

static tsr_status exec_scope(tsr_jinja_run *run, const node *n)
{
    tsr_jinja_scope *scope = NULL;
    tsr_jinja_scope *const outer = run->scope;
    tsr_status st = tsr_jinja_scope_new(run, outer, &scope);
    if (st != TSR_OK)
        return st;
    run->scope = scope;
    st = tsr_jinja_exec(run, n->a);
    run->scope = outer;
    return st;
}

static tsr_status exec_leave_loop(tsr_jinja_run *run, const node *n)
{
    run->flow = n->kind == TSR_JINJA_NODE_BREAK ? TSR_JINJA_FLOW_BREAK : TSR_JINJA_FLOW_CONTINUE;
    return TSR_OK;
}

typedef tsr_status (*exec_function)(tsr_jinja_run *run, const node *n);

static const exec_function functions[] = {
    [TSR_JINJA_NODE_BODY] = exec_body,           [TSR_JINJA_NODE_DATA] = exec_data,
    [TSR_JINJA_NODE_OUTPUT] = exec_output,       [TSR_JINJA_NODE_IF] = exec_if,
    [TSR_JINJA_NODE_FOR] = tsr_jinja_exec_for,   [TSR_JINJA_NODE_SET] = exec_set,
    [TSR_JINJA_NODE_SET_BLOCK] = exec_set_block, [TSR_JINJA_NODE_MACRO] = exec_macro,
    [TSR_JINJA_NODE_SCOPE] = exec_scope,         [TSR_JINJA_NODE_FILTER_BLOCK] = exec_filter_block,
    [TSR_JINJA_NODE_BREAK] = exec_leave_loop,    [TSR_JINJA_NODE_CONTINUE] = exec_leave_loop,
};

tsr_status tsr_jinja_exec(tsr_jinja_run *run, const node *n)
{
    const size_t kinds = sizeof(functions) / sizeof(functions[0]);
    if ((size_t)n->kind >= kinds || functions[n->kind] == NULL)
        return TSR_ERR_INTERNAL;

    tsr_status st = tsr_jinja_spend(run, 1);
    if (st == TSR_OK)
        st = tsr_jinja_enter(run);
    if (st == TSR_OK) {
        st = functions[n->kind](run, n);
        tsr_jinja_leave(run);
    }
    if (st != TSR_OK && run->error_line == 0)
        run->error_line = n->line;
    return st;
}
