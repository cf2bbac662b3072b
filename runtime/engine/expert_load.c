/* Counts are sums from the beginning on: one that comes late tells everything. */
#include "runtime/engine/expert_load.h"

#include "runtime/base/log.h"

#include <stdlib.h>

static size_t cells_of(const tsr_plan *plan)
{
    return (size_t)plan->model.layers * (size_t)plan->model.experts;
}

tsr_status tsr_expert_load_open(const tsr_plan *plan, tsr_model *model, tsr_expert_load *load)
{
    const size_t cells = cells_of(plan) + 1; /* a model may have no experts */
    const size_t ranks = (size_t)plan->ranks;

    load->plan = plan;
    load->model = model;
    load->counted = calloc(1, sizeof(*load->counted));
    if (load->counted == NULL)
        return TSR_ERR_MEMORY;
    load->counted->rows = calloc(cells, sizeof(*load->counted->rows));
    load->sent = calloc(cells, sizeof(*load->sent));
    load->arrived = calloc(cells, sizeof(*load->arrived));
    load->total = calloc(cells, sizeof(*load->total));
    load->bytes_of = calloc(ranks, sizeof(*load->bytes_of));
    if (load->counted->rows == NULL || load->sent == NULL || load->arrived == NULL ||
        load->total == NULL || load->bytes_of == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < cells_of(plan); i++) {
        if (plan->expert_rank[i] >= 0)
            load->bytes_of[plan->expert_rank[i]] += sizeof(*load->sent);
    }
    return tsr_model_count_rows(model, load->counted);
}

static void pick_own(tsr_expert_load *load, int32_t rank)
{
    size_t at = 0;

    for (size_t i = 0; i < cells_of(load->plan); i++) {
        if (load->plan->expert_rank[i] == rank)
            load->sent[at++] = load->counted->rows[i];
    }
}

/* What arrived stands rank after rank. */
static void spread_out(tsr_expert_load *load)
{
    const uint64_t *at = load->arrived;

    for (int32_t r = 0; r < load->plan->ranks; r++) {
        for (size_t i = 0; i < cells_of(load->plan); i++) {
            if (load->plan->expert_rank[i] == r)
                load->total[i] = *at++;
        }
    }
}

tsr_status tsr_expert_load_gather(tsr_expert_load *load, tsr_comm *comm)
{
    const int32_t rank = tsr_comm_rank(comm);

    if (load->plan == NULL) {
        tsr_log(TSR_LOG_ERROR,
                "rank 0 asks for the rows of experts, which this rank does not count");
        return TSR_ERR_MISMATCH;
    }
    pick_own(load, rank);
    const tsr_status st = tsr_comm_gather(comm, 0, load->bytes_of[rank] > 0 ? load->sent : NULL,
                                          load->bytes_of, rank == 0 ? load->arrived : NULL);
    if (st != TSR_OK || rank != 0)
        return st;
    spread_out(load);
    load->steps = load->counted->counted;
    return TSR_OK;
}

void tsr_expert_load_close(tsr_expert_load *load)
{
    if (load->counted != NULL) {
        const tsr_status st = tsr_model_count_rows(load->model, NULL);
        (void)st; /* nothing is taken for nobody */
        free(load->counted->rows);
    }
    free(load->counted);
    free(load->sent);
    free(load->arrived);
    free(load->total);
    free(load->bytes_of);
    *load = (tsr_expert_load){0};
}
