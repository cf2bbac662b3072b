/*
 * What a rank may use of its machine. Only all ranks together know how many share one:
 *
 *   every rank: name, memory, cores --gather--> rank 0 divides by name --broadcast--> its share
 *
 * By host name, not by MPI's own grouping, so that threads and processes are divided alike.
 */
#include "launch/host.h"

#include "runtime/base/machine.h"
#include "runtime/base/sizes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 256 };

typedef struct host_record {
    char name[NAME_BYTES];
    uint64_t available_bytes;
    int32_t cores; /* this process may run on */
    int32_t bound; /* nonzero: fewer than the machine has, so the launcher has bound us */
    tsr_host_share share;
} host_record;

static host_record read_record(void)
{
    host_record record = {.available_bytes = tsr_machine_memory("")};
    bool bound = false;

    if (gethostname(record.name, sizeof(record.name) - 1) != 0)
        record.name[0] = '\0';
    record.cores = tsr_machine_cores(&bound);
    record.bound = bound;
    return record;
}

/* Ranks that a launcher has bound own their cores; the others of a machine share what there is. */
static void divide(host_record *records, int32_t ranks, tsr_host_share *smallest)
{
    *smallest = (tsr_host_share){.ranks_here = ranks, .threads = INT32_MAX, .memory_bytes = 0};
    for (int32_t r = 0; r < ranks; r++) {
        host_record *record = &records[r];
        int32_t here = 0;
        for (int32_t o = 0; o < ranks; o++)
            here += strcmp(record->name, records[o].name) == 0;

        const int32_t threads = record->bound ? record->cores : record->cores / here;
        record->share = (tsr_host_share){
            .ranks_here = here,
            .threads = tsr_larger(threads, 1),
            .memory_bytes = record->available_bytes / (uint64_t)here,
        };
        smallest->threads = tsr_smaller(smallest->threads, record->share.threads);
        if (smallest->memory_bytes == 0 || record->share.memory_bytes < smallest->memory_bytes)
            smallest->memory_bytes = record->share.memory_bytes;
    }
}

tsr_status tsr_host_share_read(tsr_comm *comm, tsr_host_share *ret_share,
                               tsr_host_share *ret_smallest)
{
    const int32_t ranks = tsr_comm_size(comm);
    const host_record own = read_record();
    tsr_host_share smallest = {0};

    host_record *records = calloc((size_t)ranks, sizeof(*records));
    size_t *bytes_of = calloc((size_t)ranks, sizeof(*bytes_of));
    tsr_status st = records != NULL && bytes_of != NULL ? TSR_OK : TSR_ERR_MEMORY;
    for (int32_t r = 0; r < ranks && st == TSR_OK; r++)
        bytes_of[r] = sizeof(*records);

    if (st == TSR_OK)
        st = tsr_comm_gather(comm, 0, &own, bytes_of, records);
    if (st == TSR_OK && tsr_comm_rank(comm) == 0)
        divide(records, ranks, &smallest);
    if (st == TSR_OK)
        st = tsr_comm_broadcast(comm, 0, records, (size_t)ranks * sizeof(*records));
    if (st == TSR_OK) {
        *ret_share = records[tsr_comm_rank(comm)].share;
        if (ret_smallest != NULL)
            *ret_smallest = smallest;
    }
    free(bytes_of);
    free(records);
    return st;
}
