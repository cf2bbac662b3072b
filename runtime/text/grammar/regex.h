/*
 * Regular expressions, as parts of a program: what ECMAScript, Python and Rust agree upon.
 *
 *   characters, . [...] [^...] \d \w \s \D \W \S \n \t \r \f \v \xHH \uHHHH
 *   (...) (?:...) (?<name>...) | * + ? {n} {n,} {n,m}, lazy or not
 *   ^ first and $ last in an alternative of the whole
 *
 * \d, \w and \s are those of ASCII. Everything else, such as looking around, references and \p, is
 * refused by name.
 */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_REGEX_H
#define TSR_RUNTIME_TEXT_GRAMMAR_REGEX_H

#include "runtime/text/grammar/json_parts.h"
#include "runtime/text/grammar/regex_tree.h"

/* A text that the whole expression matches. */
int32_t tsr_regex_text(tsr_grammar_program *program, const char *pattern, int32_t next);

/* A JSON string, quotes included, in whose text the expression is found. */
int32_t tsr_regex_string(tsr_json_parts *parts, const char *pattern, int32_t next);

#endif
