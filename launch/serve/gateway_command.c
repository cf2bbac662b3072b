/*
 * What ends a gateway:
 *
 *   SIGUSR1, or the first SIGTERM or SIGINT where it looks after the engine    drain
 *   SIGTERM where a launcher started both, a second signal                     now
 *   an engine that has died too often, or whose launcher does not start it again
 */
#include "launch/serve/gateway_command.h"

#include "launch/gateway/gateway.h"
#include "launch/serve/supervisor.h"
#include "runtime/base/log.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { SIGNALS = 3, MS = 1000, MINUTE_MS = 60 * MS, SILENCE_STEPS = 2, SILENCE_MORE_MS = 2000 };

typedef struct served {
    const tsr_gateway_command_args *args;
    struct event_base *base;
    tsr_text_side text;
    tsr_gateway *gateway;
    tsr_engine_link *link;
    tsr_supervisor *supervisor; /* NULL: a launcher looks after the engine */
    struct event *signals[SIGNALS];
    int code;
} served;

static void stop(served *s, int code, const char *why)
{
    s->code = code;
    tsr_engine_link_fail(s->link, TSR_ERR_PEER, why);
    tsr_gateway_stop(s->gateway, why);
}

static void on_signal(evutil_socket_t number, short what, void *context)
{
    served *s = context;
    const bool drains = number == SIGUSR1 || s->supervisor != NULL;

    (void)what;
    if (drains && !tsr_gateway_is_draining(s->gateway))
        tsr_gateway_drain(s->gateway);
    else if (number != SIGUSR1)
        tsr_gateway_stop(s->gateway, "the server was told to end");
}

static tsr_status watch_signals(served *s)
{
    static const int numbers[SIGNALS] = {SIGUSR1, SIGTERM, SIGINT};

    for (int i = 0; i < SIGNALS; i++) {
        s->signals[i] = evsignal_new(s->base, numbers[i], on_signal, s);
        if (s->signals[i] == NULL || event_add(s->signals[i], NULL) != 0)
            return TSR_ERR_MEMORY;
    }
    return TSR_OK;
}

/* The launcher's engine is gone, and nobody starts another. */
static void on_gone(void *context, bool was_ready)
{
    served *s = context;

    (void)was_ready;
    stop(s, tsr_status_exit_code(TSR_ERR_PEER), "the engine has ended");
}

static void on_over(void *context, int code, const char *why)
{
    served *s = context;

    if (code == 0)
        return;
    tsr_log(TSR_LOG_ERROR, "%s: it is not started again", why);
    stop(s, code, why);
}

static tsr_status start_engine(served *s)
{
    const tsr_config *config = s->args->config;
    const tsr_supervisor_args args = {
        .base = s->base,
        .link = s->link,
        .arguments = s->args->info->arguments,
        .hostfile = config->hostfile,
        .ranks = config->ranks > 0 ? (int32_t)config->ranks : 0,
        .restarts = (int32_t)config->restarts,
        .restart_ms = (int32_t)config->restart_minutes * MINUTE_MS,
        .silence_ms = (int32_t)config->step_timeout * MS * SILENCE_STEPS + SILENCE_MORE_MS,
        .over = on_over,
        .context = s,
    };

    if (s->args->engine_fd >= 0)
        return tsr_engine_link_attach(s->link, s->args->engine_fd, on_gone, s);
    return tsr_supervisor_open(&args, &s->supervisor);
}

static void drop_line(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)line;
}

/* Files that the engine would refuse too are refused here, before anything is started. One that was
 * started already says what is wrong with them itself. */
static tsr_status open_text(served *s)
{
    const char *folder = s->args->config->folder;
    tsr_problems problems = {0};
    tsr_checkpoint *checkpoint = NULL;

    if (s->args->engine_fd >= 0)
        tsr_log_set_sink(drop_line, NULL);
    tsr_status st = tsr_checkpoint_open(folder, &problems, &checkpoint);
    tsr_problems_log(&problems);
    if (st == TSR_OK)
        st = tsr_text_side_open(s->args->config, folder, &checkpoint->generation, true, &s->text);
    tsr_log_set_sink(NULL, NULL);
    tsr_checkpoint_close(checkpoint);
    tsr_problems_close(&problems);
    return st;
}

/* The listener is the gateway's from here on, whatever happens. */
static tsr_status open_gateway(served *s)
{
    const tsr_gateway_args args = {
        .base = s->base,
        .config = s->args->config,
        .text = &s->text,
        .folder = s->args->config->folder,
        .listener = s->args->listener,
        .port = s->args->port,
    };

    tsr_status st = tsr_gateway_open(&args, &s->gateway);
    if (st != TSR_OK)
        return st;
    const tsr_engine_events events = tsr_gateway_events(s->gateway);
    st = tsr_engine_link_open(s->base, &events, &s->link);
    if (st == TSR_OK)
        tsr_gateway_attach(s->gateway, s->link);
    return st;
}

static tsr_status serve(served *s)
{
    tsr_status st = TSR_ERR_MEMORY;

    s->base = event_base_new();
    if (s->base != NULL)
        st = open_text(s);
    if (st != TSR_OK) {
        (void)close(s->args->listener);
        return st;
    }
    st = open_gateway(s);
    if (st == TSR_OK)
        st = watch_signals(s);
    if (st == TSR_OK)
        st = start_engine(s);
    if (st == TSR_OK)
        st = tsr_gateway_run(s->gateway);
    return st;
}

/* Everything was answered or cut: the engine is told to go, and waited for. */
static void close_all(served *s)
{
    if (s->supervisor != NULL)
        tsr_supervisor_let_go(s->supervisor);
    if (s->link != NULL)
        tsr_engine_link_end(s->link);
    tsr_supervisor_close(s->supervisor);
    tsr_gateway_close(s->gateway);
    tsr_engine_link_close(s->link);
    for (int i = 0; i < SIGNALS; i++) {
        if (s->signals[i] != NULL)
            event_free(s->signals[i]);
    }
    tsr_text_side_close(&s->text);
    if (s->base != NULL)
        event_base_free(s->base);
}

void tsr_gateway_command(const tsr_gateway_command_args *args, int *ret_code)
{
    served s = {.args = args};

    const tsr_status st = serve(&s);
    close_all(&s);
    if (st == TSR_ERR_MEMORY && !tsr_log_has_error())
        tsr_log(TSR_LOG_ERROR, "%s", tsr_status_text(st));
    *ret_code = s.code != 0 ? s.code : tsr_status_exit_code(st);
}
