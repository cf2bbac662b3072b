/*
 * The nodes of a machine are dealt to its ranks by their local rank, as whole nodes, so that threads
 * may still move to whichever of their cores is free:
 *
 *   2 nodes, 4 ranks   0 0 1 1          2 nodes, 3 ranks   0 (0 1) 1
 *   4 nodes, 2 ranks   (0 1) (2 3)      2 nodes, 1 rank    anywhere
 *
 * A rank that computes on a GPU goes to the node that the GPU is next to. A process that a launcher
 * has bound is left where it is: Slurm's cpusets, mpirun --bind-to and pods' cores are somebody's
 * decision. Memory is preferred from these nodes, not confined to them: a rank's share of the
 * machine's may be more than a node has.
 */
#include "launch/job/bind.h"

#include "runtime/base/log.h"
#include "runtime/base/machine.h"

#include <stdlib.h>

/* The next node with cores; NULL behind the last. Those that only have memory are nobody's place. */
static hwloc_obj_t next_place(hwloc_topology_t topology, hwloc_obj_t node)
{
    do
        node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node);
    while (node != NULL && hwloc_bitmap_iszero(node->cpuset));
    return node;
}

static int32_t count_places(hwloc_topology_t topology)
{
    hwloc_obj_t node = NULL;
    int32_t count = 0;

    while ((node = next_place(topology, node)) != NULL)
        count++;
    return count;
}

/* Adds the places from `first` on, up to and without `end`. */
static void add_places(hwloc_topology_t topology, int32_t first, int32_t end, hwloc_nodeset_t nodes)
{
    hwloc_obj_t node = NULL;

    for (int32_t at = 0; (node = next_place(topology, node)) != NULL; at++) {
        if (at >= first && at < end)
            (void)hwloc_bitmap_set(nodes, node->os_index);
    }
}

/* False: the GPU's node is not known, or has no core that this process may use. */
static bool find_card_node(hwloc_topology_t topology, const tsr_host_share *share,
                           hwloc_nodeset_t nodes)
{
    const hwloc_obj_t node =
        share->card_node >= 0
            ? hwloc_get_numanode_obj_by_os_index(topology, (unsigned)share->card_node)
            : NULL;

    if (node == NULL || hwloc_bitmap_iszero(node->cpuset))
        return false;
    return hwloc_bitmap_only(nodes, node->os_index) == 0;
}

bool tsr_bind_nodes(hwloc_topology_t topology, const tsr_host_share *share, bool on_card,
                    hwloc_nodeset_t ret_nodes)
{
    const int32_t places = count_places(topology);
    const int32_t ranks = share->ranks_here;
    const int32_t first = share->local_rank * places / ranks;
    const int32_t end = ((share->local_rank + 1) * places + ranks - 1) / ranks;

    if (places < 2 || share->bound)
        return false;
    if (on_card && find_card_node(topology, share, ret_nodes))
        return true;
    if (end - first == places)
        return false;
    hwloc_bitmap_zero(ret_nodes);
    add_places(topology, first, end, ret_nodes);
    return true;
}

static void bind_to(hwloc_topology_t topology, hwloc_const_nodeset_t nodes, int32_t local_rank)
{
    hwloc_cpuset_t cores = hwloc_bitmap_alloc();
    char *text = NULL;

    if (cores == NULL)
        return;
    const bool bound = hwloc_cpuset_from_nodeset(topology, cores, nodes) == 0 &&
                       hwloc_set_cpubind(topology, cores, HWLOC_CPUBIND_THREAD) == 0;
    /* containers may forbid it; a thread that is bound touches its pages on its own node first */
    (void)hwloc_set_membind(topology, nodes, HWLOC_MEMBIND_BIND,
                            HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
    if (bound && hwloc_bitmap_list_asprintf(&text, nodes) >= 0)
        tsr_log(TSR_LOG_INFO, "local rank %d runs on NUMA node %s, as nobody has bound it",
                local_rank, text);
    free(text);
    hwloc_bitmap_free(cores);
}

void tsr_bind_rank(const tsr_host_share *share, bool on_card)
{
    hwloc_topology_t topology = NULL;
    hwloc_nodeset_t nodes = hwloc_bitmap_alloc();

    /* asked first, for the whole topology takes tens of milliseconds */
    const bool anywhere =
        share->bound || (!on_card && share->ranks_here == 1) || !tsr_machine_has_nodes("");
    if (nodes != NULL && !anywhere && hwloc_topology_init(&topology) == 0) {
        /* It would look for X displays, which takes seconds where name lookups are slow. */
        (void)hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST,
                                            "gl");
        if (hwloc_topology_load(topology) == 0 && tsr_bind_nodes(topology, share, on_card, nodes))
            bind_to(topology, nodes, share->local_rank);
        hwloc_topology_destroy(topology);
    }
    hwloc_bitmap_free(nodes);
}
