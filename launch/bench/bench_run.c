/*
 * A step gives each sequence that decodes one token, so the time from one token of the last
 * sequence to its next is a step's. It is the last to be admitted: when it has begun, all have.
 */
#include "launch/bench/bench_run.h"

#include "launch/job/signals.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <stdlib.h>

enum { PREFILL_RUNS = 3, FOREVER = 1 << 24 };

/* Rounds of a case. */
enum { COUNTED, BY_STAGES, TIMED };

struct tsr_bench_run {
    const tsr_bench_cases *cases;
    tsr_model *model;
    tsr_bench_result *result; /* [count] */
    int64_t *experts;         /* behind the results */
    int32_t *prompt;          /* the longest */
    int64_t *took;            /* [max(steps, PREFILL_RUNS)] */
    int32_t vocab;
    int32_t ranks;
    uint64_t random;
    uint64_t next_id;
    int32_t at;        /* case */
    int32_t round;     /* of it: COUNTED, BY_STAGES, then TIMED and more */
    int32_t submitted; /* requests of this round */
    int32_t begun;
    int32_t ended;
    int32_t warm; /* decode: steps behind the counted one */
    int32_t timed;
    int64_t since_ns;
    bool looks;   /* decode: a step is looked at, or was */
    bool closing; /* decode: measured, every request is cancelled */
    tsr_routing_tally tally;
    tsr_stage_times times;
};

tsr_status tsr_bench_run_open(const tsr_bench_cases *cases, const tsr_plan *plan, uint64_t seed,
                              tsr_bench_run **ret_run)
{
    const size_t layers = (size_t)plan->model.layers;
    const size_t count = (size_t)cases->count;
    int32_t longest = 1;
    tsr_bench_run *run = calloc(1, sizeof(*run));
    if (run == NULL)
        return TSR_ERR_MEMORY;

    for (size_t i = 0; i < count; i++)
        longest = tsr_larger(longest, cases->of[i].prompt_tokens);
    *run = (tsr_bench_run){
        .cases = cases,
        .result = calloc(count + 1, sizeof(*run->result)),
        .experts = calloc((count + 1) * layers, sizeof(*run->experts)),
        .prompt = calloc((size_t)longest, sizeof(*run->prompt)),
        .took = calloc((size_t)tsr_larger(cases->steps, PREFILL_RUNS), sizeof(*run->took)),
        .vocab = plan->model.vocab,
        .ranks = plan->ranks,
        .random = seed,
    };
    if (run->result == NULL || run->experts == NULL || run->prompt == NULL || run->took == NULL) {
        tsr_bench_run_close(run);
        return TSR_ERR_MEMORY;
    }
    for (size_t i = 0; i < count; i++)
        run->result[i].experts = run->experts + i * layers;
    *ret_run = run;
    return TSR_OK;
}

void tsr_bench_run_use(tsr_bench_run *run, tsr_model *model)
{
    run->model = model;
}

static const tsr_bench_case *case_of(const tsr_bench_run *run)
{
    return &run->cases->of[run->at];
}

static int by_duration(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a;
    const int64_t y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The next step that is launched is counted into the case's result. */
static tsr_status count_next(tsr_bench_run *run)
{
    run->tally = (tsr_routing_tally){.experts = run->result[run->at].experts};
    return tsr_model_tally_next(run->model, &run->tally);
}

static tsr_status look_at_next(tsr_bench_run *run)
{
    return run->round == COUNTED ? count_next(run) : tsr_model_time_next(run->model, &run->times);
}

/* Of one rank it is known what it computes when all prompts come in one step. */
static tsr_status check_step(const tsr_bench_run *run)
{
    const tsr_bench_case *c = case_of(run);
    const int32_t tokens = c->decode ? c->prompts : c->prompts * c->prompt_tokens;

    if (run->ranks > 1 || run->tally.tokens == tokens)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "bench: a step of %dx%d had %d of %d tokens", c->prompts,
            c->prompt_tokens, run->tally.tokens, tokens);
    return TSR_ERR_INTERNAL;
}

static tsr_status next_case(tsr_bench_run *run)
{
    const tsr_bench_case *c = case_of(run);
    tsr_bench_result *result = &run->result[run->at];

    const tsr_status st = check_step(run);
    if (st != TSR_OK)
        return st;
    qsort(run->took, (size_t)run->timed, sizeof(*run->took), by_duration);
    result->step_ns = run->took[run->timed / 2];
    result->tokens = run->tally.tokens;
    result->times = run->times;
    tsr_log(TSR_LOG_INFO, "%s %dx%d: %.3f ms a step", c->decode ? "decode" : "prefill", c->prompts,
            c->prompt_tokens, (double)result->step_ns / 1e6);
    run->at++;
    run->round = 0;
    run->submitted = 0;
    run->begun = 0;
    run->ended = 0;
    run->warm = 0;
    run->timed = 0;
    run->looks = false;
    run->closing = false;
    return TSR_OK;
}

/* splitmix64 */
static uint64_t draw(tsr_bench_run *run)
{
    uint64_t z = run->random += 0x9e3779b97f4a7c15U;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static tsr_request next_prompt(tsr_bench_run *run)
{
    const tsr_bench_case *c = case_of(run);

    for (int32_t i = 0; i < c->prompt_tokens; i++)
        run->prompt[i] = (int32_t)(draw(run) % (uint64_t)run->vocab);
    run->submitted++;
    return (tsr_request){
        .id = run->next_id++,
        .prompt = run->prompt,
        .prompt_tokens = c->prompt_tokens,
        .max_tokens = c->decode ? FOREVER : 1,
        .top_p = 1.0F,
        .ignore_eos = true,
    };
}

/* There is always a case under way, or none ever again. */
static tsr_status ask_for_prompt(void *context, const tsr_question *question, tsr_wish *ret_wish)
{
    tsr_bench_run *run = context;
    tsr_status st = TSR_OK;

    if (run->at == run->cases->count)
        ret_wish->kind = TSR_WISH_END;
    else if (tsr_signals_drain())
        ret_wish->kind = TSR_WISH_DRAIN;
    else if (question->room && run->submitted < case_of(run)->prompts)
        ret_wish->kind = TSR_WISH_REQUEST;
    if (ret_wish->kind != TSR_WISH_REQUEST)
        return TSR_OK;
    if (run->submitted == 0 && run->round < TIMED && !case_of(run)->decode)
        st = look_at_next(run);
    ret_wish->request = next_prompt(run);
    if (run->submitted == 1)
        run->since_ns = tsr_clock_ns();
    return st;
}

/* A prompt's one token has come. */
static tsr_status end_prefill(tsr_bench_run *run)
{
    run->ended++;
    if (run->ended < case_of(run)->prompts)
        return TSR_OK;
    if (run->round >= TIMED)
        run->took[run->timed++] = tsr_clock_ns() - run->since_ns;
    run->round++;
    run->submitted = 0;
    run->ended = 0;
    return run->timed == PREFILL_RUNS ? next_case(run) : TSR_OK;
}

/* Decode: the step that was looked at may be one under way. */
static tsr_status end_look(tsr_bench_run *run)
{
    if (!(run->round == COUNTED ? run->tally.done : run->times.done))
        return TSR_OK;
    run->round++;
    return run->round < TIMED ? look_at_next(run) : TSR_OK;
}

/* A token of the last sequence: a step is over. */
static tsr_status tick(tsr_bench_run *run)
{
    const int64_t now_ns = tsr_clock_ns();

    if (run->begun < case_of(run)->prompts)
        return TSR_OK; /* one of another rank is late */
    if (!run->looks) {
        run->looks = true;
        return look_at_next(run);
    }
    if (run->round < TIMED)
        return end_look(run);
    if (run->warm++ >= TSR_BENCH_WARM_STEPS)
        run->took[run->timed++] = now_ns - run->since_ns;
    run->since_ns = now_ns;
    run->closing = run->timed == run->cases->steps;
    return TSR_OK;
}

static tsr_status take_decoded(tsr_bench_run *run, const tsr_output *output, bool *ret_cancel)
{
    const tsr_bench_case *c = case_of(run);
    tsr_status st = TSR_OK;

    run->begun += output->output_tokens == 1 && output->token >= 0;
    if (!run->closing && output->id == run->next_id - 1)
        st = tick(run);
    *ret_cancel = run->closing;
    run->ended += output->finish != TSR_FINISH_NONE;
    return st == TSR_OK && run->ended == c->prompts ? next_case(run) : st;
}

static tsr_status take_token(void *context, const tsr_output *output, bool *ret_cancel)
{
    tsr_bench_run *run = context;
    const tsr_bench_case *c = case_of(run);

    *ret_cancel = false;
    if (output->refusal != NULL) {
        tsr_log(TSR_LOG_ERROR, "bench: a prompt of %d ids: %s", c->prompt_tokens, output->refusal);
        return TSR_ERR_ARG;
    }
    if (c->decode && output->finish != TSR_FINISH_NONE && !run->closing) {
        tsr_log(TSR_LOG_ERROR, "bench: a sequence ended after %d tokens, before it was measured",
                output->output_tokens);
        return TSR_ERR_INTERNAL;
    }
    if (c->decode)
        return take_decoded(run, output, ret_cancel);
    return end_prefill(run);
}

tsr_source tsr_bench_run_source(tsr_bench_run *run)
{
    return (tsr_source){.ask = ask_for_prompt, .context = run};
}

tsr_sink tsr_bench_run_sink(tsr_bench_run *run)
{
    return (tsr_sink){.token = take_token, .context = run};
}

const tsr_bench_result *tsr_bench_run_result(const tsr_bench_run *run, int32_t index)
{
    return &run->result[index];
}

void tsr_bench_run_close(tsr_bench_run *run)
{
    if (run == NULL)
        return;
    free(run->result);
    free(run->experts);
    free(run->prompt);
    free(run->took);
    free(run);
}
