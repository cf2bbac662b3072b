/*
 * One-sided exchange: ranks store straight into each other's windows; exchange_nccl_kernels.h draws
 * it. Rows go as they are (exchange_nccl_send.cuh), few of them as packets (exchange_nccl_packets.cuh).
 */
#include "comm/exchange_nccl_arrive.cuh"
#include "comm/exchange_nccl_device.cuh"
#include "comm/exchange_nccl_packets.cuh"
#include "comm/exchange_nccl_send.cuh"

extern "C" {
#include "comm/nccl_cuda.h"
}

#include <nccl.h>
#include <nccl_device.h>

enum {
    MOST_CTAS = 128, /* that send rows as they are */
    ARRIVE_CTAS = 128,
    FEWEST_CTAS = 16, /* of packets: others may send more than this rank */
    PACKET_CTAS = 128,
    RETURN_CTAS = 128,   /* others may want more answers than this rank */
    SHARED_CTAS = 16,    /* of anything where ranks share a GPU, on which all wait at once */
    BYTES_OF_CTA = 16384 /* what one CTA of a target is worth */
};

/* By one CTA for all: a slot that names a rank that is none is a fault. */
static __device__ __noinline__ void check_ranks(const tsr_nccl_work &w, uint64_t step,
                                                int32_t stage, int32_t tokens)
{
    const int64_t slots = (int64_t)tokens * w.slots;

    for (int64_t i = threadIdx.x; i < slots; i += blockDim.x) {
        const int32_t rank = ints(w, w.at.send_ranks)[i];
        tsr_nccl_fault fault = {};
        if (rank >= -1 && rank < w.ranks)
            continue;
        fault.kind = TSR_NCCL_RANK;
        fault.peer = rank;
        fault.row = (int32_t)(i / w.slots);
        fault.slot = (int32_t)(i % w.slots);
        leave_fault(w, step, stage, fault);
    }
}

/* Which slots of a row name the target; whether one names a rank that is none. */
static __device__ __forceinline__ uint32_t slots_of(const tsr_nccl_work &w, int32_t row,
                                                    int32_t target, bool *wrong)
{
    const int32_t *ranks = ints(w, w.at.send_ranks) + (int64_t)row * w.slots;
    uint32_t slots = 0;

#pragma unroll 4
    for (int32_t k = 0; k < w.slots; k++) {
        const int32_t rank = ranks[k];
        slots |= (rank == target ? 1U : 0U) << k;
        *wrong |= rank < -1 || rank >= w.ranks;
    }
    return slots;
}

/* By the first warp: nobody else has to be waited for. */
static __device__ __forceinline__ void list_few(const tsr_nccl_work &w, int32_t tokens,
                                                few_rows *few)
{
    const int32_t lane = lane_of_warp();
    bool wrong = false;
    int32_t rows = 0;
    int32_t answers = 0;

#pragma unroll 1
    for (int32_t first = 0; first < tokens; first += TSR_NCCL_LANES) {
        const int32_t row = first + lane;
        const uint32_t slots = row < tokens ? slots_of(w, row, (int32_t)blockIdx.y, &wrong) : 0;
        const unsigned going = __ballot_sync(TSR_NCCL_ALL_LANES, slots != 0);
        const int32_t sum = sum_to_lane(__popc(slots));
        if (row < tokens) {
            few->slots[row] = slots;
            few->place[row] = rows + __popc(going & ((1U << lane) - 1));
            few->answer[row] = answers + sum - __popc(slots);
        }
        rows += __popc(going);
        answers += __shfl_sync(TSR_NCCL_ALL_LANES, sum, TSR_NCCL_LANES - 1);
    }
    wrong = __any_sync(TSR_NCCL_ALL_LANES, wrong) != 0;
    if (lane == 0) {
        few->told = (rows << TSR_NCCL_ANSWER_BITS) + answers;
        few->wrong = wrong;
    }
}

/*
 * Few rows: everything in one kernel, a row of CTAs for each peer: rows to it, then rows from it. A
 * look at memory costs as much as anything else here, so all that may be needed is asked for at
 * once: the state, whom rows go to, and the first words of each thread, wherever they go.
 */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS, 2)
    few_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens, int32_t forms)
{
    __shared__ few_rows few;
    __shared__ receipt r;
    const packet_walk n = walk_from(thread_of_peer(), threads_of_peer(), w.at.packets_of_row);
    const bool first = blockIdx.x == 0 && blockIdx.y == 0;

    await_kernel();
    const tsr_nccl_state state = read_state(w);
    const three_words words = read_token(w, n, tokens);
    if (threadIdx.x < TSR_NCCL_LANES)
        list_few(w, tokens, &few);
    if (threadIdx.x == 0) {
        few.off = state.let_go != 0 || state.failed != 0;
        r.ready = false;
    }
    __syncthreads();
    const tsr_nccl_state now = state_after(state);
    if (few.off) {
        if (first && threadIdx.x == 0)
            count_arrivals(w, 0, 0, 0);
        return;
    }
    if (blockIdx.x == 0 && threadIdx.x < TSR_NCCL_LANES)
        announce(w, now, (int32_t)blockIdx.y, few.told | forms);
    post_rows(w, now.epoch, few, n, words, tokens);
    admit_kernel(w);
    if (threadIdx.x == TSR_NCCL_THREADS - 1)
        move_on(w, now);
    receive(w, now, n, &r);
    if (first && few.wrong)
        check_ranks(w, now.step, now.stage, tokens);
}

/* Few rows as they are, a row of CTAs for each target. */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    list_and_send_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens, int32_t forms)
{
    __shared__ int2 list[TSR_NCCL_MOST_FEW];
    __shared__ int32_t answers;
    __shared__ column columns;
    const int32_t target = (int32_t)blockIdx.y;

    await_kernel();
    const tsr_nccl_state state = read_state(w);
    const tsr_nccl_state now = state_after(state);
    if (cta_is_off(state))
        return;
    const listing l = list_rows(w, tokens, target, list);
    if (blockIdx.x == 0 && threadIdx.x < TSR_NCCL_LANES)
        announce(w, now, target, l.rows | forms);
    if (threadIdx.x == 0) {
        answers = l.answers;
        move_on(w, now);
    }
    admit_kernel(w);
    if (blockIdx.x == 0 && target == 0)
        check_ranks(w, now.step, now.stage, tokens);
    const sending to = {target, 1, 0, list, &answers, &columns};
    send(w, now.epoch, to);
}

static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    list_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens, int32_t forms)
{
    await_kernel();
    const tsr_nccl_state state = read_state(w);
    const tsr_nccl_state now = state_after(state);
    const int32_t target = (int32_t)blockIdx.y;

    admit_kernel(w);
    if (cta_is_off(state))
        return;
    const listing l = list_rows(w, tokens, target, listed(w) + (int64_t)target * w.max_tokens);
    if (threadIdx.x < TSR_NCCL_LANES)
        announce(w, now, target, l.rows | forms);
    if (threadIdx.x == 0) {
        ints(w, w.at.listed_answers)[target] = l.answers;
        move_on(w, now);
    }
    if (target == 0)
        check_ranks(w, now.step, now.stage, tokens);
}

static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    send_kernel(const __grid_constant__ tsr_nccl_work w)
{
    __shared__ column columns[TSR_NCCL_MOST_RANKS];
    const sending to = {0,          w.ranks, w.max_tokens, listed(w), ints(w, w.at.listed_answers),
                        &columns[0]};

    await_kernel();
    const tsr_nccl_state now = read_state(w);
    admit_kernel(w);
    if (!cta_is_off(now))
        send(w, now.epoch, to);
}

/* Behind rows that were sent as they are. */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    arrive_kernel(const __grid_constant__ tsr_nccl_work w)
{
    __shared__ receipt r;
    const packet_walk n = walk_from(thread_of_peer(), threads_of_peer(), w.at.packets_of_row);

    await_kernel();
    const tsr_nccl_state now = read_state(w);
    admit_kernel(w);
    if (threadIdx.x == 0)
        r.ready = false;
    if (!cta_is_off(now))
        receive(w, now, n, &r);
    else if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0)
        count_arrivals(w, 0, 0, 0);
}

/*
 * Each answer to the slot it is for, where no packets are wanted. Answers are numbered by source, so
 * in their order all ranks would store to the first, then all to the next: they go in turns, one of
 * each rank's part of them.
 */
static __device__ void copy_answers(const tsr_nccl_work &w)
{
    const int64_t answers = *ints(w, w.at.answer_count);
    const int64_t part = (answers + w.ranks - 1) / w.ranks;
    const int64_t pieces = pieces_of(w.return_row_bytes);
    const int64_t warps = (int64_t)gridDim.x * TSR_NCCL_WARPS;

    for (int64_t n = (int64_t)blockIdx.x * TSR_NCCL_WARPS + threadIdx.x / TSR_NCCL_LANES;
         n < part * w.ranks * pieces; n += warps) {
        const int64_t turn = n / pieces;
        const int64_t a = turn % w.ranks * part + turn / w.ranks;
        if (a >= answers)
            continue;
        const int2 to = ((const int2 *)(w.block + w.at.answer_to))[a];
        if ((to.x & TSR_NCCL_ANSWERS_PACKED) != 0)
            continue;
        copy_piece(w.peer[to.x] + w.at.returned_rows + (uint64_t)to.y * w.return_row_bytes,
                   w.block + w.at.answers + (uint64_t)a * w.return_row_bytes, w.return_row_bytes,
                   pieces, n - turn * pieces);
    }
}

static __device__ void say_returned(const tsr_nccl_work &w, uint32_t epoch)
{
    tsr_nccl_notice n = {};

    n.epoch = epoch;
    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += TSR_NCCL_THREADS)
        post(w.peer[r] + w.at.returned + (uint64_t)w.rank * sizeof(n), n);
}

/* By one CTA: waits until all have said that their answers are here. */
static __device__ void await_answers(const tsr_nccl_work &w, uint32_t epoch)
{
    bool come = true;

    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += TSR_NCCL_THREADS) {
        const unsigned char *at = w.window + w.at.returned + (uint64_t)r * sizeof(tsr_nccl_notice);
        tsr_nccl_notice theirs;
        come = await(w, at, epoch, &theirs) && come;
    }
    if (come)
        __threadfence_system(); /* what has returned is read after this */
}

/* Gives answers, then takes its own: as packets by all CTAs, or by the last, on everybody's word.
 * Everything is asked for at once here, too. */
static __global__ void __launch_bounds__(TSR_NCCL_THREADS)
    return_kernel(const __grid_constant__ tsr_nccl_work w, int32_t tokens, int32_t forms)
{
    const packet_walk n = walk_from(thread_of_peer(), threads_of_peer(), w.at.packets_of_answer);
    const int32_t slots = tokens * w.slots;
    bool last = blockIdx.x == 0;

    await_kernel();
    const tsr_nccl_state now = read_state(w);
    const int32_t wanted = *ints(w, w.at.wanted);
    const int32_t answers = *ints(w, w.at.answer_count);
    const read_answer answer = read_one(w, n);
    const int32_t rank = rank_of_slot(w, n.thing, slots);
    if (now.let_go != 0 || now.failed != 0)
        return;
    if ((wanted & TSR_NCCL_WANTS_PACKETS) != 0)
        post_answers(w, now.epoch, n, answer, answers);
    if (blockIdx.x == 0 && threadIdx.x == 0)
        state_of(w)->phase = TSR_PHASE_RETURNING;
    admit_kernel(w);
    if ((wanted & TSR_NCCL_WANTS_ROWS) != 0) {
        copy_answers(w);
        last = is_last((uint32_t *)(w.block + w.at.done) + w.ranks + 1);
    }
    if (last)
        say_returned(w, now.epoch);
    if ((forms & TSR_NCCL_ANSWERS_PACKED) != 0)
        take_answers(w, now.epoch, n, rank, slots);
    else if (last)
        await_answers(w, now.epoch);
}

static __global__ void begin_kernel(const __grid_constant__ tsr_nccl_work w, uint64_t step)
{
    await_kernel();
    tsr_nccl_state *state = state_of(w);

    state->step = step;
    state->stage = -1;
    state->phase = TSR_PHASE_STANDING;
}

static __global__ void find_peers_kernel(const __grid_constant__ tsr_nccl_work w,
                                         ncclWindow_t handle)
{
    unsigned char **peers = (unsigned char **)(w.block + w.at.peers);

    for (int32_t r = (int32_t)threadIdx.x; r < w.ranks; r += (int32_t)blockDim.x)
        peers[r] = r == w.rank ? w.window : (unsigned char *)ncclGetLsaPointer(handle, 0, r);
}

static cudaStream_t native(tsr_stream stream)
{
    return (cudaStream_t)stream.native;
}

/* Launches a kernel that begins with await_kernel, and may come before that. Not where ranks share a
 * GPU: one that has come to wait keeps the kernels of other streams from coming. */
template <typename... arguments>
static tsr_status launch(tsr_stream stream, dim3 grid, int threads,
                         void (*kernel)(tsr_nccl_work, arguments...), const tsr_nccl_work &work,
                         arguments... args)
{
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};

    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)threads);
    config.stream = native(stream);
    config.attrs = &attribute;
    config.numAttrs = work.alone != 0 ? 1 : 0;
    return TSR_NCCL_CUDA(cudaLaunchKernelEx(&config, kernel, work, args...));
}

extern "C" tsr_status tsr_nccl_find_peers(const tsr_nccl_work *work, void *handle,
                                          tsr_stream stream)
{
    find_peers_kernel<<<1, TSR_NCCL_LANES, 0, native(stream)>>>(*work, (ncclWindow_t)handle);
    return TSR_NCCL_CUDA(cudaGetLastError());
}

extern "C" tsr_status tsr_nccl_begin(const tsr_nccl_work *work, uint64_t step, tsr_stream stream)
{
    return launch(stream, dim3(1), 1, begin_kernel, *work, step);
}

static uint64_t within(uint64_t wanted, uint64_t least, uint64_t most)
{
    return wanted < least ? least : wanted < most ? wanted : most;
}

/* So many, or what is left to a rank that shares its GPU. */
static uint64_t allowed(const tsr_nccl_work *work, uint64_t ctas)
{
    return work->alone != 0 ? ctas : within(ctas, 1, SHARED_CTAS);
}

/* CTAs of each peer, of so many that would have work, between those of all peers together. */
static unsigned ctas_of_peer(const tsr_nccl_work *work, uint64_t wanted, uint64_t least,
                             uint64_t most)
{
    const uint64_t ranks = (uint64_t)work->ranks;
    const uint64_t few = within(least / ranks, 1, least);

    return (unsigned)within(wanted, few, within(most / ranks, few, most));
}

/* As many as have a thread for each packet. */
static uint64_t ctas_of_packets(uint64_t packets)
{
    return (packets + TSR_NCCL_THREADS - 1) / TSR_NCCL_THREADS;
}

/* Of so many tokens of this rank. */
static int32_t forms_of(const tsr_nccl_work *work, int32_t tokens)
{
    return (tokens <= work->at.few_rows ? TSR_NCCL_ROWS_PACKED : 0) |
           (tokens <= work->at.few_answers ? TSR_NCCL_ANSWERS_PACKED : 0);
}

extern "C" tsr_status tsr_nccl_dispatch(const tsr_nccl_work *work, int32_t tokens,
                                        tsr_stream stream)
{
    const unsigned ranks = (unsigned)work->ranks;
    const int32_t forms = forms_of(work, tokens);
    const uint64_t bytes = (uint64_t)tokens * work->row_bytes;
    const uint64_t packets = (uint64_t)tokens * (uint64_t)work->at.packets_of_row;

    if ((forms & TSR_NCCL_ROWS_PACKED) != 0) {
        const unsigned ctas = ctas_of_peer(work, ctas_of_packets(packets),
                                           allowed(work, FEWEST_CTAS), allowed(work, PACKET_CTAS));
        return launch(stream, dim3(ctas, ranks), TSR_NCCL_THREADS, few_kernel, *work, tokens,
                      forms);
    }
    const dim3 grid(
        ctas_of_peer(work, (bytes + BYTES_OF_CTA - 1) / BYTES_OF_CTA, 1, allowed(work, MOST_CTAS)),
        ranks);
    if (tokens <= TSR_NCCL_MOST_FEW)
        return launch(stream, grid, TSR_NCCL_THREADS, list_and_send_kernel, *work, tokens, forms);
    const tsr_status st =
        launch(stream, dim3(1, ranks), TSR_NCCL_THREADS, list_kernel, *work, tokens, forms);
    const dim3 all((unsigned)allowed(work, MOST_CTAS));
    return st == TSR_OK ? launch(stream, all, TSR_NCCL_THREADS, send_kernel, *work) : st;
}

extern "C" tsr_status tsr_nccl_arrive(const tsr_nccl_work *work, int32_t tokens, tsr_stream stream)
{
    const unsigned ctas = ctas_of_peer(work, ARRIVE_CTAS, 1, allowed(work, ARRIVE_CTAS));

    if ((forms_of(work, tokens) & TSR_NCCL_ROWS_PACKED) != 0)
        return TSR_OK;
    return launch(stream, dim3(ctas, (unsigned)work->ranks), TSR_NCCL_THREADS, arrive_kernel,
                  *work);
}

extern "C" tsr_status tsr_nccl_return(const tsr_nccl_work *work, int32_t tokens, tsr_stream stream)
{
    const unsigned ctas = (unsigned)allowed(work, RETURN_CTAS);

    return launch(stream, dim3(ctas), TSR_NCCL_THREADS, return_kernel, *work, tokens,
                  forms_of(work, tokens));
}
