/*
 * Bytes of each rank, by kind:
 *
 *   weights    everything but the routed experts, on every rank; and the experts placed there
 *   kv         keys and values of limits.kv_blocks blocks
 *   workspace  what the device needs inside operations, and the arrays of a step
 *   buffers    rows on their way between ranks
 *   loading    what weights are read through, on a host: given up before the others are used, so
 *              that a rank needs the larger of both beside its weights
 *
 * Nothing here reads a file: the same sums answer "does it fit" and "what would".
 */
#ifndef TSR_RUNTIME_PLAN_BUDGET_H
#define TSR_RUNTIME_PLAN_BUDGET_H

#include "runtime/plan/loading.h"
#include "runtime/plan/precision.h"
#include "runtime/plan/targets.h"

/* What all sums follow from. Open once, close always. */
typedef struct tsr_budget {
    const tsr_model_facts *model;
    const tsr_target *target;
    uint64_t memory_bytes;  /* of one rank */
    uint64_t machine_bytes; /* of all ranks together, which share it; 0: each has its own */
    uint64_t shared_bytes;  /* weights of every rank */
    uint64_t *expert_bytes; /* [layers, E] weights of one expert */
    tsr_load_count load;    /* what is read */
} tsr_budget;

/* A configuration whose bytes are asked for. */
typedef struct tsr_setting {
    tsr_engine_limits limits;
    tsr_kv_format kv_format;
    int32_t ranks;
} tsr_setting;

/* The request's memory is counted (plan_build.h). TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_budget_open(const tsr_model_facts *model,
                                        const tsr_precision *precision,
                                        const tsr_plan_request *request, tsr_budget *budget);

tsr_rank_budget tsr_budget_of_rank(const tsr_budget *budget, const tsr_setting *setting,
                                   int32_t rank);

/* The rank that needs most. */
int32_t tsr_budget_largest_rank(const tsr_budget *budget, int32_t ranks);

/* Bytes of the rank that needs most, once it has loaded. */
uint64_t tsr_budget_need_running(const tsr_budget *budget, const tsr_setting *setting);

/* The same, and while it loads. */
uint64_t tsr_budget_need(const tsr_budget *budget, const tsr_setting *setting);

/* True when every rank has room for one sequence of max_model_len, whatever kv_blocks says. */
bool tsr_budget_fits(const tsr_budget *budget, const tsr_setting *setting);

void tsr_budget_close(tsr_budget *budget);

#endif
