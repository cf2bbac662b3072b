/*
 * A group is limited by itself and by all around it, so the way up is walked:
 *
 *   /proc/self/cgroup              0::/jobs/7/task
 *   /sys/fs/cgroup/jobs/7/task     memory.max   max
 *   /sys/fs/cgroup/jobs/7          memory.max   64 GiB   <- binds
 *   /sys/fs/cgroup/jobs            memory.max   512 GiB
 *   /sys/fs/cgroup                 memory.max   is there only where a namespace begins
 *
 * Groups of version 1 are the same with a tree for each controller: "4:memory:/jobs/7" is
 * /sys/fs/cgroup/memory/jobs/7. A machine may have both; whatever limits, counts. A folder that is
 * not there sets no limit: a container may see its path from outside and only its own group.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "runtime/base/machine.h"

#include "runtime/base/sizes.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 4096, FILE_BYTES = 3 * TEXT_BYTES, BYTES_OF_A_KIB = 1024, MILLI = 1000 };

/* What follows `label` in the first line of a file that begins with it. */
static bool read_line(const char *path, const char *label, char ret_text[TEXT_BYTES])
{
    char line[TEXT_BYTES];
    const size_t skipped = strlen(label);
    bool found = false;
    FILE *file = fopen(path, "r");

    if (file == NULL)
        return false;
    while (!found && fgets(line, sizeof(line), file) != NULL)
        found = strncmp(line, label, skipped) == 0;
    (void)fclose(file);
    if (!found)
        return false;
    line[strcspn(line, "\n")] = '\0';
    memmove(ret_text, line + skipped, strlen(line + skipped) + 1);
    return true;
}

/* The number behind `label`, or `otherwise`: the file, the line or the number is missing. */
static uint64_t read_amount(const char *path, const char *label, uint64_t otherwise)
{
    char text[TEXT_BYTES];
    char *end = NULL;

    if (!read_line(path, label, text))
        return otherwise;
    const uint64_t amount = strtoull(text, &end, 10);
    return end == text ? otherwise : amount;
}

/* Whether `controller` is one of "cpu,cpuacct:/path"; then *ret_path is where the path begins. */
static bool names_controller(const char *list, const char *controller, const char **ret_path)
{
    const size_t bytes = strlen(controller);
    const char *colon = strchr(list, ':');

    if (colon == NULL)
        return false;
    *ret_path = colon + 1;
    if (bytes == 0)
        return colon == list;
    for (const char *at = list; at < colon; at += strcspn(at, ",:") + 1) {
        if (strncmp(at, controller, bytes) == 0 && (at[bytes] == ',' || at[bytes] == ':'))
            return true;
    }
    return false;
}

/* The group of this process in the tree of `controller`; "": that of version 2. */
static bool find_group(const char *root, const char *controller, char ret_group[TEXT_BYTES])
{
    char line[TEXT_BYTES];
    const char *path = NULL;
    bool found = false;

    (void)snprintf(line, sizeof(line), "%s/proc/self/cgroup", root);
    FILE *file = fopen(line, "r");
    if (file == NULL)
        return false;
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        const char *list = strchr(line, ':');
        found = list != NULL && names_controller(list + 1, controller, &path);
    }
    (void)fclose(file);
    if (found)
        (void)snprintf(ret_group, TEXT_BYTES, "%.*s", (int)strcspn(path, "\n"), path);
    return found;
}

/* What one group's folder says; UINT64_MAX: no limit. */
typedef uint64_t (*limit_reader)(const char *folder);

static uint64_t memory_of_version_2(const char *folder)
{
    char path[FILE_BYTES];
    (void)snprintf(path, sizeof(path), "%s/memory.max", folder);
    return read_amount(path, "", UINT64_MAX);
}

static uint64_t memory_of_version_1(const char *folder)
{
    char path[FILE_BYTES];
    (void)snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", folder);
    return read_amount(path, "", UINT64_MAX);
}

static uint64_t milli_cores(uint64_t quota, uint64_t period)
{
    return period == 0 || quota > UINT64_MAX / MILLI ? UINT64_MAX : quota * MILLI / period;
}

/* "150000 100000", or "max 100000". */
static uint64_t time_of_version_2(const char *folder)
{
    char path[FILE_BYTES];
    char text[TEXT_BYTES];
    char *end = NULL;

    (void)snprintf(path, sizeof(path), "%s/cpu.max", folder);
    if (!read_line(path, "", text))
        return UINT64_MAX;
    const uint64_t quota = strtoull(text, &end, 10);
    return end == text ? UINT64_MAX : milli_cores(quota, strtoull(end, NULL, 10));
}

/* -1, which reads as the largest of all numbers, is no quota. */
static uint64_t time_of_version_1(const char *folder)
{
    char path[FILE_BYTES];

    (void)snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", folder);
    const uint64_t quota = read_amount(path, "", UINT64_MAX);
    (void)snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", folder);
    return milli_cores(quota, read_amount(path, "", 0));
}

/* The least of a group and all around it. */
static uint64_t group_limit(const char *root, const char *controller, limit_reader read)
{
    char folder[2 * TEXT_BYTES];
    char group[TEXT_BYTES];
    uint64_t limit = UINT64_MAX;

    if (!find_group(root, controller, group))
        return limit;
    for (char *end = group + strlen(group); end != NULL; end = strrchr(group, '/')) {
        *end = '\0';
        (void)snprintf(folder, sizeof(folder), "%s/sys/fs/cgroup%s%s%s", root,
                       controller[0] != '\0' ? "/" : "", controller, group);
        limit = tsr_smaller_size(limit, read(folder));
    }
    return limit;
}

uint64_t tsr_machine_memory(const char *root)
{
    char path[TEXT_BYTES];

    (void)snprintf(path, sizeof(path), "%s/proc/meminfo", root);
    uint64_t bytes = read_amount(path, "MemAvailable:", 0) * BYTES_OF_A_KIB;
    bytes = tsr_smaller_size(bytes, group_limit(root, "", memory_of_version_2));
    return tsr_smaller_size(bytes, group_limit(root, "memory", memory_of_version_1));
}

int32_t tsr_machine_numa_node(const char *root, const char *bus)
{
    char path[FILE_BYTES];
    const uint64_t none = UINT64_MAX; /* what -1 reads as */

    (void)snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/numa_node", root, bus);
    const uint64_t node = read_amount(path, "", none);
    return node > INT32_MAX ? -1 : (int32_t)node;
}

/* "0", or "0-1", or "0,2" */
bool tsr_machine_has_nodes(const char *root)
{
    char path[FILE_BYTES];
    char text[TEXT_BYTES] = "";

    (void)snprintf(path, sizeof(path), "%s/sys/devices/system/node/has_cpu", root);
    return read_line(path, "", text) && strpbrk(text, "-,") != NULL;
}

int32_t tsr_machine_tcp_retries(const char *root)
{
    char path[FILE_BYTES];

    (void)snprintf(path, sizeof(path), "%s/proc/sys/net/ipv4/tcp_retries2", root);
    return (int32_t)tsr_smaller_size(read_amount(path, "", 0), INT32_MAX);
}

void tsr_machine_boot(const char *root, size_t capacity, char *ret_text)
{
    char path[FILE_BYTES];
    char text[TEXT_BYTES] = "";

    (void)snprintf(path, sizeof(path), "%s/proc/sys/kernel/random/boot_id", root);
    (void)read_line(path, "", text);
    (void)snprintf(ret_text, capacity, "%.*s", (int)capacity - 1, text);
}

static void read_affinity(tsr_machine_cpus *cpus)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t allowed;

    cpus->cores = online > 0 ? (int32_t)online : 1;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
        const int32_t count = (int32_t)CPU_COUNT(&allowed);
        cpus->bound = count < cpus->cores;
        cpus->cores = tsr_larger(count, 1);
    }
}

tsr_machine_cpus tsr_machine_cpus_read(const char *root)
{
    const uint64_t quota = tsr_smaller_size(group_limit(root, "", time_of_version_2),
                                            group_limit(root, "cpu", time_of_version_1)) /
                           MILLI;
    tsr_machine_cpus cpus = {.quota = quota < INT32_MAX ? (int32_t)quota : INT32_MAX};

    read_affinity(&cpus);
    return cpus;
}

int32_t tsr_machine_threads(const tsr_machine_cpus *cpus, int32_t processes)
{
    const int32_t own = cpus->bound ? cpus->cores : cpus->cores / processes;
    return tsr_larger(tsr_smaller(own, cpus->quota / processes), 1);
}
