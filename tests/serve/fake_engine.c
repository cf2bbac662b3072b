/* FAKE_SEQS requests run, the others wait for one of them to end. An answer ends where its prompt
 * does, unless ignore_eos is asked for: then the prompt begins again. */
#include "tests/serve/fake_engine.h"

#include "runtime/base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { LOAD_BYTES = 1 << 20, TALKATIVE_TOKENS = 64 };

typedef struct fake_request {
    struct fake_request *next;
    tsr_request request; /* prompt and stop ids are copies */
    int32_t given;
    int64_t since_ms; /* it runs since then; 0: it waits */
    bool cancelled;
} fake_request;

struct tsr_engine_link {
    tsr_engine_events events;
    fake_request *first;
    struct event *turn;
    int64_t begun_ms;
    int64_t ready_ms; /* when it is ready; then 0 */
    int32_t token_ms;
    uint64_t steps;
    uint64_t output_tokens;
    uint64_t experts[FAKE_LAYERS * FAKE_EXPERTS];
};

static void *copy_of(const void *from, size_t bytes)
{
    void *copy = malloc(bytes > 0 ? bytes : 1);
    if (copy != NULL && bytes > 0)
        memcpy(copy, from, bytes);
    return copy;
}

static void drop(fake_request *r)
{
    free((int32_t *)(uintptr_t)r->request.prompt);
    free((int32_t *)(uintptr_t)r->request.stop_ids);
    free(r);
}

static bool is_stop_id(const tsr_request *request, int32_t token)
{
    for (int32_t i = 0; i < request->stop_id_count; i++) {
        if (request->stop_ids[i] == token)
            return true;
    }
    return false;
}

static void say(tsr_engine_link *link, fake_request *r, tsr_output output)
{
    output.id = r->request.id;
    output.prompt_tokens = r->request.prompt_tokens;
    output.output_tokens = r->given;
    link->events.output(link->events.context, &output);
}

/* The engine goes, with all it knew; the link gives its requests to the next one. */
static void lose(tsr_engine_link *link)
{
    link->events.lost(link->events.context, "rank 1 was killed");
    link->begun_ms = tsr_clock_ms();
    link->ready_ms = link->begun_ms + FAKE_PAUSE_MS;
}

/*
 * How probable a token is said to be: of a prompt, -1/4 at even positions, where it is also the most
 * probable, and -1/2 at odd ones, where FAKE_RIVAL is more probable; of an answer, -1/4.
 */
static tsr_token_logprob fill_top(tsr_token_logprob *top, int32_t count, int32_t token, bool first)
{
    const tsr_token_logprob said = {.token = token, .logprob = first ? -0.25F : -0.5F};
    const tsr_token_logprob rival = {.token = FAKE_RIVAL, .logprob = first ? -3.0F : -0.25F};

    for (int32_t i = 0; i < count; i++)
        top[i] = (tsr_token_logprob){.token = FAKE_RIVAL + 1 + i, .logprob = -4.0F - (float)i};
    if (count > 0)
        top[0] = first ? said : rival;
    if (count > 1)
        top[1] = first ? rival : said;
    return said;
}

static void say_scores(tsr_engine_link *link, const fake_request *r)
{
    const int32_t tops = r->request.score_top;
    tsr_token_logprob top[TSR_MOST_TOP];

    for (int32_t at = 1; at < r->request.prompt_tokens; at++) {
        const tsr_token_logprob token = fill_top(top, tops, r->request.prompt[at], at % 2 == 0);
        const tsr_prompt_scores scores = {.id = r->request.id,
                                          .first_position = at,
                                          .count = 1,
                                          .top_count = tops,
                                          .token = &token,
                                          .top = top};
        link->events.scores(link->events.context, &scores);
    }
}

/* One token. True: it was the last. */
static bool give_token(tsr_engine_link *link, fake_request *r)
{
    const int32_t at = r->given % r->request.prompt_tokens;
    const bool eos = r->given == r->request.prompt_tokens && !r->request.ignore_eos;
    tsr_token_logprob top[TSR_MOST_TOP];
    tsr_output output = {
        .token = eos ? 0 : r->request.prompt[at], .top = top, .top_count = r->request.top};

    if (r->given == 0 && r->request.score_prompt)
        say_scores(link, r);
    output.logprob = fill_top(top, output.top_count, output.token, true).logprob;
    if (r->request.max_tokens == 0) {
        say(link, r, (tsr_output){.token = -1, .finish = TSR_FINISH_LENGTH});
        return true;
    }

    r->given++;
    link->output_tokens++;
    link->experts[(size_t)r->given % ((size_t)FAKE_LAYERS * FAKE_EXPERTS)]++;
    if (eos || is_stop_id(&r->request, output.token))
        output.finish = TSR_FINISH_STOP;
    else if (r->given >= r->request.max_tokens)
        output.finish = TSR_FINISH_LENGTH;
    say(link, r, output);
    return output.finish != TSR_FINISH_NONE;
}

/* A turn of one request that runs. True: it has ended. */
static bool go_on(tsr_engine_link *link, fake_request *r)
{
    const uint64_t seed = r->request.seed;
    bool ended = false;

    if (r->cancelled) {
        say(link, r, (tsr_output){.token = -1, .finish = TSR_FINISH_CANCELLED});
        return true;
    }
    if (seed == FAKE_REFUSED || (seed == FAKE_FAILED && r->given == 2)) {
        say(link, r,
            (tsr_output){.token = -1,
                         .finish = r->given > 0 ? TSR_FINISH_FAILED : TSR_FINISH_REFUSED,
                         .refusal = r->given > 0 ? "a logit is NaN" : "it does not fit"});
        return true;
    }
    if (seed == FAKE_LOST && r->given == 2) {
        r->request.seed = 0;
        lose(link);
        return false;
    }
    if (seed == FAKE_SLOW && tsr_clock_ms() - r->since_ms < FAKE_SLOW_MS)
        return false;
    for (int i = 0; i < (seed == FAKE_TALKATIVE ? TALKATIVE_TOKENS : 1) && !ended; i++)
        ended = give_token(link, r);
    return ended;
}

static void say_load(tsr_engine_link *link, int32_t running, int32_t waiting)
{
    const tsr_engine_load load = {.running = running,
                                  .waiting = waiting,
                                  .kv_blocks_used = (uint64_t)running * 3,
                                  .kv_blocks = 100,
                                  .steps = link->steps,
                                  .output_tokens = link->output_tokens,
                                  .layers = FAKE_LAYERS,
                                  .expert_token_count = (size_t)FAKE_LAYERS * FAKE_EXPERTS,
                                  .expert_tokens = link->experts};
    link->events.load(link->events.context, &load);
}

static void step(tsr_engine_link *link)
{
    fake_request **at = &link->first;
    int32_t running = 0;
    int32_t waiting = 0;

    while (*at != NULL && link->ready_ms == 0) {
        fake_request *r = *at;
        if (running == FAKE_SEQS && !r->cancelled) {
            waiting++;
            at = &r->next;
            continue;
        }
        if (r->since_ms == 0)
            r->since_ms = tsr_clock_ms();
        if (go_on(link, r)) {
            *at = r->next;
            drop(r);
        } else {
            running++;
            at = &r->next;
        }
    }
    link->steps++;
    say_load(link, running, waiting);
}

/* What the plan of an engine looks like, in short. */
static const char plan[] =
    "{\"ranks\":[{\"rank\":0,\"weights_bytes\":3145728,\"kv_bytes\":1024},"
    "{\"rank\":1,\"weights_bytes\":2097152,\"kv_bytes\":1024}],\"layers\":["
    "{\"layer\":0,\"modules\":{\"q_proj\":{\"weights\":\"bf16\",\"path\":\"not quantized\"}}},"
    "{\"layer\":1,\"modules\":{\"q_proj\":{\"weights\":\"fp8\",\"path\":\"<as declared>\"}}},"
    "{\"layer\":2,\"modules\":{\"q_proj\":{\"weights\":\"fp8\",\"path\":\"<as declared>\"}}}]}";

static void load_on(tsr_engine_link *link)
{
    const int64_t now = tsr_clock_ms();
    const int64_t whole = link->ready_ms - link->begun_ms;

    if (now < link->ready_ms) {
        link->events.loading(link->events.context,
                             (uint64_t)(LOAD_BYTES * (now - link->begun_ms) / whole), LOAD_BYTES);
        return;
    }
    const tsr_engine_facts facts = {
        .ranks = FAKE_RANKS,
        .max_model_len = FAKE_MODEL_LEN,
        .vocab = 1000,
        .max_num_seqs = FAKE_SEQS,
        .kv_tokens = 1600,
        .info = plan,
    };
    link->ready_ms = 0;
    link->events.ready(link->events.context, &facts);
}

static void on_turn(evutil_socket_t fd, short what, void *context)
{
    tsr_engine_link *link = context;
    const struct timeval time = {.tv_usec = (suseconds_t)link->token_ms * 1000};

    (void)fd;
    (void)what;
    (void)event_add(link->turn, &time);
    if (link->ready_ms != 0)
        load_on(link);
    else
        step(link);
}

tsr_status fake_engine_open(struct event_base *base, const tsr_engine_events *events,
                            int32_t load_ms, int32_t token_ms, tsr_engine_link **ret_link)
{
    const struct timeval soon = {.tv_usec = 1000};
    tsr_engine_link *link = calloc(1, sizeof(*link));
    if (link == NULL)
        return TSR_ERR_MEMORY;
    link->events = *events;
    link->token_ms = token_ms;
    link->begun_ms = tsr_clock_ms();
    link->ready_ms = link->begun_ms + load_ms + 1;
    link->turn = evtimer_new(base, on_turn, link);
    if (link->turn == NULL) {
        free(link);
        return TSR_ERR_MEMORY;
    }
    (void)event_add(link->turn, &soon);
    *ret_link = link;
    return TSR_OK;
}

int64_t tsr_engine_link_heard_ms(const tsr_engine_link *link)
{
    (void)link;
    return tsr_clock_ms();
}

tsr_status tsr_engine_link_submit(tsr_engine_link *link, const tsr_request *request)
{
    fake_request *r = calloc(1, sizeof(*r));
    fake_request **at = &link->first;
    if (r == NULL)
        return TSR_ERR_MEMORY;

    r->request = *request;
    r->request.prompt =
        copy_of(request->prompt, (size_t)request->prompt_tokens * sizeof(*request->prompt));
    r->request.stop_ids =
        copy_of(request->stop_ids, (size_t)request->stop_id_count * sizeof(*request->stop_ids));
    while (*at != NULL)
        at = &(*at)->next;
    *at = r;
    return TSR_OK;
}

void tsr_engine_link_cancel(tsr_engine_link *link, uint64_t id)
{
    for (fake_request *r = link->first; r != NULL; r = r->next)
        r->cancelled |= r->request.id == id;
}

void tsr_engine_link_close(tsr_engine_link *link)
{
    if (link == NULL)
        return;
    while (link->first != NULL) {
        fake_request *r = link->first;
        link->first = r->next;
        drop(r);
    }
    event_free(link->turn);
    free(link);
}
