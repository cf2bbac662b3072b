/*
 * Rows that go as they are:
 *
 *   whose slots name a target --> list --> notices --> where they begin at the target --> rows, by
 *                                                      turns of targets --> the word behind them
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_SEND_CUH
#define TSR_COMM_EXCHANGE_NCCL_SEND_CUH

#include "comm/exchange_nccl_device.cuh"

enum { TSR_NCCL_LISTED = 4 /* rows that a thread lists at once */ };

/* How many slots of a row name the target. */
static __device__ __forceinline__ int32_t slots_naming(const tsr_nccl_work &w, int32_t row,
                                                       int32_t target)
{
    const int32_t *ranks = ints(w, w.at.send_ranks) + (int64_t)row * w.slots;
    int32_t found = 0;

#pragma unroll 8
    for (int32_t k = 0; k < w.slots; k++)
        found += ranks[k] == target ? 1 : 0;
    return found;
}

static __device__ __forceinline__ int2 *listed(const tsr_nccl_work &w)
{
    return (int2 *)(w.block + w.at.listed);
}

/* What goes to a target. */
typedef struct listing {
    int32_t rows;
    int32_t answers; /* that they want */
} listing;

/* The rows that go to the target, in order, as origins. The list is the CTA's to read. */
static __device__ listing list_rows(const tsr_nccl_work &w, int32_t tokens, int32_t target,
                                    int2 *list)
{
    listing l = {};

    for (int32_t begin = 0; begin < tokens; begin += (int32_t)blockDim.x * TSR_NCCL_LISTED) {
        int32_t wants[TSR_NCCL_LISTED]; /* read at once */
#pragma unroll
        for (int i = 0; i < TSR_NCCL_LISTED; i++) {
            const int32_t row = begin + i * (int32_t)blockDim.x + (int32_t)threadIdx.x;
            wants[i] = row < tokens ? slots_naming(w, row, target) : 0;
        }
#pragma unroll
        for (int i = 0; i < TSR_NCCL_LISTED; i++) {
            const int32_t row = begin + i * (int32_t)blockDim.x + (int32_t)threadIdx.x;
            const int32_t answer = place_in_cta(wants[i], &l.answers);
            const int32_t at = place_in_cta(wants[i] > 0 ? 1 : 0, &l.rows);
            if (wants[i] > 0)
                list[at] = make_int2(row, answer);
        }
    }
    __syncthreads();
    return l;
}

/* By a warp: tells everybody what goes to the target, and in which forms. */
static __device__ void announce(const tsr_nccl_work &w, const tsr_nccl_state &now, int32_t target,
                                int32_t told)
{
    tsr_nccl_notice n;

    n.epoch = now.epoch;
    n.told = told;
    n.step = (uint32_t)now.step;
    n.stage = now.stage;
#pragma unroll 1
    for (int32_t r = lane_of_warp(); r < w.ranks; r += TSR_NCCL_LANES)
        post(w.peer[r] + notice_at(w, n.epoch, w.rank, target), n);
}

/* What everybody sends to one target, as this rank needs it. */
typedef struct column {
    unsigned long long total;
    int32_t first; /* of this rank's rows among the target's */
    int32_t mine;
} column;

/* Whom a CTA sends rows to: targets one after another, by turns, in whose order lists, answers and
 * columns stand. */
typedef struct sending {
    int32_t first;
    int32_t targets;
    int32_t apart; /* entries from one list to the next */
    const int2 *list;
    const int32_t *answers; /* that are wanted of each */
    column *columns;
} sending;

/* Waits for everybody's notices about the targets. False: for nothing. */
static __device__ bool read_columns(const tsr_nccl_work &w, uint32_t epoch, const sending &to)
{
    bool come = true;

    for (int32_t t = (int32_t)threadIdx.x; t < to.targets; t += (int32_t)blockDim.x)
        to.columns[t] = {};
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < to.targets * w.ranks; i += (int32_t)blockDim.x) {
        const int32_t t = i / w.ranks;
        const int32_t s = i - t * w.ranks;
        tsr_nccl_notice n = {};
        come = await(w, w.window + notice_at(w, epoch, s, to.first + t), epoch, &n) && come;
        const int32_t rows = rows_told(n.told);
        (void)atomicAdd(&to.columns[t].total, (unsigned long long)rows);
        if (s < w.rank)
            (void)atomicAdd(&to.columns[t].first, rows);
        if (s == w.rank)
            to.columns[t].mine = rows;
    }
    return __syncthreads_and(come) != 0;
}

/* What the target learns of a row beside it. */
static __device__ __forceinline__ void copy_origin(const tsr_nccl_work &w, unsigned char *window,
                                                   int64_t at, int2 origin)
{
    const int lane = (int)threadIdx.x % TSR_NCCL_LANES;
    const int32_t *from = ints(w, w.at.send_ranks) + (int64_t)origin.x * w.slots;
    int32_t *to = (int32_t *)(window + w.at.slot_ranks) + at * w.slots;

    for (int32_t k = lane; k < w.slots; k += TSR_NCCL_LANES)
        to[k] = from[k];
    if (lane == 0)
        ((int2 *)(window + w.at.origins))[at] = origin;
}

/* Most rows that go to one target that has room; of others it is seen there. */
static __device__ int32_t most_rows(const tsr_nccl_work &w, const sending &to)
{
    int32_t most = 0;

    for (int32_t t = 0; t < to.targets; t++) {
        if (to.columns[t].total <= (unsigned long long)w.max_arrivals)
            most = max(most, to.columns[t].mine);
    }
    return most;
}

/* To each target by turns, and each rank begins with itself: otherwise all ranks would store to the
 * first, then all to the next. */
static __device__ void copy_rows(const tsr_nccl_work &w, const sending &to)
{
    const int64_t pieces = pieces_of(w.row_bytes);
    const int64_t warps = (int64_t)gridDim.x * TSR_NCCL_WARPS;
    const int64_t turns = (int64_t)most_rows(w, to) * to.targets;

    for (int64_t n = (int64_t)blockIdx.x * TSR_NCCL_WARPS + threadIdx.x / TSR_NCCL_LANES;
         n < turns * pieces; n += warps) {
        const int64_t turn = n / pieces;
        const int64_t i = turn / to.targets;
        const int32_t t = (int32_t)((turn + w.rank) % to.targets);
        const column &c = to.columns[t];
        if (i >= c.mine || c.total > (unsigned long long)w.max_arrivals)
            continue;
        const int2 origin = to.list[(int64_t)t * to.apart + i];
        const int64_t at = c.first + i;
        unsigned char *window = w.peer[to.first + t];
        copy_piece(window + w.at.arrived_rows + (uint64_t)at * w.row_bytes,
                   w.block + w.at.send_rows + (uint64_t)origin.x * w.row_bytes, w.row_bytes, pieces,
                   n - turn * pieces);
        if (n == turn * pieces)
            copy_origin(w, window, at, origin);
    }
}

static __device__ void say_sent(const tsr_nccl_work &w, uint32_t epoch, const sending &to)
{
    for (int32_t t = (int32_t)threadIdx.x; t < to.targets; t += (int32_t)blockDim.x) {
        tsr_nccl_notice n = {};
        n.epoch = epoch;
        n.told = to.answers[t];
        post(w.peer[to.first + t] + w.at.sent + (uint64_t)w.rank * sizeof(n), n);
    }
}

/* Copies the listed rows, and says so when all CTAs of the targets are through. Rows that a target
 * has no room for stay here: it sees that itself. */
static __device__ void send(const tsr_nccl_work &w, uint32_t epoch, const sending &to)
{
    if (!read_columns(w, epoch, to))
        return;
    copy_rows(w, to);
    if (is_last((uint32_t *)(w.block + w.at.done) + to.first))
        say_sent(w, epoch, to);
}

#endif
