/*
 * Requests wait in the table until an engine is ready; then all of them are sent, in order of
 * arrival, and each as soon as it is submitted. Cancelled ones stay until the engine has said so,
 * for its outputs may be on their way.
 */
#include "launch/link/engine_link.h"

#include "launch/link/link.h"
#include "launch/link/live_requests.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <stdlib.h>
#include <string.h>

/* Messages taken in one turn of the event loop: clients are not to wait for a talkative engine. */
enum { TURN_MESSAGES = 512 };

struct tsr_engine_link {
    struct event_base *base;
    tsr_engine_events events;
    tsr_live_requests live;
    tsr_serve_link socket; /* fd -1: no engine is attached */
    struct event *readable;
    struct event *writable;
    tsr_engine_gone gone;
    void *gone_context;
    int64_t heard_ms;
    bool is_ready;
    bool has_said_hello;
};

tsr_status tsr_engine_link_open(struct event_base *base, const tsr_engine_events *events,
                                tsr_engine_link **ret_link)
{
    tsr_engine_link *link = calloc(1, sizeof(*link));
    if (link == NULL)
        return TSR_ERR_MEMORY;
    link->base = base;
    link->events = *events;
    link->socket.fd = -1;
    *ret_link = link;
    return TSR_OK;
}

bool tsr_engine_link_is_ready(const tsr_engine_link *link)
{
    return link->is_ready;
}

int64_t tsr_engine_link_heard_ms(const tsr_engine_link *link)
{
    return link->socket.fd >= 0 ? link->heard_ms : 0;
}

void tsr_engine_link_detach(tsr_engine_link *link, const char *why)
{
    const tsr_engine_gone gone = link->gone;
    const bool was_ready = link->is_ready;

    if (link->socket.fd < 0)
        return;
    event_free(link->readable);
    event_free(link->writable);
    tsr_serve_link_close(&link->socket);
    link->is_ready = false;
    link->gone = NULL;
    for (tsr_live_request *r = link->live.first; r != NULL; r = r->next)
        r->sent = false;
    link->events.lost(link->events.context, why);
    if (gone != NULL)
        gone(link->gone_context, was_ready);
}

/* Sends what waits, and asks to be told when there is room where the socket is full. */
static void push(tsr_engine_link *link)
{
    tsr_serve_link_push(&link->socket);
    if (tsr_serve_link_waiting(&link->socket))
        (void)event_add(link->writable, NULL);
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    push(context);
}

static tsr_status add(tsr_engine_link *link, const tsr_serve_message *message)
{
    const tsr_status st = tsr_serve_link_add(&link->socket, message);
    if (st == TSR_OK)
        push(link);
    return st;
}

static tsr_status send_request(tsr_engine_link *link, tsr_live_request *r)
{
    const tsr_request *q = &r->request;
    const tsr_serve_message message = {
        .kind = TSR_SERVE_SUBMIT,
        .submit = {.id = q->id,
                   .seed = q->seed,
                   .cache_salt = q->cache_salt,
                   .prompt = r->tokens,
                   .prompt_count = r->token_count,
                   .given = r->token_count - q->prompt_tokens,
                   .stop_ids = r->stop_ids,
                   .stop_id_count = q->stop_id_count,
                   .max_tokens = q->max_tokens,
                   .temperature = q->temperature,
                   .top_p = q->top_p,
                   .top_k = q->top_k,
                   .ignore_eos = q->ignore_eos,
                   .priority = q->priority,
                   .min_p = q->min_p,
                   .rules = q->rules,
                   .guide = q->guide,
                   .score_prompt = q->score_prompt && !r->is_scored,
                   .score_top = q->score_top,
                   .top = q->top},
    };
    const tsr_status st = add(link, &message);
    r->sent = st == TSR_OK;
    return st;
}

/* A message that cannot be added leaves an engine that hears nothing any more. */
static void say_end(tsr_engine_link *link)
{
    static const tsr_serve_message message = {.kind = TSR_SERVE_END};

    if (link->socket.fd >= 0)
        (void)add(link, &message);
}

static void end_request(tsr_engine_link *link, tsr_live_request *r, const tsr_output *how)
{
    tsr_output output = *how;

    output.id = r->request.id;
    output.token = -1;
    output.prompt_tokens = r->request.prompt_tokens;
    output.output_tokens = r->token_count - r->request.prompt_tokens;
    tsr_live_requests_remove(&link->live, r);
    link->events.output(link->events.context, &output);
}

static tsr_status take_ready(tsr_engine_link *link, const tsr_serve_ready *ready)
{
    const tsr_engine_facts facts = {
        .ranks = ready->ranks,
        .max_model_len = ready->max_model_len,
        .vocab = ready->vocab,
        .max_num_seqs = ready->max_num_seqs,
        .kv_tokens = ready->kv_tokens,
        .info = ready->info,
    };
    tsr_status st = TSR_OK;

    link->is_ready = true;
    for (tsr_live_request *r = link->live.first; r != NULL && st == TSR_OK; r = r->next) {
        if (!r->sent)
            st = send_request(link, r);
    }
    if (st == TSR_OK)
        link->events.ready(link->events.context, &facts);
    return st;
}

static tsr_status take_output(tsr_engine_link *link, const tsr_serve_output *o)
{
    tsr_live_request *r = tsr_live_requests_find(&link->live, o->id);
    const tsr_output output = {
        .id = o->id,
        .token = o->token,
        .logprob = o->logprob,
        .finish = (tsr_finish)o->finish,
        .prompt_tokens = r != NULL ? r->request.prompt_tokens : 0,
        .output_tokens = o->output_tokens,
        .refusal = o->refusal[0] != '\0' ? o->refusal : NULL,
        .cause = (tsr_status)o->cause,
        .cached_tokens = o->cached_tokens,
        .queued_ns = o->queued_ns,
        .first_ns = o->first_ns,
        .top = o->top,
        .top_count = o->top_count,
    };

    if (r == NULL)
        return TSR_OK;
    if (output.finish != TSR_FINISH_NONE) {
        tsr_live_requests_remove(&link->live, r);
    } else if (o->token >= 0) {
        const tsr_status st = tsr_live_request_answer(r, o->token);
        if (st != TSR_OK)
            return st;
    }
    link->events.output(link->events.context, &output);
    return TSR_OK;
}

/* An engine that comes after one which was lost in the middle of a prompt tells it from its beginning
 * again: what is known already is left out. */
static void take_scores(tsr_engine_link *link, const tsr_serve_scores *s)
{
    tsr_live_request *r = tsr_live_requests_find(&link->live, s->id);
    const int32_t known = r != NULL ? r->scored - s->first_position : s->count;
    const int32_t skip = known > 0 ? known : 0;
    const tsr_prompt_scores scores = {
        .id = s->id,
        .first_position = s->first_position + skip,
        .count = s->count - skip,
        .top_count = s->top_count,
        .token = s->token + skip,
        .top = s->top + (size_t)skip * (size_t)s->top_count,
    };

    if (r == NULL || scores.count <= 0)
        return;
    r->scored = scores.first_position + scores.count;
    r->is_scored = r->scored == r->request.prompt_tokens;
    if (link->events.scores != NULL)
        link->events.scores(link->events.context, &scores);
}

static tsr_status take_hello(tsr_engine_link *link, const tsr_serve_hello *hello)
{
    link->has_said_hello = hello->version == TSR_SERVE_VERSION;
    if (link->has_said_hello)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "the engine is %s and speaks version %u; this gateway speaks %d",
            hello->program, hello->version, TSR_SERVE_VERSION);
    return TSR_ERR_MISMATCH;
}

static tsr_status take(tsr_engine_link *link, const tsr_serve_message *m)
{
    const tsr_engine_events *events = &link->events;

    if (!link->has_said_hello && m->kind != TSR_SERVE_HELLO)
        return TSR_ERR_MISMATCH;
    switch (m->kind) {
    case TSR_SERVE_HELLO:
        return take_hello(link, &m->hello);
    case TSR_SERVE_LOADING:
        events->loading(events->context, m->loading.bytes, m->loading.total);
        return TSR_OK;
    case TSR_SERVE_READY:
        return take_ready(link, &m->ready);
    case TSR_SERVE_OUTPUT:
        return take_output(link, &m->output);
    case TSR_SERVE_SCORES:
        take_scores(link, &m->scores);
        return TSR_OK;
    case TSR_SERVE_LOAD:
        events->load(events->context, &m->load);
        return TSR_OK;
    case TSR_SERVE_DRAIN:
        events->drain(events->context);
        return TSR_OK;
    case TSR_SERVE_SUBMIT:
    case TSR_SERVE_CANCEL:
    case TSR_SERVE_END:
        break;
    }
    return TSR_ERR_MISMATCH;
}

static const char *why_gone(tsr_status st)
{
    if (st == TSR_ERR_PEER)
        return "the engine has ended";
    if (st == TSR_ERR_CAPACITY)
        return "the engine has not read for too long";
    return tsr_status_text(st);
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    tsr_engine_link *link = context;
    tsr_status st = TSR_OK;

    (void)what;
    link->heard_ms = tsr_clock_ms();
    for (int i = 0; i < TURN_MESSAGES && st == TSR_OK; i++) {
        tsr_serve_arrived arrived;
        bool any = false;
        st = tsr_serve_link_take(&link->socket, 0, &arrived, &any);
        if (st != TSR_OK || !any)
            break;
        st = take(link, &arrived.message);
        tsr_serve_arrived_close(&arrived);
        if (link->socket.fd != fd)
            return; /* one of the events has let the engine go */
        if (i == TURN_MESSAGES - 1)
            event_active(link->readable, EV_READ, 0);
    }
    if (st != TSR_OK)
        tsr_engine_link_detach(link, why_gone(st));
}

tsr_status tsr_engine_link_attach(tsr_engine_link *link, int fd, tsr_engine_gone gone,
                                  void *context)
{
    tsr_status st = tsr_serve_link_open(fd, &link->socket);
    if (st != TSR_OK)
        return st;
    link->readable = event_new(link->base, fd, EV_READ | EV_PERSIST, on_readable, link);
    link->writable = event_new(link->base, fd, EV_WRITE, on_writable, link);
    if (link->readable == NULL || link->writable == NULL || event_add(link->readable, NULL) != 0)
        st = TSR_ERR_MEMORY;
    if (st != TSR_OK) {
        if (link->readable != NULL)
            event_free(link->readable);
        if (link->writable != NULL)
            event_free(link->writable);
        tsr_serve_link_close(&link->socket);
        return st;
    }
    link->gone = gone;
    link->gone_context = context;
    link->has_said_hello = false;
    link->heard_ms = tsr_clock_ms();
    return TSR_OK;
}

tsr_status tsr_engine_link_submit(tsr_engine_link *link, const tsr_request *request)
{
    tsr_live_request *added = NULL;

    tsr_status st = tsr_live_requests_add(&link->live, request, &added);
    if (st != TSR_OK || !link->is_ready)
        return st;
    st = send_request(link, added);
    if (st != TSR_OK)
        tsr_live_requests_remove(&link->live, added);
    return st;
}

void tsr_engine_link_cancel(tsr_engine_link *link, uint64_t id)
{
    static const tsr_output cancelled = {.finish = TSR_FINISH_CANCELLED};
    const tsr_serve_message message = {.kind = TSR_SERVE_CANCEL, .cancel = id};
    tsr_live_request *r = tsr_live_requests_find(&link->live, id);

    if (r == NULL)
        return;
    if (!r->sent)
        end_request(link, r, &cancelled);
    else if (add(link, &message) != TSR_OK)
        tsr_engine_link_detach(link, why_gone(TSR_ERR_CAPACITY));
}

/* One that no engine has; whoever is told of an end may cancel others, so there is no going on from
 * where this was. */
static tsr_live_request *first_unsent(const tsr_engine_link *link)
{
    tsr_live_request *r = link->live.first;
    while (r != NULL && r->sent)
        r = r->next;
    return r;
}

void tsr_engine_link_end(tsr_engine_link *link)
{
    static const tsr_output cancelled = {.finish = TSR_FINISH_CANCELLED};
    tsr_status st = TSR_OK;

    for (const tsr_live_request *r = link->live.first; r != NULL && st == TSR_OK; r = r->next) {
        const tsr_serve_message message = {.kind = TSR_SERVE_CANCEL, .cancel = r->request.id};
        if (r->sent)
            st = add(link, &message);
    }
    for (tsr_live_request *r; (r = first_unsent(link)) != NULL;)
        end_request(link, r, &cancelled);
    say_end(link);
}

void tsr_engine_link_fail(tsr_engine_link *link, tsr_status cause, const char *why)
{
    const tsr_output failed = {.finish = TSR_FINISH_FAILED, .cause = cause, .refusal = why};

    while (link->live.first != NULL)
        end_request(link, link->live.first, &failed);
}

void tsr_engine_link_close(tsr_engine_link *link)
{
    if (link == NULL)
        return;
    if (link->socket.fd >= 0) {
        event_free(link->readable);
        event_free(link->writable);
        tsr_serve_link_close(&link->socket);
    }
    tsr_live_requests_close(&link->live);
    free(link);
}
