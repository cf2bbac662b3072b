/* Errors in the shape of OpenAI's API, with the fields of HTTP that go with each. */
#ifndef TSR_LAUNCH_GATEWAY_ERROR_REPLY_H
#define TSR_LAUNCH_GATEWAY_ERROR_REPLY_H

#include "launch/http/http_server.h"
#include "launch/http/json_text.h"
#include "launch/request/generation.h"

/* {"error":{...}} */
void tsr_error_add(tsr_json_text *json, const tsr_refusal *refusal);

/*
 * Answers with the refusal.
 *
 *   retry_after_s  0: says nothing of a second try
 */
void tsr_error_reply(tsr_http_exchange *exchange, const tsr_refusal *refusal,
                     int32_t retry_after_s);

/* The same in words of the caller's own. */
__attribute__((format(printf, 4, 5))) void tsr_error_say(tsr_http_exchange *exchange, int status,
                                                         const char *code, const char *format, ...);

#endif
