/*
 * The gateway over the fake engine, as a process of its own:
 *
 *   fake_server LOAD_MS TOKEN_MS serve DIR [--port N ...]
 *
 * Prints "port N" when it listens. SIGTERM drains.
 */
#include "launch/gateway/gateway.h"
#include "launch/http/http_server.h"
#include "runtime/base/log.h"
#include "tests/serve/fake_engine.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static void on_signal(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    tsr_gateway_drain(context);
}

typedef struct parts {
    struct event_base *base;
    tsr_config config;
    tsr_text_side text;
    tsr_gateway *gateway;
    tsr_engine_link *link;
    struct event *term;
} parts;

static tsr_status open_parts(parts *p, int32_t load_ms, int32_t token_ms)
{
    const tsr_generation_defaults none = {0};
    int listener = -1;
    int32_t port = 0;

    tsr_status st = tsr_listen_open(p->config.host, (int32_t)p->config.port, &listener, &port);
    if (st != TSR_OK)
        return st;
    (void)printf("port %d\n", port);
    (void)fflush(stdout);
    p->base = event_base_new();
    st = tsr_text_side_open(&p->config, p->config.folder, &none, true, &p->text);
    const tsr_gateway_args args = {.base = p->base,
                                   .config = &p->config,
                                   .text = &p->text,
                                   .folder = p->config.folder,
                                   .listener = listener};
    if (st == TSR_OK)
        st = tsr_gateway_open(&args, &p->gateway);
    if (st != TSR_OK)
        return st;
    const tsr_engine_events events = tsr_gateway_events(p->gateway);
    st = fake_engine_open(p->base, &events, load_ms, token_ms, &p->link);
    tsr_gateway_attach(p->gateway, p->link);
    p->term = evsignal_new(p->base, SIGTERM, on_signal, p->gateway);
    (void)event_add(p->term, NULL);
    return st;
}

int main(int argc, char **argv)
{
    parts p = {0};

    if (argc < 4)
        return 2;
    (void)signal(SIGPIPE, SIG_IGN);
    tsr_log_set_level(TSR_LOG_WARN);
    tsr_status st = tsr_config_parse(argc - 2, argv + 2, &p.config);
    if (st == TSR_OK)
        st = open_parts(&p, (int32_t)strtol(argv[1], NULL, 10), (int32_t)strtol(argv[2], NULL, 10));
    if (st == TSR_OK)
        st = tsr_gateway_run(p.gateway);
    tsr_gateway_close(p.gateway);
    tsr_engine_link_close(p.link);
    tsr_text_side_close(&p.text);
    if (p.term != NULL)
        event_free(p.term);
    if (p.base != NULL)
        event_base_free(p.base);
    return tsr_status_exit_code(st);
}
