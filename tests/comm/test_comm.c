/*
 * What control calls bring, on either group: each byte is a function of who sent it, so that every
 * rank can tell every byte it should see.
 */
#include "comm/comm.h"
#include "tests/comm/keyed_bytes.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

static void broadcast_body(rank_run *run)
{
    const size_t sizes[] = {0, 8, 4096, (size_t)18 << 20};
    unsigned char *data = malloc(sizes[3]);
    RANK_CHECK(run, data != NULL);
    for (int32_t root = 0; data != NULL && root < run->size; root++) {
        for (size_t i = 0; i < (root == 0 ? 4U : 3U); i++) {
            const uint64_t key = mix2((uint64_t)root, sizes[i]);
            fill(data, sizes[i], run->rank == root ? key : 0);
            RANK_STATUS(run, TSR_OK, tsr_comm_broadcast(run->comm, root, data, sizes[i]));
            RANK_CHECK(run, holds(data, sizes[i], key));
        }
    }
    free(data);
}

static void broadcasts_reach_all_from_every_root(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, broadcast_body);
}

/* Rank r sends r * unit bytes, so that one rank sends nothing. */
static void gather_to(rank_run *run, int32_t root, size_t unit)
{
    size_t bytes_of[64] = {0};
    size_t sum = 0;
    for (int32_t r = 0; r < run->size; r++) {
        bytes_of[r] = (size_t)r * unit;
        sum += bytes_of[r];
    }
    unsigned char *send = malloc(bytes_of[run->rank] + 1);
    unsigned char *recv = malloc(sum + 1);
    RANK_CHECK(run, send != NULL && recv != NULL);
    if (send != NULL && recv != NULL) {
        fill(send, bytes_of[run->rank], mix((uint64_t)run->rank));
        RANK_STATUS(run, TSR_OK,
                    tsr_comm_gather(run->comm, root, bytes_of[run->rank] != 0 ? send : NULL,
                                    bytes_of, run->rank == root ? recv : NULL));
        const unsigned char *at = recv;
        for (int32_t r = 0; r < run->size && run->rank == root; r++) {
            RANK_CHECK(run, holds(at, bytes_of[r], mix((uint64_t)r)));
            at += bytes_of[r];
        }
    }
    free(send);
    free(recv);
}

static void gather_body(rank_run *run)
{
    for (int32_t root = 0; root < run->size; root++)
        gather_to(run, root, 808);
    gather_to(run, 0, (size_t)6 << 20);
}

static void gathers_bring_each_ranks_own_number_of_bytes(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, gather_body);
}

/* Rank 0 tells a new number after each barrier; a rank that passed too early would read the old. */
static void barrier_body(rank_run *run)
{
    for (uint64_t i = 0; i < 50 && run->failures == 0; i++) {
        uint64_t told = run->rank == 0 ? mix(i) : 0;
        RANK_STATUS(run, TSR_OK, tsr_comm_barrier(run->comm));
        RANK_STATUS(run, TSR_OK, tsr_comm_broadcast(run->comm, 0, &told, sizeof(told)));
        RANK_STATUS(run, TSR_OK, tsr_comm_barrier(run->comm));
        RANK_CHECK(run, told == mix(i));
    }
}

static void barriers_and_broadcasts_alternate(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, barrier_body);
}

static void name_body(rank_run *run)
{
    RANK_CHECK(run, strcmp(tsr_comm_name(run->comm), ranks_are_local() ? "local" : "mpi") == 0);
    RANK_CHECK(run, run->rank >= 0 && run->rank < run->size);
    RANK_CHECK(run, tsr_comm_deadline_ms(run->comm) == DEADLINE_MS);
    RANK_STATUS(run, TSR_OK, tsr_comm_cause(run->comm));
}

static void a_group_knows_its_name_and_no_cause(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, name_body);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_knows_its_name_and_no_cause),
        cmocka_unit_test(broadcasts_reach_all_from_every_root),
        cmocka_unit_test(gathers_bring_each_ranks_own_number_of_bytes),
        cmocka_unit_test(barriers_and_broadcasts_alternate),
    };
    if (!ranks_begin(argc, argv))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ranks_end();
    return failed;
}
