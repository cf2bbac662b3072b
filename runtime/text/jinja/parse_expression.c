/*
 * Expressions, by precedence from loose to tight:
 *
 *     a if b else c | or | and | not | == != < > in | + - | ~ | * / // % | ** | unary | primary
 *
 * The last two stand in parse_primary.c.
 */
#include "runtime/text/jinja/parser.h"

typedef tsr_jinja_parser parser;
typedef tsr_jinja_node node;

static tsr_status parse_or(parser *p, node **ret_node);

tsr_status tsr_jinja_node_of_two(parser *p, tsr_jinja_node_kind kind, node *a, node **in_out)
{
    node *n = NULL;
    const tsr_status st = tsr_jinja_node_new(p, kind, a->line, &n);
    if (st != TSR_OK)
        return st;
    n->a = a;
    n->b = *in_out;
    *in_out = n;
    return TSR_OK;
}

/* expr1 if expr2 else expr3, else branch to the right. */
static tsr_status parse_if_else(parser *p, node **ret_node)
{
    node *left = NULL;
    tsr_status st = tsr_jinja_deeper(p);
    if (st != TSR_OK)
        return st;
    st = parse_or(p, &left);
    while (st == TSR_OK && tsr_jinja_at_name(p, "if")) {
        node *n = NULL;
        node *test = NULL;
        node *other = NULL;
        st = tsr_jinja_node_new(p, TSR_JINJA_NODE_IF_ELSE, p->token->line, &n);
        tsr_jinja_advance(p);
        if (st == TSR_OK)
            st = parse_or(p, &test);
        if (st == TSR_OK && tsr_jinja_skip_name(p, "else"))
            st = parse_if_else(p, &other);
        if (st != TSR_OK)
            break;
        n->a = test;
        n->b = left;
        n->c = other;
        left = n;
    }
    p->depth--;
    if (st == TSR_OK)
        *ret_node = left;
    return st;
}

tsr_status tsr_jinja_parse_expression(parser *p, node **ret_node)
{
    return parse_if_else(p, ret_node);
}

static tsr_status parse_not(parser *p, node **ret_node);

static tsr_status parse_and(parser *p, node **ret_node)
{
    node *left = NULL;
    tsr_status st = parse_not(p, &left);
    while (st == TSR_OK && tsr_jinja_skip_name(p, "and")) {
        node *right = NULL;
        st = parse_not(p, &right);
        if (st == TSR_OK)
            st = tsr_jinja_node_of_two(p, TSR_JINJA_NODE_AND, left, &right);
        left = right;
    }
    if (st == TSR_OK)
        *ret_node = left;
    return st;
}

static tsr_status parse_or(parser *p, node **ret_node)
{
    node *left = NULL;
    tsr_status st = parse_and(p, &left);
    while (st == TSR_OK && tsr_jinja_skip_name(p, "or")) {
        node *right = NULL;
        st = parse_and(p, &right);
        if (st == TSR_OK)
            st = tsr_jinja_node_of_two(p, TSR_JINJA_NODE_OR, left, &right);
        left = right;
    }
    if (st == TSR_OK)
        *ret_node = left;
    return st;
}

/* A row of operators of one precedence. */
typedef struct operator_row {
    const char *text;
    tsr_jinja_operator op;
} operator_row;

static const operator_row sums[] = {{"+", TSR_JINJA_ADD}, {"-", TSR_JINJA_SUB}, {NULL, 0}};
static const operator_row products[] = {{"*", TSR_JINJA_MUL},
                                        {"/", TSR_JINJA_DIV},
                                        {"//", TSR_JINJA_FLOORDIV},
                                        {"%", TSR_JINJA_MOD},
                                        {NULL, 0}};
static const operator_row powers[] = {{"**", TSR_JINJA_POW}, {NULL, 0}};
static const operator_row comparisons[] = {{"==", TSR_JINJA_EQ},
                                           {"!=", TSR_JINJA_NE},
                                           {"<", TSR_JINJA_LT},
                                           {"<=", TSR_JINJA_LE},
                                           {">", TSR_JINJA_GT},
                                           {">=", TSR_JINJA_GE},
                                           {NULL, 0}};

static const operator_row *skip_row(parser *p, const operator_row *rows)
{
    for (const operator_row *row = rows; row->text != NULL; row++) {
        if (tsr_jinja_skip_operator(p, row->text))
            return row;
    }
    return NULL;
}

typedef tsr_status (*parse_function)(parser *p, node **ret_node);

static tsr_status parse_binary(parser *p, const operator_row *rows, parse_function next,
                               node **ret_node)
{
    node *left = NULL;
    tsr_status st = next(p, &left);
    while (st == TSR_OK) {
        const operator_row *row = skip_row(p, rows);
        if (row == NULL)
            break;
        node *right = NULL;
        st = next(p, &right);
        if (st == TSR_OK)
            st = tsr_jinja_node_of_two(p, TSR_JINJA_NODE_BINARY, left, &right);
        if (st != TSR_OK)
            break;
        right->op = row->op;
        left = right;
    }
    if (st == TSR_OK)
        *ret_node = left;
    return st;
}

static tsr_status parse_operand(parser *p, node **ret_node)
{
    return tsr_jinja_parse_unary(p, true, ret_node);
}

static tsr_status parse_power(parser *p, node **ret_node)
{
    return parse_binary(p, powers, parse_operand, ret_node);
}

static tsr_status parse_product(parser *p, node **ret_node)
{
    return parse_binary(p, products, parse_power, ret_node);
}

static tsr_status parse_concat(parser *p, node **ret_node)
{
    node *first = NULL;
    tsr_status st = parse_product(p, &first);
    if (st != TSR_OK || !tsr_jinja_at_operator(p, "~")) {
        if (st == TSR_OK)
            *ret_node = first;
        return st;
    }

    node *concat = NULL;
    tsr_jinja_nodes parts = {0};
    st = tsr_jinja_node_new(p, TSR_JINJA_NODE_CONCAT, first->line, &concat);
    if (st == TSR_OK)
        st = tsr_jinja_nodes_add(p, &parts, first);
    while (st == TSR_OK && tsr_jinja_skip_operator(p, "~")) {
        node *part = NULL;
        st = parse_product(p, &part);
        if (st == TSR_OK)
            st = tsr_jinja_nodes_add(p, &parts, part);
    }
    if (st == TSR_OK) {
        concat->items = parts.items;
        concat->count = parts.count;
        *ret_node = concat;
    }
    return st;
}

static tsr_status parse_sum(parser *p, node **ret_node)
{
    return parse_binary(p, sums, parse_concat, ret_node);
}

/* True when a comparison begins here; it is stepped over. */
static bool skip_comparison(parser *p, tsr_jinja_operator *ret_op)
{
    const operator_row *row = skip_row(p, comparisons);
    if (row != NULL) {
        *ret_op = row->op;
        return true;
    }
    if (tsr_jinja_skip_name(p, "in")) {
        *ret_op = TSR_JINJA_IN;
        return true;
    }
    /* The last token is END, so that there is always one behind a name. */
    if (tsr_jinja_at_name(p, "not") && p->token[1].kind == TSR_JINJA_TOKEN_NAME &&
        tsr_jinja_text_is(p->token[1].text, "in")) {
        tsr_jinja_advance(p);
        tsr_jinja_advance(p);
        *ret_op = TSR_JINJA_NOT_IN;
        return true;
    }
    return false;
}

static tsr_status parse_compare(parser *p, node **ret_node)
{
    node *first = NULL;
    tsr_jinja_nodes operands = {0};
    tsr_status st = parse_sum(p, &first);
    tsr_jinja_operator op = TSR_JINJA_EQ;
    while (st == TSR_OK && skip_comparison(p, &op)) {
        node *right = NULL;
        node *operand = NULL;
        st = parse_sum(p, &right);
        if (st == TSR_OK)
            st = tsr_jinja_node_new(p, TSR_JINJA_NODE_OPERAND, right->line, &operand);
        if (st != TSR_OK)
            break;
        operand->op = op;
        operand->a = right;
        st = tsr_jinja_nodes_add(p, &operands, operand);
    }
    if (st != TSR_OK)
        return st;
    if (operands.count == 0) {
        *ret_node = first;
        return TSR_OK;
    }
    node *compare = NULL;
    st = tsr_jinja_node_new(p, TSR_JINJA_NODE_COMPARE, first->line, &compare);
    if (st != TSR_OK)
        return st;
    compare->a = first;
    compare->items = operands.items;
    compare->count = operands.count;
    *ret_node = compare;
    return TSR_OK;
}

static tsr_status parse_not(parser *p, node **ret_node)
{
    if (!tsr_jinja_at_name(p, "not"))
        return parse_compare(p, ret_node);

    node *n = NULL;
    node *operand = NULL;
    tsr_status st = tsr_jinja_deeper(p);
    if (st != TSR_OK)
        return st;
    st = tsr_jinja_node_new(p, TSR_JINJA_NODE_NOT, p->token->line, &n);
    tsr_jinja_advance(p);
    if (st == TSR_OK)
        st = parse_not(p, &operand);
    p->depth--;
    if (st != TSR_OK)
        return st;
    n->a = operand;
    *ret_node = n;
    return TSR_OK;
}

static bool ends_tuple(const parser *p)
{
    return p->token->kind == TSR_JINJA_TOKEN_OUTPUT_END ||
           p->token->kind == TSR_JINJA_TOKEN_BLOCK_END || tsr_jinja_at_operator(p, ")");
}

tsr_status tsr_jinja_parse_tuple(parser *p, const tsr_jinja_tuple_rules *rules, node **ret_node)
{
    tsr_jinja_nodes items = {0};
    const int32_t line = p->token->line;
    bool is_tuple = false;
    tsr_status st = tsr_jinja_deeper(p);
    if (st != TSR_OK)
        return st;
    while (st == TSR_OK && !ends_tuple(p)) {
        node *item = NULL;
        if (rules->target)
            st = tsr_jinja_parse_primary(p, rules->attributes, &item);
        else
            st = rules->plain ? parse_or(p, &item) : tsr_jinja_parse_expression(p, &item);
        if (st == TSR_OK)
            st = tsr_jinja_nodes_add(p, &items, item);
        if (st != TSR_OK || !tsr_jinja_skip_operator(p, ","))
            break;
        is_tuple = true;
    }
    p->depth--;
    if (st != TSR_OK)
        return st;
    if (!is_tuple && items.count > 0) {
        *ret_node = items.items[0];
        return TSR_OK;
    }
    if (!is_tuple && !rules->parentheses)
        return tsr_jinja_unexpected(p, "an expression");

    node *tuple = NULL;
    st = tsr_jinja_node_new(p, TSR_JINJA_NODE_TUPLE, line, &tuple);
    if (st != TSR_OK)
        return st;
    tuple->items = items.items;
    tuple->count = items.count;
    *ret_node = tuple;
    return TSR_OK;
}
