/*
 * What a body asks an answer to be: response_format, structured_outputs and the names that it had
 * before, and a tool_choice that leaves no choice. Private to request_body.c.
 */
#ifndef TSR_LAUNCH_REQUEST_REQUEST_FORM_H
#define TSR_LAUNCH_REQUEST_REQUEST_FORM_H

#include "launch/request/generation.h"

/*
 * Sets the request's guide where any of them asks for something; the generation has its prompt and
 * its tools. A call that must be made is the whole answer, whatever else is asked of what is said.
 *
 * TSR_ERR_ARG, TSR_ERR_MEMORY
 */
TSR_MUST_USE tsr_status tsr_request_form_read(const json_t *body, tsr_generation *generation,
                                              tsr_refusal *ret_refusal);

#endif
