#include "tests/model/served.h"

#include "tests/model/safetensors_edit.h"
#include "tests/test.h"

#include "comm/comm.h"
#include "runtime/base/log.h"
#include "runtime/base/numeric.h"
#include "runtime/base/sizes.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/model/model.h"
#include "runtime/plan/plan_build.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEADLINE_MS = 60000, MAX_RANKS = 16 };

const char *served_mode_name(served_mode mode)
{
    static const char *const name[SERVED_MODES] = {"weight_only", "declared", "hopper"};
    return name[mode];
}

static int32_t or_default(int32_t value, int32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static tsr_plan_request request_of(const served_setup *setup)
{
    tsr_plan_request request = {
        .ranks = or_default(setup->ranks, 1),
        .target = tsr_target_find("cpu"),
        .kv_cache_dtype = "auto",
        .memory_bytes = 1ULL << 30,
        .max_model_len = SERVED_MODEL_LEN,
        .max_num_seqs = SERVED_SEQUENCES,
        .max_batched_tokens = SERVED_STEP_TOKENS,
        .kv_block_tokens = or_default(setup->block_tokens, 16),
        .exchange_tokens = or_default(setup->exchange_tokens, 64),
        .threads = 1,
    };
    if (setup->mode == SERVED_WEIGHT_ONLY)
        request.activations = TSR_ACTIVATIONS_WEIGHT_ONLY;
    if (setup->mode == SERVED_DECLARED)
        request.activations = TSR_ACTIVATIONS_DECLARED;
    if (setup->mode == SERVED_HOPPER)
        request.activations_of = tsr_target_find("h200");
    return request;
}

tsr_status served_plan(const served_setup *setup, tsr_plan **ret_plan)
{
    tsr_problems problems = {0};
    tsr_checkpoint *checkpoint = NULL;
    tsr_plan *plan = NULL;
    bool fits = false;
    tsr_plan_request request = request_of(setup);

    tsr_status st = tsr_checkpoint_open(setup->folder, &problems, &checkpoint);
    if (st == TSR_OK)
        st = tsr_plan_build(checkpoint, &request, &problems, &plan, &fits);
    if (tsr_problems_has_error(&problems))
        tsr_problems_log(&problems);
    tsr_problems_close(&problems);
    tsr_checkpoint_close(checkpoint);
    if (st != TSR_OK)
        return st;

    assert_true(fits);
    const int32_t block = plan->limits.kv_block_tokens;
    plan->limits.kv_blocks = SERVED_SEQUENCES * tsr_pieces(SERVED_MODEL_LEN, block);
    plan->limits.logit_rows = SERVED_STEP_TOKENS;
    *ret_plan = plan;
    return TSR_OK;
}

/* One rank of a run, on its own thread. */
typedef struct rank_run {
    const tsr_plan *plan;
    served_device device;
    served_sequence *sequences;
    size_t count;
    tsr_comm *comm;
    tsr_status status;
    int32_t rank;
} rank_run;

/* First position and positions of a sequence in a step. */
static int32_t share(const served_sequence *s, int32_t step, int32_t *ret_first)
{
    const int32_t chunk = or_default(s->chunk, s->count);
    const int32_t first = (step - s->start) * chunk;
    if (step < s->start || first >= s->count)
        return 0;
    *ret_first = first;
    return s->count - first < chunk ? s->count - first : chunk;
}

static int32_t steps_of(const rank_run *run)
{
    int32_t steps = 0;
    for (size_t i = 0; i < run->count; i++) {
        const served_sequence *s = &run->sequences[i];
        const int32_t chunk = or_default(s->chunk, s->count);
        const int32_t end = s->start + tsr_pieces(s->count, chunk);
        steps = end > steps ? end : steps;
    }
    return steps;
}

static int32_t most_tokens(const rank_run *run, int32_t step)
{
    int32_t tokens[MAX_RANKS] = {0};
    int32_t most = 0;
    int32_t first = 0;
    for (size_t i = 0; i < run->count; i++) {
        int32_t *t = &tokens[run->sequences[i].rank];
        *t += share(&run->sequences[i], step, &first);
        most = *t > most ? *t : most;
    }
    return most;
}

static int32_t blocks_of_sequence(const rank_run *run)
{
    return tsr_pieces(SERVED_MODEL_LEN, run->plan->limits.kv_block_tokens);
}

/* What this rank's sequences bring to a step; all of a sequence's ids come with its first chunk. */
static tsr_batch_sizes count_step(const rank_run *run, int32_t step)
{
    tsr_batch_sizes n = {0};
    for (size_t i = 0; i < run->count; i++) {
        const served_sequence *s = &run->sequences[i];
        int32_t first = 0;
        const int32_t rows = share(s, step, &first);
        if (s->rank != run->rank || rows == 0)
            continue;
        n.sequences++;
        n.tokens += rows;
        n.logit_rows += rows;
        n.blocks += blocks_of_sequence(run);
        n.prompts += first == 0;
        n.prompt_ids += first == 0 ? s->count : 0;
    }
    return n;
}

/* Block tables run downwards through the cache, so that neighbours in a sequence are none in
 * memory. */
static void add_sequence(const rank_run *run, size_t index, int32_t step, tsr_batch *b,
                         tsr_batch_sizes *n)
{
    const served_sequence *s = &run->sequences[index];
    const int32_t of_sequence = blocks_of_sequence(run);
    int32_t first = 0;
    const int32_t rows = share(s, step, &first);
    if (s->rank != run->rank || rows == 0)
        return;

    b->sequence[n->sequences++] = (tsr_attention_sequence){
        .first_row = n->tokens, .rows = rows, .first_position = first, .first_block = n->blocks};
    for (int32_t p = 0; p < of_sequence; p++)
        b->blocks[n->blocks++] =
            run->plan->limits.kv_blocks - 1 - ((int32_t)index * of_sequence + p);
    for (int32_t t = 0; t < rows; t++, n->tokens++) {
        b->slot[n->tokens] = (int32_t)index;
        b->position[n->tokens] = first + t;
        b->logit_row[n->logit_rows++] = n->tokens;
    }
    if (first > 0)
        return;
    b->prompt[n->prompts++] = (tsr_prompt){.slot = (int32_t)index, .count = s->count};
    memcpy(b->prompt_id + n->prompt_ids, s->tokens, (size_t)s->count * sizeof(*s->tokens));
    n->prompt_ids += s->count;
}

/* One row at a time, so that tables larger than what is staged are met. */
static tsr_status keep_logits(const rank_run *run, tsr_model *model, int32_t step)
{
    const size_t vocab = (size_t)run->plan->model.vocab;
    int32_t row = 0;
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < run->count; i++) {
        served_sequence *s = &run->sequences[i];
        int32_t first = 0;
        const int32_t rows = share(s, step, &first);
        if (s->rank != run->rank)
            continue;
        for (int32_t t = 0; st == TSR_OK && t < rows; t++, row++) {
            const float *logits = NULL;
            st = tsr_model_logits(model, 0, row, 1, &logits);
            if (st == TSR_OK)
                memcpy(s->logits + (size_t)(first + t) * vocab, logits, vocab * sizeof(float));
        }
    }
    return st;
}

static tsr_status one_step(const rank_run *run, tsr_model *model, int32_t step)
{
    const tsr_batch_sizes count = count_step(run, step);
    const tsr_step_facts facts = {.epoch = (uint64_t)step + 1,
                                  .max_rank_tokens = most_tokens(run, step)};
    const tsr_sampled *sampled = NULL;
    tsr_batch_sizes filled = {0};
    tsr_batch batch;

    tsr_status st = tsr_model_batch(model, 0, &count, &batch);
    if (st != TSR_OK)
        return st;
    for (size_t i = 0; i < run->count; i++)
        add_sequence(run, i, step, &batch, &filled);
    st = tsr_model_launch(model, 0, &facts);
    if (st == TSR_OK)
        st = tsr_model_land(model, 0, &sampled);
    return st == TSR_OK ? keep_logits(run, model, step) : st;
}

static void *run_rank(void *argument)
{
    rank_run *run = argument;
    tsr_device *device = NULL;
    tsr_model *model = NULL;
    tsr_log_set_rank(run->rank);

    tsr_status st =
        tsr_device_open_cpu(or_default(run->device.threads, 1), run->device.isa, &device);
    const tsr_model_args args = {
        .plan = run->plan, .device = device, .comm = run->comm, .open_exchange = tsr_exchange_open};
    if (st == TSR_OK)
        st = tsr_model_open(&args, &model);
    for (int32_t step = 0; st == TSR_OK && step < steps_of(run); step++)
        st = one_step(run, model, step);

    tsr_model_close(model);
    tsr_device_close(device);
    run->status = st;
    return NULL;
}

static tsr_status worst_of(const rank_run *runs, int32_t ranks)
{
    tsr_status worst = TSR_OK;
    for (int32_t r = 0; r < ranks; r++) {
        if (worst == TSR_OK || worst == TSR_ERR_PEER)
            worst = runs[r].status != TSR_OK ? runs[r].status : worst;
    }
    return worst;
}

tsr_status served_run(const tsr_plan *plan, served_device device, served_sequence *sequences,
                      size_t count, tsr_status *ret_of_rank)
{
    rank_run runs[MAX_RANKS];
    pthread_t threads[MAX_RANKS];
    tsr_comm *members[MAX_RANKS];
    assert_true(plan->ranks <= MAX_RANKS && count <= SERVED_SEQUENCES);
    for (size_t i = 0; i < count; i++) {
        const size_t values = (size_t)sequences[i].count * (size_t)plan->model.vocab;
        sequences[i].logits = calloc(values, sizeof(float));
        assert_non_null(sequences[i].logits);
    }

    ASSERT_STATUS(TSR_OK, tsr_comm_open_local(plan->ranks, DEADLINE_MS, members));
    for (int32_t r = 0; r < plan->ranks; r++) {
        runs[r] = (rank_run){.plan = plan,
                             .device = device,
                             .sequences = sequences,
                             .count = count,
                             .comm = members[r],
                             .rank = r};
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &runs[r]), 0);
    }
    for (int32_t r = 0; r < plan->ranks; r++)
        assert_int_equal(pthread_join(threads[r], NULL), 0);
    for (int32_t r = 0; r < plan->ranks; r++) {
        tsr_comm_close(members[r]);
        if (ret_of_rank != NULL)
            ret_of_rank[r] = runs[r].status;
    }
    return worst_of(runs, plan->ranks);
}

void served(const served_setup *setup, served_device device, served_sequence *sequences,
            size_t count)
{
    tsr_plan *plan = NULL;
    tsr_status st = served_plan(setup, &plan);
    if (st == TSR_OK)
        st = served_run(plan, device, sequences, count, NULL);
    ASSERT_STATUS(TSR_OK, st);
    tsr_plan_close(plan);
}

void served_free(served_sequence *sequences, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(sequences[i].logits);
        sequences[i].logits = NULL;
    }
}

served_expected served_expectation(const char *folder, served_mode mode)
{
    served_expected e = {0};
    char path[PATH_MAX];
    edit_path(folder, "expected.safetensors", sizeof(path), path);
    edit_list list = edit_read(path);
    for (int i = 0; i < 2; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "tokens.%d", i);
        const edit_tensor *tokens = edit_find(&list, name);
        e.count[i] = (int32_t)tokens->shape[0];
        e.tokens[i] = calloc((size_t)e.count[i], sizeof(int32_t));
        assert_non_null(e.tokens[i]);
        memcpy(e.tokens[i], tokens->data, tokens->bytes);

        size_t values = 0;
        (void)snprintf(name, sizeof(name), "logits.%s.%d", served_mode_name(mode), i);
        const edit_tensor *logits = edit_find(&list, name);
        e.logits[i] = edit_floats(logits, &values);
        e.vocab = (int32_t)logits->shape[1];
    }
    edit_close(&list);
    return e;
}

void served_expected_free(served_expected *expected)
{
    for (int i = 0; i < 2; i++) {
        free(expected->tokens[i]);
        free(expected->logits[i]);
    }
}

double served_distance(const float *logits, const float *expected, size_t count)
{
    double largest = 0;
    double difference = 0;
    for (size_t i = 0; i < count; i++) {
        assert_true(isfinite(logits[i]));
        largest = fmax(largest, fabs((double)expected[i]));
        difference = fmax(difference, fabs((double)logits[i] - (double)expected[i]));
    }
    return difference / largest;
}

void served_same_bits(const char *what, const float *a, const float *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (tsr_f32_bits(a[i]) != tsr_f32_bits(b[i]))
            fail_msg("%s: value %zu is %.9g and %.9g", what, i, (double)a[i], (double)b[i]);
    }
}
