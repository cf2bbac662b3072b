/* The engine over a small checkpoint: how requests end, and how a group of ranks ends. */
#include "tests/test.h"

#include "tests/engine/engine_run.h"
#include "tests/log_lines.h"

#include <math.h>
#include <string.h>

static log_lines lines;
static const int32_t prompt[] = {17, 250, 3, 99, 401, 77, 8, 300, 12, 45, 6, 210};

static tsr_request greedy(uint64_t id, int32_t prompt_tokens, int32_t max_tokens)
{
    return (tsr_request){.id = id,
                         .prompt = prompt,
                         .prompt_tokens = prompt_tokens,
                         .max_tokens = max_tokens,
                         .top_p = 1.0F,
                         .ignore_eos = true};
}

/* Every test runs on each device. */
static run_device device;

static void run(const run_setup *setup, const tsr_request *requests, int32_t count,
                tsr_status expected, run_result *ret_result)
{
    run_setup own = *setup;

    own.device = device;
    log_lines_clear(&lines);
    engine_run(&own, requests, count, ret_result);
    engine_run_ended(&own, ret_result, expected);
}

static void stop_ids_and_eos_end_an_answer_with_their_token(void **state)
{
    (void)state;
    const run_setup setup = {.ranks = 2};
    static run_result r;
    tsr_request request = greedy(0, 5, 12);

    run(&setup, &request, 1, TSR_OK, &r);
    assert_int_equal(TSR_FINISH_LENGTH, r.answer[0].finish);
    assert_int_equal(12, r.answer[0].tokens);
    const int32_t stop = r.answer[0].token[6];
    int32_t first = 0;
    while (r.answer[0].token[first] != stop)
        first++;

    request.stop_ids = &stop;
    request.stop_id_count = 1;
    run(&setup, &request, 1, TSR_OK, &r);
    assert_int_equal(TSR_FINISH_STOP, r.answer[0].finish);
    assert_int_equal(first + 1, r.answer[0].tokens);
    assert_int_equal(stop, r.answer[0].token[first]);
    assert_int_equal(1, r.answer[0].ends);
}

/* At a high temperature the eos comes up within some tokens; only ignore_eos goes on. */
static void ignore_eos_goes_on_where_the_models_eos_ends(void **state)
{
    (void)state;
    const run_setup setup = {.token_ids = 0};
    static run_result r;
    tsr_request request = greedy(0, 4, 50);
    const int32_t eos = 511;
    int32_t at = 0;

    request.temperature = 100.0F;
    request.has_seed = true;
    do {
        request.seed++;
        request.ignore_eos = true;
        run(&setup, &request, 1, TSR_OK, &r);
        for (at = 0; at < r.answer[0].tokens && r.answer[0].token[at] != eos;)
            at++;
    } while (at >= 49);
    assert_int_equal(50, r.answer[0].tokens);
    request.ignore_eos = false;
    run(&setup, &request, 1, TSR_OK, &r);
    assert_int_equal(TSR_FINISH_STOP, r.answer[0].finish);
    assert_int_equal(at + 1, r.answer[0].tokens);
}

static void a_cancelled_request_ends_once_and_the_others_go_on(void **state)
{
    (void)state;
    const run_setup plain = {.ranks = 2};
    const run_setup cancelling = {.ranks = 2, .cancel_after = 2};
    static run_result whole;
    static run_result r;
    const tsr_request requests[] = {greedy(0, 5, 9), greedy(1, 7, 9)};

    run(&plain, requests, 2, TSR_OK, &whole);
    run(&cancelling, requests, 2, TSR_OK, &r);
    assert_int_equal(TSR_FINISH_CANCELLED, r.answer[0].finish);
    assert_int_equal(1, r.answer[0].ends);
    assert_int_equal(2, r.answer[0].tokens);
    assert_int_equal(2, r.answer[0].output_tokens);
    assert_memory_equal(whole.answer[0].token, r.answer[0].token, 2 * sizeof(int32_t));
    engine_run_same("the other", &whole.answer[1], &r.answer[1], r.vocab);
}

/* One runs, one is at its prompt, one waits; and the source cancels while it drains, too. */
static void the_source_cancels_wherever_a_request_is(void **state)
{
    (void)state;
    const run_setup plain = {.ranks = 2, .max_num_seqs = 1};
    run_setup cancelling = {.ranks = 2,
                            .max_num_seqs = 1,
                            .cancel = {{1, 1}, {2, 2}, {5, 0}},
                            .options = {.prefill_chunk = 1}};
    static run_result whole;
    static run_result r;
    const tsr_request requests[] = {greedy(0, 2, 9), greedy(1, 12, 9), greedy(2, 5, 9),
                                    greedy(3, 5, 9)};

    run(&plain, requests, 4, TSR_OK, &whole);
    for (int32_t drains = 0; drains < 2; drains++) {
        cancelling.drain_after = drains * 4;
        run(&cancelling, requests, 4, TSR_OK, &r);
        for (int32_t i = 0; i < 3; i++) {
            assert_int_equal(TSR_FINISH_CANCELLED, r.answer[i].finish);
            assert_int_equal(1, r.answer[i].ends);
        }
        assert_in_range(r.answer[0].tokens, 2, 8);
        assert_int_equal(0, r.answer[1].tokens);
        assert_int_equal(0, r.answer[2].tokens);
        engine_run_same("the other", &whole.answer[3], &r.answer[3], r.vocab);
    }
}

static void a_request_that_comes_without_room_is_refused(void **state)
{
    (void)state;
    const run_setup setup = {.max_num_seqs = 1, .ignores_room = true};
    static run_result r;
    const tsr_request requests[] = {greedy(0, 5, 3), greedy(1, 5, 3)};

    run(&setup, requests, 2, TSR_OK, &r);
    assert_int_equal(3, r.answer[0].tokens);
    assert_int_equal(TSR_FINISH_REFUSED, r.answer[1].finish);
    assert_string_equal("the queue is full; ask again later", r.answer[1].refusal);
}

/* What another engine said of `whole` up to every place is given to this one, all at once. */
static void go_on_everywhere(const run_setup *setup, const tsr_request *request)
{
    enum { TOKENS = 10 };
    static run_result whole;
    static run_result r;
    tsr_request cut[TOKENS];

    run(setup, request, 1, TSR_OK, &whole);
    const run_answer *all = &whole.answer[0];
    assert_int_equal(TOKENS, all->tokens);
    for (int32_t i = 0; i < TOKENS; i++) {
        cut[i] = *request;
        cut[i].id = (uint64_t)i;
        cut[i].given = all->token;
        cut[i].given_tokens = i;
    }
    run(setup, cut, TOKENS, TSR_OK, &r);
    for (int32_t i = 0; i < TOKENS; i++) {
        const run_answer *rest = &r.answer[i];
        assert_int_equal(TOKENS - i, rest->tokens);
        assert_memory_equal(all->token + i, rest->token, (size_t)rest->tokens * sizeof(int32_t));
        assert_memory_equal(all->logprob + i, rest->logprob, (size_t)rest->tokens * sizeof(float));
        assert_int_equal(all->finish, rest->finish);
        assert_int_equal(TOKENS, rest->output_tokens);
    }
    assert_int_equal(TOKENS * (TOKENS + 1) / 2, r.stats.output_tokens);
}

static void a_request_goes_on_from_what_it_was_given(void **state)
{
    (void)state;
    static tsr_token_rules rules;

    /* greedy, then drawn, then drawn under rules that count what was said */
    tsr_rules_clear(&rules);
    rules.repetition = 1.3F;
    rules.presence = 0.5F;
    rules.frequency = 0.7F;
    for (int32_t i = 0; i < 6; i++) {
        const run_setup setup = {.ranks = i % 2 == 0 ? 1 : 4};
        tsr_request request = greedy(0, 6, 10);
        request.temperature = i < 2 ? 0.0F : 1.5F;
        request.has_seed = true;
        request.seed = 7;
        request.rules = i < 4 ? NULL : &rules;
        go_on_everywhere(&setup, &request);
    }
}

/* The third token that is new is made a stop id, or max_tokens ends the answer, or the context. */
static void what_was_given_counts_where_an_answer_ends(void **state)
{
    (void)state;
    const run_setup setup = {.ranks = 2};
    static run_result whole;
    static run_result r;
    tsr_request request = greedy(0, 6, 12);

    request.temperature = 3.0F;
    request.has_seed = true;
    run(&setup, &request, 1, TSR_OK, &whole);
    const int32_t *said = whole.answer[0].token;
    request.given = said;
    request.given_tokens = 4;
    request.stop_ids = &said[6];
    request.stop_id_count = 1;
    run(&setup, &request, 1, TSR_OK, &r);
    assert_int_equal(TSR_FINISH_STOP, r.answer[0].finish);
    assert_in_range(r.answer[0].tokens, 1, 3);
    request.given_tokens = 11;
    run(&setup, &request, 1, TSR_OK, &r);
    assert_int_equal(1, r.answer[0].tokens);
    request.given_tokens = 12;
    run(&setup, &request, 1, TSR_OK, &r);
    assert_int_equal(TSR_FINISH_REFUSED, r.answer[0].finish);
    assert_string_equal("given: 12 tokens, and at most 12 were asked for", r.answer[0].refusal);
}

static void a_refused_request_is_told_why_and_stops_nothing(void **state)
{
    (void)state;
    const run_setup setup = {.ranks = 2};
    static run_result r;
    tsr_request requests[] = {greedy(0, 5, 3), greedy(1, 0, 3), greedy(2, 5, 3)};

    run(&setup, requests, 3, TSR_OK, &r);
    assert_int_equal(TSR_FINISH_REFUSED, r.answer[1].finish);
    assert_string_equal("prompt: it has no tokens", r.answer[1].refusal);
    assert_int_equal(3, r.answer[0].tokens);
    assert_int_equal(3, r.answer[2].tokens);
    assert_int_equal(2, r.stats.requests);
    assert_int_equal(6, r.stats.output_tokens);
    assert_int_equal(2, r.stats.first_tokens);
}

/* Against the logits of the same positions: log softmax of the token and of the largest, in order. */
static void assert_scores(const float *x, int32_t vocab, tsr_token_logprob token,
                          const tsr_token_logprob *top, int32_t top_count)
{
    double sum = 0.0;

    for (int32_t i = 0; i < vocab; i++)
        sum += exp((double)x[i]);
    assert_true(fabs((double)x[token.token] - log(sum) - (double)token.logprob) < 1e-5);
    for (int32_t n = 0; n < top_count; n++) {
        int32_t larger = 0;
        for (int32_t i = 0; i < vocab; i++)
            larger += x[i] > x[top[n].token] || (x[i] == x[top[n].token] && i < top[n].token);
        assert_int_equal(n, larger);
        assert_true(fabs((double)x[top[n].token] - log(sum) - (double)top[n].logprob) < 1e-5);
    }
}

/* A prompt and what was said after it, once as a request, once as a prompt whose logits are wanted.
 * In one piece and in many, alone and with few rows of logits for several. */
static void scores_of_a_prompt_are_those_of_its_logits(void **state)
{
    (void)state;
    const run_setup plain = {.ranks = 1};
    const run_setup tight = {.ranks = 2, .logit_rows = 3, .options = {.prefill_chunk = 5}};
    static run_result whole;
    static run_result logits;
    static run_result r;
    tsr_request requests[4];

    for (uint64_t i = 0; i < 4; i++) {
        requests[i] = greedy(i, 12 - (int32_t)i, 7);
        requests[i].score_prompt = i != 1;
        requests[i].score_top = (int32_t)i;
        requests[i].top = i == 2 ? 0 : TSR_MOST_TOP - (int32_t)i;
    }
    requests[3].max_tokens = 0;
    run(&plain, requests, 4, TSR_OK, &whole);
    run(&tight, requests, 4, TSR_OK, &r);
    for (int32_t i = 0; i < 4; i++)
        engine_run_same("few rows of logits", &whole.answer[i], &r.answer[i], r.vocab);
    assert_int_equal(0, whole.answer[3].tokens);
    assert_int_equal(TSR_FINISH_LENGTH, whole.answer[3].finish);

    int32_t said[19];
    memcpy(said, prompt, sizeof(prompt));
    memcpy(said + 12, whole.answer[0].token, 7 * sizeof(*said));
    tsr_request all = greedy(0, 19, 0);
    all.prompt = said;
    all.want_logits = true;
    run(&plain, &all, 1, TSR_OK, &logits);
    const float *x = logits.answer[0].logits;
    for (int32_t i = 0; i < 4; i++) {
        const run_answer *a = &whole.answer[i];
        assert_int_equal(i == 1 ? 0 : 11 - i, a->scored);
        for (int32_t p = 1; p <= a->scored; p++) {
            assert_int_equal(prompt[p], a->score[p].token);
            assert_scores(x + (ptrdiff_t)(p - 1) * r.vocab, r.vocab, a->score[p], a->score_top[p],
                          i);
        }
    }
    for (int32_t n = 0; n < 7; n++) {
        const run_answer *a = &whole.answer[0];
        const tsr_token_logprob token = {a->token[n], a->logprob[n]};
        assert_memory_equal(&token, &a->top[n][0], sizeof(token)); /* the largest, to the bit */
        assert_scores(x + (ptrdiff_t)(11 + n) * r.vocab, r.vocab, token, a->top[n], TSR_MOST_TOP);
    }
    engine_run_close(&logits);
}

/* Outputs count the same when a request lost its blocks, or begins with what another engine gave. */
static void rules_hold_in_any_company_and_behind_given_tokens(void **state)
{
    (void)state;
    const run_setup plain = {.ranks = 1};
    const run_setup tight = {.ranks = 1, .kv_blocks = 6, .block_tokens = 8};
    static tsr_token_rules rules;
    static run_result unruled;
    static run_result whole;
    static run_result r;
    tsr_request requests[4];

    for (uint64_t i = 0; i < 4; i++) {
        requests[i] = greedy(i, 5 + (int32_t)i, 30);
        requests[i].seed = i;
        requests[i].has_seed = true;
        requests[i].temperature = i < 2 ? 0.0F : 3.0F;
        requests[i].min_p = i == 3 ? 0.05F : 0.0F;
    }
    run(&plain, requests, 4, TSR_OK, &unruled);
    tsr_rules_clear(&rules);
    rules.repetition = 1.4F;
    rules.frequency = 0.5F;
    rules.min_tokens = 30;
    rules.allowed = 40;
    for (int32_t i = 0; i < 40; i++)
        rules.list[i] = 12 * i;
    for (int32_t i = 0; i < 4; i++)
        requests[i].rules = &rules;
    run(&plain, requests, 4, TSR_OK, &whole);
    run(&tight, requests, 4, TSR_OK, &r);
    assert_in_range(r.stats.preemptions, 1, 100);
    for (int32_t i = 0; i < 4; i++) {
        engine_run_same("few blocks", &whole.answer[i], &r.answer[i], r.vocab);
        for (int32_t n = 0; n < 30; n++)
            assert_true(whole.answer[i].token[n] % 12 == 0 && whole.answer[i].token[n] < 480);
        assert_memory_not_equal(unruled.answer[i].token, whole.answer[i].token,
                                30 * sizeof(int32_t));
        requests[i].given = whole.answer[i].token;
        requests[i].given_tokens = 7 * i;
    }
    run(&plain, requests, 4, TSR_OK, &r);
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(30 - 7 * i, r.answer[i].tokens);
        assert_memory_equal(whole.answer[i].token + 7 * (ptrdiff_t)i, r.answer[i].token,
                            (size_t)r.answer[i].tokens * 4);
    }
}

/* The only allowed id is a bad word. */
static void rules_that_leave_no_token_fail_their_request_alone(void **state)
{
    (void)state;
    const run_setup setup = {.ranks = 2};
    static tsr_token_rules rules;
    static run_result r;
    tsr_request requests[] = {greedy(0, 5, 3), greedy(1, 6, 3), greedy(2, 5, 3)};

    tsr_rules_clear(&rules);
    rules.allowed = 1;
    rules.bad = 2;
    memcpy(rules.list, (int32_t[]){7, 1, 7}, 3 * sizeof(int32_t));
    requests[1].rules = &rules;
    run(&setup, requests, 3, TSR_OK, &r);
    assert_int_equal(TSR_FINISH_STUCK, r.answer[1].finish);
    assert_non_null(strstr(r.answer[1].refusal, "bad_words"));
    assert_int_equal(3, r.answer[0].tokens);
    assert_int_equal(3, r.answer[2].tokens);
}

static void ids_beyond_the_tokenizers_are_never_sampled(void **state)
{
    (void)state;
    const run_setup setup = {.token_ids = 40};
    static run_result r;
    tsr_request request = greedy(0, 5, 50);

    request.temperature = 100.0F;
    run(&setup, &request, 1, TSR_OK, &r);
    for (int32_t i = 0; i < r.answer[0].tokens; i++)
        assert_in_range(r.answer[0].token[i], 0, 39);
}

static void a_seeded_request_says_the_same_in_any_company(void **state)
{
    (void)state;
    const run_setup alone = {.ranks = 1};
    const run_setup together = {.ranks = 3, .at_once = 2};
    static run_result one;
    static run_result many;
    tsr_request requests[6];

    for (int32_t i = 0; i < 6; i++) {
        requests[i] = greedy((uint64_t)i, 3 + i, 8);
        requests[i].temperature = 1.0F;
        requests[i].has_seed = i == 5;
        requests[i].seed = 99;
    }
    run(&together, requests, 6, TSR_OK, &many);
    requests[5].id = 0;
    run(&alone, &requests[5], 1, TSR_OK, &one);
    engine_run_same("alone and together", &one.answer[0], &many.answer[5], one.vocab);
}

static void requests_without_a_seed_follow_from_the_engines_seed(void **state)
{
    (void)state;
    run_setup setup = {.ranks = 2, .options = {.seed = 5}};
    static run_result a;
    static run_result b;
    tsr_request request = greedy(0, 5, 12);

    request.temperature = 5.0F;
    run(&setup, &request, 1, TSR_OK, &a);
    run(&setup, &request, 1, TSR_OK, &b);
    engine_run_same("the same seed", &a.answer[0], &b.answer[0], a.vocab);
    setup.options.seed = 6;
    run(&setup, &request, 1, TSR_OK, &b);
    assert_memory_not_equal(a.answer[0].token, b.answer[0].token, 12 * sizeof(int32_t));
}

static void a_rank_with_another_plan_ends_all_with_a_named_mismatch(void **state)
{
    (void)state;
    const run_setup setup = {.ranks = 3, .other_plan_rank = 2};
    static run_result r;
    const tsr_request request = greedy(0, 5, 9);

    run(&setup, &request, 1, TSR_ERR_MISMATCH, &r);
    assert_true(log_lines_say(&lines, "step 1 on rank 2: plan_digest: expected 0x"));
    assert_int_equal(0, r.answer[0].tokens);
}

static void a_rank_that_gives_up_ends_all_with_its_reason(void **state)
{
    (void)state;
    const run_setup setup = {.ranks = 3, .absent_rank = 1};
    static run_result r;
    const tsr_request request = greedy(0, 5, 9);

    run(&setup, &request, 1, TSR_ERR_DEVICE, &r);
}

static void an_error_of_the_sink_or_source_ends_all_ranks_with_it(void **state)
{
    (void)state;
    const run_setup sink = {.ranks = 3, .sink_fails = TSR_ERR_OUTPUT};
    const run_setup source = {.ranks = 3, .source_fails = TSR_ERR_ARG};
    static run_result r;
    const tsr_request request = greedy(0, 5, 9);

    run(&sink, &request, 1, TSR_ERR_OUTPUT, &r);
    assert_int_equal(3, r.answer[0].tokens);
    run(&source, &request, 1, TSR_ERR_ARG, &r);
}

static void a_draining_engine_finishes_what_it_took_and_takes_no_more(void **state)
{
    (void)state;
    const run_setup setup = {.ranks = 2, .drain_after = 2, .idle_for_ms = 60000};
    static run_result r;
    const tsr_request requests[] = {greedy(0, 5, 4), greedy(1, 5, 4), greedy(2, 5, 4)};

    run(&setup, requests, 3, TSR_OK, &r);
    assert_int_equal(2, r.given);
    assert_int_equal(4, r.answer[0].tokens);
    assert_int_equal(4, r.answer[1].tokens);
    assert_int_equal(0, r.answer[2].ends);
}

/* Without an empty step now and then the ranks that wait would give up at their deadline, while the
 * source says nothing for half as long again. */
static void an_idle_engine_outlasts_the_deadline(void **state)
{
    (void)state;
    const run_setup setup = {
        .ranks = 3, .deadline_ms = 1000, .idle_for_ms = 1500, .options = {.idle_ms = 20}};
    static run_result r;

    run(&setup, NULL, 0, TSR_OK, &r);
    assert_int_equal(0, r.stats.steps);
}

int main(void)
{
    tsr_log_set_sink(log_lines_catch, &lines);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_ids_and_eos_end_an_answer_with_their_token),
        cmocka_unit_test(ignore_eos_goes_on_where_the_models_eos_ends),
        cmocka_unit_test(a_cancelled_request_ends_once_and_the_others_go_on),
        cmocka_unit_test(the_source_cancels_wherever_a_request_is),
        cmocka_unit_test(a_request_that_comes_without_room_is_refused),
        cmocka_unit_test(a_request_goes_on_from_what_it_was_given),
        cmocka_unit_test(what_was_given_counts_where_an_answer_ends),
        cmocka_unit_test(a_refused_request_is_told_why_and_stops_nothing),
        cmocka_unit_test(scores_of_a_prompt_are_those_of_its_logits),
        cmocka_unit_test(rules_hold_in_any_company_and_behind_given_tokens),
        cmocka_unit_test(rules_that_leave_no_token_fail_their_request_alone),
        cmocka_unit_test(ids_beyond_the_tokenizers_are_never_sampled),
        cmocka_unit_test(a_seeded_request_says_the_same_in_any_company),
        cmocka_unit_test(requests_without_a_seed_follow_from_the_engines_seed),
        cmocka_unit_test(a_rank_with_another_plan_ends_all_with_a_named_mismatch),
        cmocka_unit_test(a_rank_that_gives_up_ends_all_with_its_reason),
        cmocka_unit_test(an_error_of_the_sink_or_source_ends_all_ranks_with_it),
        cmocka_unit_test(a_draining_engine_finishes_what_it_took_and_takes_no_more),
        cmocka_unit_test(an_idle_engine_outlasts_the_deadline),
    };
    int failed = 0;
    for (device = RUN_ON_CPU; device < RUN_DEVICES; device++)
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    return failed;
}
