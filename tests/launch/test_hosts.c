/* Machines that are made up: who shares one, who meets on a GPU, which addresses clash, which NUMA
 * nodes a rank runs on. */
#include "launch/job/bind.h"
#include "launch/job/host_record.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

enum { RANKS = 8, NODES_BYTES = 64 };

/* Two hosts of four ranks, each of which sees all four GPUs of its own. */
static void make_hosts(tsr_host_record records[RANKS])
{
    memset(records, 0, RANKS * sizeof(*records));
    for (int r = 0; r < RANKS; r++) {
        tsr_host_record *one = &records[r];
        const int host = r / 4;
        (void)snprintf(one->name, sizeof(one->name), "host%d", host);
        (void)snprintf(one->boot, sizeof(one->boot), "boot%d", host);
        one->card_count = 4;
        for (int c = 0; c < 4; c++) {
            one->cards[c].id[0] = (unsigned char)(host * 4 + c);
            one->cards[c].node = c / 2;
        }
        one->networks.count = 2;
        (void)strcpy(one->networks.of[0].name, "eth0");
        (void)snprintf(one->networks.of[0].address, sizeof(one->networks.of[0].address),
                       "10.0.0.%d", host + 1);
        (void)strcpy(one->networks.of[1].name, "docker0");
        (void)snprintf(one->networks.of[1].address, sizeof(one->networks.of[1].address),
                       "172.17.%d.1", host);
    }
}

static void expect_crowd(tsr_host_record *records, int32_t most, const char *expected)
{
    char text[TSR_HOST_CROWD_BYTES];
    int32_t found = 0;

    tsr_host_deal_cards(records, RANKS);
    for (int32_t r = 0; r < RANKS; r++) {
        const int32_t count = tsr_host_card_ranks(records, RANKS, r);
        found = count > found ? count : found;
    }
    tsr_host_crowd(records, RANKS, text);
    assert_string_equal(text, expected);
    assert_int_equal(found, most);
}

static void every_rank_takes_a_card_of_its_own(void **state)
{
    tsr_host_record records[RANKS];
    (void)state;
    make_hosts(records);
    expect_crowd(records, 1, "");
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(records[r].card, r % 4);

    /* whatever order the launcher has them in */
    (void)strcpy(records[1].name, "host1");
    (void)strcpy(records[1].boot, "boot1");
    memcpy(records[1].cards, records[4].cards, sizeof(records[1].cards));
    (void)strcpy(records[4].name, "host0");
    (void)strcpy(records[4].boot, "boot0");
    memcpy(records[4].cards, records[0].cards, sizeof(records[4].cards));
    expect_crowd(records, 1, "");
    assert_int_equal(records[4].card, 3);
}

static void those_that_were_given_one_each_take_it(void **state)
{
    tsr_host_record records[RANKS];
    (void)state;
    make_hosts(records);
    for (int r = 0; r < RANKS; r++) {
        records[r].card_count = 1;
        records[r].cards[0].id[0] = (unsigned char)r;
    }
    expect_crowd(records, 1, "");
    records[6].card_count = 0;
    expect_crowd(records, 1, "");
    assert_int_equal(tsr_host_card_ranks(records, RANKS, 6), 0);
}

static void ranks_that_meet_on_one_are_named(void **state)
{
    tsr_host_record records[RANKS];
    (void)state;

    /* both were told CUDA_VISIBLE_DEVICES=2 */
    make_hosts(records);
    for (int r = 1; r <= 2; r++) {
        records[r].card_count = 1;
        memset(records[r].cards[0].id, 0xab, TSR_CARD_ID_BYTES);
    }
    expect_crowd(records, 2,
                 "rank 1 on host host0 and rank 2 on host host0 meet on "
                 "GPU-abababab-abab-abab-abab-abababababab");

    /* pods with names of their own that both see the machine's */
    make_hosts(records);
    for (int r = 4; r < RANKS; r++)
        memcpy(records[r].cards, records[0].cards, sizeof(records[r].cards));
    expect_crowd(records, 2,
                 "rank 0 on host host0 and rank 4 on host host1 meet on "
                 "GPU-00000000-0000-0000-0000-000000000000");

    /* more ranks than cards */
    make_hosts(records);
    for (int r = 0; r < 4; r++)
        records[r].card_count = 1;
    expect_crowd(records, 4,
                 "rank 0 on host host0 and rank 1 on host host0, and others, meet on "
                 "GPU-00000000-0000-0000-0000-000000000000");
}

static void machines_of_one_name_are_two(void **state)
{
    tsr_host_record records[RANKS];
    (void)state;
    make_hosts(records);
    assert_false(tsr_host_record_same(&records[0], &records[4]));
    for (int r = 0; r < RANKS; r++)
        (void)strcpy(records[r].name, "localhost");
    assert_true(tsr_host_record_same(&records[0], &records[3]));
    assert_false(tsr_host_record_same(&records[0], &records[4]));
    expect_crowd(records, 1, "");
}

static void an_address_of_two_hosts_is_found(void **state)
{
    tsr_host_record records[RANKS];
    const tsr_host_network *network = NULL;
    int32_t ranks[2] = {0};
    char text[64];
    (void)state;
    make_hosts(records);
    assert_false(tsr_host_clash(records, RANKS, ranks, &network));
    (void)strcpy(records[5].networks.of[1].address, "172.17.0.1");
    assert_true(tsr_host_clash(records, RANKS, ranks, &network));
    assert_int_equal(ranks[0], 0);
    assert_int_equal(ranks[1], 5);
    assert_string_equal(network->name, "docker0");
    assert_string_equal(network->address, "172.17.0.1");
    tsr_host_networks_text(&records[5].networks, sizeof(text), text);
    assert_string_equal(text, "eth0 10.0.0.2, docker0 172.17.0.1");
}

static void this_machine_is_read(void **state)
{
    (void)state;
    const tsr_host_record one = tsr_host_record_read(true);
    const tsr_host_record other = tsr_host_record_read(false);
    assert_true(tsr_host_record_same(&one, &other));
    assert_true(strlen(one.name) > 0);
    assert_true(one.cpus.cores > 0);
    assert_int_equal(other.card_count, 0);
}

static void ranks_run_on_their_nodes(void **state)
{
    static const struct {
        const char *machine;
        tsr_host_share share;
        bool on_card;
        const char *nodes; /* NULL: anywhere */
    } cases[] = {
        {"numa:1 core:4 pu:1", {.ranks_here = 4, .local_rank = 2, .card_node = 0}, true, NULL},
        {"numa:2 core:4 pu:1", {.ranks_here = 1, .card_node = -1}, false, NULL},
        {"numa:2 core:4 pu:1", {.ranks_here = 4, .local_rank = 1, .card_node = -1}, false, "0"},
        {"numa:2 core:4 pu:1", {.ranks_here = 4, .local_rank = 2, .card_node = -1}, false, "1"},
        {"numa:2 core:4 pu:1", {.ranks_here = 3, .local_rank = 1, .card_node = -1}, false, NULL},
        {"numa:2 core:4 pu:1", {.ranks_here = 3, .local_rank = 2, .card_node = -1}, false, "1"},
        {"numa:4 core:2 pu:2", {.ranks_here = 2, .local_rank = 1, .card_node = -1}, false, "2-3"},
        {"numa:4 core:2 pu:2", {.ranks_here = 8, .local_rank = 7, .card_node = -1}, false, "3"},
        /* its GPU's, if it computes there and the GPU says where it is */
        {"numa:2 core:4 pu:1", {.ranks_here = 4, .local_rank = 0, .card_node = 1}, true, "1"},
        {"numa:2 core:4 pu:1", {.ranks_here = 4, .local_rank = 0, .card_node = 1}, false, "0"},
        {"numa:2 core:4 pu:1", {.ranks_here = 1, .card_node = 1}, true, "1"},
        {"numa:2 core:4 pu:1", {.ranks_here = 2, .local_rank = 1, .card_node = -1}, true, "1"},
        {"numa:2 core:4 pu:1", {.ranks_here = 2, .local_rank = 1, .card_node = 7}, true, "1"},
        /* what a launcher has decided stays */
        {"numa:2 core:4 pu:1", {.ranks_here = 4, .card_node = 1, .bound = true}, true, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        hwloc_topology_t topology = NULL;
        hwloc_nodeset_t nodes = hwloc_bitmap_alloc();
        char text[NODES_BYTES] = "";
        assert_int_equal(hwloc_topology_init(&topology), 0);
        assert_int_equal(hwloc_topology_set_synthetic(topology, cases[i].machine), 0);
        assert_int_equal(hwloc_topology_load(topology), 0);
        assert_int_equal(tsr_bind_nodes(topology, &cases[i].share, cases[i].on_card, nodes),
                         cases[i].nodes != NULL);
        (void)hwloc_bitmap_list_snprintf(text, sizeof(text), nodes);
        assert_string_equal(text, cases[i].nodes != NULL ? cases[i].nodes : "");
        hwloc_bitmap_free(nodes);
        hwloc_topology_destroy(topology);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_takes_a_card_of_its_own),
        cmocka_unit_test(those_that_were_given_one_each_take_it),
        cmocka_unit_test(ranks_that_meet_on_one_are_named),
        cmocka_unit_test(machines_of_one_name_are_two),
        cmocka_unit_test(an_address_of_two_hosts_is_found),
        cmocka_unit_test(this_machine_is_read),
        cmocka_unit_test(ranks_run_on_their_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
