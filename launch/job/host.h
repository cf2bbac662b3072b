/* What each rank's machine has, divided among the ranks on it: cores, memory, GPUs. */
#ifndef TSR_LAUNCH_JOB_HOST_H
#define TSR_LAUNCH_JOB_HOST_H

#include "comm/comm.h"
#include "launch/job/host_record.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tsr_host_share {
    int32_t ranks_here;    /* ranks of the job on this rank's machine */
    int32_t local_rank;    /* among them, in the order of the job's ranks */
    int32_t cores;         /* of this machine, for all of them; bound: this process's own */
    int32_t threads;       /* cores of this machine for each of them, at least 1 */
    uint64_t memory_bytes; /* available memory for each of them; 0 when the machine does not say */
    int32_t card;          /* this rank's GPU, as its process counts them */
    int32_t card_ranks;    /* ranks of the job on that GPU; 0: this rank has none */
    int32_t card_node;     /* NUMA node that the GPU is next to; -1: none, or not known */
    bool bound;            /* a launcher has given this process cores of its own */
} tsr_host_share;

/* All machines of a job, as every one of its ranks knows them. */
typedef struct tsr_hosts tsr_hosts;

/*
 * Collective. Close it with tsr_hosts_close.
 *
 *   cards  false: GPUs are not looked for, and nobody has one
 *
 * TSR_ERR_MISMATCH, logged: a rank is another version of the program
 */
TSR_MUST_USE tsr_status tsr_hosts_open(tsr_comm *comm, bool cards, tsr_hosts **ret_hosts);

tsr_host_share tsr_hosts_share(const tsr_hosts *hosts, int32_t rank);

/* The same of all: the smallest memory and thread count, `ranks_here` all ranks, and the most ranks
 * on one GPU, or 0 where a rank has none. */
tsr_host_share tsr_hosts_smallest(const tsr_hosts *hosts);

/* Who meets on a GPU, for one line; "" where nobody does. */
const char *tsr_hosts_crowd(const tsr_hosts *hosts);

/*
 * On several machines: logs which ranks are where and how these machines are called in which
 * networks; warns of an address that several have.
 *
 *   mpi_network, nccl_network  which network each was told to use; NULL: none
 */
void tsr_hosts_say(const tsr_hosts *hosts, const char *mpi_network, const char *nccl_network);

void tsr_hosts_close(tsr_hosts *hosts);

#endif
