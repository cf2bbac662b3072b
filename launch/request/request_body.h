/*
 * The body of an OpenAI request, read into what the engine wants. Every parameter is a row of one
 * table (request_fields.c): served, ignored, or legal only where it asks for nothing. Shared by
 * the batch file and whoever else speaks this dialect.
 */
#ifndef TSR_LAUNCH_REQUEST_REQUEST_BODY_H
#define TSR_LAUNCH_REQUEST_REQUEST_BODY_H

#include "launch/request/generation.h"

typedef enum tsr_body_kind {
    TSR_BODY_BY_CONTENT, /* messages: chat; prompt: completion */
    TSR_BODY_CHAT,
    TSR_BODY_COMPLETION,
} tsr_body_kind;

/*
 * TSR_ERR_ARG     *ret_refusal says why
 * TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_request_body_read(const json_t *body, tsr_body_kind kind,
                                              const tsr_request_context *context,
                                              tsr_generation *ret_generation,
                                              tsr_refusal *ret_refusal);

#endif
