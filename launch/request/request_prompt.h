/* The prompt of a request body: text, ids or messages, turned into token ids. */
#ifndef TSR_LAUNCH_REQUEST_REQUEST_PROMPT_H
#define TSR_LAUNCH_REQUEST_REQUEST_PROMPT_H

#include "launch/request/generation.h"

/* The bytes of text beyond which a prompt has more than `max_model_len` tokens, whatever it says. */
size_t tsr_request_prompt_most_bytes(const tsr_tokenizer *tokenizer, int32_t max_model_len);

/* Fills generation->prompts and prompt_count from body.prompt or body.messages. Errors as
 * tsr_request_body_read. */
TSR_MUST_USE tsr_status tsr_request_prompt_read(const json_t *body,
                                                const tsr_request_context *context,
                                                tsr_generation *generation,
                                                tsr_refusal *ret_refusal);

/* Appends what the chat template makes of body.messages. Errors as tsr_request_body_read. */
TSR_MUST_USE tsr_status tsr_request_prompt_render(const json_t *body,
                                                  const tsr_request_context *context,
                                                  tsr_text *text, tsr_refusal *ret_refusal);

#endif
