/* What all ranks of a job have seen of their steps, brought together on rank 0. */
#ifndef TSR_LAUNCH_REPORT_WATCH_H
#define TSR_LAUNCH_REPORT_WATCH_H

#include "comm/comm.h"
#include "proto/plan.h"
#include "runtime/model/model.h"

typedef struct tsr_watch {
    const tsr_plan *plan;   /* borrowed */
    const tsr_model *model; /* borrowed */
    tsr_watched own; /* of this rank, until all are gathered: then the sums of all ranks stand in
                             tokens and reads of rank 0 */
    int64_t (*ns)[TSR_STAGES]; /* [ranks] on rank 0 */
    int64_t *waited_ns;        /* [ranks, ranks] on rank 0: how long each, for whom; NULL: one
                                  sees it */
    size_t cells;              /* layers * E */
} tsr_watch;

/* From the next step on. Close *ret_watch behind the model. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_watch_begin(const tsr_plan *plan, tsr_model *model,
                                        tsr_watch **ret_watch);

/* Collective. TSR_ERR_MEMORY, TSR_ERR_PEER, TSR_ERR_TIMEOUT */
TSR_MUST_USE tsr_status tsr_watch_gather(tsr_watch *watch, tsr_comm *comm);

/* NULL is allowed. */
void tsr_watch_close(tsr_watch *watch);

#endif
