/* One table: what is typed, what it does, what /help says. */
#include "launch/client/chat_words.h"

#include "runtime/base/log.h"

#include <stdlib.h>
#include <string.h>

typedef struct word_row {
    const char *name;
    const char *other; /* NULL: none */
    const char *argument;
    const char *help;
    tsr_status (*act)(tsr_chat_session *session, const char *argument);
} word_row;

static tsr_status clear(tsr_chat_session *session, const char *argument)
{
    (void)argument;
    tsr_chat_session_clear(session);
    tsr_chat_screen_note(session->screen, "[a new conversation]");
    return TSR_OK;
}

static tsr_status show_setting(tsr_chat_session *session, const char *name, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

    if (text == NULL)
        return TSR_ERR_MEMORY;
    tsr_chat_screen_note(session->screen, "%s=%s", name, text);
    free(text);
    return TSR_OK;
}

static tsr_status show_settings(tsr_chat_session *session)
{
    const char *name;
    json_t *value;
    tsr_status st = TSR_OK;

    if (json_object_size(session->settings) == 0)
        tsr_chat_screen_note(session->screen, "[nothing is set: the server's defaults]");
    json_object_foreach(session->settings, name, value)
    {
        if (st == TSR_OK)
            st = show_setting(session, name, value);
    }
    return st;
}

/* NAME=VALUE: JSON, or else a text; nothing takes the field back. */
static tsr_status set(tsr_chat_session *session, const char *argument)
{
    const char *equals = strchr(argument, '=');
    tsr_text name = {0};
    tsr_status st = TSR_OK;

    if (argument[0] == '\0')
        return show_settings(session);
    if (equals == NULL || equals == argument) {
        tsr_log(TSR_LOG_ERROR, "/set %s: expected NAME=VALUE, as in /set temperature=0.7",
                argument);
        return TSR_ERR_ARG;
    }
    st = tsr_text_add(&name, argument, (size_t)(equals - argument));
    if (st == TSR_OK && equals[1] == '\0') {
        (void)json_object_del(session->settings, name.bytes);
    } else if (st == TSR_OK) {
        json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
        if (value == NULL)
            value = json_string(equals + 1);
        if (json_object_set_new(session->settings, name.bytes, value) != 0) {
            tsr_log(TSR_LOG_ERROR, "/set %s: it is no UTF-8, or there is no memory for it",
                    argument);
            st = TSR_ERR_ARG;
        }
    }
    tsr_text_close(&name);
    return st;
}

static tsr_status show_counts(tsr_chat_session *session, const char *argument)
{
    const tsr_chat_counts *all = &session->all;
    const double rest_s = (double)all->rest_ns / 1e9;

    (void)argument;
    tsr_chat_screen_note(session->screen,
                         "[%s, %zu messages; %lld answers, %lld + %lld tokens, %.1f tokens/s, the "
                         "first after %.2f s]",
                         session->server->model, json_array_size(session->messages),
                         (long long)all->answers, (long long)all->prompt_tokens,
                         (long long)all->output_tokens,
                         rest_s > 0 ? (double)(all->output_tokens - all->answers) / rest_s : 0,
                         all->answers > 0 ? (double)all->first_ns / 1e9 / (double)all->answers : 0);
    return TSR_OK;
}

static tsr_status set_system(tsr_chat_session *session, const char *argument)
{
    return tsr_chat_session_set_system(session, argument);
}

static tsr_status ask_again(tsr_chat_session *session, const char *argument)
{
    (void)argument;
    return tsr_chat_session_ask_again(session);
}

static tsr_status help(tsr_chat_session *session, const char *argument);

static const word_row words[] = {
    {"/clear", "/reset", "", "forget what was said; the system message and settings stay", clear},
    {"/system", NULL, " TEXT", "another system message; none without TEXT", set_system},
    {"/regenerate", "/retry", "", "another answer to the last question", ask_again},
    {"/set", NULL, " NAME=VALUE",
     "a field of every request from here on, as temperature=0.7 or max_tokens=100; NAME= takes it "
     "back, /set alone shows them",
     set},
    {"/stats", NULL, "", "tokens and times of this chat", show_counts},
    {"/help", "/?", "", "this list", help},
    {"/exit", "/quit", "", "end, as Ctrl-D does; Ctrl-C stops an answer", NULL},
};
enum { WORDS = sizeof(words) / sizeof(words[0]) };

static tsr_status help(tsr_chat_session *session, const char *argument)
{
    (void)argument;
    for (size_t i = 0; i < WORDS; i++) {
        const word_row *row = &words[i];
        tsr_text left = {0};
        const tsr_status st = tsr_text_add_format(&left, "%s%s%s%s", row->name, row->argument,
                                                  row->other != NULL ? ", " : "",
                                                  row->other != NULL ? row->other : "");
        if (st != TSR_OK)
            return st;
        tsr_chat_screen_note(session->screen, "  %-22s %s", left.bytes, row->help);
        tsr_text_close(&left);
    }
    tsr_chat_screen_note(
        session->screen,
        "  A line that ends with \\ goes on in the next; \"\"\" opens a message of "
        "several lines and closes it.");
    return TSR_OK;
}

bool tsr_chat_is_word(const char *message)
{
    return message[0] == '/' && strchr(message, '\n') == NULL;
}

static bool is_called(const word_row *row, const char *message, size_t count)
{
    const bool first = strlen(row->name) == count && memcmp(row->name, message, count) == 0;
    return first || (row->other != NULL && strlen(row->other) == count &&
                     memcmp(row->other, message, count) == 0);
}

tsr_status tsr_chat_word(tsr_chat_session *session, const char *message, bool *ret_end)
{
    const size_t count = strcspn(message, " \t");
    const char *argument = message + count + strspn(message + count, " \t");

    for (size_t i = 0; i < WORDS; i++) {
        if (!is_called(&words[i], message, count))
            continue;
        *ret_end = words[i].act == NULL;
        return words[i].act != NULL ? words[i].act(session, argument) : TSR_OK;
    }
    tsr_log(TSR_LOG_ERROR, "%.*s: /help lists what there is; \"\"\" in front of it asks the model",
            (int)count, message);
    return TSR_ERR_ARG;
}
