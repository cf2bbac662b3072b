/*
 * What an answer must be, from a JSON object of one of these members:
 *
 *   {"json": SCHEMA}                     a value that satisfies the schema (schema.h)
 *   {"json_object": true}                any object
 *   {"choice": ["yes", "no"]}            one of these texts
 *   {"regex": "[a-z]+"}                  a text that matches (regex.h)
 *   {"calls": {"style", "tools", "many"}}  calls of tools: style 1 to 3 as tsr_call_style, tools
 *                                        [{"name", "parameters"}], many: more than one may come
 *
 * Beside it "after": "</think>" lets the answer begin freely, up to and with that.
 */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_GRAMMAR_H
#define TSR_RUNTIME_TEXT_GRAMMAR_GRAMMAR_H

#include "runtime/text/grammar/program.h"

#include <jansson.h>

/* Bytes of the object as text. */
enum { TSR_GRAMMAR_MOST_BYTES = 256 * 1024 };

/* Close with tsr_program_close whatever it returns. TSR_ERR_ARG: see the program's refusal;
 * TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_grammar_compile(const json_t *wanted, tsr_grammar_program *ret_program);

#endif
