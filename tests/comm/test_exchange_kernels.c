/*
 * The kernels of the exchange between GPUs, with all ranks on one: every rank has a window, a block
 * and a stream of its own there, and reaches the windows of the others as it would through NCCL,
 * which is not asked. Skipped where there is no GPU.
 *
 *      rows of every rank --dispatch, arrive--> checked, answered by the host --return--> checked
 *                                                '----> answered by an echo ------------> checked
 */
#include "comm/exchange_nccl_kernels.h"
#include "runtime/base/clock.h"
#include "tests/comm/keyed_bytes.h"
#include "tests/test.h"

#include <cuda_runtime.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 8, SKIPPED = 77, WITHIN_MS = 10000, LOOK_MS = 2000, ROUNDS = 3 };

/* What all ranks exchange, and how many tokens each has. */
typedef struct trial {
    int32_t ranks;
    int32_t slots;
    int32_t row_bytes;
    int32_t return_row_bytes;
    int32_t max_tokens;
    int32_t tokens[MOST];
    uint64_t seed;
} trial;

typedef struct party {
    tsr_nccl_work work[MOST];
    cudaStream_t stream[MOST];
    cudaStream_t looking; /* beside the work */
    unsigned char *seen;  /* of the host */
    tsr_nccl_fault *fault;
} party;

#define CUDA(call) assert_int_equal((call), cudaSuccess)

static void party_open(const trial *t, party *p)
{
    const tsr_exchange_shape shape = {t->max_tokens, t->ranks * t->max_tokens, t->slots,
                                      (size_t)t->row_bytes, (size_t)t->return_row_bytes};
    const tsr_nccl_layout at = tsr_nccl_layout_of(&shape, t->ranks);

    memset(p, 0, sizeof(*p));
    CUDA(cudaHostAlloc((void **)&p->fault, sizeof(*p->fault), cudaHostAllocMapped));
    memset(p->fault, 0, sizeof(*p->fault));
    CUDA(cudaHostAlloc((void **)&p->seen, at.notices_end + sizeof(tsr_nccl_state), 0));
    CUDA(cudaStreamCreateWithFlags(&p->looking, cudaStreamNonBlocking));
    for (int32_t r = 0; r < t->ranks; r++) {
        tsr_nccl_work *w = &p->work[r];
        *w = (tsr_nccl_work){
            .at = at,
            .fault = p->fault,
            .row_bytes = shape.row_bytes,
            .return_row_bytes = shape.return_row_bytes,
            .rank = r,
            .ranks = t->ranks,
            .slots = t->slots,
            .max_tokens = shape.max_tokens,
            .max_arrivals = shape.max_arrivals,
        };
        CUDA(cudaMalloc((void **)&w->window, at.window_bytes));
        CUDA(cudaMemset(w->window, 0, at.window_bytes));
        CUDA(cudaMemset(w->window + at.coming_rows, TSR_NCCL_ABSENT & 0xff,
                        (size_t)at.few_rows * (size_t)t->slots * shape.return_row_bytes));
        CUDA(cudaMalloc((void **)&w->block, at.block_bytes));
        CUDA(cudaMemset(w->block, 0, at.block_bytes));
        CUDA(cudaStreamCreateWithFlags(&p->stream[r], cudaStreamNonBlocking));
    }
    for (int32_t r = 0; r < t->ranks; r++) {
        for (int32_t q = 0; q < t->ranks; q++)
            p->work[r].peer[q] = p->work[q].window;
    }
    CUDA(cudaDeviceSynchronize());
}

static void party_close(const trial *t, party *p)
{
    for (int32_t r = 0; r < t->ranks; r++) {
        CUDA(cudaStreamDestroy(p->stream[r]));
        CUDA(cudaFree(p->work[r].window));
        CUDA(cudaFree(p->work[r].block));
    }
    CUDA(cudaStreamDestroy(p->looking));
    CUDA(cudaFreeHost(p->seen));
    CUDA(cudaFreeHost(p->fault));
}

static tsr_stream stream_of(const party *p, int32_t rank)
{
    return (tsr_stream){.native = p->stream[rank]};
}

/* Where each rank stands, read beside its work. */
static void show_ranks(const trial *t, const party *p)
{
    for (int32_t r = 0; r < t->ranks; r++) {
        const tsr_nccl_work *w = &p->work[r];
        unsigned char *seen = p->seen;
        tsr_nccl_state state;

        (void)cudaMemcpyAsync(seen, w->window, w->at.notices_end, cudaMemcpyDeviceToHost,
                              p->looking);
        (void)cudaMemcpyAsync(seen + w->at.notices_end, w->block + w->at.state, sizeof(state),
                              cudaMemcpyDeviceToHost, p->looking);
        const int64_t until = tsr_clock_ms() + LOOK_MS;
        while (cudaStreamQuery(p->looking) == cudaErrorNotReady && tsr_clock_ms() < until)
            ;
        memcpy(&state, seen + w->at.notices_end, sizeof(state));
        (void)printf("rank %d, %d tokens, stream %d: epoch %u stage %d phase %d; notices", (int)r,
                     (int)t->tokens[r], (int)cudaStreamQuery(p->stream[r]), state.epoch,
                     (int)state.stage, (int)state.phase);
        for (uint64_t n = 0; n < w->at.notices_end / sizeof(tsr_nccl_notice); n++) {
            tsr_nccl_notice notice;
            memcpy(&notice, seen + n * sizeof(notice), sizeof(notice));
            (void)printf(" %u:%x", notice.epoch, (unsigned)notice.told);
        }
        (void)puts("");
    }
}

/* Whether all streams pass what they were given; a rank that waits for ever fails the test, and the
 * next is not begun, since it would wait behind this one. */
static void await_all(const trial *t, const party *p)
{
    const int64_t until = tsr_clock_ms() + WITHIN_MS;

    for (int32_t r = 0; r < t->ranks; r++) {
        cudaError_t e = cudaStreamQuery(p->stream[r]);
        while (e == cudaErrorNotReady && tsr_clock_ms() < until)
            e = cudaStreamQuery(p->stream[r]);
        if (e == cudaErrorNotReady) {
            show_ranks(t, p);
            (void)fflush(stdout);
            _exit(1);
        }
        if (e != cudaSuccess)
            fail_msg("rank %d: %s", (int)r, cudaGetErrorString(e));
    }
}

static int32_t target_of(const trial *t, int32_t source, int32_t row, int32_t slot)
{
    const uint64_t key = mix2(mix2(t->seed ^ 0x5157U, (uint64_t)source), (uint64_t)row);
    const uint64_t random = mix2(key, (uint64_t)slot);

    return random % 5 == 0 ? -1 : (int32_t)(random / 5 % (uint64_t)t->ranks);
}

static bool goes_to(const trial *t, int32_t source, int32_t row, int32_t rank)
{
    for (int32_t k = 0; k < t->slots; k++) {
        if (target_of(t, source, row, k) == rank)
            return true;
    }
    return false;
}

/* Of any rank. */
static int32_t most_tokens(const trial *t)
{
    int32_t most = 0;

    for (int32_t r = 0; r < t->ranks; r++)
        most = t->tokens[r] > most ? t->tokens[r] : most;
    return most;
}

static bool goes_as_packets(const trial *t, const party *p)
{
    return tsr_nccl_is_few(&p->work[0], most_tokens(t));
}

static uint64_t row_key(const trial *t, int32_t source, int32_t row)
{
    return mix2(mix2(t->seed ^ 0x726f77U, (uint64_t)source), (uint64_t)row);
}

static uint64_t answer_key(const trial *t, int32_t source, int32_t row, int32_t slot)
{
    return mix2(row_key(t, source, row), (uint64_t)slot + 7);
}

static void put_rows(const trial *t, const party *p, int32_t rank)
{
    const tsr_nccl_work *w = &p->work[rank];
    const int32_t tokens = t->tokens[rank];
    unsigned char *row = malloc((size_t)t->row_bytes);

    assert_non_null(row);
    for (int32_t i = 0; i < tokens; i++) {
        fill(row, (size_t)t->row_bytes, row_key(t, rank, i));
        CUDA(cudaMemcpy(w->block + w->at.send_rows + (size_t)i * (size_t)t->row_bytes, row,
                        (size_t)t->row_bytes, cudaMemcpyHostToDevice));
        for (int32_t k = 0; k < t->slots; k++) {
            const int32_t target = target_of(t, rank, i, k);
            CUDA(cudaMemcpy(w->block + w->at.send_ranks +
                                ((size_t)i * (size_t)t->slots + (size_t)k) * sizeof(target),
                            &target, sizeof(target), cudaMemcpyHostToDevice));
        }
    }
    free(row);
}

static int32_t count_at(const unsigned char *at)
{
    int32_t count = -1;

    CUDA(cudaMemcpy(&count, at, sizeof(count), cudaMemcpyDeviceToHost));
    return count;
}

/* Where a row has arrived, and what its slots are answered by. */
typedef struct arrived_row {
    int32_t source;
    int32_t row;
    int32_t at;
    int32_t place; /* of its first answer, at its source */
} arrived_row;

/* Answers the row's slots where its source reads the answers. */
static void check_row(const trial *t, const tsr_nccl_work *w, const arrived_row *a)
{
    const size_t row_bytes = (size_t)t->row_bytes;
    const size_t answer_bytes = (size_t)t->return_row_bytes;
    unsigned char *bytes = malloc(row_bytes > answer_bytes ? row_bytes : answer_bytes);
    int32_t *answer_of = malloc((size_t)t->slots * sizeof(*answer_of));

    assert_non_null(bytes);
    assert_non_null(answer_of);
    CUDA(cudaMemcpy(bytes, w->window + w->at.arrived_rows + (size_t)a->at * row_bytes, row_bytes,
                    cudaMemcpyDeviceToHost));
    assert_true(holds(bytes, row_bytes, row_key(t, a->source, a->row)));
    CUDA(cudaMemcpy(answer_of,
                    w->window + w->at.answer_of +
                        (size_t)a->at * (size_t)t->slots * sizeof(*answer_of),
                    (size_t)t->slots * sizeof(*answer_of), cudaMemcpyDeviceToHost));
    for (int32_t k = 0; k < t->slots; k++) {
        const bool mine = target_of(t, a->source, a->row, k) == w->rank;
        const int32_t place = a->place + k;
        assert_int_equal(answer_of[k], mine ? a->source << TSR_NCCL_PART_BITS | place : -1);
        if (!mine)
            continue;
        fill(bytes, answer_bytes, answer_key(t, a->source, a->row, k));
        CUDA(cudaMemcpy(w->peer[a->source] + w->at.returned_rows + (size_t)place * answer_bytes,
                        bytes, answer_bytes, cudaMemcpyHostToDevice));
    }
    free(answer_of);
    free(bytes);
}

/* Everybody's, those that name another rank or are none among them. */
static void check_packets(const trial *t, const party *p, int32_t rank)
{
    const tsr_nccl_work *w = &p->work[rank];
    const int32_t most = most_tokens(t) > 0 ? most_tokens(t) : 1;
    const size_t answers = (size_t)t->slots * sizeof(int32_t);
    int32_t *answer_of = malloc(answers);
    arrived_row a = {0};

    assert_non_null(answer_of);
    for (a.source = 0; a.source < t->ranks; a.source++) {
        for (a.row = 0; a.row < most; a.row++, a.at++) {
            a.place = (t->max_tokens + a.row) * t->slots;
            if (a.row < t->tokens[a.source]) {
                check_row(t, w, &a);
                continue;
            }
            CUDA(cudaMemcpy(answer_of, w->window + w->at.answer_of + (size_t)a.at * answers,
                            answers, cudaMemcpyDeviceToHost));
            for (int32_t k = 0; k < t->slots; k++)
                assert_int_equal(answer_of[k], -1);
        }
    }
    free(answer_of);
    assert_int_equal(count_at(w->block + w->at.arrived_count), most_tokens(t) * t->ranks);
}

static void check_arrivals(const trial *t, const party *p, int32_t rank)
{
    const tsr_nccl_work *w = &p->work[rank];
    arrived_row a = {0};

    if (goes_as_packets(t, p)) {
        check_packets(t, p, rank);
        return;
    }
    for (a.source = 0; a.source < t->ranks; a.source++) {
        for (a.row = 0; a.row < t->tokens[a.source]; a.row++) {
            if (!goes_to(t, a.source, a.row, rank))
                continue;
            a.place = a.row * t->slots;
            check_row(t, w, &a);
            a.at++;
        }
    }
    assert_int_equal(count_at(w->block + w->at.arrived_count), a.at);
}

static void check_returned(const trial *t, const party *p, int32_t rank)
{
    const tsr_nccl_work *w = &p->work[rank];
    const size_t bytes = (size_t)t->return_row_bytes;
    unsigned char *answer = malloc(bytes);

    assert_non_null(answer);
    for (int32_t i = 0; i < t->tokens[rank]; i++) {
        for (int32_t k = 0; k < t->slots; k++) {
            if (target_of(t, rank, i, k) < 0)
                continue;
            CUDA(cudaMemcpy(answer,
                            w->window + w->at.returned_rows +
                                ((size_t)i * (size_t)t->slots + (size_t)k) * bytes,
                            bytes, cudaMemcpyDeviceToHost));
            assert_true(holds(answer, bytes, answer_key(t, rank, i, k)));
        }
    }
    free(answer);
}

/* Answers that are the beginnings of their rows. */
static void check_echoes(const trial *t, const party *p, int32_t rank)
{
    const tsr_nccl_work *w = &p->work[rank];
    const size_t bytes = (size_t)t->return_row_bytes;
    unsigned char *answer = malloc(bytes);
    unsigned char *row = malloc((size_t)t->row_bytes);

    assert_non_null(answer);
    assert_non_null(row);
    for (int32_t i = 0; i < t->tokens[rank]; i++) {
        fill(row, (size_t)t->row_bytes, row_key(t, rank, i));
        for (int32_t k = 0; k < t->slots; k++) {
            const size_t place = (size_t)i * (size_t)t->slots + (size_t)k;
            if (target_of(t, rank, i, k) < 0)
                continue;
            CUDA(cudaMemcpy(answer, w->window + w->at.returned_rows + place * bytes, bytes,
                            cudaMemcpyDeviceToHost));
            assert_memory_equal(answer, row, bytes);
        }
    }
    free(row);
    free(answer);
}

/* Every arrived row to all who asked; few are taken in the same breath. */
static void echo(const trial *t, const party *p)
{
    const int32_t most = most_tokens(t);

    for (int32_t r = 0; r < t->ranks; r++) {
        const tsr_nccl_work *w = &p->work[r];
        const tsr_stream s = stream_of(p, r);
        assert_int_equal(goes_as_packets(t, p) ? tsr_nccl_echo_and_take(w, t->tokens[r], most, s)
                                               : tsr_nccl_echo(w, s),
                         TSR_OK);
    }
    await_all(t, p);
    for (int32_t r = 0; r < t->ranks; r++)
        check_echoes(t, p, r);
}

static void go_there_and_back(const trial *t, const party *p)
{
    const int32_t most = most_tokens(t);

    for (int32_t r = 0; r < t->ranks; r++)
        put_rows(t, p, r);
    /* A kernel that comes behind another of its stream may wait for all streams on a GPU, so those
     * that are several come first: of one rank, in a trial of many and few. */
    for (int32_t several = 1; several >= 0; several--) {
        for (int32_t r = 0; r < t->ranks; r++) {
            if ((t->tokens[r] > TSR_NCCL_MOST_FEW) == (several != 0))
                assert_int_equal(
                    tsr_nccl_dispatch(&p->work[r], t->tokens[r], most, stream_of(p, r)), TSR_OK);
        }
    }
    for (int32_t r = 0; r < t->ranks; r++)
        assert_int_equal(tsr_nccl_arrive(&p->work[r], most, stream_of(p, r)), TSR_OK);
    await_all(t, p);
    for (int32_t r = 0; r < t->ranks; r++)
        check_arrivals(t, p, r);
    for (int32_t r = 0; r < t->ranks; r++)
        assert_int_equal(tsr_nccl_return(&p->work[r], t->tokens[r], most, stream_of(p, r)), TSR_OK);
    await_all(t, p);
    for (int32_t r = 0; r < t->ranks; r++)
        check_returned(t, p, r);
    if (t->return_row_bytes <= t->row_bytes)
        echo(t, p);
    assert_int_equal(p->fault->kind, TSR_NCCL_NO_FAULT);
}

/* Every rank has other tokens in each round, and rows of one step may follow those of another. */
static void run_trial(trial t, const int32_t tokens[ROUNDS][MOST])
{
    party p;

    party_open(&t, &p);
    for (int round = 0; round < ROUNDS; round++) {
        t.seed = mix2(t.seed, (uint64_t)round);
        memcpy(t.tokens, tokens[round], sizeof(t.tokens));
        for (int32_t r = 0; r < t.ranks && round != 1; r++)
            assert_int_equal(tsr_nccl_begin(&p.work[r], (uint64_t)round, stream_of(&p, r)), TSR_OK);
        go_there_and_back(&t, &p);
    }
    party_close(&t, &p);
}

static const int32_t few[ROUNDS][MOST] = {
    {1, 2, 0, 4, 3, 0, 1, 5}, {4, 4, 4, 4, 4, 4, 4, 4}, {0, 0, 0, 0, 0, 0, 0, 1}};
static const int32_t many[ROUNDS][MOST] = {
    {300, 260, 400, 299, 257, 399, 400, 1}, {400, 400, 400, 400}, {399, 301, 257, 258}};
/* As they are, also those of ranks that have few; as packets in the last round of some. */
static const int32_t mixed[ROUNDS][MOST] = {
    {300, 2, 0, 40, 3, 0, 1, 5}, {1, 400, 200, 0, 16, 4, 33, 4}, {40, 17, 90, 120, 7, 0, 64, 256}};

static void few_rows_travel(void **state)
{
    (void)state;
    for (int32_t ranks = 2; ranks <= MOST; ranks += ranks < 4 ? 1 : 4) {
        run_trial((trial){ranks, 8, 8224, 8192, 32, {0}, 1}, few);
        run_trial((trial){ranks, 1, 16, 16, 5, {0}, 2}, few);
        run_trial((trial){ranks, 5, 48, 80, 8, {0}, 3}, few);
    }
}

static void many_rows_travel(void **state)
{
    (void)state;
    run_trial((trial){2, 3, 48, 32, 400, {0}, 4}, many);
    run_trial((trial){3, 8, 1024, 1024, 400, {0}, 5}, many);
    run_trial((trial){4, 2, 4096, 16, 400, {0}, 6}, many);
}

static void many_and_few_rows_travel_at_once(void **state)
{
    (void)state;
    run_trial((trial){2, 8, 8224, 8192, 400, {0}, 7}, mixed);
    run_trial((trial){4, 8, 2048, 4096, 400, {0}, 8}, mixed);
    run_trial((trial){8, 3, 16384, 16, 400, {0}, 9}, mixed);
    run_trial((trial){2, 33, 48, 16, 400, {0}, 10}, mixed); /* too many slots for packets */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_rows_travel),
        cmocka_unit_test(many_rows_travel),
        cmocka_unit_test(many_and_few_rows_travel_at_once),
    };
    int cards = 0;

    /* One thread gives all ranks their work: nothing may wait for what a rank waits in, neither a
     * kernel that comes to the GPU with its first use nor a stream that shares another's queue. */
    assert_int_equal(setenv("CUDA_MODULE_LOADING", "EAGER", 1), 0);
    assert_int_equal(setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1), 0);
    if (cudaGetDeviceCount(&cards) != cudaSuccess || cards == 0) {
        (void)puts("no GPU");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
