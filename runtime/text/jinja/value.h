/*
 * What a template computes with: the values of Python that templates meet, with Python's rules.
 *
 *     value  kind + union ──► text   bytes of the arena, the source or the caller's JSON
 *                         ──► list   list, tuple, range, dict views, generators
 *                         ──► dict   pairs in insertion order; also a namespace's attributes
 *                         ──► macro, loop, builtin function, method bound to a value
 *
 * Values live as long as the render they belong to (constants: as long as the template).
 */
#ifndef TSR_RUNTIME_TEXT_JINJA_VALUE_H
#define TSR_RUNTIME_TEXT_JINJA_VALUE_H

#include "runtime/text/jinja/unicode.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_jinja_run tsr_jinja_run;
typedef struct tsr_jinja_value tsr_jinja_value;
typedef struct tsr_jinja_list tsr_jinja_list;
typedef struct tsr_jinja_dict tsr_jinja_dict;
typedef struct tsr_jinja_loop tsr_jinja_loop;
typedef struct tsr_jinja_macro tsr_jinja_macro;
typedef struct tsr_jinja_method tsr_jinja_method;
typedef struct tsr_jinja_builtin tsr_jinja_builtin;

typedef enum tsr_jinja_kind {
    TSR_JINJA_MISSING, /* an argument not given, a name not set; never seen by a template */
    TSR_JINJA_UNDEFINED,
    TSR_JINJA_NONE,
    TSR_JINJA_BOOL,
    TSR_JINJA_INT,
    TSR_JINJA_FLOAT,
    TSR_JINJA_TEXT,
    TSR_JINJA_LIST,
    TSR_JINJA_DICT,
    TSR_JINJA_NAMESPACE,
    TSR_JINJA_MACRO,
    TSR_JINJA_LOOP,
    TSR_JINJA_METHOD,
    TSR_JINJA_FUNCTION,
} tsr_jinja_kind;

/* Why a value is undefined, put into words only when somebody uses it. */
typedef struct tsr_jinja_undefined {
    const char *owner; /* type the attribute was missing on; NULL for a variable */
    const char *hint;  /* the whole message; NULL when it is made of the other two */
    tsr_jinja_text name;
} tsr_jinja_undefined;

struct tsr_jinja_value {
    tsr_jinja_kind kind;
    bool safe; /* text that went through `safe` or `escape` (Markup): what is added gets escaped */
    union {
        bool truth;
        int64_t integer;
        double number;
        tsr_jinja_text text;
        const tsr_jinja_undefined *undefined;
        tsr_jinja_list *list;
        tsr_jinja_dict *dict; /* also a namespace's */
        const tsr_jinja_macro *macro;
        tsr_jinja_loop *loop;
        const tsr_jinja_method *method;
        const tsr_jinja_builtin *function;
    } as;
};

typedef enum tsr_jinja_list_kind {
    TSR_JINJA_PLAIN_LIST,
    TSR_JINJA_TUPLE,
    TSR_JINJA_RANGE,
    TSR_JINJA_KEYS,
    TSR_JINJA_VALUES,
    TSR_JINJA_ITEMS,
    TSR_JINJA_GENERATOR, /* what was read once is gone */
} tsr_jinja_list_kind;

struct tsr_jinja_list {
    tsr_jinja_list_kind kind;
    tsr_jinja_value *items; /* [count] */
    size_t count;
    int64_t start, stop, step; /* of a range */
};

typedef struct tsr_jinja_pair {
    tsr_jinja_value key, value;
} tsr_jinja_pair;

struct tsr_jinja_dict {
    tsr_jinja_pair *pairs; /* [count] */
    size_t count;
    size_t capacity;
};

struct tsr_jinja_method {
    tsr_jinja_value self;
    const tsr_jinja_builtin *builtin;
};

tsr_jinja_value tsr_jinja_none(void);
tsr_jinja_value tsr_jinja_bool(bool truth);
tsr_jinja_value tsr_jinja_int(int64_t integer);
tsr_jinja_value tsr_jinja_float(double number);
tsr_jinja_value tsr_jinja_text_value(tsr_jinja_text text);
tsr_jinja_value tsr_jinja_list_value(tsr_jinja_list *list);

bool tsr_jinja_is_text(tsr_jinja_value value);

/* A bool or an int, which Python lets stand for each other. */
bool tsr_jinja_is_whole(tsr_jinja_value value, int64_t *ret_integer);

/* A bool, int or float. */
bool tsr_jinja_is_number(tsr_jinja_value value, double *ret_number);

/* list, tuple or range: what may be subscripted by position. */
bool tsr_jinja_is_sequence(tsr_jinja_value value);

/* Python's truth. */
bool tsr_jinja_truth(tsr_jinja_value value);

/* "str", "dict", "NoneType"; never NULL. */
const char *tsr_jinja_type_name(tsr_jinja_value value);

/* True and the count written when len() works on the value. */
bool tsr_jinja_len(tsr_jinja_value value, size_t *ret_length);

/* A new list with room for `count` items, all zero. */
TSR_MUST_USE tsr_status tsr_jinja_list_new(tsr_jinja_run *run, tsr_jinja_list_kind kind,
                                           size_t count, tsr_jinja_list **ret_list);
TSR_MUST_USE tsr_status tsr_jinja_tuple_of_two(tsr_jinja_run *run, tsr_jinja_value first,
                                               tsr_jinja_value second, tsr_jinja_value *ret_value);
TSR_MUST_USE tsr_status tsr_jinja_dict_new(tsr_jinja_run *run, size_t capacity,
                                           tsr_jinja_dict **ret_dict);

/* NULL in *ret_found when the key is not there. TSR_ERR_ARG: unhashable. */
TSR_MUST_USE tsr_status tsr_jinja_dict_find(tsr_jinja_run *run, const tsr_jinja_dict *dict,
                                            tsr_jinja_value key, tsr_jinja_pair **ret_found);

/* NULL when there is no such text key. */
const tsr_jinja_value *tsr_jinja_dict_get(const tsr_jinja_dict *dict, tsr_jinja_text key);

/* Replaces the value of an equal key, else appends. */
TSR_MUST_USE tsr_status tsr_jinja_dict_put(tsr_jinja_run *run, tsr_jinja_dict *dict,
                                           tsr_jinja_value key, tsr_jinja_value value);

/* The three views of a dict. */
TSR_MUST_USE tsr_status tsr_jinja_dict_view(tsr_jinja_run *run, const tsr_jinja_dict *dict,
                                            tsr_jinja_list_kind kind, tsr_jinja_value *ret_value);

/* Python's == and <; the latter is TSR_ERR_ARG for types that have no order. */
TSR_MUST_USE tsr_status tsr_jinja_equal(tsr_jinja_run *run, tsr_jinja_value a, tsr_jinja_value b,
                                        bool *ret_equal);
TSR_MUST_USE tsr_status tsr_jinja_less(tsr_jinja_run *run, tsr_jinja_value a, tsr_jinja_value b,
                                       bool *ret_less);

/* What iterating gives, as a list of its own (not to be written to). A generator is empty after. */
TSR_MUST_USE tsr_status tsr_jinja_iterate(tsr_jinja_run *run, tsr_jinja_value value,
                                          tsr_jinja_list *ret_items);

/* Python's str() and repr(), appended. */
TSR_MUST_USE tsr_status tsr_jinja_print(tsr_jinja_run *run, tsr_jinja_value value, tsr_text *out);
TSR_MUST_USE tsr_status tsr_jinja_print_quoted(tsr_jinja_run *run, tsr_jinja_value value,
                                               tsr_text *out);

/* str() as a view; text stays where it is. */
TSR_MUST_USE tsr_status tsr_jinja_to_text(tsr_jinja_run *run, tsr_jinja_value value,
                                          tsr_jinja_text *ret_text);

/* What json.dumps takes. */
typedef struct tsr_jinja_json_options {
    bool ascii;            /* ensure_ascii */
    bool sort;             /* sort_keys */
    bool pretty;           /* an indent was given */
    tsr_jinja_text indent; /* of one level */
    tsr_jinja_text item;   /* separators */
    tsr_jinja_text key;
} tsr_jinja_json_options;
TSR_MUST_USE tsr_status tsr_jinja_json(tsr_jinja_run *run, tsr_jinja_value value,
                                       const tsr_jinja_json_options *options, tsr_text *out);

/* repr() of a float: the shortest digits that read back the same. `into` holds 32 bytes. */
size_t tsr_jinja_float_text(double number, char *into);

/* float() and int() of a text; false when Python would raise ValueError. */
bool tsr_jinja_read_float(tsr_jinja_text text, double *ret_number);

typedef enum tsr_jinja_reading {
    TSR_JINJA_READ,
    TSR_JINJA_NOT_A_NUMBER,
    TSR_JINJA_BEYOND_64_BITS,
} tsr_jinja_reading;
tsr_jinja_reading tsr_jinja_read_int(tsr_jinja_text text, int base, int64_t *ret_integer);

#endif
