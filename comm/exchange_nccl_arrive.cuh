/*
 * What arrives at a rank: whose rows, how many, and which slots of them are its own to answer.
 *
 *   notices of all sources --> first row of each --> slots that name this rank, in order: 0 1 2 ...
 */
#ifndef TSR_COMM_EXCHANGE_NCCL_ARRIVE_CUH
#define TSR_COMM_EXCHANGE_NCCL_ARRIVE_CUH

#include "comm/exchange_nccl_device.cuh"
#include "comm/exchange_nccl_packets.cuh"

/* Slots that a thread numbers at once. */
enum { TSR_NCCL_NUMBERS = 8 };

/* True, and a fault, where the source is elsewhere. */
static __device__ bool is_apart(const tsr_nccl_work &w, const tsr_nccl_state &state, int32_t source,
                                const tsr_nccl_notice &n)
{
    tsr_nccl_fault fault = {};

    if (n.step == (uint32_t)state.step && n.stage == state.stage)
        return false;
    fault.kind = TSR_NCCL_APART;
    fault.peer = source;
    fault.row = (int32_t)n.step;
    fault.slot = n.stage;
    leave_fault(w, fault);
    return true;
}

static __device__ int32_t saturated(int64_t rows)
{
    return (int32_t)(rows < INT32_MAX ? rows : INT32_MAX);
}

static __device__ void overflow(const tsr_nccl_work &w, int64_t rows)
{
    tsr_nccl_fault fault = {};

    fault.kind = TSR_NCCL_OVERFLOW;
    fault.row = saturated(rows);
    leave_fault(w, fault);
}

/* Waits until all other CTAs have read the state, which the first one is about to change. */
static __device__ bool await_readers(const tsr_nccl_work &w)
{
    volatile uint32_t *done = (uint32_t *)(w.block + w.at.done) + w.ranks;

    while (*done != gridDim.x - 1) {
        if (is_off(w))
            return false;
    }
    *done = 0;
    return true;
}

/* Where each source's rows begin, from their numbers. Returns how many there are, to all threads. */
static __device__ int64_t add_up(const tsr_nccl_work &w, const tsr_nccl_sources &from)
{
    const bool writes = threadIdx.x == 0;
    int64_t total = 0;
    int32_t packed = 0;

    for (int32_t s = 0; s <= w.ranks; s++) {
        const int32_t form = s < w.ranks ? from.forms[s] : 0;
        if (writes) {
            from.first[s] = saturated(total);
            from.packed[s] = packed;
        }
        total += form & TSR_NCCL_ROWS;
        packed += (form & TSR_NCCL_ROWS_PACKED) != 0 ? form & TSR_NCCL_ROWS : 0;
    }
    return total;
}

/*
 * Waits for everybody's notices, and in the first CTA for the other CTAs. False: for nothing, or
 * there is something wrong with them.
 */
static __device__ bool read_sources(const tsr_nccl_work &w, const tsr_nccl_state &state,
                                    const tsr_nccl_sources &from)
{
    bool well = true;

    for (int32_t s = (int32_t)threadIdx.x; s < w.ranks; s += (int32_t)blockDim.x) {
        const unsigned char *at = w.window + notice_at(w, state.epoch, s, w.rank);
        tsr_nccl_notice n = {};
        well = await(w, at, state.epoch, &n) && well;
        from.forms[s] = n.rows;
        if (well && blockIdx.x == 0)
            well = !is_apart(w, state, s, n);
    }
    if (blockIdx.x == 0 && threadIdx.x == blockDim.x - 1)
        well = await_readers(w) && well;
    if (__syncthreads_and(well) == 0)
        return false;
    const int64_t total = add_up(w, from);
    if (total > w.max_arrivals && blockIdx.x == 0 && threadIdx.x == 0)
        overflow(w, total);
    __syncthreads();
    return total <= w.max_arrivals;
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
static __device__ int32_t number_answers(const tsr_nccl_work &w, int32_t rows)
{
    const int32_t slots = rows * w.slots;
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
            const bool ours = run.rank[i] == w.rank;
            if (first + i < slots)
                ints(w, w.at.answer_of)[first + i] = ours ? next : -1;
            if (!ours)
                continue;
            ints(w, w.at.answer_rank)[next] = run.origin_rank[i];
            ints(w, w.at.answer_slot)[next] =
                run.origin_row[i] * w.slots + (int32_t)((first + i) % w.slots);
            next++;
        }
    }
    return count;
}

#endif
