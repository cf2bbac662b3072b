/*
 * Few rows of every rank, and the answers to them: by one kernel each way, or by none where who reads
 * answers takes them as they come.
 */
#include "comm/exchange_nccl_arrive.cuh"
#include "comm/exchange_nccl_device.cuh"
#include "comm/exchange_nccl_launch.cuh"
#include "comm/exchange_nccl_packets.cuh"

enum {
    MOST_CTAS = 128,     /* that all run at once */
    DISPATCH_CTAS = 176, /* likewise, two a processor; where that is not enough, those of the last
                            ranks come when those of the first, which wait for none of them, end */
};

/* By one thread, of a row that names a rank that is none. */
static __device__ __noinline__ void check_row(const tsr_nccl_work &w, uint64_t step, int32_t stage,
                                              int32_t row)
{
    for (int32_t k = 0; k < w.slots; k++) {
        const int32_t rank = ints(w, w.at.send_ranks)[(int64_t)row * w.slots + k];
        tsr_nccl_fault fault = {};
        if (rank >= -1 && rank < w.ranks)
            continue;
        fault.kind = TSR_NCCL_RANK;
        fault.peer = rank;
        fault.row = row;
        fault.slot = k;
        leave_fault(w, step, stage, fault);
        return;
    }
}

/* What a CTA of a dispatch of few rows knows. */
typedef struct few_dispatch {
    unsigned char *to;   /* the peer's place for this rank's packets */
    unsigned char *from; /* this rank's for the peer's */
    tsr_nccl_state now;
    int32_t tokens;
    int32_t most; /* rows that each rank sends: one at least, or nobody would be waited for */
} few_dispatch;

/* This thread's packets to the CTA's peer, of which it has read the first. */
static __device__ __forceinline__ void post_packets(const tsr_nccl_work &w, const few_dispatch &d,
                                                    packet_walk at, three_words words, bool wrong)
{
    const int32_t peer = (int32_t)blockIdx.y;

#pragma unroll 1
    while (at.row < d.most) {
        if (at.packet == 0) {
            words.at[1] = (uint32_t)d.now.step;
            words.at[2] = (uint32_t)d.now.stage;
        }
        post_vector(d.to + place_of(w, at), packet_of(words, d.now.epoch));
        if (wrong)
            check_row(w, d.now.step, d.now.stage, at.row);
        walk_on(&at, w.at.packets_of_row);
        words = read_packet(w, peer, at, d.tokens, &wrong);
    }
}

/* A source's first packet of a row. */
static __device__ __forceinline__ void take_slots(const tsr_nccl_work &w, const few_dispatch &d,
                                                  int32_t row, const tsr_nccl_vector &p)
{
    const int32_t source = (int32_t)blockIdx.y;

    place_answers(w, source * d.most + row, first_answer(w, source, row, true), p.x);
    if (row == 0 && (p.y != (uint32_t)d.now.step || p.z != (uint32_t)d.now.stage)) {
        apart(w, d.now.step, d.now.stage, source, p.y, (int32_t)p.z);
        count_arrivals(w, 0);
    }
}

/* This thread's packets of the CTA's peer to where they belong. */
static __device__ __forceinline__ void take_packets(const tsr_nccl_work &w, const few_dispatch &d,
                                                    packet_walk at)
{
    const int32_t source = (int32_t)blockIdx.y;
    const int32_t words = (int32_t)(w.row_bytes / sizeof(int32_t));
    const long long begin = clock64();

#pragma unroll 1
    for (; at.row < d.most; walk_on(&at, w.at.packets_of_row)) {
        const uint64_t row = (uint64_t)source * (uint64_t)d.most + (uint64_t)at.row;
        tsr_nccl_vector p;
        if (!await_packet(w, d.from + place_of(w, at), d.now.epoch, &p))
            return;
        if (at.row == 0 && at.packet == 0)
            count_wait(w, source, begin);
        if (at.packet == 0)
            take_slots(w, d, at.row, p);
        else
            take_words((uint32_t *)(w.window + w.at.arrived_rows + row * w.row_bytes), words,
                       (at.packet - 1) * TSR_NCCL_WORDS, p);
    }
}

/* For who asks whom a rank waits for. */
static __device__ __forceinline__ void note_packets(const tsr_nccl_work &w, const few_dispatch &d)
{
    tsr_nccl_notice n;

    n.epoch = d.now.epoch;
    n.told = d.tokens;
    n.step = (uint32_t)d.now.step;
    n.stage = d.now.stage;
    post(w.peer[blockIdx.y] + notice_at(w, n.epoch, w.rank, (int32_t)blockIdx.y), n);
}

/*
 * Few rows: everything in one kernel, a row of CTAs for each peer: packets to it, then packets from
 * it. A look at memory costs as much as anything else here, so a thread asks for all that it may need
 * at once: the state, and the first words that it sends.
 */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS, 2)
    few_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens, int32_t most)
{
    const packet_walk at = walk_of_peer(w);
    const int32_t peer = (int32_t)blockIdx.y;
    few_dispatch d = {w.peer[peer] + packets_at(w, w.rank),
                      w.window + packets_at(w, peer),
                      {},
                      tokens,
                      max(most, 1)};
    bool wrong = false;

    await_kernel();
    const tsr_nccl_state state = read_state(w);
    const three_words words = read_packet(w, peer, at, tokens, &wrong);
    const bool off = state.let_go != 0 || state.failed != 0;
    d.now = state_after(state, true);
    d.to += d.now.epoch % 2 * packets_apart(w);
    d.from += d.now.epoch % 2 * packets_apart(w);
    if (thread_of_peer() == 0 && peer == 0)
        count_arrivals(w, off ? 0 : most * w.ranks);
    if (!off)
        post_packets(w, d, at, words, wrong && peer == 0);
    admit_kernel(w);
    if (__syncthreads_or(off)) /* and all threads have read the state */
        return;
    if (threadIdx.x == TSR_NCCL_THREADS - 1) {
        if (blockIdx.x == 0)
            note_packets(w, d);
        move_on(w, d.now);
    }
    take_packets(w, d, at);
}

static __device__ __forceinline__ bool is_absent(const tsr_nccl_vector &v)
{
    return v.x == TSR_NCCL_ABSENT || v.y == TSR_NCCL_ABSENT || v.z == TSR_NCCL_ABSENT ||
           v.w == TSR_NCCL_ABSENT;
}

/* Pieces of the answers to some slots of a row, of which a thread takes all or none. */
typedef struct some_answers {
    tsr_nccl_vector *come; /* of the first slot */
    tsr_nccl_vector *to;
    const int32_t *ranks; /* of the slots */
    int32_t slots;
    int32_t apart; /* vectors */
} some_answers;

/* False when there is no point in waiting. */
static __device__ __forceinline__ bool take_some(const tsr_nccl_work &w, const some_answers &s)
{
    tsr_nccl_vector v[TSR_NCCL_SLOTS_AT_ONCE];
    int32_t rank[TSR_NCCL_SLOTS_AT_ONCE];
    bool waits = true;

#pragma unroll
    for (int k = 0; k < TSR_NCCL_SLOTS_AT_ONCE; k++)
        rank[k] = k < s.slots ? s.ranks[k] : -1;
    for (unsigned turns = 1; waits; turns++) {
        waits = false;
#pragma unroll
        for (int k = 0; k < TSR_NCCL_SLOTS_AT_ONCE; k++) {
            if (rank[k] >= 0)
                v[k] = look_at_vector(s.come + (int64_t)k * s.apart);
        }
#pragma unroll
        for (int k = 0; k < TSR_NCCL_SLOTS_AT_ONCE; k++)
            waits |= rank[k] >= 0 && is_absent(v[k]);
        if (turns % TSR_NCCL_PATIENCE == 0 && waits && is_off(w))
            return false;
    }
#pragma unroll
    for (int k = 0; k < TSR_NCCL_SLOTS_AT_ONCE; k++) {
        if (rank[k] < 0)
            continue;
        s.to[(int64_t)k * s.apart] = v[k];
        s.come[(int64_t)k * s.apart] =
            make_uint4(TSR_NCCL_ABSENT, TSR_NCCL_ABSENT, TSR_NCCL_ABSENT, TSR_NCCL_ABSENT);
    }
    return true;
}

/* This rank's answers to its first rows, to where they return; by all threads of a grid. */
static __device__ __forceinline__ void take_answers(const tsr_nccl_work &w, int32_t tokens)
{
    const int32_t each = (int32_t)(w.return_row_bytes / sizeof(tsr_nccl_vector));
    tsr_nccl_vector *come = (tsr_nccl_vector *)(w.window + w.at.coming_rows);
    tsr_nccl_vector *to = (tsr_nccl_vector *)(w.window + w.at.returned_rows);
    bool goes_on = true;

    for (int32_t i = thread_of_peer(); i < tokens * each; i += threads_of_peer()) {
        const int32_t row = i / each;
        for (int32_t k = 0; k < w.slots && goes_on; k += TSR_NCCL_SLOTS_AT_ONCE) {
            const int32_t slot = row * w.slots + k;
            const int64_t at = (int64_t)slot * each + (i - row * each);
            goes_on = take_some(w, {come + at, to + at, ints(w, w.at.send_ranks) + slot,
                                    min(w.slots - k, TSR_NCCL_SLOTS_AT_ONCE), each});
        }
    }
}

/* A piece of a row to the answers of some of its slots. */
static __device__ __forceinline__ void echo_slots(const tsr_nccl_work &w, const int32_t *answer_of,
                                                  int32_t slots, int32_t piece,
                                                  const tsr_nccl_vector &v)
{
    int32_t number[TSR_NCCL_SLOTS_AT_ONCE];

#pragma unroll
    for (int k = 0; k < TSR_NCCL_SLOTS_AT_ONCE; k++)
        number[k] = k < slots ? answer_of[k] : -1;
#pragma unroll
    for (int k = 0; k < TSR_NCCL_SLOTS_AT_ONCE; k++) {
        const uint64_t row = (uint64_t)(number[k] & (TSR_NCCL_PART_ROWS - 1));
        if (number[k] >= 0)
            ((tsr_nccl_vector *)(w.peer[number[k] >> TSR_NCCL_PART_BITS] + w.at.returned_rows +
                                 row * w.return_row_bytes))[piece] = v;
    }
}

/* The same of few rows, a piece of a row and all its slots a thread; and what comes. */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    echo_and_take_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens, int32_t most)
{
    const int32_t each = (int32_t)(w.return_row_bytes / sizeof(tsr_nccl_vector));
    const int32_t all = most * w.ranks * each;

    await_kernel();
    admit_kernel(w);
    for (int32_t i = thread_of_peer(); i < all; i += threads_of_peer()) {
        const int32_t row = i / each;
        const int32_t *to = (const int32_t *)(w.window + w.at.answer_of) + (int64_t)row * w.slots;
        const tsr_nccl_vector v =
            look_at_vector(w.window + w.at.arrived_rows + (uint64_t)row * w.row_bytes +
                           (uint64_t)(i - row * each) * sizeof(v));
#pragma unroll 1
        for (int32_t k = 0; k < w.slots; k += TSR_NCCL_SLOTS_AT_ONCE)
            echo_slots(w, to + k, min(w.slots - k, TSR_NCCL_SLOTS_AT_ONCE), i - row * each, v);
    }
    take_answers(w, tokens);
}

/* Answers that could have been taken as they came, for who reads them where answers return. */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    take_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens)
{
    await_kernel();
    const tsr_nccl_state now = read_state(w);
    admit_kernel(w);
    if (cta_is_off(now))
        return;
    if (thread_of_peer() == 0)
        state_of(w)->phase = TSR_PHASE_RETURNING;
    take_answers(w, tokens);
    if (is_last((uint32_t *)(w.block + w.at.done)) && threadIdx.x == 0)
        state_of(w)->phase = TSR_PHASE_STANDING;
}

/* As many as have a thread for each of so many things. */
static uint64_t ctas_of(uint64_t things)
{
    return (things + TSR_NCCL_THREADS - 1) / TSR_NCCL_THREADS;
}

extern "C" tsr_status tsr_nccl_dispatch_few(const tsr_nccl_work *work, int32_t tokens, int32_t most,
                                            tsr_stream stream)
{
    const int32_t rows = most > 0 ? most : 1;
    const uint64_t packets = (uint64_t)rows * (uint64_t)work->at.packets_of_row;
    const dim3 grid(ctas_of_peer(work, ctas_of(packets), allowed(work, DISPATCH_CTAS)),
                    (unsigned)work->ranks);

    return launch(stream, grid, TSR_NCCL_THREADS, few_kernel, *work, tokens, most);
}

extern "C" tsr_status tsr_nccl_echo_and_take(const tsr_nccl_work *work, int32_t tokens,
                                             int32_t most, tsr_stream stream)
{
    const int32_t rows = most > 0 ? most : 1;
    const uint64_t vectors =
        (uint64_t)rows * (uint64_t)work->ranks * (work->return_row_bytes / sizeof(tsr_nccl_vector));
    const dim3 ctas((unsigned)within(ctas_of(vectors), 1, allowed(work, MOST_CTAS)));

    return launch(stream, ctas, TSR_NCCL_THREADS, echo_and_take_kernel, *work, tokens, rows);
}

extern "C" tsr_status tsr_nccl_take(const tsr_nccl_work *work, int32_t tokens, tsr_stream stream)
{
    const uint64_t vectors = (uint64_t)tokens * (work->return_row_bytes / sizeof(tsr_nccl_vector));
    const dim3 ctas((unsigned)within(ctas_of(vectors), 1, allowed(work, MOST_CTAS)));

    return launch(stream, ctas, TSR_NCCL_THREADS, take_kernel, *work, tokens);
}
