/*
 * The stations of a plan, and who owns what on the way.
 *
 *   checkpoint --precision_read--> linears, vectors -----take_records----> plan.linears, vectors
 *        |                                 '--budget--> plan.limits, plan.budget
 *        '-------copy_files------> plan.folder, files, marks       then the checkpoint may close
 *
 * Bytes are counted before the records change hands, for the budget reads them. A plan that does
 * not fit is finished all the same: `tessera plan` shows what it would take. Paths become absolute
 * and files carry their mark, because other ranks open them by this plan alone, wherever they
 * started.
 */
#include "runtime/plan/plan_build.h"

#include "runtime/base/file.h"
#include "runtime/plan/activations.h"
#include "runtime/plan/budget.h"
#include "runtime/plan/limits.h"
#include "runtime/plan/placement.h"
#include "runtime/plan/precision.h"
#include "runtime/plan/targets.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_RANKS = 1024 };

static tsr_status check_ranks(const tsr_model_facts *model, int32_t ranks, tsr_problems *problems)
{
    if (ranks < 1 || ranks > MOST_RANKS) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%d ranks: there must be 1 to %d", ranks,
                         MOST_RANKS);
        return TSR_ERR_ARG;
    }
    if (model->experts > 0 && ranks > model->experts) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%d ranks are more than the model's %d experts; use at most %d", ranks,
                         model->experts, model->experts);
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

/* Every rank opens the same absolute path, wherever it was started. */
static char *absolute(const char *folder)
{
    char here[PATH_MAX], path[2 * PATH_MAX];

    if (folder[0] == '/' || getcwd(here, sizeof(here)) == NULL ||
        tsr_path_join(here, folder, sizeof(path), path) != TSR_OK)
        return strdup(folder);
    return strdup(path);
}

static tsr_status copy_files(const tsr_checkpoint *checkpoint, tsr_plan *plan)
{
    plan->folder = absolute(checkpoint->folder);
    plan->files = calloc(checkpoint->file_count + 1, sizeof(*plan->files));
    plan->marks = calloc(checkpoint->file_count + 1, sizeof(*plan->marks));
    if (plan->folder == NULL || plan->files == NULL || plan->marks == NULL)
        return TSR_ERR_MEMORY;
    plan->file_count = (int32_t)checkpoint->file_count;
    for (size_t i = 0; i < checkpoint->file_count; i++) {
        plan->files[i] = strdup(checkpoint->files[i]);
        if (plan->files[i] == NULL)
            return TSR_ERR_MEMORY;
        plan->marks[i] = checkpoint->marks[i];
    }
    return TSR_OK;
}

/* The precision's records become the plan's; KV scales stay only where they are used. */
static void take_records(tsr_precision *precision, tsr_plan *plan)
{
    int32_t kept = 0;

    plan->linears = precision->linears;
    plan->linear_count = precision->linear_count;
    plan->vectors = precision->vectors;
    for (int32_t i = 0; i < precision->vector_count; i++) {
        const tsr_vector_plan vector = precision->vectors[i];
        const bool scale = vector.role == TSR_ROLE_K_SCALE || vector.role == TSR_ROLE_V_SCALE;
        if (!scale || plan->kv_format == TSR_KV_FP8)
            plan->vectors[kept++] = vector;
    }
    plan->vector_count = kept;
    precision->linears = NULL;
    precision->vectors = NULL;
}

/* Limits and bytes of every rank; reads the precision's records. */
static tsr_status count_bytes(const tsr_plan_request *request, const tsr_precision *precision,
                              tsr_problems *problems, tsr_plan *plan, bool *ret_fits)
{
    tsr_setting setting = {.kv_format = plan->kv_format, .ranks = plan->ranks};
    tsr_plan_request counted = *request;
    tsr_budget budget;
    bool fits = false;
    tsr_status st;

    tsr_plan_request_count_memory(&counted);
    st = tsr_budget_open(&plan->model, precision, &counted, &budget);

    if (st == TSR_OK)
        st = tsr_limits_choose(&budget, request, problems, &setting, &fits);
    if (st == TSR_OK) {
        plan->limits = setting.limits;
        plan->budget = calloc((size_t)plan->ranks, sizeof(*plan->budget));
        st = plan->budget == NULL ? TSR_ERR_MEMORY : TSR_OK;
    }
    if (st == TSR_OK) {
        for (int32_t rank = 0; rank < plan->ranks; rank++)
            plan->budget[rank] = tsr_budget_of_rank(&budget, &setting, rank);
        if (!fits)
            tsr_limits_advise(&budget, request, &setting, problems);
        *ret_fits = fits;
    }
    tsr_budget_close(&budget);
    return st;
}

static tsr_status place_experts(tsr_plan *plan)
{
    const size_t places = (size_t)plan->model.layers * (size_t)plan->model.experts;

    plan->expert_rank = calloc(places + 1, sizeof(*plan->expert_rank));
    if (plan->expert_rank == NULL)
        return TSR_ERR_MEMORY;
    tsr_placement_fill(&plan->model, plan->ranks, plan->expert_rank);
    return TSR_OK;
}

static tsr_status fill_plan(const tsr_checkpoint *checkpoint, const tsr_plan_request *request,
                            tsr_precision *precision, tsr_problems *problems, tsr_plan *plan,
                            bool *ret_fits)
{
    tsr_status st = tsr_activations_settle(request, problems, precision);

    plan->model = checkpoint->model;
    plan->ranks = request->ranks;
    plan->token_ids = request->token_ids;
    if (st == TSR_OK)
        st = tsr_kv_settle(request, precision, problems, &plan->kv_format);
    if (st == TSR_OK)
        st = count_bytes(request, precision, problems, plan, ret_fits);
    if (st == TSR_OK)
        st = place_experts(plan);
    if (st == TSR_OK)
        st = copy_files(checkpoint, plan);
    if (st == TSR_OK)
        take_records(precision, plan);
    return st;
}

tsr_status tsr_plan_build(const tsr_checkpoint *checkpoint, const tsr_plan_request *request,
                          tsr_problems *problems, tsr_plan **ret_plan, bool *ret_fits)
{
    const size_t errors = problems->errors;
    tsr_precision *precision = NULL;
    tsr_plan *plan = calloc(1, sizeof(*plan));
    bool fits = false;
    tsr_status st =
        plan == NULL ? TSR_ERR_MEMORY : check_ranks(&checkpoint->model, request->ranks, problems);

    if (st == TSR_OK)
        st = tsr_precision_read(checkpoint, problems, &precision);
    if (st == TSR_OK && problems->errors > errors)
        st = TSR_ERR_CHECKPOINT;
    if (st == TSR_OK)
        st = fill_plan(checkpoint, request, precision, problems, plan, &fits);
    tsr_precision_close(precision);
    if (st != TSR_OK) {
        tsr_plan_close(plan);
        return st;
    }
    *ret_plan = plan;
    *ret_fits = fits;
    return TSR_OK;
}
