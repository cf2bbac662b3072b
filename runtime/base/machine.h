/* What this process may use of its machine. In a container, a batch job or a service that is less
 * than the machine has. */
#ifndef TSR_RUNTIME_BASE_MACHINE_H
#define TSR_RUNTIME_BASE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Bytes of memory: what the machine has available, or the limit of the process's control group
 * (of either version) and of every group around it, whichever is least. 0 when the machine does not
 * say.
 *
 *   root  stands in front of /proc and /sys: "" for this machine
 */
uint64_t tsr_machine_memory(const char *root);

/* The NUMA node that a PCI device ("0000:17:00.0") is next to; -1 where the machine does not say. */
int32_t tsr_machine_numa_node(const char *root, const char *bus);

/* False: at most one NUMA node has cores, as far as the machine says. */
bool tsr_machine_has_nodes(const char *root);

/* How often TCP sends again before it gives a connection up; 0 where the machine does not say. */
int32_t tsr_machine_tcp_retries(const char *root);

/* What tells this machine, since it was started, from every other; "" where it does not say. */
void tsr_machine_boot(const char *root, size_t capacity, char *ret_text);

typedef struct tsr_machine_cpus {
    int32_t cores; /* this process may run on, at least 1 */
    int32_t quota; /* cores' worth of time that its control groups allow all processes in them,
                      rounded down; INT32_MAX: no limit */
    int32_t
        bound; /* nonzero: the machine has more cores: somebody has bound this process to its own */
} tsr_machine_cpus;

tsr_machine_cpus tsr_machine_cpus_read(const char *root);

/* Threads for each of `processes` on the machine, at least 1: a process that is bound owns its
 * cores, others share what there is, and all share the quota. */
int32_t tsr_machine_threads(const tsr_machine_cpus *cpus, int32_t processes);

#endif
