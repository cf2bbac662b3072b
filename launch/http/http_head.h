/*
 * The head of an HTTP/1.1 request: request line and header fields, as RFC 9112 has them and no
 * looser. What two readers of the same bytes could take for two requests (folded lines, two lengths,
 * a length beside chunks) is refused.
 */
#ifndef TSR_LAUNCH_HTTP_HTTP_HEAD_H
#define TSR_LAUNCH_HTTP_HTTP_HEAD_H

#include "launch/request/refusal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TSR_HTTP_MAX_HEAD_BYTES = 64 << 10, TSR_HTTP_MAX_FIELDS = 128 };

typedef enum tsr_http_method {
    TSR_HTTP_OTHER,
    TSR_HTTP_GET = 1,
    TSR_HTTP_HEAD = 2,
    TSR_HTTP_POST = 4,
    TSR_HTTP_OPTIONS = 8,
} tsr_http_method;

/* Texts point into the bytes that were parsed. Fields that were not sent are NULL. */
typedef struct tsr_http_head {
    tsr_http_method method;
    const char *method_name;
    const char *path;  /* begins with a slash; %xx decoded */
    const char *query; /* behind the question mark, as it was sent; "" */
    const char *content_type;
    const char *authorization;
    const char *api_key;
    const char *request_id;
    const char *origin;
    const char *host;
    uint64_t length; /* bytes of a body that is not chunked */
    bool chunked;
    bool keep_alive;
    bool old; /* HTTP/1.0: knows no chunks */
    bool expects_continue;
} tsr_http_head;

/*
 * Parses a whole head, writing into it.
 *
 * TSR_ERR_ARG  *ret_refusal says what is wrong, with the status to answer: 400, 417, 431, 501, 505
 */
TSR_MUST_USE tsr_status tsr_http_head_parse(char *bytes, size_t count, tsr_http_head *ret_head,
                                            tsr_refusal *ret_refusal);

#endif
