/*
 * What a rank may use of its machine. Only all ranks together know how many share one:
 *
 *   every rank: its record --gather--> rank 0 --broadcast--> all divide alike
 */
#include "launch/job/host.h"

#include "runtime/base/log.h"
#include "runtime/base/sizes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NETWORKS_BYTES = 256, RANKS_BYTES = 160, NUMBER_BYTES = 24 };

struct tsr_hosts {
    tsr_host_record *records; /* [ranks] */
    int32_t ranks;
    char crowd[TSR_HOST_CROWD_BYTES];
};

/* Ranks that a launcher has bound own their cores; the others of a machine share what there is. */
tsr_host_share tsr_hosts_share(const tsr_hosts *hosts, int32_t rank)
{
    const tsr_host_record *record = &hosts->records[rank];
    int32_t here = 1;
    int32_t before = 0;

    for (int32_t o = 0; o < hosts->ranks; o++) {
        const bool same = o != rank && tsr_host_record_same(record, &hosts->records[o]);
        here += same;
        before += same && o < rank;
    }
    return (tsr_host_share){
        .ranks_here = here,
        .local_rank = before,
        .cores = tsr_machine_threads(&record->cpus, 1),
        .threads = tsr_machine_threads(&record->cpus, here),
        .memory_bytes = record->available_bytes / (uint64_t)here,
        .card = record->card,
        .card_ranks = tsr_host_card_ranks(hosts->records, hosts->ranks, rank),
        .card_node = record->card_count > 0 ? record->cards[record->card].node : -1,
        .bound = record->cpus.bound != 0,
    };
}

tsr_host_share tsr_hosts_smallest(const tsr_hosts *hosts)
{
    tsr_host_share smallest = tsr_hosts_share(hosts, 0);
    bool everywhere = true;

    smallest.ranks_here = hosts->ranks;
    for (int32_t r = 0; r < hosts->ranks; r++) {
        const tsr_host_share s = tsr_hosts_share(hosts, r);
        smallest.threads = tsr_smaller(smallest.threads, s.threads);
        if (smallest.memory_bytes == 0 || s.memory_bytes < smallest.memory_bytes)
            smallest.memory_bytes = s.memory_bytes;
        smallest.card_ranks = tsr_larger(smallest.card_ranks, s.card_ranks);
        everywhere = everywhere && s.card_ranks > 0;
    }
    if (!everywhere)
        smallest.card_ranks = 0;
    return smallest;
}

const char *tsr_hosts_crowd(const tsr_hosts *hosts)
{
    return hosts->crowd;
}

static bool is_first_of_host(const tsr_hosts *hosts, int32_t rank)
{
    for (int32_t r = 0; r < rank; r++) {
        if (tsr_host_record_same(&hosts->records[r], &hosts->records[rank]))
            return false;
    }
    return true;
}

/* "0-3, 8-11" */
static void ranks_text(const tsr_hosts *hosts, int32_t rank, char ret_text[RANKS_BYTES])
{
    size_t used = 0;

    ret_text[0] = '\0';
    for (int32_t r = rank; r < hosts->ranks && used < RANKS_BYTES;) {
        int32_t end = r;
        while (end < hosts->ranks &&
               tsr_host_record_same(&hosts->records[rank], &hosts->records[end]))
            end++;
        char last[NUMBER_BYTES] = "";
        if (end > r + 1)
            (void)snprintf(last, sizeof(last), "-%d", end - 1);
        if (end > r)
            used += (size_t)snprintf(ret_text + used, RANKS_BYTES - used, "%s%d%s",
                                     used > 0 ? ", " : "", r, last);
        r = tsr_larger(end, r + 1);
    }
}

static void warn_of_clash(const tsr_hosts *hosts, const char *mpi_network, const char *nccl_network)
{
    const tsr_host_network *network = NULL;
    int32_t ranks[2];
    const bool told =
        mpi_network != NULL && (nccl_network != NULL || tsr_hosts_smallest(hosts).card_ranks == 0);

    if (told || !tsr_host_clash(hosts->records, hosts->ranks, ranks, &network))
        return;
    tsr_log(TSR_LOG_WARN,
            "hosts %s and %s both have the address %s (%s): MPI or NCCL may try to meet there and "
            "hang; name the network between them: mpirun --mca btl_tcp_if_include NAME --mca "
            "oob_tcp_if_include NAME -x NCCL_SOCKET_IFNAME=NAME",
            hosts->records[ranks[0]].name, hosts->records[ranks[1]].name, network->address,
            network->name);
}

void tsr_hosts_say(const tsr_hosts *hosts, const char *mpi_network, const char *nccl_network)
{
    char networks[NETWORKS_BYTES];
    char ranks[RANKS_BYTES];
    int32_t count = 0;

    for (int32_t r = 0; r < hosts->ranks; r++)
        count += is_first_of_host(hosts, r);
    for (int32_t r = 0; r < hosts->ranks && count > 1; r++) {
        if (!is_first_of_host(hosts, r))
            continue;
        ranks_text(hosts, r, ranks);
        tsr_host_networks_text(&hosts->records[r].networks, sizeof(networks), networks);
        tsr_log(TSR_LOG_INFO, "host %s: ranks %s; networks: %s", hosts->records[r].name, ranks,
                networks[0] != '\0' ? networks : "none");
    }
    if (count > 1 && mpi_network != NULL)
        tsr_log(TSR_LOG_INFO, "between hosts MPI was told to use %s", mpi_network);
    if (count > 1 && nccl_network != NULL)
        tsr_log(TSR_LOG_INFO, "between hosts NCCL was told to use %s", nccl_network);
    if (count > 1)
        warn_of_clash(hosts, mpi_network, nccl_network);
}

/* What one version means by a plan or a step another may not. Every rank finds the same; rank 0 says
 * so before the others have what they find it in. */
static tsr_status compare_versions(const tsr_hosts *hosts, bool say)
{
    const tsr_host_record *records = hosts->records;

    for (int32_t r = 1; r < hosts->ranks; r++) {
        if (strncmp(records[r].version, records[0].version, TSR_HOST_VERSION_BYTES) == 0)
            continue;
        if (say)
            tsr_log(TSR_LOG_ERROR,
                    "rank %d on %.*s runs tessera %.*s, rank 0 tessera %s: start the same on every "
                    "host",
                    r, TSR_HOST_NAME_BYTES, records[r].name, TSR_HOST_VERSION_BYTES,
                    records[r].version, records[0].version);
        return TSR_ERR_MISMATCH;
    }
    return TSR_OK;
}

static tsr_status share_records(tsr_comm *comm, bool cards, tsr_hosts *hosts)
{
    const tsr_host_record own = tsr_host_record_read(cards);
    size_t *bytes_of = calloc((size_t)hosts->ranks, sizeof(*bytes_of));
    if (bytes_of == NULL)
        return TSR_ERR_MEMORY;

    for (int32_t r = 0; r < hosts->ranks; r++)
        bytes_of[r] = sizeof(own);
    tsr_status st = tsr_comm_gather(comm, 0, &own, bytes_of, hosts->records);
    if (st == TSR_OK && tsr_comm_rank(comm) == 0)
        (void)compare_versions(hosts, true);
    if (st == TSR_OK)
        st = tsr_comm_broadcast(comm, 0, hosts->records, (size_t)hosts->ranks * sizeof(own));
    free(bytes_of);
    return st == TSR_OK ? compare_versions(hosts, false) : st;
}

tsr_status tsr_hosts_open(tsr_comm *comm, bool cards, tsr_hosts **ret_hosts)
{
    tsr_hosts *hosts = calloc(1, sizeof(*hosts));
    if (hosts == NULL)
        return TSR_ERR_MEMORY;
    hosts->ranks = tsr_comm_size(comm);
    hosts->records = calloc((size_t)hosts->ranks, sizeof(*hosts->records));
    const tsr_status st =
        hosts->records != NULL ? share_records(comm, cards, hosts) : TSR_ERR_MEMORY;
    if (st != TSR_OK) {
        tsr_hosts_close(hosts);
        return st;
    }
    tsr_host_deal_cards(hosts->records, hosts->ranks);
    tsr_host_crowd(hosts->records, hosts->ranks, hosts->crowd);
    *ret_hosts = hosts;
    return TSR_OK;
}

void tsr_hosts_close(tsr_hosts *hosts)
{
    if (hosts == NULL)
        return;
    free(hosts->records);
    free(hosts);
}
