/* Nothing here waits for an answer: notes are taken whenever a wait turns round. */
#include "comm/mpi_notes.h"

#include "runtime/base/clock.h"
#include "runtime/base/ending.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

/* The last part of a wait goes to asking; then the first who is there has a moment to speak. */
enum { ASKING_PART = 4, MOST_ASKING_MS = 1000, SPEAKING_MS = 250 };

/* Rank 0 is given this time to write what it has; then the launcher some to end the others, who
 * else leave one after the other. */
enum { ROOT_MS = 5000, LAUNCHER_MS = 1000, TURN_MS = 100, MOST_TURNS = 10 };

void tsr_mpi_say_to_all(tsr_mpi_world *w, const tsr_mpi_note *words)
{
    for (int32_t r = 0; r < w->base.size; r++)
        tsr_mpi_say(w, r, words);
}

static void take_note(tsr_mpi_world *w, const tsr_mpi_note *n, bool waits)
{
    const tsr_mpi_note here = {.kind = TSR_NOTE_HERE, .waits = waits, .number = n->number};

    if (n->kind == TSR_NOTE_END && w->cause == TSR_OK) {
        w->cause = (tsr_status)n->cause;
        w->ender = n->rank;
        w->end_meeting = n->number;
        w->root_lost = n->root_lost != 0;
    } else if (n->kind == TSR_NOTE_ASK) {
        tsr_mpi_say(w, n->rank, &here);
    } else if (n->kind == TSR_NOTE_HERE && n->number == w->questions) {
        w->presence[n->rank] = n->waits != 0 ? TSR_WAITS : TSR_BUSY;
    } else if (n->kind == TSR_NOTE_GONE) {
        w->root_gone = true;
    }
}

/* Takes the notes that have come, in a call on the group or between two. TSR_ERR_PEER only when MPI
 * fails. */
static tsr_status hear(tsr_mpi_world *w, bool waits)
{
    tsr_mpi_note n = {0};
    bool came = true;
    tsr_status st = TSR_OK;

    while (st == TSR_OK && came) {
        st = tsr_mpi_next_note(w, &n, &came);
        if (came)
            take_note(w, &n, waits);
    }
    return st;
}

tsr_status tsr_mpi_heed(tsr_mpi_world *w, uint64_t meeting)
{
    const tsr_status st = hear(w, true);
    if (st != TSR_OK || w->cause == TSR_OK || (meeting != 0 && w->end_meeting == meeting))
        return st;
    return TSR_ERR_PEER;
}

tsr_status tsr_mpi_listen(tsr_mpi_world *w)
{
    return tsr_mpi_heed(w, 0);
}

static void ask(tsr_mpi_world *w)
{
    w->questions++;
    for (int32_t r = 0; r < w->base.size; r++)
        w->presence[r] = TSR_SILENT;
    tsr_mpi_say_to_all(w, &(tsr_mpi_note){.kind = TSR_NOTE_ASK, .number = w->questions});
}

/* Whether another rank that waits is the one to speak. */
static bool is_spoken_for(const tsr_mpi_world *w)
{
    bool first = true;
    for (int32_t r = 0; r < w->base.rank; r++)
        first = first && w->presence[r] != TSR_WAITS;
    return !first;
}

/* The ranks of a kind, of all or of those whose messages are missing. */
static int32_t list_ranks(tsr_mpi_world *w, tsr_mpi_presence kind, const tsr_mpi_requests *of)
{
    int32_t count = 0;
    for (int32_t r = 0; r < w->base.size && tsr_mpi_hears(w); r++) {
        if (w->presence[r] == kind && r != w->base.rank && (of == NULL || tsr_mpi_waits_for(of, r)))
            w->missing[count++] = r;
    }
    return count;
}

/*
 * Names those who do not answer. Where all do, it is somebody who does not wait, first of all of
 * those whose messages are missing; where all wait as well, those it is.
 */
static tsr_status name_the_missing(tsr_mpi_world *w, const tsr_mpi_requests *list,
                                   const tsr_call *call)
{
    int32_t count = list_ranks(w, TSR_SILENT, NULL);
    if (count == 0)
        count = list_ranks(w, TSR_BUSY, list);
    if (count == 0)
        count = list_ranks(w, TSR_BUSY, NULL);
    const bool all_wait = count == 0;
    for (int32_t r = 0; r < w->base.size && all_wait; r++) {
        if (tsr_mpi_waits_for(list, r))
            w->missing[count++] = r;
    }
    w->root_lost = count > 0 && w->missing[0] == 0;
    return tsr_call_timeout(call, w->base.deadline_ms, w->missing, count);
}

/* A launcher asks every rank to end, and rank 0 says so: the others say it where they alone were
 * asked. */
static tsr_status heed_ending(tsr_mpi_world *w, int64_t now)
{
    const tsr_status st = tsr_ending_status();

    if (st == TSR_OK || w->base.rank == 0)
        return st;
    if (w->ending_ms == 0)
        w->ending_ms = now;
    if (now - w->ending_ms < SPEAKING_MS)
        return TSR_OK;
    if (w->cause == TSR_OK)
        tsr_log(TSR_LOG_ERROR, "%s", tsr_status_text(st));
    return st;
}

tsr_status tsr_mpi_look_at_clock(tsr_mpi_world *w, const tsr_mpi_requests *list,
                                 const tsr_call *call, tsr_mpi_wait *wait)
{
    const int64_t now = tsr_clock_ms();
    const int32_t asking = tsr_smaller(w->base.deadline_ms / ASKING_PART, MOST_ASKING_MS);

    if (!wait->asked && now > wait->deadline - asking) {
        wait->asked = true;
        ask(w);
    }
    if (now <= wait->deadline)
        return heed_ending(w, now);
    if (w->cause != TSR_OK)
        return TSR_ERR_PEER;
    if (now <= wait->deadline + SPEAKING_MS && is_spoken_for(w))
        return TSR_OK;
    return name_the_missing(w, list, call);
}

void tsr_mpi_abort(tsr_comm *comm, tsr_status cause)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    if (w->cause != TSR_OK)
        return;
    w->cause = cause;
    w->ender = comm->rank;
    tsr_mpi_say_to_all(w, &(tsr_mpi_note){.kind = TSR_NOTE_END,
                                          .cause = (int32_t)cause,
                                          .root_lost = w->root_lost,
                                          .number = w->disagreed});
}

tsr_status tsr_mpi_cause(tsr_comm *comm)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    const tsr_status st = hear(w, false);
    return w->cause == TSR_OK ? st : w->cause;
}

int32_t tsr_mpi_ender(const tsr_comm *comm)
{
    const tsr_mpi_world *w = (const tsr_mpi_world *)(const void *)comm;
    return w->cause != TSR_OK ? w->ender : -1;
}

void tsr_mpi_stay_behind(tsr_comm *comm)
{
    tsr_mpi_world *w = tsr_mpi_world_of(comm);
    const int32_t turn_ms = TURN_MS * tsr_smaller(comm->rank, MOST_TURNS);
    int64_t until = tsr_clock_ms() + turn_ms + (w->root_lost ? 0 : ROOT_MS);
    bool gone = false;

    if (comm->rank == 0 || w->cause == TSR_OK || !tsr_mpi_hears(w))
        return;
    /* once the launcher ends the job, the moment that it gives is rank 0's: who asked ends this too */
    for (int32_t turns = 0;
         (tsr_clock_ms() < until || tsr_ending_status() != TSR_OK) && hear(w, false) == TSR_OK;
         turns++) {
        if (tsr_ending_status() != TSR_OK && (w->root_gone || tsr_mpi_root_died()))
            return; /* the launcher has done so already, and rank 0 writes nothing any more */
        if (w->root_gone && !gone)
            until = tsr_clock_ms() + LAUNCHER_MS + turn_ms;
        gone = w->root_gone;
        tsr_mpi_rest(turns);
    }
}
