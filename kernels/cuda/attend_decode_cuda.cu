/*
 * One row of each sequence. A row's splits are cut into chunks, and a CTA of eight warps takes a chunk
 * for the query heads (up to 16) of one kv head:
 *
 *   splits  | 0 | 1 | 2 | 3 | 4 | 5 |      chunk 0 adds its splits up as it goes; the others leave
 *   chunks  |   0   |   1   |   2   |      theirs one by one, and who comes last adds them behind
 *                                          chunk 0's, in order
 *
 *   two tiles at once   scores: warp w takes positions 16 w .. of the 128; the largest and the weights
 *                       meet in shared memory; values: warp w takes an eighth of the dims, over one
 *                       tile, then the other
 *
 * Keys and values of two tiles take turns in a ring. What earlier steps left in the cache is fetched
 * before the kernel in front has ended: no kernel of this step writes there but this one. The chunk
 * with the row's own position turns its key and puts it and the value into the cache and the tile.
 */
#include "kernels/cuda/attend_chunk_cuda.cuh"

/* Scores of this warp's 16 positions; those beyond the row's own count for nothing. */
template <int DIM>
static __device__ __forceinline__ void score(const chunk &c, int32_t pair,
                                             const uint32_t query[DIM / TSR_STEP][4], uint32_t keys,
                                             float s[2][4])
{
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;
    const int32_t first = pair * PAIR + warp * WARP_KEYS;
    const uint32_t tile = keys + (uint32_t)(warp / 4 * tsr_stored<DIM, false>::tile);

#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            s[i][n] = 0.0F;
    }
#pragma unroll
    for (int step = 0; step < DIM / TSR_STEP; step++) {
        uint32_t b[4];
        tsr_load_keys(b, tile, warp % 4 * WARP_KEYS, step);
        tsr_mma(s[0], query[step], b[0], b[1]);
        tsr_mma(s[1], query[step], b[2], b[3]);
    }
    if (first + WARP_KEYS - 1 <= c.position)
        return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++) {
            if (first + 8 * i + 2 * (lane % 4) + n % 2 > c.position)
                s[i][n] = -INFINITY;
        }
    }
}

/* The largest scores of both tiles for this lane's rows. */
static __device__ __forceinline__ void
find_peaks(const float s[2][4], float peak[WARPS][TSR_QUERY_ROWS], float ret_peak[2][2])
{
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most =
            fmaxf(fmaxf(s[0][2 * r], s[0][2 * r + 1]), fmaxf(s[1][2 * r], s[1][2 * r + 1]));
        most = fmaxf(most, __shfl_xor_sync(TSR_ALL_LANES, most, 1));
        most = fmaxf(most, __shfl_xor_sync(TSR_ALL_LANES, most, 2));
        if (lane % 4 == 0)
            peak[warp][lane / 4 + 8 * r] = most;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + 8 * (i % 2);
        const int w = i / 2 * 4;
        ret_peak[i / 2][i % 2] =
            fmaxf(fmaxf(peak[w][row], peak[w + 1][row]), fmaxf(peak[w + 2][row], peak[w + 3][row]));
    }
}

/* This warp's weights into its tile's. */
static __device__ __forceinline__ void put_weights(const float s[2][4], float scale,
                                                   const float base[2], unsigned char *weight)
{
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;

#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const uint32_t pair = tsr_to_bf16_pair(tsr_weight_of(s[i][2 * r], scale, base[r]),
                                                   tsr_weight_of(s[i][2 * r + 1], scale, base[r]));
            *(uint32_t *)(weight +
                          tsr_piece_at<TSR_QUERY_ROWS>(lane / 4 + 8 * r, 2 * (warp % 4) + i) +
                          lane % 4 * 4) = pair;
        }
    }
}

/* Adds a tile's weighted values, this warp's eighth of the dims. */
template <int PIECES>
static __device__ __forceinline__ void add_values(uint32_t weight, uint32_t values,
                                                  tsr_sums<PIECES> *sums)
{
    constexpr uint32_t ones = 0x3f803f80U;
    const int first = (int)threadIdx.x / TSR_CUDA_LANES * PIECES;
    uint32_t b[4];

#pragma unroll
    for (int step = 0; step < TSR_TILE / TSR_STEP; step++) {
        uint32_t w[4];
        tsr_load_rows<TSR_QUERY_ROWS>(w, weight, 0, step);
        if (PIECES == 1) {
            if (step % 2 == 0)
                tsr_load_values_of_two(b, values, step / 2, first);
            tsr_mma(sums->value[0], w, b[step % 2 * 2], b[step % 2 * 2 + 1]);
        }
#pragma unroll
        for (int i = 0; i + 1 < PIECES; i += 2) {
            tsr_load_values(b, values, step, first + i);
            tsr_mma(sums->value[i], w, b[0], b[1]);
            tsr_mma(sums->value[i + 1], w, b[2], b[3]);
        }
        tsr_mma(sums->weight, w, ones, ones);
    }
}

/* Where a split's sums of this row lie; a lane's rows g, then its rows g + 8 where there are any. */
template <int DIM>
static __device__ __forceinline__ float *slot_of(const tsr_attend_job &a, const chunk &c,
                                                 int32_t slot)
{
    constexpr int64_t floats = TSR_QUERY_ROWS * (DIM + 2);

    return a.partial + ((int64_t)c.pair * a.slots + slot) * floats;
}

template <int DIM>
static __device__ void leave(const tsr_attend_job &a, const chunk &c, int32_t slot,
                             const tsr_sums<DIM / WARPS / 8> &sums)
{
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;
    float *at = slot_of<DIM>(a, c, slot);
    float2 *value = (float2 *)(at + 2 * TSR_QUERY_ROWS);

#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (r > 0 && c.heads <= 8)
            continue;
#pragma unroll
        for (int i = 0; i < DIM / WARPS / 8; i++)
            value[(r * (DIM / WARPS / 8) + i) * THREADS + threadIdx.x] =
                make_float2(sums.value[i][2 * r], sums.value[i][2 * r + 1]);
        if (threadIdx.x < TSR_CUDA_LANES && lane % 4 == 0)
            ((float2 *)at)[lane / 4 + 8 * r] = make_float2(sums.most[r], sums.weight[2 * r]);
    }
}

/* What was left there, of a lane's first ROWS rows; slots that are none are worth nothing. */
template <int DIM, int ROWS>
static __device__ __forceinline__ void take(const tsr_attend_job &a, const chunk &c, int32_t slot,
                                            int32_t slots, tsr_sums<DIM / WARPS / 8> *ret_sums)
{
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;
    const float *at = slot_of<DIM>(a, c, min(slot, slots - 1));
    const float2 *value = (const float2 *)(at + 2 * TSR_QUERY_ROWS);

    tsr_sums_clear(ret_sums);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int i = 0; i < DIM / WARPS / 8; i++) {
            const float2 v = __ldcg(&value[(r * (DIM / WARPS / 8) + i) * THREADS + threadIdx.x]);
            ret_sums->value[i][2 * r] = v.x;
            ret_sums->value[i][2 * r + 1] = v.y;
        }
        const float2 w = __ldcg((const float2 *)at + lane / 4 + 8 * r);
        ret_sums->most[r] = slot < slots ? w.x : -INFINITY;
        ret_sums->weight[2 * r] = ret_sums->weight[2 * r + 1] = w.y;
    }
}

/* All that the row's chunks have left, in order; several come before the first of them is added. */
template <int DIM, int ROWS>
static __device__ __forceinline__ void add_slots(const tsr_attend_job &a, const chunk &c,
                                                 tsr_sums<DIM / WARPS / 8> *sums)
{
    enum { AT_ONCE = (DIM > 128 ? 4 : 8) / ROWS };
    const int32_t slots = c.splits - c.leading + 1;

#pragma unroll 1
    for (int32_t first = 0; first < slots; first += AT_ONCE) {
        tsr_sums<DIM / WARPS / 8> split[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            take<DIM, ROWS>(a, c, first + i, slots, &split[i]);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            tsr_sums_add(sums, split[i]);
    }
}

template <int DIM>
static __device__ void finish(const tsr_attend_job &a, const chunk &c,
                              const tsr_sums<DIM / WARPS / 8> &sums)
{
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;

    if (warp == 0 && c.first_head + c.heads == a.q_heads)
        tsr_put_zeros(a, c.row);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int head = lane / 4 + 8 * r;
        const float share = a.value_scale / sums.weight[2 * r];
        if (head >= c.heads)
            continue;
        const tsr_result to =
            tsr_result_at(a, c.row, c.first_head + head, warp * (DIM / WARPS) + 2 * (lane % 4));
#pragma unroll
        for (int i = 0; i < DIM / WARPS / 8; i++)
            tsr_put_pair(to, 8 * i, sums.value[i][2 * r] * share, sums.value[i][2 * r + 1] * share);
    }
}

/* Counts this CTA in, after what its threads have left and before what they will take. */
static __device__ __forceinline__ int32_t arrive_at(int32_t *count)
{
    int32_t before;

    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(count)
                 : "memory");
    return before;
}

/* Of a row's chunks the last to come here adds up what all have left. */
template <int DIM>
static __device__ __forceinline__ void meet(const tsr_attend_job &a, const chunk &c, int32_t *last)
{
    tsr_sums<DIM / WARPS / 8> sums;

    if (threadIdx.x == 0) /* the CTA has met since it left its splits */
        *last = arrive_at(&a.arrived[c.pair]) == c.chunks - 1;
    __syncthreads();
    if (!*last)
        return;
    if (threadIdx.x == 0)
        a.arrived[c.pair] = 0;
    tsr_sums_clear(&sums);
    if (c.heads <= TSR_QUERY_ROWS / 2)
        add_slots<DIM, 1>(a, c, &sums);
    else
        add_slots<DIM, 2>(a, c, &sums);
    finish<DIM>(a, c, sums);
}

/* Two tiles, one after the other, as far as sums go. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void
attend_pair(const tsr_attend_job &a, const chunk &c, int32_t pair, tsr_tile_source *source,
            const uint32_t query[DIM / TSR_STEP][4], decode_room<DIM, FP8> *room,
            tsr_sums<DIM / WARPS / 8> *split)
{
    const int32_t u = 2 * (pair - c.first);
    const bool second = threadIdx.x >= THREADS / 2;
    float s[2][4];
    float peak[2][2];

    score<DIM>(c, pair, query, arrive<DIM, FP8>(a, c, u, source, room), s);
    find_peaks(s, room->peak, peak);
    const tsr_rise first = tsr_rise_of(split->most, peak[0], a.score_scale);
    const tsr_rise then = tsr_rise_of(first.most, peak[1], a.score_scale);
    put_weights(s, a.score_scale, second ? then.base : first.base, room->weight[second]);
    const uint32_t values = arrive<DIM, FP8>(a, c, u + 1, source, room);
    tsr_sums_rise(split, first);
    add_values(tsr_shared_at(room->weight[0]), values, split);
    tsr_sums_rise(split, then);
    add_values(tsr_shared_at(room->weight[1]), values + (uint32_t)tsr_stored<DIM, false>::tile,
               split);
}

/* The chunk's tiles in order, from queries and fresh rows that are in the room. Where there is more
 * than one chunk they leave their splits; otherwise the sums of all are given. */
template <int DIM, bool FP8, bool LEAVES>
static __device__ __forceinline__ void
attend_chunk(const tsr_attend_job &a, const chunk &c, tsr_tile_source *source,
             decode_room<DIM, FP8> *room, tsr_sums<DIM / WARPS / 8> *ret_total)
{
    tsr_sums<DIM / WARPS / 8> split;
    uint32_t query[DIM / TSR_STEP][4];

#pragma unroll
    for (int step = 0; step < DIM / TSR_STEP; step++)
        tsr_load_rows<TSR_QUERY_ROWS>(query[step], tsr_shared_at(room->query), 0, step);
    tsr_sums_clear(&split);
    tsr_sums_clear(ret_total);
#pragma unroll 1
    for (int32_t pair = c.first; pair < c.end; pair++) {
        attend_pair<DIM, FP8>(a, c, pair, source, query, room, &split);
        if ((pair + 1) % SPLIT_PAIRS != 0 && pair + 1 != c.end)
            continue;
        if (c.index == 0)
            tsr_sums_add(ret_total, split);
        else
            leave<DIM>(a, c, pair / SPLIT_PAIRS - c.leading + 1, split);
        tsr_sums_clear(&split);
    }
    if (c.index == 0 && (c.chunks > 1 || LEAVES))
        leave<DIM>(a, c, 0, *ret_total);
}

/* From what earlier steps left, before the kernel in front has ended, to the row's results. */
template <int DIM, bool FP8, bool LEAVES>
static __device__ __forceinline__ void attend_row(const tsr_attend_job &a, const chunk &c,
                                                  tsr_cuda_faults faults,
                                                  decode_room<DIM, FP8> *room)
{
    const bool own = c.end * PAIR > c.position;
    tsr_sums<DIM / WARPS / 8> total;
    tsr_tile_source source = {};

    source.table = c.table;
    source.end = c.position;
    source.head = (uint32_t)(c.kv_head * a.cache.block_tokens) * a.row_pieces;
    tsr_look_up<DIM, FP8, PAIR, THREADS>(a, &source, c.first * PAIR);
    const int32_t block = c.table[tsr_block_at(a, c.position)];
    const turn_dim turn = load_turn(a, c.position);
#pragma unroll 1
    for (int32_t u = 0; u < a.ring - 1; u++)
        fetch<DIM, FP8>(a, c, u, &source, room);
    stage<DIM, FP8>(turn, room);
    __syncthreads();
    tsr_await_kernel();
    const bool is_faulty = tsr_is_faulty(faults);
    tsr_head<spans_of(DIM)> fresh = load_fresh<DIM>(a, c);
    bring_queries<DIM, FP8>(a, c, room);
    if (own)
        bring_fresh<DIM, FP8>(a, &fresh, room);
    if (__syncthreads_or(is_faulty))
        return;
    if (own && !store_fresh<DIM, FP8>(a, c, block, room))
        source.wrong = true;
    attend_chunk<DIM, FP8, LEAVES>(a, c, &source, room, &total);
    if (__syncthreads_or(source.wrong)) {
        if (threadIdx.x < TSR_CUDA_LANES)
            tsr_leave_lowest(a, c.sequence, faults);
        return;
    }
    if (LEAVES)
        return;
    if (c.chunks == 1)
        finish<DIM>(a, c, total);
    else
        meet<DIM>(a, c, &room->last);
}

template <int DIM, bool FP8, bool LEAVES>
static __global__ void __launch_bounds__(THREADS, DIM > 128 ? 1 : 2)
    decode_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char memory[];
    decode_room<DIM, FP8> *room = (decode_room<DIM, FP8> *)memory;
    const tsr_attention_sequence seq = a.sequence[blockIdx.z];
    chunk c = {};

    tsr_admit_kernel();
    c.sequence = (int32_t)blockIdx.z;
    c.pair = c.sequence * (int32_t)gridDim.y + (int32_t)blockIdx.y;
    c.index = (int32_t)blockIdx.x;
    c.kv_head = (int32_t)blockIdx.y % a.cache.kv_heads;
    c.shared = a.shared;
    c.first_head = c.kv_head * a.shared + (int32_t)blockIdx.y / a.cache.kv_heads * TSR_QUERY_ROWS;
    c.heads = min((c.kv_head + 1) * a.shared - c.first_head, (int32_t)TSR_QUERY_ROWS);
    if (!tsr_sequence_fits(a, seq)) {
        tsr_await_kernel();
        if (c.index == 0 && threadIdx.x < TSR_CUDA_LANES)
            tsr_leave_lowest(a, c.sequence, faults);
        return;
    }
    c.table = a.blocks + seq.first_block;
    /* Zero rows here and more there make as many rows as sequences too: one after the other. */
#pragma unroll 1
    for (int32_t r = 0; r < seq.rows; r++) {
        c.row = seq.first_row + r;
        c.position = seq.first_position + r;
        cut_row(a, seq.rows == 1 ? a.chunks : 1, &c);
        if (c.index >= c.chunks)
            return;
        attend_row<DIM, FP8, LEAVES>(a, c, faults, room);
        if (r + 1 == seq.rows)
            return;
        __threadfence(); /* this row's key and value are there when the next one fetches */
        __syncthreads();
    }
}

/* Launches the kernel that is built for a width. */
template <int DIM, bool FP8>
static tsr_status launch(tsr_device *device, tsr_attend_job *job, tsr_stream s)
{
    const int32_t heads = job->cache.kv_heads * (int32_t)tsr_cuda_ceil(job->shared, TSR_QUERY_ROWS);
    const int64_t pairs = (int64_t)job->sequences * heads;
    const int64_t splits = tsr_cuda_ceil(job->max_context, TSR_ATTEND_SPLIT);
    const int64_t slots = tsr_cuda(device)->work.attend_floats / (TSR_QUERY_ROWS * (DIM + 2));
    tsr_attend_job a = *job;
    int32_t wanted = 0;
    int32_t shared_bytes = 0;

    tsr_status st = tsr_card_fact(device, cudaDevAttrMultiProcessorCount, &wanted);
    if (st == TSR_OK)
        st = tsr_card_fact(device, cudaDevAttrMaxSharedMemoryPerBlockOptin, &shared_bytes);
    wanted *= TSR_ATTEND_CTAS;
    if (st != TSR_OK)
        return st;
    a.slots = (int32_t)min(slots / pairs, splits + 1);
    a.chunks = (int32_t)min(max(wanted / pairs, (int64_t)1), splits);
    if (a.slots < 2 || pairs > TSR_ATTEND_PAIRS)
        a.chunks = 1;
    a.ring = room_bytes<DIM, FP8>(SLOTS) <= (size_t)shared_bytes ? SLOTS : NARROW_SLOTS;
    const tsr_cuda_launch_shape at = {
        dim3((unsigned)a.chunks, (unsigned)heads, (unsigned)job->sequences),
        THREADS,
        room_bytes<DIM, FP8>(a.ring),
        tsr_cuda_stream(device, s),
        0,
    };
    *job = a;
    return tsr_launch_behind(
        at, a.leaves ? decode_kernel<DIM, FP8, true> : decode_kernel<DIM, FP8, false>, a,
        tsr_cuda(device)->faults);
}

tsr_status tsr_attend_rows_decode(tsr_device *device, tsr_attend_job *job, tsr_stream s)
{
    const int32_t dim = job->cache.head_dim;

    if (job->cache.format == TSR_KV_FP8)
        return dim <= 64    ? launch<64, true>(device, job, s)
               : dim <= 128 ? launch<128, true>(device, job, s)
                            : launch<256, true>(device, job, s);
    return dim <= 64    ? launch<64, false>(device, job, s)
           : dim <= 128 ? launch<128, false>(device, job, s)
                        : launch<256, false>(device, job, s);
}
