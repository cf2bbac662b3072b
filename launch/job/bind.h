/* Where a rank runs on a machine with several NUMA nodes: beside its GPU, or on its part of them. */
#ifndef TSR_LAUNCH_JOB_BIND_H
#define TSR_LAUNCH_JOB_BIND_H

#include "launch/job/host.h"

#include <hwloc.h>
#include <stdbool.h>

/*
 * The NUMA nodes of a rank, as hwloc counts them in a nodeset. False, and nothing written: it may run
 * anywhere, because there is one node only, its share is all of them, or a launcher has bound it.
 *
 *   on_card  the rank computes on its GPU
 */
bool tsr_bind_nodes(hwloc_topology_t topology, const tsr_host_share *share, bool on_card,
                    hwloc_nodeset_t ret_nodes);

/* Binds the calling thread, what it starts and what memory it touches first. What the machine does
 * not let be bound stays free. */
void tsr_bind_rank(const tsr_host_share *share, bool on_card);

#endif
