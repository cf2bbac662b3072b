/* The server keeps nothing of a conversation: every request brings all of it. */
#include "launch/client/chat_session.h"

#include "launch/job/signals.h"
#include "runtime/base/clock.h"
#include "runtime/base/ending.h"
#include "runtime/base/log.h"

#include <event2/event.h>
#include <event2/http.h>
#include <stdio.h>
#include <string.h>

enum { TURN_MS = 50 };

static const char *role_at(const json_t *messages, size_t at)
{
    const char *role = json_string_value(json_object_get(json_array_get(messages, at), "role"));
    return role != NULL ? role : "";
}

static bool has_system(const tsr_chat_session *s)
{
    return strcmp(role_at(s->messages, 0), "system") == 0;
}

/* jansson refuses what is no UTF-8, and gives NULL for it as for memory that has run out. */
static tsr_status message_of(const char *role, const char *text, json_t **ret_message)
{
    json_t *content = json_string(text);
    json_t *plain = json_string("");
    json_t *message =
        content != NULL ? json_pack("{s:s, s:O}", "role", role, "content", content) : NULL;
    const bool no_text = content == NULL && plain != NULL;

    json_decref(content);
    json_decref(plain);
    if (no_text)
        tsr_log(TSR_LOG_ERROR, "what was typed is no UTF-8");
    if (message == NULL)
        return no_text ? TSR_ERR_ARG : TSR_ERR_MEMORY;
    *ret_message = message;
    return TSR_OK;
}

static tsr_status add_message(tsr_chat_session *s, const char *role, const char *text)
{
    json_t *message = NULL;
    const tsr_status st = message_of(role, text, &message);

    if (st != TSR_OK)
        return st;
    return json_array_append_new(s->messages, message) == 0 ? TSR_OK : TSR_ERR_MEMORY;
}

static void drop_last(tsr_chat_session *s)
{
    const size_t count = json_array_size(s->messages);
    if (count > 0)
        (void)json_array_remove(s->messages, count - 1);
}

tsr_status tsr_chat_session_set_system(tsr_chat_session *s, const char *text)
{
    json_t *message = NULL;

    if (text != NULL && text[0] != '\0') {
        const tsr_status st = message_of("system", text, &message);
        if (st != TSR_OK)
            return st;
    }
    if (has_system(s))
        (void)json_array_remove(s->messages, 0);
    if (message == NULL)
        return TSR_OK;
    return json_array_insert_new(s->messages, 0, message) == 0 ? TSR_OK : TSR_ERR_MEMORY;
}

void tsr_chat_session_clear(tsr_chat_session *s)
{
    while (json_array_size(s->messages) > (has_system(s) ? 1U : 0U))
        drop_last(s);
}

static const char *text_at(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

static void on_event(void *context, const json_t *event)
{
    tsr_chat_session *s = context;
    const json_t *usage = json_object_get(event, "usage");
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *delta = json_object_get(choice, "delta");
    const char *words = text_at(delta, "content");
    const char *thought = text_at(delta, "reasoning_content");

    if (thought[0] == '\0')
        thought = text_at(delta, "reasoning");
    if (words[0] != '\0' || thought[0] != '\0') {
        s->last_ns = tsr_clock_ns();
        if (s->first_ns == 0)
            s->first_ns = s->last_ns;
    }
    tsr_chat_screen_thought(s->screen, thought);
    tsr_chat_screen_words(s->screen, words);
    if (s->st == TSR_OK)
        s->st = tsr_text_add_string(&s->words, words);
    if (text_at(choice, "finish_reason")[0] != '\0')
        (void)snprintf(s->finish, sizeof(s->finish), "%s", text_at(choice, "finish_reason"));
    if (json_is_object(usage)) {
        s->counts.prompt_tokens = json_integer_value(json_object_get(usage, "prompt_tokens"));
        s->counts.output_tokens = json_integer_value(json_object_get(usage, "completion_tokens"));
    }
}

static void on_over(void *context, tsr_status st, const char *why)
{
    tsr_chat_session *s = context;

    s->over = true;
    if (st == TSR_OK && s->finish[0] == '\0') {
        st = TSR_ERR_PEER;
        why = "the answer has no end";
    }
    if (s->st == TSR_OK)
        s->st = st;
    tsr_chat_screen_end(s->screen);
    if (st != TSR_OK && st != TSR_ERR_MEMORY)
        tsr_log(TSR_LOG_ERROR, "%s: %s", s->server->url, why);
}

/* Only wakes the loop, in which signals are looked for. */
static void on_turn(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
}

static json_t *body_of(const tsr_chat_session *s)
{
    json_t *body = json_pack("{s:s, s:b, s:{s:b}}", "model", s->server->model, "stream", 1,
                             "stream_options", "include_usage", 1);

    if (body != NULL && (json_object_update(body, s->settings) != 0 ||
                         json_object_set(body, "messages", s->messages) != 0)) {
        json_decref(body);
        return NULL;
    }
    return body;
}

static void wait_for_end(tsr_chat_session *s)
{
    const struct timeval turn = {.tv_usec = TURN_MS * 1000L};
    struct event *waking = event_new(s->server->base, -1, EV_PERSIST, on_turn, NULL);

    if (waking == NULL || event_add(waking, &turn) != 0)
        s->st = TSR_ERR_MEMORY;
    while (!s->over && s->st == TSR_OK) {
        (void)event_base_loop(s->server->base, EVLOOP_ONCE);
        if (s->over)
            break;
        s->st = tsr_ending_status();
        if (tsr_signals_interrupted())
            break;
    }
    if (waking != NULL)
        event_free(waking);
    if (s->over)
        return;
    tsr_api_cancel(&s->call);
    tsr_chat_screen_end(s->screen);
}

static void count_answer(tsr_chat_session *s)
{
    tsr_chat_counts *one = &s->counts;
    tsr_chat_counts *all = &s->all;
    const int64_t output = one->output_tokens;

    one->first_ns = s->first_ns - s->sent_ns;
    one->rest_ns = s->last_ns - s->first_ns;
    all->answers++;
    all->prompt_tokens += one->prompt_tokens;
    all->output_tokens += output;
    all->first_ns += one->first_ns;
    all->rest_ns += one->rest_ns;
    if (output <= 0)
        return;
    if (one->rest_ns > 0)
        tsr_chat_screen_note(
            s->screen, "[%lld + %lld tokens, %.1f tokens/s, the first after %.2f s]",
            (long long)one->prompt_tokens, (long long)output,
            (double)(output - 1) * 1e9 / (double)one->rest_ns, (double)one->first_ns / 1e9);
    else
        tsr_chat_screen_note(s->screen, "[%lld + %lld tokens after %.2f s]",
                             (long long)one->prompt_tokens, (long long)output,
                             (double)one->first_ns / 1e9);
}

static void begin_answer(tsr_chat_session *s)
{
    s->counts = (tsr_chat_counts){0};
    s->first_ns = 0;
    s->last_ns = 0;
    s->finish[0] = '\0';
    s->over = false;
    s->st = TSR_OK;
    tsr_text_clear(&s->words);
    (void)tsr_signals_interrupted(); /* one that came before is not meant for this answer */
}

/* To the last message, which is a question. */
static tsr_status answer(tsr_chat_session *s)
{
    struct evhttp_connection *connection = tsr_api_connect(s->server);
    json_t *body = body_of(s);

    begin_answer(s);
    if (connection == NULL || body == NULL) {
        s->st = TSR_ERR_MEMORY;
    } else {
        s->sent_ns = tsr_clock_ns();
        s->st = tsr_api_post(s->server, connection, "/chat/completions", body, &s->call);
    }
    if (s->st == TSR_OK)
        wait_for_end(s);
    json_decref(body);
    if (connection != NULL)
        evhttp_connection_free(connection);
    if (s->first_ns != 0)
        count_answer(s);
    if (strcmp(s->finish, "length") == 0)
        tsr_chat_screen_note(s->screen, "[it ends where max_tokens or the context does]");
    if (s->st == TSR_OK && s->first_ns != 0)
        return add_message(s, "assistant", s->words.bytes);
    if (s->first_ns == 0)
        drop_last(s);
    return s->st;
}

tsr_status tsr_chat_session_ask(tsr_chat_session *s, const char *question)
{
    const tsr_status st = add_message(s, "user", question);
    return st == TSR_OK ? answer(s) : st;
}

tsr_status tsr_chat_session_ask_again(tsr_chat_session *s)
{
    if (strcmp(role_at(s->messages, json_array_size(s->messages) - 1), "assistant") == 0)
        drop_last(s);
    if (json_array_size(s->messages) > (has_system(s) ? 1U : 0U))
        return answer(s);
    tsr_log(TSR_LOG_ERROR, "there is no question to answer again");
    return TSR_ERR_ARG;
}

tsr_status tsr_chat_session_open(const tsr_api_server *server, tsr_chat_screen *screen,
                                 tsr_chat_session *session)
{
    *session = (tsr_chat_session){
        .server = server, .screen = screen, .messages = json_array(), .settings = json_object()};
    session->call = (tsr_api_call){.event = on_event, .over = on_over, .context = session};
    return session->messages != NULL && session->settings != NULL ? TSR_OK : TSR_ERR_MEMORY;
}

void tsr_chat_session_close(tsr_chat_session *session)
{
    tsr_api_call_close(&session->call);
    json_decref(session->messages);
    json_decref(session->settings);
    tsr_text_close(&session->words);
    *session = (tsr_chat_session){0};
}
