/*
 * What arrives at a rank: whose rows, how many, and which slots of them are its own to answer.
 *
 *   notices of all sources --> first row and first answer of each --> each CTA takes its source's
 *      packets        as they come, numbered by their source
 *      rows           once all words are here: they tell how many answers each source wants
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_ARRIVE_CUH
#define TSR_COMM_EXCHANGE_NCCL_ARRIVE_CUH

#include "comm/exchange_nccl_device.cuh"
#include "comm/exchange_nccl_packets.cuh"

/* Slots that a thread numbers at once. */
enum { TSR_NCCL_NUMBERS = 8 };

/* A source is elsewhere. */
static __device__ __noinline__ void apart(const tsr_nccl_work &w, uint64_t step, int32_t stage,
                                          int32_t source, uint32_t its_step, int32_t its_stage)
{
    tsr_nccl_fault fault = {};

    fault.kind = TSR_NCCL_APART;
    fault.peer = source;
    fault.row = (int32_t)its_step;
    fault.slot = its_stage;
    leave_fault(w, step, stage, fault);
}

static __device__ __noinline__ void overflow(const tsr_nccl_work &w, uint64_t step, int32_t stage,
                                             int64_t rows)
{
    tsr_nccl_fault fault = {};

    fault.kind = TSR_NCCL_OVERFLOW;
    fault.row = (int32_t)(rows < INT32_MAX ? rows : INT32_MAX);
    leave_fault(w, step, stage, fault);
}

/* What all notices tell a CTA that serves one source. */
typedef struct arrivals {
    int64_t rows;
    int32_t answers;
    int32_t wanted; /* tsr_nccl_wanted */
    bool packed;    /* nothing comes but packets */
    bool well;      /* false: waited for nothing, or something is wrong */
    source_place from;
} arrivals;

static __device__ __forceinline__ int32_t sum_of_lanes(int32_t count)
{
    return __reduce_add_sync(TSR_NCCL_ALL_LANES, count);
}

/* A lane's sources, to told. False: waited for nothing, or one is elsewhere. */
static __device__ bool read_notices(const tsr_nccl_work &w, const tsr_nccl_state &now,
                                    int32_t *told)
{
    unsigned long long *waited = (unsigned long long *)(w.block + w.at.waited);
    const bool first = blockIdx.x == 0 && blockIdx.y == 0;
    const long long begin = clock64();
    bool well = true;

#pragma unroll 1
    for (int32_t s = lane_of_warp(); s < w.ranks; s += TSR_NCCL_LANES) {
        tsr_nccl_notice n = {};
        well = await(w, w.window + notice_at(w, now.epoch, s, w.rank), now.epoch, &n) && well;
        told[s] = n.told;
        if (first)
            (void)atomicAdd(&waited[s], (unsigned long long)(clock64() - begin));
        if (first && well && (n.step != (uint32_t)now.step || n.stage != now.stage)) {
            apart(w, now.step, now.stage, s, n.step, n.stage);
            well = false;
        }
    }
    return well;
}

/* By a warp: what the notices tell the CTA's source. Of sources that send rows, answers follow. */
static __device__ void add_up(const tsr_nccl_work &w, const int32_t *told, arrivals *a)
{
    const int32_t source = (int32_t)blockIdx.y;
    int64_t rows = 0;
    int32_t answers = 0;
    uint32_t rows_before = 0;
    int32_t answers_before = 0;
    unsigned plain = 0;
    unsigned wanted = 0;

#pragma unroll 1
    for (int32_t s = lane_of_warp(); s < w.ranks; s += TSR_NCCL_LANES) {
        const bool packed = (told[s] & TSR_NCCL_ROWS_PACKED) != 0;
        const int32_t r = rows_told(told[s]);
        const int32_t n = packed ? told[s] & TSR_NCCL_ANSWERS : 0;
        rows += r;
        answers += n;
        rows_before += s < source ? (uint32_t)r : 0;
        answers_before += s < source ? n : 0;
        plain |= packed ? 0 : 1;
        wanted |=
            (told[s] & TSR_NCCL_ANSWERS_PACKED) != 0 ? TSR_NCCL_WANTS_PACKETS : TSR_NCCL_WANTS_ROWS;
    }
    /* All together may not fit 31 bits. */
    a->rows = (int64_t)sum_of_lanes((int32_t)(rows >> 16)) * (1 << 16) +
              sum_of_lanes((int32_t)(rows & 0xffff));
    a->answers = sum_of_lanes(answers);
    a->from.first_row = (int32_t)__reduce_add_sync(TSR_NCCL_ALL_LANES, rows_before);
    a->from.first_answer = sum_of_lanes(answers_before);
    a->packed = __reduce_or_sync(TSR_NCCL_ALL_LANES, plain) == 0;
    a->wanted = (int32_t)__reduce_or_sync(TSR_NCCL_ALL_LANES, wanted);
    a->from.source = source;
    a->from.told = told[source];
}

/* By a warp: the answers that sources of rows want, which the words behind these rows tell, beside
 * those of packets. False: waited for nothing. */
static __device__ bool add_words(const tsr_nccl_work &w, uint32_t epoch, const int32_t *told,
                                 arrivals *a)
{
    int32_t answers = 0;
    int32_t before = 0;
    bool come = true;

#pragma unroll 1
    for (int32_t s = lane_of_warp(); s < w.ranks; s += TSR_NCCL_LANES) {
        const unsigned char *at = w.window + w.at.sent + (uint64_t)s * sizeof(tsr_nccl_notice);
        tsr_nccl_notice sent = {};
        if ((told[s] & TSR_NCCL_ROWS_PACKED) != 0)
            continue;
        come = await(w, at, epoch, &sent) && come;
        answers += sent.told;
        before += s < a->from.source ? sent.told : 0;
    }
    __threadfence_system(); /* what was sent is read after this */
    a->answers += sum_of_lanes(answers);
    a->from.first_answer += sum_of_lanes(before);
    return __all_sync(TSR_NCCL_ALL_LANES, come) != 0;
}

/* Of a CTA that serves one source. */
typedef struct receipt {
    int32_t told[TSR_NCCL_MOST_RANKS];
    arrivals all;
    volatile bool ready; /* both are; false before any warp looks */
} receipt;

/* By the first warp. */
static __device__ __forceinline__ void read_sources(const tsr_nccl_work &w,
                                                    const tsr_nccl_state &now, receipt *r)
{
    arrivals a = {};

    a.well = __all_sync(TSR_NCCL_ALL_LANES, read_notices(w, now, r->told)) != 0;
    __syncwarp(); /* what each lane was told is read by all */
    if (a.well) {
        add_up(w, r->told, &a);
        a.well = a.rows <= w.max_arrivals;
        if (!a.well && blockIdx.x == 0 && blockIdx.y == 0 && lane_of_warp() == 0)
            overflow(w, now.step, now.stage, a.rows);
        if (a.well && !a.packed)
            a.well = add_words(w, now.epoch, r->told, &a);
    }
    if (lane_of_warp() == 0) {
        r->all = a;
        __threadfence_block();
        r->ready = true;
    }
    __syncwarp();
}

static __device__ void count_arrivals(const tsr_nccl_work &w, int32_t rows, int32_t answers,
                                      int32_t wanted)
{
    *ints(w, w.at.arrived_count) = rows;
    *ints(w, w.at.answer_count) = answers;
    *ints(w, w.at.wanted) = wanted;
}

/* Slots of a row that arrived, read before anything is written: together they take as long as one. */
static __device__ __forceinline__ void number_row(const tsr_nccl_work &w, const source_place &from,
                                                  int32_t row)
{
    const int32_t whom = from.source | (from.told & TSR_NCCL_ANSWERS_PACKED);
    const int2 origin = ((const int2 *)(w.window + w.at.origins))[row];
    const int32_t *ranks = (const int32_t *)(w.window + w.at.slot_ranks) + (int64_t)row * w.slots;
    int32_t *answer_of = ints(w, w.at.answer_of) + (int64_t)row * w.slots;
    int2 *to = (int2 *)(w.block + w.at.answer_to);
    int32_t next = from.first_answer + origin.y;

    for (int32_t first = 0; first < w.slots; first += TSR_NCCL_NUMBERS) {
        int32_t rank[TSR_NCCL_NUMBERS];
#pragma unroll
        for (int32_t k = 0; k < TSR_NCCL_NUMBERS; k++)
            rank[k] = first + k < w.slots ? ranks[first + k] : -1;
#pragma unroll
        for (int32_t k = 0; k < TSR_NCCL_NUMBERS; k++) {
            const bool ours = rank[k] == w.rank;
            if (first + k < w.slots)
                answer_of[first + k] = ours ? next : -1;
            if (ours)
                to[next++] = make_int2(whom, origin.x * w.slots + first + k);
        }
    }
}

/* Numbers the slots of a source's rows that are this rank's, and whom each answer goes to; by all
 * its CTAs. */
static __device__ __noinline__ void number_rows(const tsr_nccl_work &w, const source_place &from)
{
    const int32_t rows = rows_told(from.told);

    for (int32_t i = thread_of_peer(); i < rows; i += threads_of_peer())
        number_row(w, from, from.first_row + i);
}

/* What comes of a dispatch, by CTAs [any, ranks]: the first warp learns how much, while the others
 * already look at their first packets, from `n` on. */
static __device__ __forceinline__ void receive(const tsr_nccl_work &w, const tsr_nccl_state &now,
                                               const packet_walk &n, receipt *r)
{
    const arrivals &a = r->all;
    seen_packet seen = {};

    if (threadIdx.x < TSR_NCCL_LANES)
        read_sources(w, now, r);
    else
        seen = look_ahead(w, now.epoch, n, &r->ready);
    __threadfence_block();
    if (a.well && (a.from.told & TSR_NCCL_ROWS_PACKED) != 0)
        take_rows(w, now.epoch, a.from, n, seen);
    else if (a.well)
        number_rows(w, a.from);
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0)
        count_arrivals(w, a.well ? (int32_t)a.rows : 0, a.well ? a.answers : 0, a.wanted);
}

#endif
