/*
 * What arrives at a rank: whose rows, and how many.
 *
 *   notices of all sources --> first row of each
 *      packets   each CTA takes those of its source as they come
 *      rows      lie where they belong: the first CTA waits for the word that they do
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_ARRIVE_CUH
#define TSR_COMM_EXCHANGE_NCCL_ARRIVE_CUH

#include "comm/exchange_nccl_device.cuh"
#include "comm/exchange_nccl_packets.cuh"

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
    bool well; /* false: waited for nothing, or something is wrong */
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

/* By the first CTA: the words about rows that come as they are. False: waited for nothing. */
static __device__ bool await_rows(const tsr_nccl_work &w, uint32_t epoch, const int32_t *told)
{
    bool come = true;

#pragma unroll 1
    for (int32_t s = lane_of_warp(); s < w.ranks; s += TSR_NCCL_LANES) {
        const unsigned char *at = w.window + w.at.sent + (uint64_t)s * sizeof(tsr_nccl_notice);
        tsr_nccl_notice sent;
        if ((told[s] & TSR_NCCL_ROWS_PACKED) != 0)
            continue;
        come = await(w, at, epoch, &sent) && come;
        __threadfence_system(); /* what was sent is read after this */
    }
    return __all_sync(TSR_NCCL_ALL_LANES, come) != 0;
}

/* By a warp: what the notices tell the CTA's source. */
static __device__ void add_up(const tsr_nccl_work &w, const int32_t *told, arrivals *a)
{
    const int32_t source = (int32_t)blockIdx.y;
    int64_t rows = 0;
    uint32_t before = 0;

#pragma unroll 1
    for (int32_t s = lane_of_warp(); s < w.ranks; s += TSR_NCCL_LANES) {
        const int32_t r = rows_told(told[s]);
        rows += r;
        before += s < source ? (uint32_t)r : 0;
    }
    /* All together may not fit 31 bits. */
    a->rows = (int64_t)sum_of_lanes((int32_t)(rows >> 16)) * (1 << 16) +
              sum_of_lanes((int32_t)(rows & 0xffff));
    a->from.first_row = (int32_t)__reduce_add_sync(TSR_NCCL_ALL_LANES, before);
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

static __device__ __forceinline__ void count_arrivals(const tsr_nccl_work &w, int32_t rows)
{
    *ints(w, w.at.arrived_count) = rows;
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
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x < TSR_NCCL_LANES) {
        const bool come = a.well && await_rows(w, now.epoch, r->told);
        if (threadIdx.x == 0)
            count_arrivals(w, come ? (int32_t)a.rows : 0);
    }
}

#endif
