/* What a process needs that reads requests and writes their answers: tokenizer, chat template and
 * the defaults of sampling, from the files of a checkpoint and the command line. */
#ifndef TSR_LAUNCH_REQUEST_TEXT_SIDE_H
#define TSR_LAUNCH_REQUEST_TEXT_SIDE_H

#include "launch/cli/config.h"
#include "launch/request/generation.h"
#include "runtime/text/guide_maker.h"

typedef struct tsr_text_side {
    char *model_name; /* the folder's last part */
    tsr_tokenizer *tokenizer;
    tsr_chat_template *chat_template; /* NULL: chat is refused */
    json_t *template_kwargs;
    json_t *unknown_fields;       /* of requests, named once each */
    tsr_request_context context;  /* of the above; max_model_len is not known yet */
    tsr_guide_maker *guide_maker; /* NULL: none so far */
    tsr_guides guides;
    int32_t eos; /* that the tokenizer's configuration names, -1: none */
} tsr_text_side;

/*
 * `file` is what generation_config.json says. With `chat` there must be a template that can be
 * followed. Zero-initialise; close always.
 *
 * TSR_ERR_ARG, TSR_ERR_CHECKPOINT, logged; TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_text_side_open(const tsr_config *config, const char *folder,
                                           const tsr_generation_defaults *file, bool chat,
                                           tsr_text_side *side);

/* Once there is a plan. */
void tsr_text_side_set_length(tsr_text_side *side, int32_t max_model_len);

/* Guides over the tokenizer, for a model of so many ids. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_text_side_open_guides(tsr_text_side *side, int32_t vocab);

void tsr_text_side_close(tsr_text_side *side);

#endif
