/* Greetings on a list of their own: started together, then waited for together. */
#include "comm/mpi_meeting.h"
#include "comm/mpi_notes.h"

#include <stdlib.h>

static void meeting_free(tsr_mpi_meeting *m)
{
    tsr_mpi_requests_close(m->greetings);
    free(m->mine);
    free(m->theirs);
    free(m);
}

tsr_status tsr_mpi_meeting_open(int32_t ranks, tsr_mpi_meeting **ret_meeting)
{
    const size_t size = (size_t)ranks;
    tsr_mpi_meeting *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return TSR_ERR_MEMORY;
    m->mine = calloc(size, sizeof(*m->mine));
    m->theirs = calloc(size, sizeof(*m->theirs));
    if (m->mine == NULL || m->theirs == NULL || tsr_mpi_requests_open(&m->greetings) != TSR_OK) {
        meeting_free(m);
        return TSR_ERR_MEMORY;
    }
    *ret_meeting = m;
    return TSR_OK;
}

void tsr_mpi_meeting_close(tsr_mpi_meeting *m)
{
    if (m != NULL && !tsr_mpi_is_pending(m->greetings))
        meeting_free(m);
}

tsr_status tsr_mpi_greet(tsr_mpi_world *w, tsr_mpi_meeting *m, const tsr_call *call,
                         const int32_t *row_first)
{
    tsr_status st = tsr_mpi_listen(w);
    m->number = tsr_mpi_requests_greet(w, m->greetings);
    for (int32_t r = 0; r < w->base.size && st == TSR_OK; r++) {
        const int32_t rows = row_first != NULL ? row_first[r + 1] - row_first[r] : 0;
        m->mine[r] = (tsr_mpi_greeting){.call = *call, .rows = rows};
        if (r == w->base.rank) {
            m->theirs[r] = m->mine[r];
            continue;
        }
        const tsr_mpi_message to = {r, TSR_MPI_GREETING, sizeof(tsr_mpi_greeting), &m->mine[r],
                                    NULL};
        const tsr_mpi_message from = {r, TSR_MPI_GREETING, sizeof(tsr_mpi_greeting), NULL,
                                      &m->theirs[r]};
        st = tsr_mpi_start(w, m->greetings, &from);
        if (st == TSR_OK)
            st = tsr_mpi_start(w, m->greetings, &to);
    }
    return st;
}

tsr_status tsr_mpi_meet(tsr_mpi_world *w, tsr_mpi_meeting *m, const tsr_call *call,
                        int64_t deadline)
{
    const tsr_status st = tsr_mpi_finish(w, m->greetings, call, deadline);
    if (st != TSR_OK)
        return st;
    for (int32_t r = 0; r < w->base.size; r++) {
        if (tsr_call_equal(call, &m->theirs[r].call))
            continue;
        w->disagreed = m->number;
        return w->cause == TSR_OK ? tsr_call_mismatch(call, r, &m->theirs[r].call)
                                  : TSR_ERR_MISMATCH;
    }
    return w->cause == TSR_OK ? TSR_OK : TSR_ERR_PEER;
}

tsr_status tsr_mpi_pass(tsr_mpi_world *w, tsr_mpi_meeting *m, tsr_call call)
{
    const tsr_status st = tsr_mpi_greet(w, m, &call, NULL);
    return st == TSR_OK ? tsr_mpi_meet(w, m, &call, tsr_mpi_deadline(w)) : st;
}
