/*
 * Two steps under way at once: step N+1 is launched before step N has landed, and whatever ends or
 * moves a request in between changes none of its tokens.
 */
#include "tests/test.h"

#include "tests/engine/engine_run.h"
#include "tests/log_lines.h"

#include "runtime/base/log.h"

#include <string.h>

enum { REQUESTS = 8, PROMPT = 9 };

static log_lines lines;
static int32_t prompts[REQUESTS][PROMPT];

static void make_requests(tsr_request *requests)
{
    for (int32_t i = 0; i < REQUESTS; i++) {
        for (int32_t t = 0; t < PROMPT; t++)
            prompts[i][t] = (t * t * 7 + i * 131 + t * 29) % 500;
        requests[i] = (tsr_request){.id = (uint64_t)i,
                                    .prompt = prompts[i],
                                    .prompt_tokens = PROMPT - i % 4,
                                    .max_tokens = 10 + 3 * i,
                                    .temperature = i % 2 == 0 ? 0.0F : 1.5F,
                                    .top_p = 1.0F,
                                    .has_seed = true,
                                    .seed = (uint64_t)(i + 1),
                                    .ignore_eos = true};
    }
}

/* Where `token` stands first. */
static int32_t first_place(const run_answer *a, int32_t token)
{
    int32_t at = 0;
    while (a->token[at] != token)
        at++;
    return at;
}

/* The first `count` tokens and logprobs are those of the whole answer. */
static void assert_prefix(const run_answer *whole, const run_answer *a, int32_t count)
{
    assert_int_equal(count, a->tokens);
    assert_int_equal(count, a->output_tokens);
    assert_int_equal(1, a->ends);
    assert_memory_equal(whole->token, a->token, (size_t)count * sizeof(int32_t));
    assert_memory_equal(whole->logprob, a->logprob, (size_t)count * sizeof(float));
}

static const int32_t ranks[] = {1, 4};
static const run_device late[] = {RUN_LATE, RUN_LATE_READ_LAST};

static void the_next_step_is_launched_before_one_has_landed(void **state)
{
    (void)state;
    static run_result one;
    static run_result two;
    tsr_request requests[REQUESTS];

    make_requests(requests);
    for (size_t i = 0; i < 4; i++) {
        run_setup setup = {.ranks = ranks[i / 2]};
        engine_run(&setup, requests, REQUESTS, &one);
        engine_run_ended(&setup, &one, TSR_OK);
        setup.device = late[i % 2];
        engine_run(&setup, requests, REQUESTS, &two);
        engine_run_ended(&setup, &two, TSR_OK);

        for (int32_t q = 0; q < REQUESTS; q++)
            engine_run_same("two at a time", &one.answer[q], &two.answer[q], one.vocab);
        /* All steps but the first are; the last that computes is followed by an empty one. */
        assert_int_equal((int32_t)two.stats.steps - 1, two.ahead);
        /* The step behind the last token was planned before that came back. */
        assert_int_equal(one.stats.output_tokens, two.stats.output_tokens);
        engine_run_close(&one);
        engine_run_close(&two);
    }
}

/* Where steps overlap it is the first step alone, with all the prompts; else the second one too. */
static void rows_of_experts_are_told(void **state)
{
    (void)state;
    enum { TOP_K = 2, LAYERS = 4, HEARD_WITHIN_MS = 20000 };
    static run_result result;
    tsr_request requests[REQUESTS];
    uint64_t tokens = 0;

    make_requests(requests);
    for (int32_t i = 0; i < REQUESTS; i++)
        tokens += (uint64_t)requests[i].prompt_tokens;
    for (size_t i = 0; i < 4; i++) {
        const run_setup setup = {.ranks = ranks[i / 2],
                                 .device = i % 2 == 0 ? RUN_ON_CPU : RUN_LATE,
                                 .counts_experts = true,
                                 .idle_for_ms = HEARD_WITHIN_MS};
        const uint64_t all = i % 2 == 0 ? tokens + REQUESTS : tokens;
        engine_run(&setup, requests, REQUESTS, &result);
        engine_run_ended(&setup, &result, TSR_OK);
        assert_int_equal(i % 2 == 0 ? 2 : 1, result.expert_steps);
        assert_int_equal(all * TOP_K * LAYERS, result.expert_rows);
        engine_run_close(&result);
    }
}

/* Requests of one length decode side by side: on each flight their sizes are seen, recorded, and
 * then only played, with other contents. */
static void a_step_of_known_sizes_is_played_from_its_recording(void **state)
{
    (void)state;
    static run_result one;
    static run_result two;
    tsr_request requests[REQUESTS];

    make_requests(requests);
    for (int32_t i = 0; i < REQUESTS; i++)
        requests[i].max_tokens = 40;
    for (size_t i = 0; i < 4; i++) {
        run_setup setup = {.ranks = ranks[i / 2]};
        engine_run(&setup, requests, REQUESTS, &one);
        engine_run_ended(&setup, &one, TSR_OK);
        setup.device = late[i % 2];
        engine_run(&setup, requests, REQUESTS, &two);
        engine_run_ended(&setup, &two, TSR_OK);

        for (int32_t q = 0; q < REQUESTS; q++)
            engine_run_same("played", &one.answer[q], &two.answer[q], one.vocab);
        /* One step for the prompts, and one on each flight to see the sizes. */
        assert_int_equal(two.stats.steps - 3, two.replays);
    }
}

/* Requests 0 to 3 end by cancel, by a stop id, by the model's eos and by length, all with a step
 * under way that goes on without knowing; the others go on. */
static void what_ends_in_the_flight_between_ends_with_its_own_tokens(void **state)
{
    (void)state;
    static run_result whole;
    static run_result r;
    static const run_setup alone;
    const int32_t eos = 511;
    tsr_request requests[REQUESTS];

    make_requests(requests);
    requests[2].temperature = 100.0F; /* the eos comes up */
    requests[2].max_tokens = 50;
    do {
        requests[2].seed++;
        engine_run(&alone, requests, REQUESTS, &whole);
        engine_run_ended(&alone, &whole, TSR_OK);
        whole.answer[2].token[49] = eos;
    } while (first_place(&whole.answer[2], eos) == 49);

    const int32_t stop = whole.answer[1].token[5];
    requests[1].stop_ids = &stop;
    requests[1].stop_id_count = 1;
    requests[2].ignore_eos = false;
    requests[3].max_tokens = 4;
    for (size_t i = 0; i < 4; i++) {
        const run_setup setup = {.ranks = ranks[i / 2], .device = late[i % 2], .cancel_after = 3};
        engine_run(&setup, requests, REQUESTS, &r);
        engine_run_ended(&setup, &r, TSR_OK);

        assert_int_equal(TSR_FINISH_CANCELLED, r.answer[0].finish);
        assert_prefix(&whole.answer[0], &r.answer[0], 3);
        assert_int_equal(TSR_FINISH_STOP, r.answer[1].finish);
        assert_prefix(&whole.answer[1], &r.answer[1], first_place(&whole.answer[1], stop) + 1);
        assert_int_equal(TSR_FINISH_STOP, r.answer[2].finish);
        assert_prefix(&whole.answer[2], &r.answer[2], first_place(&whole.answer[2], eos) + 1);
        assert_int_equal(TSR_FINISH_LENGTH, r.answer[3].finish);
        assert_prefix(&whole.answer[3], &r.answer[3], 4);
        for (int32_t q = 4; q < REQUESTS; q++)
            engine_run_same("one that goes on", &whole.answer[q], &r.answer[q], whole.vocab);
    }
}

/* So few KV blocks that sequences lose theirs while two steps are under way; request 0 is cancelled
 * in the middle of it, and its blocks go to others while a step still writes them. */
static void preemption_and_cancel_with_two_steps_under_way(void **state)
{
    (void)state;
    static run_result whole;
    static run_result r;
    tsr_request requests[REQUESTS];

    make_requests(requests);
    for (size_t i = 0; i < 4; i++) {
        const run_setup plenty = {.ranks = ranks[i / 2]};
        const run_setup few = {.device = late[i % 2],
                               .ranks = ranks[i / 2],
                               .kv_blocks = 12,
                               .block_tokens = 4,
                               .cancel_after = 3,
                               .options = {.spread = TSR_SPREAD_FIRST, .prefill_chunk = 5}};
        engine_run(&plenty, requests, REQUESTS, &whole);
        engine_run_ended(&plenty, &whole, TSR_OK);
        engine_run(&few, requests, REQUESTS, &r);
        engine_run_ended(&few, &r, TSR_OK);

        assert_in_range(r.stats.preemptions, 1, 100);
        assert_in_range(r.ahead, 1, r.stats.steps);
        assert_int_equal(TSR_FINISH_CANCELLED, r.answer[0].finish);
        assert_prefix(&whole.answer[0], &r.answer[0], 3);
        for (int32_t q = 1; q < REQUESTS; q++)
            engine_run_same("few blocks", &whole.answer[q], &r.answer[q], whole.vocab);
    }
}

/* A landing waits until the deadline, then says what for, and nobody waits for that rank. */
static void a_device_that_never_comes_back_is_named(void **state)
{
    (void)state;
    static run_result r;
    tsr_request requests[REQUESTS];

    make_requests(requests);
    for (size_t i = 0; i < 2; i++) {
        const run_setup setup = {.device = RUN_STUCK, .ranks = ranks[i], .deadline_ms = 300};
        log_lines_clear(&lines);
        engine_run(&setup, requests, REQUESTS, &r);
        engine_run_ended(&setup, &r, TSR_ERR_TIMEOUT);
        assert_true(log_lines_say(&lines, "step 1: late cpu"));
        assert_true(
            log_lines_say(&lines, "is not done with it after 300 ms, with the late exchange"));
        /* Step 1 takes two exchanges a layer on one rank, one on several. */
        assert_true(log_lines_say(&lines, i == 0 ? " of layer 1 at the end of step 2 stage 3"
                                                 : " of layer 3 at the end of step 2 stage 3"));
    }
}

int main(void)
{
    tsr_log_set_sink(log_lines_catch, &lines);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_step_is_launched_before_one_has_landed),
        cmocka_unit_test(rows_of_experts_are_told),
        cmocka_unit_test(a_step_of_known_sizes_is_played_from_its_recording),
        cmocka_unit_test(what_ends_in_the_flight_between_ends_with_its_own_tokens),
        cmocka_unit_test(preemption_and_cancel_with_two_steps_under_way),
        cmocka_unit_test(a_device_that_never_comes_back_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
