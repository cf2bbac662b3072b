/*
 * Two kinds of findings: those with which a job would end, each with the status that it would end
 * with, and those that cost it time or the person who runs it patience. The first kind is looked for
 * first, so that a list that is full has lost none of it.
 *
 * What is true of a machine is said once, by its first rank.
 */
#include "launch/doctor/doctor_findings.h"

#include "runtime/plan/byte_count.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { FILES_FLOOR = 256, FILES_OF_A_RANK = 16, SLOW = 10, PATIENT_RETRIES = 8 };

#define LOCKED_FLOOR    ((uint64_t)64 << 20)
#define SHARED_OF_RANK  ((uint64_t)16 << 20)
#define SLOW_LINK       1e9
#define LATENCY_OF_NOTE 50e-6

/* The place of the next finding, the last one's when there are too many. */
static tsr_doctor_finding *add(tsr_doctor_findings *list, tsr_status status, const char *why)
{
    if (list->count < TSR_DOCTOR_MOST_FINDINGS)
        list->count++;
    tsr_doctor_finding *f = &list->of[list->count - 1];
    *f = (tsr_doctor_finding){.status = status, .why = why};
    return f;
}

#define WHAT(finding, ...) (void)snprintf((finding)->what, sizeof((finding)->what), __VA_ARGS__)
#define MEND(finding, ...) (void)snprintf((finding)->mend, sizeof((finding)->mend), __VA_ARGS__)

static bool first_of_host(const tsr_doctor_facts *facts, int32_t rank)
{
    for (int32_t r = 0; r < rank; r++) {
        if (strcmp(facts->ranks[r].host, facts->ranks[rank].host) == 0)
            return false;
    }
    return true;
}

static void judge_size(const tsr_doctor_facts *facts, tsr_doctor_findings *list)
{
    if (facts->expected_ranks == 0 || facts->expected_ranks == facts->rank_count)
        return;
    tsr_doctor_finding *f = add(
        list, TSR_ERR_INIT,
        "each rank holds experts: too few of them have no room, or are not the job that was meant");
    WHAT(f, "the job has %d rank%s, not the %d of --expect-world-size", facts->rank_count,
         facts->rank_count > 1 ? "s" : "", facts->expected_ranks);
    MEND(f, "mpirun -n %d --hostfile FILE, each line of it HOST slots=N; or srun --mpi=pmix -n %d",
         facts->expected_ranks, facts->expected_ranks);
}

/* Each rank against rank 0. */
static void judge_programs(const tsr_doctor_facts *facts, tsr_doctor_findings *list)
{
    const tsr_doctor_record *zero = &facts->ranks[0];

    for (int32_t r = 1; r < facts->rank_count; r++) {
        const tsr_doctor_record *one = &facts->ranks[r];
        const bool other_program =
            strcmp(one->version, zero->version) != 0 || one->binary_digest != zero->binary_digest;
        if (other_program && first_of_host(facts, r)) {
            tsr_doctor_finding *f = add(list, TSR_ERR_MISMATCH,
                                        "two builds may mean different things by a plan or a step");
            WHAT(f, "rank %d on %s runs tessera %s (%016llx), rank 0 tessera %s (%016llx)", r,
                 one->host, one->version, (unsigned long long)one->binary_digest, zero->version,
                 (unsigned long long)zero->binary_digest);
            MEND(f, "copy the same program to %s, or start one from a folder that all hosts share",
                 one->host);
        }
        if (strcmp(one->mpi_library, zero->mpi_library) != 0 && first_of_host(facts, r)) {
            tsr_doctor_finding *f =
                add(list, TSR_ERR_MISMATCH, "different MPI libraries hang or fail when they talk");
            WHAT(f, "rank %d on %s has %s, rank 0 %s", r, one->host, one->mpi_library,
                 zero->mpi_library);
            MEND(f,
                 "install the same MPI on every host; mpirun -x LD_LIBRARY_PATH passes its path");
        }
    }
}

static void judge_files(const tsr_doctor_facts *facts, const tsr_doctor_record *one,
                        tsr_doctor_findings *list)
{
    const uint64_t wanted = FILES_FLOOR + (uint64_t)facts->rank_count * FILES_OF_A_RANK;

    if (one->open_files >= wanted)
        return;
    tsr_doctor_finding *f =
        add(list, TSR_ERR_MEMORY, "every file of a checkpoint and every rank takes some of them");
    WHAT(f, "%s: a process may have %llu files open, at least %llu are needed", one->host,
         (unsigned long long)one->open_files, (unsigned long long)wanted);
    MEND(f, "ulimit -n 65536; docker run --ulimit nofile=65536; LimitNOFILE=65536 in a service");
}

static void judge_cores(const tsr_doctor_record *one, tsr_doctor_findings *list)
{
    const int32_t allowed = one->cpus.quota < one->host_cores ? one->cpus.quota : one->host_cores;

    if (one->ranks_here > allowed) {
        tsr_doctor_finding *f =
            add(list, TSR_OK, "a rank that waits for another keeps it from its core");
        WHAT(f, "%s: %d ranks share %d cores", one->host, one->ranks_here, allowed);
        MEND(f, "start at most %d ranks here, or let them compute on GPUs",
             allowed > 0 ? allowed : 1);
    }
    if (one->cpus.quota < one->cpus.cores) {
        tsr_doctor_finding *f =
            add(list, TSR_OK, "a process over its quota stands still, and all ranks wait for it");
        WHAT(f, "%s: control groups allow %d cores' worth of time on %d cores", one->host,
             one->cpus.quota, one->cpus.cores);
        MEND(f, "docker run --cpus=%d; resources.limits.cpu of a pod", one->cpus.cores);
    }
    if (one->cpus.bound != 0 && one->ranks_here * one->cpus.cores < allowed) {
        tsr_doctor_finding *f = add(list, TSR_OK, "the other cores do nothing");
        WHAT(f, "%s: %d rank%s bound to %d core%s each, of %d", one->host, one->ranks_here,
             one->ranks_here > 1 ? "s" : "", one->cpus.cores, one->cpus.cores > 1 ? "s" : "",
             one->host_cores);
        MEND(f, "mpirun --bind-to none; srun --cpus-per-task=%d",
             one->host_cores / one->ranks_here);
    }
    if (one->numa_bound > 1 && one->ranks_here > 1) {
        tsr_doctor_finding *f =
            add(list, TSR_OK, "weights are then read over the links between sockets");
        WHAT(f, "%s: ranks run on all of %d NUMA nodes", one->host, one->numa_bound);
        MEND(f, "mpirun --map-by numa --bind-to numa");
    }
}

static void judge_memory(const tsr_doctor_record *one, tsr_doctor_findings *list)
{
    char text[TSR_BYTE_COUNT_BYTES];

    if (one->shared_memory < SHARED_OF_RANK * (uint64_t)one->ranks_here && one->ranks_here > 1) {
        tsr_doctor_finding *f =
            add(list, TSR_OK, "ranks of a machine, and NCCL, exchange through it");
        WHAT(f, "%s: /dev/shm has %s free for %d ranks", one->host,
             tsr_byte_count_text(one->shared_memory, text), one->ranks_here);
        MEND(f,
             "docker run --shm-size=1g; an emptyDir of medium Memory on /dev/shm in a pod; remove "
             "what jobs that were killed have left there");
    }
    if (one->locked_bytes < LOCKED_FLOOR && (one->fast_links > 0 || one->driver != 0)) {
        tsr_doctor_finding *f =
            add(list, TSR_OK, "network cards and NCCL move rows out of locked memory only");
        WHAT(f, "%s: a process may lock %s", one->host,
             tsr_byte_count_text(one->locked_bytes, text));
        MEND(f, "ulimit -l unlimited; docker run --ulimit memlock=-1 --cap-add IPC_LOCK");
    }
}

static void judge_cards(const tsr_doctor_facts *facts, const tsr_doctor_record *one,
                        tsr_doctor_findings *list)
{
    if (one->driver != 0 && one->cards == 0) {
        tsr_doctor_finding *f = add(list, TSR_OK, "ranks here compute on the CPU");
        WHAT(f, "%s: a driver of NVIDIA's runs, but no GPU can be used", one->host);
        MEND(f, "build with a CUDA toolkit (-DTSR_CUDA=ON); docker run --gpus all; check "
                "CUDA_VISIBLE_DEVICES and nvidia-smi");
    }
    if (one->cards > 0 && one->ranks_here > one->cards * facts->ranks_per_card) {
        tsr_doctor_finding *f = add(list, TSR_OK, "with --backend auto all ranks compute on CPUs");
        WHAT(f, "%s: %d ranks, %d GPU%s", one->host, one->ranks_here, one->cards,
             one->cards > 1 ? "s" : "");
        MEND(f, "start as many ranks here as there are GPUs, or allow more with --ranks-per-gpu");
    }
    if (one->cards > 0 && one->card_links == 0 && facts->rank_count > 1) {
        tsr_doctor_finding *f = add(list, TSR_OK, "rows cannot travel between GPUs");
        WHAT(f, "%s: NCCL is not there, or was not when this program was built", one->host);
        MEND(f, "install libnccl2, and libnccl-dev to build");
    }
}

/* A host whose link is gone neither answers nor refuses. */
static void judge_patience(const tsr_doctor_facts *facts, tsr_doctor_findings *list)
{
    const tsr_doctor_record *zero = &facts->ranks[0];
    bool several = false;

    for (int32_t r = 1; r < facts->rank_count; r++)
        several = several || strcmp(facts->ranks[r].host, zero->host) != 0;
    if (!several || zero->tcp_retries <= PATIENT_RETRIES)
        return;
    tsr_doctor_finding *f =
        add(list, TSR_OK,
            "when a host's link fails, mpirun waits so long for it, though all ranks have ended");
    WHAT(f, "%s: TCP sends %d times, for a quarter of an hour, before it gives a host up",
         zero->host, zero->tcp_retries);
    MEND(f, "sysctl -w net.ipv4.tcp_retries2=5 on every host; srun and tessera serve --ranks need "
            "it not");
}

/* Said once: what is true of two hosts is true of all that have the same software. */
static void judge_networks(const tsr_doctor_facts *facts, tsr_doctor_findings *list)
{
    const tsr_doctor_record *zero = &facts->ranks[0];

    for (int32_t r = 1; r < facts->rank_count && !facts->network_named; r++) {
        const tsr_doctor_record *one = &facts->ranks[r];
        const tsr_host_network *both = tsr_host_networks_clash(&zero->networks, &one->networks);
        if (both == NULL || strcmp(zero->host, one->host) == 0)
            continue;
        tsr_doctor_finding *f =
            add(list, TSR_OK, "MPI or NCCL may try to meet there, each on its own host, and hang");
        WHAT(f, "%s and %s both have the address %s (%s)", zero->host, one->host, both->address,
             both->name);
        MEND(f, "name the network between the hosts: mpirun --mca btl_tcp_if_include NAME --mca "
                "oob_tcp_if_include NAME -x NCCL_SOCKET_IFNAME=NAME");
        return;
    }
}

static double median_latency(const tsr_doctor_facts *facts)
{
    double least_of_half = 0;
    int32_t most = -1;

    for (int32_t i = 0; i < facts->pair_count; i++) {
        int32_t below = 0;
        for (int32_t o = 0; o < facts->pair_count; o++)
            below += facts->pairs[o].latency_s < facts->pairs[i].latency_s;
        if (below <= facts->pair_count / 2 && below > most) {
            most = below;
            least_of_half = facts->pairs[i].latency_s;
        }
    }
    return least_of_half;
}

static void judge_pair(const tsr_doctor_facts *facts, const tsr_doctor_pair *p, double median,
                       tsr_doctor_findings *list)
{
    const char *from = facts->ranks[p->from].host;
    const char *to = facts->ranks[p->to].host;

    if (strcmp(from, to) == 0)
        return;
    if (p->bandwidth < SLOW_LINK) {
        tsr_doctor_finding *f = add(list, TSR_OK, "every token's rows cross it in every layer");
        WHAT(f, "ranks %d and %d, %s and %s: %.2f GB/s between them", p->from, p->to, from, to,
             p->bandwidth / 1e9);
        MEND(f, "name the fast interface: mpirun --mca btl_tcp_if_include IFACE; with InfiniBand "
                "--mca pml ucx; check the cable's speed with ethtool");
    }
    if (p->latency_s > LATENCY_OF_NOTE && p->latency_s > SLOW * median) {
        tsr_doctor_finding *f = add(list, TSR_OK, "all ranks wait for the slowest in every layer");
        WHAT(f, "ranks %d and %d, %s and %s: %.0f us one way, the median is %.0f us", p->from,
             p->to, from, to, p->latency_s * 1e6, median * 1e6);
        MEND(f, "see what else runs on these hosts, and which way their packets take");
    }
}

void tsr_doctor_judge(const tsr_doctor_facts *facts, tsr_doctor_findings *ret_findings)
{
    ret_findings->count = 0;
    judge_size(facts, ret_findings);
    judge_programs(facts, ret_findings);
    for (int32_t r = 0; r < facts->rank_count; r++) {
        if (first_of_host(facts, r))
            judge_files(facts, &facts->ranks[r], ret_findings);
    }
    for (int32_t r = 0; r < facts->rank_count; r++) {
        if (!first_of_host(facts, r))
            continue;
        judge_cores(&facts->ranks[r], ret_findings);
        judge_memory(&facts->ranks[r], ret_findings);
        judge_cards(facts, &facts->ranks[r], ret_findings);
    }
    judge_networks(facts, ret_findings);
    judge_patience(facts, ret_findings);
    const double median = median_latency(facts);
    for (int32_t i = 0; i < facts->pair_count; i++)
        judge_pair(facts, &facts->pairs[i], median, ret_findings);
}

tsr_status tsr_doctor_verdict(const tsr_doctor_findings *findings)
{
    for (int32_t i = 0; i < findings->count; i++) {
        if (findings->of[i].status != TSR_OK)
            return findings->of[i].status;
    }
    return TSR_OK;
}
