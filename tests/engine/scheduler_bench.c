/* A scheduler over simulated ranks. */
#include "tests/test.h"

#include "tests/engine/scheduler_bench.h"

#include <stdlib.h>

const int32_t bench_prompt[BENCH_PROMPT] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3,
                                            2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 7, 9, 5};

const tsr_engine_limits bench_roomy = {.max_model_len = 32,
                                       .max_num_seqs = 4,
                                       .max_batched_tokens = 16,
                                       .kv_block_tokens = 4,
                                       .kv_blocks = 32,
                                       .logit_rows = 16};

void bench_open(bench *b, int32_t ranks, const tsr_engine_limits *limits,
                tsr_schedule_options options)
{
    const tsr_plan plan = sim_plan(ranks, limits);

    sim_open(&b->sim, &plan);
    ASSERT_STATUS(TSR_OK, tsr_scheduler_open(&b->sim.plan, &options, &b->scheduler));
    b->buffer = malloc(b->sim.state[0].shape.step_bytes);
    assert_non_null(b->buffer);
}

void bench_close(bench *b)
{
    tsr_scheduler_close(b->scheduler);
    sim_close(&b->sim);
    free(b->buffer);
}

tsr_request bench_request(uint64_t id, int32_t prompt_tokens, int32_t max_tokens)
{
    return (tsr_request){.id = id,
                         .prompt = bench_prompt,
                         .prompt_tokens = prompt_tokens,
                         .max_tokens = max_tokens,
                         .top_p = 1.0F,
                         .has_seed = true,
                         .ignore_eos = true};
}

void bench_submit(bench *b, tsr_request request, int64_t now)
{
    const char *refusal;
    ASSERT_STATUS(TSR_OK, tsr_scheduler_submit(b->scheduler, &request, now, &refusal));
    if (refusal != NULL)
        fail_msg("refused: %s", refusal);
}

void bench_plan(bench *b)
{
    ASSERT_STATUS(TSR_OK, tsr_scheduler_schedule(b->scheduler, 0, 0, b->buffer, &b->step));
    sim_follow(&b->sim, &b->step);
}

void bench_absorb(bench *b, int64_t now)
{
    tsr_absorbed absorbed;
    const tsr_step_results results = sim_results(&b->sim);
    ASSERT_STATUS(TSR_OK, tsr_scheduler_absorb(b->scheduler, &results, now, &absorbed));
    assert_in_range(absorbed.count, 0, BENCH_OUTPUTS);
    b->outputs = absorbed.count;
    for (int32_t i = 0; i < absorbed.count; i++)
        b->output[i] = absorbed.output[i];
}

void bench_step(bench *b)
{
    bench_plan(b);
    bench_absorb(b, 0);
}

void bench_entry_is(const bench *b, uint32_t index, tsr_step_entry expected)
{
    const tsr_step_entry *e = &b->step.entry[index];

    assert_in_range(index, 0, b->step.header->entries - 1);
    assert_int_equal(expected.rank, e->rank);
    assert_int_equal(expected.slot, e->slot);
    assert_int_equal(expected.flags, e->flags);
    assert_int_equal(expected.first_position, e->first_position);
    assert_int_equal(expected.tokens, e->tokens);
    assert_int_equal(expected.output_index, e->output_index);
}

void bench_run(bench *b, uint64_t *ended)
{
    while (!tsr_scheduler_idle(b->scheduler)) {
        bench_step(b);
        for (int32_t i = 0; i < b->outputs; i++) {
            if (b->output[i].finish != TSR_FINISH_NONE)
                *ended++ = b->output[i].id;
        }
    }
}
