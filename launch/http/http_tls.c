/* Built with -DTSR_TLS=ON; http_tls_none.c stands in where it is off. */
#include "launch/http/http_tls.h"

#include "runtime/base/log.h"

#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>

struct tsr_http_tls {
    SSL_CTX *context;
};

static tsr_status refuse_file(const char *option, const char *file)
{
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    tsr_log(TSR_LOG_ERROR, "%s %s: %s", option, file, why != NULL ? why : "cannot be used");
    ERR_clear_error();
    return TSR_ERR_ARG;
}

tsr_status tsr_http_tls_open(const char *certfile, const char *keyfile, tsr_http_tls **ret_tls)
{
    tsr_http_tls *tls = calloc(1, sizeof(*tls));
    if (tls == NULL)
        return TSR_ERR_MEMORY;

    tsr_status st = TSR_OK;
    tls->context = SSL_CTX_new(TLS_server_method());
    if (tls->context == NULL || SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION) != 1)
        st = TSR_ERR_MEMORY;
    if (st == TSR_OK && SSL_CTX_use_certificate_chain_file(tls->context, certfile) != 1)
        st = refuse_file("--ssl-certfile", certfile);
    if (st == TSR_OK &&
        (SSL_CTX_use_PrivateKey_file(tls->context, keyfile, SSL_FILETYPE_PEM) != 1 ||
         SSL_CTX_check_private_key(tls->context) != 1))
        st = refuse_file("--ssl-keyfile", keyfile);
    if (st != TSR_OK) {
        tsr_http_tls_close(tls);
        return st;
    }
    (void)SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    *ret_tls = tls;
    return TSR_OK;
}

struct bufferevent *tsr_http_tls_stream(tsr_http_tls *tls, struct event_base *base, int fd)
{
    SSL *ssl = SSL_new(tls->context);
    if (ssl == NULL)
        return NULL;

    struct bufferevent *stream = bufferevent_openssl_socket_new(
        base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    if (stream == NULL)
        SSL_free(ssl);
    else
        bufferevent_openssl_set_allow_dirty_shutdown(stream, 1);
    return stream;
}

void tsr_http_tls_end(struct bufferevent *stream)
{
    SSL *ssl = bufferevent_openssl_get_ssl(stream);
    (void)SSL_shutdown(ssl);
}

void tsr_http_tls_close(tsr_http_tls *tls)
{
    if (tls == NULL)
        return;
    SSL_CTX_free(tls->context);
    free(tls);
}
