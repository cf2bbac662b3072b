/* Who goes first, and who need not compute what another has computed. Ranks are simulated. */
#include "tests/test.h"

#include "tests/engine/scheduler_bench.h"

#include "tests/log_lines.h"

#include <stdlib.h>
#include <string.h>

static log_lines lines;

static void a_lower_priority_goes_first_and_arrival_decides_among_equals(void **state)
{
    (void)state;
    static const uint64_t expected[] = {3, 1, 4, 2};
    static const int32_t priority[] = {0, 5, -1, 0};
    tsr_engine_limits limits = bench_roomy;
    uint64_t ended[4] = {0};
    bench b = {0};

    limits.max_num_seqs = 1;
    bench_open(&b, 1, &limits, (tsr_schedule_options){.max_waiting = 4});
    for (uint64_t id = 1; id <= 4; id++) {
        tsr_request request = bench_request(id, 3, 2);
        request.priority = priority[id - 1];
        assert_true(tsr_scheduler_has_room(b.scheduler));
        bench_submit(&b, request, 0);
    }
    assert_false(tsr_scheduler_has_room(b.scheduler));
    assert_int_equal(4, tsr_scheduler_stats(b.scheduler).waiting);
    bench_run(&b, ended);
    assert_memory_equal(expected, ended, sizeof(expected));
    bench_close(&b);
}

/* As above, but the one that came first is of less importance. */
static void who_matters_least_gives_its_blocks(void **state)
{
    (void)state;
    static const uint64_t expected[] = {1, 0};
    tsr_engine_limits limits = bench_roomy;
    tsr_request request = bench_request(0, 4, 9);
    uint64_t ended[2] = {0};
    bench b = {0};

    limits.kv_blocks = 4;
    request.priority = 1;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    bench_submit(&b, request, 0);
    bench_step(&b);
    bench_submit(&b, bench_request(1, 4, 9), 0);
    bench_run(&b, ended);
    assert_in_range(tsr_scheduler_stats(b.scheduler).preemptions, 1, 9);
    assert_memory_equal(expected, ended, sizeof(expected));
    bench_close(&b);
}

/* One that is long has begun; a short one behind it gets its token in the step it comes, and as long as
 * short ones come, half of each step is the long one's. */
static void a_short_prompt_does_not_wait_for_a_long_one(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};

    limits.max_batched_tokens = 8;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    bench_submit(&b, bench_request(1, 30, 1), 0);
    bench_step(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.tokens = 8});
    bench_submit(&b, bench_request(2, 28, 1), 0);
    bench_submit(&b, bench_request(3, 3, 1), 0);
    bench_submit(&b, bench_request(4, 3, 1), 0);
    bench_step(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.first_position = 8, .tokens = 4});
    bench_entry_is(&b, 1, (tsr_step_entry){.slot = 2, .tokens = 3, .flags = TSR_ENTRY_SAMPLE});
    bench_entry_is(&b, 2, (tsr_step_entry){.slot = 3, .tokens = 1});
    bench_step(&b);
    bench_entry_is(&b, 1, (tsr_step_entry){.first_position = 12, .tokens = 6});
    bench_entry_is(
        &b, 2,
        (tsr_step_entry){.slot = 3, .first_position = 1, .tokens = 2, .flags = TSR_ENTRY_SAMPLE});
    /* of two long ones, the first is not held up by the second */
    bench_step(&b);
    bench_entry_is(&b, 1, (tsr_step_entry){.first_position = 18, .tokens = 8});
    bench_close(&b);
}

static const tsr_schedule_options sharing = {.prefix_cache = true};

/* Answers to one prompt of two full blocks and a token. */
static void the_first_of_many_alike_computes_for_all(void **state)
{
    (void)state;
    bench b = {0};

    bench_open(&b, 1, &bench_roomy, sharing);
    for (uint64_t id = 0; id < 3; id++)
        bench_submit(&b, bench_request(id, 9, 2), 0);
    bench_step(&b);
    assert_int_equal(1, b.step.header->entries);
    bench_entry_is(&b, 0, (tsr_step_entry){.tokens = 9, .flags = TSR_ENTRY_SAMPLE});
    assert_int_equal(0, b.output[0].cached_tokens);
    bench_step(&b);
    assert_int_equal(3, b.outputs);
    for (uint32_t i = 1; i < 3; i++) {
        bench_entry_is(&b, i,
                       (tsr_step_entry){.slot = i,
                                        .first_position = 8,
                                        .tokens = 1,
                                        .flags = TSR_ENTRY_SAMPLE | TSR_ENTRY_RESUME});
        assert_int_equal(3, b.step.entry[i].block_count);
        assert_int_equal(8, b.output[i].cached_tokens);
        assert_int_equal(b.output[0].output_tokens - 1, b.output[i].output_tokens);
    }
    const tsr_engine_stats stats = tsr_scheduler_stats(b.scheduler);
    assert_int_equal(27, stats.prefix_queries);
    assert_int_equal(16, stats.prefix_hits);
    assert_int_equal(4, stats.kv_blocks_used); /* the first has ended */
    bench_close(&b);
}

/* Tokens of the next request that are computed when nothing else runs. */
static int32_t computed(bench *b, tsr_request request)
{
    uint64_t ended[1];

    bench_submit(b, request, 0);
    bench_run(b, ended);
    return request.prompt_tokens - b->output[0].cached_tokens;
}

static void what_a_request_says_is_known_to_the_next(void **state)
{
    (void)state;
    int32_t turn[32];
    bench b = {0};

    bench_open(&b, 1, &bench_roomy, sharing);
    memcpy(turn, bench_prompt, 6 * sizeof(*turn));
    for (int32_t i = 0; i < 6; i++)
        turn[6 + i] = sim_next_token(turn, 6 + i, 0, (uint64_t)i);
    turn[12] = 7;
    assert_int_equal(6, computed(&b, bench_request(1, 6, 6)));
    tsr_request request = bench_request(2, 13, 1);
    request.prompt = turn;
    /* its last token said was never computed, and with it the third block is not full */
    assert_int_equal(13 - 8, computed(&b, request));
    assert_int_equal(13 - 12, computed(&b, request));
    bench_close(&b);
}

static void a_salt_and_a_scored_prompt_share_nothing(void **state)
{
    (void)state;
    bench b = {0};

    bench_open(&b, 1, &bench_roomy, sharing);
    tsr_request request = bench_request(1, 9, 1);
    assert_int_equal(9, computed(&b, request));
    request.cache_salt = 5;
    assert_int_equal(9, computed(&b, request));
    assert_int_equal(1, computed(&b, request));
    request.want_logits = true;
    assert_int_equal(9, computed(&b, request));
    request.want_logits = false;
    request.score_prompt = true;
    assert_int_equal(9, computed(&b, request));
    bench_close(&b);
}

/* Of 6 blocks, three of a prompt are known when another takes four: the last of them goes. */
static void the_beginning_of_a_prefix_is_forgotten_last(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};

    limits.kv_blocks = 6;
    bench_open(&b, 1, &limits, sharing);
    tsr_request other = bench_request(2, 13, 1);
    other.prompt = bench_prompt + 5;
    assert_int_equal(13, computed(&b, bench_request(1, 13, 1)));
    assert_int_equal(13, computed(&b, other));
    assert_int_equal(13 - 8, computed(&b, bench_request(3, 13, 1)));
    bench_close(&b);
}

/* Two blocks are free. The second takes one of its own beside three that the first holds. */
static void what_is_held_anyway_leaves_room_for_another(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};

    limits.kv_blocks = 6;
    bench_open(&b, 1, &limits, sharing);
    bench_submit(&b, bench_request(1, 13, 3), 0);
    bench_step(&b);
    bench_submit(&b, bench_request(2, 13, 3), 0);
    bench_step(&b);
    assert_int_equal(2, b.step.header->entries);
    assert_int_equal(12, b.step.entry[1].first_position);
    bench_close(&b);
}

/* The one that matters more is the longer one. */
static void a_priority_comes_before_what_is_left_to_compute(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};

    limits.max_batched_tokens = 8;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    tsr_request request = bench_request(1, 3, 1);
    request.priority = 1;
    bench_submit(&b, request, 0);
    bench_submit(&b, bench_request(2, 20, 1), 0);
    bench_step(&b);
    assert_int_equal(1, b.step.header->entries);
    bench_entry_is(&b, 0, (tsr_step_entry){.tokens = 8});
    bench_close(&b);
}

/* Blocks of a position: 30 are shared by each of 150, and a step has room for as many as one sequence
 * may have and 4096 more. */
static void a_step_names_so_many_shared_blocks_at_most(void **state)
{
    (void)state;
    enum { MANY = 150, SHARED = 30, FIT = (32 + 4096) / SHARED };
    const tsr_engine_limits limits = {.max_model_len = 32,
                                      .max_num_seqs = MANY,
                                      .max_batched_tokens = 400,
                                      .kv_block_tokens = 1,
                                      .kv_blocks = 5000,
                                      .logit_rows = MANY};
    bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    bench_open(b, 1, &limits, sharing);
    for (uint64_t id = 0; id < MANY; id++)
        bench_submit(b, bench_request(id, SHARED + 1, 1), 0);
    bench_step(b);
    assert_int_equal(1, b->outputs);
    bench_step(b);
    assert_int_equal(FIT, b->outputs);
    bench_step(b);
    assert_int_equal(MANY - 1 - FIT, b->outputs);
    bench_close(b);
    free(b);
}

/* Of 6 blocks: two prompts of two full ones are known, and the next needs four. */
static void what_was_not_used_for_the_longest_is_forgotten_first(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    int32_t other[32];
    bench b = {0};

    limits.kv_blocks = 6;
    bench_open(&b, 1, &limits, sharing);
    const tsr_request first = bench_request(1, 9, 1);
    tsr_request second = bench_request(2, 9, 1);
    tsr_request third = bench_request(3, 13, 1);
    memcpy(other, bench_prompt, sizeof(other));
    other[0]++;
    second.prompt = other;
    third.prompt = bench_prompt + 5;
    assert_int_equal(9, computed(&b, first));
    assert_int_equal(9, computed(&b, second));
    assert_int_equal(1, computed(&b, first));
    assert_int_equal(13, computed(&b, third)); /* two unknown ones, and those of the second */
    assert_int_equal(1, computed(&b, first));
    assert_int_equal(9, computed(&b, second));
    bench_close(&b);
}

static void a_request_goes_to_the_rank_that_knows_its_prefix(void **state)
{
    (void)state;
    bench b = {0};

    bench_open(&b, 3, &bench_roomy, (tsr_schedule_options){.prefix_cache = true});
    const tsr_request request = bench_request(1, 9, 8);
    tsr_request other = bench_request(2, 9, 8);
    other.prompt = bench_prompt + 7;
    bench_submit(&b, request, 0);
    bench_submit(&b, other, 0);
    bench_step(&b);
    bench_entry_is(&b, 1, (tsr_step_entry){.rank = 1, .tokens = 9, .flags = TSR_ENTRY_SAMPLE});
    uint64_t ended[3];
    bench_run(&b, ended);
    bench_step(&b); /* both are released */
    other.id = 3;
    bench_submit(&b, other, 0);
    bench_step(&b);
    bench_entry_is(&b, 0,
                   (tsr_step_entry){.rank = 1,
                                    .first_position = 8,
                                    .tokens = 1,
                                    .flags = TSR_ENTRY_SAMPLE | TSR_ENTRY_RESUME});
    /* eight tokens are not worth waiting beside another sequence */
    other.id = 4;
    bench_submit(&b, other, 0);
    bench_step(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.tokens = 9, .flags = TSR_ENTRY_SAMPLE});
    bench_close(&b);
}

/* What a NaN stands in is not passed on. */
static void what_failed_is_not_known(void **state)
{
    (void)state;
    bench b = {0};
    tsr_absorbed absorbed;
    tsr_output last;

    bench_open(&b, 1, &bench_roomy, sharing);
    bench_submit(&b, bench_request(1, 9, 4), 0);
    bench_plan(&b);
    b.sim.row[0].token = -1;
    const tsr_step_results results = sim_results(&b.sim);
    ASSERT_STATUS(TSR_OK, tsr_scheduler_absorb(b.scheduler, &results, 0, &absorbed));
    assert_int_equal(TSR_FINISH_FAILED, absorbed.output[0].finish);
    bench_submit(&b, bench_request(2, 9, 4), 0);
    bench_step(&b);
    bench_entry_is(&b, 1, (tsr_step_entry){.tokens = 9, .flags = TSR_ENTRY_SAMPLE});
    assert_true(tsr_scheduler_fail(b.scheduler, 2, "broken", &last));
    assert_int_equal(9, computed(&b, bench_request(3, 9, 1)));
    bench_close(&b);
}

/* The first, which others wait for, is cancelled in its prompt: the next computes the rest. */
static void who_waits_for_a_prompt_that_is_cancelled_goes_on(void **state)
{
    (void)state;
    bench b = {0};
    tsr_output last;

    bench_open(&b, 1, &bench_roomy,
               (tsr_schedule_options){.prefix_cache = true, .prefill_chunk = 5});
    for (uint64_t id = 0; id < 3; id++)
        bench_submit(&b, bench_request(id, 13, 1), 0);
    bench_step(&b);
    assert_int_equal(1, b.step.header->entries);
    assert_true(tsr_scheduler_cancel(b.scheduler, 0, &last));
    bench_step(&b);
    assert_int_equal(2, b.step.header->entries);
    bench_entry_is(
        &b, 1,
        (tsr_step_entry){.slot = 1, .first_position = 4, .tokens = 5, .flags = TSR_ENTRY_RESUME});
    uint64_t ended[2];
    bench_run(&b, ended);
    assert_int_equal(0, tsr_scheduler_stats(b.scheduler).kv_blocks_used);
    bench_close(&b);
}

/* Plans a step in which the second sequence begins behind two blocks, and alters its entry: the rank
 * finds it. */
static void assert_found(uint32_t first_position, int32_t block, const char *what)
{
    bench b = {0};

    bench_open(&b, 1, &bench_roomy, sharing);
    bench_submit(&b, bench_request(1, 9, 3), 0);
    bench_step(&b);
    bench_submit(&b, bench_request(2, 9, 3), 0);
    ASSERT_STATUS(TSR_OK, tsr_scheduler_schedule(b.scheduler, 0, 0, b.buffer, &b.step));
    tsr_step_entry *entry = &b.step.entry[1];
    assert_int_equal(TSR_ENTRY_SAMPLE | TSR_ENTRY_RESUME, entry->flags);
    entry->first_position = first_position;
    entry->tokens = 9 - first_position;
    if (block >= 0)
        b.step.block[entry->first_block + 1] = (uint32_t)block;
    log_lines_clear(&lines);
    ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_rank_state_apply(&b.sim.state[0], &b.step));
    if (!log_lines_say(&lines, what))
        fail_msg("nobody says: %s", what);
    bench_close(&b);
}

/* A block that was full before it was given to another sequence, which has not filled it yet. */
static void assert_refilled_is_found(void)
{
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};

    limits.kv_blocks = 4;
    bench_open(&b, 1, &limits, sharing);
    tsr_request other = bench_request(2, 9, 2);
    other.prompt = bench_prompt + 5;
    assert_int_equal(13, computed(&b, bench_request(1, 13, 1)));
    bench_submit(&b, other, 0);
    bench_step(&b);
    const uint32_t last = b.step.block[b.step.entry[1].first_block + 2];
    assert_true(b.sim.state[0].block[last].full_at == 0);
    bench_close(&b);
}

static void a_rank_shares_only_what_was_filled(void **state)
{
    (void)state;
    assert_refilled_is_found();
    assert_found(8, 31, "it resumes behind a block that no step has filled");
    assert_found(8, 2, "it resumes behind a block that no step has filled");
    assert_found(7, -1, "it resumes where no block begins");
}

int main(void)
{
    tsr_log_set_sink(log_lines_catch, &lines);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lower_priority_goes_first_and_arrival_decides_among_equals),
        cmocka_unit_test(who_matters_least_gives_its_blocks),
        cmocka_unit_test(a_short_prompt_does_not_wait_for_a_long_one),
        cmocka_unit_test(the_first_of_many_alike_computes_for_all),
        cmocka_unit_test(what_a_request_says_is_known_to_the_next),
        cmocka_unit_test(a_salt_and_a_scored_prompt_share_nothing),
        cmocka_unit_test(what_was_not_used_for_the_longest_is_forgotten_first),
        cmocka_unit_test(a_request_goes_to_the_rank_that_knows_its_prefix),
        cmocka_unit_test(what_failed_is_not_known),
        cmocka_unit_test(the_beginning_of_a_prefix_is_forgotten_last),
        cmocka_unit_test(what_is_held_anyway_leaves_room_for_another),
        cmocka_unit_test(a_priority_comes_before_what_is_left_to_compute),
        cmocka_unit_test(a_step_names_so_many_shared_blocks_at_most),
        cmocka_unit_test(a_rank_shares_only_what_was_filled),
        cmocka_unit_test(who_waits_for_a_prompt_that_is_cancelled_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
