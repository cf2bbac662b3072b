/* Looks at one machine. What cannot be found out is left empty: a doctor does not fail on what it is
 * there to look at. */
#include "launch/doctor/doctor_record.h"

#include "comm/comm.h"
#include "comm/exchange.h"
#include "kernels/device.h"
#include "launch/job/host_record.h"
#include "runtime/base/file_mark.h"

#include <dirent.h>
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

static uint64_t limit_of(__rlimit_resource_t which)
{
    struct rlimit limit;

    if (getrlimit(which, &limit) != 0)
        return 0;
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)limit.rlim_cur;
}

static uint64_t free_in(const char *folder)
{
    struct statvfs fs;

    return statvfs(folder, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
}

static int32_t entries_of(const char *folder)
{
    DIR *dir = opendir(folder);
    int32_t count = 0;

    if (dir == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    (void)closedir(dir);
    return count;
}

static void count_bound(hwloc_topology_t topology, tsr_doctor_record *record)
{
    hwloc_bitmap_t cores = hwloc_bitmap_alloc();
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();

    if (cores != NULL && nodes != NULL &&
        hwloc_get_cpubind(topology, cores, HWLOC_CPUBIND_PROCESS) == 0 &&
        hwloc_cpuset_to_nodeset(topology, cores, nodes) == 0)
        record->numa_bound = (int32_t)hwloc_bitmap_weight(nodes);
    hwloc_bitmap_free(nodes);
    hwloc_bitmap_free(cores);
}

static void read_numa(tsr_doctor_record *record)
{
    hwloc_topology_t topology = NULL;

    if (hwloc_topology_init(&topology) != 0)
        return;
    /* It would look for X displays, which takes seconds where name lookups are slow. */
    (void)hwloc_topology_set_components(topology, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "gl");
    if (hwloc_topology_load(topology) == 0) {
        record->numa_nodes = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
        record->numa_bound = record->numa_nodes;
        count_bound(topology, record);
    }
    hwloc_topology_destroy(topology);
}

tsr_doctor_record tsr_doctor_record_read(void)
{
    const tsr_host_record host = tsr_host_record_read(false);
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page = sysconf(_SC_PAGESIZE);
    tsr_doctor_record record = {
        .version = TSR_VERSION,
        .binary_digest = tsr_file_digest("/proc/self/exe"),
        .memory_allowed = tsr_machine_memory(""),
        .memory_installed = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0,
        .shared_memory = free_in("/dev/shm"),
        .open_files = limit_of(RLIMIT_NOFILE),
        .locked_bytes = limit_of(RLIMIT_MEMLOCK),
        .core_bytes = limit_of(RLIMIT_CORE),
        .cpus = tsr_machine_cpus_read(""),
        .host_cores = (int32_t)sysconf(_SC_NPROCESSORS_ONLN),
        .fast_links = entries_of("/sys/class/infiniband"),
        .cards = tsr_cuda_cards(),
        .driver = access("/proc/driver/nvidia/version", R_OK) == 0,
        .card_links = tsr_exchange_reaches_cards(),
        .tcp_retries = tsr_machine_tcp_retries(""),
        .networks = host.networks,
    };

    (void)snprintf(record.host, sizeof(record.host), "%s", host.name);
    tsr_comm_mpi_library(sizeof(record.mpi_library), record.mpi_library);
    if (record.cards > 0 &&
        tsr_cuda_card_name(0, sizeof(record.card_name), record.card_name) != TSR_OK)
        record.cards = 0;
    read_numa(&record);
    return record;
}
