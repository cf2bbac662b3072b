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
 *
 * All this runs once a layer, and its code comes from far: what can be known before the kernel in front
 * has ended is known then, and a chunk of a single split, as most are, goes by code of its own: of kernels
 * that leave sums, one has no other, for where no chunk can have more.
 */
#include "kernels/cuda/attention/attend_chunk_cuda.cuh"

/* Scores of this warp's 16 positions; those beyond the row's own count for nothing. */
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void score(const chunk &c, int32_t pair, uint32_t query,
                                             uint32_t keys, float s[2][4])
{
    const int warp = (int)(threadIdx.x / TSR_CUDA_LANES);
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t first = pair * PAIR + warp * WARP_KEYS;

#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            s[i][n] = 0.0F;
    }
#pragma unroll
    for (int step = 0; step < DIM / TSR_STEP; step++) {
        uint32_t q[4];
        uint32_t b[4];
        tsr_load_matrices(q, step_at<8 * EIGHTS>(query, step));
        tsr_load_matrices(b, step_at<TSR_TILE>(keys, step));
        tsr_mma(s[0], q, b[0], b[1]);
        tsr_mma(s[1], q, b[2], b[3]);
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
template <int EIGHTS>
static __device__ __forceinline__ void find_peaks(const float s[2][4], unsigned char *put,
                                                  const unsigned char *peak, float ret_peak[2][2])
{
    constexpr int row = WARPS / 2 * (int)sizeof(float);

#pragma unroll
    for (int r = 0; r < EIGHTS; r++) {
        float most =
            fmaxf(fmaxf(s[0][2 * r], s[0][2 * r + 1]), fmaxf(s[1][2 * r], s[1][2 * r + 1]));
        most = fmaxf(most, __shfl_xor_sync(TSR_ALL_LANES, most, 1));
        most = fmaxf(most, __shfl_xor_sync(TSR_ALL_LANES, most, 2));
        if (threadIdx.x % 4 == 0)
            *(float *)(put + 8 * r * row) = most;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * EIGHTS; i++) {
        const float4 p = *(const float4 *)(peak + 8 * (i % 2 * EIGHTS + i / 2) * row);
        ret_peak[i % 2][i / 2] = fmaxf(fmaxf(p.x, p.y), fmaxf(p.z, p.w));
    }
}

/* This lane's weights into those of the warp's tile. */
template <int EIGHTS>
static __device__ __forceinline__ void put_weights(const float s[2][4], float scale,
                                                   const float base[2], unsigned char *room,
                                                   uint32_t put)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int r = 0; r < EIGHTS; r++) {
            const uint32_t pair = tsr_to_bf16_pair(tsr_weight_of(s[i][2 * r], scale, base[r]),
                                                   tsr_weight_of(s[i][2 * r + 1], scale, base[r]));
            *(uint32_t *)(room + (put ^ (uint32_t)(i * TSR_PIECE)) + 8 * r * TSR_LINE) = pair;
        }
    }
}

/* Adds a tile's weighted values, this warp's eighth of the dims. */
template <int PIECES, int EIGHTS>
static __device__ __forceinline__ void add_values(uint32_t weight, uint32_t values,
                                                  tsr_sums<PIECES, EIGHTS> *sums)
{
    constexpr uint32_t ones = 0x3f803f80U;
    uint32_t b[4];

#pragma unroll
    for (int step = 0; step < TSR_TILE / TSR_STEP; step++) {
        const uint32_t rows = values + (uint32_t)(step * TSR_STEP * TSR_LINE);
        uint32_t w[4];
        tsr_load_matrices(w, step_at<8 * EIGHTS>(weight, step));
        if (PIECES == 1) {
            if (step % 2 == 0)
                tsr_load_turned_matrices(b, rows);
            tsr_mma(sums->value[0], w, b[step % 2 * 2], b[step % 2 * 2 + 1]);
        }
#pragma unroll
        for (int i = 0; i + 1 < PIECES; i += 2) {
            tsr_load_turned_matrices(b, rows ^ (uint32_t)(i * TSR_PIECE));
            tsr_mma(sums->value[i], w, b[0], b[1]);
            tsr_mma(sums->value[i + 1], w, b[2], b[3]);
        }
        tsr_mma(sums->weight, w, ones, ones);
    }
}

/* Where a split's sums of this row lie: a lane's rows g, then its rows g + 8. */
template <int DIM>
static __device__ __forceinline__ float *slot_of(const tsr_attend_job &a, const chunk &c,
                                                 int32_t slot)
{
    constexpr int64_t floats = TSR_QUERY_ROWS * (DIM + 2);

    return a.partial + ((int64_t)c.pair * a.slots + slot) * floats;
}

template <int DIM, int EIGHTS>
static __device__ __forceinline__ void leave(const tsr_attend_job &a, const chunk &c, int32_t slot,
                                             const tsr_sums<DIM / WARPS / 8, EIGHTS> &sums)
{
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);
    float *at = slot_of<DIM>(a, c, slot);
    float2 *value = (float2 *)(at + 2 * TSR_QUERY_ROWS) + threadIdx.x;

#pragma unroll
    for (int r = 0; r < EIGHTS; r++) {
#pragma unroll
        for (int i = 0; i < DIM / WARPS / 8; i++)
            value[(r * (DIM / WARPS / 8) + i) * THREADS] =
                make_float2(sums.value[i][2 * r], sums.value[i][2 * r + 1]);
        if (threadIdx.x < TSR_CUDA_LANES && lane % 4 == 0)
            ((float2 *)at)[lane / 4 + 8 * r] = make_float2(sums.most[r], sums.weight[2 * r]);
    }
}

/* What was left there; slots that are none are worth nothing. */
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void take(const tsr_attend_job &a, const chunk &c, int32_t slot,
                                            int32_t slots,
                                            tsr_sums<DIM / WARPS / 8, EIGHTS> *ret_sums)
{
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);
    const float *at = slot_of<DIM>(a, c, min(slot, slots - 1));
    const float2 *value = (const float2 *)(at + 2 * TSR_QUERY_ROWS);

    tsr_sums_clear(ret_sums);
#pragma unroll
    for (int r = 0; r < EIGHTS; r++) {
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
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void add_slots(const tsr_attend_job &a, const chunk &c,
                                                 tsr_sums<DIM / WARPS / 8, EIGHTS> *sums)
{
    enum { AT_ONCE = (DIM > 128 ? 4 : 8) / EIGHTS };
    const int32_t slots = c.splits - c.leading + 1;

#pragma unroll 1
    for (int32_t first = 0; first < slots; first += AT_ONCE) {
        tsr_sums<DIM / WARPS / 8, EIGHTS> split[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            take<DIM>(a, c, first + i, slots, &split[i]);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            tsr_sums_add(sums, split[i]);
    }
}

template <int DIM, int EIGHTS>
static __device__ void finish(const tsr_attend_job &a, const chunk &c,
                              const tsr_sums<DIM / WARPS / 8, EIGHTS> &sums)
{
    const int warp = (int)(threadIdx.x / TSR_CUDA_LANES);
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);

    if (warp == 0 && c.first_head + c.heads == a.q_heads)
        tsr_put_zeros(a, c.row);
#pragma unroll
    for (int r = 0; r < EIGHTS; r++) {
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
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void meet(const tsr_attend_job &a, const chunk &c, int32_t *last)
{
    tsr_sums<DIM / WARPS / 8, EIGHTS> sums;

    __syncthreads();
    if (threadIdx.x == 0)
        *last = arrive_at(&a.arrived[c.pair]) == c.chunks - 1;
    __syncthreads();
    if (!*last)
        return;
    if (threadIdx.x == 0)
        a.arrived[c.pair] = 0;
    tsr_sums_clear(&sums);
    add_slots<DIM>(a, c, &sums);
    finish<DIM>(a, c, sums);
}

/* A split: two tiles, one after the other, as far as sums go. ALONE: it is all of the chunk, which has
 * been fetched. */
template <int DIM, bool FP8, int EIGHTS, bool ALONE>
static __device__ __forceinline__ void
attend_pair(const tsr_attend_job &a, const chunk &c, const decode_lane &at, decode_ring *ring,
            decode_room<DIM, FP8, EIGHTS> *room, tsr_sums<DIM / WARPS / 8, EIGHTS> *ret_split)
{
    constexpr uint32_t tile = tsr_stored<DIM, false>::tile;
    const float none[2] = {-INFINITY, -INFINITY};
    unsigned char *memory = (unsigned char *)room;
    const uint32_t shared = tsr_shared_at(room);
    float s[2][4];
    float peak[2][2];
    float base[2];

    if (!ALONE)
        refill(a, c, ring, room);
    const uint32_t keys = shared + look_at(ALONE ? 0 : ring->slot, room);
    score<DIM, EIGHTS>(c, ring->pair, shared + at.query, keys + at.keys, s);
    find_peaks<EIGHTS>(s, memory + at.put_peak, memory + at.peak, peak);
    const tsr_rise first = tsr_rise_of<EIGHTS>(none, peak[0], a.score_scale);
    const tsr_rise then = tsr_rise_of<EIGHTS>(first.most, peak[1], a.score_scale);
#pragma unroll
    for (int r = 0; r < EIGHTS; r++)
        base[r] = threadIdx.x >= THREADS / 2 ? then.base[r] : first.base[r];
    put_weights<EIGHTS>(s, a.score_scale, base, memory, at.put);
    if (ALONE) {
        tsr_copies_wait<0>();
        __syncthreads();
    } else {
        turn_ring(a, ring);
        refill(a, c, ring, room);
    }
    const uint32_t values = shared + look_at(ALONE ? 1 : ring->slot, room) + at.values;
    tsr_sums_clear(ret_split);
    add_values(shared + at.weight, values, ret_split);
    tsr_sums_rise(ret_split, then);
    add_values(shared + at.weight + 8 * EIGHTS * TSR_TILE * 2, values + tile, ret_split);
}

/* The chunk's splits in order, when queries, the row's own key and value and the first keys are in the
 * room. Chunk 0 adds its splits up, the others leave them one by one; where there is no other, the
 * sums of all are given. */
template <int DIM, bool FP8, int EIGHTS, bool LEAVES>
static __device__ __forceinline__ void
attend_pairs(const tsr_attend_job &a, const chunk &c, const decode_lane &at, decode_ring *ring,
             decode_room<DIM, FP8, EIGHTS> *room, tsr_sums<DIM / WARPS / 8, EIGHTS> *ret_total)
{
    tsr_sums<DIM / WARPS / 8, EIGHTS> split;

    tsr_sums_clear(ret_total);
#pragma unroll 1
    for (ring->pair = c.first; ring->pair < c.end; ring->pair++) {
        if (ring->pair > c.first)
            turn_ring(a, ring);
        attend_pair<DIM, FP8, EIGHTS, false>(a, c, at, ring, room, &split);
        if (c.index == 0)
            tsr_sums_add(ret_total, split);
        else
            leave<DIM>(a, c, ring->pair - c.leading + 1, split);
    }
    if (c.index == 0 && (c.chunks > 1 || LEAVES))
        leave<DIM>(a, c, 0, *ret_total);
}

/* The same of a single split: what it is added to none is it itself, bit by bit. */
template <int DIM, bool FP8, int EIGHTS, bool LEAVES>
static __device__ __forceinline__ void
attend_one_pair(const tsr_attend_job &a, const chunk &c, const decode_lane &at, decode_ring *ring,
                decode_room<DIM, FP8, EIGHTS> *room, tsr_sums<DIM / WARPS / 8, EIGHTS> *ret_total)
{
    attend_pair<DIM, FP8, EIGHTS, true>(a, c, at, ring, room, ret_total);
    if (c.chunks > 1 || LEAVES)
        leave<DIM>(a, c, c.index == 0 ? 0 : c.first - c.leading + 1, *ret_total);
}

/* What a kernel does. */
typedef enum decode_role {
    DECODE_FINISHES,    /* all of it */
    DECODE_LEAVES,      /* it leaves sums of splits to who makes an operand row of them */
    DECODE_LEAVES_ALONE /* .. where no chunk has more than one; of a single row: several are not cut */
} decode_role;

/* From what earlier steps left, before the kernel in front has ended, to the row's results. */
template <int DIM, bool FP8, int EIGHTS, decode_role ROLE>
static __device__ __forceinline__ void attend_row(const tsr_attend_job &a, const chunk &c,
                                                  tsr_cuda_faults faults,
                                                  decode_room<DIM, FP8, EIGHTS> *room)
{
    constexpr bool leaves = ROLE != DECODE_FINISHES;
    tsr_sums<DIM / WARPS / 8, EIGHTS> total;
    decode_ring ring = {c.first, 0, a.ring == SLOTS ? SLOTS - 1 : -1, FETCHED, {}};
    tsr_tile_source *source = &ring.source;

    source->table = c.table;
    source->end = c.position;
    source->head = (uint32_t)(c.kv_head * a.cache.block_tokens) * a.row_pieces;
    tsr_look_up<DIM, FP8, PAIR, THREADS>(a, source, c.first * PAIR);
    const held_turn<DIM> turn = load_turn<DIM>(a, c);
    const fresh_row fresh = find_fresh<DIM, FP8, EIGHTS>(a, c);
    const head_row query = find_query<DIM, FP8, EIGHTS>(a, c);
    const decode_lane at = lane_of<DIM, FP8, EIGHTS>();
    const bool astray = is_astray(a, c);
#pragma unroll 1
    for (int32_t unit = 0; unit < FETCHED; unit++) {
        fetch(a, c, unit, source, unit, room);
        tsr_copies_end();
    }
    tsr_await_kernel();
    const bool is_faulty = tsr_is_faulty(faults);
    const stored_head<DIM> stored = bring_heads(a, c, turn, query, fresh, room);
    tsr_copies_wait<FETCHED - 1>();
    if (__syncthreads_or(is_faulty || astray)) {
        if (threadIdx.x < TSR_CUDA_LANES)
            tsr_leave_lowest(a, c.sequence, faults);
        return;
    }
    store_fresh<DIM, FP8>(fresh, stored);
    if (ROLE != DECODE_LEAVES_ALONE && c.end - c.first > 1)
        attend_pairs<DIM, FP8, EIGHTS, leaves>(a, c, at, &ring, room, &total);
    else
        attend_one_pair<DIM, FP8, EIGHTS, leaves>(a, c, at, &ring, room, &total);
    if (leaves)
        return;
    if (c.chunks == 1)
        finish<DIM>(a, c, total);
    else
        meet<DIM, EIGHTS>(a, c, &room->last);
}

template <int DIM, bool FP8, int EIGHTS, decode_role ROLE>
static __global__ void __launch_bounds__(THREADS, DIM > 128                                ? 1
                                                  : ROLE != DECODE_FINISHES && EIGHTS == 1 ? 3
                                                                                           : 2)
    decode_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char memory[];
    decode_room<DIM, FP8, EIGHTS> *room = (decode_room<DIM, FP8, EIGHTS> *)memory;
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
        attend_row<DIM, FP8, EIGHTS, ROLE>(a, c, faults, room);
        if (ROLE != DECODE_FINISHES || r + 1 == seq.rows)
            return;
        __threadfence(); /* this row's key and value are there when the next one fetches */
        __syncthreads();
    }
}

/* Launches the kernel that is built for a width and up to so many query heads. */
template <int DIM, bool FP8, int EIGHTS>
static tsr_status launch_eights(tsr_device *device, tsr_attend_job *job, tsr_stream s)
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
    a.ring = room_bytes<DIM, FP8, EIGHTS>(SLOTS) <= (size_t)shared_bytes ? SLOTS : NARROW_SLOTS;
    const tsr_cuda_launch_shape at = {
        dim3((unsigned)a.chunks, (unsigned)heads, (unsigned)job->sequences),
        THREADS,
        room_bytes<DIM, FP8, EIGHTS>(a.ring),
        tsr_cuda_stream(device, s),
        0,
    };
    *job = a;
    const bool alone = min(a.chunks, a.slots) >= splits; /* as tsr_cut_row has it */
    return tsr_launch_behind(at,
                             !a.leaves ? decode_kernel<DIM, FP8, EIGHTS, DECODE_FINISHES>
                             : alone   ? decode_kernel<DIM, FP8, EIGHTS, DECODE_LEAVES_ALONE>
                                       : decode_kernel<DIM, FP8, EIGHTS, DECODE_LEAVES>,
                             a, tsr_cuda(device)->faults);
}

template <int DIM, bool FP8>
static tsr_status launch(tsr_device *device, tsr_attend_job *job, tsr_stream s)
{
    return job->shared <= 8 ? launch_eights<DIM, FP8, 1>(device, job, s)
                            : launch_eights<DIM, FP8, 2>(device, job, s);
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
