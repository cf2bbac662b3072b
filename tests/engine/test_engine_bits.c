/*
 * The same request gives the same bits, however it is served: tokens, logprobs and logits of the
 * demo model on one rank, everything at once, against every other way.
 */
#include "tests/test.h"

#include "tests/engine/engine_run.h"

#include <stdio.h>
#include <string.h>

enum { REQUESTS = 8, SCORED = 2 };

/* Prompts of 3 to 38 tokens; some sampled, some greedy; the last two scored. */
static void make_requests(int32_t prompts[REQUESTS][RUN_TOKENS], tsr_request *requests)
{
    for (int32_t i = 0; i < REQUESTS; i++) {
        const int32_t count = 3 + 5 * i;
        for (int32_t t = 0; t < count; t++)
            prompts[i][t] = (t * t * 7 + i * 131 + t * 29) % 1800;
        requests[i] = (tsr_request){.id = (uint64_t)i,
                                    .prompt = prompts[i],
                                    .prompt_tokens = count,
                                    .max_tokens = 12 + 2 * i,
                                    .temperature = (float)(i % 3) * 0.6F,
                                    .top_p = i % 2 == 0 ? 1.0F : 0.9F,
                                    .top_k = i == 4 ? 20 : 0,
                                    .has_seed = i % 2 == 0,
                                    .seed = (uint64_t)i * 1000,
                                    .ignore_eos = true,
                                    .want_logits = i >= REQUESTS - SCORED};
    }
}

typedef struct way {
    const char *name;
    run_setup setup;
    bool preempts;
} way;

/* KV blocks of 4 positions so few that sequences lose theirs; one rank holds the longest. */
enum { FEW_BLOCKS = 13 };

static const way ways[] = {
    {.name = "2 ranks", .setup = {.ranks = 2}},
    {.name = "3 ranks, in turn, chunks of 7, 2 threads",
     .setup = {.ranks = 3,
               .threads = 2,
               .options = {.spread = TSR_SPREAD_ROUND_ROBIN, .prefill_chunk = 7}}},
    {.name = "4 ranks, all on the first, 3 rows of logits",
     .setup = {.ranks = 4, .logit_rows = 3, .options = {.spread = TSR_SPREAD_FIRST}}},
    {.name = "5 ranks, 9 tokens a step", .setup = {.ranks = 5, .max_batched_tokens = 9}},
    {.name = "8 ranks, in turn, exchanges of 4",
     .setup = {.ranks = 8, .exchange_tokens = 4, .options = {.spread = TSR_SPREAD_ROUND_ROBIN}}},
    {.name = "1 rank, chunks of 1, 3 threads",
     .setup = {.threads = 3, .options = {.prefill_chunk = 1}}},
    {.name = "1 rank, one after the other", .setup = {.max_num_seqs = 1}},
    {.name = "1 rank, few blocks",
     .setup = {.kv_blocks = FEW_BLOCKS, .block_tokens = 4, .options = {.prefill_chunk = 5}},
     .preempts = true},
    {.name = "2 ranks, few blocks, arriving one by one",
     .setup = {.ranks = 2,
               .kv_blocks = FEW_BLOCKS,
               .block_tokens = 4,
               .at_once = 1,
               .options = {.spread = TSR_SPREAD_FIRST}},
     .preempts = true},
};

/* Every way on every kind of device; under ThreadSanitizer, which does not look at bits, on one of them
 * in turn. */
static bool is_run(int32_t w, run_device device)
{
#ifdef __SANITIZE_THREAD__
    return w % RUN_DEVICES == (int32_t)device;
#else
    (void)w;
    (void)device;
    return true;
#endif
}

static void the_same_bits_however_requests_are_served(void **state)
{
    (void)state;
    static int32_t prompts[REQUESTS][RUN_TOKENS];
    static run_result reference;
    static run_result other;
    tsr_request requests[REQUESTS];
    const run_setup alone = {.fixture = "demo-mixed"};

    make_requests(prompts, requests);
    engine_run(&alone, requests, REQUESTS, &reference);
    engine_run_ended(&alone, &reference, TSR_OK);
    for (int32_t i = 0; i < REQUESTS; i++) {
        assert_int_equal(1, reference.answer[i].ends);
        assert_int_equal(i >= REQUESTS - SCORED ? 0 : 12 + 2 * i, reference.answer[i].tokens);
    }
    assert_int_equal(requests[REQUESTS - 1].prompt_tokens,
                     reference.answer[REQUESTS - 1].logit_rows);

    const int32_t count = (int32_t)(sizeof(ways) / sizeof(ways[0]));
    for (int32_t i = 0; i < count * RUN_DEVICES; i++) {
        const int32_t w = i % count;
        run_setup setup = ways[w].setup;
        setup.fixture = "demo-mixed";
        setup.device = (run_device)(i / count);
        if (!is_run(w, setup.device))
            continue;
        engine_run(&setup, requests, REQUESTS, &other);
        engine_run_ended(&setup, &other, TSR_OK);
        if (ways[w].preempts)
            assert_in_range(other.stats.preemptions, 1, 100);
        for (int32_t q = 0; q < REQUESTS; q++) {
            char what[160];
            (void)snprintf(what, sizeof(what), "device %d, %s, request %d", (int)setup.device,
                           ways[w].name, q);
            engine_run_same(what, &reference.answer[q], &other.answer[q], reference.vocab);
        }
        engine_run_close(&other);
    }
    engine_run_close(&reference);
}

enum { ALIKE = 8, PROMPT = 21, SAID = 13 };

/* Answers to one prompt; what goes on behind the first of them; a prompt that leaves early; one that
 * ends where a block does; and one that is scored. */
static void make_alike(int32_t prompts[ALIKE][RUN_TOKENS], tsr_request *requests,
                       const run_answer *first)
{
    static tsr_token_rules rules;

    tsr_rules_clear(&rules);
    rules.repetition = 1.3F;
    rules.frequency = 0.7F;
    for (int32_t i = 0; i < ALIKE; i++) {
        for (int32_t t = 0; t < PROMPT; t++)
            prompts[i][t] = (t * t * 7 + t * 29) % 500;
        requests[i] = (tsr_request){.id = (uint64_t)i,
                                    .prompt = prompts[i],
                                    .prompt_tokens = PROMPT,
                                    .max_tokens = SAID + i,
                                    .temperature = i % 2 == 0 ? 0.0F : 1.5F,
                                    .top_p = 1.0F,
                                    .has_seed = true,
                                    .seed = (uint64_t)i,
                                    .ignore_eos = true};
    }
    requests[3].rules = &rules;
    memcpy(prompts[4] + PROMPT, first->token, SAID * sizeof(int32_t));
    prompts[4][PROMPT + SAID] = 77;
    requests[4].prompt_tokens = PROMPT + SAID + 1;
    prompts[5][9] += 1;
    requests[6].prompt_tokens = 16;
    requests[7].want_logits = true;
}

/* Blocks of 4 positions; with so few that sequences lose theirs, what is known is lost too. */
static const way sharing[] = {
    {.name = "1 rank", .setup = {.block_tokens = 4}},
    {.name = "1 rank, one after the other", .setup = {.block_tokens = 4, .max_num_seqs = 1}},
    {.name = "1 rank, chunks of 5, arriving two by two",
     .setup = {.block_tokens = 4, .at_once = 2, .options = {.prefill_chunk = 5}}},
    {.name = "4 ranks, arriving one by one",
     .setup = {.ranks = 4, .block_tokens = 4, .at_once = 1}},
    {.name = "2 ranks, 7 tokens a step",
     .setup = {.ranks = 2, .block_tokens = 4, .max_batched_tokens = 7}},
    {.name = "1 rank, few blocks",
     .setup = {.block_tokens = 4, .kv_blocks = FEW_BLOCKS + 3},
     .preempts = true},
    {.name = "2 ranks, few blocks, all on the first",
     .setup = {.ranks = 2,
               .block_tokens = 4,
               .kv_blocks = FEW_BLOCKS + 3,
               .at_once = 1,
               .options = {.spread = TSR_SPREAD_FIRST}},
     .preempts = true},
    {.name = "1 rank, three are cancelled",
     .setup = {.block_tokens = 4, .at_once = 1, .cancel = {{1, 1}, {7, 0}, {20, 5}}}},
};

static void assert_the_same_but_for_cancelled(const way *w, run_device device,
                                              const run_result *reference, const run_result *other)
{
    for (int32_t q = 0; q < ALIKE; q++) {
        const run_answer *answer = &other->answer[q];
        char what[160];
        (void)snprintf(what, sizeof(what), "device %d, %s, request %d", (int)device, w->name, q);
        if (answer->finish != TSR_FINISH_CANCELLED)
            engine_run_same(what, &reference->answer[q], answer, reference->vocab);
        else if (memcmp(answer->token, reference->answer[q].token,
                        (size_t)answer->tokens * sizeof(int32_t)) != 0)
            fail_msg("%s: other tokens before it was cancelled", what);
    }
}

static void the_same_bits_whoever_has_computed_a_prefix(void **state)
{
    (void)state;
    static int32_t prompts[ALIKE][RUN_TOKENS];
    static run_result reference;
    static run_result other;
    tsr_request requests[ALIKE];
    const run_setup alone = {0};
    const int32_t count = (int32_t)(sizeof(sharing) / sizeof(sharing[0]));

    make_alike(prompts, requests, &reference.answer[0]);
    engine_run(&alone, requests, 1, &reference);
    make_alike(prompts, requests, &reference.answer[0]);
    engine_run(&alone, requests, ALIKE, &reference);
    assert_int_equal(0, reference.stats.prefix_queries);
    for (int32_t i = 0; i < count * RUN_DEVICES; i++) {
        const way *w = &sharing[i % count];
        run_setup setup = w->setup;
        setup.device = (run_device)(i / count);
        setup.options.prefix_cache = true;
        engine_run(&setup, requests, ALIKE, &other);
        engine_run_ended(&setup, &other, TSR_OK);
        assert_in_range(other.stats.prefix_hits, 16, other.stats.prefix_queries);
        if (w->preempts)
            assert_in_range(other.stats.preemptions, 1, 100);
        assert_the_same_but_for_cancelled(w, setup.device, &reference, &other);
        engine_run_close(&other);
    }
    engine_run_close(&reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits_however_requests_are_served),
        cmocka_unit_test(the_same_bits_whoever_has_computed_a_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
