/* The sizes of shapes.h, in 64 bits throughout: limits are checked before they get here. */
#include "runtime/plan/shapes.h"

#include "kernels/blocks.h"
#include "runtime/base/sizes.h"
#include "runtime/plan/batch.h"
#include "runtime/plan/modules.h"

enum { STAGED_BYTES = 4 << 20 };

static uint64_t product(int32_t a, int32_t b)
{
    return (uint64_t)a * (uint64_t)b;
}

tsr_work_shape tsr_work_shape_of(const tsr_model_facts *model, const tsr_engine_limits *limits,
                                 int32_t ranks)
{
    int32_t intermediate = tsr_larger(model->dense_intermediate, model->expert_intermediate);
    intermediate = tsr_larger(intermediate, model->shared_intermediate);
    const int32_t in = tsr_larger(model->hidden, model->q_heads * model->head_dim);
    const int32_t rows = ranks * limits->exchange_tokens;

    return (tsr_work_shape){
        .max_tokens = limits->max_batched_tokens,
        .max_rows = rows,
        .max_answers = rows * model->top_k,
        .max_in = tsr_larger(in, intermediate),
        .max_intermediate = intermediate,
        .max_experts = model->experts,
        .max_context = limits->max_model_len,
        .max_logit_rows = limits->logit_rows,
        .vocab = model->vocab,
        .hidden = model->hidden,
        .q_heads = model->q_heads,
        .kv_heads = model->kv_heads,
        .head_dim = model->head_dim,
        .top_k = model->top_k,
    };
}

tsr_exchange_shape tsr_exchange_shape_of(const tsr_model_facts *model,
                                         const tsr_engine_limits *limits, int32_t ranks,
                                         size_t activation_bytes)
{
    const size_t answer = (size_t)model->hidden * activation_bytes;
    return (tsr_exchange_shape){
        .max_tokens = limits->exchange_tokens,
        .max_arrivals = ranks * limits->exchange_tokens,
        .slots = model->top_k,
        .row_bytes = tsr_packed_row_bytes(activation_bytes, model->hidden, model->top_k),
        .return_row_bytes = (size_t)tsr_aligned(answer, TSR_ROW_ALIGNMENT),
    };
}

/* Elements times bytes of an element. */
static uint64_t plain_bytes(tsr_step_array array, const tsr_model_facts *m,
                            const tsr_engine_limits *l, size_t activation_bytes)
{
    const uint64_t rows = product(l->max_batched_tokens, m->hidden) * activation_bytes;
    const uint64_t angles = product(l->max_model_len, m->rotary_dim / 2) * sizeof(float);
    const tsr_batch_sizes most = tsr_batch_most(l, m->vocab);

    switch (array) {
    case TSR_STEP_RESIDUAL:
        return rows;
    case TSR_STEP_WEIGHT:
        return product(l->max_batched_tokens, m->top_k) * sizeof(float);
    case TSR_STEP_SHARED:
        return m->shared_intermediate > 0 ? rows : 0;
    case TSR_STEP_COS:
    case TSR_STEP_SIN:
        return angles;
    case TSR_STEP_EXPERTS:
        return (uint64_t)m->layers * tsr_experts_bytes(m->experts, m->experts);
    case TSR_STEP_TEXT:
        return product(l->max_num_seqs, l->max_model_len) * sizeof(int32_t);
    case TSR_STEP_RULES:
        return (uint64_t)l->max_num_seqs * sizeof(tsr_token_rules);
    case TSR_STEP_BATCH:
        return tsr_batch_device_bytes(&most);
    case TSR_STEP_LOGITS:
        return product(l->logit_rows, m->vocab) * sizeof(float);
    case TSR_STEP_MASKS:
        return product(most.masks, most.mask_words) * sizeof(uint32_t);
    case TSR_STEP_ARRAYS:
        break;
    }
    return 0;
}

uint64_t tsr_step_array_bytes(tsr_step_array array, const tsr_model_facts *model,
                              const tsr_engine_limits *limits, size_t activation_bytes)
{
    return tsr_aligned(plain_bytes(array, model, limits, activation_bytes), TSR_ALIGNMENT);
}

uint64_t tsr_step_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                        size_t activation_bytes, int32_t flights)
{
    uint64_t sum = 0;
    for (int32_t i = 0; i < TSR_STEP_ARRAYS; i++) {
        const tsr_step_array a = (tsr_step_array)i;
        const uint64_t copies = tsr_step_array_of_flight(a) ? (uint64_t)flights : 1;
        sum += copies * tsr_step_array_bytes(a, model, limits, activation_bytes);
    }
    return sum;
}

int32_t tsr_staged_rows(const tsr_model_facts *model, const tsr_engine_limits *limits)
{
    const int32_t rows = (int32_t)(STAGED_BYTES / ((size_t)model->vocab * sizeof(float)));
    if (rows < 1)
        return 1;
    return rows < limits->logit_rows ? rows : limits->logit_rows;
}

uint64_t tsr_step_host_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                             int32_t flights)
{
    const tsr_batch_sizes most = tsr_batch_most(limits, model->vocab);
    const uint64_t sampled =
        tsr_aligned((uint64_t)most.samples * sizeof(tsr_sampled), TSR_ALIGNMENT) +
        tsr_aligned((uint64_t)most.tops * sizeof(tsr_token_logprob), TSR_ALIGNMENT);
    const uint64_t staged = product(tsr_staged_rows(model, limits), model->vocab) * sizeof(float);
    return (uint64_t)flights * (tsr_batch_bytes(&most) + sampled) + 2 * staged;
}

uint64_t tsr_kv_half_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                           tsr_kv_format format)
{
    const uint64_t positions = product(limits->kv_blocks, limits->kv_block_tokens);
    const uint64_t width = product(model->kv_heads, model->head_dim);
    return tsr_aligned(positions * width * (uint64_t)tsr_kv_format_bytes(format), TSR_ALIGNMENT);
}

uint64_t tsr_kv_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                      tsr_kv_format format)
{
    return 2 * (uint64_t)model->layers * tsr_kv_half_bytes(model, limits, format);
}

uint64_t tsr_vector_bytes(const tsr_vector_plan *vector)
{
    if (tsr_role_is_kv_scale(vector->role))
        return 0;
    return tsr_aligned((uint64_t)vector->elements * sizeof(float), TSR_ALIGNMENT);
}

bool tsr_rank_holds(const tsr_plan *plan, const tsr_linear_plan *linear, int32_t rank)
{
    if (linear->expert < 0)
        return true;
    const size_t row = (size_t)linear->layer * (size_t)plan->model.experts;
    return plan->expert_rank[row + (size_t)linear->expert] == rank;
}
