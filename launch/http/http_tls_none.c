/* The build has no OpenSSL: what http_tls.c does is refused by name. */
#include "launch/http/http_tls.h"

#include "runtime/base/log.h"

#include <stddef.h>

tsr_status tsr_http_tls_open(const char *certfile, const char *keyfile, tsr_http_tls **ret_tls)
{
    (void)keyfile;
    (void)ret_tls;
    tsr_log(TSR_LOG_ERROR,
            "--ssl-certfile %s: this build has no TLS: configure it with -DTSR_TLS=ON, or put a "
            "proxy in front",
            certfile);
    return TSR_ERR_ARG;
}

struct bufferevent *tsr_http_tls_stream(tsr_http_tls *tls, struct event_base *base, int fd)
{
    (void)tls;
    (void)base;
    (void)fd;
    return NULL;
}

void tsr_http_tls_end(struct bufferevent *stream)
{
    (void)stream;
}

void tsr_http_tls_close(tsr_http_tls *tls)
{
    (void)tls;
}
