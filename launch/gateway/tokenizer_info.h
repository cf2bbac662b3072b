/* What a client must know of a tokenizer that it asks for ids instead of having it. */
#ifndef TSR_LAUNCH_GATEWAY_TOKENIZER_INFO_H
#define TSR_LAUNCH_GATEWAY_TOKENIZER_INFO_H

#include "runtime/base/status.h"

#include <jansson.h>

/*
 * FOLDER/tokenizer_config.json as one flat object: special tokens as strings, without the table of
 * added tokens; `chat_template` from its own file where there is one.
 *
 * TSR_ERR_CHECKPOINT, logged; TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_tokenizer_info_read(const char *folder, json_t **ret_info);

#endif
