/* What a process may use of a machine, read from made-up ones; and the small sums about sizes. */
#define _GNU_SOURCE /* sched_setaffinity */
#include "runtime/base/machine.h"
#include "runtime/base/sizes.h"
#include "tests/test.h"

#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define MEMINFO                                                                                    \
    "MemTotal:       16777216 kB\nMemFree:          102400 kB\nMemAvailable:    8388608 kB\n"

enum { PATH_BYTES = 512, MOST_FOLDERS = 16 };

static const uint64_t available = 8192 * MIB;

typedef struct made_machine {
    char root[64];
} made_machine;

static int make_machine(void **state)
{
    static made_machine machine;

    (void)snprintf(machine.root, sizeof(machine.root), "/tmp/tessera-machine-XXXXXX");
    *state = &machine;
    return mkdtemp(machine.root) != NULL ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *place)
{
    (void)stat;
    (void)kind;
    (void)place;
    return remove(path);
}

static int remove_machine(void **state)
{
    const made_machine *machine = *state;
    return nftw(machine->root, remove_one, MOST_FOLDERS, FTW_DEPTH | FTW_PHYS);
}

/* A file below the machine's root, its folders made on the way. */
static void put(const made_machine *machine, const char *name, const char *text)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s%s", machine->root, name);
    for (char *slash = strchr(path + strlen(machine->root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void without_a_group_the_machine_says_what_is_available(void **state)
{
    const made_machine *machine = *state;

    assert_int_equal(tsr_machine_memory(machine->root), 0);
    put(machine, "/proc/meminfo", "MemTotal:       16777216 kB\n");
    assert_int_equal(tsr_machine_memory(machine->root), 0);
    put(machine, "/proc/meminfo", MEMINFO);
    assert_int_equal(tsr_machine_memory(machine->root), available);
}

static void groups_of_version_1_limit_as_well(void **state)
{
    const made_machine *machine = *state;

    put(machine, "/proc/meminfo", MEMINFO);
    put(machine, "/proc/self/cgroup", "4:hugetlb,memory:/jobs/7\n1:memory_other:/\n0::/jobs\n");
    put(machine, "/sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(tsr_machine_memory(machine->root), available);
    put(machine, "/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "2147483648\n");
    assert_int_equal(tsr_machine_memory(machine->root), 2048 * MIB);
    put(machine, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
    assert_int_equal(tsr_machine_memory(machine->root), 1024 * MIB);
    put(machine, "/sys/fs/cgroup/memory/other/memory.limit_in_bytes", "1\n");
    assert_int_equal(tsr_machine_memory(machine->root), 1024 * MIB);

    /* both at once: whichever is less */
    put(machine, "/sys/fs/cgroup/jobs/memory.max", "536870912\n");
    assert_int_equal(tsr_machine_memory(machine->root), 512 * MIB);
}

static void a_quota_of_time_limits_the_cores(void **state)
{
    const made_machine *machine = *state;

    assert_int_equal(tsr_machine_cpus_read(machine->root).quota, INT32_MAX);
    put(machine, "/proc/self/cgroup", "2:cpuset:/\n1:cpu,cpuacct:/jobs/7\n0::/pod/task\n");
    put(machine, "/sys/fs/cgroup/pod/task/cpu.max", "max 100000\n");
    assert_int_equal(tsr_machine_cpus_read(machine->root).quota, INT32_MAX);
    put(machine, "/sys/fs/cgroup/pod/cpu.max", "950000 100000\n");
    assert_int_equal(tsr_machine_cpus_read(machine->root).quota, 9);
    put(machine, "/sys/fs/cgroup/cpu/jobs/7/cpu.cfs_quota_us", "-1\n");
    put(machine, "/sys/fs/cgroup/cpu/jobs/7/cpu.cfs_period_us", "100000\n");
    assert_int_equal(tsr_machine_cpus_read(machine->root).quota, 9);
    put(machine, "/sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "400000\n");
    put(machine, "/sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "200000\n");
    assert_int_equal(tsr_machine_cpus_read(machine->root).quota, 2);
    put(machine, "/sys/fs/cgroup/pod/task/cpu.max", "50000 100000\n");
    assert_int_equal(tsr_machine_cpus_read(machine->root).quota, 0);
}

static void a_device_is_next_to_a_node(void **state)
{
    const made_machine *machine = *state;
    char boot[16];

    assert_int_equal(tsr_machine_numa_node(machine->root, "0000:17:00.0"), -1);
    put(machine, "/sys/bus/pci/devices/0000:17:00.0/numa_node", "1\n");
    put(machine, "/sys/bus/pci/devices/0000:18:00.0/numa_node", "-1\n");
    assert_int_equal(tsr_machine_numa_node(machine->root, "0000:17:00.0"), 1);
    assert_int_equal(tsr_machine_numa_node(machine->root, "0000:18:00.0"), -1);

    assert_false(tsr_machine_has_nodes(machine->root));
    put(machine, "/sys/devices/system/node/has_cpu", "0\n");
    assert_false(tsr_machine_has_nodes(machine->root));
    put(machine, "/sys/devices/system/node/has_cpu", "0-1\n");
    assert_true(tsr_machine_has_nodes(machine->root));
    put(machine, "/sys/devices/system/node/has_cpu", "0,4\n");
    assert_true(tsr_machine_has_nodes(machine->root));
    assert_int_equal(tsr_machine_tcp_retries(machine->root), 0);
    put(machine, "/proc/sys/net/ipv4/tcp_retries2", "15\n");
    assert_int_equal(tsr_machine_tcp_retries(machine->root), 15);
    tsr_machine_boot(machine->root, sizeof(boot), boot);
    assert_string_equal(boot, "");
    put(machine, "/proc/sys/kernel/random/boot_id", "3fd7b2a0-a53c-4d2e\n");
    tsr_machine_boot(machine->root, sizeof(boot), boot);
    assert_string_equal(boot, "3fd7b2a0-a53c-4");
}

static void processes_share_cores_and_quota(void **state)
{
    (void)state;
    tsr_machine_cpus cpus = {.cores = 16, .quota = INT32_MAX};

    assert_int_equal(tsr_machine_threads(&cpus, 4), 4);
    assert_int_equal(tsr_machine_threads(&cpus, 32), 1);
    cpus.quota = 6;
    assert_int_equal(tsr_machine_threads(&cpus, 1), 6);
    assert_int_equal(tsr_machine_threads(&cpus, 4), 1);
    cpus = (tsr_machine_cpus){.cores = 8, .quota = INT32_MAX, .bound = 1};
    assert_int_equal(tsr_machine_threads(&cpus, 4), 8);
    cpus.quota = 16;
    assert_int_equal(tsr_machine_threads(&cpus, 4), 4);
    cpus.quota = 0;
    assert_int_equal(tsr_machine_threads(&cpus, 1), 1);
}

static void the_limit_of_the_own_group_counts_and_not_a_neighbours(void **state)
{
    const made_machine *machine = *state;

    put(machine, "/proc/meminfo", MEMINFO);
    put(machine, "/proc/self/cgroup", "1:name=systemd:/\n0::/jobs/7\n");
    put(machine, "/sys/fs/cgroup/jobs/8/memory.max", "1048576\n");
    assert_int_equal(tsr_machine_memory(machine->root), available);
    put(machine, "/sys/fs/cgroup/jobs/7/memory.max", "max\n");
    assert_int_equal(tsr_machine_memory(machine->root), available);
    put(machine, "/sys/fs/cgroup/jobs/7/memory.max", "2147483648\n");
    assert_int_equal(tsr_machine_memory(machine->root), 2048 * MIB);

    /* more than there is */
    put(machine, "/sys/fs/cgroup/jobs/7/memory.max", "1099511627776\n");
    assert_int_equal(tsr_machine_memory(machine->root), available);
}

static void a_group_around_limits_too(void **state)
{
    const made_machine *machine = *state;

    put(machine, "/proc/meminfo", MEMINFO);
    put(machine, "/proc/self/cgroup", "0::/jobs/7/task\n");
    put(machine, "/sys/fs/cgroup/jobs/7/task/memory.max", "4294967296\n");
    put(machine, "/sys/fs/cgroup/jobs/memory.max", "1073741824\n");
    assert_int_equal(tsr_machine_memory(machine->root), 1024 * MIB);
    put(machine, "/sys/fs/cgroup/jobs/memory.max", "max\n");
    assert_int_equal(tsr_machine_memory(machine->root), 4096 * MIB);
}

static void a_container_finds_its_limit_where_its_namespace_begins(void **state)
{
    const made_machine *machine = *state;

    put(machine, "/proc/meminfo", MEMINFO);
    put(machine, "/sys/fs/cgroup/memory.max", "536870912\n");
    put(machine, "/proc/self/cgroup", "0::/\n");
    assert_int_equal(tsr_machine_memory(machine->root), 512 * MIB);

    /* the path as it is outside, where no such folder is inside */
    put(machine, "/proc/self/cgroup", "0::/system.slice/pod-1.scope\n");
    assert_int_equal(tsr_machine_memory(machine->root), 512 * MIB);
}

static void this_machine_has_memory_and_cores(void **state)
{
    (void)state;

    assert_true(tsr_machine_memory("") > MIB);
    assert_true(tsr_machine_cpus_read("").cores >= 1);
}

static void a_process_bound_to_a_core_has_one(void **state)
{
    (void)state;
    cpu_set_t before;
    cpu_set_t one;
    size_t core = 0;

    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    while (!CPU_ISSET(core, &before))
        core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    const tsr_machine_cpus cpus = tsr_machine_cpus_read("");
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
    assert_int_equal(cpus.cores, 1);
    assert_int_equal(cpus.bound, sysconf(_SC_NPROCESSORS_ONLN) > 1);
}

static void sizes_are_counted_to_the_last_piece(void **state)
{
    (void)state;
    assert_int_equal(tsr_pieces(0, 16), 0);
    assert_int_equal(tsr_pieces(1, 16), 1);
    assert_int_equal(tsr_pieces(16, 16), 1);
    assert_int_equal(tsr_pieces(17, 16), 2);
    assert_int_equal(tsr_pieces(INT32_MAX, 2), 1 << 30);
    assert_int_equal(tsr_pieces_64(INT64_MAX, 2), INT64_C(1) << 62);
    assert_int_equal(tsr_aligned(0, TSR_ALIGNMENT), 0);
    assert_int_equal(tsr_aligned(1, TSR_ALIGNMENT), 64);
    assert_int_equal(tsr_aligned(64, TSR_ALIGNMENT), 64);
    assert_int_equal(tsr_aligned(65, TSR_ROW_ALIGNMENT), 80);
    assert_int_equal(tsr_smaller(-1, 1), -1);
    assert_int_equal(tsr_larger(-1, 1), 1);
    assert_true(tsr_smaller_64(INT64_MIN, INT64_MAX) == INT64_MIN);
    assert_true(tsr_smaller_size(UINT64_MAX, 1) == 1);
    assert_true(tsr_larger_size(UINT64_MAX, 1) == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_a_group_the_machine_says_what_is_available,
                                        make_machine, remove_machine),
        cmocka_unit_test_setup_teardown(groups_of_version_1_limit_as_well, make_machine,
                                        remove_machine),
        cmocka_unit_test_setup_teardown(a_quota_of_time_limits_the_cores, make_machine,
                                        remove_machine),
        cmocka_unit_test_setup_teardown(a_device_is_next_to_a_node, make_machine, remove_machine),
        cmocka_unit_test(processes_share_cores_and_quota),
        cmocka_unit_test_setup_teardown(the_limit_of_the_own_group_counts_and_not_a_neighbours,
                                        make_machine, remove_machine),
        cmocka_unit_test_setup_teardown(a_group_around_limits_too, make_machine, remove_machine),
        cmocka_unit_test_setup_teardown(a_container_finds_its_limit_where_its_namespace_begins,
                                        make_machine, remove_machine),
        cmocka_unit_test(this_machine_has_memory_and_cores),
        cmocka_unit_test(a_process_bound_to_a_core_has_one),
        cmocka_unit_test(sizes_are_counted_to_the_last_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
