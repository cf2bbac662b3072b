/*
 * What a rank may use of its machine. Only all ranks together know how many share one:
 *
 *   every rank: name, memory, cores, GPUs --gather--> rank 0 --broadcast--> all divide by name
 *
 * By host name, not by MPI's own grouping, so that threads and processes are divided alike. The
 * ranks of a machine take its GPUs in turn; a process that was given one of its own sees no other.
 */
#include "launch/host.h"

#include "kernels/device.h"
#include "runtime/base/log.h"
#include "runtime/base/machine.h"
#include "runtime/base/sizes.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VERSION_BYTES = 32, NAME_BYTES = 256, MOST_CARDS = 16 };

typedef struct host_record {
    char version[VERSION_BYTES];
    char name[NAME_BYTES];
    uint64_t available_bytes;
    tsr_machine_cpus cpus;
    int32_t cards; /* GPUs that this process sees */
    int32_t card;  /* the one it takes, once all are known */
    unsigned char card_id[MOST_CARDS][TSR_CARD_ID_BYTES];
} host_record;

/* GPUs behind one that cannot be asked are left out. */
static void read_cards(host_record *record)
{
    const int32_t cards = tsr_smaller(tsr_cuda_cards(), MOST_CARDS);

    while (record->cards < cards &&
           tsr_cuda_card_id(record->cards, record->card_id[record->cards]) == TSR_OK)
        record->cards++;
}

static host_record read_record(bool cards)
{
    host_record record = {.version = TSR_VERSION,
                          .available_bytes = tsr_machine_memory(""),
                          .cpus = tsr_machine_cpus_read("")};

    if (gethostname(record.name, sizeof(record.name) - 1) != 0)
        record.name[0] = '\0';
    if (cards)
        read_cards(&record);
    return record;
}

/* Each rank's GPU: its machine's in turn. */
static void deal_cards(host_record *records, int32_t ranks)
{
    for (int32_t r = 0; r < ranks; r++) {
        int32_t before = 0;
        for (int32_t o = 0; o < r; o++)
            before += strcmp(records[r].name, records[o].name) == 0;
        if (records[r].cards > 0)
            records[r].card = before % records[r].cards;
    }
}

static bool on_one_card(const host_record *a, const host_record *b)
{
    return a->cards > 0 && b->cards > 0 &&
           memcmp(a->card_id[a->card], b->card_id[b->card], TSR_CARD_ID_BYTES) == 0;
}

/* Ranks that a launcher has bound own their cores; the others of a machine share what there is. */
static tsr_host_share share_of(const host_record *records, int32_t ranks, int32_t rank)
{
    const host_record *record = &records[rank];
    int32_t here = 1;
    int32_t on_card = record->cards > 0;

    for (int32_t o = 0; o < ranks; o++) {
        here += o != rank && strcmp(record->name, records[o].name) == 0;
        on_card += o != rank && on_one_card(record, &records[o]);
    }
    return (tsr_host_share){
        .ranks_here = here,
        .threads = tsr_machine_threads(&record->cpus, here),
        .memory_bytes = record->available_bytes / (uint64_t)here,
        .card = record->card,
        .card_ranks = on_card,
    };
}

static void divide(host_record *records, int32_t ranks, int32_t rank, tsr_host_share *share,
                   tsr_host_share *smallest)
{
    bool everywhere = true;

    deal_cards(records, ranks);
    *share = share_of(records, ranks, rank);
    *smallest = *share;
    smallest->ranks_here = ranks;
    for (int32_t r = 0; r < ranks; r++) {
        const tsr_host_share s = share_of(records, ranks, r);
        smallest->threads = tsr_smaller(smallest->threads, s.threads);
        if (smallest->memory_bytes == 0 || s.memory_bytes < smallest->memory_bytes)
            smallest->memory_bytes = s.memory_bytes;
        smallest->card_ranks = tsr_larger(smallest->card_ranks, s.card_ranks);
        everywhere = everywhere && s.card_ranks > 0;
    }
    if (!everywhere)
        smallest->card_ranks = 0;
}

/* What one version means by a plan or a step another may not. Every rank finds the same; rank 0 says
 * so before the others have what they find it in. */
static tsr_status compare_versions(const host_record *records, int32_t ranks, bool say)
{
    for (int32_t r = 1; r < ranks; r++) {
        if (strncmp(records[r].version, records[0].version, VERSION_BYTES) == 0)
            continue;
        if (say)
            tsr_log(TSR_LOG_ERROR,
                    "rank %d on %.*s runs tessera %.*s, rank 0 tessera %s: start the same on every "
                    "host",
                    r, NAME_BYTES, records[r].name, VERSION_BYTES, records[r].version,
                    records[0].version);
        return TSR_ERR_MISMATCH;
    }
    return TSR_OK;
}

tsr_status tsr_host_share_read(tsr_comm *comm, bool cards, tsr_host_share *ret_share,
                               tsr_host_share *ret_smallest)
{
    const int32_t ranks = tsr_comm_size(comm);
    const host_record own = read_record(cards);

    host_record *records = calloc((size_t)ranks, sizeof(*records));
    size_t *bytes_of = calloc((size_t)ranks, sizeof(*bytes_of));
    tsr_status st = records != NULL && bytes_of != NULL ? TSR_OK : TSR_ERR_MEMORY;
    for (int32_t r = 0; r < ranks && st == TSR_OK; r++)
        bytes_of[r] = sizeof(*records);

    if (st == TSR_OK)
        st = tsr_comm_gather(comm, 0, &own, bytes_of, records);
    if (st == TSR_OK && tsr_comm_rank(comm) == 0)
        (void)compare_versions(records, ranks, true);
    if (st == TSR_OK)
        st = tsr_comm_broadcast(comm, 0, records, (size_t)ranks * sizeof(*records));
    if (st == TSR_OK)
        st = compare_versions(records, ranks, false);
    if (st == TSR_OK)
        divide(records, ranks, tsr_comm_rank(comm), ret_share, ret_smallest);
    free(bytes_of);
    free(records);
    return st;
}
