/*
 * Requests that are guided: every token is one that their guide lets come, whatever company they have and
 * however they are served; and nobody else notices. The guide here is arithmetic: what may come next
 * follows from the sum of the outputs.
 */
#include "tests/test.h"

#include "tests/engine/engine_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUESTS = 8, GUIDED = 5, TOKENS = 14, CLASSES = 7, FREE_TOKENS = 3, WHY_AFTER = 4 };

/* "class": ids of one class in seven. "free": anything at first. "few": one id or another. "none":
 * nothing after a while. "why": nothing can be said after a while. */
typedef struct guide {
    char kind[8];
    int32_t vocab;
} guide;

static int32_t open_guides;

static tsr_status open_guide(void *context, const char *text, char *refusal, size_t refusal_bytes,
                             void **ret_guide)
{
    guide *g = calloc(1, sizeof(*g));

    assert_non_null(g);
    if (strcmp(text, "refused") == 0) {
        (void)snprintf(refusal, refusal_bytes, "it is refused");
        free(g);
        return TSR_ERR_ARG;
    }
    (void)snprintf(g->kind, sizeof(g->kind), "%s", text);
    g->vocab = *(int32_t *)context;
    open_guides++;
    *ret_guide = g;
    return TSR_OK;
}

static void close_guide(void *context)
{
    open_guides--;
    free(context);
}

static int32_t class_of(const int32_t *outputs, int32_t count)
{
    int64_t sum = count;

    for (int32_t i = 0; i < count; i++)
        sum += outputs[i];
    return (int32_t)(sum % CLASSES);
}

/* Whether an id may follow. */
static bool may_come(const char *kind, const int32_t *outputs, int32_t count, int32_t id)
{
    const int32_t class = class_of(outputs, count);

    if (strcmp(kind, "free") == 0 && count < FREE_TOKENS)
        return true;
    if (strcmp(kind, "none") == 0 && count >= WHY_AFTER)
        return false;
    return strcmp(kind, "few") == 0 ? id == 3 * class || id == 100 + class : id % CLASSES == class;
}

static tsr_guidance ask(void *context, const int32_t *outputs, int32_t count, uint32_t *bits)
{
    const guide *g = context;

    if (strcmp(g->kind, "why") == 0 && count >= WHY_AFTER)
        return (tsr_guidance){.why = "nothing can be said"};
    if (strcmp(g->kind, "free") == 0 && count < FREE_TOKENS)
        return (tsr_guidance){.is_free = true, .may_end = true};
    memset(bits, 0, (size_t)tsr_guide_words(g->vocab) * sizeof(*bits));
    for (int32_t id = 0; id < g->vocab; id++) {
        if (may_come(g->kind, outputs, count, id))
            bits[id / 32] |= 1U << (id % 32);
    }
    return (tsr_guidance){0};
}

static int32_t vocab = 1;

static const tsr_guides guides = {
    .open = open_guide, .ask = ask, .close = close_guide, .context = &vocab};

static void run(const run_setup *setup, const tsr_request *requests, int32_t count,
                run_result *ret_result)
{
    run_setup own = *setup;

    own.options.guides = &guides;
    engine_run(&own, requests, count, ret_result);
    engine_run_ended(&own, ret_result, TSR_OK);
    assert_int_equal(0, open_guides);
}

static void make_requests(int32_t prompts[REQUESTS][RUN_TOKENS], tsr_request *requests)
{
    static const char *const kinds[GUIDED] = {"class", "free", "few", "class", "class"};

    for (int32_t i = 0; i < REQUESTS; i++) {
        const int32_t count = 3 + 4 * i;
        for (int32_t t = 0; t < count; t++)
            prompts[i][t] = (t * t * 7 + i * 131 + t * 29) % 500;
        requests[i] = (tsr_request){.id = (uint64_t)i,
                                    .prompt = prompts[i],
                                    .prompt_tokens = count,
                                    .max_tokens = TOKENS,
                                    .temperature = (float)(i % 3) * 0.6F,
                                    .top_p = 1.0F,
                                    .has_seed = true,
                                    .seed = (uint64_t)i * 1000,
                                    .guide = i < GUIDED ? kinds[i] : NULL,
                                    .ignore_eos = true};
    }
}

/* The vocabulary is known once a run has been. */
static void find_vocab(const tsr_request *request)
{
    static run_result r;
    const run_setup setup = {.ranks = 1};
    tsr_request plain = *request;

    plain.guide = NULL;
    engine_run(&setup, &plain, 1, &r);
    vocab = r.vocab;
    engine_run_close(&r);
}

static const run_setup ways[] = {
    {.ranks = 1},
    {.ranks = 2},
    {.ranks = 4, .options = {.spread = TSR_SPREAD_ROUND_ROBIN, .prefill_chunk = 5}},
    {.ranks = 8, .exchange_tokens = 4, .options = {.spread = TSR_SPREAD_ROUND_ROBIN}},
    {.ranks = 1, .max_num_seqs = 1},
    {.ranks = 2,
     .kv_blocks = 14,
     .block_tokens = 4,
     .at_once = 1,
     .options = {.spread = TSR_SPREAD_FIRST}},
};

static void every_token_is_let_come_in_any_company(void **state)
{
    static int32_t prompts[REQUESTS][RUN_TOKENS];
    static run_result reference;
    static run_result r;
    tsr_request requests[REQUESTS];
    const int32_t count = (int32_t)(sizeof(ways) / sizeof(ways[0]));

    (void)state;
    make_requests(prompts, requests);
    find_vocab(&requests[0]);
    run(&ways[0], requests, REQUESTS, &reference);
    for (int32_t i = 0; i < GUIDED; i++) {
        const run_answer *a = &reference.answer[i];
        assert_int_equal(TOKENS, a->tokens);
        for (int32_t n = 0; n < TOKENS; n++)
            assert_true(may_come(requests[i].guide, a->token, n, a->token[n]));
    }
    for (int32_t w = 0; w < count * RUN_DEVICES; w++) {
        run_setup setup = ways[w % count];
        setup.device = (run_device)(w / count);
        run(&setup, requests, REQUESTS, &r);
        for (int32_t i = 0; i < REQUESTS; i++)
            engine_run_same("guided", &reference.answer[i], &r.answer[i], r.vocab);
        engine_run_close(&r);
    }
    for (int32_t i = 0; i < GUIDED; i++) { /* from where another engine left it */
        requests[i].given = reference.answer[i].token;
        requests[i].given_tokens = 2 * i + 1;
    }
    run(&ways[1], requests, GUIDED, &r);
    for (int32_t i = 0; i < GUIDED; i++)
        assert_memory_equal(reference.answer[i].token + 2 * (ptrdiff_t)i + 1, r.answer[i].token,
                            (size_t)(TOKENS - 2 * i - 1) * sizeof(int32_t));
}

/* Alone on a device with two steps under way it takes no step without tokens between its own. */
static void alone_it_lands_each_step(void **state)
{
    static int32_t prompts[REQUESTS][RUN_TOKENS];
    static run_result r;
    tsr_request requests[REQUESTS];
    const run_setup setup = {.ranks = 1, .device = RUN_LATE};

    (void)state;
    make_requests(prompts, requests);
    find_vocab(&requests[0]);
    run(&setup, requests, 1, &r);
    assert_int_equal(TOKENS, r.stats.steps);
    assert_int_equal(0, r.ahead);
}

static void what_a_guide_cannot_say_ends_its_request_alone(void **state)
{
    static int32_t prompts[REQUESTS][RUN_TOKENS];
    static run_result r;
    tsr_request requests[REQUESTS];
    const run_setup setup = {.ranks = 2, .device = RUN_LATE};

    (void)state;
    make_requests(prompts, requests);
    find_vocab(&requests[0]);
    requests[0].guide = "why";
    requests[1].guide = "none";
    requests[2].guide = "refused";
    run(&setup, requests, 4, &r);
    assert_int_equal(TSR_FINISH_STUCK, r.answer[0].finish);
    assert_string_equal("nothing can be said", r.answer[0].refusal);
    assert_int_equal(TSR_FINISH_STUCK, r.answer[1].finish);
    assert_non_null(strstr(r.answer[1].refusal, "the form that the answer must have"));
    assert_int_equal(WHY_AFTER, r.answer[1].tokens);
    assert_int_equal(TSR_FINISH_REFUSED, r.answer[2].finish);
    assert_string_equal("it is refused", r.answer[2].refusal);
    assert_int_equal(TOKENS, r.answer[3].tokens);

    const run_setup none = {.ranks = 1};
    engine_run(&none, &requests[3], 1, &r);
    assert_int_equal(TSR_FINISH_REFUSED, r.answer[3].finish);
    assert_non_null(strstr(r.answer[3].refusal, "tokenizer"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_token_is_let_come_in_any_company),
        cmocka_unit_test(alone_it_lands_each_step),
        cmocka_unit_test(what_a_guide_cannot_say_ends_its_request_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
