/* Statements: everything between {% and %}, and the text and outputs around it. */
#include "runtime/text/jinja/parser.h"
#include "runtime/text/jinja/unset_names.h"

typedef tsr_jinja_parser parser;
typedef tsr_jinja_node node;

static tsr_status parse_body(parser *p, const char *const *ends, node **ret_node);

/* A statement's body, from behind its head to one of `ends`, which becomes the current token. */
static tsr_status parse_block(parser *p, const char *const *ends, node **ret_node)
{
    (void)tsr_jinja_skip_operator(p, ":");
    tsr_status st = tsr_jinja_expect_kind(p, TSR_JINJA_TOKEN_BLOCK_END, "'%}'");
    if (st == TSR_OK)
        st = parse_body(p, ends, ret_node);
    return st;
}

/* The same with the end stepped over. */
static tsr_status parse_block_to(parser *p, const char *end, node **ret_node)
{
    const char *const ends[] = {end, NULL};
    const tsr_status st = parse_block(p, ends, ret_node);
    if (st == TSR_OK)
        tsr_jinja_advance(p);
    return st;
}

static bool can_assign(const node *n)
{
    if (n->kind == TSR_JINJA_NODE_NAME || n->kind == TSR_JINJA_NODE_TARGET)
        return true;
    if (n->kind != TSR_JINJA_NODE_TUPLE)
        return false;
    for (size_t i = 0; i < n->count; i++) {
        if (!can_assign(n->items[i]))
            return false;
    }
    return true;
}

static tsr_status parse_target(parser *p, const tsr_jinja_tuple_rules *rules, node **ret_node)
{
    node *target = NULL;
    const tsr_status st = tsr_jinja_parse_tuple(p, rules, &target);
    if (st != TSR_OK)
        return st;
    if (!can_assign(target))
        return tsr_jinja_refuse(p, target->line, "an assignment to something that is not a name");
    *ret_node = target;
    return TSR_OK;
}

static tsr_status parse_set(parser *p, node *n)
{
    static const tsr_jinja_tuple_rules to_set = {.target = true, .attributes = true};
    static const tsr_jinja_tuple_rules any = {0};
    node *target = NULL;
    node *part = NULL;
    tsr_status st = parse_target(p, &to_set, &target);
    n->a = target;
    if (st == TSR_OK && tsr_jinja_skip_operator(p, "=")) {
        n->kind = TSR_JINJA_NODE_SET;
        st = tsr_jinja_parse_tuple(p, &any, &part);
        n->b = part;
        return st;
    }

    n->kind = TSR_JINJA_NODE_SET_BLOCK;
    if (st == TSR_OK && tsr_jinja_at_operator(p, "|")) {
        node *input = NULL;
        node *filter = NULL;
        st = tsr_jinja_node_new(p, TSR_JINJA_NODE_BLOCK_INPUT, n->line, &input);
        if (st == TSR_OK)
            st = tsr_jinja_parse_filters(p, false, input, &filter);
        n->c = filter;
    }
    if (st == TSR_OK)
        st = parse_block_to(p, "endset", &part);
    n->b = part;
    return st;
}

static tsr_status parse_for(parser *p, node *n)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    static const tsr_jinja_tuple_rules each = {.target = true};
    static const tsr_jinja_tuple_rules over = {.plain = true};
    node *parts[5] = {NULL, NULL, NULL, NULL, NULL}; /* target, iterable, test, body, else */
    n->kind = TSR_JINJA_NODE_FOR;
    tsr_status st = parse_target(p, &each, &parts[0]);
    if (st == TSR_OK && !tsr_jinja_skip_name(p, "in"))
        return tsr_jinja_unexpected(p, "'in'");
    if (st == TSR_OK)
        st = tsr_jinja_parse_tuple(p, &over, &parts[1]);
    if (st == TSR_OK && tsr_jinja_skip_name(p, "if"))
        st = tsr_jinja_parse_expression(p, &parts[2]);
    if (st == TSR_OK && tsr_jinja_at_name(p, "recursive"))
        return tsr_jinja_refuse(p, n->line, "a recursive for loop is not supported");

    p->loops++;
    if (st == TSR_OK)
        st = parse_block(p, ends, &parts[3]);
    p->loops--;
    if (st == TSR_OK) {
        const bool other = tsr_jinja_at_name(p, "else");
        tsr_jinja_advance(p);
        if (other)
            st = parse_block_to(p, "endfor", &parts[4]);
    }
    if (st != TSR_OK)
        return st;
    n->a = parts[0];
    n->b = parts[1];
    n->c = parts[2];
    n->items = tsr_arena_array(p->arena, 2, sizeof(tsr_jinja_node *));
    if (n->items == NULL)
        return TSR_ERR_MEMORY;
    n->items[0] = parts[3];
    n->items[1] = parts[4];
    n->count = 2;
    return TSR_OK;
}

static tsr_status parse_if(parser *p, node *n)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const tsr_jinja_tuple_rules test_rules = {.plain = true};
    while (true) {
        node *test = NULL;
        node *body = NULL;
        n->kind = TSR_JINJA_NODE_IF;
        p->branches++;
        tsr_status st = tsr_jinja_parse_tuple(p, &test_rules, &test);
        if (st == TSR_OK)
            st = parse_block(p, ends, &body);
        p->branches--;
        if (st != TSR_OK)
            return st;
        n->a = test;
        n->b = body;

        const bool again = tsr_jinja_at_name(p, "elif");
        const bool other = tsr_jinja_at_name(p, "else");
        tsr_jinja_advance(p);
        node *next = NULL;
        p->branches++;
        if (other)
            st = parse_block_to(p, "endif", &next);
        else if (again)
            st = tsr_jinja_node_new(p, TSR_JINJA_NODE_IF, p->token->line, &next);
        p->branches--;
        n->c = next;
        if (st != TSR_OK || !again)
            return st;
        n = next;
    }
}

/* (a, b=1) of a macro into `n`. */
static tsr_status parse_signature(parser *p, node *n)
{
    tsr_jinja_nodes names = {0};
    tsr_jinja_nodes defaults = {0};
    tsr_status st = tsr_jinja_expect_operator(p, "(");
    while (st == TSR_OK && !tsr_jinja_at_operator(p, ")")) {
        node *name = NULL;
        node *value = NULL;
        if (names.count > 0)
            st = tsr_jinja_expect_operator(p, ",");
        if (st == TSR_OK)
            st = tsr_jinja_node_new(p, TSR_JINJA_NODE_NAME, p->token->line, &name);
        if (st == TSR_OK)
            st = tsr_jinja_expect_name(p, &name->name);
        for (size_t i = 0; i < names.count && st == TSR_OK; i++) {
            if (tsr_jinja_text_equal(names.items[i]->name, name->name))
                return tsr_jinja_refuse(p, n->line, "a macro with two parameters of one name");
        }
        if (st == TSR_OK)
            st = tsr_jinja_nodes_add(p, &names, name);
        if (st != TSR_OK)
            return st;
        if (tsr_jinja_skip_operator(p, "=")) {
            st = tsr_jinja_parse_expression(p, &value);
            if (st == TSR_OK)
                st = tsr_jinja_nodes_add(p, &defaults, value);
        } else if (defaults.count > 0) {
            return tsr_jinja_refuse(p, n->line, "a parameter without a default behind one with it");
        }
    }
    if (st == TSR_OK)
        st = tsr_jinja_expect_operator(p, ")");
    if (st != TSR_OK)
        return st;
    n->names = tsr_arena_array(p->arena, names.count + 1, sizeof(*n->names));
    if (n->names == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < names.count; i++)
        n->names[i] = names.items[i]->name;
    n->name_count = names.count;
    n->items = defaults.items;
    n->count = defaults.count;
    n->named = defaults.count;
    return TSR_OK;
}

static tsr_status parse_macro(parser *p, node *n)
{
    node *body = NULL;
    const int32_t loops = p->loops;
    n->kind = TSR_JINJA_NODE_MACRO;
    tsr_status st = tsr_jinja_expect_name(p, &n->name);
    if (st == TSR_OK)
        st = parse_signature(p, n);
    p->loops = 0;
    if (st == TSR_OK)
        st = parse_block_to(p, "endmacro", &body);
    p->loops = loops;
    n->a = body;
    return st;
}

/* What Hugging Face uses to mark the tokens a model is trained on; its body is rendered. */
static tsr_status parse_generation(parser *p, node *n)
{
    node *body = NULL;
    const int32_t loops = p->loops;
    n->kind = TSR_JINJA_NODE_SCOPE;
    p->loops = 0;
    const tsr_status st = parse_block_to(p, "endgeneration", &body);
    p->loops = loops;
    n->a = body;
    return st;
}

static tsr_status parse_filter_block(parser *p, node *n)
{
    node *input = NULL;
    node *filter = NULL;
    node *body = NULL;
    n->kind = TSR_JINJA_NODE_FILTER_BLOCK;
    tsr_status st = tsr_jinja_node_new(p, TSR_JINJA_NODE_BLOCK_INPUT, n->line, &input);
    if (st == TSR_OK)
        st = tsr_jinja_parse_filters(p, true, input, &filter);
    if (st == TSR_OK)
        st = parse_block_to(p, "endfilter", &body);
    n->a = body;
    n->b = filter;
    return st;
}

static tsr_status parse_break(parser *p, node *n)
{
    n->kind = TSR_JINJA_NODE_BREAK;
    return p->loops > 0 ? TSR_OK : tsr_jinja_refuse(p, n->line, "a break outside of a loop");
}

static tsr_status parse_continue(parser *p, node *n)
{
    n->kind = TSR_JINJA_NODE_CONTINUE;
    return p->loops > 0 ? TSR_OK : tsr_jinja_refuse(p, n->line, "a continue outside of a loop");
}

typedef struct statement_row {
    const char *name;
    tsr_status (*parse)(parser *p, node *n);
} statement_row;

static const statement_row statements[] = {
    {"set", parse_set},
    {"for", parse_for},
    {"if", parse_if},
    {"macro", parse_macro},
    {"break", parse_break},
    {"continue", parse_continue},
    {"filter", parse_filter_block},
    {"generation", parse_generation},
};

static tsr_status parse_statement(parser *p, node **ret_node)
{
    const tsr_jinja_token *token = p->token;
    tsr_jinja_text name = {0};
    node *n = NULL;
    tsr_status st = tsr_jinja_expect_name(p, &name);
    if (st == TSR_OK)
        st = tsr_jinja_node_new(p, TSR_JINJA_NODE_BODY, token->line, &n);
    if (st != TSR_OK)
        return st;
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        if (!tsr_jinja_text_is(name, statements[i].name))
            continue;
        st = statements[i].parse(p, n);
        if (st == TSR_OK)
            *ret_node = n;
        return st;
    }
    return tsr_jinja_refuse(p, token->line, "the statement '%.*s' is not supported here",
                            name.count < 40 ? (int)name.count : 40, name.bytes);
}

static bool at_end(const parser *p, const char *const *ends)
{
    for (; ends != NULL && *ends != NULL; ends++) {
        if (tsr_jinja_at_name(p, *ends))
            return true;
    }
    return false;
}

/* One piece: text, an output or a statement. *ret_ended: one of `ends` stands behind the {%. */
static tsr_status parse_piece(parser *p, const char *const *ends, bool *ret_ended, node **ret_node)
{
    static const tsr_jinja_tuple_rules any = {0};
    node *n = NULL;
    node *part = NULL;
    tsr_status st = TSR_OK;
    if (p->token->kind == TSR_JINJA_TOKEN_BLOCK_BEGIN) {
        tsr_jinja_advance(p);
        *ret_ended = at_end(p, ends);
        if (*ret_ended)
            return TSR_OK;
        st = parse_statement(p, ret_node);
        return st == TSR_OK ? tsr_jinja_expect_kind(p, TSR_JINJA_TOKEN_BLOCK_END, "'%}'") : st;
    }

    const bool output = p->token->kind == TSR_JINJA_TOKEN_OUTPUT_BEGIN;
    st = tsr_jinja_node_new(p, output ? TSR_JINJA_NODE_OUTPUT : TSR_JINJA_NODE_DATA, p->token->line,
                            &n);
    if (st != TSR_OK)
        return st;
    n->name = p->token->text;
    tsr_jinja_advance(p);
    if (output) {
        st = tsr_jinja_parse_tuple(p, &any, &part);
        if (st == TSR_OK)
            st = tsr_jinja_expect_kind(p, TSR_JINJA_TOKEN_OUTPUT_END, "'}}'");
    }
    n->a = part;
    *ret_node = n;
    return st;
}

/* `ends` NULL: up to the template's end. */
static tsr_status parse_body(parser *p, const char *const *ends, node **ret_node)
{
    node *body = NULL;
    tsr_jinja_nodes pieces = {0};
    bool ended = false;
    tsr_status st = tsr_jinja_deeper(p);
    if (st != TSR_OK)
        return st;
    st = tsr_jinja_node_new(p, TSR_JINJA_NODE_BODY, p->token->line, &body);
    while (st == TSR_OK && !ended && p->token->kind != TSR_JINJA_TOKEN_END) {
        node *piece = NULL;
        st = parse_piece(p, ends, &ended, &piece);
        if (st == TSR_OK && !ended)
            st = tsr_jinja_nodes_add(p, &pieces, piece);
    }
    p->depth--;
    if (st != TSR_OK)
        return st;
    if (ends != NULL && !ended) {
        while (ends[1] != NULL)
            ends++; /* the last is the one that closes */
        return tsr_jinja_unexpected(p, *ends);
    }
    body->unset = tsr_arena_array(p->arena, 1, sizeof(*body->unset));
    if (body->unset == NULL)
        return TSR_ERR_MEMORY;
    body->items = pieces.items;
    body->count = pieces.count;
    *ret_node = body;
    return TSR_OK;
}

tsr_status tsr_jinja_parse(tsr_jinja_source source, tsr_arena *arena, tsr_problems *problems,
                           const tsr_jinja_node **ret_root)
{
    tsr_jinja_tokens tokens = {0};
    node *root = NULL;
    tsr_status st = tsr_jinja_lex(source, arena, problems, &tokens);
    if (st == TSR_OK) {
        parser p = {
            .name = source.name, .token = tokens.items, .arena = arena, .problems = problems};
        st = parse_body(&p, NULL, &root);
    }
    tsr_jinja_tokens_close(&tokens);
    if (st == TSR_OK)
        st = tsr_jinja_find_unset_names(root, arena);
    if (st == TSR_OK)
        *ret_root = root;
    return st;
}
