/*
 * The scheduler under random loads: whatever the limits, the spread, the chunks and the moment of a
 * cancellation, every request gives the tokens it gives alone, nothing starves, nothing is left.
 *
 * What is checked in every step: the bounds of tsr_step_plan_open (budget of tokens, order, ids of
 * blocks), those of tsr_rank_state_apply (no block is given twice, none is missing, every token is
 * known where it is computed) and of tsr_rank_batch_fill (rows of logits), by each rank on a copy.
 */
#include "tests/test.h"

#include "tests/engine/sim.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_REQUESTS = 24, MOST_TOKENS = 80, MOST_STEPS = 20000 };

/* One request, what it must come to, and what it came to. */
typedef struct expected {
    tsr_request request;
    int32_t prompt[MOST_TOKENS];
    int32_t output[MOST_TOKENS];
    int32_t outputs;
    tsr_finish finish;
    int32_t got;       /* tokens, or rows when scored */
    int32_t scored;    /* tokens of the prompt */
    int32_t cancel_at; /* tokens after which it is cancelled, -1: never */
    tsr_finish got_finish;
    int32_t given; /* of `got`, that it came with */
} expected;

typedef struct load {
    sim sim;
    tsr_scheduler *scheduler;
    tsr_step_shape shape;
    expected want[MOST_REQUESTS];
    int32_t requests;
    int32_t submitted;
    int32_t finished;
    bool ahead; /* a step is planned before the last one's tokens are absorbed */
    uint64_t random;
} load;

static int32_t pick(load *l, int32_t low, int32_t high)
{
    l->random = l->random * 6364136223846793005U + 1442695040888963407U;
    return low + (int32_t)((l->random >> 33) % (uint64_t)(high - low + 1));
}

/* What the request gives when it runs alone, without a scheduler. */
static void expect_alone(expected *e, int32_t max_model_len)
{
    int32_t tokens[2 * MOST_TOKENS];
    int32_t count = e->request.prompt_tokens;
    int32_t room = max_model_len - count;

    memcpy(tokens, e->prompt, (size_t)count * sizeof(*tokens));
    if (room > e->request.max_tokens)
        room = e->request.max_tokens;
    e->finish = TSR_FINISH_LENGTH;
    for (e->outputs = 0; e->outputs < room && !e->request.want_logits;) {
        const int32_t token = sim_next_token(tokens, count, e->request.seed, (uint64_t)e->outputs);
        tokens[count++] = token;
        e->output[e->outputs++] = token;
        if (token == 0 && !e->request.ignore_eos) {
            e->finish = TSR_FINISH_STOP;
            return;
        }
    }
}

/* Most prompts begin as an earlier one does: with its prompt and what it says. */
static void begin_alike(load *l, int32_t index)
{
    const expected *earlier = &l->want[pick(l, 0, index - 1)];
    expected *e = &l->want[index];
    int32_t most = earlier->request.prompt_tokens + earlier->outputs;

    if (most > e->request.prompt_tokens)
        most = e->request.prompt_tokens;
    const int32_t alike = pick(l, 0, 3) > 0 ? pick(l, most / 2, most) : 0;
    for (int32_t i = 0; i < alike; i++) {
        const int32_t said = i - earlier->request.prompt_tokens;
        e->prompt[i] = said < 0 ? earlier->prompt[i] : earlier->output[said];
    }
}

static void draw_request(load *l, expected *e, uint64_t id)
{
    const int32_t context = l->shape.max_model_len;
    const int32_t held = l->shape.kv_blocks * l->shape.block_tokens;
    const int32_t most = context < held ? context : held;

    memset(e, 0, sizeof(*e));
    e->request = (tsr_request){.id = id,
                               .prompt = e->prompt,
                               .prompt_tokens = pick(l, 1, most - 1),
                               .max_tokens = 1,
                               .top_p = 1.0F,
                               .has_seed = true,
                               .seed = id * 77,
                               .ignore_eos = pick(l, 0, 3) > 0,
                               .want_logits = pick(l, 0, 4) == 0};
    for (int32_t i = 0; i < e->request.prompt_tokens; i++)
        e->prompt[i] = pick(l, 0, SIM_VOCAB - 1);
    if (id > 0)
        begin_alike(l, (int32_t)id);
    e->request.score_prompt = pick(l, 0, 3) == 0;
    e->request.score_top = pick(l, 0, 2);
    e->request.top = pick(l, 0, 3) == 0 ? pick(l, 1, TSR_MOST_TOP) : 0;
    if (!e->request.want_logits)
        e->request.max_tokens =
            pick(l, e->request.score_prompt ? 0 : 1, most - e->request.prompt_tokens);
    e->cancel_at = pick(l, 0, 7) == 0 ? pick(l, 1, 5) : -1;
    e->request.priority = pick(l, 0, 3) - 3;
    e->request.cache_salt = pick(l, 0, 5) == 0;
    expect_alone(e, context);
    if (e->outputs > 1 && pick(l, 0, 3) == 0) {
        e->given = pick(l, 1, e->outputs - 1);
        e->got = e->given;
        e->request.given = e->output;
        e->request.given_tokens = e->given;
    }
}

static void draw_load(load *l, uint64_t seed)
{
    l->random = seed * 0x9e3779b97f4a7c15U + 1;
    const int32_t block_tokens = pick(l, 1, 8);
    const int32_t few = 8 / block_tokens + 2;
    const tsr_engine_limits limits = {.max_model_len = pick(l, 4, MOST_TOKENS - 1),
                                      .max_num_seqs = pick(l, 1, 8),
                                      .max_batched_tokens = pick(l, 1, 40),
                                      .kv_block_tokens = block_tokens,
                                      .kv_blocks = pick(l, few, pick(l, 0, 1) ? few + 4 : 60),
                                      .logit_rows = pick(l, 1, 12),
                                      .exchange_tokens = 8,
                                      .threads = 1};
    const tsr_plan plan = sim_plan(pick(l, 1, SIM_RANKS), &limits);
    const tsr_schedule_options options = {.spread = (tsr_spread)pick(l, 0, 2),
                                          .owners = pick(l, 0, plan.ranks),
                                          .prefill_chunk = pick(l, 0, 1) ? pick(l, 1, 9) : 0,
                                          .prefix_cache = pick(l, 0, 3) > 0};

    sim_open(&l->sim, &plan);
    l->shape = l->sim.state[0].shape;
    ASSERT_STATUS(TSR_OK, tsr_scheduler_open(&l->sim.plan, &options, &l->scheduler));
    l->ahead = pick(l, 0, 1);
    l->requests = pick(l, 1, MOST_REQUESTS);
    for (int32_t i = 0; i < l->requests; i++)
        draw_request(l, &l->want[i], (uint64_t)i);
}

static void assert_like(tsr_token_logprob wanted, tsr_token_logprob got)
{
    assert_memory_equal(&wanted, &got, sizeof(got));
}

/* Of the prompt and the outputs before the n-th. */
static uint64_t hash_before(const expected *e, int32_t n)
{
    int32_t tokens[2 * MOST_TOKENS];
    const size_t prompt = (size_t)e->request.prompt_tokens;

    memcpy(tokens, e->prompt, prompt * sizeof(*tokens));
    memcpy(tokens + prompt, e->output, (size_t)n * sizeof(*tokens));
    return sim_hash(tokens, (int32_t)prompt + n);
}

/* Each once, ascending, behind exactly the prompt before it. */
static void take_prompt_scores(load *l, const tsr_prompt_scores *s)
{
    expected *e = &l->want[s->id];

    assert_true(e->request.score_prompt);
    assert_int_equal(TSR_FINISH_NONE, e->got_finish);
    assert_int_equal(e->request.score_top, s->top_count);
    assert_int_equal(e->scored + 1, s->first_position);
    for (int32_t i = 0; i < s->count; i++) {
        const int32_t position = s->first_position + i;
        const uint64_t hash = sim_hash(e->prompt, position);
        assert_in_range(position, 1, e->request.prompt_tokens - 1);
        assert_like((tsr_token_logprob){e->prompt[position], sim_logprob(hash)}, s->token[i]);
        for (int32_t n = 0; n < s->top_count; n++)
            assert_like(sim_top(hash, n), s->top[i * s->top_count + n]);
    }
    e->scored += s->count;
}

static void take_output(load *l, const tsr_output *o)
{
    expected *e = &l->want[o->id];

    assert_int_equal(TSR_FINISH_NONE, e->got_finish);
    e->got_finish = o->finish;
    l->finished += o->finish != TSR_FINISH_NONE;
    assert_int_equal(e->request.prompt_tokens, o->prompt_tokens);
    if (o->token < 0)
        return;
    assert_in_range(e->got, 0, e->outputs - 1);
    assert_int_equal(e->output[e->got], o->token);
    assert_int_equal(e->request.top, o->top_count);
    assert_int_equal(
        e->request.score_prompt && !e->request.want_logits ? e->request.prompt_tokens - 1 : 0,
        e->scored);
    for (int32_t n = 0; n < o->top_count; n++)
        assert_like(sim_top(hash_before(e, e->got), n), o->top[n]);
    e->got++;
    assert_int_equal(e->got, o->output_tokens);
}

static void cancel_if_asked(load *l, uint64_t id)
{
    const expected *e = &l->want[id];
    tsr_output last;

    if (e->cancel_at < 0 || e->got < e->cancel_at || e->got_finish != TSR_FINISH_NONE)
        return;
    assert_true(tsr_scheduler_cancel(l->scheduler, id, &last));
    assert_int_equal(TSR_FINISH_CANCELLED, last.finish);
    assert_int_equal(e->got, last.output_tokens * !e->request.want_logits);
    take_output(l, &last);
    assert_false(tsr_scheduler_cancel(l->scheduler, id, &last));
}

/* Rows of a scored prompt come once each, ascending, and see exactly the prompt before them. */
static void take_scores(load *l, const sim_score *score, uint32_t scores)
{
    for (uint32_t i = 0; i < scores; i++) {
        uint64_t id;
        if (!tsr_scheduler_owner(l->scheduler, score[i].entry, &id))
            continue;
        expected *e = &l->want[id];
        assert_int_equal(e->got, score[i].position);
        e->got++;
        assert_true(sim_hash(e->prompt, e->got) == score[i].hash);
    }
}

/* Results of a step, kept while the next one is planned ahead. */
typedef struct results {
    tsr_token_row row[SIM_ROWS];
    tsr_token_logprob top[SIM_ROWS * TSR_MOST_TOP];
    uint32_t rows;
    uint32_t tops;
    sim_score score[SIM_ROWS];
    uint32_t scores;
} results;

static void keep(results *kept, const sim *s)
{
    memcpy(kept->row, s->row, sizeof(kept->row));
    memcpy(kept->score, s->score, sizeof(kept->score));
    memcpy(kept->top, s->top, s->tops * sizeof(*kept->top));
    kept->rows = s->rows;
    kept->tops = s->tops;
    kept->scores = s->scores;
}

static void absorb(load *l, const results *r)
{
    const tsr_step_results all = {.row = r->row, .top = r->top, .rows = r->rows, .tops = r->tops};
    tsr_absorbed absorbed;

    take_scores(l, r->score, r->scores);
    ASSERT_STATUS(TSR_OK, tsr_scheduler_absorb(l->scheduler, &all, 0, &absorbed));
    for (int32_t i = 0; i < absorbed.scored; i++)
        take_prompt_scores(l, &absorbed.scores[i]);
    for (int32_t i = 0; i < absorbed.count; i++) {
        take_output(l, &absorbed.output[i]);
        cancel_if_asked(l, absorbed.output[i].id); /* the others stay as they are */
    }
}

static void submit_some(load *l)
{
    int32_t count = pick(l, 0, 3);

    while (count-- > 0 && l->submitted < l->requests && tsr_scheduler_has_room(l->scheduler)) {
        const char *refusal;
        ASSERT_STATUS(TSR_OK, tsr_scheduler_submit(l->scheduler, &l->want[l->submitted].request, 0,
                                                   &refusal));
        if (refusal != NULL)
            fail_msg("refused: %s", refusal);
        l->submitted++;
    }
}

/* Over all loads. */
typedef struct counted {
    uint64_t steps;
    uint64_t preemptions;
    uint64_t queries;
    uint64_t hits;
} counted;

static void count(const load *l, uint64_t steps, counted *c)
{
    const tsr_engine_stats stats = tsr_scheduler_stats(l->scheduler);

    c->steps += steps;
    c->preemptions += stats.preemptions;
    c->queries += stats.prefix_queries;
    c->hits += stats.prefix_hits;
}

static void run_load(load *l, counted *c)
{
    void *buffer = malloc(l->shape.step_bytes);
    results *late = malloc(sizeof(*late));
    bool waiting = false;
    uint64_t steps = 0;

    assert_non_null(buffer);
    assert_non_null(late);
    while (!l->sim.stopped) {
        tsr_step_plan step;
        submit_some(l);
        const bool stop = l->submitted == l->requests && tsr_scheduler_idle(l->scheduler);
        ASSERT_STATUS(TSR_OK, tsr_scheduler_schedule(l->scheduler, stop ? TSR_STEP_STOP : 0, 0,
                                                     buffer, &step));
        if (waiting)
            absorb(l, late);
        sim_follow(&l->sim, &step);
        keep(late, &l->sim);
        waiting = l->ahead && !stop;
        if (!waiting)
            absorb(l, late);
        assert_false(l->sim.starved && !l->ahead);
        /* Now and then the one step that runs ahead is waited for, as an idle engine does. */
        if (waiting && pick(l, 0, 3) == 0) {
            absorb(l, late);
            waiting = false;
        }
        assert_in_range(++steps, 0, MOST_STEPS);
    }
    count(l, steps, c);
    free(late);
    free(buffer);
}

static void assert_all_came(const load *l)
{
    assert_int_equal(l->requests, l->finished);
    assert_true(sim_empty(&l->sim));
    for (int32_t i = 0; i < l->requests; i++) {
        const expected *e = &l->want[i];
        if (e->got_finish == TSR_FINISH_CANCELLED)
            continue;
        assert_int_equal(e->finish, e->got_finish);
        assert_int_equal(e->request.want_logits ? e->request.prompt_tokens : e->outputs, e->got);
        if (e->request.score_prompt && !e->request.want_logits)
            assert_int_equal(e->request.prompt_tokens - 1, e->scored);
    }
    assert_true(tsr_scheduler_stats(l->scheduler).kv_blocks_used == 0);
}

static void every_request_gives_what_it_gives_alone_under_any_load(void **state)
{
    (void)state;
    counted c = {0};
    load *l = malloc(sizeof(*l));

    assert_non_null(l);
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        memset(l, 0, sizeof(*l));
        draw_load(l, seed);
        run_load(l, &c);
        assert_all_came(l);
        tsr_scheduler_close(l->scheduler);
        sim_close(&l->sim);
    }
    free(l);
    print_message("%d steps, %d preemptions, %d of %d tokens shared\n", (int)c.steps,
                  (int)c.preemptions, (int)c.hits, (int)c.queries);
    /* The loads are such that blocks do run out, and prompts do begin alike. */
    assert_in_range(c.preemptions, 500, UINT64_MAX);
    assert_in_range(c.hits, c.queries / 20, c.queries);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_gives_what_it_gives_alone_under_any_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
