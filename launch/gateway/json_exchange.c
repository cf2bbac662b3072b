/* A body that was read is given back at once: it may be large, and many wait. */
#include "launch/gateway/json_exchange.h"

#include "launch/gateway/error_reply.h"
#include "runtime/base/json_file.h"

enum { BAD_REQUEST = 400, UNAVAILABLE = 503 };

void tsr_exchange_reply_json(tsr_http_exchange *exchange, int status, tsr_json_text *json)
{
    if (json->status == TSR_OK)
        tsr_http_answer(exchange, &(tsr_http_reply){.status = status,
                                                    .type = "application/json",
                                                    .bytes = json->text.bytes,
                                                    .count = json->text.count});
    else
        tsr_error_say(exchange, UNAVAILABLE, "out_of_memory", "%s", tsr_status_text(json->status));
    tsr_text_close(&json->text);
}

json_t *tsr_exchange_read_json(tsr_http_exchange *exchange)
{
    json_error_t error = {0};
    json_t *body =
        tsr_json_loadb(exchange->body.bytes != NULL ? exchange->body.bytes : "",
                       exchange->body.count, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);

    /* the bytes are not looked at again, and may be many */
    tsr_text_close(&exchange->body);
    if (json_is_object(body))
        return body;
    tsr_error_say(exchange, BAD_REQUEST, "invalid_json", "the body is not a JSON object%s%s",
                  body == NULL ? ": " : "", body == NULL ? error.text : "");
    json_decref(body);
    return NULL;
}
