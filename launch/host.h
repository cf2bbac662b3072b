/* What each rank's machine has, shared so that the coordinator can divide it among the ranks it
 * hosts. */
#ifndef TSR_LAUNCH_HOST_H
#define TSR_LAUNCH_HOST_H

#include "comm/comm.h"

#include <stdint.h>

typedef struct tsr_host_share {
    int32_t ranks_here;    /* ranks of the job on this rank's machine */
    int32_t threads;       /* cores of this machine for each of them, at least 1 */
    uint64_t memory_bytes; /* available memory for each of them; 0 when the machine does not say */
} tsr_host_share;

/*
 * Collective. Each rank learns its own share; rank 0's `ret_smallest` holds the smallest memory
 * and the smallest thread count of all ranks. Elsewhere it may be NULL.
 */
TSR_MUST_USE tsr_status tsr_host_share_read(tsr_comm *comm, tsr_host_share *ret_share,
                                            tsr_host_share *ret_smallest);

#endif
