/* Every field that OpenAI's API, vLLM, SGLang, TensorRT-LLM or llama.cpp give a meaning, in one
 * table. Private to request_body.c. */
#ifndef TSR_LAUNCH_REQUEST_REQUEST_FIELDS_H
#define TSR_LAUNCH_REQUEST_REQUEST_FIELDS_H

#include "launch/request/generation.h"

/* TSR_ERR_ARG: a field asks for what is not built. Unknown fields are logged, each name once. */
TSR_MUST_USE tsr_status tsr_request_fields_check(const json_t *body,
                                                 const tsr_request_context *context,
                                                 tsr_refusal *ret_refusal);

#endif
