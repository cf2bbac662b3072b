/* A generation: what one request asks for, in ids and numbers, whoever read it. */
#ifndef TSR_LAUNCH_REQUEST_GENERATION_H
#define TSR_LAUNCH_REQUEST_GENERATION_H

#include "launch/request/refusal.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/engine/engine.h"
#include "runtime/text/chat_template.h"
#include "runtime/text/tokenizer.h"

#include <jansson.h>

/* What a body is read against; borrowed. */
typedef struct tsr_request_context {
    const tsr_tokenizer *tokenizer;
    const tsr_chat_template *chat_template; /* NULL: chat is refused */
    const json_t *template_kwargs;          /* object or NULL */
    tsr_generation_defaults generation;     /* for parameters the body leaves out */
    int32_t max_model_len;
    size_t
        max_prompt_bytes; /* a longer text cannot fit; tsr_request_prompt_most_bytes. 0: any may */
    json_t *unknown; /* object: names of fields that were said not to be known; NULL: say nothing */
} tsr_request_context;

/* One request, possibly of several prompts. Owns what it points to. */
enum { TSR_PROMPT_END_BYTES = 64 };

typedef struct tsr_generation {
    bool chat;
    tsr_answer_style answer_style;         /* of chat */
    json_t *tools;                         /* that may be called; NULL: none */
    char prompt_end[TSR_PROMPT_END_BYTES]; /* of chat: the last bytes of its prompt */
    size_t prompt_end_bytes;
    tsr_ids *prompts; /* [prompt_count], none empty */
    size_t prompt_count;
    tsr_request request; /* sampling and limits; id and prompt are per prompt */
    char **stops;        /* [stop_count] */
    size_t stop_count;
    bool add_special; /* what the tokenizer puts around a text of its own */
    bool include_stop;
    bool skip_special;
    bool logprobs;  /* of each token, with request.top others */
    bool echo;      /* the prompt stands in front of its answers */
    int32_t copies; /* answers to each prompt that are made ... */
    int32_t kept;   /* ... and given: the most probable of them, a token */
    int32_t
        prompt_top; /* of each token of the prompt so many others are told beside it; -1: nothing
                           is told of the prompt */
} tsr_generation;

void tsr_generation_close(tsr_generation *generation);

#endif
