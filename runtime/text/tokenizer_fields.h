/* What may stand in tokenizer.json. Private to the tokenizer. */
#ifndef TSR_RUNTIME_TEXT_TOKENIZER_FIELDS_H
#define TSR_RUNTIME_TEXT_TOKENIZER_FIELDS_H

#include "runtime/base/problems.h"

#include <jansson.h>

/* Adds a warning for every field that no table has. What is read is checked by its reader. */
void tsr_tokenizer_fields_warn(const char *path, const json_t *file, tsr_problems *problems);

#endif
