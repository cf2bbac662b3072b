/*
 * The rows that experts have got, brought to rank 0 now and then. Each rank counts those of its own
 * experts, so what all of them send is as much as there are experts:
 *
 *   a rank    counted.rows [layers, E] --> sent     its experts', in their order
 *   rank 0    arrived | rank 0's | rank 1's | ... | --> total [layers, E]
 *
 * Private to this folder.
 */
#ifndef TSR_RUNTIME_ENGINE_EXPERT_LOAD_H
#define TSR_RUNTIME_ENGINE_EXPERT_LOAD_H

#include "comm/comm.h"
#include "proto/plan.h"
#include "runtime/model/model.h"

/* Zero-initialise; close always. */
typedef struct tsr_expert_load {
    const tsr_plan *plan;      /* borrowed; NULL: nothing is counted */
    tsr_model *model;          /* borrowed */
    tsr_counted_rows *counted; /* where the model counts */
    uint64_t *sent;            /* [layers, E] at most */
    uint64_t *arrived;         /* rank 0: [layers, E] at most */
    uint64_t *total;           /* rank 0: [layers, E] */
    size_t *bytes_of;          /* [ranks] */
    uint64_t steps;            /* that `total` was counted in */
} tsr_expert_load;

/* Has the model count from its next step on. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_expert_load_open(const tsr_plan *plan, tsr_model *model,
                                             tsr_expert_load *load);

/* Collective. TSR_ERR_MISMATCH, logged: this rank does not count. TSR_ERR_PEER, TSR_ERR_TIMEOUT */
TSR_MUST_USE tsr_status tsr_expert_load_gather(tsr_expert_load *load, tsr_comm *comm);

void tsr_expert_load_close(tsr_expert_load *load);

#endif
