/* What arrives at a rank of rows that are sent as they are: how many, and the word that they lie where
 * they belong. By a warp. */
#ifndef TSR_COMM_EXCHANGE_NCCL_ARRIVE_CUH
#define TSR_COMM_EXCHANGE_NCCL_ARRIVE_CUH

#include "comm/exchange_nccl_device.cuh"

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

static __device__ __forceinline__ void count_arrivals(const tsr_nccl_work &w, int32_t rows)
{
    *ints(w, w.at.arrived_count) = rows;
}

/* By one thread: that a source was waited for since `begin`. */
static __device__ __forceinline__ void count_wait(const tsr_nccl_work &w, int32_t source,
                                                  long long begin)
{
    unsigned long long *waited = (unsigned long long *)(w.block + w.at.waited);

    waited[source] += (unsigned long long)(clock64() - begin);
}

/* The rows that a lane's sources send. False: waited for nothing, or one is elsewhere. */
static __device__ __forceinline__ bool read_notices(const tsr_nccl_work &w,
                                                    const tsr_nccl_state &now, int64_t *ret_rows)
{
    const long long begin = clock64();
    bool well = true;

    *ret_rows = 0;
#pragma unroll 1
    for (int32_t s = lane_of_warp(); s < w.ranks; s += TSR_NCCL_LANES) {
        tsr_nccl_notice n = {};
        well = await(w, w.window + notice_at(w, now.epoch, s, w.rank), now.epoch, &n) && well;
        *ret_rows += n.told;
        count_wait(w, s, begin);
        if (well && (n.step != (uint32_t)now.step || n.stage != now.stage)) {
            apart(w, now.step, now.stage, s, n.step, n.stage);
            well = false;
        }
    }
    return well;
}

/* False: waited for nothing. */
static __device__ __forceinline__ bool await_rows(const tsr_nccl_work &w, uint32_t epoch)
{
    bool come = true;

#pragma unroll 1
    for (int32_t s = lane_of_warp(); s < w.ranks; s += TSR_NCCL_LANES) {
        const unsigned char *at = w.window + w.at.sent + (uint64_t)s * sizeof(tsr_nccl_notice);
        tsr_nccl_notice sent;
        come = await(w, at, epoch, &sent) && come;
    }
    if (come)
        __threadfence_system(); /* what was sent is read after this */
    return come;
}

/* All together may not fit 31 bits. */
static __device__ __forceinline__ int64_t sum_of_lanes(int64_t rows)
{
    return (int64_t)__reduce_add_sync(TSR_NCCL_ALL_LANES, (int32_t)(rows >> 16)) * (1 << 16) +
           __reduce_add_sync(TSR_NCCL_ALL_LANES, (int32_t)(rows & 0xffff));
}

static __device__ __forceinline__ void receive(const tsr_nccl_work &w, const tsr_nccl_state &now)
{
    int64_t rows = 0;
    bool well = __all_sync(TSR_NCCL_ALL_LANES, read_notices(w, now, &rows)) != 0;

    rows = sum_of_lanes(rows);
    if (well && rows > w.max_arrivals) {
        if (lane_of_warp() == 0)
            overflow(w, now.step, now.stage, rows);
        well = false;
    }
    well = well && __all_sync(TSR_NCCL_ALL_LANES, await_rows(w, now.epoch)) != 0;
    if (lane_of_warp() == 0)
        count_arrivals(w, well ? (int32_t)rows : 0);
}

#endif
