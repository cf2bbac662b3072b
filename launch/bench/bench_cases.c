/*
 * A case runs as it is meant when all its sequences are on their ranks at once, with blocks for
 * every position they get to. The scheduler gives prompts what a step has left, so that the first
 * sequences of a large batch are some steps ahead of the last.
 */
#include "launch/bench/bench_cases.h"

#include "proto/admission.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/plan/batch.h"
#include "runtime/plan/shapes.h"

#include <stdlib.h>
#include <string.h>

enum { DECIMAL = 10, MOST_PROMPTS = 65536, MOST_TOKENS = 1 << 20, USUAL_BLOCK = 16 };

/* Bytes of an admission beside its ids, as ids that would take as many. */
enum { ADMISSION_IDS = 32 };

/* Steps that are not timed: those under way when something is asked for, counted or cancelled too. */
enum { UNTIMED_STEPS = 2 * TSR_BENCH_WARM_STEPS, LEAST_AHEAD = 2 * TSR_MAX_FLIGHTS };

/* Ids that are admitted in a step for sure. */
enum { ADMITTED_IDS = 8192 };

/* A number of 1 to `most` at *text, which moves behind it; 0 for anything else. */
static int32_t read_count(const char **text, int32_t most)
{
    char *end = NULL;
    const long value = **text >= '0' && **text <= '9' ? strtol(*text, &end, DECIMAL) : 0;

    if (value < 1 || value > most)
        return 0;
    *text = end;
    return (int32_t)value;
}

/* "4096" or "8x2048"; of a decode case the number is that of prompts. */
static bool read_case(const char **text, bool decode, tsr_bench_case *c)
{
    c->decode = decode;
    c->prompts = 1;
    int32_t number = read_count(text, decode ? MOST_PROMPTS : MOST_TOKENS);
    if (!decode && number > 0 && **text == 'x') {
        ++*text;
        c->prompts = tsr_smaller(number, MOST_PROMPTS);
        number = read_count(text, MOST_TOKENS);
    }
    if (decode)
        c->prompts = number;
    else
        c->prompt_tokens = number;
    return number > 0 && (**text == ',' || **text == '\0');
}

static tsr_status read_list(const char *option, const char *text, bool decode,
                            tsr_bench_cases *cases)
{
    const char *at = text;

    if (strcmp(text, "none") == 0)
        return TSR_OK;
    do {
        at += *at == ',';
        if (cases->count == TSR_BENCH_MOST_CASES) {
            tsr_log(TSR_LOG_ERROR, "--%s %s: more than %d rows", option, text,
                    TSR_BENCH_MOST_CASES);
            return TSR_ERR_ARG;
        }
        if (!read_case(&at, decode, &cases->of[cases->count++])) {
            tsr_log(TSR_LOG_ERROR, "--%s %s: expected %s, or none", option, text,
                    decode ? "numbers such as 1,8,32" : "numbers such as 4096,8x2048");
            return TSR_ERR_ARG;
        }
    } while (*at != '\0');
    return TSR_OK;
}

/* So that its middle timed step has `context` positions, the new one included. */
static int32_t decode_prompt(const tsr_bench_cases *cases)
{
    return tsr_larger(1, cases->context - TSR_BENCH_WARM_STEPS - cases->steps / 2);
}

tsr_status tsr_bench_cases_read(const tsr_config *config, tsr_bench_cases *ret_cases)
{
    tsr_bench_cases cases = {.context = (int32_t)config->context, .steps = (int32_t)config->steps};

    tsr_status st = read_list("batch", config->batch, true, &cases);
    for (int32_t i = 0; i < cases.count; i++)
        cases.of[i].prompt_tokens = decode_prompt(&cases);
    if (st == TSR_OK)
        st = read_list("prefill", config->prefill, false, &cases);
    if (st == TSR_OK)
        *ret_cases = cases;
    return st;
}

/* Prompts of one rank. */
static int32_t share_of(const tsr_bench_case *c, int32_t ranks)
{
    return tsr_pieces(c->prompts, ranks);
}

/* Positions that the longest sequence of a case may get to where a rank computes so many tokens in
 * a step. */
static int64_t length_of(const tsr_bench_cases *cases, const tsr_bench_case *c, int32_t ranks,
                         int32_t step_tokens)
{
    const int64_t tokens = (int64_t)share_of(c, ranks) * c->prompt_tokens;

    if (!c->decode)
        return (int64_t)c->prompt_tokens + 1;
    /* twice the steps that the prompts need at least: those that decode take from their room */
    const int64_t ahead = 2 * (tokens / tsr_smaller(step_tokens, ADMITTED_IDS)) + LEAST_AHEAD;
    return c->prompt_tokens + ahead + UNTIMED_STEPS + cases->steps;
}

/* Positions of all sequences of a rank, in whole blocks, with the one more that each is left. */
static int64_t positions_of(const tsr_bench_case *c, int32_t ranks, int64_t length, int32_t block)
{
    return (int64_t)share_of(c, ranks) * (tsr_pieces_64(length, block) + 1) * block;
}

/* Tokens of a step: a prefill is one step by its meaning; what decodes is brought there in large
 * ones. */
static int64_t step_tokens_of(const tsr_bench_case *c, int32_t ranks)
{
    const int64_t tokens = (int64_t)share_of(c, ranks) * c->prompt_tokens;

    if (!c->decode)
        return tokens;
    return tsr_larger_64(share_of(c, ranks), tsr_smaller_64(tokens, ADMITTED_IDS));
}

static tsr_status need_steps(const tsr_bench_cases *cases, int32_t ranks, tsr_job_needs *needs)
{
    int64_t most = 1;

    for (int32_t i = 0; i < cases->count; i++) {
        const tsr_bench_case *c = &cases->of[i];
        needs->max_num_seqs = tsr_larger(needs->max_num_seqs, share_of(c, ranks));
        most = tsr_larger_64(most, step_tokens_of(c, ranks));
    }
    if (most > MOST_TOKENS) {
        tsr_log(TSR_LOG_ERROR, "--prefill: %lld tokens of a rank in one step, at most %d",
                (long long)most, MOST_TOKENS);
        return TSR_ERR_ARG;
    }
    needs->max_batched_tokens = (int32_t)most;
    return TSR_OK;
}

/* Positions of a sequence that make room for the prompts of a prefill to be admitted in one step,
 * where a step admits so many more ids. */
static int64_t admitting_length(const tsr_bench_case *c)
{
    return c->decode
               ? 0
               : (int64_t)c->prompts * (c->prompt_tokens + ADMISSION_IDS) - TSR_MORE_PROMPT_IDS;
}

tsr_status tsr_bench_needs(const tsr_bench_cases *cases, const tsr_config *config,
                           const tsr_model_facts *model, int32_t ranks, tsr_job_needs *ret_needs)
{
    const int32_t block = config->block_size > 0 ? (int32_t)config->block_size : USUAL_BLOCK;
    tsr_job_needs needs = {.max_model_len = 1, .max_num_seqs = 1};

    tsr_status st = need_steps(cases, ranks, &needs);
    if (st == TSR_OK && config->max_batched_tokens > 0)
        needs.max_batched_tokens = (int32_t)config->max_batched_tokens;
    for (int32_t i = 0; i < cases->count && st == TSR_OK; i++) {
        const tsr_bench_case *c = &cases->of[i];
        const int64_t length = length_of(cases, c, ranks, needs.max_batched_tokens);
        const int64_t longest = tsr_larger_64(length, admitting_length(c));
        if (length > model->max_positions) {
            tsr_log(TSR_LOG_ERROR, "--%s: sequences get to %lld positions, the model has %d",
                    c->decode ? "context" : "prefill", (long long)length, model->max_positions);
            st = TSR_ERR_ARG;
        }
        needs.max_model_len = (int32_t)tsr_smaller_64(tsr_larger_64(needs.max_model_len, longest),
                                                      model->max_positions);
        needs.kv_positions =
            tsr_larger_64(needs.kv_positions, positions_of(c, ranks, length, block));
    }
    if (st == TSR_OK)
        *ret_needs = needs;
    return st;
}

/* Only a prefill is one step by its meaning: all its prompts are admitted and computed in it. */
static tsr_status check_prefill(const tsr_bench_case *c, const tsr_plan *plan)
{
    const tsr_engine_limits *l = &plan->limits;
    const int64_t tokens = (int64_t)share_of(c, plan->ranks) * c->prompt_tokens;
    const uint64_t admitted =
        (uint64_t)c->prompts * tsr_admission_max_bytes((uint32_t)c->prompt_tokens, 0);
    const uint64_t room =
        tsr_admission_max_bytes((uint32_t)(l->max_model_len + TSR_MORE_PROMPT_IDS), 0);

    if (tokens > l->max_batched_tokens) {
        tsr_log(TSR_LOG_ERROR,
                "--prefill %dx%d: %lld tokens of a rank in one step, which takes %d "
                "(--max-num-batched-tokens)",
                c->prompts, c->prompt_tokens, (long long)tokens, l->max_batched_tokens);
        return TSR_ERR_ARG;
    }
    if (admitted > room) {
        tsr_log(TSR_LOG_ERROR,
                "--prefill %dx%d: so many ids are not admitted in one step with sequences of %d "
                "positions (--max-model-len)",
                c->prompts, c->prompt_tokens, l->max_model_len);
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

static tsr_status check_case(const tsr_bench_cases *cases, const tsr_bench_case *c,
                             const tsr_plan *plan)
{
    const tsr_engine_limits *l = &plan->limits;
    const int64_t length = length_of(cases, c, plan->ranks, l->max_batched_tokens);
    const int64_t positions = positions_of(c, plan->ranks, length, l->kv_block_tokens);
    const int64_t room = (int64_t)l->kv_blocks * l->kv_block_tokens;

    if (share_of(c, plan->ranks) > l->max_num_seqs) {
        tsr_log(TSR_LOG_ERROR, "%d sequences of a rank at once, which takes %d (--max-num-seqs)",
                share_of(c, plan->ranks), l->max_num_seqs);
        return TSR_ERR_ARG;
    }
    if (length > l->max_model_len) {
        tsr_log(TSR_LOG_ERROR, "sequences get to %lld positions, --max-model-len is %d",
                (long long)length, l->max_model_len);
        return TSR_ERR_ARG;
    }
    if (positions > room) {
        tsr_log(TSR_LOG_ERROR,
                "%d sequences of %lld positions on a rank do not fit: its KV cache holds %lld "
                "positions; ask for fewer, for shorter ones or give more --memory",
                share_of(c, plan->ranks), (long long)length, (long long)room);
        return TSR_ERR_CAPACITY;
    }
    return c->decode ? TSR_OK : check_prefill(c, plan);
}

tsr_status tsr_bench_cases_check(const tsr_bench_cases *cases, const tsr_plan *plan)
{
    tsr_status st = TSR_OK;

    for (int32_t i = 0; st == TSR_OK && i < cases->count; i++)
        st = check_case(cases, &cases->of[i], plan);
    return st;
}
