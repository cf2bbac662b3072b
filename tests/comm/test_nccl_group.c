/*
 * Everything of the exchange between GPUs that needs none: who may join, how a communicator that
 * does not block is waited for, and where things lie. NCCL is played by a table of the test's own.
 */
#include "comm/exchange_nccl.h"
#include "comm/exchange_nccl_layout.h"
#include "comm/exchange_ops.h"
#include "comm/nccl_group.h"
#include "runtime/base/log.h"
#include "tests/comm/ranks.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_WORD = 77, TURNS = 3, NEVER = 1000000, SHORT_MS = 200, WINDOW_BYTES = 512, OLD = 22803 };

/* A communicator as the test's NCCL sees it. */
struct ncclComm {
    int32_t turns; /* questions until it is through */
    int32_t ranks;
    char id;
    bool zeroed;
    bool finalized;
};

static _Thread_local struct ncclComm made;
static _Thread_local int32_t turns_of_init;
static _Thread_local int32_t destroyed;
static _Thread_local int32_t aborted;
static _Thread_local int32_t team_size;

static ncclResult_t get_version(int *version)
{
    *version = OLD;
    return ncclSuccess;
}

static ncclResult_t get_unique_id(ncclUniqueId *id)
{
    id->internal[0] = ID_WORD;
    return ncclSuccess;
}

static const char *get_error_string(ncclResult_t result)
{
    return result == ncclSystemError ? "the test's error" : "another error";
}

static const char *get_last_error(ncclComm_t comm)
{
    (void)comm;
    return "";
}

static ncclResult_t comm_init(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank,
                              ncclConfig_t *config)
{
    (void)rank;
    made = (struct ncclComm){.turns = turns_of_init, .ranks = ranks, .id = id.internal[0]};
    *comm = &made;
    return config->blocking == 0 ? ncclInProgress : ncclInvalidUsage;
}

static ncclResult_t comm_error(ncclComm_t comm, ncclResult_t *ret_error)
{
    *ret_error = comm->turns > 0 ? ncclInProgress : ncclSuccess;
    if (comm->turns < 0)
        *ret_error = ncclSystemError;
    comm->turns -= comm->turns > 0;
    return ncclSuccess;
}

static ncclResult_t comm_finalize(ncclComm_t comm)
{
    comm->finalized = true;
    comm->turns = TURNS;
    return ncclInProgress;
}

static ncclResult_t comm_destroy(ncclComm_t comm)
{
    destroyed += comm->finalized && comm->turns == 0;
    return ncclSuccess;
}

static ncclResult_t comm_abort(ncclComm_t comm)
{
    (void)comm;
    aborted++;
    return ncclSuccess;
}

static ncclResult_t mem_alloc(void **memory, size_t bytes)
{
    *memory = malloc(bytes);
    memset(*memory, 1, bytes);
    return ncclSuccess;
}

static ncclResult_t mem_free(void *memory)
{
    free(memory);
    return ncclSuccess;
}

/* As NCCL does: success at once, the window once it is through. */
static ncclResult_t window_register(ncclComm_t comm, void *memory, size_t bytes,
                                    ncclWindow_t *window, int flags)
{
    const unsigned char *at = memory;

    comm->zeroed = flags == NCCL_WIN_COLL_SYMMETRIC;
    for (size_t i = 0; i < bytes; i++)
        comm->zeroed = comm->zeroed && at[i] == 0;
    comm->turns = TURNS;
    *window = (ncclWindow_t)memory;
    return ncclSuccess;
}

static ncclResult_t window_deregister(ncclComm_t comm, ncclWindow_t window)
{
    (void)window;
    comm->turns = TURNS;
    return ncclInProgress;
}

static tsr_nccl_team team_lsa(ncclComm_t comm)
{
    return (tsr_nccl_team){.ranks = team_size > 0 ? team_size : comm->ranks};
}

static const tsr_nccl_library library = {
    .get_version = get_version,
    .get_unique_id = get_unique_id,
    .get_error_string = get_error_string,
    .get_last_error = get_last_error,
    .comm_init = comm_init,
    .comm_error = comm_error,
    .comm_finalize = comm_finalize,
    .comm_destroy = comm_destroy,
    .comm_abort = comm_abort,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .window_register = window_register,
    .window_deregister = window_deregister,
    .team_lsa = team_lsa,
};

static tsr_status zero(void *memory, size_t bytes)
{
    memset(memory, 0, bytes);
    return TSR_OK;
}

/* A card of its own for each. */
static tsr_nccl_card card_of(int32_t rank)
{
    return (tsr_nccl_card){
        .call = {.kind = TSR_CALL_EXCHANGE_OPEN, .slots = 2},
        .version = OLD,
        .uuid = {(unsigned char)rank},
    };
}

static void begin(int32_t turns)
{
    turns_of_init = turns;
    destroyed = 0;
    aborted = 0;
    team_size = 0;
}

static void group_body(rank_run *run)
{
    const tsr_nccl_card card = card_of(run->rank);
    tsr_nccl_group g = {0};

    begin(TURNS + run->rank);
    RANK_STATUS(run, TSR_OK, tsr_nccl_group_open(run->comm, &library, &card, &g));
    RANK_CHECK(run, g.nccl == &made && made.turns == 0);
    RANK_CHECK(run, made.id == ID_WORD);
    RANK_STATUS(run, TSR_OK, tsr_nccl_group_window(&g, WINDOW_BYTES, zero));
    RANK_CHECK(run, made.zeroed && made.turns == 0);
    tsr_nccl_group_close(&g);
    RANK_CHECK(run, destroyed == 1 && aborted == 0 && g.nccl == NULL);
    tsr_nccl_group_close(&g);
}

static void rank_0s_id_reaches_all_and_every_call_is_waited_for(void **state)
{
    (void)state;
    ranks_run(DEADLINE_MS, group_body);
}

/* One fails while the others are waiting for it. */
static void failing_body(rank_run *run)
{
    const tsr_nccl_card card = card_of(run->rank);
    tsr_nccl_group g = {0};

    begin(rank_is_last(run) ? -1 : NEVER);
    const tsr_status st = tsr_nccl_group_open(run->comm, &library, &card, &g);
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_ERR_DEVICE, st);
        RANK_CHECK(run, strstr(run->log, "NCCL: starting: the test's error") != NULL);
        tsr_comm_abort(run->comm, st);
    } else {
        RANK_STATUS(run, TSR_ERR_PEER, st);
    }
    RANK_CHECK(run, aborted == 1 && destroyed == 0);
}

static void a_rank_that_fails_is_not_waited_for(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, failing_body);
}

static void late_body(rank_run *run)
{
    const tsr_nccl_card card = card_of(run->rank);
    tsr_nccl_group g = {0};

    begin(NEVER);
    RANK_STATUS(run, TSR_ERR_TIMEOUT, tsr_nccl_group_open(run->comm, &library, &card, &g));
    RANK_CHECK(run, strstr(run->log, "not all ranks came within 150 ms") != NULL);
    RANK_CHECK(run, aborted == 1);
}

static void a_start_that_does_not_end_is_given_up(void **state)
{
    (void)state;
    ranks_run_several(SHORT_MS, late_body);
}

/* NCCL never ends on the ranks that are there; the last has stopped behind the first meeting. */
static void stopped_body(rank_run *run)
{
    const tsr_nccl_card card = card_of(run->rank);
    tsr_nccl_group g = {0};
    char words[32];

    begin(rank_is_last(run) ? 0 : NEVER);
    const tsr_status st = tsr_nccl_group_open(run->comm, &library, &card, &g);
    if (rank_is_last(run)) {
        RANK_STATUS(run, TSR_OK, st);
        RANK_STATUS(run, TSR_ERR_TIMEOUT, rank_until_the_end(run));
        tsr_nccl_group_close(&g);
        return;
    }
    RANK_CHECK(run, st == TSR_ERR_TIMEOUT || st == TSR_ERR_PEER);
    (void)snprintf(words, sizeof(words), "rank %d", (int)run->size - 1);
    RANK_CHECK(run, st == TSR_ERR_PEER || strstr(run->log, words) != NULL);
    tsr_comm_abort(run->comm, st);
}

static void a_rank_that_stops_while_nccl_starts_is_named(void **state)
{
    (void)state;
    ranks_run_several(SHORT_MS, stopped_body);
}

static void apart_body(rank_run *run)
{
    const tsr_nccl_card card = card_of(run->rank);
    tsr_nccl_group g = {0};

    begin(0);
    team_size = 1;
    RANK_STATUS(run, TSR_OK, tsr_nccl_group_open(run->comm, &library, &card, &g));
    RANK_STATUS(run, TSR_ERR_DEVICE, tsr_nccl_group_window(&g, WINDOW_BYTES, zero));
    RANK_CHECK(run, strstr(run->log, "do not all reach each other's memory") != NULL);
    tsr_nccl_group_close(&g);
}

static void gpus_that_do_not_reach_each_other_are_refused(void **state)
{
    (void)state;
    ranks_run_several(DEADLINE_MS, apart_body);
}

static char last_line[512];

static void keep_line(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)snprintf(last_line, sizeof(last_line), "%s", line);
}

static void ranks_that_differ_are_refused_by_name(void **state)
{
    (void)state;
    tsr_nccl_card cards[3] = {card_of(0), card_of(1), card_of(2)};

    tsr_log_set_sink(keep_line, NULL);
    ASSERT_STATUS(TSR_OK, tsr_nccl_judge(cards, 3, 1));
    cards[2].call.slots = 5;
    ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_nccl_judge(cards, 3, 1));
    assert_non_null(strstr(last_line, "rank 2 at opening exchange 0"));
    cards[2] = card_of(2);
    cards[0].version++;
    ASSERT_STATUS(TSR_ERR_MISMATCH, tsr_nccl_judge(cards, 3, 1));
    assert_non_null(strstr(last_line, "NCCL is 22803 on this rank, 22804 on rank 0"));
}

/* Two ranks on one GPU: asked for by all, and by a version that knows it. */
static void a_gpu_is_shared_only_when_asked(void **state)
{
    (void)state;
    tsr_nccl_card cards[3] = {card_of(0), card_of(1), card_of(0)};

    tsr_log_set_sink(keep_line, NULL);
    ASSERT_STATUS(TSR_ERR_DEVICE, tsr_nccl_judge(cards, 3, 1));
    assert_non_null(strstr(last_line, "ranks 0 and 2 are on one GPU"));
    for (int32_t r = 0; r < 3; r++)
        cards[r].may_share = 1;
    ASSERT_STATUS(TSR_ERR_DEVICE, tsr_nccl_judge(cards, 3, 1));
    assert_non_null(strstr(last_line, "needs NCCL 2.30.3 or newer; here is 22803"));
    for (int32_t r = 0; r < 3; r++)
        cards[r].version = 23003;
    ASSERT_STATUS(TSR_OK, tsr_nccl_judge(cards, 3, 1));
}

/* Areas follow each other, begin on lines of 256 bytes and hold what they should. */
static void areas_do_not_overlap(void **state)
{
    (void)state;
    const tsr_exchange_shape shape = {5, 7, 3, 48, 16};
    const uint64_t ranks = 3;
    const tsr_nccl_layout l = tsr_nccl_layout_of(&shape, (int32_t)ranks);
    const struct {
        uint64_t from, to, bytes;
    } areas[] = {
        {l.notices, l.sent, 2 * ranks * ranks * sizeof(tsr_nccl_notice)},
        {l.sent, l.returned, ranks * sizeof(tsr_nccl_notice)},
        {l.returned, l.notices_end, ranks * sizeof(tsr_nccl_notice)},
        {l.arrived_rows, l.answer_of, (uint64_t)7 * 48},
        {l.answer_of, l.returned_rows, (uint64_t)7 * 3 * 4},
        {l.returned_rows, l.row_packets, (uint64_t)(5 + 2) * 3 * 16},
        {l.row_packets, l.window_bytes, 2 * ranks * 2 * (1 + 4) * 16},
        {l.send_rows, l.send_ranks, (uint64_t)5 * 48},
        {l.send_ranks, l.listed, (uint64_t)5 * 3 * 4},
        {l.listed, l.arrived_count, ranks * 5 * 4},
        {l.arrived_count, l.waited, 4},
        {l.waited, l.done, ranks * 8},
        {l.done, l.bare, (ranks + 1) * 4},
        {l.bare, l.peers, ranks * TSR_EXCHANGE_BARE_CTAS * 4},
        {l.peers, l.parts, ranks * sizeof(void *)},
        {l.parts, l.state, ranks * sizeof(void *)},
        {l.state, l.block_bytes, sizeof(tsr_nccl_state)},
    };

    for (size_t i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
        assert_int_equal(areas[i].from % 256, 0);
        assert_true(areas[i].to >= areas[i].from + areas[i].bytes);
        assert_true(areas[i].to < areas[i].from + areas[i].bytes + 256);
    }
    assert_int_equal(l.few_rows, 2); /* of each of three ranks, where seven arrive */
    assert_int_equal(l.coming_rows, l.returned_rows + (uint64_t)5 * 3 * 16);
    assert_int_equal(tsr_exchange_nccl_bytes(&shape, 3), l.window_bytes + l.block_bytes);
}

static void put_notice(unsigned char *notices, uint64_t area, uint64_t index, tsr_nccl_notice n)
{
    memcpy(notices + area + index * sizeof(n), &n, sizeof(n));
}

/* Rank 2 has told two ranks of three what it sends; then all have, but rank 1 has not sent. */
static void who_is_missing_is_told_by_what_has_come(void **state)
{
    (void)state;
    const tsr_exchange_shape shape = {5, 7, 3, 48, 16};
    const tsr_nccl_layout l = tsr_nccl_layout_of(&shape, 3);
    const tsr_nccl_notice now = {.epoch = 9};
    const tsr_nccl_notice before = {.epoch = 8};
    tsr_nccl_state at = {.epoch = 9, .phase = TSR_PHASE_DISPATCHED};
    unsigned char *notices = calloc(1, l.notices_end);
    int32_t missing[3];

    assert_non_null(notices);
    assert_int_equal(tsr_nccl_missing(&l, 3, 2, notices, &at, missing), 3);
    for (uint64_t i = 0; i < 8; i++)
        put_notice(notices, l.notices, 9 + i, now);
    assert_int_equal(tsr_nccl_missing(&l, 3, 2, notices, &at, missing), 1);
    assert_int_equal(missing[0], 2);
    at.packed = 1; /* who sends packets tells each rank alone */
    assert_int_equal(tsr_nccl_missing(&l, 3, 1, notices, &at, missing), 0);
    assert_int_equal(tsr_nccl_missing(&l, 3, 2, notices, &at, missing), 1);
    assert_int_equal(missing[0], 2);
    at.packed = 0;
    put_notice(notices, l.notices, 17, now);
    put_notice(notices, l.sent, 0, now);
    put_notice(notices, l.sent, 1, before);
    put_notice(notices, l.sent, 2, now);
    assert_int_equal(tsr_nccl_missing(&l, 3, 2, notices, &at, missing), 1);
    assert_int_equal(missing[0], 1);
    put_notice(notices, l.sent, 1, now);
    assert_int_equal(tsr_nccl_missing(&l, 3, 2, notices, &at, missing), 0);

    at.phase = TSR_PHASE_RETURNING;
    put_notice(notices, l.returned, 0, now);
    put_notice(notices, l.returned, 1, before);
    put_notice(notices, l.returned, 2, now);
    assert_int_equal(tsr_nccl_missing(&l, 3, 2, notices, &at, missing), 1);
    assert_int_equal(missing[0], 1);
    at.phase = TSR_PHASE_ARRIVED;
    assert_int_equal(tsr_nccl_missing(&l, 3, 2, notices, &at, missing), 0);
    free(notices);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_0s_id_reaches_all_and_every_call_is_waited_for),
        cmocka_unit_test(a_rank_that_fails_is_not_waited_for),
        cmocka_unit_test(a_start_that_does_not_end_is_given_up),
        cmocka_unit_test(a_rank_that_stops_while_nccl_starts_is_named),
        cmocka_unit_test(gpus_that_do_not_reach_each_other_are_refused),
        cmocka_unit_test(ranks_that_differ_are_refused_by_name),
        cmocka_unit_test(a_gpu_is_shared_only_when_asked),
        cmocka_unit_test(areas_do_not_overlap),
        cmocka_unit_test(who_is_missing_is_told_by_what_has_come),
    };
    if (!ranks_begin(argc, argv))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ranks_end();
    return failed;
}
