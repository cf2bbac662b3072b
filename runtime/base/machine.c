/*
 * A group is limited by itself and by all around it, so the way up is walked:
 *
 *   /proc/self/cgroup              0::/jobs/7/task
 *   /sys/fs/cgroup/jobs/7/task     memory.max   max
 *   /sys/fs/cgroup/jobs/7          memory.max   64 GiB   <- binds
 *   /sys/fs/cgroup/jobs            memory.max   512 GiB
 *   /sys/fs/cgroup                 memory.max   is there only where a namespace begins
 *
 * A folder that is not there sets no limit: a container may see its path from outside and only its
 * own group. Groups of version 1 are not read.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include "runtime/base/machine.h"

#include "runtime/base/sizes.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 4096, BYTES_OF_A_KIB = 1024 };

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

/* UINT64_MAX: there is no limit. */
static uint64_t group_limit(const char *root)
{
    char path[2 * TEXT_BYTES];
    char group[TEXT_BYTES];
    uint64_t limit = UINT64_MAX;

    (void)snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    if (!read_line(path, "0::", group))
        return limit;
    for (char *end = group + strlen(group); end != NULL; end = strrchr(group, '/')) {
        *end = '\0';
        (void)snprintf(path, sizeof(path), "%s/sys/fs/cgroup%s/memory.max", root, group);
        limit = tsr_smaller_size(limit, read_amount(path, "", UINT64_MAX));
    }
    return limit;
}

uint64_t tsr_machine_memory(const char *root)
{
    char path[TEXT_BYTES];

    (void)snprintf(path, sizeof(path), "%s/proc/meminfo", root);
    const uint64_t available = read_amount(path, "MemAvailable:", 0) * BYTES_OF_A_KIB;
    return tsr_smaller_size(available, group_limit(root));
}

int32_t tsr_machine_cores(bool *ret_bound)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    int32_t cores = online > 0 ? (int32_t)online : 1;
    bool bound = false;
    cpu_set_t allowed;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
        const int32_t count = (int32_t)CPU_COUNT(&allowed);
        bound = count < cores;
        cores = tsr_larger(count, 1);
    }
    if (ret_bound != NULL)
        *ret_bound = bound;
    return cores;
}
