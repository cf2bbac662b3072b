/* What an answer must be, as guide_maker.h has it, as a program. */
#ifndef TSR_RUNTIME_TEXT_GRAMMAR_GRAMMAR_H
#define TSR_RUNTIME_TEXT_GRAMMAR_GRAMMAR_H

#include "runtime/text/grammar/program.h"

#include <jansson.h>

/* Close with tsr_program_close whatever it returns. TSR_ERR_ARG: see the program's refusal;
 * TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_grammar_compile(const json_t *wanted, tsr_grammar_program *ret_program);

#endif
