/*
 * Guides by grammars over the tokens of a tokenizer. What an answer must be is a JSON object of one of
 * these members:
 *
 *   {"json": SCHEMA}                       a value that satisfies the schema (grammar/schema.h)
 *   {"json_object": true}                  any object
 *   {"choice": ["yes", "no"]}              one of these texts
 *   {"regex": "[a-z]+"}                    a text that matches (grammar/regex.h)
 *   {"calls": {"style", "tools", "many"}}  calls of tools: style 1 to 3 as tsr_call_style, tools
 *                                          [{"name", "parameters"}], many: more than one may come
 *
 * Beside it "after": "</think>" lets the answer begin freely, up to and with that; and "thinks": true
 * lets it begin with <think> and any text up to </think>, or as it must.
 *
 * Requests of the same text share one automaton, and the sets of tokens that it has found; a few that
 * nobody uses are kept.
 */
#ifndef TSR_RUNTIME_TEXT_GUIDE_MAKER_H
#define TSR_RUNTIME_TEXT_GUIDE_MAKER_H

#include "runtime/base/guides.h"
#include "runtime/text/tokenizer.h"

#include <jansson.h>

/* Bytes of the object as text. */
enum { TSR_GUIDE_MOST_BYTES = 256 * 1024 };

/*
 * Whether there is a guide for it.
 *
 *   refusal  [refusal_bytes] why there is none, one line
 *
 * TSR_ERR_ARG: see refusal; TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_guide_check(const json_t *wanted, char *refusal, size_t refusal_bytes);

typedef struct tsr_guide_maker tsr_guide_maker;

/* `ids`: the model's. `tokenizer` is borrowed. Used by one thread at a time. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_guide_maker_open(const tsr_tokenizer *tokenizer, int32_t ids,
                                             tsr_guide_maker **ret_maker);

/* Their texts are such objects. */
tsr_guides tsr_guide_maker_guides(tsr_guide_maker *maker);

/* After every guide of it. NULL is allowed. */
void tsr_guide_maker_close(tsr_guide_maker *maker);

#endif
