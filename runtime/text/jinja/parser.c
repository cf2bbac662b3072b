#include "runtime/text/jinja/parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MOST = 100, SHOWN_MOST = 40 };

tsr_status tsr_jinja_refuse(const tsr_jinja_parser *parser, int32_t line, const char *format, ...)
{
    char what[300];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    tsr_problems_add(parser->problems, TSR_SEVERITY_ERROR, "%s: line %d: %s", parser->name,
                     (int)line, what);
    return TSR_ERR_CHECKPOINT;
}

tsr_status tsr_jinja_unexpected(const tsr_jinja_parser *parser, const char *wanted)
{
    const tsr_jinja_token *token = parser->token;
    if (token->kind == TSR_JINJA_TOKEN_END)
        return tsr_jinja_refuse(parser, token->line, "the template ends where %s was expected",
                                wanted);
    const int shown = token->text.count < SHOWN_MOST ? (int)token->text.count : SHOWN_MOST;
    return tsr_jinja_refuse(parser, token->line, "'%.*s' where %s was expected", shown,
                            token->text.bytes, wanted);
}

tsr_status tsr_jinja_node_new(tsr_jinja_parser *parser, tsr_jinja_node_kind kind, int32_t line,
                              tsr_jinja_node **ret_node)
{
    tsr_jinja_node *node = tsr_arena_alloc(parser->arena, sizeof(*node));
    if (node == NULL)
        return TSR_ERR_MEMORY;
    node->kind = kind;
    node->line = line;
    *ret_node = node;
    return TSR_OK;
}

tsr_status tsr_jinja_nodes_add(tsr_jinja_parser *parser, tsr_jinja_nodes *nodes,
                               tsr_jinja_node *node)
{
    if (nodes->count == nodes->capacity) {
        const size_t capacity = nodes->capacity ? nodes->capacity * 2 : 8;
        tsr_jinja_node **grown = tsr_arena_array(parser->arena, capacity, sizeof(tsr_jinja_node *));
        if (grown == NULL)
            return TSR_ERR_MEMORY;
        if (nodes->count > 0)
            memcpy(grown, nodes->items, nodes->count * sizeof(tsr_jinja_node *));
        nodes->items = grown;
        nodes->capacity = capacity;
    }
    nodes->items[nodes->count++] = node;
    return TSR_OK;
}

tsr_status tsr_jinja_deeper(tsr_jinja_parser *parser)
{
    if (parser->depth == DEPTH_MOST)
        return tsr_jinja_refuse(parser, parser->token->line, "nested deeper than %d", DEPTH_MOST);
    parser->depth++;
    return TSR_OK;
}

void tsr_jinja_advance(tsr_jinja_parser *parser)
{
    if (parser->token->kind != TSR_JINJA_TOKEN_END)
        parser->token++;
}

bool tsr_jinja_at_operator(const tsr_jinja_parser *parser, const char *text)
{
    return parser->token->kind == TSR_JINJA_TOKEN_OPERATOR &&
           tsr_jinja_text_is(parser->token->text, text);
}

bool tsr_jinja_at_name(const tsr_jinja_parser *parser, const char *text)
{
    return parser->token->kind == TSR_JINJA_TOKEN_NAME &&
           tsr_jinja_text_is(parser->token->text, text);
}

bool tsr_jinja_skip_operator(tsr_jinja_parser *parser, const char *text)
{
    const bool there = tsr_jinja_at_operator(parser, text);
    if (there)
        tsr_jinja_advance(parser);
    return there;
}

bool tsr_jinja_skip_name(tsr_jinja_parser *parser, const char *text)
{
    const bool there = tsr_jinja_at_name(parser, text);
    if (there)
        tsr_jinja_advance(parser);
    return there;
}

tsr_status tsr_jinja_expect_operator(tsr_jinja_parser *parser, const char *text)
{
    if (tsr_jinja_skip_operator(parser, text))
        return TSR_OK;
    char wanted[8];
    (void)snprintf(wanted, sizeof(wanted), "'%s'", text);
    return tsr_jinja_unexpected(parser, wanted);
}

tsr_status tsr_jinja_expect_kind(tsr_jinja_parser *parser, tsr_jinja_token_kind kind,
                                 const char *wanted)
{
    if (parser->token->kind != kind)
        return tsr_jinja_unexpected(parser, wanted);
    tsr_jinja_advance(parser);
    return TSR_OK;
}

tsr_status tsr_jinja_expect_name(tsr_jinja_parser *parser, tsr_jinja_text *ret_name)
{
    const tsr_jinja_text name = parser->token->text;
    const tsr_status st = tsr_jinja_expect_kind(parser, TSR_JINJA_TOKEN_NAME, "a name");
    if (st == TSR_OK)
        *ret_name = name;
    return st;
}
