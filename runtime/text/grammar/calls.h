/* Calls of tools as a model writes them (answer_parser.h), as parts of a program. */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_CALLS_H
#define TSR_RUNTIME_TEXT_GRAMMAR_CALLS_H

#include "runtime/text/answer_parser.h"
#include "runtime/text/grammar/json_parts.h"

/* What may be called. */
typedef struct tsr_call_choice {
    tsr_call_style style;
    const json_t *tools; /* [n] of {"name", "parameters"} */
    bool many;           /* one call after another, else one alone */
} tsr_call_choice;

/*
 * At least one call, with arguments that satisfy the tool's parameters. Where a model writes
 * arguments as bare text, a parameter that is a string has no other constraint than enum or const.
 */
int32_t tsr_calls_of(tsr_json_parts *parts, const tsr_call_choice *choice, int32_t next);

/* Any text that has no `tag` in it, then the tag. */
int32_t tsr_text_until(tsr_json_parts *parts, const char *tag, int32_t next);

#endif
