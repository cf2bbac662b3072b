/*
 * Every rank sends the same rows to every rank, itself included, and gets one answer for each:
 *
 *      dispatch  wait      dispatch  wait      ...      time of one, there
 *      dispatch  wait  return  wait            ...      less that: time of one, back, and between
 *                                                       GPUs of storing answers, which are echoes,
 *                                                       and of taking few as they come
 *      the same bytes, as plain copies or as bare packets: what either could come to
 *
 * Several are recorded as one piece, as those of a step are, and played; the median of many plays
 * counts. Random bytes, since links and memory may make something of zeros.
 */
#include "launch/bench/bench_comm.h"

#include "comm/exchange.h"
#include "kernels/device.h"
#include "launch/cli/backends.h"
#include "launch/job/bind.h"
#include "launch/job/exchange_memory.h"
#include "launch/job/host.h"
#include "launch/job/ranks.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <stdlib.h>
#include <string.h>

enum { TIMES = 40, PLAYS = 25, ROW_BYTES = 8192, KIB = 1024, MIB = KIB * KIB };

/* Of these bytes waits are told, by pair of ranks. */
enum { WAITED_BYTES = 64 * KIB };

/* What one rank dispatches of each size: there, and there and back. */
enum { DISPATCHES = 2 * TIMES * PLAYS };

/* More bytes of a rank to all are no packets. */
enum { BARE_BYTES = 2 * MIB };

/* Bytes from each rank to each. */
static const int32_t sizes[] = {16 * KIB, 64 * KIB, 256 * KIB, 512 * KIB, MIB, 16 * MIB};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

typedef enum motion { THERE, THERE_AND_BACK, PLAIN, BARE } motion;

typedef struct bench {
    const tsr_config *config;
    FILE *out;
    tsr_comm *comm;
    tsr_device *device;
    tsr_exchange *exchange;
    tsr_stream stream;
    tsr_mark *mark;
    int32_t tokens;
    int32_t bare_ctas; /* of each peer */
    bool echoes;       /* answers are stored by whoever computes them */
} bench;

/* Microseconds; 0: there is none. */
typedef struct times {
    double there;
    double back;
    double plain;
    double bare;
} times;

static tsr_status wait_for_stream(const bench *b)
{
    bool passed = false;

    tsr_status st = tsr_device_mark(b->device, b->mark, b->stream);
    while (st == TSR_OK && !passed) {
        st = tsr_exchange_poll(b->exchange);
        if (st == TSR_OK)
            st = tsr_device_passed(b->device, b->mark, &passed);
    }
    return st;
}

static tsr_status move_back(const bench *b)
{
    tsr_exchange_coming coming;
    tsr_status st = TSR_OK;

    if (tsr_exchange_hand_over(b->exchange, &coming))
        return tsr_exchange_echo(b->exchange, &coming, b->stream);
    if (b->echoes)
        st = tsr_exchange_echo(b->exchange, NULL, b->stream);
    if (st == TSR_OK)
        st = tsr_exchange_return(b->exchange, b->stream);
    return st == TSR_OK ? tsr_exchange_wait(b->exchange, b->stream) : st;
}

static tsr_status move_once(const bench *b, motion how)
{
    if (how == PLAIN)
        return tsr_exchange_copy_plainly(b->exchange, b->tokens, b->stream);
    if (how == BARE)
        return tsr_exchange_bare_packets(b->exchange, b->tokens, b->bare_ctas, b->stream);
    tsr_status st = tsr_exchange_dispatch(b->exchange, b->tokens, b->stream);
    if (st == TSR_OK)
        st = tsr_exchange_wait(b->exchange, b->stream);
    return st == TSR_OK && how == THERE_AND_BACK ? move_back(b) : st;
}

static tsr_status move(const bench *b, motion how)
{
    tsr_status st = TSR_OK;

    for (int i = 0; st == TSR_OK && i < TIMES; i++)
        st = move_once(b, how);
    return st;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One play, with all ranks at its start. A device that does not record moves the rows anew. */
static tsr_status time_play(const bench *b, motion how, tsr_recording *recording, double *ret_us)
{
    tsr_status st = tsr_comm_barrier(b->comm);
    const int64_t begin = tsr_clock_ns();

    if (st == TSR_OK)
        st = recording != NULL ? tsr_device_replay(b->device, recording, b->stream) : move(b, how);
    if (st == TSR_OK)
        st = wait_for_stream(b);
    *ret_us = (double)(tsr_clock_ns() - begin) / 1e3 / TIMES;
    return st;
}

static tsr_status time_motion(const bench *b, motion how, double *ret_us)
{
    tsr_recording *recording = NULL;
    double us[PLAYS] = {0};

    tsr_status st = tsr_exchange_begin(b->exchange, 1, b->stream);
    if (st == TSR_OK)
        st = tsr_device_record(b->device, b->stream);
    if (st == TSR_OK)
        st = move(b, how);
    if (st == TSR_OK)
        st = tsr_device_recorded(b->device, b->stream, &recording);
    for (int i = 0; st == TSR_OK && i < PLAYS; i++)
        st = time_play(b, how, recording, &us[i]);
    if (recording != NULL)
        tsr_device_recording_close(b->device, recording);
    qsort(us, PLAYS, sizeof(us[0]), by_value);
    if (st == TSR_OK)
        *ret_us = us[PLAYS / 2];
    return st;
}

/* Rows of any bytes, each to every rank. */
static tsr_status put_rows(const bench *b, int32_t ranks)
{
    const tsr_exchange_buffers buffers = tsr_exchange_buffers_of(b->exchange);
    const size_t pairs = (size_t)b->tokens * (size_t)ranks;
    const size_t bytes = (size_t)b->tokens * ROW_BYTES;
    void *rows = NULL;
    void *slots = NULL;

    tsr_status st = tsr_device_host_alloc(b->device, bytes, &rows);
    if (st == TSR_OK)
        st = tsr_device_host_alloc(b->device, pairs * sizeof(int32_t), &slots);
    if (st == TSR_OK) {
        uint64_t random = (uint64_t)tsr_comm_rank(b->comm) + 1;
        for (size_t i = 0; i < bytes; i++) {
            random = random * 6364136223846793005U + 1442695040888963407U;
            ((unsigned char *)rows)[i] = (unsigned char)(random >> 56);
        }
        for (size_t i = 0; i < pairs; i++)
            ((int32_t *)slots)[i] = (int32_t)(i % (size_t)ranks);
        st = tsr_device_put(b->device, buffers.send_rows, rows, bytes, b->stream);
    }
    if (st == TSR_OK)
        st = tsr_device_put(b->device, buffers.send_ranks, slots, pairs * sizeof(int32_t),
                            b->stream);
    if (st == TSR_OK)
        st = wait_for_stream(b);
    tsr_device_host_free(b->device, slots);
    tsr_device_host_free(b->device, rows);
    return st;
}

static void write_line(const bench *b, int32_t bytes, const times *t)
{
    const double out = (double)bytes * (tsr_comm_size(b->comm) - 1);

    if (tsr_comm_rank(b->comm) != 0)
        return;
    (void)fprintf(b->out,
                  "%7d KiB a peer: dispatch %8.1f us %6.1f GB/s   return %8.1f us %6.1f GB/s",
                  (int)(bytes / KIB), t->there, out / t->there / 1e3, t->back, out / t->back / 1e3);
    if (t->plain > 0)
        (void)fprintf(b->out, "   plain copies %8.1f us %6.1f GB/s", t->plain,
                      out / t->plain / 1e3);
    if (t->bare > 0)
        (void)fprintf(b->out, "   bare packets %.1f us: dispatch %.2f, return %.2f of them",
                      t->bare, t->there / t->bare, t->back / t->bare);
    (void)fputc('\n', b->out);
}

/* With as many CTAs as suit them best; the last that an exchange does. */
static tsr_status time_bare(bench *b, double *ret_us)
{
    double best = 0;
    tsr_status st = TSR_OK;

    for (b->bare_ctas = 1; st == TSR_OK && b->bare_ctas <= TSR_EXCHANGE_BARE_CTAS;
         b->bare_ctas *= 2) {
        double us = 0;
        st = time_motion(b, BARE, &us);
        best = best > 0 && best < us ? best : us;
    }
    if (st == TSR_OK)
        *ret_us = best;
    return st;
}

/* What only GPUs have. */
static tsr_status time_cards(bench *b, int32_t bytes, times *t)
{
    const tsr_status st = time_motion(b, PLAIN, &t->plain);

    return st == TSR_OK && (int64_t)bytes * tsr_comm_size(b->comm) <= BARE_BYTES
               ? time_bare(b, &t->bare)
               : st;
}

static void write_waits(const bench *b, const int64_t *ns)
{
    const int32_t ranks = tsr_comm_size(b->comm);

    (void)fprintf(b->out, "waits for notices, us a dispatch of %d KiB, by rank (row) for rank:\n",
                  WAITED_BYTES / KIB);
    for (int32_t r = 0; r < ranks; r++) {
        for (int32_t peer = 0; peer < ranks; peer++)
            (void)fprintf(b->out, " %7.2f",
                          (double)ns[(size_t)r * (size_t)ranks + (size_t)peer] / 1e3 / DISPATCHES);
        (void)fputc('\n', b->out);
    }
}

/* For whom each rank has waited in all dispatches until here. */
static tsr_status tell_waits(const bench *b)
{
    const size_t ranks = (size_t)tsr_comm_size(b->comm);
    const int64_t *mine = tsr_exchange_waited_ns(b->exchange);
    int64_t *all = calloc(ranks * ranks, sizeof(*all));
    size_t *bytes_of = calloc(ranks, sizeof(*bytes_of));
    tsr_status st = all != NULL && bytes_of != NULL ? TSR_OK : TSR_ERR_MEMORY;

    for (size_t r = 0; st == TSR_OK && r < ranks; r++)
        bytes_of[r] = ranks * sizeof(*all);
    if (st == TSR_OK)
        st = tsr_comm_gather(b->comm, 0, mine, bytes_of, all);
    if (st == TSR_OK && tsr_comm_rank(b->comm) == 0)
        write_waits(b, all);
    free(bytes_of);
    free(all);
    return st;
}

static tsr_status time_all(bench *b, int32_t bytes, times *t)
{
    double both = 0;
    tsr_status st = put_rows(b, tsr_comm_size(b->comm));

    if (st == TSR_OK)
        st = time_motion(b, THERE, &t->there);
    if (st == TSR_OK)
        st = time_motion(b, THERE_AND_BACK, &both);
    t->back = both - t->there;
    if (st == TSR_OK && bytes == WAITED_BYTES && tsr_comm_size(b->comm) > 1)
        st = tell_waits(b);
    if (st == TSR_OK && strcmp(tsr_exchange_name(b->exchange), "nccl") == 0)
        st = time_cards(b, bytes, t);
    return st;
}

static tsr_status measure(bench *b, int32_t bytes)
{
    const int32_t ranks = tsr_comm_size(b->comm);
    const int32_t tokens = bytes / ROW_BYTES;
    const tsr_exchange_shape shape = {tokens, ranks * tokens, ranks, ROW_BYTES, ROW_BYTES};
    times t = {0};

    b->tokens = tokens;
    tsr_status st = tsr_exchange_open(b->comm, &shape, &b->exchange);
    b->echoes = st == TSR_OK && tsr_exchange_buffers_of(b->exchange).answer_parts != NULL;
    if (st == TSR_OK)
        st = time_all(b, bytes, &t);
    if (st == TSR_OK)
        write_line(b, bytes, &t);
    if (b->exchange != NULL)
        tsr_exchange_drain(b->exchange, b->stream);
    tsr_exchange_close(b->exchange);
    b->exchange = NULL;
    return st;
}

static tsr_status measure_all(bench *b)
{
    tsr_status st = tsr_device_stream_open(b->device, &b->stream);

    if (st == TSR_OK)
        st = tsr_device_mark_open(b->device, &b->mark);
    for (int i = 0; st == TSR_OK && i < SIZES; i++)
        st = measure(b, sizes[i]);
    if (b->mark != NULL)
        tsr_device_mark_close(b->device, b->mark);
    if (b->stream.native != NULL)
        tsr_device_stream_close(b->device, b->stream);
    return st;
}

static tsr_status rank_main(tsr_comm *comm, void *context)
{
    bench b = *(const bench *)context;
    const tsr_config *config = b.config;
    tsr_hosts *hosts = NULL;

    b.comm = comm;
    tsr_status st = tsr_hosts_open(comm, !tsr_backend_of(config->backend)->host, &hosts);
    if (st != TSR_OK)
        return st;
    const tsr_host_share share = tsr_hosts_share(hosts, tsr_comm_rank(comm));
    const tsr_host_share smallest = tsr_hosts_smallest(hosts);
    const tsr_backend_ranks ranks = {
        .ranks = smallest.ranks_here,
        .on_card = smallest.card_ranks,
        .allowed = (int32_t)config->ranks_per_gpu,
        .crowd = tsr_hosts_crowd(hosts),
    };
    const tsr_backend *backend = tsr_backend_find(config->backend, &ranks);
    st = tsr_backend_check(backend, &ranks);
    tsr_hosts_close(hosts);
    tsr_bind_rank(&share, !backend->host);
    if (st == TSR_OK)
        st = backend->open(config, share.threads, share.card, &b.device);
    const tsr_exchange_memory memory =
        tsr_exchange_memory_on_card(b.device, share.card, config->ranks_per_gpu > 1);
    if (st == TSR_OK && !backend->host)
        tsr_exchange_use_memory(comm, &memory);
    if (st == TSR_OK && tsr_comm_rank(comm) == 0)
        (void)fprintf(b.out, "%d ranks of %s, over %s\n", (int)ranks.ranks,
                      tsr_device_name(b.device), tsr_comm_name(comm));
    if (st == TSR_OK)
        st = measure_all(&b);
    tsr_device_close(b.device);
    return st;
}

tsr_status tsr_bench_comm(const tsr_config *config, const tsr_launch_info *info, FILE *out)
{
    bench b = {.config = config, .out = out};

    return tsr_ranks_run(config, info, rank_main, &b);
}
