/*
 * What ranks of an MPI group tell each other beside their calls, whatever they wait in:
 *
 *   END    I have given up, for this cause          heard: every call ends with TSR_ERR_PEER
 *   ASK    are you there?                           heard: HERE
 *   HERE   yes, and I wait as well                  whoever does not say so is the one to name
 *   GONE   rank 0, after an end: all is written     heard: nobody waits for it any more
 *
 * Of a rank that hangs all others wait, but not at the same place, and mostly for each other: so each
 * asks before its deadline, and the first of those who are there names those who are not.
 */
#ifndef TSR_COMM_MPI_NOTES_H
#define TSR_COMM_MPI_NOTES_H

#include "comm/mpi_world.h"

typedef enum tsr_mpi_note_kind {
    TSR_NOTE_END,
    TSR_NOTE_ASK,
    TSR_NOTE_HERE,
    TSR_NOTE_GONE,
    TSR_NOTE_KINDS,
} tsr_mpi_note_kind;

/* No padding. */
typedef struct tsr_mpi_note {
    int32_t kind;
    int32_t rank;      /* who says so */
    int32_t cause;     /* END */
    int32_t root_lost; /* END: rank 0 is among those who did not come */
    int32_t waits;     /* HERE: in a call on the group, and does nothing else meanwhile */
    int32_t unused;
    uint64_t number; /* END: the meeting in which ranks were found to disagree, or 0; ASK, HERE: of
                          the question */
} tsr_mpi_note;

/* Of one wait. */
typedef struct tsr_mpi_wait {
    int64_t deadline;
    bool asked; /* who is there */
} tsr_mpi_wait;

/* mpi_world.c: starts a note to a peer, unless one of its kind is still on its way there. */
void tsr_mpi_say(tsr_mpi_world *w, int32_t peer, const tsr_mpi_note *words);

/* mpi_world.c: the next note, if there is one. TSR_ERR_PEER: MPI fails */
TSR_MUST_USE tsr_status tsr_mpi_next_note(tsr_mpi_world *w, tsr_mpi_note *ret_note, bool *ret_came);

/* mpi_world.c: whether notes can come already. */
bool tsr_mpi_hears(const tsr_mpi_world *w);

/* mpi_world.c: whether the process of rank 0 is known to have ended. Never waits. */
bool tsr_mpi_root_died(void);

void tsr_mpi_say_to_all(tsr_mpi_world *w, const tsr_mpi_note *words);

/* TSR_ERR_PEER when the group has ended, as far as this rank has heard by now. */
TSR_MUST_USE tsr_status tsr_mpi_listen(tsr_mpi_world *w);

/* The same for a rank at meeting number `meeting`, 0 for none: an end that is about that very
 * meeting need not be heard, for the greetings that show why are under way. */
TSR_MUST_USE tsr_status tsr_mpi_heed(tsr_mpi_world *w, uint64_t meeting);

/*
 * In a wait without news. TSR_OK: wait on
 *
 * TSR_ERR_TIMEOUT, logged; TSR_ERR_PEER; what the process was asked to end with
 */
TSR_MUST_USE tsr_status tsr_mpi_look_at_clock(tsr_mpi_world *w, const tsr_mpi_requests *list,
                                              const tsr_call *call, tsr_mpi_wait *wait);

/* The table's entries. */
void tsr_mpi_abort(tsr_comm *comm, tsr_status cause);
tsr_status tsr_mpi_cause(tsr_comm *comm);
int32_t tsr_mpi_ender(const tsr_comm *comm);
void tsr_mpi_stay_behind(tsr_comm *comm);

#endif
