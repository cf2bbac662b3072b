/* A row for each host and each pair, then the findings: what, why, and what mends it. */
#include "launch/doctor/doctor_report.h"

#include "launch/report/problem_list.h"
#include "runtime/plan/byte_count.h"

#include <string.h>

enum { MOST_PAIRS = 16, NETWORKS_BYTES = 256 };

static bool is_first_of_host(const tsr_doctor_facts *facts, int32_t rank)
{
    for (int32_t r = 0; r < rank; r++) {
        if (strcmp(facts->ranks[r].host, facts->ranks[rank].host) == 0)
            return false;
    }
    return true;
}

static double host_bandwidth(const tsr_doctor_facts *facts, const char *host)
{
    double sum = 0;

    for (int32_t r = 0; r < facts->rank_count; r++)
        sum += strcmp(facts->ranks[r].host, host) == 0 ? facts->ranks[r].read_bandwidth : 0;
    return sum;
}

static const char *amount(uint64_t bytes, char text[TSR_BYTE_COUNT_BYTES])
{
    return bytes == UINT64_MAX ? "no limit" : tsr_byte_count_text(bytes, text);
}

static void print_quota(const tsr_doctor_record *h, FILE *out)
{
    if (h->cpus.quota < INT32_MAX)
        (void)fprintf(out, ", time for %d", h->cpus.quota);
    if (h->cpus.bound != 0)
        (void)fprintf(out, ", bound to %d", h->cpus.cores);
    (void)fprintf(out, ", %d NUMA node%s\n", h->numa_nodes, h->numa_nodes == 1 ? "" : "s");
}

static void print_gpus(const tsr_doctor_record *h, FILE *out)
{
    (void)fputs("    GPUs          ", out);
    if (h->cards > 0)
        (void)fprintf(out, "%d, %s, NCCL %s; tessera bench comm measures their links\n", h->cards,
                      h->card_name, h->card_links != 0 ? "there" : "missing");
    else
        (void)fprintf(out, "none that this build can use%s\n",
                      h->driver != 0 ? ", though a driver of NVIDIA's runs" : "");
}

static void print_host(const tsr_doctor_facts *facts, const tsr_doctor_record *h, FILE *out)
{
    char text[TSR_BYTE_COUNT_BYTES];
    char other[TSR_BYTE_COUNT_BYTES];
    char networks[NETWORKS_BYTES];
    const double reads = host_bandwidth(facts, h->host);

    (void)fprintf(out, "\n  %s, %d rank%s\n", h->host, h->ranks_here, h->ranks_here > 1 ? "s" : "");
    (void)fprintf(out, "    program       tessera %s, %016llx; %s\n", h->version,
                  (unsigned long long)h->binary_digest, h->mpi_library);
    (void)fprintf(out, "    cores         %d", h->host_cores);
    print_quota(h, out);
    (void)fprintf(out, "    memory        %s may be used, of %s", amount(h->memory_allowed, text),
                  amount(h->memory_installed, other));
    if (reads > 0)
        (void)fprintf(out, ", read at %.1f GB/s", reads / 1e9);
    (void)fprintf(out, "; /dev/shm %s\n", amount(h->shared_memory, text));
    (void)fprintf(out, "    limits        ");
    if (h->open_files == UINT64_MAX)
        (void)fputs("open files no limit", out);
    else
        (void)fprintf(out, "open files %llu", (unsigned long long)h->open_files);
    (void)fprintf(out, ", locked memory %s, core files %s\n", amount(h->locked_bytes, text),
                  amount(h->core_bytes, other));
    tsr_host_networks_text(&h->networks, sizeof(networks), networks);
    (void)fprintf(out, "    networks      %s\n", networks[0] != '\0' ? networks : "none");
    print_gpus(h, out);
}

static void print_pairs(const tsr_doctor_facts *facts, FILE *out)
{
    if (facts->pair_count == 0)
        return;
    (void)fprintf(out, "\n  between ranks, over %s\n", facts->transport);
    for (int32_t i = 0; i < facts->pair_count && i < MOST_PAIRS; i++) {
        const tsr_doctor_pair *p = &facts->pairs[i];
        (void)fprintf(out, "    %4d - %-4d %9.1f us one way %9.2f GB/s\n", p->from, p->to,
                      p->latency_s * 1e6, p->bandwidth / 1e9);
    }
    if (facts->pair_count > MOST_PAIRS)
        (void)fprintf(out, "    and %d further pairs, which --json lists\n",
                      facts->pair_count - MOST_PAIRS);
}

static void print_findings(const tsr_doctor_findings *findings, FILE *out)
{
    if (findings->count == 0)
        (void)fputs("\nNothing is wrong.\n", out);
    for (int32_t i = 0; i < findings->count; i++) {
        const tsr_doctor_finding *f = &findings->of[i];
        (void)fprintf(out, "\n%s: %s\n    why   %s\n    do    %s\n",
                      f->status != TSR_OK ? "error" : "advice", f->what, f->why, f->mend);
    }
    if (findings->count > 0 && tsr_doctor_verdict(findings) == TSR_OK)
        (void)fputs("\nNothing here ends a job.\n", out);
}

/* null where there is no limit. */
static json_t *limit_json(uint64_t bytes)
{
    return bytes == UINT64_MAX ? json_null() : json_integer((json_int_t)bytes);
}

static json_t *host_json(const tsr_doctor_facts *facts, const tsr_doctor_record *h)
{
    char digest[24];
    char networks[NETWORKS_BYTES];

    (void)snprintf(digest, sizeof(digest), "%016llx", (unsigned long long)h->binary_digest);
    json_t *json =
        json_pack("{s:s, s:i, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:s, s:b, s:b, s:i, s:f}",
                  "host", h->host, "ranks", h->ranks_here, "version", h->version, "binary", digest,
                  "mpi_library", h->mpi_library, "cores", h->host_cores, "cores_allowed",
                  h->cpus.cores, "numa_nodes", h->numa_nodes, "numa_bound", h->numa_bound, "gpus",
                  h->cards, "gpu", h->card_name, "nvidia_driver", h->driver, "nccl", h->card_links,
                  "fast_links", h->fast_links, "read_bandwidth", host_bandwidth(facts, h->host));
    (void)json_object_set_new(
        json, "core_quota", h->cpus.quota < INT32_MAX ? json_integer(h->cpus.quota) : json_null());
    tsr_host_networks_text(&h->networks, sizeof(networks), networks);
    (void)json_object_set_new(json, "networks", json_string(networks));
    (void)json_object_set_new(json, "tcp_retries", json_integer(h->tcp_retries));
    (void)json_object_set_new(json, "memory_allowed", limit_json(h->memory_allowed));
    (void)json_object_set_new(json, "memory_installed", limit_json(h->memory_installed));
    (void)json_object_set_new(json, "shared_memory", limit_json(h->shared_memory));
    (void)json_object_set_new(json, "open_files", limit_json(h->open_files));
    (void)json_object_set_new(json, "locked_bytes", limit_json(h->locked_bytes));
    (void)json_object_set_new(json, "core_bytes", limit_json(h->core_bytes));
    return json;
}

static json_t *findings_json(const tsr_doctor_findings *findings)
{
    json_t *list = json_array();

    for (int32_t i = 0; i < findings->count; i++) {
        const tsr_doctor_finding *f = &findings->of[i];
        (void)json_array_append_new(list,
                                    json_pack("{s:s, s:s, s:s, s:s}", "severity",
                                              f->status != TSR_OK ? "error" : "advice", "what",
                                              f->what, "why", f->why, "mend", f->mend));
    }
    return list;
}

static tsr_status print_doctor_json(const tsr_doctor_facts *facts,
                                    const tsr_doctor_findings *findings, FILE *out)
{
    json_t *hosts = json_array();
    json_t *pairs = json_array();

    for (int32_t r = 0; r < facts->rank_count; r++) {
        if (is_first_of_host(facts, r))
            (void)json_array_append_new(hosts, host_json(facts, &facts->ranks[r]));
    }
    for (int32_t i = 0; i < facts->pair_count; i++) {
        const tsr_doctor_pair *p = &facts->pairs[i];
        (void)json_array_append_new(pairs, json_pack("{s:i, s:i, s:f, s:f}", "from", p->from, "to",
                                                     p->to, "latency_us", p->latency_s * 1e6,
                                                     "bandwidth", p->bandwidth));
    }
    return tsr_json_print(json_pack("{s:s, s:i, s:s, s:i, s:o, s:o, s:o}", "version",
                                    facts->ranks[0].version, "ranks", facts->rank_count,
                                    "transport", facts->transport, "exit_code",
                                    tsr_status_exit_code(tsr_doctor_verdict(findings)), "hosts",
                                    hosts, "pairs", pairs, "findings", findings_json(findings)),
                          out);
}

tsr_status tsr_doctor_report(const tsr_doctor_facts *facts, const tsr_doctor_findings *findings,
                             bool json, FILE *out)
{
    int32_t hosts = 0;

    if (json)
        return print_doctor_json(facts, findings, out);
    for (int32_t r = 0; r < facts->rank_count; r++)
        hosts += is_first_of_host(facts, r);
    (void)fprintf(out, "tessera %s: %d rank%s on %d host%s\n", facts->ranks[0].version,
                  facts->rank_count, facts->rank_count > 1 ? "s" : "", hosts, hosts > 1 ? "s" : "");
    for (int32_t r = 0; r < facts->rank_count; r++) {
        if (is_first_of_host(facts, r))
            print_host(facts, &facts->ranks[r], out);
    }
    print_pairs(facts, out);
    print_findings(findings, out);
    return tsr_print_end(out);
}
