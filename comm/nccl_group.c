/* Calls that do not block, and what is asked until they are through. */
#include "comm/nccl_group.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    POLL_NS = 200000,
    SHARED_SINCE = 23003,
    NAMING_PART = 4, /* of the deadline, kept for finding out who has not come */
};

static tsr_status failed(const tsr_nccl_group *g, const char *what, ncclResult_t result)
{
    const char *more = g->nccl != NULL ? g->library->get_last_error(g->nccl) : "";

    tsr_log(TSR_LOG_ERROR, "NCCL: %s: %s%s%s", what, g->library->get_error_string(result),
            more[0] != '\0' ? ": " : "", more);
    return TSR_ERR_DEVICE;
}

/* NCCL never says for whom it waits. All ranks that are there give up on it at about the same time
 * and meet: that names the others. */
static tsr_status name_absent(const tsr_nccl_group *g, const char *what)
{
    tsr_comm *comm = g->comm;
    const int32_t deadline_ms = comm->deadline_ms;

    tsr_log(TSR_LOG_ERROR, "NCCL: %s: not all ranks came within %" PRId32 " ms", what,
            deadline_ms - deadline_ms / NAMING_PART);
    comm->deadline_ms = tsr_larger(deadline_ms / NAMING_PART, 1);
    const tsr_status met = comm->ops->barrier(comm);
    comm->deadline_ms = deadline_ms;
    return met == TSR_ERR_PEER ? TSR_ERR_PEER : TSR_ERR_TIMEOUT;
}

/* The time at which a call of NCCL's that begins now is given up. */
static int64_t time_to_give_up(const tsr_comm *comm)
{
    return tsr_clock_ms() + comm->deadline_ms - comm->deadline_ms / NAMING_PART;
}

/*
 * Until what was called is through. Asked also when the call has returned success: a communicator
 * that does not block may say so while it has only begun.
 */
static tsr_status finish(const tsr_nccl_group *g, const char *what, ncclResult_t said)
{
    const struct timespec poll = {.tv_nsec = POLL_NS};

    if (said != ncclSuccess && said != ncclInProgress)
        return failed(g, what, said);
    for (;;) {
        ncclResult_t now = ncclSuccess;
        const ncclResult_t asked = g->library->comm_error(g->nccl, &now);
        if (asked != ncclSuccess || (now != ncclSuccess && now != ncclInProgress))
            return failed(g, what, asked != ncclSuccess ? asked : now);
        if (now == ncclSuccess)
            return TSR_OK;
        if (g->comm->ops->cause(g->comm) != TSR_OK)
            return TSR_ERR_PEER;
        if (tsr_clock_ms() > g->until_ms)
            return name_absent(g, what);
        (void)nanosleep(&poll, NULL);
    }
}

static tsr_status refuse_sharing(const tsr_nccl_card *cards, int32_t a, int32_t b)
{
    if (cards[a].may_share == 0 || cards[b].may_share == 0)
        tsr_log(TSR_LOG_ERROR,
                "ranks %" PRId32 " and %" PRId32
                " are on one GPU: start as many ranks as there are "
                "GPUs, or allow more with --ranks-per-gpu",
                a, b);
    else
        tsr_log(TSR_LOG_ERROR,
                "ranks %" PRId32 " and %" PRId32 " share a GPU, which needs NCCL 2.30.3 or newer; "
                "here is %" PRId32,
                a, b, cards[a].version);
    return TSR_ERR_DEVICE;
}

static tsr_status judge_sharing(const tsr_nccl_card *cards, int32_t ranks)
{
    for (int32_t b = 1; b < ranks; b++) {
        for (int32_t a = 0; a < b; a++) {
            const bool allowed = cards[a].may_share != 0 && cards[b].may_share != 0 &&
                                 cards[a].version >= SHARED_SINCE;
            if (!allowed && memcmp(cards[a].uuid, cards[b].uuid, TSR_NCCL_UUID_BYTES) == 0)
                return refuse_sharing(cards, a, b);
        }
    }
    return TSR_OK;
}

tsr_status tsr_nccl_judge(const tsr_nccl_card *cards, int32_t ranks, int32_t rank)
{
    const tsr_nccl_card *mine = &cards[rank];

    for (int32_t r = 0; r < ranks; r++) {
        if (!tsr_call_equal(&mine->call, &cards[r].call))
            return tsr_call_mismatch(&mine->call, r, &cards[r].call);
        if (cards[r].version != mine->version) {
            tsr_log(TSR_LOG_ERROR, "NCCL is %" PRId32 " on this rank, %" PRId32 " on rank %" PRId32,
                    mine->version, cards[r].version, r);
            return TSR_ERR_MISMATCH;
        }
    }
    return judge_sharing(cards, ranks);
}

/* Everybody's cards, and rank 0's id. */
static tsr_status meet(const tsr_nccl_group *g, const tsr_nccl_card *card, tsr_nccl_card *cards,
                       ncclUniqueId *id)
{
    tsr_comm *comm = g->comm;
    const size_t ranks = (size_t)comm->size;
    size_t *bytes_of = calloc(ranks, sizeof(*bytes_of));
    if (bytes_of == NULL)
        return TSR_ERR_MEMORY;
    for (size_t r = 0; r < ranks; r++)
        bytes_of[r] = sizeof(*card);
    tsr_status st = comm->ops->gather(comm, 0, card, bytes_of, cards);
    free(bytes_of);

    if (st == TSR_OK)
        st = comm->ops->broadcast(comm, 0, cards, ranks * sizeof(*cards));
    if (st == TSR_OK)
        st = tsr_nccl_judge(cards, comm->size, comm->rank);
    if (st == TSR_OK && comm->rank == 0) {
        const ncclResult_t result = g->library->get_unique_id(id);
        st = result == ncclSuccess ? TSR_OK : failed(g, "an id for the group", result);
    }
    return st == TSR_OK ? comm->ops->broadcast(comm, 0, id, sizeof(*id)) : st;
}

tsr_status tsr_nccl_group_open(tsr_comm *comm, const tsr_nccl_library *library,
                               const tsr_nccl_card *card, tsr_nccl_group *ret_group)
{
    tsr_nccl_group g = {.library = library, .comm = comm};
    ncclUniqueId id = {0};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    tsr_nccl_card *cards = calloc((size_t)comm->size, sizeof(*cards));
    if (cards == NULL)
        return TSR_ERR_MEMORY;

    config.blocking = 0;
    tsr_status st = meet(&g, card, cards, &id);
    free(cards);
    if (st != TSR_OK)
        return st;
    g.until_ms = time_to_give_up(comm);
    const ncclResult_t said = library->comm_init(&g.nccl, comm->size, id, comm->rank, &config);
    st = g.nccl != NULL ? finish(&g, "starting", said) : failed(&g, "starting", said);
    if (st != TSR_OK && g.nccl != NULL)
        (void)library->comm_abort(g.nccl);
    if (st == TSR_OK)
        *ret_group = g;
    return st;
}

tsr_status tsr_nccl_group_window(tsr_nccl_group *group, size_t bytes,
                                 tsr_status (*zero)(void *memory, size_t bytes))
{
    const tsr_nccl_library *library = group->library;
    tsr_comm *comm = group->comm;
    const ncclResult_t took = library->mem_alloc(&group->memory, bytes);

    if (took != ncclSuccess)
        return failed(group, "memory that peers reach", took);
    tsr_status st = zero(group->memory, bytes);
    if (st == TSR_OK)
        st = finish(group, "a window into each other's memory",
                    library->window_register(group->nccl, group->memory, bytes, &group->window,
                                             NCCL_WIN_COLL_SYMMETRIC));
    if (st == TSR_OK &&
        (group->window == NULL || library->team_lsa(group->nccl).ranks != comm->size)) {
        tsr_log(TSR_LOG_ERROR,
                "the GPUs of these %" PRId32 " ranks do not all reach each other's memory, by "
                "NVLink or PCIe: start as many ranks as do",
                comm->size);
        st = TSR_ERR_DEVICE;
    }
    return st == TSR_OK ? comm->ops->barrier(comm) : st;
}

/* Peers take part in the end of a communicator, unless the group has ended. */
void tsr_nccl_group_close(tsr_nccl_group *group)
{
    const tsr_nccl_library *library = group->library;

    if (group->nccl == NULL)
        return;
    group->until_ms = time_to_give_up(group->comm);
    bool healthy = group->comm->ops->cause(group->comm) == TSR_OK;
    if (healthy && group->window != NULL)
        healthy = finish(group, "giving a window back",
                         library->window_deregister(group->nccl, group->window)) == TSR_OK;
    if (healthy)
        healthy = finish(group, "ending", library->comm_finalize(group->nccl)) == TSR_OK;
    (void)(healthy ? library->comm_destroy(group->nccl) : library->comm_abort(group->nccl));
    if (group->memory != NULL)
        (void)library->mem_free(group->memory);
    *group = (tsr_nccl_group){0};
}
