/* Rank 0's loop: takes requests, plans steps, sends them, follows them too, gives tokens. */
#ifndef TSR_RUNTIME_ENGINE_COORDINATOR_H
#define TSR_RUNTIME_ENGINE_COORDINATOR_H

#include "runtime/engine/engine.h"
#include "runtime/engine/rank_step.h"

/* Collective, with the other ranks following. *ret_stats is written on failure too. */
TSR_MUST_USE tsr_status tsr_coordinator_run(tsr_rank_step *rank_step, tsr_engine_stats *ret_stats);

#endif
