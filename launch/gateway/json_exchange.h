/* JSON in a request and in its answer. */
#ifndef TSR_LAUNCH_GATEWAY_JSON_EXCHANGE_H
#define TSR_LAUNCH_GATEWAY_JSON_EXCHANGE_H

#include "launch/http/http_server.h"
#include "launch/http/json_text.h"

/* The body as JSON, an object; NULL: the request was answered. */
json_t *tsr_exchange_read_json(tsr_http_exchange *exchange);

/* Answers with JSON and closes it. */
void tsr_exchange_reply_json(tsr_http_exchange *exchange, int status, tsr_json_text *json);

#endif
