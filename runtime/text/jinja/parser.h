/* What the two halves of the parser share: a position in the tokens, and small steps on it. */
#ifndef TSR_RUNTIME_TEXT_JINJA_PARSER_H
#define TSR_RUNTIME_TEXT_JINJA_PARSER_H

#include "runtime/text/jinja/lexer.h"
#include "runtime/text/jinja/syntax.h"

typedef struct tsr_jinja_parser {
    const char *name;
    const tsr_jinja_token *token; /* the current one; never moves behind END */
    tsr_arena *arena;
    tsr_problems *problems;
    int32_t depth;
    int32_t loops;    /* for loops around, inside the same macro */
    int32_t branches; /* `if`s around: what may never run may also use what we do not have */
} tsr_jinja_parser;

/* Nodes being collected. */
typedef struct tsr_jinja_nodes {
    tsr_jinja_node **items; /* [count], in the arena */
    size_t count;
    size_t capacity;
} tsr_jinja_nodes;

/* Says what is wrong at `line`; TSR_ERR_CHECKPOINT. */
__attribute__((format(printf, 3, 4))) TSR_MUST_USE tsr_status
tsr_jinja_refuse(const tsr_jinja_parser *parser, int32_t line, const char *format, ...);

/* Refuses the current token. */
TSR_MUST_USE tsr_status tsr_jinja_unexpected(const tsr_jinja_parser *parser, const char *wanted);

TSR_MUST_USE tsr_status tsr_jinja_node_new(tsr_jinja_parser *parser, tsr_jinja_node_kind kind,
                                           int32_t line, tsr_jinja_node **ret_node);
TSR_MUST_USE tsr_status tsr_jinja_nodes_add(tsr_jinja_parser *parser, tsr_jinja_nodes *nodes,
                                            tsr_jinja_node *node);

/* One nesting deeper, or refused. */
TSR_MUST_USE tsr_status tsr_jinja_deeper(tsr_jinja_parser *parser);

void tsr_jinja_advance(tsr_jinja_parser *parser);
bool tsr_jinja_at_operator(const tsr_jinja_parser *parser, const char *text);
bool tsr_jinja_at_name(const tsr_jinja_parser *parser, const char *text);

/* Steps over it if it is there. */
bool tsr_jinja_skip_operator(tsr_jinja_parser *parser, const char *text);
bool tsr_jinja_skip_name(tsr_jinja_parser *parser, const char *text);
TSR_MUST_USE tsr_status tsr_jinja_expect_operator(tsr_jinja_parser *parser, const char *text);
TSR_MUST_USE tsr_status tsr_jinja_expect_kind(tsr_jinja_parser *parser, tsr_jinja_token_kind kind,
                                              const char *wanted);
TSR_MUST_USE tsr_status tsr_jinja_expect_name(tsr_jinja_parser *parser, tsr_jinja_text *ret_name);

TSR_MUST_USE tsr_status tsr_jinja_parse_expression(tsr_jinja_parser *parser,
                                                   tsr_jinja_node **ret_node);

/* A signed operand with what follows it; `filters` takes filters and tests along. */
TSR_MUST_USE tsr_status tsr_jinja_parse_unary(tsr_jinja_parser *parser, bool filters,
                                              tsr_jinja_node **ret_node);

/* `attributes`: ns.name is a target to be assigned to. */
TSR_MUST_USE tsr_status tsr_jinja_parse_primary(tsr_jinja_parser *parser, bool attributes,
                                                tsr_jinja_node **ret_node);

/* A node with *in_out as its right side takes its place. */
TSR_MUST_USE tsr_status tsr_jinja_node_of_two(tsr_jinja_parser *parser, tsr_jinja_node_kind kind,
                                              tsr_jinja_node *left, tsr_jinja_node **in_out);

/* Like an expression, but a comma makes a tuple. */
typedef struct tsr_jinja_tuple_rules {
    bool target;      /* names only, to be assigned to */
    bool attributes;  /* ns.name may be a target */
    bool plain;       /* no inline if-else at the top */
    bool parentheses; /* () is an empty tuple */
} tsr_jinja_tuple_rules;
TSR_MUST_USE tsr_status tsr_jinja_parse_tuple(tsr_jinja_parser *parser,
                                              const tsr_jinja_tuple_rules *rules,
                                              tsr_jinja_node **ret_node);

/* `|name(...)` and what follows it; `named` means the current token is the first filter's name. */
TSR_MUST_USE tsr_status tsr_jinja_parse_filters(tsr_jinja_parser *parser, bool named,
                                                tsr_jinja_node *input, tsr_jinja_node **ret_node);

#endif
