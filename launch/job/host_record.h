/* What one rank says of its machine, and what follows from all of these: plain sums over a table that
 * a test can make up. */
#ifndef TSR_LAUNCH_JOB_HOST_RECORD_H
#define TSR_LAUNCH_JOB_HOST_RECORD_H

#include "kernels/device.h"
#include "runtime/base/machine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TSR_HOST_VERSION_BYTES = 32,
    TSR_HOST_NAME_BYTES = 256,
    TSR_HOST_BOOT_BYTES = 40,
    TSR_HOST_CARDS = 16,
    TSR_HOST_NETWORKS = 8,
    TSR_HOST_CROWD_BYTES = 768,
};

typedef struct tsr_host_card {
    unsigned char id[TSR_CARD_ID_BYTES];
    int32_t node; /* NUMA node it is next to; -1: not known */
} tsr_host_card;

/* An interface that is up, and an address that it has. */
typedef struct tsr_host_network {
    char name[16];
    char address[48];
} tsr_host_network;

typedef struct tsr_host_networks {
    int32_t count;
    tsr_host_network of[TSR_HOST_NETWORKS];
} tsr_host_networks;

/* Sent between ranks as it is; texts end in a zero byte. */
typedef struct tsr_host_record {
    char version[TSR_HOST_VERSION_BYTES];
    char name[TSR_HOST_NAME_BYTES];
    char boot[TSR_HOST_BOOT_BYTES]; /* of the kernel: machines may bear the same name */
    uint64_t available_bytes;
    tsr_machine_cpus cpus;
    int32_t card_count;                  /* GPUs that this process sees */
    int32_t card;                        /* the one it takes, once all are known */
    tsr_host_card cards[TSR_HOST_CARDS]; /* [card_count] */
    tsr_host_networks networks;
} tsr_host_record;

/* Of this machine and process. */
tsr_host_record tsr_host_record_read(bool cards);

/* Whether two ranks share a machine, or a container's part of one. */
bool tsr_host_record_same(const tsr_host_record *a, const tsr_host_record *b);

/* Each rank's GPU: its machine's in turn. */
void tsr_host_deal_cards(tsr_host_record *records, int32_t ranks);

/* Ranks on the GPU of `rank`; 0: it has none. */
int32_t tsr_host_card_ranks(const tsr_host_record *records, int32_t ranks, int32_t rank);

/* Of the first GPU with the most ranks: two of them, their hosts, its id. "" where none has two. */
void tsr_host_crowd(const tsr_host_record *records, int32_t ranks,
                    char ret_text[TSR_HOST_CROWD_BYTES]);

/* An address that two machines have, which MPI or NCCL may try to meet at; false: there is none. */
bool tsr_host_clash(const tsr_host_record *records, int32_t ranks, int32_t ret_ranks[2],
                    const tsr_host_network **ret_network);

/* The first of `a` whose address `b` has too; NULL: there is none. */
const tsr_host_network *tsr_host_networks_clash(const tsr_host_networks *a,
                                                const tsr_host_networks *b);

/* "eth0 10.0.0.1, ib0 10.1.0.1" */
void tsr_host_networks_text(const tsr_host_networks *networks, size_t capacity, char *ret_text);

#endif
