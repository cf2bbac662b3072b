/*
 * A grammar as a program over bytes: a graph of nodes that call each other.
 *
 *   SET    one byte of a set, then next          SPLIT   next or other
 *   CALL   routine, then next                    RETURN  to whoever called; the end where nobody did
 *
 *   { "a": [ ... ] }     -> '{' -> CALL space -> '"' 'a' '"' ':' -> ... -> '}' -> RETURN
 *
 * It is built from its end to its beginning: whatever is added is told the node that follows. A call
 * returns to a node, so what is open is a stack, and there is no limit to nesting but the one below.
 */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_PROGRAM_H
#define TSR_RUNTIME_TEXT_GRAMMAR_PROGRAM_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TSR_GRAMMAR_NODES = 1 << 17, /* most of a program */
    TSR_GRAMMAR_SETS = 4096,
    TSR_GRAMMAR_ROUTINES = 4096,
    TSR_GRAMMAR_DEPTH = 192,    /* calls that may be open */
    TSR_GRAMMAR_REFUSAL = 512,  /* bytes of a line that says what is wrong with one */
    TSR_GRAMMAR_ENDLESS = 65535 /* see room */
};

typedef enum tsr_grammar_op {
    TSR_OP_RETURN,
    TSR_OP_NEVER, /* nothing goes on here */
    TSR_OP_SET,
    TSR_OP_SPLIT,
    TSR_OP_CALL,
} tsr_grammar_op;

typedef struct tsr_grammar_node {
    uint8_t op;
    uint8_t need;  /* calls that an ending from here opens at least; above TSR_GRAMMAR_DEPTH: there
                       is none */
    uint16_t room; /* of a SET: so many plain characters of a string may come, this one the first;
                       0: it is of no string */
    int32_t index; /* of the set, or of the routine */
    int32_t next;
    int32_t other;
} tsr_grammar_node;

/* The 256 bits of a set of bytes. */
typedef struct tsr_byte_set {
    uint32_t bits[8];
} tsr_byte_set;

/* Zero-initialise and begin; what goes wrong sticks, and every call after it does nothing. */
typedef struct tsr_grammar_program {
    tsr_grammar_node *nodes; /* [count] */
    tsr_byte_set *sets;      /* [set_count] */
    int32_t *by_set;   /* [2 * TSR_GRAMMAR_SETS] hash table of sets, 1 more than each; 0: free */
    int32_t *routines; /* [routine_count] where each begins */
    int32_t count;
    int32_t node_room;
    int32_t set_count;
    int32_t routine_count;
    int32_t start;
    tsr_status status;                 /* TSR_ERR_ARG: see refusal */
    char refusal[TSR_GRAMMAR_REFUSAL]; /* one line */
} tsr_grammar_program;

/* The nodes that every program has. */
enum { TSR_NODE_RETURN = 0, TSR_NODE_NEVER = 1 };

void tsr_program_begin(tsr_grammar_program *program);
void tsr_program_close(tsr_grammar_program *program);

/* Why it cannot be, if nothing was said before. */
__attribute__((format(printf, 2, 3))) void tsr_program_refuse(tsr_grammar_program *program,
                                                              const char *format, ...);

static inline bool tsr_byte_in(const tsr_byte_set *set, unsigned byte)
{
    return (set->bits[byte >> 5] >> (byte & 31) & 1U) != 0;
}
void tsr_byte_add(tsr_byte_set *set, unsigned first, unsigned last);

/* Each returns the new node. */
int32_t tsr_add_set(tsr_grammar_program *program, const tsr_byte_set *set, int32_t next);
int32_t tsr_add_bytes(tsr_grammar_program *program, unsigned first, unsigned last, int32_t next);
int32_t tsr_add_any_of(tsr_grammar_program *program, const char *bytes, int32_t next);
int32_t tsr_add_text(tsr_grammar_program *program, const char *text, size_t count, int32_t next);
int32_t tsr_add_word(tsr_grammar_program *program, const char *word, int32_t next);
int32_t tsr_add_split(tsr_grammar_program *program, int32_t a, int32_t b);
int32_t tsr_add_call(tsr_grammar_program *program, int32_t routine, int32_t next);

/* A node that is filled later, for what leads back to it. */
int32_t tsr_add_hole(tsr_grammar_program *program);
void tsr_fill_hole(tsr_grammar_program *program, int32_t hole, int32_t a, int32_t b);

/* A routine that is defined later, and its definition, which ends at TSR_NODE_RETURN. */
int32_t tsr_add_routine(tsr_grammar_program *program);
void tsr_define_routine(tsr_grammar_program *program, int32_t routine, int32_t start);

/* Finishes the program. TSR_ERR_ARG, TSR_ERR_MEMORY: its status */
TSR_MUST_USE tsr_status tsr_program_end(tsr_grammar_program *program, int32_t start);

#endif
