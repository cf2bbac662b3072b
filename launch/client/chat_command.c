/*
 *   tessera chat --url URL        a client
 *   tessera chat DIR              a client, and a server that it starts first
 *   ... --engine-socket NAME      a rank of that server
 *
 * With --prompt, and where standard input is no terminal, the first question without an answer ends the
 * program with its exit code; a user at a terminal goes on.
 */
#include "launch/client/chat_command.h"

#include "launch/client/chat_input.h"
#include "launch/client/chat_server.h"
#include "launch/client/chat_words.h"
#include "launch/job/signals.h"
#include "launch/serve/serve_command.h"
#include "runtime/base/ending.h"
#include "runtime/base/log.h"

#include <event2/event.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char usual_url[] = "http://127.0.0.1:8000";
enum { OK_STATUS = 200, LOOK_NS = 100000000, STATUS_BYTES = 64 };

typedef struct chat {
    const tsr_config *config;
    tsr_chat_server own; /* where it starts one */
    tsr_api_server server;
    tsr_chat_screen screen;
    tsr_chat_session session;
    tsr_chat_input input;
    tsr_text message;
    int code; /* of a server of its own that has ended; 0: it has not */
} chat;

tsr_status tsr_chat_command_check(const tsr_config *config, const tsr_launch_info *info)
{
    const bool starts = config->ranks > 0 || config->local_ranks > 0 || config->hostfile != NULL;

    if (config->engine_socket != NULL)
        return tsr_serve_command_check(config, info);
    if (info->mpi) {
        tsr_log(TSR_LOG_ERROR, "chat starts its ranks itself: tessera chat DIR --ranks %d",
                info->size > 0 ? info->size : 1);
        return TSR_ERR_ARG;
    }
    if (config->folder != NULL && config->url != NULL) {
        tsr_log(TSR_LOG_ERROR, "a folder starts a server, and --url names one: give one of them");
        return TSR_ERR_ARG;
    }
    if (config->folder == NULL && starts) {
        tsr_log(TSR_LOG_ERROR, "--ranks, --local-ranks and --hostfile belong to a folder to serve");
        return TSR_ERR_ARG;
    }
    return tsr_serve_command_check(config, info);
}

static void show_progress(chat *c, const json_t *health)
{
    const json_t *progress = json_object_get(health, "progress");
    const double bytes = json_number_value(json_object_get(progress, "bytes"));
    const double total = json_number_value(json_object_get(progress, "total"));
    char text[STATUS_BYTES] = "starting";

    if (total > 0)
        (void)snprintf(text, sizeof(text), "loading %.0f %% of %.1f GB", 100 * bytes / total,
                       total / 1e9);
    tsr_chat_screen_status(&c->screen, text);
}

/* Its own server, until that is ready or has ended. A loading one answers at once. */
static tsr_status wait_ready(chat *c)
{
    const struct timespec look = {.tv_nsec = LOOK_NS};
    tsr_status st = TSR_OK;
    int status = 0;

    while (st == TSR_OK && status != OK_STATUS) {
        json_t *health = NULL;
        st = tsr_api_get(&c->server, "/health", &status, &health);
        if (st == TSR_OK)
            show_progress(c, health);
        json_decref(health);
        if (st == TSR_OK && tsr_chat_server_has_ended(&c->own, &c->code))
            st = TSR_ERR_PEER;
        if (st == TSR_OK)
            st = tsr_ending_status();
        if (st == TSR_OK && status != OK_STATUS)
            (void)nanosleep(&look, NULL);
    }
    tsr_chat_screen_status(&c->screen, NULL);
    return st;
}

static tsr_status connect_to_server(chat *c)
{
    const tsr_config *config = c->config;
    const bool own = c->own.process > 0;
    const char *given = config->api_key.count > 0 ? config->api_key.items[0] : NULL;
    const char *named = config->url != NULL ? config->url : usual_url;

    c->server = (tsr_api_server){.base = event_base_new(),
                                 .url = own ? c->own.url : named,
                                 .key = own ? c->own.key : given,
                                 .timeout_s = (int32_t)config->client_timeout};
    if (c->server.base == NULL)
        return TSR_ERR_MEMORY;
    tsr_status st = tsr_api_open(&c->server);
    if (st == TSR_OK && own)
        st = wait_ready(c);
    return st == TSR_OK ? tsr_api_find_model(&c->server, config->model) : st;
}

static bool set(json_t *settings, const char *name, json_t *value)
{
    return json_object_set_new(settings, name, value) == 0;
}

static tsr_status set_options(const tsr_config *config, json_t *settings)
{
    bool good = true;

    if (!isnan(config->temperature))
        good = good && set(settings, "temperature", json_real(config->temperature));
    if (!isnan(config->top_p))
        good = good && set(settings, "top_p", json_real(config->top_p));
    if (config->top_k >= 0)
        good = good && set(settings, "top_k", json_integer(config->top_k));
    if (config->has_seed)
        good = good && set(settings, "seed", json_integer(config->seed));
    if (config->max_tokens > 0)
        good = good && set(settings, "max_tokens", json_integer(config->max_tokens));
    if (config->ignore_eos)
        good = good && set(settings, "ignore_eos", json_true());
    if (config->stop.count > 0)
        good = good && set(settings, "stop", json_array());
    for (int32_t i = 0; i < config->stop.count; i++)
        good = good && json_array_append_new(json_object_get(settings, "stop"),
                                             json_string(config->stop.items[i])) == 0;
    return good ? TSR_OK : TSR_ERR_MEMORY;
}

/* A server that is not our own is told with every request. */
static tsr_status set_template(const tsr_config *config, json_t *settings)
{
    if (config->template_kwargs == NULL || config->folder != NULL)
        return TSR_OK;
    json_t *value = json_loads(config->template_kwargs, 0, NULL);
    if (!json_is_object(value)) {
        json_decref(value);
        tsr_log(TSR_LOG_ERROR, "--default-chat-template-kwargs: expected a JSON object");
        return TSR_ERR_ARG;
    }
    return set(settings, "chat_template_kwargs", value) ? TSR_OK : TSR_ERR_MEMORY;
}

static tsr_status take_message(chat *c, bool *ret_end)
{
    if (c->message.count == 0)
        return TSR_OK;
    if (tsr_chat_is_word(c->message.bytes) && !c->input.quoted)
        return tsr_chat_word(&c->session, c->message.bytes, ret_end);
    return tsr_chat_session_ask(&c->session, c->message.bytes);
}

/* What ends a chat at a terminal too: nothing that another question may mend. */
static bool is_final(const chat *c, tsr_status st)
{
    return st == TSR_ERR_MEMORY || tsr_ending_status() != TSR_OK || ferror(stdout) ||
           (st != TSR_OK && !c->input.terminal);
}

/* One turn: a message, and what comes of it. */
static tsr_status take_turn(chat *c, bool *ret_end)
{
    const tsr_line_end end = tsr_chat_input_read(&c->input, &c->message);

    if (tsr_ending_status() != TSR_OK)
        return tsr_ending_status();
    switch (end) {
    case TSR_LINE_READ:
        return take_message(c, ret_end);
    case TSR_LINE_NO_MEMORY:
        return TSR_ERR_MEMORY;
    case TSR_LINE_INTERRUPTED:
        (void)tsr_signals_interrupted();
        tsr_chat_screen_note(&c->screen, "\n[/exit or Ctrl-D ends]");
        return TSR_OK;
    case TSR_LINE_OVER:
        *ret_end = true;
        return TSR_OK;
    }
    return TSR_ERR_INTERNAL;
}

static tsr_status talk(chat *c)
{
    bool over = false;

    if (c->input.terminal) {
        tsr_signals_take_interrupts();
        tsr_chat_screen_note(&c->screen, "[%s at %s; /help]", c->server.model, c->server.url);
    }
    while (!over) {
        const tsr_status st = take_turn(c, &over);
        if (is_final(c, st))
            return st;
        if (tsr_chat_server_has_ended(&c->own, &c->code))
            return TSR_ERR_PEER;
    }
    return TSR_OK;
}

static tsr_status run(chat *c, const tsr_launch_info *info)
{
    const tsr_config *config = c->config;
    tsr_status st = TSR_OK;

    if (config->folder != NULL) {
        tsr_signals_be(-1, true); /* a server to end */
        st = tsr_chat_server_start(config, info, &c->own);
    }
    if (setlocale(LC_CTYPE, "C.UTF-8") == NULL)
        (void)setlocale(LC_CTYPE, "");
    if (st == TSR_OK && config->prompt == NULL)
        tsr_chat_input_open(&c->input);
    c->screen = tsr_chat_screen_of(info->colour_err, c->input.terminal);
    if (st == TSR_OK)
        st = connect_to_server(c);
    if (st == TSR_OK)
        st = tsr_chat_session_open(&c->server, &c->screen, &c->session);
    if (st == TSR_OK)
        st = set_options(config, c->session.settings);
    if (st == TSR_OK)
        st = set_template(config, c->session.settings);
    if (st == TSR_OK)
        st = tsr_chat_session_set_system(&c->session, config->system);
    if (st != TSR_OK)
        return st;
    return config->prompt != NULL ? tsr_chat_session_ask(&c->session, config->prompt) : talk(c);
}

static void close_chat(chat *c)
{
    tsr_chat_session_close(&c->session);
    tsr_api_close(&c->server);
    if (c->server.base != NULL)
        event_base_free(c->server.base);
    tsr_chat_input_close(&c->input);
    tsr_text_close(&c->message);
    tsr_chat_server_end(&c->own);
}

void tsr_chat_command(const tsr_config *config, const tsr_launch_info *info, int *ret_code)
{
    chat c = {.config = config};

    if (config->engine_socket != NULL) {
        tsr_config served = *config;
        served.command = TSR_COMMAND_SERVE;
        tsr_serve_command(&served, info, ret_code);
        return;
    }
    tsr_status st = run(&c, info);
    close_chat(&c);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        tsr_log(TSR_LOG_ERROR, "standard output: cannot be written");
        st = tsr_status_of_two(st, TSR_ERR_OUTPUT);
    }
    if (st == TSR_ERR_MEMORY && !tsr_log_has_error())
        tsr_log(TSR_LOG_ERROR, "%s", tsr_status_text(st));
    *ret_code = c.code != 0 ? c.code : tsr_status_exit_code(st);
}
