/*
 * A parsed template: a tree in an arena.
 *
 *   kind       a          b        c       items
 *   ---------  ---------  -------  ------  -----------------------------------------------
 *   CONST                                  (value)
 *   NAME                                   (name)
 *   LIST TUPLE CONCAT                      elements
 *   DICT                                   key, value, key, value ...
 *   UNARY NOT  operand                     (op)
 *   BINARY     left       right            (op)
 *   AND OR     left       right
 *   COMPARE    first                       OPERAND nodes: op and a
 *   IF_ELSE    test       then     else?
 *   ATTRIBUTE  object                      (name)
 *   ITEM       object     key
 *   SLICE      object                      from?, to?, step?
 *   CALL       callee                      arguments, the last `named` with `names`
 *   FILTER     input                       arguments (name; builtin, NULL: we have none)
 *   TEST       input                       arguments (the same)
 *   TARGET                                 namespace attribute: name, and attribute in `names`
 *   ---------  statements
 *   BODY                                   statements (unset)
 *   DATA                                   (name: the text)
 *   OUTPUT     expression
 *   IF         test       body     else: IF, BODY or NULL
 *   FOR        target     iterable test?   body, else?
 *   SET        target     value
 *   SET_BLOCK  target     body     filter?
 *   MACRO      body                        defaults of the last `named`; parameters in `names`
 *   SCOPE      body
 *   FILTER_BLOCK body     filter
 */
#ifndef TSR_RUNTIME_TEXT_JINJA_SYNTAX_H
#define TSR_RUNTIME_TEXT_JINJA_SYNTAX_H

#include "runtime/base/arena.h"
#include "runtime/base/problems.h"
#include "runtime/text/jinja/value.h"

typedef enum tsr_jinja_node_kind {
    TSR_JINJA_NODE_CONST,
    TSR_JINJA_NODE_NAME,
    TSR_JINJA_NODE_LIST,
    TSR_JINJA_NODE_TUPLE,
    TSR_JINJA_NODE_DICT,
    TSR_JINJA_NODE_CONCAT,
    TSR_JINJA_NODE_UNARY,
    TSR_JINJA_NODE_NOT,
    TSR_JINJA_NODE_BINARY,
    TSR_JINJA_NODE_AND,
    TSR_JINJA_NODE_OR,
    TSR_JINJA_NODE_COMPARE,
    TSR_JINJA_NODE_OPERAND,
    TSR_JINJA_NODE_IF_ELSE,
    TSR_JINJA_NODE_ATTRIBUTE,
    TSR_JINJA_NODE_ITEM,
    TSR_JINJA_NODE_SLICE,
    TSR_JINJA_NODE_CALL,
    TSR_JINJA_NODE_FILTER,
    TSR_JINJA_NODE_TEST,
    TSR_JINJA_NODE_TARGET,
    TSR_JINJA_NODE_BLOCK_INPUT, /* what a filter block's filter works on */
    TSR_JINJA_NODE_BODY,
    TSR_JINJA_NODE_DATA,
    TSR_JINJA_NODE_OUTPUT,
    TSR_JINJA_NODE_IF,
    TSR_JINJA_NODE_FOR,
    TSR_JINJA_NODE_SET,
    TSR_JINJA_NODE_SET_BLOCK,
    TSR_JINJA_NODE_MACRO,
    TSR_JINJA_NODE_SCOPE,
    TSR_JINJA_NODE_FILTER_BLOCK,
    TSR_JINJA_NODE_BREAK,
    TSR_JINJA_NODE_CONTINUE,
} tsr_jinja_node_kind;

typedef enum tsr_jinja_operator {
    TSR_JINJA_ADD,
    TSR_JINJA_SUB,
    TSR_JINJA_MUL,
    TSR_JINJA_DIV,
    TSR_JINJA_FLOORDIV,
    TSR_JINJA_MOD,
    TSR_JINJA_POW,
    TSR_JINJA_EQ,
    TSR_JINJA_NE,
    TSR_JINJA_LT,
    TSR_JINJA_LE,
    TSR_JINJA_GT,
    TSR_JINJA_GE,
    TSR_JINJA_IN,
    TSR_JINJA_NOT_IN,
} tsr_jinja_operator;

/* Names that a block sets, and that have no value until it does (unset_names.h). */
typedef struct tsr_jinja_names {
    tsr_jinja_text *items; /* [count] */
    size_t count;
} tsr_jinja_names;

typedef struct tsr_jinja_node tsr_jinja_node;
struct tsr_jinja_node {
    tsr_jinja_node_kind kind;
    tsr_jinja_operator op;
    int32_t line;
    tsr_jinja_value value;
    tsr_jinja_text name;
    const tsr_jinja_node *a, *b, *c;
    tsr_jinja_node **items; /* [count] */
    size_t count;
    size_t named;
    tsr_jinja_text *names;
    size_t name_count;
    const tsr_jinja_builtin *builtin;
    tsr_jinja_names *unset; /* of a BODY */
};

typedef struct tsr_jinja_source {
    const char *name; /* stands for the file in messages */
    tsr_jinja_text text;
} tsr_jinja_source;

enum { TSR_JINJA_SOURCE_MOST = 1024 * 1024 };

/*
 * Parses into `arena`, which must outlive the tree. What we do not have is refused by name and
 * line in `problems`.
 *
 * TSR_ERR_CHECKPOINT, TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_jinja_parse(tsr_jinja_source source, tsr_arena *arena,
                                        tsr_problems *problems, const tsr_jinja_node **ret_root);

#endif
