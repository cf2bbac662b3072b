/* What each rank's machine has, divided among the ranks on it: cores, memory, GPUs. */
#ifndef TSR_LAUNCH_HOST_H
#define TSR_LAUNCH_HOST_H

#include "comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_host_share {
    int32_t ranks_here;    /* ranks of the job on this rank's machine */
    int32_t threads;       /* cores of this machine for each of them, at least 1 */
    uint64_t memory_bytes; /* available memory for each of them; 0 when the machine does not say */
    int32_t card;          /* this rank's GPU, as its process counts them */
    int32_t card_ranks;    /* ranks of the job on that GPU; 0: this rank has none */
} tsr_host_share;

/*
 * Collective. Each rank learns its own share, and the same of all: the smallest memory and thread
 * count, and the most ranks on one GPU, or 0 where a rank has none.
 *
 *   cards  false: GPUs are not looked for, and nobody has one
 *
 * TSR_ERR_MISMATCH, logged: a rank is another version of the program
 */
TSR_MUST_USE tsr_status tsr_host_share_read(tsr_comm *comm, bool cards, tsr_host_share *ret_share,
                                            tsr_host_share *ret_smallest);

#endif
