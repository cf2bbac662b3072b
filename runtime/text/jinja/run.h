/*
 * One render: its memory, its budgets, where it writes and what went wrong.
 *
 * A template is somebody else's program. It gets so many steps, so deep a nesting and so many bytes
 * as stand here, and ends with a clear error at any of them.
 */
#ifndef TSR_RUNTIME_TEXT_JINJA_RUN_H
#define TSR_RUNTIME_TEXT_JINJA_RUN_H

#include "runtime/base/arena.h"
#include "runtime/text/jinja/syntax.h"
#include "runtime/text/jinja/value.h"

enum {
    TSR_JINJA_STEPS_MOST = 10000000,           /* nodes evaluated, items touched, 64 bytes moved */
    TSR_JINJA_DEPTH_MOST = 400,                /* expressions and values inside one another */
    TSR_JINJA_CALLS_MOST = 64,                 /* macros inside macros */
    TSR_JINJA_OUTPUT_MOST = 64 * 1024 * 1024,  /* bytes of any one text */
    TSR_JINJA_MEMORY_MOST = 256 * 1024 * 1024, /* bytes of all values of a render */
    TSR_JINJA_RANGE_MOST = 100000,             /* items of a range, as Jinja's sandbox has it */
    TSR_JINJA_SLOTS = 6,                       /* parameters of a builtin */
    TSR_JINJA_ERROR_BYTES = 400
};

/* Variables of a block. A loop's body has one of its own, an `if` has none. */
typedef struct tsr_jinja_binding {
    struct tsr_jinja_binding *next;
    tsr_jinja_text name;
    tsr_jinja_value value;
} tsr_jinja_binding;

typedef struct tsr_jinja_scope {
    struct tsr_jinja_scope *outer;
    tsr_jinja_binding *bindings;
} tsr_jinja_scope;

typedef enum tsr_jinja_flow {
    TSR_JINJA_FLOW_ON,
    TSR_JINJA_FLOW_BREAK,
    TSR_JINJA_FLOW_CONTINUE,
} tsr_jinja_flow;

struct tsr_jinja_run {
    tsr_arena *arena;
    unsigned char *spare; /* the rest of the last piece taken from the arena */
    size_t spare_bytes;
    size_t memory_left;
    int64_t steps_left;
    int32_t depth;
    int32_t calls;
    tsr_text *out;
    tsr_jinja_scope *scope;
    tsr_jinja_binding *spare_bindings; /* of scopes that were emptied */
    const tsr_jinja_dict *variables;   /* what the caller gave */
    tsr_jinja_value block_input;       /* text that a filter block filters */
    tsr_jinja_flow flow;
    int32_t error_line; /* 0 until the innermost node has put its own here */
    char error[TSR_JINJA_ERROR_BYTES];
};

/* Says what is wrong; TSR_ERR_ARG. */
__attribute__((format(printf, 2, 3))) TSR_MUST_USE tsr_status tsr_jinja_fail(tsr_jinja_run *run,
                                                                             const char *format,
                                                                             ...);

/* Fails with the words for an undefined value that was used. */
TSR_MUST_USE tsr_status tsr_jinja_fail_undefined(tsr_jinja_run *run,
                                                 const tsr_jinja_undefined *undefined);

/* TSR_ERR_ARG when the steps are used up. */
TSR_MUST_USE tsr_status tsr_jinja_spend(tsr_jinja_run *run, size_t steps);

/* One deeper; TSR_ERR_ARG when too deep. Every success is paired with a tsr_jinja_leave. */
TSR_MUST_USE tsr_status tsr_jinja_enter(tsr_jinja_run *run);
void tsr_jinja_leave(tsr_jinja_run *run);

/* Zeroed memory for the time of the render. TSR_ERR_ARG: the template took too much. */
TSR_MUST_USE tsr_status tsr_jinja_alloc(tsr_jinja_run *run, size_t count, size_t size,
                                        void **ret_memory);

/* Appends within the bounds on output. */
TSR_MUST_USE tsr_status tsr_jinja_add(tsr_jinja_run *run, tsr_text *out, tsr_jinja_text text);
TSR_MUST_USE tsr_status tsr_jinja_add_string(tsr_jinja_run *run, tsr_text *out, const char *string);

/*
 * The end of building a text: closes `built` in any case, and when `st` is TSR_OK gives its bytes a
 * place in the arena.
 */
TSR_MUST_USE tsr_status tsr_jinja_built(tsr_jinja_run *run, tsr_status st, tsr_text *built,
                                        tsr_jinja_value *ret_value);

/* `hint` must live as long as the template. */
TSR_MUST_USE tsr_status tsr_jinja_undefined_hint(tsr_jinja_run *run, const char *hint,
                                                 tsr_jinja_value *ret_value);
TSR_MUST_USE tsr_status tsr_jinja_undefined_name(tsr_jinja_run *run, const char *owner,
                                                 tsr_jinja_text name, tsr_jinja_value *ret_value);

/* Arguments as they stand at a call. */
typedef struct tsr_jinja_args {
    const tsr_jinja_value *values; /* [count], the last `named` of them by name */
    const tsr_jinja_text *names;   /* [named] */
    size_t count;
    size_t named;
} tsr_jinja_args;

/* What a builtin gets. */
typedef struct tsr_jinja_call {
    tsr_jinja_run *run;
    tsr_jinja_value self;                   /* a method's object, a filter's or test's input */
    tsr_jinja_value slots[TSR_JINJA_SLOTS]; /* by parameter; TSR_JINJA_MISSING where not given */
    const tsr_jinja_args *args;             /* for builtins that take any */
} tsr_jinja_call;

typedef tsr_status (*tsr_jinja_function)(tsr_jinja_call *call, tsr_jinja_value *ret_value);

enum { TSR_JINJA_ANY = 255 };

/* A row of a table of filters, tests, methods or functions. */
struct tsr_jinja_builtin {
    const char *name;
    tsr_jinja_function function;
    uint8_t required;
    uint8_t count;                      /* of parameters, or TSR_JINJA_ANY */
    const char *names[TSR_JINJA_SLOTS]; /* "" for one that takes no name */
};

TSR_MUST_USE tsr_status tsr_jinja_builtin_call(tsr_jinja_run *run, const tsr_jinja_builtin *builtin,
                                               tsr_jinja_value self, const tsr_jinja_args *args,
                                               tsr_jinja_value *ret_value);

/* Calls whatever can be called. */
TSR_MUST_USE tsr_status tsr_jinja_value_call(tsr_jinja_run *run, tsr_jinja_value callee,
                                             const tsr_jinja_args *args,
                                             tsr_jinja_value *ret_value);

/* NULL when there is none of that name. */
const tsr_jinja_builtin *tsr_jinja_find_filter(tsr_jinja_text name);
const tsr_jinja_builtin *tsr_jinja_find_test(tsr_jinja_text name);
const tsr_jinja_builtin *tsr_jinja_find_global(tsr_jinja_text name);
const tsr_jinja_builtin *tsr_jinja_find_text_method(tsr_jinja_text name);
const tsr_jinja_builtin *tsr_jinja_find_dict_method(tsr_jinja_text name);
const tsr_jinja_builtin *tsr_jinja_find_list_method(tsr_jinja_text name);

/* Parts of the filter table that have files of their own. */
extern const tsr_jinja_builtin tsr_jinja_text_filters[];
extern const tsr_jinja_builtin tsr_jinja_sequence_filters[];
extern const tsr_jinja_builtin tsr_jinja_select_filters[];

/* The row with that name in a table that ends with a NULL name. */
const tsr_jinja_builtin *tsr_jinja_find_row(const tsr_jinja_builtin *rows, tsr_jinja_text name);

/* value.name and value[key], as the sandbox resolves them; what is not there is undefined. */
TSR_MUST_USE tsr_status tsr_jinja_attribute(tsr_jinja_run *run, tsr_jinja_value value,
                                            tsr_jinja_text name, tsr_jinja_value *ret_value);
TSR_MUST_USE tsr_status tsr_jinja_item(tsr_jinja_run *run, tsr_jinja_value value,
                                       tsr_jinja_value key, tsr_jinja_value *ret_value);

/* value[from:to:step]; what is not given is none. */
typedef struct tsr_jinja_slice {
    tsr_jinja_value from, to, step;
} tsr_jinja_slice;
TSR_MUST_USE tsr_status tsr_jinja_slice_of(tsr_jinja_run *run, tsr_jinja_value value,
                                           const tsr_jinja_slice *slice,
                                           tsr_jinja_value *ret_value);

/* Operators. */
TSR_MUST_USE tsr_status tsr_jinja_binary(tsr_jinja_run *run, tsr_jinja_operator op,
                                         const tsr_jinja_value *sides, tsr_jinja_value *ret_value);
TSR_MUST_USE tsr_status tsr_jinja_unary(tsr_jinja_run *run, tsr_jinja_operator op,
                                        tsr_jinja_value operand, tsr_jinja_value *ret_value);
TSR_MUST_USE tsr_status tsr_jinja_compare(tsr_jinja_run *run, tsr_jinja_operator op,
                                          tsr_jinja_value a, tsr_jinja_value b, bool *ret_holds);
TSR_MUST_USE tsr_status tsr_jinja_contains(tsr_jinja_run *run, tsr_jinja_value container,
                                           tsr_jinja_value item, bool *ret_contains);

/* & < > ' " as Markup.escape writes them, appended. */
TSR_MUST_USE tsr_status tsr_jinja_escape(tsr_jinja_run *run, tsr_jinja_text text, tsr_text *out);

/* The interpreter. */
TSR_MUST_USE tsr_status tsr_jinja_eval(tsr_jinja_run *run, const tsr_jinja_node *node,
                                       tsr_jinja_value *ret_value);
TSR_MUST_USE tsr_status tsr_jinja_eval_args(tsr_jinja_run *run, const tsr_jinja_node *node,
                                            tsr_jinja_args *ret_args);
TSR_MUST_USE tsr_status tsr_jinja_exec(tsr_jinja_run *run, const tsr_jinja_node *node);
TSR_MUST_USE tsr_status tsr_jinja_exec_for(tsr_jinja_run *run, const tsr_jinja_node *node);
TSR_MUST_USE tsr_status tsr_jinja_assign(tsr_jinja_run *run, const tsr_jinja_node *target,
                                         tsr_jinja_value value);
TSR_MUST_USE tsr_status tsr_jinja_scope_new(tsr_jinja_run *run, tsr_jinja_scope *outer,
                                            tsr_jinja_scope **ret_scope);
TSR_MUST_USE tsr_status tsr_jinja_scope_set(tsr_jinja_run *run, tsr_jinja_scope *scope,
                                            tsr_jinja_text name, tsr_jinja_value value);

/* Forgets the variables of a scope, so that a loop's rounds share their memory. */
void tsr_jinja_scope_clear(tsr_jinja_run *run, tsr_jinja_scope *scope);

/* Runs a body whose output becomes a text. */
TSR_MUST_USE tsr_status tsr_jinja_capture(tsr_jinja_run *run, const tsr_jinja_node *body,
                                          tsr_jinja_scope *scope, tsr_jinja_value *ret_value);

/* A macro together with the variables around it. */
struct tsr_jinja_macro {
    const tsr_jinja_node *node;
    tsr_jinja_scope *scope;
};
TSR_MUST_USE tsr_status tsr_jinja_macro_call(tsr_jinja_run *run, const tsr_jinja_macro *macro,
                                             const tsr_jinja_args *args,
                                             tsr_jinja_value *ret_value);

/* loop.index and friends. False in *ret_known when a loop has no such attribute. */
TSR_MUST_USE tsr_status tsr_jinja_loop_attribute(tsr_jinja_run *run, tsr_jinja_loop *loop,
                                                 tsr_jinja_text name, bool *ret_known,
                                                 tsr_jinja_value *ret_value);

#endif
