/*
 * Launching and landing one rank's model by hand: what is refused, what a landing reports, and that
 * nothing is there before it.
 */
#include "tests/test.h"

#include "tests/engine/late_device.h"
#include "tests/log_lines.h"
#include "tests/model/served.h"

#include "runtime/base/sizes.h"
#include "runtime/model/model.h"

#include <string.h>

static log_lines lines;

typedef struct rig {
    tsr_plan *plan;
    tsr_comm *comm;
    tsr_device *device;
    tsr_model *model;
} rig;

static rig open_rig(bool late)
{
    const served_setup setup = {.folder = TSR_TEST_DATA "/qwen3-mixed"};
    rig r = {0};

    log_lines_clear(&lines);
    ASSERT_STATUS(TSR_OK, served_plan(&setup, &r.plan));
    ASSERT_STATUS(TSR_OK, tsr_comm_open_local(1, 60000, &r.comm));
    ASSERT_STATUS(TSR_OK, tsr_device_open_cpu(1, TSR_CPU_AUTO, &r.device));
    if (late)
        ASSERT_STATUS(TSR_OK, late_device_open(r.device, LATE_AS_LATE_AS_CAN_BE, &r.device));
    const tsr_model_args args = {.plan = r.plan,
                                 .device = r.device,
                                 .comm = r.comm,
                                 .open_exchange = late ? late_exchange_open : tsr_exchange_open};
    ASSERT_STATUS(TSR_OK, tsr_model_open(&args, &r.model));
    assert_int_equal(late ? 2 : 1, tsr_model_flights(r.model));
    return r;
}

static void close_rig(rig *r)
{
    tsr_model_close(r->model);
    tsr_device_close(r->device);
    tsr_comm_close(r->comm);
    tsr_plan_close(r->plan);
}

/* A prompt of 5 tokens in slot 0, with blocks from `first_block` on; its last row is sampled. */
static tsr_status fill(rig *r, int32_t flight, int32_t first_block)
{
    static const int32_t ids[5] = {5, 17, 301, 44, 9};
    const int32_t blocks = tsr_pieces(5, r->plan->limits.kv_block_tokens);
    const tsr_batch_sizes sizes = {.samples = 1,
                                   .sequences = 1,
                                   .tokens = 5,
                                   .logit_rows = 1,
                                   .blocks = blocks,
                                   .prompts = 1,
                                   .prompt_ids = 5};
    tsr_batch b;

    const tsr_status st = tsr_model_batch(r->model, flight, &sizes, &b);
    if (st != TSR_OK)
        return st;
    for (int32_t t = 0; t < 5; t++) {
        b.slot[t] = 0;
        b.position[t] = t;
    }
    for (int32_t i = 0; i < blocks; i++)
        b.blocks[i] = first_block + i;
    b.sequence[0] = (tsr_attention_sequence){.rows = 5};
    b.logit_row[0] = 4;
    b.sample[0] = (tsr_sample_row){.top_p = 1.0F, .position = 5};
    b.prompt[0] = (tsr_prompt){.slot = 0, .count = 5};
    memcpy(b.prompt_id, ids, sizeof(ids));
    return TSR_OK;
}

static const tsr_step_facts facts = {.epoch = 7, .max_rank_tokens = 5};

static void results_are_there_once_a_flight_has_landed(void **state)
{
    (void)state;
    int32_t token[2] = {0};

    for (int late = 0; late < 2; late++) {
        rig r = open_rig(late == 1);
        const tsr_sampled *sampled = NULL;
        const float *logits = NULL;
        const int32_t vocab = r.plan->model.vocab;

        ASSERT_STATUS(TSR_OK, fill(&r, 0, 0));
        ASSERT_STATUS(TSR_OK, tsr_model_launch(r.model, 0, &facts));
        ASSERT_STATUS(TSR_OK, tsr_model_land(r.model, 0, &sampled));
        token[late] = sampled[0].token;
        ASSERT_STATUS(TSR_OK, tsr_model_logits(r.model, 0, 0, 1, &logits));
        for (int32_t v = 0; v < vocab; v++)
            assert_true(logits[v] <= logits[token[late]]);
        close_rig(&r);
    }
    assert_int_equal(token[0], token[1]);
}

/* One token's K experts are K; five tokens have at least as many, and no more than 5 K. The step
 * gives what it would have given, and the next one is not counted. */
static void the_experts_of_a_step_are_counted_when_asked_for(void **state)
{
    (void)state;
    int32_t token[2] = {0};

    for (int late = 0; late < 2; late++) {
        rig r = open_rig(late == 1);
        const tsr_model_facts *model = &r.plan->model;
        int64_t experts[TSR_MAX_LAYERS] = {0};
        tsr_routing_tally tally = {.experts = experts};
        const tsr_sampled *sampled = NULL;

        for (int i = 0; i < 2; i++) {
            if (i == 0)
                ASSERT_STATUS(TSR_OK, tsr_model_tally_next(r.model, &tally));
            ASSERT_STATUS(TSR_OK, fill(&r, 0, 0));
            ASSERT_STATUS(TSR_OK, tsr_model_launch(r.model, 0, &facts));
            ASSERT_STATUS(TSR_OK, tsr_model_land(r.model, 0, &sampled));
            token[i] = sampled[0].token;
            assert_true(tally.done);
            assert_int_equal(tally.tokens, 5);
        }
        assert_int_equal(token[0], token[1]);
        for (int32_t l = 0; l < model->layers; l++)
            assert_in_range(experts[l], model->top_k, 5 * model->top_k);
        close_rig(&r);
    }
}

/* Every stage that the model has, and no other; the step gives what it would have given. */
static void the_stages_of_a_step_are_timed_when_asked_for(void **state)
{
    (void)state;
    int32_t token[2] = {0};

    for (int late = 0; late < 2; late++) {
        rig r = open_rig(late == 1);
        const bool shared = r.plan->model.shared_intermediate > 0;
        const bool dense = !r.plan->model.sparse[0];
        tsr_stage_times times = {.done = true};
        const tsr_sampled *sampled = NULL;

        for (int i = 0; i < 2; i++) {
            if (i == 0)
                ASSERT_STATUS(TSR_OK, tsr_model_time_next(r.model, &times));
            assert_int_equal(times.done, i == 1);
            ASSERT_STATUS(TSR_OK, fill(&r, 0, 0));
            ASSERT_STATUS(TSR_OK, tsr_model_launch(r.model, 0, &facts));
            ASSERT_STATUS(TSR_OK, tsr_model_land(r.model, 0, &sampled));
            token[i] = sampled[0].token;
        }
        assert_int_equal(token[0], token[1]);
        for (int s = 0; s < TSR_STAGES; s++) {
            const bool there = (s != TSR_STAGE_SHARED || shared) && (s != TSR_STAGE_DENSE || dense);
            assert_int_equal(times.ns[s] > 0, there);
        }
        close_rig(&r);
    }
}

/* A KV block that the cache does not have: no front door sees it, since it stands in device memory.
 * The launch goes through; the landing says what the block found. */
static void what_a_block_finds_wrong_is_told_by_the_landing(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        rig r = open_rig(late == 1);
        const tsr_sampled *sampled = NULL;
        char expected[64];

        (void)snprintf(expected, sizeof(expected), "attention: sequence 0 holds block %d of %d",
                       r.plan->limits.kv_blocks, r.plan->limits.kv_blocks);
        ASSERT_STATUS(TSR_OK, fill(&r, 0, r.plan->limits.kv_blocks));
        ASSERT_STATUS(TSR_OK, tsr_model_launch(r.model, 0, &facts));
        ASSERT_STATUS(TSR_ERR_ARG, tsr_model_land(r.model, 0, &sampled));
        assert_true(log_lines_say(&lines, expected));
        ASSERT_STATUS(TSR_ERR_ARG, tsr_comm_cause(r.comm));
        assert_null(sampled);
        close_rig(&r);
    }
}

static void flights_are_used_in_turn(void **state)
{
    (void)state;
    rig r = open_rig(true);
    const tsr_sampled *sampled = NULL;
    const float *logits = NULL;

    ASSERT_STATUS(TSR_ERR_ARG, fill(&r, 2, 0)); /* there are two */
    ASSERT_STATUS(TSR_OK, fill(&r, 1, 0));
    ASSERT_STATUS(TSR_OK, tsr_model_launch(r.model, 1, &facts));
    ASSERT_STATUS(TSR_ERR_ARG, fill(&r, 1, 0)); /* it is under way */
    assert_true(log_lines_say(&lines, "flight 1 of 2 is still under way"));
    ASSERT_STATUS(TSR_OK, tsr_comm_cause(r.comm));
    ASSERT_STATUS(TSR_OK, tsr_model_land(r.model, 1, &sampled));
    ASSERT_STATUS(TSR_ERR_ARG, tsr_model_logits(r.model, 1, 0, 2, &logits)); /* it has one row */
    close_rig(&r);

    r = open_rig(true);
    ASSERT_STATUS(TSR_ERR_ARG, tsr_model_land(r.model, 0, &sampled));
    assert_true(log_lines_say(&lines, "flight 0 of 2 is not under way"));
    close_rig(&r);
}

static void launch_refuses(const char *what, void (*spoil)(tsr_batch *b))
{
    rig r = open_rig(false);
    const tsr_batch_sizes sizes = {.samples = 1,
                                   .sequences = 1,
                                   .tokens = 1,
                                   .logit_rows = 1,
                                   .blocks = 1,
                                   .prompts = 1,
                                   .prompt_ids = 1};
    tsr_batch b;

    ASSERT_STATUS(TSR_OK, tsr_model_batch(r.model, 0, &sizes, &b));
    b.slot[0] = b.position[0] = b.blocks[0] = b.logit_row[0] = 0;
    b.sequence[0] = (tsr_attention_sequence){.rows = 1};
    b.sample[0] = (tsr_sample_row){.top_p = 1.0F, .position = 1};
    b.prompt[0] = (tsr_prompt){.slot = 0, .count = 1};
    b.prompt_id[0] = 3;
    spoil(&b);
    ASSERT_STATUS(TSR_ERR_ARG, tsr_model_launch(r.model, 0, &facts));
    if (!log_lines_say(&lines, what))
        fail_msg("nobody says: %s", what);
    ASSERT_STATUS(TSR_ERR_ARG, tsr_comm_cause(r.comm));
    close_rig(&r);
}

static void slot_beyond(tsr_batch *b)
{
    b->slot[0] = SERVED_SEQUENCES;
}

static void position_beyond(tsr_batch *b)
{
    b->position[0] = SERVED_MODEL_LEN;
}

static void row_beyond(tsr_batch *b)
{
    b->logit_row[0] = 1;
}

static void sample_beyond(tsr_batch *b)
{
    b->sample[0].logit_row = -1;
}

static void prompt_beyond(tsr_batch *b)
{
    b->prompt[0].slot = -1;
}

static void more_ids_than_came(tsr_batch *b)
{
    b->prompt[0].count = 2;
}

static void id_beyond(tsr_batch *b)
{
    b->prompt_id[0] = 512;
}

static void a_batch_beyond_the_plan_is_refused_by_name(void **state)
{
    (void)state;
    launch_refuses("step: a slot is 8, the limit is 7", slot_beyond);
    launch_refuses("step: a position is 64, the limit is 63", position_beyond);
    launch_refuses("step: a row of logits is 1, the limit is 0", row_beyond);
    launch_refuses("step: a sampled row is -1, the limit is 0", sample_beyond);
    launch_refuses("step: a slot is -1, the limit is 7", prompt_beyond);
    launch_refuses("step: prompt_ids is 2, the limit is 1", more_ids_than_came);
    launch_refuses("step: a token is 512, the limit is 511", id_beyond);

    rig r = open_rig(false);
    const tsr_batch_sizes most = tsr_batch_most(&r.plan->limits, r.plan->model.vocab);
    tsr_batch_sizes sizes = most;
    tsr_batch b;
    ASSERT_STATUS(TSR_OK, tsr_model_batch(r.model, 0, &sizes, &b));
    sizes.tokens++;
    ASSERT_STATUS(TSR_ERR_ARG, tsr_model_batch(r.model, 0, &sizes, &b));
    assert_true(log_lines_say(&lines, "step: tokens is 129, the limit is 128"));
    close_rig(&r);
}

int main(void)
{
    tsr_log_set_sink(log_lines_catch, &lines);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_there_once_a_flight_has_landed),
        cmocka_unit_test(the_experts_of_a_step_are_counted_when_asked_for),
        cmocka_unit_test(the_stages_of_a_step_are_timed_when_asked_for),
        cmocka_unit_test(what_a_block_finds_wrong_is_told_by_the_landing),
        cmocka_unit_test(flights_are_used_in_turn),
        cmocka_unit_test(a_batch_beyond_the_plan_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
