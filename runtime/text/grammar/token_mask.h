/* Tokens that an automaton can go on with, as bits. Those of a state are kept for a while. */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_TOKEN_MASK_H
#define TSR_RUNTIME_TEXT_GRAMMAR_TOKEN_MASK_H

#include "runtime/text/grammar/automaton.h"
#include "runtime/text/grammar/token_table.h"

typedef struct tsr_token_masks tsr_token_masks;

/* Both are borrowed. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_token_masks_open(const tsr_token_table *table, tsr_automaton *automaton,
                                             tsr_token_masks **ret_masks);

/*
 * *state becomes its new number where the automaton had to forget others.
 *
 *   bits  [table.words] of all tokens that may come
 *
 * False: the tokens behind this state take more states than there is room for.
 */
bool tsr_token_masks_find(tsr_token_masks *masks, int32_t *state, uint32_t *bits);

/* NULL is allowed. */
void tsr_token_masks_close(tsr_token_masks *masks);

#endif
