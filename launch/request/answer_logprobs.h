/*
 * How probable the tokens of one answer were, as they come, and as OpenAI's API spells it. Shared by
 * the batch file and whoever else answers in this dialect.
 *
 *   echo      | first of the prompt, unknown | rest of the prompt |
 *   always                                                        | outputs ... |
 */
#ifndef TSR_LAUNCH_REQUEST_ANSWER_LOGPROBS_H
#define TSR_LAUNCH_REQUEST_ANSWER_LOGPROBS_H

#include "runtime/engine/request.h"
#include "runtime/text/tokenizer.h"

#include <jansson.h>

/* Zero-initialise but for top_count; close always. */
typedef struct tsr_logprob_list {
    tsr_token_logprob *token; /* [count] */
    tsr_token_logprob *top;   /* [count, top_count] */
    size_t count;
    size_t capacity;
    size_t told;            /* tokens */
    size_t told_characters; /* of a completion */
    int32_t top_count;
    bool first_is_unknown; /* nothing stands before token[0] */
} tsr_logprob_list;

/* Adds the first token of a prompt. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_logprobs_add_first(tsr_logprob_list *list, int32_t token);

/* Adds tokens; `top` may be NULL where top_count is 0. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_logprobs_add(tsr_logprob_list *list, const tsr_token_logprob *token,
                                         const tsr_token_logprob *top, int32_t count);

/*
 * The tokens that were not told yet, as a completion's logprobs or a chat's: all of them, or those of
 * a piece of a stream. NULL: no memory.
 *
 * A completion's top_logprobs hold the token too; of ids that are the same text the more probable
 * stands there, and numbers are the same text wherever they stand.
 */
json_t *tsr_logprobs_completion(tsr_logprob_list *list, const tsr_tokenizer *tokenizer);
json_t *tsr_logprobs_chat(tsr_logprob_list *list, const tsr_tokenizer *tokenizer);

/* All of a prompt as vLLM spells it: null for the first, then {id: {logprob, rank, decoded_token}} of the
 * token and of the top_count others. Where a token is less probable than these its rank is null. */
json_t *tsr_logprobs_prompt(const tsr_logprob_list *list, const tsr_tokenizer *tokenizer);

void tsr_logprobs_close(tsr_logprob_list *list);

#endif
