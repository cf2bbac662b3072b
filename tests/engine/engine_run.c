/* Ranks as threads, an engine over them. */
#include "tests/test.h"

#include "tests/engine/engine_run.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/plan/plan_build.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What rank 0's source and sink share. */
typedef struct desk {
    const run_setup *setup;
    const tsr_request *requests;
    int32_t count;
    int32_t expert_cells; /* layers * E */
    run_result *result;
    int32_t looked;        /* requests given since the source last gave nothing */
    int64_t idle_since_ms; /* 0: it has more to give */
    int32_t outputs;
    int32_t cancelled; /* of the setup's */
    bool drains;
} desk;

typedef struct rank_run {
    const run_setup *setup;
    const tsr_plan *plan;
    tsr_comm *comm;
    desk *desk;
    tsr_status status;
} rank_run;

static int32_t or_default(int32_t value, int32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

/* The next request that is to be cancelled, NULL when none is. */
static const run_cancel *next_cancel(const desk *d)
{
    const run_setup *setup = d->setup;

    if (d->cancelled == (int32_t)(sizeof(setup->cancel) / sizeof(setup->cancel[0])))
        return NULL;
    return setup->cancel[d->cancelled].outputs > 0 ? &setup->cancel[d->cancelled] : NULL;
}

static bool cancels(desk *d, tsr_wish *wish)
{
    const run_cancel *next = next_cancel(d);

    if (next == NULL || d->outputs < next->outputs)
        return false;
    *wish = (tsr_wish){.kind = TSR_WISH_CANCEL, .cancel = next->id};
    d->cancelled++;
    return true;
}

static void note_experts(desk *d, const tsr_engine_stats *stats)
{
    if (stats->expert_rows == NULL || d->result->expert_steps > 0)
        return;
    d->result->expert_steps = stats->expert_steps;
    for (int32_t i = 0; i < d->expert_cells; i++)
        d->result->expert_rows += stats->expert_rows[i];
}

static tsr_status ask(void *context, const tsr_question *question, tsr_wish *ret_wish)
{
    desk *d = context;
    const run_setup *setup = d->setup;
    int32_t *given = &d->result->given;
    const bool more = *given < d->count && (setup->at_once == 0 || d->looked < setup->at_once);

    note_experts(d, question->stats);
    if (cancels(d, ret_wish))
        return TSR_OK;
    if (d->drains) {
        ret_wish->kind = TSR_WISH_DRAIN;
        return TSR_OK;
    }
    if (more && (question->room || setup->ignores_room)) {
        ret_wish->kind = TSR_WISH_REQUEST;
        ret_wish->request = d->requests[(*given)++];
        d->looked++;
        d->drains = setup->drain_after > 0 && *given >= setup->drain_after;
        return TSR_OK;
    }
    d->looked = 0;
    if (*given < d->count || next_cancel(d) != NULL)
        return TSR_OK;
    if (d->idle_since_ms == 0)
        d->idle_since_ms = tsr_clock_ms();
    const bool heard = setup->counts_experts && d->result->expert_steps > 0;
    if (heard || tsr_clock_ms() - d->idle_since_ms >= setup->idle_for_ms)
        ret_wish->kind = TSR_WISH_END;
    return setup->source_fails;
}

static tsr_status token(void *context, const tsr_output *output, bool *ret_cancel)
{
    desk *d = context;
    run_answer *a = &d->result->answer[output->id];

    if (output->token >= 0) {
        assert_in_range(a->tokens, 0, RUN_TOKENS - 1);
        a->token[a->tokens] = output->token;
        assert_int_equal(d->requests[output->id].top, output->top_count);
        for (int32_t n = 0; n < output->top_count; n++)
            a->top[a->tokens][n] = output->top[n];
        a->logprob[a->tokens++] = output->logprob;
    }
    a->output_tokens = output->output_tokens;
    a->finish = output->finish;
    a->ends += output->finish != TSR_FINISH_NONE;
    if (output->refusal != NULL)
        (void)snprintf(a->refusal, sizeof(a->refusal), "%s", output->refusal);
    *ret_cancel =
        output->id == 0 && d->setup->cancel_after > 0 && a->tokens == d->setup->cancel_after;
    d->outputs++;
    if (d->setup->each_output != NULL)
        d->setup->each_output(d->outputs);
    return d->outputs == 3 ? d->setup->sink_fails : TSR_OK;
}

static tsr_status logits(void *context, uint64_t id, int32_t first_position, int32_t rows,
                         const float *values)
{
    desk *d = context;
    run_answer *a = &d->result->answer[id];
    const size_t row = (size_t)d->result->vocab;

    assert_int_equal(a->logit_rows, first_position);
    a->logits = realloc(a->logits, (size_t)(a->logit_rows + rows) * row * sizeof(float));
    assert_non_null(a->logits);
    memcpy(a->logits + (size_t)a->logit_rows * row, values, (size_t)rows * row * sizeof(float));
    a->logit_rows += rows;
    return TSR_OK;
}

static tsr_status scores(void *context, const tsr_prompt_scores *s)
{
    desk *d = context;
    run_answer *a = &d->result->answer[s->id];

    assert_int_equal(a->scored + 1, s->first_position);
    assert_int_equal(d->requests[s->id].score_top, s->top_count);
    assert_int_equal(0, a->tokens);
    for (int32_t i = 0; i < s->count; i++) {
        const int32_t position = s->first_position + i;
        a->score[position] = s->token[i];
        for (int32_t n = 0; n < s->top_count; n++)
            a->score_top[position][n] = s->top[i * s->top_count + n];
    }
    a->scored += s->count;
    return TSR_OK;
}

static tsr_plan *make_plan(const run_setup *setup)
{
    tsr_problems problems = {0};
    tsr_checkpoint *checkpoint;
    char folder[PATH_MAX];
    bool fits = false;
    tsr_plan *plan;
    const tsr_plan_request request = {
        .ranks = or_default(setup->ranks, 1),
        .target = tsr_target_find("cpu"),
        .kv_cache_dtype = "auto",
        .memory_bytes = 1ULL << 30,
        .max_model_len = RUN_MODEL_LEN,
        .max_num_seqs = or_default(setup->max_num_seqs, RUN_REQUESTS),
        .max_batched_tokens = or_default(setup->max_batched_tokens, 128),
        .kv_block_tokens = or_default(setup->block_tokens, 16),
        .exchange_tokens = or_default(setup->exchange_tokens, 32),
        .token_ids = setup->token_ids,
        .threads = or_default(setup->threads, 1),
    };

    (void)snprintf(folder, sizeof(folder), "%s/%s", TSR_TEST_DATA,
                   setup->fixture != NULL ? setup->fixture : "qwen3-mixed");
    ASSERT_STATUS(TSR_OK, tsr_checkpoint_open(folder, &problems, &checkpoint));
    ASSERT_STATUS(TSR_OK, tsr_plan_build(checkpoint, &request, &problems, &plan, &fits));
    assert_true(fits);
    tsr_checkpoint_close(checkpoint);
    tsr_problems_close(&problems);

    const int32_t block = plan->limits.kv_block_tokens;
    const int32_t of_one = tsr_pieces(RUN_MODEL_LEN, block);
    plan->limits.kv_blocks = or_default(setup->kv_blocks, RUN_REQUESTS * of_one);
    plan->limits.logit_rows = or_default(setup->logit_rows, 64);
    return plan;
}

static tsr_status open_device(const rank_run *r, const tsr_plan *plan, tsr_device **ret_device)
{
    const run_device kind = r->setup->device;
    tsr_device *cpu = NULL;

    const tsr_status st = tsr_device_open_cpu(plan->limits.threads, TSR_CPU_AUTO, &cpu);
    if (st != TSR_OK || kind == RUN_ON_CPU) {
        *ret_device = cpu;
        return st;
    }
    late_order order = LATE_AS_LATE_AS_CAN_BE;
    if (kind == RUN_LATE_READ_LAST && plan->ranks == 1)
        order = LATE_OTHERS_FIRST;
    else if (kind == RUN_STUCK)
        order = LATE_NEVER;
    return late_device_open(cpu, order, ret_device);
}

static void run_rank(rank_run *r, const tsr_plan *plan)
{
    static const tsr_sink sink_of = {.token = token, .logits = logits, .scores = scores};
    const bool coordinates = tsr_comm_rank(r->comm) == 0;
    tsr_engine_options options = r->setup->options;
    tsr_source source = {.ask = ask, .context = r->desk};
    tsr_sink sink = sink_of;
    tsr_device *device = NULL;
    tsr_model *model = NULL;

    sink.context = r->desk;
    r->status = open_device(r, plan, &device);
    const tsr_model_args opening = {
        .plan = plan,
        .device = device,
        .comm = r->comm,
        .open_exchange = r->setup->device == RUN_ON_CPU ? tsr_exchange_open : late_exchange_open};
    if (r->status == TSR_OK)
        r->status = tsr_model_open(&opening, &model);
    const tsr_engine_args args = {.plan = plan,
                                  .model = model,
                                  .comm = r->comm,
                                  .options = coordinates ? &options : NULL,
                                  .source = coordinates ? &source : NULL,
                                  .sink = coordinates ? &sink : NULL,
                                  .counts_experts = r->setup->counts_experts};
    if (r->status == TSR_OK && r->setup->absent_rank > 0 &&
        tsr_comm_rank(r->comm) == r->setup->absent_rank)
        tsr_comm_abort(r->comm, TSR_ERR_DEVICE);
    else if (r->status == TSR_OK)
        r->status = tsr_engine_run(&args, coordinates ? &r->desk->result->stats : NULL);
    /* The group may end while this rank still opens its model. */
    if (r->status == TSR_ERR_PEER)
        r->status = tsr_comm_cause(r->comm);
    tsr_model_close(model);
    if (device != NULL && coordinates && r->setup->device != RUN_ON_CPU) {
        r->desk->result->ahead = late_device_ahead(device);
        r->desk->result->replays = late_device_replays(device);
    }
    tsr_device_close(device);
}

static void *rank_main(void *context)
{
    rank_run *r = context;
    const int32_t rank = tsr_comm_rank(r->comm);
    tsr_plan own = *r->plan;

    tsr_log_set_rank(rank);
    if (rank != 0 && rank == r->setup->other_plan_rank)
        own.digest ^= 1;
    run_rank(r, &own);
    tsr_log_set_rank(-1);
    return NULL;
}

void engine_run(const run_setup *setup, const tsr_request *requests, int32_t count,
                run_result *ret_result)
{
    const int32_t ranks = or_default(setup->ranks, 1);
    tsr_comm *comm[RUN_RANKS];
    pthread_t thread[RUN_RANKS];
    rank_run run[RUN_RANKS];
    tsr_plan *plan = make_plan(setup);
    desk d = {.setup = setup, .requests = requests, .count = count, .result = ret_result};

    d.expert_cells = plan->model.layers * plan->model.experts;
    memset(ret_result, 0, sizeof(*ret_result));
    ret_result->vocab = plan->model.vocab;
    ASSERT_STATUS(TSR_OK, tsr_comm_open_local(ranks, or_default(setup->deadline_ms, 60000), comm));
    for (int32_t r = 0; r < ranks; r++) {
        run[r] = (rank_run){.setup = setup, .plan = plan, .comm = comm[r], .desk = &d};
        assert_int_equal(0, pthread_create(&thread[r], NULL, rank_main, &run[r]));
    }
    for (int32_t r = 0; r < ranks; r++)
        assert_int_equal(0, pthread_join(thread[r], NULL));
    for (int32_t r = 0; r < ranks; r++) {
        ret_result->status[r] = run[r].status;
        tsr_comm_close(comm[r]);
    }
    tsr_plan_close(plan);
}

void engine_run_close(run_result *result)
{
    for (int32_t i = 0; i < RUN_REQUESTS; i++)
        free(result->answer[i].logits);
}

void engine_run_ended(const run_setup *setup, const run_result *result, tsr_status expected)
{
    for (int32_t r = 0; r < or_default(setup->ranks, 1); r++) {
        if (r == 0 || r != setup->absent_rank)
            ASSERT_STATUS(expected, result->status[r]);
    }
}

static bool same_ids(const tsr_token_logprob *a, const tsr_token_logprob *b, size_t count)
{
    size_t i = 0;

    while (i < count && a[i].token == b[i].token && a[i].logprob == b[i].logprob)
        i++;
    return i == count;
}

void engine_run_same(const char *what, const run_answer *a, const run_answer *b, int32_t vocab)
{
    const size_t tokens = (size_t)a->tokens;
    const size_t values = (size_t)a->logit_rows * (size_t)vocab;

    if (a->tokens != b->tokens || a->finish != b->finish || a->logit_rows != b->logit_rows)
        fail_msg("%s: %d and %d tokens, ends %d and %d, %d and %d rows of logits", what, a->tokens,
                 b->tokens, (int)a->finish, (int)b->finish, a->logit_rows, b->logit_rows);
    if (memcmp(a->token, b->token, tokens * sizeof(*a->token)) != 0)
        fail_msg("%s: other tokens", what);
    if (memcmp(a->logprob, b->logprob, tokens * sizeof(*a->logprob)) != 0)
        fail_msg("%s: other logprobs", what);
    if (!same_ids(a->top[0], b->top[0], (size_t)RUN_TOKENS * TSR_MOST_TOP))
        fail_msg("%s: other most probable ids", what);
    if (a->scored != b->scored || !same_ids(a->score, b->score, RUN_MODEL_LEN) ||
        !same_ids(a->score_top[0], b->score_top[0], (size_t)RUN_MODEL_LEN * TSR_MOST_TOP))
        fail_msg("%s: other scores of the prompt", what);
    if (values > 0 && memcmp(a->logits, b->logits, values * sizeof(*a->logits)) != 0)
        fail_msg("%s: other logits", what);
}
