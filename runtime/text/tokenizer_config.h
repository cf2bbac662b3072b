/*
 * tokenizer_config.json: what it says beside tokenizer.json about ids. Its chat template is
 * chat_template.h's.
 */
#ifndef TSR_RUNTIME_TEXT_TOKENIZER_CONFIG_H
#define TSR_RUNTIME_TEXT_TOKENIZER_CONFIG_H

#include "runtime/base/problems.h"
#include "runtime/base/status.h"
#include "runtime/text/tokenizer.h"

/*
 * Reads FOLDER/tokenizer_config.json, if there is one: what would change ids and is not served is
 * refused, tokens that tokenizer.json does not have too.
 *
 *   ret_eos  the id of its eos_token, which ends an answer; -1: it names none
 *
 * TSR_ERR_CHECKPOINT, said in `problems`
 */
TSR_MUST_USE tsr_status tsr_tokenizer_config_read(const char *folder,
                                                  const tsr_tokenizer *tokenizer,
                                                  tsr_problems *problems, int32_t *ret_eos);

#endif
