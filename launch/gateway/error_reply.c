/* The type of an error follows from its status. Where a second try cannot help though the status is
 * one that clients try again, x-should-retry says so. */
#include "launch/gateway/error_reply.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { UNAUTHORIZED = 401, TOO_MANY = 429, INTERNAL = 500, FIELD_BYTES = 256 };

static const char *type_of(int status)
{
    if (status == UNAUTHORIZED)
        return "authentication_error";
    if (status == TOO_MANY)
        return "rate_limit_error";
    return status >= INTERNAL ? "server_error" : "invalid_request_error";
}

void tsr_error_add(tsr_json_text *json, const tsr_refusal *refusal)
{
    tsr_json_add(json, "{\"error\":{\"message\":");
    tsr_json_add_word(json, refusal->message);
    tsr_json_add(json, ",\"type\":\"%s\",\"param\":", type_of(refusal->status));
    tsr_json_add_word(json, refusal->param[0] != '\0' ? refusal->param : NULL);
    tsr_json_add(json, ",\"code\":");
    tsr_json_add_word(json, refusal->code);
    tsr_json_add(json, "}}");
}

void tsr_error_reply(tsr_http_exchange *exchange, const tsr_refusal *refusal, int32_t retry_after_s)
{
    static const char none[] =
        "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\","
        "\"param\":null,\"code\":\"out_of_memory\"}}";
    tsr_json_text json = {0};
    char fields[FIELD_BYTES] = "";

    tsr_error_add(&json, refusal);
    if (retry_after_s > 0)
        (void)snprintf(fields, sizeof(fields), "Retry-After: %d\r\n", (int)retry_after_s);
    else if (refusal->status == INTERNAL)
        (void)snprintf(fields, sizeof(fields), "x-should-retry: false\r\n");
    if (refusal->status == UNAUTHORIZED)
        (void)snprintf(fields, sizeof(fields), "WWW-Authenticate: Bearer\r\n%s",
                       exchange->head.path != NULL && strcmp(exchange->head.path, "/") == 0
                           ? "WWW-Authenticate: Basic realm=\"tessera\"\r\n"
                           : "");
    const bool good = json.status == TSR_OK;
    tsr_http_answer(exchange,
                    &(tsr_http_reply){.status = refusal->status,
                                      .type = "application/json",
                                      .headers = fields,
                                      .bytes = good ? json.text.bytes : none,
                                      .count = good ? json.text.count : sizeof(none) - 1});
    tsr_text_close(&json.text);
}

void tsr_error_say(tsr_http_exchange *exchange, int status, const char *code, const char *format,
                   ...)
{
    tsr_refusal refusal = {.code = code, .status = status};
    va_list args;

    va_start(args, format);
    (void)vsnprintf(refusal.message, sizeof(refusal.message), format, args);
    va_end(args);
    tsr_error_reply(exchange, &refusal, 0);
}
