/* Weights as they are stored. Norms, activations and the rows of the embedding are left out: they
 * are small beside them, and what a device does with them is its own affair. */
#include "launch/bench/bench_bytes.h"

#include "runtime/base/sizes.h"

static uint64_t stored_bytes(const tsr_linear_plan *l)
{
    return tsr_weight_bytes(l->format, l->out, l->in) + tsr_scale_bytes(l->format, l->out, l->in);
}

/* How often a step reads a linear; that of an expert is the first one's, who speaks for all. */
static uint64_t times_read(const tsr_plan *plan, const tsr_linear_plan *l,
                           const tsr_bench_result *result, uint64_t rounds)
{
    const tsr_role role = l->role;

    if (role == TSR_ROLE_EMBED)
        return plan->model.tied_head ? 1 : 0;
    if (role == TSR_ROLE_ROUTER || (role >= TSR_ROLE_SHARED_GATE && role <= TSR_ROLE_SHARED_DOWN))
        return rounds;
    if (role >= TSR_ROLE_EXPERT_GATE && role <= TSR_ROLE_EXPERT_DOWN)
        return l->expert == 0 ? (uint64_t)result->experts[l->layer] : 0;
    return 1;
}

static double mean_experts(const tsr_plan *plan, const tsr_bench_result *result)
{
    int64_t read = 0;
    int32_t sparse = 0;

    for (int32_t l = 0; l < plan->model.layers; l++) {
        read += result->experts[l];
        sparse += plan->model.sparse[l];
    }
    return sparse > 0 ? (double)read / sparse : 0;
}

tsr_bench_bytes tsr_bench_bytes_of(const tsr_plan *plan, const tsr_bench_cases *cases,
                                   const tsr_bench_case *c, const tsr_bench_result *result)
{
    const tsr_model_facts *m = &plan->model;
    const uint64_t rounds =
        (uint64_t)tsr_pieces(tsr_larger(result->tokens, 1), plan->limits.exchange_tokens);
    const uint64_t position_bytes = 2 * (uint64_t)m->layers * (uint64_t)m->kv_heads *
                                    (uint64_t)m->head_dim *
                                    (uint64_t)tsr_kv_format_bytes(plan->kv_format);
    const uint64_t positions =
        (uint64_t)result->tokens * (c->decode ? (uint64_t)cases->context : 1);
    tsr_bench_bytes bytes = {.kv = positions * position_bytes,
                             .experts = mean_experts(plan, result)};

    for (int32_t i = 0; i < plan->linear_count; i++)
        bytes.weights +=
            stored_bytes(&plan->linears[i]) * times_read(plan, &plan->linears[i], result, rounds);
    return bytes;
}
