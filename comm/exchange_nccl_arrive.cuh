/*
 * What arrives at a rank: whose rows, how many, and which slots of them are its own to answer.
 *
 *   notices of all sources --> first row and first answer of each
 *      packets only    each CTA takes those of its source as they come
 *      else            the first CTA waits for everybody's word and numbers the slots that name this
 *                      rank, in order: 0 1 2 ...
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
    int32_t answers; /* of sources that send packets */
    int32_t wanted;  /* tsr_nccl_wanted */
    bool packed;     /* nothing comes but packets */
    bool well;       /* false: waited for nothing, or something is wrong */
    packed_source from;
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

/* By a warp: what the notices tell the CTA's source. */
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

/* Consecutive slots of arrived rows, read before anything is written: together they take as long as
 * one. */
typedef struct slot_run {
    int32_t rank[TSR_NCCL_NUMBERS]; /* -1 behind the last slot */
    int32_t origin_rank[TSR_NCCL_NUMBERS];
    int32_t origin_row[TSR_NCCL_NUMBERS];
} slot_run;

static __device__ __forceinline__ void read_slots(const tsr_nccl_work &w, int64_t first,
                                                  int32_t slots, slot_run *run)
{
    const int32_t *ranks = (const int32_t *)(w.window + w.at.slot_ranks);
    const int32_t *origin_row = (const int32_t *)(w.window + w.at.origin_row);
    const int32_t *origin_rank = (const int32_t *)(w.window + w.at.origin_rank);

#pragma unroll
    for (int i = 0; i < TSR_NCCL_NUMBERS; i++) {
        const int32_t slot = first + i < slots ? (int32_t)first + i : 0;
        run->rank[i] = ranks[slot];
        run->origin_rank[i] = origin_rank[slot / w.slots];
        run->origin_row[i] = origin_row[slot / w.slots];
    }
#pragma unroll
    for (int i = 0; i < TSR_NCCL_NUMBERS; i++)
        run->rank[i] = first + i < slots ? run->rank[i] : -1;
}

/* Numbers the slots of arrived rows that are this rank's, and whom each answer goes to. Returns how
 * many. */
static __device__ int32_t number_answers(const tsr_nccl_work &w, const int32_t *told, int32_t rows)
{
    const int32_t slots = rows * w.slots;
    int2 *to = (int2 *)(w.block + w.at.answer_to);
    int32_t count = 0;

    for (int64_t begin = 0; begin < slots; begin += blockDim.x * TSR_NCCL_NUMBERS) {
        const int64_t first = begin + threadIdx.x * TSR_NCCL_NUMBERS;
        slot_run run;
        int32_t mine = 0;
        read_slots(w, first, slots, &run);
#pragma unroll
        for (int i = 0; i < TSR_NCCL_NUMBERS; i++)
            mine += run.rank[i] == w.rank;
        int32_t next = place_in_cta(mine, &count);
#pragma unroll
        for (int i = 0; i < TSR_NCCL_NUMBERS; i++) {
            const int32_t whom = run.origin_rank[i];
            const bool ours = run.rank[i] == w.rank;
            if (first + i < slots)
                ints(w, w.at.answer_of)[first + i] = ours ? next : -1;
            if (!ours)
                continue;
            to[next] = make_int2(whom | (told[whom] & TSR_NCCL_ANSWERS_PACKED),
                                 run.origin_row[i] * w.slots + (int32_t)((first + i) % w.slots));
            next++;
        }
    }
    return count;
}

/* Waits for the word about rows that come as they are. False: for nothing. */
static __device__ bool await_rows(const tsr_nccl_work &w, uint32_t epoch, const int32_t *told)
{
    bool come = true;

    for (int32_t s = (int32_t)threadIdx.x; s < w.ranks; s += (int32_t)blockDim.x) {
        const unsigned char *at = w.window + w.at.sent + (uint64_t)s * sizeof(tsr_nccl_notice);
        tsr_nccl_notice sent;
        if ((told[s] & TSR_NCCL_ROWS_PACKED) == 0)
            come = await(w, at, epoch, &sent) && come;
    }
    __threadfence_system(); /* what was sent is read after this */
    return come;
}

/* By the first CTA, where rows come as they are: waits for them, and numbers the answers to all. */
static __device__ __noinline__ void number_arrivals(const tsr_nccl_work &w, uint32_t epoch,
                                                    const int32_t *told, int32_t rows,
                                                    int32_t wanted)
{
    bool come = await_rows(w, epoch, told);
    packed_source from = {};

    for (from.source = 0; from.source < w.ranks; from.source++) {
        from.told = told[from.source];
        if ((from.told & TSR_NCCL_ROWS_PACKED) != 0)
            come = take_origins(w, epoch, from) && come;
        from.first_row += rows_told(from.told);
    }
    if (__syncthreads_and(come) == 0) {
        count_arrivals(w, 0, 0, 0);
        return;
    }
    const int32_t answers = number_answers(w, told, rows);
    if (threadIdx.x == 0)
        count_arrivals(w, rows, answers, wanted);
}

/* What comes of a dispatch, by CTAs [any, ranks]: the first warp learns how much, while the others
 * already look at their first packets, from `n` on. */
static __device__ __forceinline__ void receive(const tsr_nccl_work &w, const tsr_nccl_state &now,
                                               const packet_walk &n, receipt *r)
{
    const bool first = blockIdx.x == 0 && blockIdx.y == 0;
    const arrivals &a = r->all;
    seen_packet seen = {};

    if (threadIdx.x < TSR_NCCL_LANES)
        read_sources(w, now, r);
    else
        seen = look_ahead(w, now.epoch, n, &r->ready);
    __threadfence_block();
    if (a.well && (a.from.told & TSR_NCCL_ROWS_PACKED) != 0)
        take_rows(w, now.epoch, a.from, a.packed, n, seen);
    if (first && a.well && !a.packed)
        number_arrivals(w, now.epoch, r->told, (int32_t)a.rows, a.wanted);
    else if (first && threadIdx.x == 0)
        count_arrivals(w, a.well ? (int32_t)a.rows : 0, a.well ? a.answers : 0, a.wanted);
}

#endif
