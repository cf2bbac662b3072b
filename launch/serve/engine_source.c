/* A request that the engine has no room for waits here as the message it came in, and can be
 * cancelled here too. Nothing here waits for the gateway but an idle engine. */
#include "launch/serve/engine_source.h"

#include "launch/job/signals.h"
#include "launch/link/link.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { LOAD_MS = 1000, LAST_WORDS_MS = 1000, FIRST_ROOM = 16 };

struct tsr_engine_source {
    tsr_serve_link link;
    tsr_serve_arrived *queue; /* [room] in order of arrival from `first` on, around the end */
    size_t room;
    size_t first;
    size_t count;
    tsr_serve_arrived asked; /* what the engine was given last points into it */
    tsr_token_rules rules;   /* of that, for a message has only what is used */
    bool has_ended;
    bool has_said_drain;
    int64_t load_ms; /* when the gateway was last told of the load */
    int32_t layers;
    int32_t experts;
    uint64_t expert_steps; /* of the rows of experts that it was last told of */
};

static tsr_status gateway_gone(void)
{
    tsr_log(TSR_LOG_ERROR, "the gateway has ended: there is nobody to serve");
    return TSR_ERR_PEER;
}

tsr_status tsr_engine_source_open(int fd, tsr_engine_source **ret_source)
{
    const tsr_serve_message hello = {
        .kind = TSR_SERVE_HELLO,
        .hello = {.version = TSR_SERVE_VERSION, .program = "tessera " TSR_VERSION}};
    tsr_engine_source *source = calloc(1, sizeof(*source));
    if (source == NULL)
        return TSR_ERR_MEMORY;

    source->link.fd = -1;
    tsr_status st = tsr_serve_link_open(fd, &source->link);
    if (st == TSR_OK)
        st = tsr_serve_link_add(&source->link, &hello);
    if (st != TSR_OK) {
        tsr_engine_source_close(source);
        return st;
    }
    tsr_serve_link_push(&source->link);
    *ret_source = source;
    return TSR_OK;
}

void tsr_engine_source_loading(tsr_engine_source *source, uint64_t bytes, uint64_t total)
{
    const tsr_serve_message message = {.kind = TSR_SERVE_LOADING,
                                       .loading = {.bytes = bytes, .total = total}};
    if (tsr_serve_link_add(&source->link, &message) == TSR_OK)
        tsr_serve_link_push(&source->link);
}

tsr_status tsr_engine_source_ready(tsr_engine_source *source, const tsr_plan *plan,
                                   const char *info)
{
    const tsr_engine_limits *l = &plan->limits;
    const tsr_serve_message message = {
        .kind = TSR_SERVE_READY,
        .ready = {.ranks = plan->ranks,
                  .max_model_len = l->max_model_len,
                  .vocab = plan->model.vocab,
                  .max_num_seqs = l->max_num_seqs * plan->ranks,
                  .kv_tokens = (int64_t)l->kv_blocks * l->kv_block_tokens * plan->ranks,
                  .info = info},
    };
    const tsr_status st = tsr_serve_link_add(&source->link, &message);
    source->layers = plan->model.layers;
    source->experts = plan->model.experts;
    tsr_serve_link_push(&source->link);
    return st;
}

static tsr_serve_arrived *queued(const tsr_engine_source *source, size_t i)
{
    return &source->queue[(source->first + i) % source->room];
}

static tsr_status enqueue(tsr_engine_source *source, const tsr_serve_arrived *arrived)
{
    if (source->count == source->room) {
        const size_t room = source->room > 0 ? source->room * 2 : FIRST_ROOM;
        tsr_serve_arrived *grown = calloc(room, sizeof(*grown));
        if (grown == NULL)
            return TSR_ERR_MEMORY;
        for (size_t i = 0; i < source->count; i++)
            grown[i] = *queued(source, i);
        free(source->queue);
        source->queue = grown;
        source->room = room;
        source->first = 0;
    }
    *queued(source, source->count++) = *arrived;
    return TSR_OK;
}

/* Takes the i-th out of the queue. */
static tsr_serve_arrived dequeue(tsr_engine_source *source, size_t i)
{
    const tsr_serve_arrived taken = *queued(source, i);

    for (size_t j = i; j > 0; j--)
        *queued(source, j) = *queued(source, j - 1);
    source->first = (source->first + 1) % source->room;
    source->count--;
    return taken;
}

/* What the gateway has not read for so long that it never will. */
static tsr_status add_message(tsr_engine_source *source, const tsr_serve_message *message)
{
    const tsr_status st = tsr_serve_link_add(&source->link, message);
    if (st == TSR_ERR_CAPACITY) {
        tsr_log(TSR_LOG_ERROR, "the gateway does not read what it is sent");
        return TSR_ERR_PEER;
    }
    return st;
}

static tsr_status add_output(tsr_engine_source *source, const tsr_output *output)
{
    const tsr_serve_message message = {
        .kind = TSR_SERVE_OUTPUT,
        .output = {.id = output->id,
                   .token = output->token,
                   .logprob = output->logprob,
                   .finish = (int32_t)output->finish,
                   .prompt_tokens = output->prompt_tokens,
                   .output_tokens = output->output_tokens,
                   .cause = (int32_t)output->cause,
                   .cached_tokens = output->cached_tokens,
                   .queued_ns = output->queued_ns,
                   .first_ns = output->first_ns,
                   .top = output->top,
                   .top_count = output->top_count,
                   .refusal = output->refusal != NULL ? output->refusal : ""},
    };
    return add_message(source, &message);
}

/* True when the request waited here, and its end is on its way. */
static tsr_status cancel_queued(tsr_engine_source *source, uint64_t id, bool *ret_cancelled)
{
    size_t i = 0;

    while (i < source->count && queued(source, i)->message.submit.id != id)
        i++;
    *ret_cancelled = i < source->count;
    if (i == source->count)
        return TSR_OK;
    tsr_serve_arrived taken = dequeue(source, i);
    const tsr_output output = {.id = id,
                               .token = -1,
                               .finish = TSR_FINISH_CANCELLED,
                               .prompt_tokens =
                                   taken.message.submit.prompt_count - taken.message.submit.given};
    tsr_serve_arrived_close(&taken);
    return add_output(source, &output);
}

/* One message of the gateway; *ret_wish stays as it is unless the engine is to act on it now. */
static tsr_status take_message(tsr_engine_source *source, tsr_serve_arrived *arrived,
                               tsr_wish *ret_wish)
{
    const tsr_serve_message *m = &arrived->message;
    tsr_status st = TSR_OK;
    bool cancelled = false;

    if (m->kind == TSR_SERVE_SUBMIT) {
        st = enqueue(source, arrived);
        if (st == TSR_OK)
            return st;
    } else if (m->kind == TSR_SERVE_CANCEL) {
        st = cancel_queued(source, m->cancel, &cancelled);
        if (!cancelled)
            *ret_wish = (tsr_wish){.kind = TSR_WISH_CANCEL, .cancel = m->cancel};
    } else if (m->kind == TSR_SERVE_END) {
        source->has_ended = true;
    } else {
        tsr_log(TSR_LOG_ERROR, "the gateway sends what only an engine says");
        st = TSR_ERR_MISMATCH;
    }
    tsr_serve_arrived_close(arrived);
    return st;
}

/* Everything that has come, up to a cancel. */
static tsr_status take_messages(tsr_engine_source *source, int32_t wait_ms, tsr_wish *ret_wish)
{
    tsr_status st = TSR_OK;
    bool any = true;

    while (st == TSR_OK && any && ret_wish->kind == TSR_WISH_NOTHING) {
        tsr_serve_arrived arrived;
        const bool idle = source->count == 0 && !source->has_ended;
        st = tsr_serve_link_take(&source->link, idle ? wait_ms : 0, &arrived, &any);
        if (st == TSR_OK && any)
            st = take_message(source, &arrived, ret_wish);
    }
    if (st == TSR_ERR_PEER && source->has_ended)
        return TSR_OK;
    return st == TSR_ERR_PEER ? gateway_gone() : st;
}

static tsr_request request_of(const tsr_serve_submit *s, tsr_token_rules *rules)
{
    if (s->rules != NULL)
        memcpy(rules, s->rules, tsr_rules_bytes(s->rules));
    return (tsr_request){
        .id = s->id,
        .prompt = s->prompt,
        .prompt_tokens = s->prompt_count - s->given,
        .given = s->prompt + (s->prompt_count - s->given),
        .given_tokens = s->given,
        .priority = s->priority,
        .min_p = s->min_p,
        .rules = s->rules != NULL ? rules : NULL,
        .guide = s->guide,
        .score_prompt = s->score_prompt,
        .score_top = s->score_top,
        .top = s->top,
        .max_tokens = s->max_tokens,
        .temperature = s->temperature,
        .top_p = s->top_p,
        .top_k = s->top_k,
        .stop_id_count = s->stop_id_count,
        .stop_ids = s->stop_ids,
        .seed = s->seed,
        .cache_salt = s->cache_salt,
        .has_seed = true,
        .ignore_eos = s->ignore_eos,
    };
}

static tsr_status send_load(tsr_engine_source *source, const tsr_engine_stats *stats)
{
    const int64_t now_ms = tsr_clock_ms();
    const bool counted = stats->expert_steps != source->expert_steps;
    const tsr_serve_message message = {
        .kind = TSR_SERVE_LOAD,
        .load = {.running = stats->running,
                 .waiting = stats->waiting + (int32_t)source->count,
                 .kv_blocks_used = stats->kv_blocks_used,
                 .kv_blocks = stats->kv_blocks,
                 .steps = stats->steps,
                 .prompt_tokens = stats->prompt_tokens,
                 .output_tokens = stats->output_tokens,
                 .preemptions = stats->preemptions,
                 .prefix_queries = stats->prefix_queries,
                 .prefix_hits = stats->prefix_hits,
                 .layers = counted ? source->layers : 0,
                 .expert_token_count =
                     counted ? (size_t)source->layers * (size_t)source->experts : 0,
                 .expert_tokens = stats->expert_rows,
                 .expert_steps = stats->expert_steps},
    };

    if (now_ms - source->load_ms < LOAD_MS)
        return TSR_OK;
    source->load_ms = now_ms;
    source->expert_steps = stats->expert_steps;
    return tsr_serve_link_add(&source->link, &message);
}

static tsr_status say_drain(tsr_engine_source *source)
{
    static const tsr_serve_message message = {.kind = TSR_SERVE_DRAIN};

    if (source->has_said_drain || tsr_signals_drain() == 0)
        return TSR_OK;
    source->has_said_drain = true;
    return tsr_serve_link_add(&source->link, &message);
}

static tsr_status ask(void *context, const tsr_question *question, tsr_wish *ret_wish)
{
    tsr_engine_source *source = context;
    tsr_wish wish = {0};

    tsr_serve_arrived_close(&source->asked);
    tsr_status st = say_drain(source);
    if (st == TSR_OK)
        st = send_load(source, question->stats);
    tsr_serve_link_push(&source->link);
    if (st == TSR_OK)
        st = take_messages(source, question->wait_ms, &wish);
    if (st != TSR_OK)
        return st;
    if (wish.kind == TSR_WISH_NOTHING && source->count > 0 && question->room) {
        source->asked = dequeue(source, 0);
        wish = (tsr_wish){.kind = TSR_WISH_REQUEST,
                          .request = request_of(&source->asked.message.submit, &source->rules)};
    } else if (wish.kind == TSR_WISH_NOTHING && source->count == 0 && source->has_ended) {
        wish.kind = TSR_WISH_END;
    }
    *ret_wish = wish;
    return TSR_OK;
}

static tsr_status take_token(void *context, const tsr_output *output, bool *ret_cancel)
{
    *ret_cancel = false;
    return add_output(context, output);
}

static tsr_status take_scores(void *context, const tsr_prompt_scores *scores)
{
    const tsr_serve_message message = {
        .kind = TSR_SERVE_SCORES,
        .scores = {.id = scores->id,
                   .token = scores->token,
                   .top = scores->top,
                   .first_position = scores->first_position,
                   .count = scores->count,
                   .top_count = scores->top_count},
    };
    return add_message(context, &message);
}

tsr_source tsr_engine_source_source(tsr_engine_source *source)
{
    return (tsr_source){.ask = ask, .context = source};
}

tsr_sink tsr_engine_source_sink(tsr_engine_source *source)
{
    return (tsr_sink){.token = take_token, .scores = take_scores, .context = source};
}

/* The last outputs, if the gateway reads them. */
static void send_rest(tsr_engine_source *source)
{
    const int64_t until_ms = tsr_clock_ms() + LAST_WORDS_MS;

    for (;;) {
        tsr_serve_link_push(&source->link);
        if (!tsr_serve_link_waiting(&source->link))
            return;
        const int64_t left_ms = until_ms - tsr_clock_ms();
        struct pollfd p = {.fd = source->link.fd, .events = POLLOUT};
        if (left_ms <= 0 || poll(&p, 1, (int)left_ms) <= 0)
            return;
    }
}

void tsr_engine_source_close(tsr_engine_source *source)
{
    if (source == NULL)
        return;
    if (source->link.fd >= 0)
        send_rest(source);
    while (source->count > 0) {
        tsr_serve_arrived taken = dequeue(source, 0);
        tsr_serve_arrived_close(&taken);
    }
    tsr_serve_arrived_close(&source->asked);
    tsr_serve_link_close(&source->link);
    free(source->queue);
    free(source);
}
