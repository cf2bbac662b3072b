/* TLS by OpenSSL: the certificate of a server, and streams of bytes over it. Where the build has none,
 * opening says so. */
#ifndef TSR_LAUNCH_HTTP_HTTP_TLS_H
#define TSR_LAUNCH_HTTP_HTTP_TLS_H

#include "runtime/base/status.h"

struct bufferevent;
struct event_base;
typedef struct tsr_http_tls tsr_http_tls;

/* TLS 1.2 and above. TSR_ERR_ARG, logged: a file cannot be read, or key and certificate do not belong
 * together. */
TSR_MUST_USE tsr_status tsr_http_tls_open(const char *certfile, const char *keyfile,
                                          tsr_http_tls **ret_tls);

/* A stream over an accepted socket, which it owns; NULL where there is no memory. */
struct bufferevent *tsr_http_tls_stream(tsr_http_tls *tls, struct event_base *base, int fd);

/* Tells the client that nothing more comes. */
void tsr_http_tls_end(struct bufferevent *stream);

/* NULL is allowed. */
void tsr_http_tls_close(tsr_http_tls *tls);

#endif
