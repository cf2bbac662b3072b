/*
 * From an output of the engine to what its client reads.
 *
 *   output -> choice by id -> text -> a whole answer, when every choice is finished
 *                                  \> an event of a stream, when there is text
 *
 * A stream's head goes out with the first event, so that a request which the engine refuses still
 * gets a status of its own. An error after that is an event.
 */
#include "launch/gateway/answer_json.h"
#include "launch/gateway/gateway_parts.h"

#include "runtime/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK_STATUS = 200, BAD_REQUEST = 400, INTERNAL = 500, UNAVAILABLE = 503 };

static double seconds_between(int64_t from_ns, int64_t to_ns)
{
    return (double)(to_ns - from_ns) / 1e9;
}

/* Frees it; its exchange may go on to the next request. */
static void close_answer(tsr_answer *answer)
{
    tsr_gateway *gateway = answer->gateway;

    for (size_t i = 0; i < answer->choice_count; i++) {
        tsr_choice *choice = &answer->choices[i];
        if (choice->id != 0)
            tsr_engine_link_cancel(gateway->link, choice->id);
        tsr_answer_list_unname(&gateway->answers, choice);
        tsr_text_stream_close(&choice->stream);
        tsr_logprobs_close(&choice->logprobs);
        tsr_logprobs_close(&choice->prompt_logprobs);
        tsr_answer_parser_close(choice->parser);
    }
    tsr_answer_list_remove(&gateway->answers, answer);
    answer->exchange->answer = NULL;
    tsr_generation_close(&answer->generation);
    free(answer->choices);
    free(answer);
}

static void count_unfinished(tsr_answer *answer, tsr_outcome outcome)
{
    answer->gateway->metrics.outcomes[outcome] += answer->choice_count - answer->finished;
}

void tsr_answer_abandon(tsr_answer *answer)
{
    count_unfinished(answer, TSR_OUTCOME_ABORT);
    close_answer(answer);
}

static void send_json(tsr_answer *answer, tsr_json_text *json)
{
    if (json->status == TSR_OK)
        tsr_http_send(answer->exchange, json->text.bytes, json->text.count);
    else
        tsr_http_cut(answer->exchange);
    answer->sent_ns = tsr_clock_ns();
    tsr_text_clear(&json->text);
}

/* The head of a stream, and who speaks in each choice, in their order: clients index choices as they
 * appear. */
static void begin_stream(tsr_answer *answer)
{
    tsr_json_text json = {0};

    if (answer->streaming)
        return;
    answer->streaming = true;
    tsr_http_stream(answer->exchange, "text/event-stream; charset=utf-8");
    for (size_t i = 0; answer->generation.chat && i < answer->choice_count; i++) {
        tsr_answer_add_chunk(answer, &answer->choices[i], TSR_CHUNK_ROLE, &json);
        send_json(answer, &json);
    }
    tsr_text_close(&json.text);
}

void tsr_answer_fail(tsr_answer *answer, const tsr_refusal *refusal)
{
    static const char done[] = "data: [DONE]\n\n";
    tsr_http_exchange *exchange = answer->exchange;

    count_unfinished(answer, TSR_OUTCOME_ERROR);
    if (answer->streaming) {
        tsr_json_text json = {0};
        tsr_json_add(&json, "data: ");
        tsr_error_add(&json, refusal);
        tsr_json_add(&json, "\n\n%s", done);
        send_json(answer, &json);
        tsr_text_close(&json.text);
        close_answer(answer);
        tsr_http_finish(exchange);
    } else {
        close_answer(answer);
        tsr_error_reply(exchange, refusal, refusal->status == UNAVAILABLE ? 1 : 0);
    }
}

static void refuse_output(tsr_answer *answer, const tsr_output *output)
{
    const bool own = output->cause == TSR_OK;
    tsr_refusal refusal = {.code = "engine_dead", .status = UNAVAILABLE};

    if (output->finish == TSR_FINISH_CANCELLED) {
        refusal.code = "cancelled";
    } else if (own && output->finish == TSR_FINISH_REFUSED) {
        refusal.code = "invalid_value";
        refusal.status = BAD_REQUEST;
    } else if (output->finish == TSR_FINISH_STUCK) {
        refusal.code = "no_token_left";
        refusal.status = BAD_REQUEST;
    } else if (own) {
        refusal.code = "not_finite";
        refusal.status = INTERNAL;
    }
    (void)snprintf(refusal.message, sizeof(refusal.message), "%s",
                   output->refusal != NULL ? output->refusal : tsr_status_text(output->cause));
    tsr_answer_fail(answer, &refusal);
}

static void observe_choice(const tsr_choice *choice)
{
    const tsr_answer *answer = choice->answer;
    tsr_metrics *metrics = &answer->gateway->metrics;
    const int32_t later = choice->output_tokens - 1;
    const bool stopped = choice->finish == TSR_FINISH_STOP || choice->stream.matched >= 0;

    metrics->outcomes[stopped ? TSR_OUTCOME_STOP : TSR_OUTCOME_LENGTH]++;
    tsr_metrics_observe(metrics, TSR_HISTOGRAM_WHOLE,
                        seconds_between(answer->exchange->begun_ns,
                                        choice->last_ns != 0 ? choice->last_ns : tsr_clock_ns()));
    tsr_metrics_observe(metrics, TSR_HISTOGRAM_OUTPUT_TOKENS, choice->output_tokens);
    tsr_metrics_observe(metrics, TSR_HISTOGRAM_DECODE,
                        seconds_between(choice->first_ns, choice->last_ns));
    tsr_metrics_observe(metrics, TSR_HISTOGRAM_COMPUTE,
                        seconds_between(answer->exchange->begun_ns + choice->queued_ns,
                                        choice->last_ns != 0 ? choice->last_ns : tsr_clock_ns()));
    if (later > 0)
        tsr_metrics_observe(metrics, TSR_HISTOGRAM_PER_TOKEN,
                            seconds_between(choice->first_ns, choice->last_ns) / later);
}

/* Times of a token that has just come. */
static void observe_token(tsr_choice *choice, const tsr_output *output)
{
    const int64_t now = tsr_clock_ns();
    tsr_metrics *metrics = &choice->answer->gateway->metrics;

    if (choice->first_ns == 0) {
        choice->first_ns = now;
        choice->queued_ns = output->queued_ns;
        tsr_metrics_observe(metrics, TSR_HISTOGRAM_FIRST_TOKEN,
                            seconds_between(choice->answer->exchange->begun_ns, now));
        metrics->prompt_tokens += (uint64_t)choice->prompt_tokens;
        tsr_metrics_observe(metrics, TSR_HISTOGRAM_QUEUE, seconds_between(0, output->queued_ns));
        if (output->first_ns > output->queued_ns)
            tsr_metrics_observe(metrics, TSR_HISTOGRAM_PREFILL,
                                seconds_between(output->queued_ns, output->first_ns));
    } else {
        tsr_metrics_observe(metrics, TSR_HISTOGRAM_INTER_TOKEN,
                            seconds_between(choice->last_ns, now));
    }
    choice->last_ns = now;
    metrics->output_tokens++;
}

/* What is new in a chat, in the order in which it was said. */
static void send_said(tsr_choice *choice)
{
    tsr_answer_parts *parts = tsr_answer_parser_parts(choice->parser);
    tsr_json_text json = {0};

    if (parts->reasoning.count > 0)
        tsr_answer_add_chunk(choice->answer, choice, TSR_CHUNK_THOUGHT, &json);
    if (parts->content.count > 0)
        tsr_answer_add_chunk(choice->answer, choice, TSR_CHUNK_TEXT, &json);
    for (; choice->calls_sent < parts->call_count; choice->calls_sent++)
        tsr_answer_add_chunk(choice->answer, choice, TSR_CHUNK_CALL, &json);
    tsr_text_clear(&parts->reasoning);
    tsr_text_clear(&parts->content);
    if (json.text.count > 0)
        send_json(choice->answer, &json);
    tsr_text_close(&json.text);
}

/* Reads what is new in a chat's text. */
static tsr_status read_said(tsr_choice *choice, bool ended)
{
    const tsr_text *text = &choice->stream.text;
    tsr_status st = TSR_OK;

    if (choice->parser == NULL)
        return TSR_OK;
    if (text->count > choice->sent)
        st = tsr_answer_parser_push(choice->parser, text->bytes + choice->sent,
                                    text->count - choice->sent);
    choice->sent = text->count;
    return st == TSR_OK && ended ? tsr_answer_parser_finish(choice->parser) : st;
}

static bool has_said(const tsr_choice *choice)
{
    const tsr_answer_parts *parts = tsr_answer_parser_parts(choice->parser);
    return parts->reasoning.count > 0 || parts->content.count > 0 ||
           parts->call_count > choice->calls_sent;
}

static void send_piece(tsr_choice *choice, bool ended)
{
    tsr_answer *answer = choice->answer;
    const bool chat = choice->parser != NULL;
    const bool fresh = chat ? has_said(choice) : choice->stream.text.count > choice->sent;
    tsr_json_text json = {0};

    if (!answer->stream || (!fresh && !ended))
        return;
    begin_stream(answer);
    if (chat)
        send_said(choice);
    if (ended || !chat)
        tsr_answer_add_chunk(answer, choice, ended ? TSR_CHUNK_END : TSR_CHUNK_TEXT, &json);
    choice->sent = choice->stream.text.count;
    if (json.text.count > 0)
        send_json(answer, &json);
    tsr_text_close(&json.text);
}

static void observe_longest(const tsr_answer *answer)
{
    int32_t longest = 0;

    for (size_t i = 0; i < answer->choice_count; i++) {
        if (answer->choices[i].output_tokens > longest)
            longest = answer->choices[i].output_tokens;
    }
    tsr_metrics_observe(&answer->gateway->metrics, TSR_HISTOGRAM_LONGEST, longest);
}

/* Of a token, as the engine says: longer answers are not worse for being longer. */
static double worth_of(const tsr_choice *choice)
{
    return choice->output_tokens > 0 ? choice->logprob_sum / choice->output_tokens : 0;
}

/* The best of each prompt's answers in front, equals as they were. */
static void put_best_first(tsr_answer *answer)
{
    const size_t copies = (size_t)answer->copies;

    for (size_t i = 0; i < answer->choice_count; i++) {
        const tsr_choice one = answer->choices[i];
        size_t at = i;
        for (; at % copies > 0 && worth_of(&answer->choices[at - 1]) < worth_of(&one); at--)
            answer->choices[at] = answer->choices[at - 1];
        answer->choices[at] = one;
    }
    for (size_t i = 0; i < answer->choice_count; i++)
        answer->choices[i].index =
            (int32_t)(i / copies * (size_t)answer->generation.kept + i % copies);
}

static void reply_healthy(tsr_answer *answer)
{
    tsr_http_exchange *exchange = answer->exchange;
    tsr_json_text json = {0};

    close_answer(answer);
    tsr_json_add(&json, "{\"status\":\"ok\"}");
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}

static void finish_answer(tsr_answer *answer)
{
    tsr_http_exchange *exchange = answer->exchange;
    tsr_json_text json = {0};

    observe_longest(answer);
    if (answer->is_probe) {
        reply_healthy(answer);
        return;
    }
    if (answer->generation.kept < answer->copies)
        put_best_first(answer);

    if (answer->stream) {
        if (answer->include_usage)
            tsr_answer_add_usage_chunk(answer, &json);
        tsr_json_add(&json, "data: [DONE]\n\n");
        send_json(answer, &json);
        tsr_text_close(&json.text);
        close_answer(answer);
        tsr_http_finish(exchange);
        return;
    }
    tsr_answer_add_whole(answer, &json);
    close_answer(answer);
    tsr_exchange_reply_json(exchange, OK_STATUS, &json);
}

static tsr_status push_output(tsr_choice *choice, const tsr_output *output, bool *ret_cancel)
{
    const tsr_token_logprob token = {output->token, output->logprob};
    tsr_status st = TSR_OK;

    choice->logprob_sum += output->token >= 0 ? (double)output->logprob : 0;
    if (choice->answer->generation.logprobs && output->token >= 0)
        st = tsr_logprobs_add(&choice->logprobs, &token, output->top, 1);
    return st == TSR_OK ? tsr_text_stream_push(&choice->stream, output, ret_cancel) : st;
}

/* A list of fewer others takes the first of them. */
static tsr_status add_scores(tsr_choice *choice, const tsr_prompt_scores *scores)
{
    const tsr_generation *g = &choice->answer->generation;
    tsr_status st = TSR_OK;

    for (int32_t i = 0; i < scores->count && st == TSR_OK; i++) {
        const size_t first = (size_t)i * (size_t)scores->top_count;
        const tsr_token_logprob *top = scores->top_count > 0 ? scores->top + first : NULL;
        if (g->echo && g->logprobs)
            st = tsr_logprobs_add(&choice->logprobs, &scores->token[i], top, 1);
        if (st == TSR_OK && g->prompt_top >= 0)
            st = tsr_logprobs_add(&choice->prompt_logprobs, &scores->token[i], top, 1);
    }
    return st;
}

void tsr_answer_take_scores(tsr_gateway *gateway, const tsr_prompt_scores *scores)
{
    tsr_choice *choice = tsr_answer_list_find(&gateway->answers, scores->id);

    if (choice != NULL && add_scores(choice, scores) != TSR_OK)
        tsr_http_cut(choice->answer->exchange);
}

void tsr_answer_take_output(tsr_gateway *gateway, const tsr_output *output)
{
    tsr_choice *choice = tsr_answer_list_find(&gateway->answers, output->id);
    bool cancel = false;

    if (choice == NULL)
        return;
    tsr_answer *answer = choice->answer;
    if (output->finish == TSR_FINISH_REFUSED || output->finish == TSR_FINISH_FAILED ||
        output->finish == TSR_FINISH_STUCK || output->finish == TSR_FINISH_CANCELLED) {
        tsr_answer_list_unname(&gateway->answers, choice);
        refuse_output(answer, output);
        return;
    }
    choice->finish = output->finish;
    choice->prompt_tokens = output->prompt_tokens;
    choice->output_tokens = output->output_tokens;
    choice->cached_tokens = output->cached_tokens;
    if (output->token >= 0) {
        choice->last_token = output->token;
        observe_token(choice, output);
    }
    if (push_output(choice, output, &cancel) != TSR_OK) {
        tsr_http_cut(answer->exchange);
        return;
    }
    const bool ended = cancel || output->finish != TSR_FINISH_NONE;
    if (read_said(choice, ended) != TSR_OK) {
        tsr_http_cut(answer->exchange);
        return;
    }
    if (cancel)
        tsr_engine_link_cancel(gateway->link, choice->id);
    if (ended) {
        tsr_answer_list_unname(&gateway->answers, choice);
        answer->finished++;
        observe_choice(choice);
    }
    send_piece(choice, ended);
    if (answer->finished == answer->choice_count)
        finish_answer(answer);
}

/* A probe whose time is over: an engine that gives others their tokens is well, and busy. */
static void end_probe(tsr_answer *answer)
{
    tsr_refusal refusal = {.code = "engine_dead", .status = UNAVAILABLE};

    if (answer->gateway->metrics.output_tokens > answer->tokens_before) {
        reply_healthy(answer);
        return;
    }
    (void)snprintf(refusal.message, sizeof(refusal.message),
                   "the engine has given nobody a token since this was asked");
    tsr_answer_fail(answer, &refusal);
}

void tsr_answer_end_probes(tsr_gateway *gateway)
{
    const int64_t now = tsr_clock_ns();
    tsr_answer *next = NULL;

    for (tsr_answer *a = gateway->answers.first; a != NULL; a = next) {
        next = a->next;
        if (a->is_probe && now > a->due_ns)
            end_probe(a);
    }
}

void tsr_answer_ping_all(tsr_gateway *gateway)
{
    static const char ping[] = ": ping\n\n";
    const int64_t silent_ns = gateway->args.config->sse_ping_interval * 1000000000;
    const int64_t now = tsr_clock_ns();

    for (tsr_answer *a = gateway->answers.first; a != NULL && silent_ns > 0; a = a->next) {
        if (!a->stream || now - a->sent_ns < silent_ns)
            continue;
        begin_stream(a);
        tsr_http_send(a->exchange, ping, sizeof(ping) - 1);
        a->sent_ns = now;
    }
}
