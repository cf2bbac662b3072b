/* The engine: opens what a rank needs, then rank 0 coordinates and the others follow. */
#include "runtime/engine/engine.h"

#include "runtime/base/log.h"
#include "runtime/engine/coordinator.h"
#include "runtime/engine/rank_step.h"
#include "runtime/engine/step_broadcast.h"

static tsr_status check_args(const tsr_engine_args *args)
{
    const int32_t size = tsr_comm_size(args->comm);
    const bool coordinates = tsr_comm_rank(args->comm) == 0;

    if (args->plan->ranks != size) {
        tsr_log(TSR_LOG_ERROR, "engine: the plan is for %d ranks, the group has %d; plan again",
                args->plan->ranks, size);
        return TSR_ERR_ARG;
    }
    if (coordinates && (args->options == NULL || args->source == NULL || args->sink == NULL)) {
        tsr_log(TSR_LOG_ERROR, "engine: rank 0 needs options, a source and a sink");
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

/* The loop of every rank but 0. */
static tsr_status follow(tsr_rank_step *rank_step)
{
    const size_t capacity = rank_step->state.shape.step_bytes;
    tsr_landed_step landed = {0};
    tsr_status st = TSR_OK;

    while (st == TSR_OK && !landed.stop) {
        const tsr_step_bounds bounds = tsr_rank_state_bounds(&rank_step->state);
        size_t bytes = 0;
        st = tsr_step_receive(rank_step->args->comm, &bounds, tsr_rank_step_buffer(rank_step),
                              capacity, &bytes);
        if (st == TSR_OK)
            st = tsr_rank_step_launch(rank_step, bytes);
        while (st == TSR_OK && tsr_rank_step_due(rank_step))
            st = tsr_rank_step_land(rank_step, NULL, &landed);
    }
    return st;
}

tsr_status tsr_engine_run(const tsr_engine_args *args, tsr_engine_stats *ret_stats)
{
    tsr_engine_stats stats = {0};
    tsr_rank_step rank_step;

    tsr_status st = check_args(args);
    if (st == TSR_OK)
        st = tsr_rank_step_open(args, &rank_step);
    if (st == TSR_OK) {
        st = rank_step.rank == 0 ? tsr_coordinator_run(&rank_step, &stats) : follow(&rank_step);
        tsr_rank_step_close(&rank_step);
    }

    if (st == TSR_OK) {
        if (ret_stats != NULL)
            *ret_stats = stats;
        return TSR_OK;
    }
    /* Nobody waits for a rank that has left; and all end with the status of the first to leave. */
    tsr_comm_abort(args->comm, st);
    const tsr_status cause = tsr_comm_cause(args->comm);
    return cause == TSR_OK ? st : cause;
}
