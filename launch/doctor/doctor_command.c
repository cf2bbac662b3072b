/*
 * All ranks together:
 *
 *   every rank   its record --gather--> rank 0 --broadcast--> ranks of each host
 *                reads its memory, all at once --gather-->
 *   r and r + 1  a message there and one back, pair after pair; the others stand at a barrier
 *   rank 0       judges, prints; every rank hears the verdict
 *
 * A gather in which one rank has bytes is a message from it to the root: nobody else waits.
 */
#include "launch/doctor/doctor_command.h"

#include "kernels/device.h"
#include "launch/doctor/doctor_report.h"
#include "launch/job/ranks.h"
#include "runtime/base/clock.h"
#include "runtime/base/sizes.h"

#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20, FEW_BYTES = 8, MANY_BYTES = 4 * MIB, MOST_TRIPS = 51, LARGE_TRIPS = 5 };

#define READ_BYTES ((uint64_t)512 * MIB)
#define READ_FLOOR ((uint64_t)64 * MIB)

typedef struct doctor {
    const tsr_config *config;
    FILE *out;
    bool processes; /* each rank has a context of its own */
    bool network_named;
    tsr_status verdict;
} doctor;

/* What one rank needs while it takes part. Ranks other than 0 have records too, and no pairs. */
typedef struct visit {
    tsr_comm *comm;
    int32_t ranks;
    int32_t rank;
    tsr_doctor_record *records; /* [ranks] */
    tsr_doctor_pair *pairs;     /* [ranks] */
    size_t *bytes_of;           /* [ranks] */
    unsigned char *bytes;       /* [MANY_BYTES] */
} visit;

static tsr_status share_records(const visit *v, const tsr_doctor_record *own)
{
    for (int32_t r = 0; r < v->ranks; r++)
        v->bytes_of[r] = sizeof(*own);
    tsr_status st = tsr_comm_gather(v->comm, 0, own, v->bytes_of, v->records);
    if (st == TSR_OK)
        st = tsr_comm_broadcast(v->comm, 0, v->records, (size_t)v->ranks * sizeof(*own));
    return st;
}

static int32_t ranks_on(const visit *v, const char *host)
{
    int32_t count = 0;

    for (int32_t r = 0; r < v->ranks; r++)
        count += strcmp(v->records[r].host, host) == 0;
    return tsr_larger(count, 1);
}

/* By as many threads as a job would use here. Without memory for it the record says 0. */
static void read_memory(tsr_doctor_record *own)
{
    const int32_t threads = tsr_machine_threads(&own->cpus, own->ranks_here);
    const uint64_t share = READ_BYTES / (uint64_t)own->ranks_here;
    tsr_device *device = NULL;

    if (tsr_device_open_cpu(threads, TSR_CPU_AUTO, &device) != TSR_OK)
        return;
    if (tsr_device_read_bandwidth(device, share > READ_FLOOR ? share : READ_FLOOR,
                                  &own->read_bandwidth) != TSR_OK)
        own->read_bandwidth = 0;
    tsr_device_close(device);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return (x > y) - (x < y);
}

static tsr_status send_bytes(const visit *v, int32_t from, int32_t to, size_t bytes)
{
    memset(v->bytes_of, 0, (size_t)v->ranks * sizeof(*v->bytes_of));
    v->bytes_of[from] = bytes;
    return tsr_comm_gather(v->comm, to, v->bytes, v->bytes_of, v->bytes);
}

/* There and back `trips` times; seconds one way, of the median. */
static tsr_status time_trips(const visit *v, const tsr_doctor_pair *pair, size_t bytes,
                             int32_t trips, double *ret_s)
{
    double seconds[MOST_TRIPS] = {0};
    tsr_status st = tsr_comm_barrier(v->comm);

    for (int32_t i = 0; i < trips && st == TSR_OK; i++) {
        const int64_t begin = tsr_clock_ns();
        st = send_bytes(v, pair->from, pair->to, bytes);
        if (st == TSR_OK)
            st = send_bytes(v, pair->to, pair->from, bytes);
        seconds[i] = (double)(tsr_clock_ns() - begin) / 1e9 / 2;
    }
    qsort(seconds, (size_t)trips, sizeof(seconds[0]), by_value);
    *ret_s = seconds[trips / 2];
    return st;
}

/* Times of the sender, which ends with an answer. */
static tsr_status time_pair(const visit *v, int32_t from, tsr_doctor_pair *ret_pair)
{
    const int32_t to = (from + 1) % v->ranks;
    tsr_doctor_pair pair = {.from = from, .to = to};
    double once = 0;

    tsr_status st = time_trips(v, &pair, FEW_BYTES, 2, &once); /* connects them */
    if (st == TSR_OK)
        st = time_trips(v, &pair, FEW_BYTES, MOST_TRIPS, &pair.latency_s);
    if (st == TSR_OK)
        st = time_trips(v, &pair, MANY_BYTES, LARGE_TRIPS, &once);
    pair.bandwidth = once > 0 ? MANY_BYTES / once : 0;
    if (st == TSR_OK && v->rank == from)
        *ret_pair = pair;
    return st;
}

/* Two ranks are one pair. */
static int32_t pairs_of(int32_t ranks)
{
    return ranks > 2 ? ranks : ranks - 1;
}

static tsr_status time_pairs(const visit *v)
{
    tsr_doctor_pair own = {0};
    tsr_status st = TSR_OK;

    for (int32_t from = 0; from < pairs_of(v->ranks) && st == TSR_OK; from++)
        st = time_pair(v, from, &own);
    for (int32_t r = 0; r < v->ranks; r++)
        v->bytes_of[r] = sizeof(own);
    return st == TSR_OK ? tsr_comm_gather(v->comm, 0, &own, v->bytes_of, v->pairs) : st;
}

static tsr_status examine(const visit *v)
{
    tsr_doctor_record own = tsr_doctor_record_read();

    tsr_status st = share_records(v, &own);
    if (st != TSR_OK)
        return st;
    own.ranks_here = ranks_on(v, own.host);
    st = tsr_comm_barrier(v->comm);
    if (st == TSR_OK) {
        read_memory(&own);
        st = share_records(v, &own);
    }
    return st == TSR_OK ? time_pairs(v) : st;
}

static tsr_status judge(const visit *v, const doctor *d, tsr_status *ret_verdict)
{
    const tsr_doctor_facts facts = {
        .ranks = v->records,
        .pairs = v->pairs,
        .rank_count = v->ranks,
        .pair_count = pairs_of(v->ranks),
        .expected_ranks = (int32_t)d->config->expect_world_size,
        .ranks_per_card = (int32_t)d->config->ranks_per_gpu,
        .transport = tsr_comm_name(v->comm),
        .network_named = d->network_named,
    };
    tsr_doctor_findings *findings = calloc(1, sizeof(*findings));

    if (findings == NULL)
        return TSR_ERR_MEMORY;
    tsr_doctor_judge(&facts, findings);
    const tsr_status st = tsr_doctor_report(&facts, findings, d->config->json, d->out);
    *ret_verdict = tsr_doctor_verdict(findings);
    free(findings);
    return st;
}

static tsr_status rank_main(tsr_comm *comm, void *context)
{
    doctor *d = context;
    const int32_t ranks = tsr_comm_size(comm);
    const visit v = {
        .comm = comm,
        .ranks = ranks,
        .rank = tsr_comm_rank(comm),
        .records = calloc((size_t)ranks, sizeof(tsr_doctor_record)),
        .pairs = calloc((size_t)ranks, sizeof(tsr_doctor_pair)),
        .bytes_of = calloc((size_t)ranks, sizeof(size_t)),
        .bytes = calloc(1, MANY_BYTES),
    };
    tsr_status verdict = TSR_OK;

    tsr_status st = v.records != NULL && v.pairs != NULL && v.bytes_of != NULL && v.bytes != NULL
                        ? examine(&v)
                        : TSR_ERR_MEMORY;
    if (st == TSR_OK && v.rank == 0)
        st = judge(&v, d, &verdict);
    if (st == TSR_OK)
        st = tsr_comm_broadcast(comm, 0, &verdict, sizeof(verdict));
    if (st == TSR_OK && (d->processes || v.rank == 0))
        d->verdict = verdict;
    free(v.bytes);
    free(v.bytes_of);
    free(v.pairs);
    free(v.records);
    return st;
}

tsr_status tsr_doctor_command(const tsr_config *config, const tsr_launch_info *info, FILE *out)
{
    doctor d = {.config = config,
                .out = out,
                .processes = info->mpi,
                .network_named = info->mpi_network != NULL};
    tsr_config any_size = *config; /* that there are too few is a finding among others */

    any_size.expect_world_size = 0;
    const tsr_status st = tsr_ranks_run(&any_size, info, rank_main, &d);
    return st == TSR_OK ? d.verdict : st;
}
