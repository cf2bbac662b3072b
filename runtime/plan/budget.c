/*
 * The sums of budget.h, kept so that they can be asked again: advice.c tries other numbers of
 * ranks, lengths and tokens, and reads no file for it. So an expert's bytes are held by layer and
 * expert, and summed up for a rank when its number is known.
 *
 *   devices   | rank 0 ........ | rank 1 ........ |      each has memory_bytes
 *   a host    | rank 0 | rank 1 | rank 2 | rank 3 |    machine_bytes for all: fewer have more each
 *
 * Ranks differ in their experts alone; the one that holds most decides whether it fits.
 *
 * What is used while a model loads and while it runs takes turns:
 *
 *   loading   | weights | tables of a step | ring, scratch, records |
 *   running   | weights | kv               | workspace | buffers    |
 */
#include "runtime/plan/budget.h"

#include "comm/exchange.h"
#include "runtime/base/sizes.h"
#include "runtime/plan/placement.h"
#include "runtime/plan/shapes.h"

#include <stdlib.h>

/* All of the model: ranks differ in which experts they read, but not much in what that takes. */
static void count_reading(const tsr_precision *precision, tsr_load_count *count)
{
    *count = (tsr_load_count){.records = (uint64_t)precision->linear_count +
                                         (uint64_t)precision->vector_count};
    for (int32_t i = 0; i < precision->linear_count; i++) {
        const tsr_linear_plan *l = &precision->linears[i];
        tsr_load_count_add(count, &l->weight);
        tsr_load_count_add(count, &l->scale);
        tsr_load_count_add(count, &l->global_scale);
        tsr_load_count_add(count, &l->input_scale);
        tsr_load_count_add(count, &l->pre_quant_scale);
        tsr_load_count_add(count, &l->bias);
    }
    for (int32_t i = 0; i < precision->vector_count; i++)
        tsr_load_count_add(count, &precision->vectors[i].place);
}

tsr_status tsr_budget_open(const tsr_model_facts *model, const tsr_precision *precision,
                           const tsr_plan_request *request, tsr_budget *budget)
{
    const tsr_target *target = request->target;
    const size_t experts = (size_t)model->layers * (size_t)model->experts;

    *budget = (tsr_budget){.model = model, .target = target, .memory_bytes = request->memory_bytes};
    if (request->memory_is_shared)
        budget->machine_bytes = request->memory_bytes * (uint64_t)request->ranks;
    budget->expert_bytes = calloc(experts + 1, sizeof(*budget->expert_bytes));
    if (budget->expert_bytes == NULL)
        return TSR_ERR_MEMORY;
    count_reading(precision, &budget->load);
    for (int32_t i = 0; i < precision->linear_count; i++) {
        const tsr_linear_plan *l = &precision->linears[i];
        const uint64_t bytes =
            target->linear_bytes(l->format, l->out, l->in, l->bias.file != TSR_NO_FILE,
                                 l->pre_quant_scale.file != TSR_NO_FILE);
        if (l->expert < 0)
            budget->shared_bytes += bytes;
        else
            budget->expert_bytes[(size_t)l->layer * (size_t)model->experts + (size_t)l->expert] +=
                bytes;
    }
    for (int32_t i = 0; i < precision->vector_count; i++)
        budget->shared_bytes += tsr_vector_bytes(&precision->vectors[i]);
    return TSR_OK;
}

static uint64_t weights_of_rank(const tsr_budget *b, int32_t ranks, int32_t rank)
{
    const tsr_model_facts *m = b->model;
    uint64_t bytes = b->shared_bytes;

    for (int32_t layer = 0; layer < m->layers; layer++)
        for (int32_t e = 0; e < m->experts; e++)
            if (tsr_placement_rank(m->experts, ranks, e) == rank)
                bytes += b->expert_bytes[(size_t)layer * (size_t)m->experts + (size_t)e];
    return bytes;
}

static uint64_t workspace_bytes(const tsr_budget *b, const tsr_setting *s)
{
    tsr_work_shape shape = tsr_work_shape_of(b->model, &s->limits, s->ranks);

    const tsr_target *target = b->target;
    const uint64_t host =
        target->host ? tsr_step_host_bytes(b->model, &s->limits, target->flights) : 0;

    return target->reserve_bytes + target->work_bytes(&shape, s->limits.threads) +
           tsr_block_rows_bytes(&shape, target->activation_bytes) +
           tsr_step_bytes(b->model, &s->limits, target->activation_bytes, target->flights) + host;
}

static uint64_t buffers_bytes(const tsr_budget *b, const tsr_setting *s)
{
    tsr_exchange_shape shape;

    if (b->model->experts == 0)
        return 0;
    shape = tsr_exchange_shape_of(b->model, &s->limits, s->ranks, b->target->activation_bytes);
    return tsr_exchange_bytes(&shape, s->ranks, !b->target->host);
}

static uint64_t array_bytes(const tsr_budget *b, const tsr_setting *s, tsr_step_array array)
{
    return tsr_step_array_bytes(array, b->model, &s->limits, b->target->activation_bytes);
}

/* The tables stand when reading begins; before, the host has them a second time. The experts'
 * image is made when it is over. */
static uint64_t loading_bytes(const tsr_budget *b, const tsr_setting *s)
{
    const uint64_t tables = array_bytes(b, s, TSR_STEP_COS) + array_bytes(b, s, TSR_STEP_SIN);
    const uint64_t experts = 2 * array_bytes(b, s, TSR_STEP_EXPERTS);
    uint64_t most = tsr_load_bytes(&b->load);

    if (!b->target->host)
        return 0;
    most = tables > most ? tables : most;
    most = experts > most ? experts : most;
    return tables + most;
}

tsr_rank_budget tsr_budget_of_rank(const tsr_budget *budget, const tsr_setting *setting,
                                   int32_t rank)
{
    return (tsr_rank_budget){
        .weights_bytes = weights_of_rank(budget, setting->ranks, rank),
        .kv_bytes = tsr_kv_bytes(budget->model, &setting->limits, setting->kv_format),
        .workspace_bytes = workspace_bytes(budget, setting),
        .buffers_bytes = buffers_bytes(budget, setting),
        .loading_bytes = loading_bytes(budget, setting),
    };
}

uint64_t tsr_rank_budget_total(const tsr_rank_budget *rank)
{
    const uint64_t running = rank->kv_bytes + rank->workspace_bytes + rank->buffers_bytes;

    return rank->weights_bytes + (running > rank->loading_bytes ? running : rank->loading_bytes);
}

int32_t tsr_budget_largest_rank(const tsr_budget *budget, int32_t ranks)
{
    uint64_t most = 0;
    int32_t largest = 0;

    for (int32_t rank = 0; rank < ranks; rank++) {
        const uint64_t bytes = weights_of_rank(budget, ranks, rank);
        if (bytes > most) {
            most = bytes;
            largest = rank;
        }
    }
    return largest;
}

/* All ranks have the same KV, workspace and buffers; only the experts differ. A rank's experts are
 * consecutive (placement.h), so one pass over them sums up every rank in turn. */
static uint64_t most_expert_bytes(const tsr_budget *b, int32_t ranks)
{
    const tsr_model_facts *m = b->model;
    uint64_t most = 0, sum = 0;
    int32_t rank = 0;

    for (int32_t e = 0; e < m->experts; e++) {
        const int32_t of = tsr_placement_rank(m->experts, ranks, e);
        if (of != rank)
            sum = 0;
        rank = of;
        for (int32_t layer = 0; layer < m->layers; layer++)
            sum += b->expert_bytes[(size_t)layer * (size_t)m->experts + (size_t)e];
        if (sum > most)
            most = sum;
    }
    return most;
}

uint64_t tsr_budget_need_running(const tsr_budget *budget, const tsr_setting *setting)
{
    return budget->shared_bytes + most_expert_bytes(budget, setting->ranks) +
           tsr_kv_bytes(budget->model, &setting->limits, setting->kv_format) +
           workspace_bytes(budget, setting) + buffers_bytes(budget, setting);
}

uint64_t tsr_budget_need(const tsr_budget *budget, const tsr_setting *setting)
{
    const uint64_t running = tsr_budget_need_running(budget, setting);
    const uint64_t loading = budget->shared_bytes + most_expert_bytes(budget, setting->ranks) +
                             loading_bytes(budget, setting);

    return running > loading ? running : loading;
}

bool tsr_budget_fits(const tsr_budget *budget, const tsr_setting *setting)
{
    tsr_setting one = *setting;
    uint64_t memory = budget->memory_bytes;

    if (budget->machine_bytes > 0)
        memory = budget->machine_bytes / (uint64_t)setting->ranks;
    one.limits.kv_blocks = tsr_pieces(one.limits.max_model_len, one.limits.kv_block_tokens);
    return tsr_budget_need(budget, &one) <= memory;
}

void tsr_budget_close(tsr_budget *budget)
{
    free(budget->expert_bytes);
    budget->expert_bytes = NULL;
}
