/* The scheduler, one rule at a time. Ranks are simulated; the clock is the test's own. */
#include "tests/test.h"

#include "proto/admission.h"
#include "tests/engine/scheduler_bench.h"
#include "tests/log_lines.h"

#include <math.h>
#include <stdlib.h>

static log_lines lines;
static void a_prompt_is_cut_into_chunks_and_only_its_last_row_is_sampled(void **state)
{
    (void)state;
    bench b = {0};

    bench_open(&b, 1, &bench_roomy, (tsr_schedule_options){.prefill_chunk = 3});
    bench_submit(&b, bench_request(1, 7, 2), 0);
    bench_step(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.tokens = 3});
    assert_int_equal(1, b.step.header->blocks);
    bench_step(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.first_position = 3, .tokens = 3});
    assert_int_equal(0, b.outputs);
    bench_step(&b);
    bench_entry_is(&b, 0,
                   (tsr_step_entry){.first_position = 6, .tokens = 1, .flags = TSR_ENTRY_SAMPLE});
    assert_int_equal(1, b.outputs);
    bench_step(&b);
    bench_entry_is(
        &b, 0,
        (tsr_step_entry){
            .first_position = 7, .tokens = 1, .output_index = 1, .flags = TSR_ENTRY_SAMPLE});
    assert_int_equal(TSR_FINISH_LENGTH, b.output[0].finish);
    bench_step(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.flags = TSR_ENTRY_RELEASE});
    assert_int_equal(0, b.step.header->max_rank_tokens);
    assert_true(tsr_scheduler_idle(b.scheduler) && sim_empty(&b.sim));
    bench_close(&b);
}

static void sequences_that_generate_come_before_prompts(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};

    limits.max_batched_tokens = 5;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    bench_submit(&b, bench_request(1, 4, 20), 0);
    bench_step(&b);
    bench_submit(&b, bench_request(2, 14, 1), 0);
    for (uint32_t i = 0; i < 3; i++) {
        bench_step(&b);
        bench_entry_is(&b, 0,
                       (tsr_step_entry){.first_position = 4 + i,
                                        .tokens = 1,
                                        .output_index = 1 + i,
                                        .flags = TSR_ENTRY_SAMPLE});
        bench_entry_is(&b, 1, (tsr_step_entry){.slot = 1, .first_position = 4 * i, .tokens = 4});
    }
    bench_close(&b);
}

static void no_more_sequences_are_admitted_than_one_step_can_serve(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};

    limits.max_batched_tokens = 2;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    for (uint64_t id = 0; id < 4; id++)
        bench_submit(&b, bench_request(id, 1, 4), 0);
    bench_step(&b);
    assert_int_equal(2, b.outputs);
    bench_step(&b);
    assert_int_equal(2, b.outputs);
    bench_close(&b);
}

static void rows_of_logits_never_exceed_the_limit_of_a_rank(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    tsr_request score = bench_request(1, 9, 0);
    bench b = {0};

    limits.logit_rows = 4;
    score.want_logits = true;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    bench_submit(&b, score, 0);
    bench_step(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.tokens = 4, .flags = TSR_ENTRY_LOGITS});
    bench_step(&b);
    bench_step(&b);
    bench_entry_is(&b, 0,
                   (tsr_step_entry){.first_position = 8, .tokens = 1, .flags = TSR_ENTRY_LOGITS});
    assert_int_equal(1, b.outputs);
    assert_int_equal(-1, b.output[0].token);
    assert_int_equal(TSR_FINISH_LENGTH, b.output[0].finish);
    bench_close(&b);
}

/* Two sequences share four blocks of 4 positions; when both need a third, the later one waits. */
static void the_request_admitted_last_gives_its_blocks_and_runs_again(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};
    int32_t tokens[2][32] = {{0}};
    int32_t counts[2] = {0};

    limits.kv_blocks = 4;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    bench_submit(&b, bench_request(0, 4, 9), 0);
    bench_submit(&b, bench_request(1, 4, 9), 0);
    while (!tsr_scheduler_idle(b.scheduler)) {
        bench_step(&b);
        for (int32_t i = 0; i < b.outputs; i++)
            tokens[b.output[i].id][counts[b.output[i].id]++] = b.output[i].token;
    }
    assert_in_range(tsr_scheduler_stats(b.scheduler).preemptions, 1, 9);
    assert_int_equal(9, counts[0]);
    assert_int_equal(9, counts[1]);
    assert_memory_equal(tokens[0], tokens[1], 9 * sizeof(int32_t));
    bench_close(&b);
}

/* Submits to a rank of 4 blocks of 4 positions, and expects a line that says `what`. */
static void assert_refused(tsr_request request, const char *what)
{
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};
    const char *refusal;

    limits.kv_blocks = 4;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    ASSERT_STATUS(TSR_OK, tsr_scheduler_submit(b.scheduler, &request, 0, &refusal));
    assert_non_null(refusal);
    if (strstr(refusal, what) == NULL)
        fail_msg("expected '%s' in: %s", what, refusal);
    assert_null(strchr(refusal, '\n'));
    assert_true(tsr_scheduler_idle(b.scheduler));

    /* Nothing else stops. */
    bench_submit(&b, bench_request(9, 3, 1), 0);
    bench_step(&b);
    assert_int_equal(1, b.outputs);
    bench_close(&b);
}

static void a_request_that_can_never_run_is_refused_in_one_line(void **state)
{
    (void)state;
    static const int32_t beyond[] = {1, SIM_VOCAB};
    static const int32_t negative[] = {-1};
    static const int32_t many[33] = {0};
    tsr_request r = bench_request(1, 33, 1);

    r.prompt = many;
    assert_refused(r, "prompt: 33 tokens do not fit into a context of 32");
    r.prompt_tokens = 32;
    assert_refused(r, "prompt: 32 tokens leave no room to answer");
    assert_refused(bench_request(1, 0, 1), "prompt: it has no tokens");
    assert_refused(bench_request(1, 10, 8), "17 positions take 5 KV blocks, a rank has 4");
    assert_refused(bench_request(1, 10, -1), "max_tokens");
    r = bench_request(1, 2, 1);
    r.prompt = beyond;
    assert_refused(r, "prompt: token 1 is id 40, the model has ids 0 to 39");
    r = bench_request(1, 1, 1);
    r.prompt = negative;
    assert_refused(r, "prompt: token 0 is id -1");
    r = bench_request(1, 1, 1);
    r.temperature = NAN;
    assert_refused(r, "temperature");
    r = bench_request(1, 1, 1);
    r.top_p = 0;
    assert_refused(r, "top_p");
    r = bench_request(1, 1, 1);
    r.top_k = -1;
    assert_refused(r, "top_k");
}

static void a_request_of_exactly_all_blocks_runs(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};

    limits.kv_blocks = 4;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    bench_submit(&b, bench_request(1, 10, 7), 0);
    while (!tsr_scheduler_idle(b.scheduler))
        bench_step(&b);
    assert_int_equal(7, tsr_scheduler_stats(b.scheduler).output_tokens);
    bench_close(&b);
}

static void answers_end_at_the_end_of_the_context(void **state)
{
    (void)state;
    bench b = {0};

    bench_open(&b, 1, &bench_roomy, (tsr_schedule_options){0});
    bench_submit(&b, bench_request(1, 30, 1000), 0);
    while (!tsr_scheduler_idle(b.scheduler))
        bench_step(&b);
    assert_int_equal(TSR_FINISH_LENGTH, b.output[0].finish);
    assert_int_equal(2, b.output[0].output_tokens);
    bench_close(&b);
}

/* Runs one request alone; its last output. */
static tsr_output run_alone(tsr_request request)
{
    bench b = {0};

    bench_open(&b, 1, &bench_roomy, (tsr_schedule_options){0});
    bench_submit(&b, request, 0);
    do {
        bench_step(&b);
    } while (b.outputs == 0 || b.output[0].finish == TSR_FINISH_NONE);
    bench_close(&b);
    return b.output[0];
}

static void eos_and_stop_ids_end_a_request_and_ignore_eos_only_spares_the_eos(void **state)
{
    (void)state;
    int32_t second[8];
    tsr_request r = bench_request(1, 4, 8);

    /* What it would say: its second token is made a stop id, and then the model's eos. */
    memcpy(second, bench_prompt, 4 * sizeof(*bench_prompt));
    second[4] = sim_next_token(second, 4, 0, 0);
    const int32_t stop = sim_next_token(second, 5, 0, 1);
    assert_int_not_equal(stop, second[4]);
    r.stop_ids = &stop;
    r.stop_id_count = 1;
    tsr_output last = run_alone(r);
    assert_int_equal(TSR_FINISH_STOP, last.finish);
    assert_int_equal(stop, last.token);
    assert_int_equal(2, last.output_tokens);

    /* A prompt whose first token is 0, the simulated model's eos. */
    int32_t first[4] = {1, 2, 3, 0};
    while (sim_next_token(first, 4, 0, 0) != 0)
        first[3]++;
    r = bench_request(1, 4, 3);
    r.prompt = first;
    assert_int_equal(3, run_alone(r).output_tokens);
    r.ignore_eos = false;
    last = run_alone(r);
    assert_int_equal(TSR_FINISH_STOP, last.finish);
    assert_int_equal(1, last.output_tokens);
}

static int32_t rank_of_first_entries(tsr_spread spread, int32_t *ranks, int32_t count)
{
    bench b = {0};
    int32_t entries;

    bench_open(&b, 3, &bench_roomy, (tsr_schedule_options){.spread = spread});
    for (int32_t id = 0; id < count; id++)
        bench_submit(&b, bench_request((uint64_t)id, id == 0 ? 15 : 2, 4), 0);
    bench_step(&b);
    entries = (int32_t)b.step.header->entries;
    for (int32_t i = 0; i < entries; i++)
        ranks[i] = (int32_t)b.step.entry[i].rank;
    bench_close(&b);
    return entries;
}

static void requests_spread_over_ranks_as_asked(void **state)
{
    (void)state;
    int32_t ranks[8];
    static const int32_t even[] = {0, 0, 1, 1, 2};
    static const int32_t first[] = {0, 0};

    assert_int_equal(5, rank_of_first_entries(TSR_SPREAD_LEAST_LOADED, ranks, 5));
    assert_int_equal(0, ranks[0]);
    /* The first has a long prompt, so the fourth request goes beside the second. */
    assert_int_equal(1, ranks[1]);
    assert_int_equal(5, rank_of_first_entries(TSR_SPREAD_ROUND_ROBIN, ranks, 5));
    assert_memory_equal(even, ranks, sizeof(even));
    assert_int_equal(2, rank_of_first_entries(TSR_SPREAD_FIRST, ranks, 2));
    assert_memory_equal(first, ranks, sizeof(first));
}

static void owners_take_requests_while_they_have_room(void **state)
{
    const tsr_schedule_options options = {.owners = 2};
    bench b = {0};
    int32_t of_rank[3] = {0};

    (void)state;
    bench_open(&b, 3, &bench_roomy, options);
    for (uint64_t id = 0; id < 9; id++)
        bench_submit(&b, bench_request(id, 2, 4), 0);
    bench_step(&b);
    for (uint32_t i = 0; i < b.step.header->entries; i++)
        of_rank[b.step.entry[i].rank]++;
    /* All slots of both, and one more. */
    assert_int_equal(4, of_rank[0]);
    assert_int_equal(4, of_rank[1]);
    assert_int_equal(1, of_rank[2]);
    bench_close(&b);

    /* The owners' steps are full, but nobody else takes what is left. */
    bench_open(&b, 3, &bench_roomy, options);
    for (uint64_t id = 0; id < 3; id++)
        bench_submit(&b, bench_request(id, 15, 4), 0);
    bench_step(&b);
    for (uint32_t i = 0; i < b.step.header->entries; i++)
        assert_true(b.step.entry[i].rank < 2);
    bench_close(&b);
}

/* The seed that reaches a rank with the only admission of a step. */
static uint64_t admitted_seed(const bench *b)
{
    tsr_admission_reader reader = {.bytes = b->step.admissions,
                                   .count = b->step.header->admission_bytes};
    int32_t tokens[32];
    tsr_admission admission = {0};
    bool more;

    ASSERT_STATUS(TSR_OK, tsr_admission_next(&reader, tokens, 32, &admission, &more));
    assert_true(more);
    return admission.seed;
}

static void a_request_without_a_seed_draws_one_by_its_place_of_arrival(void **state)
{
    (void)state;
    uint64_t seeds[2][3];

    for (int run = 0; run < 2; run++) {
        bench b = {0};
        bench_open(&b, 1, &bench_roomy, (tsr_schedule_options){.seed = 42});
        for (uint64_t id = 0; id < 3; id++) {
            tsr_request r = bench_request(id, 3, 1);
            r.has_seed = run == 1 && id == 1;
            r.seed = 4711;
            bench_submit(&b, r, 0);
            bench_step(&b);
            seeds[run][id] = admitted_seed(&b);
        }
        bench_close(&b);
    }
    assert_true(seeds[0][0] == seeds[1][0] && seeds[0][2] == seeds[1][2]);
    assert_true(seeds[0][0] != seeds[0][1] && seeds[0][1] != seeds[0][2]);
    assert_true(seeds[1][1] == 4711);
}

static void a_step_is_planned_before_the_last_ones_tokens_are_known(void **state)
{
    (void)state;
    bench b = {0};
    static tsr_token_row rows[2][SIM_ROWS];
    tsr_absorbed absorbed;
    tsr_step_plan third;

    bench_open(&b, 1, &bench_roomy, (tsr_schedule_options){0});
    tsr_request r = bench_request(1, 4, 8);
    const int32_t stop = sim_next_token(bench_prompt, 4, 0, 0);
    r.stop_ids = &stop;
    r.stop_id_count = 1;
    bench_submit(&b, r, 0);
    for (int i = 0; i < 2; i++) {
        bench_plan(&b);
        memcpy(rows[i], b.sim.row, sizeof(rows[i]));
    }
    log_lines_clear(&lines);
    ASSERT_STATUS(TSR_ERR_INTERNAL, tsr_scheduler_schedule(b.scheduler, 0, 0, b.buffer, &third));

    /* The first token ends it; what the second step sampled is dropped; then it is released. */
    ASSERT_STATUS(TSR_OK, sim_absorb(b.scheduler, rows[0], 1, &absorbed));
    assert_int_equal(1, absorbed.count);
    assert_int_equal(TSR_FINISH_STOP, absorbed.output[0].finish);
    assert_false(tsr_scheduler_idle(b.scheduler));
    ASSERT_STATUS(TSR_OK, sim_absorb(b.scheduler, rows[1], 1, &absorbed));
    assert_int_equal(0, absorbed.count);
    bench_plan(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.flags = TSR_ENTRY_RELEASE});
    bench_close(&b);
}

static void a_request_without_a_next_token_fails_alone(void **state)
{
    (void)state;
    bench b = {0};
    tsr_absorbed absorbed;

    bench_open(&b, 1, &bench_roomy, (tsr_schedule_options){0});
    bench_submit(&b, bench_request(1, 4, 8), 0);
    bench_submit(&b, bench_request(2, 4, 8), 0);
    bench_plan(&b);
    b.sim.row[0].token = -1;
    ASSERT_STATUS(TSR_OK, sim_absorb(b.scheduler, b.sim.row, 2, &absorbed));
    assert_int_equal(2, absorbed.count);
    assert_int_equal(TSR_FINISH_FAILED, absorbed.output[0].finish);
    assert_non_null(strstr(absorbed.output[0].refusal, "NaN"));
    assert_int_equal(TSR_FINISH_NONE, absorbed.output[1].finish);
    bench_plan(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.flags = TSR_ENTRY_RELEASE});

    b.sim.row[0].token = -3;
    ASSERT_STATUS(TSR_ERR_MISMATCH, sim_absorb(b.scheduler, b.sim.row, 1, &absorbed));
    bench_close(&b);
}

static void a_cancelled_request_is_released_wherever_it_is(void **state)
{
    (void)state;
    bench b = {0};
    tsr_output last;
    uint64_t id;

    bench_open(&b, 1, &bench_roomy, (tsr_schedule_options){.prefill_chunk = 2});
    bench_submit(&b, bench_request(1, 6, 4), 0);
    assert_true(tsr_scheduler_cancel(b.scheduler, 1, &last)); /* waiting */
    assert_int_equal(TSR_FINISH_CANCELLED, last.finish);
    assert_true(tsr_scheduler_idle(b.scheduler));

    bench_submit(&b, bench_request(2, 6, 4), 0);
    bench_step(&b);
    assert_true(tsr_scheduler_cancel(b.scheduler, 2, &last)); /* in its prompt */
    bench_step(&b);
    bench_entry_is(&b, 0, (tsr_step_entry){.flags = TSR_ENTRY_RELEASE});

    bench_submit(&b, bench_request(3, 2, 4), 0);
    bench_plan(&b);
    assert_true(tsr_scheduler_owner(b.scheduler, 0, &id));
    assert_true(tsr_scheduler_cancel(b.scheduler, 3, &last)); /* while a step computes */
    assert_false(tsr_scheduler_owner(b.scheduler, 0, &id));
    bench_absorb(&b, 0);
    assert_int_equal(0, b.outputs);
    bench_step(&b);
    assert_true(sim_empty(&b.sim));
    assert_false(tsr_scheduler_cancel(b.scheduler, 3, &last));
    bench_close(&b);
}

static void a_slot_and_its_blocks_change_hands_within_a_step(void **state)
{
    (void)state;
    tsr_engine_limits limits = bench_roomy;
    bench b = {0};

    limits.max_num_seqs = 1;
    limits.kv_blocks = 1;
    bench_open(&b, 1, &limits, (tsr_schedule_options){0});
    bench_submit(&b, bench_request(1, 2, 1), 0);
    bench_submit(&b, bench_request(2, 3, 1), 0);
    bench_step(&b);
    bench_step(&b);
    assert_int_equal(2, b.step.header->entries);
    bench_entry_is(&b, 0, (tsr_step_entry){.flags = TSR_ENTRY_RELEASE});
    bench_entry_is(&b, 1, (tsr_step_entry){.tokens = 3, .flags = TSR_ENTRY_SAMPLE});
    bench_close(&b);
}

static void tokens_that_do_not_answer_the_step_are_refused(void **state)
{
    (void)state;
    bench b = {0};
    tsr_absorbed absorbed;

    bench_open(&b, 1, &bench_roomy, (tsr_schedule_options){0});
    bench_submit(&b, bench_request(1, 2, 4), 0);
    bench_plan(&b);
    log_lines_clear(&lines);
    ASSERT_STATUS(TSR_ERR_MISMATCH, sim_absorb(b.scheduler, b.sim.row, 0, &absorbed));
    assert_true(log_lines_say(&lines, "step 1"));
    b.sim.row[0].slot = 1;
    ASSERT_STATUS(TSR_ERR_MISMATCH, sim_absorb(b.scheduler, b.sim.row, 1, &absorbed));
    b.sim.row[0].slot = 0;
    b.sim.row[0].token = SIM_VOCAB;
    ASSERT_STATUS(TSR_ERR_MISMATCH, sim_absorb(b.scheduler, b.sim.row, 1, &absorbed));
    b.sim.row[0].token = SIM_VOCAB - 1;
    ASSERT_STATUS(TSR_OK, sim_absorb(b.scheduler, b.sim.row, 1, &absorbed));
    ASSERT_STATUS(TSR_ERR_MISMATCH, sim_absorb(b.scheduler, b.sim.row, 0, &absorbed));
    bench_close(&b);
}

static void time_to_the_first_token_is_counted_from_submission(void **state)
{
    (void)state;
    bench b = {0};

    bench_open(&b, 1, &bench_roomy, (tsr_schedule_options){.prefill_chunk = 2});
    bench_submit(&b, bench_request(1, 4, 2), 100);
    bench_plan(&b);
    bench_absorb(&b, 150);
    bench_plan(&b);
    bench_absorb(&b, 170);
    bench_plan(&b);
    bench_absorb(&b, 500);
    const tsr_engine_stats stats = tsr_scheduler_stats(b.scheduler);
    assert_int_equal(70, stats.first_token_ns_sum);
    assert_int_equal(1, stats.first_tokens);
    assert_int_equal(3, stats.steps);
    assert_int_equal(4, stats.prompt_tokens);
    assert_int_equal(2, stats.output_tokens);
    bench_close(&b);
}

int main(void)
{
    tsr_log_set_sink(log_lines_catch, &lines);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_cut_into_chunks_and_only_its_last_row_is_sampled),
        cmocka_unit_test(sequences_that_generate_come_before_prompts),
        cmocka_unit_test(no_more_sequences_are_admitted_than_one_step_can_serve),
        cmocka_unit_test(rows_of_logits_never_exceed_the_limit_of_a_rank),
        cmocka_unit_test(the_request_admitted_last_gives_its_blocks_and_runs_again),
        cmocka_unit_test(a_request_that_can_never_run_is_refused_in_one_line),
        cmocka_unit_test(a_request_of_exactly_all_blocks_runs),
        cmocka_unit_test(answers_end_at_the_end_of_the_context),
        cmocka_unit_test(eos_and_stop_ids_end_a_request_and_ignore_eos_only_spares_the_eos),
        cmocka_unit_test(requests_spread_over_ranks_as_asked),
        cmocka_unit_test(owners_take_requests_while_they_have_room),
        cmocka_unit_test(a_request_without_a_seed_draws_one_by_its_place_of_arrival),
        cmocka_unit_test(a_step_is_planned_before_the_last_ones_tokens_are_known),
        cmocka_unit_test(a_request_without_a_next_token_fails_alone),
        cmocka_unit_test(a_cancelled_request_is_released_wherever_it_is),
        cmocka_unit_test(a_slot_and_its_blocks_change_hands_within_a_step),
        cmocka_unit_test(tokens_that_do_not_answer_the_step_are_refused),
        cmocka_unit_test(time_to_the_first_token_is_counted_from_submission),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
