/*
 * `tessera doctor`: what it finds on machines that are made up, each wrong in one way, and what the
 * program says of this one, alone and with ranks.
 */
#include "launch/doctor/doctor_findings.h"
#include "tests/launch/command.h"
#include "tests/test.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 4 };

typedef struct clinic {
    tsr_doctor_record ranks[RANKS];
    tsr_doctor_pair pairs[RANKS];
    tsr_doctor_facts facts;
    tsr_doctor_findings findings;
} clinic;

/* Two hosts with two ranks each, and nothing wrong. */
static clinic *healthy(void)
{
    clinic *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    for (int32_t r = 0; r < RANKS; r++) {
        c->ranks[r] = (tsr_doctor_record){
            .version = "1.0",
            .mpi_library = "Open MPI v4.1.4",
            .binary_digest = 7,
            .memory_allowed = (uint64_t)64 << 30,
            .shared_memory = (uint64_t)1 << 30,
            .open_files = 65536,
            .locked_bytes = UINT64_MAX,
            .cpus = {.cores = 16, .quota = INT32_MAX},
            .host_cores = 16,
            .numa_nodes = 2,
            .tcp_retries = 5,
            .numa_bound = 1,
            .ranks_here = 2,
        };
        (void)snprintf(c->ranks[r].host, sizeof(c->ranks[r].host), "host%d", r / 2);
        c->pairs[r] = (tsr_doctor_pair){
            .from = r, .to = (r + 1) % RANKS, .latency_s = 5e-6, .bandwidth = 10e9};
    }
    c->facts = (tsr_doctor_facts){.ranks = c->ranks,
                                  .pairs = c->pairs,
                                  .rank_count = RANKS,
                                  .pair_count = RANKS,
                                  .expected_ranks = RANKS,
                                  .ranks_per_card = 1,
                                  .transport = "mpi"};
    return c;
}

static void fewer_ranks(clinic *c)
{
    c->facts.expected_ranks = 8;
}

static void other_program(clinic *c)
{
    c->ranks[2].binary_digest = 8;
    c->ranks[3].binary_digest = 8;
}

static void other_mpi(clinic *c)
{
    (void)strcpy(c->ranks[2].mpi_library, "Open MPI v5.0.7");
}

static void few_files(clinic *c)
{
    c->ranks[0].open_files = 256;
}

static void many_ranks(clinic *c)
{
    c->ranks[2].ranks_here = 17;
}

static void quota(clinic *c)
{
    c->ranks[0].cpus.quota = 3;
}

static void bound_to_one(clinic *c)
{
    c->ranks[0].cpus.cores = 1;
    c->ranks[0].cpus.bound = 1;
}

static void over_nodes(clinic *c)
{
    c->ranks[2].numa_bound = 2;
}

static void little_shared(clinic *c)
{
    c->ranks[0].shared_memory = 1 << 20;
}

static void nothing_locked(clinic *c)
{
    c->ranks[0].locked_bytes = 65536;
    c->ranks[0].fast_links = 1;
}

static void unused_driver(clinic *c)
{
    c->ranks[0].driver = 1;
}

static void one_card(clinic *c)
{
    c->ranks[0].cards = 1;
    c->ranks[0].card_links = 1;
}

static void no_nccl(clinic *c)
{
    c->ranks[0].cards = 2;
}

static void slow_link(clinic *c)
{
    c->pairs[1].bandwidth = 0.1e9;
    c->pairs[0].bandwidth = 0.1e9; /* within a host nobody can name an interface */
}

static void far_rank(clinic *c)
{
    c->pairs[3].latency_s = 900e-6;
}

/* A bridge that both hosts have; two ranks of one host see the same, of course. */
static void same_address(clinic *c)
{
    for (int32_t r = 0; r < RANKS; r++) {
        tsr_host_networks *n = &c->ranks[r].networks;
        n->count = 2;
        (void)snprintf(n->of[0].address, sizeof(n->of[0].address), "10.0.0.%d", r / 2);
        (void)strcpy(n->of[1].name, "docker0");
        (void)strcpy(n->of[1].address, "172.17.0.1");
    }
}

static void patient(clinic *c)
{
    c->ranks[0].tcp_retries = 15;
}

static void each_finding_is_made_once_and_says_what_mends_it(void **state)
{
    static const struct {
        void (*ail)(clinic *c);
        tsr_status verdict;
        const char *what;
        const char *mend;
    } cases[] = {
        {fewer_ranks, TSR_ERR_INIT, "the job has 4 ranks, not the 8", "mpirun -n 8"},
        {other_program, TSR_ERR_MISMATCH, "rank 2 on host1 runs tessera 1.0 (0000000000000008)",
         "copy the same program to host1"},
        {other_mpi, TSR_ERR_MISMATCH, "has Open MPI v5.0.7, rank 0 Open MPI v4.1.4", "same MPI"},
        {few_files, TSR_ERR_MEMORY, "host0: a process may have 256 files open, at least 320",
         "ulimit -n 65536"},
        {many_ranks, TSR_OK, "host1: 17 ranks share 16 cores", "at most 16 ranks"},
        {quota, TSR_OK, "allow 3 cores' worth of time on 16 cores", "--cpus=16"},
        {bound_to_one, TSR_OK, "2 ranks bound to 1 core each, of 16", "--bind-to none"},
        {over_nodes, TSR_OK, "host1: ranks run on all of 2 NUMA nodes", "--map-by numa"},
        {little_shared, TSR_OK, "/dev/shm has 1.00 MiB free for 2 ranks", "--shm-size"},
        {nothing_locked, TSR_OK, "a process may lock 64.0 KiB", "ulimit -l unlimited"},
        {unused_driver, TSR_OK, "no GPU can be used", "-DTSR_CUDA=ON"},
        {one_card, TSR_OK, "host0: 2 ranks, 1 GPU", "start as many ranks"},
        {no_nccl, TSR_OK, "host0: NCCL is not there", "libnccl2"},
        {slow_link, TSR_OK, "ranks 1 and 2, host0 and host1: 0.10 GB/s", "btl_tcp_if_include"},
        {same_address, TSR_OK, "host0 and host1 both have the address 172.17.0.1 (docker0)",
         "btl_tcp_if_include NAME"},
        {patient, TSR_OK, "host0: TCP sends 15 times", "net.ipv4.tcp_retries2=5"},
        {far_rank, TSR_OK, "900 us one way, the median is 5 us", "their packets take"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        clinic *c = healthy();
        cases[i].ail(c);
        tsr_doctor_judge(&c->facts, &c->findings);
        assert_int_equal(c->findings.count, 1);
        ASSERT_STATUS(cases[i].verdict, tsr_doctor_verdict(&c->findings));
        if (strstr(c->findings.of[0].what, cases[i].what) == NULL)
            fail_msg("expected \"%s\", got \"%s\"", cases[i].what, c->findings.of[0].what);
        if (strstr(c->findings.of[0].mend, cases[i].mend) == NULL)
            fail_msg("expected \"%s\", got \"%s\"", cases[i].mend, c->findings.of[0].mend);
        free(c);
    }
}

static void the_healthy_are_left_alone(void **state)
{
    (void)state;
    clinic *c = healthy();
    tsr_doctor_judge(&c->facts, &c->findings);
    assert_int_equal(c->findings.count, 0);
    ASSERT_STATUS(TSR_OK, tsr_doctor_verdict(&c->findings));
    free(c);
}

/* Errors are not lost behind advice. */
static void errors_come_first(void **state)
{
    (void)state;
    clinic *c = healthy();
    quota(c);
    few_files(c);
    other_program(c);
    tsr_doctor_judge(&c->facts, &c->findings);
    assert_int_equal(c->findings.count, 3);
    ASSERT_STATUS(TSR_ERR_MISMATCH, c->findings.of[0].status);
    ASSERT_STATUS(TSR_ERR_MEMORY, c->findings.of[1].status);
    ASSERT_STATUS(TSR_OK, c->findings.of[2].status);
    free(c);
}

static json_t *examined(int code, const char *launcher, const char *options)
{
    assert_int_equal(run_command_line("%s %s doctor --json %s", launcher, TSR_PROGRAM, options),
                     code);
    json_t *json = json_load_file(scratch_path("out"), 0, NULL);
    assert_non_null(json);
    assert_int_equal(json_integer_value(json_object_get(json, "exit_code")), code);
    return json;
}

static void check(int code, const char *launcher, const char *options, size_t ranks, size_t pairs)
{
    json_t *json = examined(code, launcher, options);
    const json_t *host = json_array_get(json_object_get(json, "hosts"), 0);
    const json_t *list = json_object_get(json, "pairs");

    assert_int_equal(json_integer_value(json_object_get(json, "ranks")), ranks);
    assert_int_equal(json_array_size(json_object_get(json, "hosts")), 1);
    assert_int_equal(json_integer_value(json_object_get(host, "ranks")), ranks);
    assert_true(json_integer_value(json_object_get(host, "cores")) > 0);
    assert_true(json_integer_value(json_object_get(host, "numa_nodes")) > 0);
    assert_true(json_integer_value(json_object_get(host, "memory_allowed")) > 0);
    assert_true(json_number_value(json_object_get(host, "read_bandwidth")) > 1e7);
    assert_int_equal(strlen(json_string_value(json_object_get(host, "binary"))), 16);
    assert_int_equal(json_array_size(list), pairs);
    for (size_t i = 0; i < pairs; i++) {
        assert_true(json_number_value(json_object_get(json_array_get(list, i), "latency_us")) > 0);
        assert_true(json_number_value(json_object_get(json_array_get(list, i), "bandwidth")) > 1e5);
    }
    json_decref(json);
}

static void one_machine_is_examined_with_any_ranks(void **state)
{
    (void)state;
    check(0, "", "", 1, 0);
    check(0, "", "--local-ranks 2", 2, 1);
    check(0, mpirun(4), "--expect-world-size 4", 4, 4);
    check(6, mpirun(2), "--expect-world-size 3", 2, 1);
    check(11, "ulimit -n 100;", "", 1, 0);
}

static void a_person_can_read_it(void **state)
{
    (void)state;
    assert_int_equal(run_command_line("%s %s doctor", mpirun(2), TSR_PROGRAM), 0);
    assert_said("out", ": 2 ranks on 1 host");
    assert_said("out", "read at ");
    assert_said("out", "between ranks, over mpi");
    assert_said("out", "us one way");
    assert_int_equal(run_command_line("%s doctor --expect-world-size 2", TSR_PROGRAM), 6);
    assert_said("out", "error: the job has 1 rank, not the 2 of --expect-world-size");
    assert_int_equal(run_command_line("%s doctor here", TSR_PROGRAM), 2);
    assert_said("err", "unexpected argument here");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_finding_is_made_once_and_says_what_mends_it),
        cmocka_unit_test(the_healthy_are_left_alone),
        cmocka_unit_test(errors_come_first),
        cmocka_unit_test(one_machine_is_examined_with_any_ranks),
        cmocka_unit_test(a_person_can_read_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
