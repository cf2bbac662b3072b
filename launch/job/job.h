/*
 * One job over all ranks: the coordinator reads the checkpoint, plans and broadcasts; every rank
 * opens its device, loads its weights and runs the engine. What requests there are is the hooks'
 * business, on rank 0.
 */
#ifndef TSR_LAUNCH_JOB_JOB_H
#define TSR_LAUNCH_JOB_JOB_H

#include "launch/cli/config.h"
#include "launch/report/watch.h"
#include "proto/plan.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/engine/engine.h"
#include "runtime/plan/plan_build.h"

/* What the ids and lengths of a job's requests ask of the plan. */
typedef struct tsr_job_needs {
    int32_t token_ids;          /* ids of the tokenizer; 0: all of the vocabulary */
    int32_t max_model_len;      /* where the user gives none; 0: the model's */
    int32_t max_num_seqs;       /* of one rank, where the user gives none; 0: the target's */
    int32_t max_batched_tokens; /* likewise */
    int64_t kv_positions;       /* of one rank at a time; 0: whatever there is room for */
    bool has_eos;               /* another id ends an answer, besides those of the checkpoint */
    int32_t eos;
} tsr_job_needs;

/* Called on rank 0, in this order; those that say so may be NULL. */
typedef struct tsr_job_hooks {
    /* Which checkpoint, where it is not the command line's. May be NULL. */
    tsr_status (*locate)(void *context, const char **ret_folder);
    /* Before there is a plan for so many ranks. */
    tsr_status (*prepare)(void *context, const tsr_checkpoint *checkpoint, int32_t ranks,
                          tsr_job_needs *ret_needs);
    /* There is a plan that fits; `request` is what it was built for. May be NULL. */
    tsr_status (*planned)(void *context, const tsr_plan *plan, const tsr_plan_request *request);
    /* Before weights are read. */
    tsr_status (*begin)(void *context, const tsr_plan *plan, tsr_source *ret_source,
                        tsr_sink *ret_sink);
    /* Guides for the engine, which outlive it. May be NULL: requests that ask for one are refused. */
    tsr_status (*guides)(void *context, const tsr_plan *plan, const tsr_guides **ret_guides);
    /* The device of rank 0 is open and holds nothing yet. May be NULL. */
    tsr_status (*opened)(void *context, tsr_device *device);
    /* Now and then while weights are read. May be NULL. */
    void (*loading)(void *context, uint64_t bytes, uint64_t total);
    /* All weights are there, on every rank. May be NULL. */
    tsr_status (*loaded)(void *context, tsr_model *model);
    /* What all ranks have seen of their steps, where the command line asks for a report; there until
     * `finish` returns, as the plan is. May be NULL. */
    void (*watched)(void *context, const tsr_watch *watch);
    /* Always, with the status so far and the engine's stats (NULL if it never ran). */
    tsr_status (*finish)(void *context, tsr_status status, const tsr_engine_stats *stats);
    void *context;
} tsr_job_hooks;

/* Runs this process's ranks to the end. Errors are logged where they are decided. */
TSR_MUST_USE tsr_status tsr_job_run(const tsr_config *config, const tsr_launch_info *info,
                                    const tsr_job_hooks *hooks);

#endif
