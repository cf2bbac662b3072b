/*
 * A program, run byte by byte. What it may be doing is a set of places, each a node and what is open
 * above it; sets are kept once met, as states, and so are their successors:
 *
 *   state 7   { (node 12, open: 4 <- 9), (node 31, open: none) }      after 'a': 9    after '"': nothing
 *
 * So a state's first byte costs a walk through the program, every later one a look into a table.
 * Memory is taken when it is opened. When that is full, the automaton forgets all states but one, and
 * others from before are void: whoever has one replays what led to it (tsr_automaton_age).
 */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_AUTOMATON_H
#define TSR_RUNTIME_TEXT_GRAMMAR_AUTOMATON_H

#include "runtime/text/grammar/program.h"

typedef struct tsr_automaton tsr_automaton;

/* States. */
enum {
    TSR_STATE_NONE = 0, /* nothing goes on from here */
    TSR_STATE_FULL = -1 /* there is no room, or it took too long; see tsr_automaton_reset */
};

/* What stands in a state beside its successors. */
typedef struct tsr_state_facts {
    int32_t
        room; /* of a string, so many plain characters may come; TSR_GRAMMAR_ENDLESS: any number;
                     0: it may be in none */
    bool may_end; /* what has come is whole */
    bool goes_on; /* more may come */
} tsr_state_facts;

/* `program` is borrowed. TSR_ERR_MEMORY; TSR_ERR_CAPACITY: its beginning is more than there is room
 * for */
TSR_MUST_USE tsr_status tsr_automaton_open(const tsr_grammar_program *program,
                                           tsr_automaton **ret_automaton);

/* Where it begins. */
int32_t tsr_automaton_start(const tsr_automaton *automaton);

/* The state behind a byte; TSR_STATE_NONE and TSR_STATE_FULL lead to themselves. */
int32_t tsr_automaton_next(tsr_automaton *automaton, int32_t state, unsigned char byte);

/* From here on it may take so much time as is reasonable for one token: about 50 ms. */
void tsr_automaton_rest(tsr_automaton *automaton);

tsr_state_facts tsr_automaton_facts(const tsr_automaton *automaton, int32_t state);

/* Forgets all states but the first and `kept`, whose new number it returns. */
int32_t tsr_automaton_reset(tsr_automaton *automaton, int32_t kept);

/* How often it was reset: what makes states of another age void. */
uint64_t tsr_automaton_age(const tsr_automaton *automaton);

/* NULL is allowed. */
void tsr_automaton_close(tsr_automaton *automaton);

#endif
