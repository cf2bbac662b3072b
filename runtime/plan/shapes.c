/* The sizes of shapes.h, in 64 bits throughout: limits are checked before they get here. */
#include "runtime/plan/shapes.h"

#include "kernels/ops.h"

enum { ALIGN = 64, ROW_ALIGN = 16 };

static uint64_t round_up(uint64_t bytes, uint64_t to)
{
    return (bytes + to - 1) / to * to;
}

static int32_t larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static uint64_t product(int32_t a, int32_t b)
{
    return (uint64_t)a * (uint64_t)b;
}

tsr_work_shape tsr_work_shape_of(const tsr_model_facts *model, const tsr_engine_limits *limits,
                                 int32_t ranks)
{
    int32_t intermediate = larger(model->dense_intermediate, model->expert_intermediate);
    intermediate = larger(intermediate, model->shared_intermediate);
    int32_t in = larger(model->hidden, model->q_heads * model->head_dim);
    int32_t rows = ranks * limits->exchange_tokens;

    return (tsr_work_shape){
        .max_tokens = limits->max_batched_tokens,
        .max_rows = rows,
        .max_answers = rows * model->top_k,
        .max_in = larger(in, intermediate),
        .max_intermediate = intermediate,
        .max_experts = model->experts,
        .max_context = limits->max_model_len,
        .max_logit_rows = limits->logit_rows,
        .vocab = model->vocab,
        .q_heads = model->q_heads,
        .head_dim = model->head_dim,
    };
}

tsr_exchange_shape tsr_exchange_shape_of(const tsr_model_facts *model,
                                         const tsr_engine_limits *limits, int32_t ranks,
                                         size_t activation_bytes)
{
    size_t answer = (size_t)model->hidden * activation_bytes;
    return (tsr_exchange_shape){
        .max_tokens = limits->exchange_tokens,
        .max_arrivals = ranks * limits->exchange_tokens,
        .slots = model->top_k,
        .row_bytes = tsr_packed_row_bytes(activation_bytes, model->hidden, model->top_k),
        .return_row_bytes = (size_t)round_up(answer, ROW_ALIGN),
    };
}

static uint64_t blocks_of_a_sequence(const tsr_engine_limits *limits)
{
    return ((uint64_t)limits->max_model_len + (uint64_t)limits->kv_block_tokens - 1) /
           (uint64_t)limits->kv_block_tokens;
}

/* Elements times bytes of an element. */
static uint64_t plain_bytes(tsr_step_array array, const tsr_model_facts *m,
                            const tsr_engine_limits *l, size_t activation_bytes)
{
    uint64_t tokens = (uint64_t)l->max_batched_tokens;
    uint64_t experts = product(m->layers, m->experts);
    uint64_t angles = product(l->max_model_len, m->rotary_dim / 2);

    switch (array) {
    case TSR_STEP_RESIDUAL:
    case TSR_STEP_NORMED:
    case TSR_STEP_DELTA:
        return tokens * (uint64_t)m->hidden * activation_bytes;
    case TSR_STEP_Q:
    case TSR_STEP_ATTENDED:
        return tokens * product(m->q_heads, m->head_dim) * activation_bytes;
    case TSR_STEP_K:
    case TSR_STEP_V:
        return tokens * product(m->kv_heads, m->head_dim) * activation_bytes;
    case TSR_STEP_EXPERT:
    case TSR_STEP_WEIGHT:
        return tokens * (uint64_t)m->top_k * sizeof(float);
    case TSR_STEP_LOGITS:
        return product(l->logit_rows, m->vocab) * sizeof(float);
    case TSR_STEP_TOKEN:
    case TSR_STEP_POSITION:
        return tokens * sizeof(int32_t);
    case TSR_STEP_SEQUENCE:
        return (uint64_t)l->max_num_seqs * sizeof(tsr_attention_sequence);
    case TSR_STEP_BLOCK:
        return (uint64_t)l->max_num_seqs * blocks_of_a_sequence(l) * sizeof(int32_t);
    case TSR_STEP_LOGIT_ROW:
        return (uint64_t)l->logit_rows * sizeof(int32_t);
    case TSR_STEP_COS:
    case TSR_STEP_SIN:
        return angles * sizeof(float);
    case TSR_STEP_OWNER:
    case TSR_STEP_LOCAL:
        return experts * sizeof(int32_t);
    case TSR_STEP_MLPS:
        return experts * sizeof(tsr_mlp);
    case TSR_STEP_ARRAYS:
        break;
    }
    return 0;
}

uint64_t tsr_step_array_bytes(tsr_step_array array, const tsr_model_facts *model,
                              const tsr_engine_limits *limits, size_t activation_bytes)
{
    return round_up(plain_bytes(array, model, limits, activation_bytes), ALIGN);
}

uint64_t tsr_step_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                        size_t activation_bytes)
{
    uint64_t sum = 0;
    for (int32_t a = 0; a < TSR_STEP_ARRAYS; a++)
        sum += tsr_step_array_bytes((tsr_step_array)a, model, limits, activation_bytes);
    return sum;
}

uint64_t tsr_kv_half_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                           tsr_kv_format format)
{
    uint64_t positions = product(limits->kv_blocks, limits->kv_block_tokens);
    uint64_t width = product(model->kv_heads, model->head_dim);
    return round_up(positions * width * (uint64_t)tsr_kv_format_bytes(format), ALIGN);
}

uint64_t tsr_kv_bytes(const tsr_model_facts *model, const tsr_engine_limits *limits,
                      tsr_kv_format format)
{
    return 2 * (uint64_t)model->layers * tsr_kv_half_bytes(model, limits, format);
}

uint64_t tsr_vector_bytes(const tsr_vector_plan *vector)
{
    if (vector->role == TSR_ROLE_K_SCALE || vector->role == TSR_ROLE_V_SCALE)
        return 0;
    return round_up((uint64_t)vector->elements * sizeof(float), ALIGN);
}

bool tsr_rank_holds(const tsr_plan *plan, const tsr_linear_plan *linear, int32_t rank)
{
    if (linear->expert < 0)
        return true;
    size_t row = (size_t)linear->layer * (size_t)plan->model.experts;
    return plan->expert_rank[row + (size_t)linear->expert] == rank;
}
