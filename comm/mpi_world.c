/*
 * MPI itself: starting it, messages, notes, and leaving. The only file that knows MPI.
 *
 * No MPI call here waits for a peer: everything is started, then tested in a loop that also listens
 * for notes, which a rank that gives up sends on a communicator of their own, and looks at the
 * clock.
 *
 * After an abort MPI may still hold requests on our memory, and nobody can take them back (a send
 * cannot be cancelled). Such memory is left to the end of the process, which comes soon.
 */
#include "comm/mpi_world.h"

#include "comm/mpi_guard.h"
#include "comm/mpi_notes.h"
#include "comm/roll_call.h"
#include "runtime/base/clock.h"
#include "runtime/base/ending.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <inttypes.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TAG_NOTE = 1 };

/* Larger messages go in pieces: MPI counts with an int. */
enum { PIECE_BYTES = 16 << 20 };

/* Ranks may outnumber cores: after some turns without news the core is left to others for a while.
 * The time to deliver notes at the end is short, since they are small and peers are listening. */
enum { EAGER_TURNS = 20, REST_NS = 50000, NOTES_MS = 1000 };

/* Ending MPI takes seconds on a loaded machine, whatever a step's deadline is. */
enum { LEAST_GUARD_MS = 5000 };

struct tsr_mpi_requests {
    MPI_Request *items;
    MPI_Status *statuses;
    int *finished; /* indices, as MPI_Testsome gives them */
    int *expected; /* bytes to receive; -1: a send */
    int32_t *peers;
    int count;
    int capacity;
    int pending;
    uint64_t meeting; /* whose greetings these are; 0: no meeting's */
    int64_t *came_ns; /* [size] NULL: nobody asks */
};

struct tsr_mpi_lane {
    MPI_Comm comm;
};

struct tsr_mpi_notes {
    MPI_Comm comm;
    tsr_mpi_note heard;
    MPI_Request hearing;
    tsr_mpi_note *said;  /* [size, TSR_NOTE_KINDS] */
    MPI_Request *saying; /* [size, TSR_NOTE_KINDS] */
};

typedef struct world {
    tsr_mpi_world shared; /* first member */
    tsr_mpi_lane work;
    tsr_mpi_notes notes;
} world;

/* Of this process: MPI starts once and ends once. Used by the thread that uses MPI. */
static struct {
    bool started_here;
    int32_t open_groups;
    tsr_roll_call *roll_call;
    bool root_was_seen; /* by its name in the roll call, which containers may hide */
} process;

static tsr_status mpi_status(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (code == MPI_SUCCESS)
        return TSR_OK;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        length = 0;
    tsr_log(TSR_LOG_ERROR, "%s: %.*s", call, length, text);
    return TSR_ERR_PEER;
}

#define TSR_MPI(call) mpi_status((call), #call)

static void free_arrays(tsr_mpi_requests *list)
{
    free(list->items);
    free(list->statuses);
    free(list->finished);
    free(list->expected);
    free(list->peers);
}

tsr_status tsr_mpi_requests_open(tsr_mpi_requests **ret_list)
{
    tsr_mpi_requests *list = calloc(1, sizeof(*list));
    if (list == NULL)
        return TSR_ERR_MEMORY;
    *ret_list = list;
    return TSR_OK;
}

void tsr_mpi_requests_close(tsr_mpi_requests *list)
{
    if (list == NULL || list->pending != 0)
        return;
    free_arrays(list);
    free(list);
}

void tsr_mpi_requests_time(tsr_mpi_requests *list, int64_t *came_ns)
{
    list->came_ns = came_ns;
}

uint64_t tsr_mpi_requests_greet(tsr_mpi_world *w, tsr_mpi_requests *list)
{
    list->meeting = ++w->meetings;
    return list->meeting;
}

/* Room for `more` requests. Grows only beyond the most there ever were. */
static tsr_status reserve_requests(tsr_mpi_requests *list, size_t more)
{
    const size_t count = (size_t)list->count + more;
    if (count <= (size_t)list->capacity)
        return TSR_OK;
    if (count > INT32_MAX / 2)
        return TSR_ERR_MEMORY;

    tsr_mpi_requests grown = {.capacity = (int)count * 2};
    const size_t capacity = (size_t)grown.capacity;
    grown.items = calloc(capacity, sizeof(MPI_Request));
    grown.statuses = calloc(capacity, sizeof(MPI_Status));
    grown.finished = calloc(capacity, sizeof(int));
    grown.expected = calloc(capacity, sizeof(int));
    grown.peers = calloc(capacity, sizeof(int32_t));
    if (grown.items == NULL || grown.statuses == NULL || grown.finished == NULL ||
        grown.expected == NULL || grown.peers == NULL) {
        free_arrays(&grown);
        return TSR_ERR_MEMORY;
    }
    if (list->count != 0) {
        memcpy(grown.items, list->items, (size_t)list->count * sizeof(MPI_Request));
        memcpy(grown.expected, list->expected, (size_t)list->count * sizeof(int));
        memcpy(grown.peers, list->peers, (size_t)list->count * sizeof(int32_t));
    }
    free_arrays(list);
    list->items = grown.items;
    list->statuses = grown.statuses;
    list->finished = grown.finished;
    list->expected = grown.expected;
    list->peers = grown.peers;
    list->capacity = grown.capacity;
    return TSR_OK;
}

tsr_status tsr_mpi_start(const tsr_mpi_world *w, tsr_mpi_requests *list, const tsr_mpi_message *m)
{
    const MPI_Comm comm = w->work->comm;
    tsr_status st = reserve_requests(list, m->bytes / PIECE_BYTES + 1);
    for (size_t at = 0; at < m->bytes && st == TSR_OK; at += PIECE_BYTES) {
        const size_t rest = m->bytes - at;
        const int bytes = rest < PIECE_BYTES ? (int)rest : PIECE_BYTES;
        const int i = list->count;
        if (m->from != NULL)
            st = TSR_MPI(MPI_Isend((const unsigned char *)m->from + at, bytes, MPI_BYTE, m->peer,
                                   (int)m->tag, comm, &list->items[i]));
        else
            st = TSR_MPI(MPI_Irecv((unsigned char *)m->into + at, bytes, MPI_BYTE, m->peer,
                                   (int)m->tag, comm, &list->items[i]));
        if (st != TSR_OK)
            return st;
        list->expected[i] = m->from != NULL ? -1 : bytes;
        list->peers[i] = m->peer;
        list->count++;
        list->pending++;
    }
    return st;
}

static tsr_status wrong_size(const tsr_mpi_requests *list, int i, const tsr_call *call)
{
    char text[TSR_CALL_TEXT_BYTES];
    tsr_call_text(call, text);
    tsr_log(TSR_LOG_ERROR, "%s: rank %" PRId32 " sent another number of bytes than the %d expected",
            text, list->peers[i], list->expected[i]);
    return TSR_ERR_MISMATCH;
}

/* One look at all messages of a list. *ret_news: some have finished. */
static tsr_status test(tsr_mpi_requests *list, const tsr_call *call, bool *ret_news)
{
    int count = 0;
    const int code = MPI_Testsome(list->count, list->items, &count, list->finished, list->statuses);
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS)
        return mpi_status(code, "MPI_Testsome");
    const int64_t now = count > 0 && list->came_ns != NULL ? tsr_clock_ns() : 0;

    for (int n = 0; n < count; n++) {
        const MPI_Status *status = &list->statuses[n];
        const int i = list->finished[n];
        const int error = code == MPI_ERR_IN_STATUS ? status->MPI_ERROR : MPI_SUCCESS;
        int class = MPI_SUCCESS;
        if (error != MPI_SUCCESS && MPI_Error_class(error, &class) != MPI_SUCCESS)
            class = MPI_ERR_UNKNOWN;
        if (class == MPI_ERR_TRUNCATE)
            return wrong_size(list, i, call);
        if (class != MPI_SUCCESS)
            return mpi_status(error, "MPI_Testsome");

        int bytes = list->expected[i];
        if (bytes >= 0 && MPI_Get_count(status, MPI_BYTE, &bytes) == MPI_SUCCESS &&
            bytes != list->expected[i])
            return wrong_size(list, i, call);
        if (now != 0 && list->expected[i] >= 0)
            list->came_ns[list->peers[i]] = now;
        list->pending--;
    }
    *ret_news = count > 0;
    return TSR_OK;
}

void tsr_mpi_say(tsr_mpi_world *w, int32_t peer, const tsr_mpi_note *words)
{
    tsr_mpi_notes *notes = w->notes;
    const size_t at = (size_t)peer * TSR_NOTE_KINDS + (size_t)words->kind;
    int sent = 1;

    if (notes->comm == MPI_COMM_NULL || peer == w->base.rank ||
        TSR_MPI(MPI_Test(&notes->saying[at], &sent, MPI_STATUS_IGNORE)) != TSR_OK || !sent)
        return;
    notes->said[at] = *words;
    notes->said[at].rank = w->base.rank;
    /* A peer that cannot be told finds out by its own deadline. */
    (void)TSR_MPI(MPI_Isend(&notes->said[at], (int)sizeof(*words), MPI_BYTE, peer, TAG_NOTE,
                            notes->comm, &notes->saying[at]));
}

static tsr_status await_note(tsr_mpi_notes *notes)
{
    return TSR_MPI(MPI_Irecv(&notes->heard, (int)sizeof(notes->heard), MPI_BYTE, MPI_ANY_SOURCE,
                             TAG_NOTE, notes->comm, &notes->hearing));
}

tsr_status tsr_mpi_next_note(tsr_mpi_world *w, tsr_mpi_note *ret_note, bool *ret_came)
{
    tsr_mpi_notes *notes = w->notes;
    int came = 0;

    *ret_came = false;
    if (notes->hearing == MPI_REQUEST_NULL)
        return TSR_OK;
    const tsr_status st = TSR_MPI(MPI_Test(&notes->hearing, &came, MPI_STATUS_IGNORE));
    if (st != TSR_OK || !came)
        return st;
    *ret_note = notes->heard;
    *ret_came = ret_note->rank >= 0 && ret_note->rank < w->base.size;
    return await_note(notes);
}

bool tsr_mpi_hears(const tsr_mpi_world *w)
{
    return w->notes->hearing != MPI_REQUEST_NULL;
}

bool tsr_mpi_root_died(void)
{
    return process.root_was_seen && tsr_roll_call_has_left(process.roll_call, 0);
}

bool tsr_mpi_waits_for(const tsr_mpi_requests *list, int32_t rank)
{
    bool waits = false;
    for (int i = 0; i < list->count && !waits; i++)
        waits = list->items[i] != MPI_REQUEST_NULL && list->peers[i] == rank;
    return waits;
}

void tsr_mpi_rest(int32_t turns)
{
    const struct timespec a_while = {.tv_nsec = REST_NS};
    if (turns < EAGER_TURNS)
        (void)sched_yield();
    else
        (void)nanosleep(&a_while, NULL);
}

int64_t tsr_mpi_deadline(const tsr_mpi_world *w)
{
    return tsr_clock_ms() + w->base.deadline_ms;
}

bool tsr_mpi_is_pending(const tsr_mpi_requests *list)
{
    return list->pending != 0;
}

tsr_status tsr_mpi_finish(tsr_mpi_world *w, tsr_mpi_requests *list, const tsr_call *call,
                          int64_t deadline)
{
    tsr_mpi_wait wait = {.deadline = deadline};
    int32_t turns = 0;
    while (list->pending > 0) {
        bool news = false;
        tsr_status st = test(list, call, &news);
        if (st == TSR_OK && list->pending > 0)
            st = tsr_mpi_heed(w, list->meeting);
        if (st == TSR_OK && !news)
            st = tsr_mpi_look_at_clock(w, list, call, &wait);
        if (st != TSR_OK)
            return st;
        if (news)
            turns = 0;
        else
            tsr_mpi_rest(turns++);
    }
    list->count = 0;
    return TSR_OK;
}

static void world_free(world *w)
{
    free(w->shared.missing);
    free(w->shared.presence);
    free(w->notes.saying);
    free(w->notes.said);
    free(w);
}

/* Gives the notes of an abort a moment to leave. */
static void deliver_notes(world *w)
{
    const int64_t deadline = tsr_clock_ms() + NOTES_MS;
    int sent = 0;
    for (int32_t turns = 0; !sent && tsr_clock_ms() < deadline; turns++) {
        if (TSR_MPI(MPI_Testall(w->shared.base.size * TSR_NOTE_KINDS, w->notes.saying, &sent,
                                MPI_STATUSES_IGNORE)) != TSR_OK)
            return;
        tsr_mpi_rest(turns);
    }
}

/* One that stops only now is left to the guard. */
static void leave_mpi(world *w)
{
    const tsr_mpi_guarded closing = {
        .what = "closing MPI",
        .limit_ms = tsr_larger(w->shared.base.deadline_ms, LEAST_GUARD_MS),
        .cause = TSR_ERR_TIMEOUT,
    };
    tsr_mpi_guard *guard = NULL;
    if (tsr_mpi_guard_start(&closing, process.roll_call, &guard) != TSR_OK)
        return;
    deliver_notes(w);
    if (w->notes.hearing != MPI_REQUEST_NULL) {
        (void)TSR_MPI(MPI_Cancel(&w->notes.hearing));
        (void)TSR_MPI(MPI_Wait(&w->notes.hearing, MPI_STATUS_IGNORE));
    }
    (void)TSR_MPI(MPI_Comm_free(&w->notes.comm));
    (void)TSR_MPI(MPI_Comm_free(&w->work.comm));
    if (process.open_groups == 0 && process.started_here)
        (void)TSR_MPI(MPI_Finalize());
    tsr_mpi_guard_stop(guard);
    if (process.open_groups == 0) {
        tsr_roll_call_close(process.roll_call);
        process.roll_call = NULL;
    }
}

void tsr_comm_mpi_library(size_t capacity, char *ret_name)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = {0};
    int bytes = 0;

    if (MPI_Get_library_version(text, &bytes) != MPI_SUCCESS)
        text[0] = '\0';
    (void)snprintf(ret_name, capacity, "%.*s", (int)strcspn(text, ",\n"), text);
}

/* MPI_Init_thread, which returns when every rank has called it. */
static tsr_status init_mpi(int32_t deadline_ms, int *ret_level)
{
    const tsr_mpi_guarded starting = {
        .what = "starting MPI", .limit_ms = deadline_ms, .cause = TSR_ERR_INIT};
    tsr_mpi_guard *guard = NULL;
    tsr_status st = tsr_mpi_guard_start(&starting, process.roll_call, &guard);
    if (st != TSR_OK)
        return st;
    st = TSR_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, ret_level));
    tsr_mpi_guard_stop(guard);
    return st == TSR_OK ? TSR_OK : TSR_ERR_INIT;
}

static tsr_status start_mpi(int32_t deadline_ms, const tsr_launched *launched)
{
    int initialised = 0;
    int finalised = 0;
    int level = 0;
    if (MPI_Initialized(&initialised) != MPI_SUCCESS || MPI_Finalized(&finalised) != MPI_SUCCESS)
        return TSR_ERR_INIT;
    if (finalised) {
        tsr_log(TSR_LOG_ERROR, "MPI was finalized in this process and cannot start again");
        return TSR_ERR_INIT;
    }
    if (initialised)
        return TSR_OK;
    process.roll_call = tsr_roll_call_open(launched);
    const tsr_status st = init_mpi(deadline_ms, &level);
    if (st != TSR_OK)
        return st;
    process.started_here = true;
    if (level < MPI_THREAD_FUNNELED) {
        tsr_log(TSR_LOG_ERROR,
                "this MPI allows no threads beside its own: use one built with them");
        return TSR_ERR_INIT;
    }
    return TSR_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
}

static world *world_alloc(const tsr_comm *base)
{
    const size_t size = (size_t)base->size;
    world *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return NULL;
    tsr_mpi_world *shared = &w->shared;
    shared->base = *base;
    shared->work = &w->work;
    shared->notes = &w->notes;
    shared->missing = calloc(size, sizeof(*shared->missing));
    shared->presence = calloc(size, sizeof(*shared->presence));
    w->notes.saying = calloc(size * TSR_NOTE_KINDS, sizeof(MPI_Request));
    w->notes.said = calloc(size * TSR_NOTE_KINDS, sizeof(tsr_mpi_note));
    w->work.comm = MPI_COMM_WORLD;
    w->notes.comm = MPI_COMM_NULL;
    w->notes.hearing = MPI_REQUEST_NULL;
    if (shared->missing == NULL || w->notes.saying == NULL || w->notes.said == NULL ||
        shared->presence == NULL) {
        world_free(w);
        return NULL;
    }
    for (size_t r = 0; r < size * TSR_NOTE_KINDS; r++)
        w->notes.saying[r] = MPI_REQUEST_NULL;
    return w;
}

/* Copies the world's communicator, within the deadline. On a timeout MPI still holds *ret_comm. */
static tsr_status copy_world(int32_t deadline_ms, MPI_Comm *ret_comm)
{
    const int64_t deadline = tsr_clock_ms() + deadline_ms;
    MPI_Request request = MPI_REQUEST_NULL;
    int done = 0;
    tsr_status st = TSR_MPI(MPI_Comm_idup(MPI_COMM_WORLD, ret_comm, &request));
    for (int32_t turns = 0; st == TSR_OK && !done; turns++) {
        st = TSR_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
        if (st == TSR_OK)
            st = tsr_ending_status();
        if (st == TSR_OK && !done && tsr_clock_ms() > deadline) {
            tsr_log(TSR_LOG_ERROR, "opening the group: not every rank came within %" PRId32 " ms",
                    deadline_ms);
            return TSR_ERR_TIMEOUT;
        }
        tsr_mpi_rest(turns);
    }
    return st == TSR_OK ? TSR_MPI(MPI_Comm_set_errhandler(*ret_comm, MPI_ERRORS_RETURN)) : st;
}

tsr_status tsr_mpi_world_open(const tsr_comm_ops *ops, int32_t deadline_ms,
                              const tsr_launched *launched, tsr_mpi_world **ret_world)
{
    tsr_comm base = {.ops = ops, .deadline_ms = deadline_ms};
    int rank = 0;
    int size = 0;
    tsr_status st = start_mpi(deadline_ms, launched);
    if (st == TSR_OK)
        st = TSR_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
    if (st == TSR_OK)
        st = TSR_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size));
    if (st != TSR_OK)
        return st;

    base.rank = rank;
    base.size = size;
    world *w = world_alloc(&base);
    if (w == NULL)
        return TSR_ERR_MEMORY;
    process.open_groups++;
    *ret_world = &w->shared;
    return TSR_OK;
}

tsr_status tsr_mpi_world_connect(tsr_mpi_world *w)
{
    world *own = (world *)(void *)w;
    tsr_mpi_notes *notes = &own->notes;
    tsr_status st = copy_world(w->base.deadline_ms, &own->work.comm);
    if (st == TSR_OK)
        st = copy_world(w->base.deadline_ms, &notes->comm);
    if (st == TSR_OK && w->base.size > 1)
        st = await_note(notes);
    process.root_was_seen = st == TSR_OK && !tsr_roll_call_has_left(process.roll_call, 0);
    return st;
}

void tsr_mpi_world_close(tsr_mpi_world *w)
{
    world *own = (world *)(void *)w;
    process.open_groups--;
    if (w->cause != TSR_OK) {
        if (w->base.rank == 0)
            tsr_mpi_say_to_all(w, &(tsr_mpi_note){.kind = TSR_NOTE_GONE});
        deliver_notes(own);
        return; /* with what MPI may still hold, and without MPI_Finalize: see the top */
    }
    leave_mpi(own);
    world_free(own);
}
