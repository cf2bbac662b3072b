/*
 * NCCL's side of one exchange: a communicator over the ranks of a group, and a window, which is
 * memory that every rank reaches in every other. The communicator does not block: every call is
 * followed by questions until it is through, the group has ended, or most of the deadline has
 * passed; the rest is for naming the ranks that have not come.
 *
 *   every rank   its card and shape --gather--> rank 0 --broadcast, with NCCL's id--> all judge
 *                comm_init --> allocate, zero, window_register --> barrier
 */
#ifndef TSR_COMM_NCCL_GROUP_H
#define TSR_COMM_NCCL_GROUP_H

#include "comm/call.h"
#include "comm/nccl_library.h"

#include <stdbool.h>
#include <stddef.h>

enum { TSR_NCCL_UUID_BYTES = 16 };

/* What ranks compare. It crosses the wire as it lies in memory. */
typedef struct tsr_nccl_card {
    tsr_call call; /* opening the exchange */
    int32_t version;
    int32_t may_share; /* this rank's GPU with another rank */
    unsigned char uuid[TSR_NCCL_UUID_BYTES];
} tsr_nccl_card;

/*
 * Whether these ranks can exchange rows.
 *
 * TSR_ERR_MISMATCH, logged  another shape, or another version of NCCL
 * TSR_ERR_DEVICE, logged    two ranks on one GPU, which nobody asked for or NCCL does not know
 */
TSR_MUST_USE tsr_status tsr_nccl_judge(const tsr_nccl_card *cards, int32_t ranks, int32_t rank);

typedef struct tsr_nccl_group {
    const tsr_nccl_library *library;
    tsr_comm *comm;
    ncclComm_t nccl;
    int64_t until_ms; /* its start and its window, together, or its end are given up then */
    void *memory;     /* of the window, NCCL's */
    ncclWindow_t window;
} tsr_nccl_group;

/*
 * Collective. Makes the communicator. On failure nothing is left.
 *
 * TSR_ERR_DEVICE, TSR_ERR_MISMATCH, TSR_ERR_TIMEOUT, TSR_ERR_PEER
 */
TSR_MUST_USE tsr_status tsr_nccl_group_open(tsr_comm *comm, const tsr_nccl_library *library,
                                            const tsr_nccl_card *card, tsr_nccl_group *ret_group);

/*
 * Collective. Takes the window; close the group whether it succeeds or not.
 *
 *   zero  fills device memory with zeros before anybody can reach it
 *
 * TSR_ERR_DEVICE  also when ranks do not reach each other's memory
 * TSR_ERR_TIMEOUT, TSR_ERR_PEER
 */
TSR_MUST_USE tsr_status tsr_nccl_group_window(tsr_nccl_group *group, size_t bytes,
                                              tsr_status (*zero)(void *memory, size_t bytes));

/* Nothing uses the window any more. Waits for peers within the deadline, and not for those of a
 * group that has ended. A zeroed group is allowed. */
void tsr_nccl_group_close(tsr_nccl_group *group);

#endif
