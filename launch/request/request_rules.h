/* What a body asks of tokens beyond temperature, top_p and top_k: penalties, biases, lists of ids and
 * words; and what is to be told of them. Private to request_body.c and request_form.c. */
#ifndef TSR_LAUNCH_REQUEST_REQUEST_RULES_H
#define TSR_LAUNCH_REQUEST_REQUEST_RULES_H

#include "launch/request/generation.h"

/* A number that a body may give. */
typedef struct tsr_body_range {
    const char *name;
    double low;
    double high;
    bool whole;
} tsr_body_range;

/* *value is left as it is when the body does not give it. TSR_ERR_ARG: it is none, or out of range */
TSR_MUST_USE tsr_status tsr_request_number(const json_t *body, const tsr_body_range *range,
                                           double *value, tsr_refusal *ret_refusal);

TSR_MUST_USE tsr_status tsr_request_flag(const json_t *body, const char *name, bool *value,
                                         tsr_refusal *ret_refusal);

/* Sets min_p and, where any rule asks for something, the generation's rules. TSR_ERR_ARG,
 * TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_request_rules_read(const json_t *body,
                                               const tsr_request_context *context,
                                               tsr_generation *generation,
                                               tsr_refusal *ret_refusal);

/* logprobs, top_logprobs, prompt_logprobs, echo, n and best_of. TSR_ERR_ARG */
TSR_MUST_USE tsr_status tsr_request_told_read(const json_t *body, tsr_generation *generation,
                                              tsr_refusal *ret_refusal);

#endif
