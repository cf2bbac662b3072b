/*
 * A primary (a literal, a name, something in brackets), followed by .name [key] (call), then by
 * |filter, `is test` and (call).
 */
#include "runtime/text/jinja/parser.h"
#include "runtime/text/jinja/run.h"

#include <string.h>

typedef tsr_jinja_parser parser;
typedef tsr_jinja_node node;

/* Adds one argument; *named tells that it came with a name. */
static tsr_status parse_argument(parser *p, tsr_jinja_nodes *values, tsr_jinja_nodes *names)
{
    const tsr_jinja_token *token = p->token;
    if (tsr_jinja_at_operator(p, "*") || tsr_jinja_at_operator(p, "**"))
        return tsr_jinja_refuse(p, token->line, "* and ** in a call are not supported");

    const bool named = token->kind == TSR_JINJA_TOKEN_NAME &&
                       token[1].kind == TSR_JINJA_TOKEN_OPERATOR &&
                       tsr_jinja_text_is(token[1].text, "=");
    if (!named && names->count > 0)
        return tsr_jinja_refuse(p, token->line,
                                "an argument without a name behind one with a name");

    tsr_status st = TSR_OK;
    node *value = NULL;
    if (named) {
        node *name = NULL;
        tsr_jinja_advance(p);
        tsr_jinja_advance(p);
        st = tsr_jinja_node_new(p, TSR_JINJA_NODE_NAME, token->line, &name);
        if (st != TSR_OK)
            return st;
        name->name = token->text;
        for (size_t i = 0; i < names->count; i++) {
            if (tsr_jinja_text_equal(names->items[i]->name, token->text))
                return tsr_jinja_refuse(p, token->line, "the argument '%.*s' is given twice",
                                        (int)token->text.count, token->text.bytes);
        }
        st = tsr_jinja_nodes_add(p, names, name);
    }
    if (st == TSR_OK)
        st = tsr_jinja_parse_expression(p, &value);
    if (st == TSR_OK)
        st = tsr_jinja_nodes_add(p, values, value);
    return st;
}

/* (a, b, name=c) into `call`. */
static tsr_status parse_arguments(parser *p, node *call)
{
    tsr_jinja_nodes values = {0};
    tsr_jinja_nodes names = {0};
    tsr_status st = tsr_jinja_expect_operator(p, "(");
    while (st == TSR_OK && !tsr_jinja_at_operator(p, ")")) {
        if (values.count > 0)
            st = tsr_jinja_expect_operator(p, ",");
        if (st != TSR_OK || tsr_jinja_at_operator(p, ")"))
            break;
        st = parse_argument(p, &values, &names);
    }
    if (st == TSR_OK)
        st = tsr_jinja_expect_operator(p, ")");
    if (st != TSR_OK)
        return st;

    call->names = tsr_arena_array(p->arena, names.count + 1, sizeof(*call->names));
    if (call->names == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < names.count; i++)
        call->names[i] = names.items[i]->name;
    call->items = values.items;
    call->count = values.count;
    call->named = names.count;
    return TSR_OK;
}

/* What stands between brackets: a key, or from:to:step. */
static tsr_status parse_key(parser *p, node **ret_key, node **ret_slice)
{
    node *parts[3] = {NULL, NULL, NULL};
    const int32_t line = p->token->line;
    tsr_status st = TSR_OK;
    if (!tsr_jinja_at_operator(p, ":"))
        st = tsr_jinja_parse_expression(p, &parts[0]);
    if (st != TSR_OK)
        return st;
    if (!tsr_jinja_at_operator(p, ":")) {
        *ret_key = parts[0];
        return TSR_OK;
    }
    for (size_t i = 1; i < 3 && st == TSR_OK && tsr_jinja_skip_operator(p, ":"); i++) {
        if (!tsr_jinja_at_operator(p, ":") && !tsr_jinja_at_operator(p, "]") &&
            !tsr_jinja_at_operator(p, ","))
            st = tsr_jinja_parse_expression(p, &parts[i]);
    }
    node *slice = NULL;
    if (st == TSR_OK)
        st = tsr_jinja_node_new(p, TSR_JINJA_NODE_SLICE, line, &slice);
    if (st != TSR_OK)
        return st;
    slice->items = tsr_arena_array(p->arena, 3, sizeof(tsr_jinja_node *));
    if (slice->items == NULL)
        return TSR_ERR_MEMORY;
    memcpy(slice->items, parts, sizeof(parts));
    slice->count = 3;
    *ret_slice = slice;
    return TSR_OK;
}

static tsr_status parse_bracket(parser *p, node **in_out)
{
    node *key = NULL;
    node *slice = NULL;
    const int32_t line = p->token->line;
    tsr_jinja_advance(p);
    tsr_status st = parse_key(p, &key, &slice);
    if (st == TSR_OK && tsr_jinja_at_operator(p, ","))
        return tsr_jinja_refuse(p, line, "a tuple as a subscript is not supported");
    if (st == TSR_OK)
        st = tsr_jinja_expect_operator(p, "]");
    if (st != TSR_OK)
        return st;
    if (slice != NULL) {
        slice->a = *in_out;
        *in_out = slice;
        return TSR_OK;
    }
    st = tsr_jinja_node_of_two(p, TSR_JINJA_NODE_ITEM, *in_out, &key);
    if (st == TSR_OK)
        *in_out = key;
    return st;
}

static tsr_status parse_dot(parser *p, node **in_out)
{
    tsr_jinja_advance(p);
    const tsr_jinja_token *token = p->token;
    const bool number = token->kind == TSR_JINJA_TOKEN_INT;
    if (token->kind != TSR_JINJA_TOKEN_NAME && !number)
        return tsr_jinja_unexpected(p, "a name or a number behind '.'");
    tsr_jinja_advance(p);

    node *n = NULL;
    node *key = NULL;
    tsr_status st = TSR_OK;
    if (number) {
        st = tsr_jinja_node_new(p, TSR_JINJA_NODE_CONST, token->line, &key);
        if (st != TSR_OK)
            return st;
        key->value = tsr_jinja_int(token->integer);
    }
    st = tsr_jinja_node_new(p, number ? TSR_JINJA_NODE_ITEM : TSR_JINJA_NODE_ATTRIBUTE, token->line,
                            &n);
    if (st != TSR_OK)
        return st;
    n->a = *in_out;
    n->b = key;
    n->name = token->text;
    *in_out = n;
    return TSR_OK;
}

static tsr_status parse_call(parser *p, node **in_out)
{
    node *call = NULL;
    tsr_status st = tsr_jinja_node_new(p, TSR_JINJA_NODE_CALL, p->token->line, &call);
    if (st == TSR_OK)
        st = parse_arguments(p, call);
    if (st != TSR_OK)
        return st;
    call->a = *in_out;
    *in_out = call;
    return TSR_OK;
}

static tsr_status parse_postfix(parser *p, node **in_out)
{
    tsr_status st = TSR_OK;
    while (st == TSR_OK) {
        if (tsr_jinja_at_operator(p, "."))
            st = parse_dot(p, in_out);
        else if (tsr_jinja_at_operator(p, "["))
            st = parse_bracket(p, in_out);
        else if (tsr_jinja_at_operator(p, "("))
            st = parse_call(p, in_out);
        else
            break;
    }
    return st;
}

tsr_status tsr_jinja_parse_filters(parser *p, bool named, node *input, node **ret_node)
{
    tsr_status st = TSR_OK;
    while (st == TSR_OK && (named || tsr_jinja_skip_operator(p, "|"))) {
        tsr_jinja_text name = {0};
        node *filter = NULL;
        const int32_t line = p->token->line;
        st = tsr_jinja_expect_name(p, &name);
        if (st == TSR_OK)
            st = tsr_jinja_node_new(p, TSR_JINJA_NODE_FILTER, line, &filter);
        if (st != TSR_OK)
            break;
        filter->name = name;
        filter->builtin = tsr_jinja_find_filter(name);
        if (filter->builtin == NULL && p->branches == 0)
            return tsr_jinja_refuse(p, line, "the filter '%.*s' is not supported", (int)name.count,
                                    name.bytes);
        filter->a = input;
        if (tsr_jinja_at_operator(p, "("))
            st = parse_arguments(p, filter);
        input = filter;
        named = false;
    }
    if (st == TSR_OK)
        *ret_node = input;
    return st;
}

/* Whether what follows `is name` without parentheses is that test's argument. */
static bool begins_test_argument(const parser *p)
{
    switch (p->token->kind) {
    case TSR_JINJA_TOKEN_NAME:
        return !tsr_jinja_at_name(p, "else") && !tsr_jinja_at_name(p, "or") &&
               !tsr_jinja_at_name(p, "and");
    case TSR_JINJA_TOKEN_TEXT:
    case TSR_JINJA_TOKEN_INT:
    case TSR_JINJA_TOKEN_FLOAT:
        return true;
    case TSR_JINJA_TOKEN_OPERATOR:
        return tsr_jinja_at_operator(p, "[") || tsr_jinja_at_operator(p, "{");
    case TSR_JINJA_TOKEN_DATA:
    case TSR_JINJA_TOKEN_OUTPUT_BEGIN:
    case TSR_JINJA_TOKEN_OUTPUT_END:
    case TSR_JINJA_TOKEN_BLOCK_BEGIN:
    case TSR_JINJA_TOKEN_BLOCK_END:
    case TSR_JINJA_TOKEN_END:
        break;
    }
    return false;
}

static tsr_status parse_test_argument(parser *p, node *test)
{
    if (tsr_jinja_at_name(p, "is"))
        return tsr_jinja_refuse(p, p->token->line, "a test of a test ('is ... is')");
    tsr_jinja_nodes values = {0};
    node *argument = NULL;
    tsr_status st = tsr_jinja_parse_primary(p, false, &argument);
    if (st == TSR_OK)
        st = parse_postfix(p, &argument);
    if (st == TSR_OK)
        st = tsr_jinja_nodes_add(p, &values, argument);
    test->items = values.items;
    test->count = values.count;
    return st;
}

/* is [not] name [argument] */
static tsr_status parse_test(parser *p, node **in_out)
{
    const int32_t line = p->token->line;
    tsr_jinja_advance(p);
    const bool negated = tsr_jinja_skip_name(p, "not");
    tsr_jinja_text name = {0};
    node *test = NULL;
    tsr_status st = tsr_jinja_expect_name(p, &name);
    if (st == TSR_OK)
        st = tsr_jinja_node_new(p, TSR_JINJA_NODE_TEST, line, &test);
    if (st != TSR_OK)
        return st;
    test->name = name;
    test->builtin = tsr_jinja_find_test(name);
    if (test->builtin == NULL && p->branches == 0)
        return tsr_jinja_refuse(p, line, "the test '%.*s' is not supported", (int)name.count,
                                name.bytes);
    test->a = *in_out;
    if (tsr_jinja_at_operator(p, "("))
        st = parse_arguments(p, test);
    else if (begins_test_argument(p))
        st = parse_test_argument(p, test);
    if (st != TSR_OK)
        return st;
    *in_out = test;
    if (!negated)
        return TSR_OK;

    node *negation = NULL;
    st = tsr_jinja_node_new(p, TSR_JINJA_NODE_NOT, line, &negation);
    if (st != TSR_OK)
        return st;
    negation->a = test;
    *in_out = negation;
    return TSR_OK;
}

static tsr_status parse_filters_and_tests(parser *p, node **in_out)
{
    tsr_status st = TSR_OK;
    while (st == TSR_OK) {
        if (tsr_jinja_at_operator(p, "|"))
            st = tsr_jinja_parse_filters(p, false, *in_out, in_out);
        else if (tsr_jinja_at_name(p, "is"))
            st = parse_test(p, in_out);
        else if (tsr_jinja_at_operator(p, "("))
            st = parse_call(p, in_out);
        else
            break;
    }
    return st;
}

static tsr_status parse_sign(parser *p, node **ret_node)
{
    node *n = NULL;
    node *operand = NULL;
    tsr_status st = tsr_jinja_deeper(p);
    if (st != TSR_OK)
        return st;
    st = tsr_jinja_node_new(p, TSR_JINJA_NODE_UNARY, p->token->line, &n);
    const tsr_jinja_operator op = tsr_jinja_at_operator(p, "-") ? TSR_JINJA_SUB : TSR_JINJA_ADD;
    tsr_jinja_advance(p);
    if (st == TSR_OK)
        st = tsr_jinja_parse_unary(p, false, &operand);
    p->depth--;
    if (st != TSR_OK)
        return st;
    n->op = op;
    n->a = operand;
    *ret_node = n;
    return TSR_OK;
}

tsr_status tsr_jinja_parse_unary(parser *p, bool filters, node **ret_node)
{
    node *n = NULL;
    const bool sign = tsr_jinja_at_operator(p, "-") || tsr_jinja_at_operator(p, "+");
    tsr_status st = sign ? parse_sign(p, &n) : tsr_jinja_parse_primary(p, false, &n);
    if (st == TSR_OK)
        st = parse_postfix(p, &n);
    if (st == TSR_OK && filters)
        st = parse_filters_and_tests(p, &n);
    if (st == TSR_OK)
        *ret_node = n;
    return st;
}

/* Text literals beside one another are one. */
static tsr_status parse_text(parser *p, node *n)
{
    tsr_text built = {0};
    tsr_status st = TSR_OK;
    while (p->token->kind == TSR_JINJA_TOKEN_TEXT && st == TSR_OK) {
        st = tsr_text_add(&built, p->token->text.bytes, p->token->text.count);
        tsr_jinja_advance(p);
    }
    const char *copy =
        st == TSR_OK ? tsr_arena_text(p->arena, built.bytes != NULL ? built.bytes : "", built.count)
                     : NULL;
    const tsr_jinja_text text = {.bytes = copy, .count = built.count};
    tsr_text_close(&built);
    if (copy == NULL)
        return TSR_ERR_MEMORY;
    n->value = tsr_jinja_text_value(text);
    return TSR_OK;
}

/* [a, b] or {k: v, k: v} */
static tsr_status parse_collection(parser *p, node *n)
{
    const bool dict = n->kind == TSR_JINJA_NODE_DICT;
    const char *end = dict ? "}" : "]";
    tsr_jinja_nodes items = {0};
    tsr_jinja_advance(p);
    tsr_status st = TSR_OK;
    while (st == TSR_OK && !tsr_jinja_at_operator(p, end)) {
        if (items.count > 0)
            st = tsr_jinja_expect_operator(p, ",");
        if (st != TSR_OK || tsr_jinja_at_operator(p, end))
            break;
        for (int i = 0; i < (dict ? 2 : 1) && st == TSR_OK; i++) {
            node *item = NULL;
            if (i == 1)
                st = tsr_jinja_expect_operator(p, ":");
            if (st == TSR_OK)
                st = tsr_jinja_parse_expression(p, &item);
            if (st == TSR_OK)
                st = tsr_jinja_nodes_add(p, &items, item);
        }
    }
    if (st == TSR_OK)
        st = tsr_jinja_expect_operator(p, end);
    n->items = items.items;
    n->count = items.count;
    return st;
}

/* true, none, ns.attribute as a target, or a name. */
static tsr_status parse_name(parser *p, bool attributes, node *n)
{
    const tsr_jinja_text name = p->token->text;
    tsr_jinja_advance(p);
    const bool yes = tsr_jinja_text_is(name, "true") || tsr_jinja_text_is(name, "True");
    const bool no = tsr_jinja_text_is(name, "false") || tsr_jinja_text_is(name, "False");
    if (yes || no) {
        n->value = tsr_jinja_bool(yes);
        return TSR_OK;
    }
    if (tsr_jinja_text_is(name, "none") || tsr_jinja_text_is(name, "None")) {
        n->value = tsr_jinja_none();
        return TSR_OK;
    }
    n->kind = TSR_JINJA_NODE_NAME;
    n->name = name;
    if (!attributes || !tsr_jinja_skip_operator(p, "."))
        return TSR_OK;

    n->kind = TSR_JINJA_NODE_TARGET;
    n->names = tsr_arena_array(p->arena, 1, sizeof(*n->names));
    n->name_count = 1;
    return n->names != NULL ? tsr_jinja_expect_name(p, n->names) : TSR_ERR_MEMORY;
}

static tsr_status parse_parentheses(parser *p, node **ret_node)
{
    static const tsr_jinja_tuple_rules rules = {.parentheses = true};
    node *n = NULL;
    tsr_jinja_advance(p);
    tsr_status st = tsr_jinja_parse_tuple(p, &rules, &n);
    if (st == TSR_OK)
        st = tsr_jinja_expect_operator(p, ")");
    if (st == TSR_OK)
        *ret_node = n;
    return st;
}

tsr_status tsr_jinja_parse_primary(parser *p, bool attributes, node **ret_node)
{
    const tsr_jinja_token *token = p->token;
    if (tsr_jinja_at_operator(p, "("))
        return parse_parentheses(p, ret_node);

    node *n = NULL;
    tsr_status st = tsr_jinja_node_new(p, TSR_JINJA_NODE_CONST, token->line, &n);
    if (st != TSR_OK)
        return st;
    if (token->kind == TSR_JINJA_TOKEN_NAME) {
        st = parse_name(p, attributes, n);
    } else if (token->kind == TSR_JINJA_TOKEN_TEXT) {
        st = parse_text(p, n);
    } else if (token->kind == TSR_JINJA_TOKEN_INT) {
        n->value = tsr_jinja_int(token->integer);
        tsr_jinja_advance(p);
    } else if (token->kind == TSR_JINJA_TOKEN_FLOAT) {
        n->value = tsr_jinja_float(token->number);
        tsr_jinja_advance(p);
    } else if (tsr_jinja_at_operator(p, "[") || tsr_jinja_at_operator(p, "{")) {
        n->kind = tsr_jinja_at_operator(p, "[") ? TSR_JINJA_NODE_LIST : TSR_JINJA_NODE_DICT;
        st = parse_collection(p, n);
    } else {
        st = tsr_jinja_unexpected(p, "an expression");
    }
    if (st == TSR_OK)
        *ret_node = n;
    return st;
}
