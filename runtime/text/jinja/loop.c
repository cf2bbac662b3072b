/*
 * for loops. Items are taken one at a time, so that an `if` filter sees what the body has done so
 * far, as in Jinja:
 *
 *     source   a b c d e f        what iterating gave
 *                  ^ next
 *     before  current  after      `after` only once somebody asked for loop.last or loop.nextitem
 */
#include "runtime/text/jinja/run.h"

#include <string.h>

typedef tsr_jinja_node node;

struct tsr_jinja_loop {
    const node *node;
    tsr_jinja_list source;
    size_t next;
    int64_t index0;
    tsr_jinja_value before, current, after;
    bool has_after;
    bool completed;              /* some round ran to the end of the body */
    bool filtered;               /* all that is left has passed the filter already */
    tsr_jinja_scope *test_scope; /* the filter's own */
};

/* Whether `item` passes the loop's filter. */
static tsr_status passes(tsr_jinja_run *run, tsr_jinja_loop *loop, tsr_jinja_value item,
                         bool *ret_passes)
{
    if (loop->node->c == NULL || loop->filtered) {
        *ret_passes = true;
        return TSR_OK;
    }
    tsr_jinja_scope *const scope = run->scope;
    tsr_jinja_value test = {0};
    run->scope = loop->test_scope;
    tsr_jinja_scope_clear(run, run->scope);
    tsr_status st = tsr_jinja_assign(run, loop->node->a, item);
    if (st == TSR_OK)
        st = tsr_jinja_eval(run, loop->node->c, &test);
    run->scope = scope;
    *ret_passes = st == TSR_OK && tsr_jinja_truth(test);
    return st;
}

/* The next item that passes; *ret_has false at the end. */
static tsr_status fetch(tsr_jinja_run *run, tsr_jinja_loop *loop, bool *ret_has,
                        tsr_jinja_value *ret_item)
{
    bool found = false;
    tsr_status st = TSR_OK;
    while (st == TSR_OK && !found && loop->next < loop->source.count) {
        *ret_item = loop->source.items[loop->next++];
        st = tsr_jinja_spend(run, 1);
        if (st == TSR_OK)
            st = passes(run, loop, *ret_item, &found);
    }
    *ret_has = found;
    return st;
}

static tsr_status peek(tsr_jinja_run *run, tsr_jinja_loop *loop, bool *ret_has)
{
    if (loop->has_after) {
        *ret_has = true;
        return TSR_OK;
    }
    const tsr_status st = fetch(run, loop, &loop->has_after, &loop->after);
    *ret_has = loop->has_after;
    return st;
}

/* Filters all that is left, so that the number of items is known. */
static tsr_status length_of(tsr_jinja_run *run, tsr_jinja_loop *loop, int64_t *ret_length)
{
    const int64_t seen = loop->index0 + 1 + (loop->has_after ? 1 : 0);
    tsr_jinja_list *rest = NULL;
    tsr_status st =
        tsr_jinja_list_new(run, TSR_JINJA_PLAIN_LIST, loop->source.count - loop->next, &rest);
    size_t count = 0;
    bool has = true;
    while (st == TSR_OK && has) {
        tsr_jinja_value item = {0};
        st = fetch(run, loop, &has, &item);
        if (st == TSR_OK && has)
            rest->items[count++] = item;
    }
    if (st != TSR_OK)
        return st;
    rest->count = count;
    loop->source = *rest;
    loop->next = 0;
    loop->filtered = true;
    *ret_length = seen + (int64_t)count;
    return TSR_OK;
}

static tsr_status advance(tsr_jinja_run *run, tsr_jinja_loop *loop, bool *ret_has)
{
    tsr_jinja_value item = loop->after;
    bool has = loop->has_after;
    tsr_status st = TSR_OK;
    loop->has_after = false;
    if (!has)
        st = fetch(run, loop, &has, &item);
    if (st == TSR_OK && has) {
        loop->index0++;
        loop->before = loop->current;
        loop->current = item;
    }
    *ret_has = has;
    return st;
}

static tsr_status length_attribute(tsr_jinja_run *run, tsr_jinja_loop *loop, tsr_jinja_text name,
                                   tsr_jinja_value *ret_value)
{
    int64_t length = 0;
    tsr_status st = TSR_OK;
    if (loop->node->c != NULL && !loop->filtered)
        st = length_of(run, loop, &length);
    else
        length = loop->index0 + 1 + (loop->has_after ? 1 : 0) +
                 (int64_t)(loop->source.count - loop->next);
    if (tsr_jinja_text_is(name, "revindex"))
        length -= loop->index0;
    else if (tsr_jinja_text_is(name, "revindex0"))
        length -= loop->index0 + 1;
    *ret_value = tsr_jinja_int(length);
    return st;
}

static tsr_status neighbour(tsr_jinja_run *run, tsr_jinja_loop *loop, bool after,
                            tsr_jinja_value *ret_value)
{
    bool has = loop->index0 > 0;
    const tsr_status st = after ? peek(run, loop, &has) : TSR_OK;
    if (st == TSR_OK && !has)
        return tsr_jinja_undefined_hint(
            run, after ? "there is no next item" : "there is no previous item", ret_value);
    *ret_value = after ? loop->after : loop->before;
    return st;
}

tsr_status tsr_jinja_loop_attribute(tsr_jinja_run *run, tsr_jinja_loop *loop, tsr_jinja_text name,
                                    bool *ret_known, tsr_jinja_value *ret_value)
{
    static const char *const others[] = {"cycle", "changed", NULL};
    *ret_known = true;
    bool has = false;
    if (tsr_jinja_text_is(name, "index0") || tsr_jinja_text_is(name, "index")) {
        *ret_value = tsr_jinja_int(loop->index0 + (tsr_jinja_text_is(name, "index") ? 1 : 0));
        return TSR_OK;
    }
    if (tsr_jinja_text_is(name, "depth") || tsr_jinja_text_is(name, "depth0")) {
        *ret_value = tsr_jinja_int(tsr_jinja_text_is(name, "depth") ? 1 : 0);
        return TSR_OK;
    }
    if (tsr_jinja_text_is(name, "first")) {
        *ret_value = tsr_jinja_bool(loop->index0 == 0);
        return TSR_OK;
    }
    if (tsr_jinja_text_is(name, "last")) {
        const tsr_status st = peek(run, loop, &has);
        *ret_value = tsr_jinja_bool(!has);
        return st;
    }
    if (tsr_jinja_text_is(name, "length") || tsr_jinja_text_is(name, "revindex") ||
        tsr_jinja_text_is(name, "revindex0"))
        return length_attribute(run, loop, name, ret_value);
    if (tsr_jinja_text_is(name, "previtem") || tsr_jinja_text_is(name, "nextitem"))
        return neighbour(run, loop, tsr_jinja_text_is(name, "nextitem"), ret_value);
    for (size_t i = 0; others[i] != NULL; i++) {
        if (tsr_jinja_text_is(name, others[i]))
            return tsr_jinja_fail(run, "loop.%s is not supported", others[i]);
    }
    *ret_known = false;
    return TSR_OK;
}

/* One round, in the body's fresh scope. */
static tsr_status round_of(tsr_jinja_run *run, tsr_jinja_loop *loop, tsr_jinja_scope *scope)
{
    const tsr_jinja_value self = {.kind = TSR_JINJA_LOOP, .as.loop = loop};
    tsr_jinja_scope_clear(run, scope);
    tsr_status st = tsr_jinja_scope_set(run, scope, tsr_jinja_text_of("loop"), self);
    if (st == TSR_OK)
        st = tsr_jinja_assign(run, loop->node->a, loop->current);
    if (st == TSR_OK)
        st = tsr_jinja_exec(run, loop->node->items[0]);
    loop->completed = loop->completed || run->flow == TSR_JINJA_FLOW_ON;
    return st;
}

static tsr_status rounds(tsr_jinja_run *run, tsr_jinja_loop *loop)
{
    tsr_jinja_scope *const outer = run->scope;
    tsr_jinja_scope *scope = NULL;
    tsr_status st = tsr_jinja_scope_new(run, outer, &scope);
    bool has = true;
    while (st == TSR_OK && has && run->flow != TSR_JINJA_FLOW_BREAK) {
        run->flow = TSR_JINJA_FLOW_ON;
        st = advance(run, loop, &has);
        run->scope = scope;
        if (st == TSR_OK && has)
            st = round_of(run, loop, scope);
        run->scope = outer;
    }
    run->flow = TSR_JINJA_FLOW_ON;
    return st;
}

tsr_status tsr_jinja_exec_for(tsr_jinja_run *run, const node *n)
{
    void *memory = NULL;
    tsr_jinja_value iterable = {0};
    tsr_status st = tsr_jinja_eval(run, n->b, &iterable);
    if (st == TSR_OK)
        st = tsr_jinja_alloc(run, 1, sizeof(tsr_jinja_loop), &memory);
    if (st != TSR_OK)
        return st;
    tsr_jinja_loop *loop = memory;
    loop->node = n;
    loop->index0 = -1;
    st = tsr_jinja_iterate(run, iterable, &loop->source);
    if (st == TSR_OK)
        st = tsr_jinja_scope_new(run, run->scope, &loop->test_scope);
    if (st == TSR_OK)
        st = rounds(run, loop);
    /* As in Jinja, `else` also follows a loop in which every round was cut short. */
    if (st != TSR_OK || loop->completed || n->items[1] == NULL)
        return st;

    const node other = {.kind = TSR_JINJA_NODE_SCOPE, .line = n->line, .a = n->items[1]};
    return tsr_jinja_exec(run, &other);
}
