/* One step on one rank. */
#include "runtime/engine/rank_step.h"

#include <stdlib.h>

/* Logits are brought to rank 0 in pieces of about this size. */
enum { STAGED_BYTES = 4 * 1024 * 1024 };

static int32_t staged_rows_of(const tsr_step_shape *shape, int32_t vocab)
{
    const int32_t rows = (int32_t)(STAGED_BYTES / ((size_t)vocab * sizeof(float)));
    if (rows < 1)
        return 1;
    return rows < shape->logit_rows ? rows : shape->logit_rows;
}

static tsr_status take_host_memory(tsr_rank_step *s)
{
    const tsr_step_shape *shape = &s->state.shape;
    const size_t slots = (size_t)shape->slots;
    const size_t ranks = (size_t)shape->ranks;
    const size_t arrived = s->rank == 0 ? ranks * slots : 1;

    s->staged_rows = staged_rows_of(shape, s->vocab);
    s->buffer = calloc(1, shape->step_bytes);
    s->token = calloc(slots, sizeof(*s->token));
    s->logprob = calloc(slots, sizeof(*s->logprob));
    s->sent = calloc(slots, sizeof(*s->sent));
    s->arrived = calloc(arrived, sizeof(*s->arrived));
    s->bytes_of = calloc(ranks, sizeof(*s->bytes_of));
    s->staged = calloc((size_t)s->staged_rows * (size_t)s->vocab, sizeof(*s->staged));
    if (s->buffer == NULL || s->token == NULL || s->logprob == NULL || s->sent == NULL ||
        s->arrived == NULL || s->bytes_of == NULL || s->staged == NULL)
        return TSR_ERR_MEMORY;
    return TSR_OK;
}

static tsr_status take_device_memory(tsr_rank_step *s)
{
    tsr_device *device = s->args->device;
    const size_t slots = (size_t)s->state.shape.slots;
    void *row = NULL;
    void *token = NULL;
    void *logprob = NULL;

    tsr_status st = tsr_device_alloc(device, slots * sizeof(*s->device_row), &row);
    if (st == TSR_OK)
        st = tsr_device_alloc(device, slots * sizeof(*s->device_token), &token);
    if (st == TSR_OK)
        st = tsr_device_alloc(device, slots * sizeof(*s->device_logprob), &logprob);
    s->device_row = row;
    s->device_token = token;
    s->device_logprob = logprob;
    return st;
}

tsr_status tsr_rank_step_open(const tsr_engine_args *args, tsr_rank_step *ret_step)
{
    tsr_rank_step s = {
        .args = args, .rank = tsr_comm_rank(args->comm), .vocab = args->plan->model.vocab};

    tsr_status st = tsr_rank_state_open(args->plan, s.rank, &s.state);
    if (st != TSR_OK)
        return st;
    st = tsr_rank_batch_open(&s.state.shape, &s.batch);
    if (st == TSR_OK)
        st = take_host_memory(&s);
    if (st == TSR_OK)
        st = take_device_memory(&s);
    if (st != TSR_OK) {
        tsr_rank_step_close(&s);
        return st;
    }
    *ret_step = s;
    return TSR_OK;
}

static void free_on_device(tsr_device *device, void *memory)
{
    if (memory != NULL)
        tsr_device_free(device, memory);
}

void tsr_rank_step_close(tsr_rank_step *rank_step)
{
    tsr_rank_step *s = rank_step;

    free_on_device(s->args->device, s->device_row);
    free_on_device(s->args->device, s->device_token);
    free_on_device(s->args->device, s->device_logprob);
    free(s->buffer);
    free(s->token);
    free(s->logprob);
    free(s->sent);
    free(s->arrived);
    free(s->bytes_of);
    free(s->staged);
    tsr_rank_batch_close(&s->batch);
    tsr_rank_state_close(&s->state);
}

/* Samples `count` rows from `first` on, whose rows of logits follow one another. */
static tsr_status sample_run(tsr_rank_step *s, const float *logits, int32_t first, int32_t count)
{
    const tsr_plan *plan = s->args->plan;
    const int32_t logit_row = s->batch.sampled[first].logit_row;
    const tsr_sample_args args = {
        .token = s->device_token + first,
        .logprob = s->device_logprob + first,
        .logits = logits + (size_t)logit_row * (size_t)s->vocab,
        .row = s->device_row + first,
        .rows = count,
        .vocab = s->vocab,
        .allowed = plan->token_ids > 0 && plan->token_ids < s->vocab ? plan->token_ids : s->vocab,
    };
    return tsr_op_sample(s->args->device, &args, tsr_model_stream(s->args->model));
}

/* Tokens for every sampled row, on the device, remembered here and made ready to send. */
static tsr_status sample(tsr_rank_step *s, const float *logits)
{
    tsr_device *device = s->args->device;
    const tsr_sampled_row *sampled = s->batch.sampled;
    const int32_t rows = s->batch.sampled_count;
    const size_t count = (size_t)rows;

    if (rows == 0)
        return TSR_OK;
    tsr_status st =
        tsr_device_put(device, s->device_row, s->batch.sampling, count * sizeof(*s->device_row),
                       tsr_model_stream(s->args->model));
    for (int32_t first = 0, end = 1; first < rows && st == TSR_OK; first = end++) {
        while (end < rows && sampled[end].logit_row == sampled[end - 1].logit_row + 1)
            end++;
        st = sample_run(s, logits, first, end - first);
    }
    if (st == TSR_OK)
        st = tsr_device_get(device, s->token, s->device_token, count * sizeof(*s->token),
                            tsr_model_stream(s->args->model));
    if (st == TSR_OK)
        st = tsr_device_get(device, s->logprob, s->device_logprob, count * sizeof(*s->logprob),
                            tsr_model_stream(s->args->model));
    for (int32_t i = 0; i < rows && st == TSR_OK; i++) {
        s->state.sequence[sampled[i].slot].last_token = s->token[i];
        s->sent[i] = (tsr_token_row){
            .slot = (uint32_t)sampled[i].slot, .token = s->token[i], .logprob = s->logprob[i]};
    }
    return st;
}

/* Every rank knows from the step how many tokens each of them sends. */
static tsr_status gather_tokens(tsr_rank_step *s, const tsr_step_plan *step,
                                uint32_t *ret_token_rows)
{
    uint32_t rows = 0;

    for (int32_t r = 0; r < s->state.shape.ranks; r++)
        s->bytes_of[r] = 0;
    for (uint32_t i = 0; i < step->header->entries; i++) {
        if ((step->entry[i].flags & TSR_ENTRY_SAMPLE) == 0)
            continue;
        s->bytes_of[step->entry[i].rank] += sizeof(tsr_token_row);
        rows++;
    }
    *ret_token_rows = s->rank == 0 ? rows : 0;
    if (rows == 0)
        return TSR_OK;
    return tsr_comm_gather(s->args->comm, 0, s->batch.sampled_count > 0 ? s->sent : NULL,
                           s->bytes_of, s->rank == 0 ? s->arrived : NULL);
}

/* Brings `rows` rows of a rank's logits into rank 0's staged rows. `logits` is NULL on ranks that
 * have none of them; between rank 0 and itself nothing is sent. */
static tsr_status bring_rows(tsr_rank_step *s, uint32_t from, const float *logits, int32_t rows)
{
    const size_t bytes = (size_t)rows * (size_t)s->vocab * sizeof(float);
    tsr_status st = TSR_OK;

    if (logits != NULL)
        st = tsr_device_get(s->args->device, s->staged, logits, bytes,
                            tsr_model_stream(s->args->model));
    if (st != TSR_OK || from == 0)
        return st;
    for (int32_t r = 0; r < s->state.shape.ranks; r++)
        s->bytes_of[r] = (uint32_t)r == from ? bytes : 0;
    return tsr_comm_gather(s->args->comm, 0, logits != NULL ? s->staged : NULL, s->bytes_of,
                           s->rank == 0 ? s->staged : NULL);
}

/* All rows of one entry, piece by piece. */
static tsr_status bring_entry(tsr_rank_step *s, const tsr_step_plan *step, uint32_t index,
                              const float *logits, const tsr_logits_taker *taker)
{
    const tsr_step_entry *e = &step->entry[index];
    const int32_t total = (int32_t)e->tokens;
    tsr_status st = TSR_OK;

    for (int32_t row = 0; row < total && st == TSR_OK; row += s->staged_rows) {
        const int32_t rows = total - row < s->staged_rows ? total - row : s->staged_rows;
        const float *from = logits == NULL ? NULL : logits + (size_t)row * (size_t)s->vocab;
        st = bring_rows(s, e->rank, from, rows);
        if (st == TSR_OK && taker != NULL)
            st = taker->take(taker->context, index, (int32_t)e->first_position + row, rows,
                             s->staged);
    }
    return st;
}

static tsr_status gather_logits(tsr_rank_step *s, const tsr_step_plan *step, const float *logits,
                                const tsr_logits_taker *taker)
{
    size_t own_rows = 0;
    tsr_status st = TSR_OK;

    for (uint32_t i = 0; i < step->header->entries && st == TSR_OK; i++) {
        const tsr_step_entry *e = &step->entry[i];
        const bool own = e->rank == (uint32_t)s->rank;
        if ((e->flags & TSR_ENTRY_LOGITS) != 0)
            st = bring_entry(s, step, i, own ? logits + own_rows * (size_t)s->vocab : NULL, taker);
        if (own)
            own_rows += tsr_step_entry_logit_rows(e);
    }
    return st;
}

/* A step with tokens. */
static tsr_status compute(tsr_rank_step *s, const tsr_step_plan *step,
                          const tsr_logits_taker *taker, uint32_t *ret_token_rows)
{
    float *logits = NULL;

    tsr_status st = tsr_rank_batch_fill(&s->batch, &s->state, step);
    if (st == TSR_OK)
        st = tsr_model_forward(s->args->model, &s->batch.batch, &logits);
    if (st == TSR_OK)
        st = sample(s, logits);
    if (st == TSR_OK)
        st = gather_tokens(s, step, ret_token_rows);
    if (st == TSR_OK)
        st = gather_logits(s, step, logits, taker);
    return st;
}

tsr_status tsr_rank_step_run(tsr_rank_step *rank_step, size_t bytes, const tsr_logits_taker *taker,
                             uint32_t *ret_token_rows, bool *ret_stop)
{
    tsr_rank_step *s = rank_step;
    const tsr_step_bounds bounds = tsr_rank_state_bounds(&s->state);
    tsr_step_plan step;
    uint32_t token_rows = 0;

    tsr_status st = tsr_step_plan_open(s->buffer, bytes, &bounds, &step);
    if (st == TSR_OK)
        st = tsr_rank_state_apply(&s->state, &step);
    if (st != TSR_OK)
        return st;

    /* A step without tokens still meets every rank, so that a lost one is noticed. */
    if (step.header->max_rank_tokens > 0)
        st = compute(s, &step, taker, &token_rows);
    else
        st = tsr_comm_barrier(s->args->comm);
    if (st != TSR_OK)
        return st;
    *ret_token_rows = token_rows;
    *ret_stop = (step.header->flags & TSR_STEP_STOP) != 0;
    return TSR_OK;
}
