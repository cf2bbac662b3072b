/* Ranks hold different experts, so their counts add up to those of all experts. */
#include "launch/report/watch.h"

#include <stdlib.h>
#include <string.h>

tsr_status tsr_watch_begin(const tsr_plan *plan, tsr_model *model, tsr_watch **ret_watch)
{
    tsr_watch *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return TSR_ERR_MEMORY;
    w->plan = plan;
    w->model = model;
    w->cells = (size_t)plan->model.layers * (size_t)plan->model.experts;
    w->own.tokens = calloc(2 * w->cells, sizeof(int64_t));
    w->ns = calloc((size_t)plan->ranks, sizeof(*w->ns));
    if (tsr_model_waited_ns(model) != NULL)
        w->waited_ns = calloc((size_t)plan->ranks * (size_t)plan->ranks, sizeof(*w->waited_ns));
    if (w->own.tokens == NULL || w->ns == NULL ||
        (w->waited_ns == NULL && tsr_model_waited_ns(model) != NULL)) {
        tsr_watch_close(w);
        return TSR_ERR_MEMORY;
    }
    w->own.reads = w->own.tokens + w->cells;
    const tsr_status st = tsr_model_watch(model, &w->own);
    if (st != TSR_OK) {
        tsr_watch_close(w);
        return st;
    }
    *ret_watch = w;
    return TSR_OK;
}

/* One rank's counts after the other: as many bytes as the counts of all ranks at once would be too
 * many. */
static tsr_status add_rank(tsr_watch *w, tsr_comm *comm, int32_t from, size_t *bytes_of,
                           int64_t *counts)
{
    memset(bytes_of, 0, (size_t)w->plan->ranks * sizeof(*bytes_of));
    bytes_of[from] = 2 * w->cells * sizeof(int64_t);
    const tsr_status st = tsr_comm_gather(comm, 0, w->own.tokens, bytes_of, counts);
    for (size_t i = 0; st == TSR_OK && tsr_comm_rank(comm) == 0 && i < 2 * w->cells; i++)
        w->own.tokens[i] += counts[i];
    return st;
}

tsr_status tsr_watch_gather(tsr_watch *watch, tsr_comm *comm)
{
    const int32_t ranks = watch->plan->ranks;
    size_t *bytes_of = calloc((size_t)ranks, sizeof(*bytes_of));
    int64_t *counts = calloc(2 * watch->cells, sizeof(*counts));
    tsr_status st = bytes_of != NULL && counts != NULL ? TSR_OK : TSR_ERR_MEMORY;

    for (int32_t r = 0; r < ranks && st == TSR_OK; r++)
        bytes_of[r] = sizeof(watch->own.ns);
    if (st == TSR_OK)
        st = tsr_comm_gather(comm, 0, watch->own.ns, bytes_of, watch->ns);
    for (int32_t r = 0; r < ranks && st == TSR_OK; r++)
        bytes_of[r] = (size_t)ranks * sizeof(*watch->waited_ns);
    if (st == TSR_OK && watch->waited_ns != NULL)
        st =
            tsr_comm_gather(comm, 0, tsr_model_waited_ns(watch->model), bytes_of, watch->waited_ns);
    for (int32_t r = 1; r < ranks && st == TSR_OK; r++)
        st = add_rank(watch, comm, r, bytes_of, counts);
    free(counts);
    free(bytes_of);
    return st;
}

void tsr_watch_close(tsr_watch *watch)
{
    if (watch == NULL)
        return;
    free(watch->own.tokens);
    free(watch->waited_ns);
    free(watch->ns);
    free(watch);
}
