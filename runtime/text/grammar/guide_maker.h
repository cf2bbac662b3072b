/*
 * Guides by grammars over the tokens of a tokenizer. Requests of the same text share one automaton,
 * and the sets of tokens that it has found; a few that nobody uses are kept.
 */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_GUIDE_MAKER_H
#define TSR_RUNTIME_TEXT_GRAMMAR_GUIDE_MAKER_H

#include "runtime/base/guides.h"
#include "runtime/text/tokenizer.h"

typedef struct tsr_guide_maker tsr_guide_maker;

/* `ids`: the model's. `tokenizer` is borrowed. Used by one thread at a time. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_guide_maker_open(const tsr_tokenizer *tokenizer, int32_t ids,
                                             tsr_guide_maker **ret_maker);

/* Their texts are those of grammar.h. */
tsr_guides tsr_guide_maker_guides(tsr_guide_maker *maker);

/* After every guide of it. NULL is allowed. */
void tsr_guide_maker_close(tsr_guide_maker *maker);

#endif
