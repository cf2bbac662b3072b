/*
 * One row of each of dozens of sequences, where a kv head has up to 16 query heads: a CTA a kv head of a
 * row, whose warps have splits of their own and meet no more than once.
 *
 *   splits   | 0 | 1 | 2 | 3 | 4 | ..       warp w takes w, w + WARPS, ..; each adds its sums to the
 *                                           row's when it is its turn
 *   tile     | keys 0 .. 3 | values 0 .. 3 |     units of 16 positions, which take turns in a warp's ring
 *
 *   scores   positions on M, heads on N     lane 4 g + t holds positions g and g + 8, heads 2 t, 2 t + 1
 *   values   dims on M, heads on N          the same of dims
 *
 * What earlier steps left in the cache is fetched before the kernel in front has ended, as in
 * attend_decode_cuda.cu. The warp with the row's own position turns its key.
 */
#include "kernels/cuda/attention/attend_unit_cuda.cuh"

enum { LEAST_ITEMS = 96 }; /* kv heads of rows: fewer are cut into chunks */

/* Of heads 2 t and 2 t + 1 of each eight; values of dims g and g + 8 of blocks of 16. */
template <int DIM, int EIGHTS> struct split_sums {
    float value[unit_of<DIM>::blocks][EIGHTS][4];
    float weight[EIGHTS][4];
    float most[EIGHTS][2];
};

/* Query heads as the B operand: of all steps where they are few, else of the one that needs them. */
template <int DIM, int EIGHTS> struct held_heads {
    static constexpr int steps = EIGHTS == 1 ? unit_of<DIM>::steps : 1;
    uint32_t step[steps][2 * EIGHTS];
    uint32_t at; /* what this lane reads of step 0 */
};

template <int DIM, int EIGHTS>
static __device__ __forceinline__ void hold_heads(held_heads<DIM, EIGHTS> *q, uint32_t at)
{
    q->at = at + (EIGHTS == 1 ? tsr_piece_at<EIGHT>(lane_of() % 8, lane_of() / 8)
                              : tsr_piece_at<2 * EIGHT>(lane_of() % 8 + lane_of() / 16 * 8,
                                                        lane_of() / 8 % 2));
#pragma unroll
    for (int step = 0; EIGHTS == 1 && step < unit_of<DIM>::steps; step += 2) {
        uint32_t two[4];
        tsr_load_matrices(two, swapped(q->at, 2 * step) + (uint32_t)(step / 4 * EIGHT * TSR_LINE));
#pragma unroll
        for (int i = 0; i < 4; i++)
            q->step[(step + i / 2) % q->steps][i % 2] = two[i];
    }
}

template <int DIM, int EIGHTS>
static __device__ __forceinline__ void score(held_heads<DIM, EIGHTS> *q, uint32_t keys,
                                             float s[EIGHTS][4])
{
    const uint32_t at = keys + tsr_piece_at<UNIT>(lane_of() % 16, lane_of() / 16);

#pragma unroll
    for (int n = 0; n < EIGHTS * 4; n++)
        s[n / 4][n % 4] = 0.0F;
#pragma unroll
    for (int step = 0; step < unit_of<DIM>::steps; step++) {
        uint32_t rows[4];
        tsr_load_matrices(rows, swapped(at, 2 * step) + (uint32_t)(step / 4 * UNIT * TSR_LINE));
        if constexpr (EIGHTS > 1)
            tsr_load_matrices(q->step[0], swapped(q->at, 2 * step) +
                                              (uint32_t)(step / 4 * EIGHTS * EIGHT * TSR_LINE));
#pragma unroll
        for (int e = 0; e < EIGHTS; e++)
            tsr_mma(s[e], rows, q->step[step % q->steps][2 * e],
                    q->step[step % q->steps][2 * e + 1]);
    }
}

/* Positions that the row does not see count for nothing. */
template <int EIGHTS>
static __device__ __forceinline__ void mask(const item &c, int32_t tile,
                                            float s[TILE_UNITS][EIGHTS][4])
{
    const int32_t first = tile * TSR_TILE + lane_of() / 4;

    if ((tile + 1) * TSR_TILE - 1 <= c.position)
        return;
#pragma unroll
    for (int i = 0; i < TILE_UNITS; i++) {
#pragma unroll
        for (int n = 0; n < EIGHTS * 4; n++) {
            if (first + i * UNIT + n % 4 / 2 * 8 > c.position)
                s[i][n / 4][n % 4] = -INFINITY;
        }
    }
}

/* The largest scores of an eight. */
template <int EIGHTS>
static __device__ __forceinline__ void find_peak(const float s[TILE_UNITS][EIGHTS][4], int e,
                                                 float ret_peak[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float most = fmaxf(s[0][e][h], s[0][e][2 + h]);
#pragma unroll
        for (int i = 1; i < TILE_UNITS; i++)
            most = fmaxf(most, fmaxf(s[i][e][h], s[i][e][2 + h]));
#pragma unroll
        for (int apart = 4; apart < TSR_CUDA_LANES; apart *= 2)
            most = fmaxf(most, __shfl_xor_sync(TSR_ALL_LANES, most, apart));
        ret_peak[h] = most;
    }
}

/* Eight rows of eight become columns. */
static __device__ __forceinline__ uint32_t turned(uint32_t pair)
{
    uint32_t to;

    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(to) : "r"(pair));
    return to;
}

/* Scores of an eight to the B operands of the values. */
template <int EIGHTS>
static __device__ __forceinline__ void weigh(const float s[TILE_UNITS][EIGHTS][4], int e,
                                             float scale, const float base[2],
                                             uint32_t ret_weight[TILE_UNITS][EIGHTS][2])
{
#pragma unroll
    for (int i = 0; i < TILE_UNITS; i++) {
#pragma unroll
        for (int r = 0; r < 2; r++)
            ret_weight[i][e][r] =
                turned(tsr_to_bf16_pair(tsr_weight_of(s[i][e][2 * r], scale, base[0]),
                                        tsr_weight_of(s[i][e][2 * r + 1], scale, base[1])));
    }
}

template <int DIM, int EIGHTS>
static __device__ __forceinline__ void clear(split_sums<DIM, EIGHTS> *s)
{
#pragma unroll
    for (int n = 0; n < EIGHTS * 4; n++) {
#pragma unroll
        for (int i = 0; i < unit_of<DIM>::blocks; i++)
            s->value[i][n / 4][n % 4] = 0.0F;
        s->weight[n / 4][n % 4] = 0.0F;
        s->most[n / 4][n % 2] = -INFINITY;
    }
}

template <int DIM, int EIGHTS>
static __device__ __forceinline__ void raise(const tsr_rise &rise, int e,
                                             split_sums<DIM, EIGHTS> *s)
{
    s->most[e][0] = rise.most[0];
    s->most[e][1] = rise.most[1];
    if (__all_sync(TSR_ALL_LANES, rise.shrink[0] * rise.shrink[1] == 1.0F))
        return;
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
        for (int i = 0; i < unit_of<DIM>::blocks; i++)
            s->value[i][e][n] *= rise.shrink[n % 2];
        s->weight[e][n] *= rise.shrink[n % 2];
    }
}

/* A tile's scores to its weights; what was added up before shrinks where it has to. */
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void weigh_tile(const float s[TILE_UNITS][EIGHTS][4], float scale,
                                                  split_sums<DIM, EIGHTS> *sums,
                                                  uint32_t ret_weight[TILE_UNITS][EIGHTS][2])
{
#pragma unroll
    for (int e = 0; e < EIGHTS; e++) {
        float peak[2];
        find_peak<EIGHTS>(s, e, peak);
        const tsr_rise rise = tsr_rise_of(sums->most[e], peak, scale);
        raise(rise, e, sums);
        weigh<EIGHTS>(s, e, scale, rise.base, ret_weight);
    }
}

/* A unit's weighted values. */
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void add_values(const uint32_t weight[EIGHTS][2], uint32_t values,
                                                  split_sums<DIM, EIGHTS> *s)
{
    static const uint32_t one = 0x3f803f80U;
    const uint32_t ones[4] = {one, one, one, one};
    const uint32_t at =
        values + tsr_piece_at<UNIT>(lane_of() % 8 + lane_of() / 16 * 8, lane_of() / 8 % 2);

#pragma unroll
    for (int i = 0; i < unit_of<DIM>::blocks; i++) {
        uint32_t dims[4];
        tsr_load_turned_matrices(dims, swapped(at, 2 * i) + (uint32_t)(i / 4 * UNIT * TSR_LINE));
#pragma unroll
        for (int e = 0; e < EIGHTS; e++)
            tsr_mma(s->value[i][e], dims, weight[e][0], weight[e][1]);
    }
#pragma unroll
    for (int e = 0; e < EIGHTS; e++)
        tsr_mma(s->weight[e], ones, weight[e][0], weight[e][1]);
}

/* Adds what the splits before one have of an eight, as tsr_sums_add. */
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void join(bool is_first, const total_room<DIM, EIGHTS> &room,
                                            int e, split_sums<DIM, EIGHTS> *s)
{
    const int t = lane_of() % 4;
    float keep[2];
    float take[2];

#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float before = is_first ? -INFINITY : room.most[e][2 * t + h];
        const float most = fmaxf(before, s->most[e][h]);
        const float base = most == -INFINITY ? 0.0F : most;
        const float weight = is_first ? 0.0F : room.weight[e][2 * t + h];
        keep[h] = tsr_exp2(before - base);
        take[h] = tsr_exp2(s->most[e][h] - base);
        s->most[e][h] = most;
        s->weight[e][h] = fmaf(s->weight[e][h], take[h], __fmul_rn(weight, keep[h]));
    }
#pragma unroll
    for (int i = 0; i < unit_of<DIM>::blocks; i++) {
        const float4 v =
            is_first ? make_float4(0.0F, 0.0F, 0.0F, 0.0F) : room.value[i][e][lane_of()];
        const float before[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int n = 0; n < 4; n++)
            s->value[i][e][n] =
                fmaf(s->value[i][e][n], take[n % 2], __fmul_rn(before[n], keep[n % 2]));
    }
}

/* Where the warp of a split meets that of the next one. */
static __device__ __forceinline__ int meeting_of(int32_t split)
{
    enum { MEETINGS = 8 };

    return 1 + split % MEETINGS;
}

/* All that the splits before one have, when it is its turn. */
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void join_all(int32_t split, const total_room<DIM, EIGHTS> &room,
                                                split_sums<DIM, EIGHTS> *s)
{
    if (split > 0)
        asm volatile("barrier.sync %0, %1;" ::"r"(meeting_of(split - 1)), "n"(2 * TSR_CUDA_LANES)
                     : "memory");
#pragma unroll
    for (int e = 0; e < EIGHTS; e++)
        join(split == 0, room, e, s);
}

/* Leaves them to the next. */
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void pass_on(int32_t split, total_room<DIM, EIGHTS> *room,
                                               const split_sums<DIM, EIGHTS> &s)
{
    __syncwarp(); /* all have read what was there */
#pragma unroll
    for (int e = 0; e < EIGHTS; e++) {
#pragma unroll
        for (int i = 0; i < unit_of<DIM>::blocks; i++)
            room->value[i][e][lane_of()] =
                make_float4(s.value[i][e][0], s.value[i][e][1], s.value[i][e][2], s.value[i][e][3]);
#pragma unroll
        for (int h = 0; h < 2 && lane_of() < 4; h++) {
            room->weight[e][2 * lane_of() + h] = s.weight[e][h];
            room->most[e][2 * lane_of() + h] = s.most[e][h];
        }
    }
    asm volatile("barrier.arrive %0, %1;" ::"r"(meeting_of(split)), "n"(2 * TSR_CUDA_LANES)
                 : "memory");
}

/* Lanes of neighbouring dims tell each other, so that each has two of one head. */
template <int DIM, int EIGHTS>
static __device__ __forceinline__ void finish(const tsr_attend_job &a, const item &c, int e,
                                              const split_sums<DIM, EIGHTS> &s)
{
    const int g = lane_of() / 4;
    const int odd = g % 2;
    const int h = e * EIGHT + 2 * (lane_of() % 4) + odd;
    const float share[2] = {a.value_scale / s.weight[e][0], a.value_scale / s.weight[e][1]};
    const tsr_result to = tsr_result_at(a, c.row, c.kv_head * a.shared + h, g - odd);

#pragma unroll
    for (int i = 0; i < unit_of<DIM>::blocks; i++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float even_head = s.value[i][e][2 * r] * share[0];
            const float odd_head = s.value[i][e][2 * r + 1] * share[1];
            const float theirs = __shfl_xor_sync(TSR_ALL_LANES, odd ? even_head : odd_head, 4);
            if (h < a.shared)
                tsr_put_pair(to, 16 * i + 8 * r, odd ? theirs : even_head, odd ? odd_head : theirs);
        }
    }
}

template <int DIM, int EIGHTS>
static __device__ __forceinline__ void finish_row(const tsr_attend_job &a, const item &c,
                                                  const split_sums<DIM, EIGHTS> &s)
{
    if (c.kv_head + 1 == a.cache.kv_heads)
        tsr_put_zeros(a, c.row);
#pragma unroll
    for (int e = 0; e < EIGHTS; e++)
        finish(a, c, e, s);
}

/* A warp's splits, from queries that are in the room. */
template <int DIM, int EIGHTS, int WARPS, int SLOTS>
static __device__ __forceinline__ void attend_splits(const tsr_attend_job &a, const item &c,
                                                     const fresh_row &fresh, split_source *source,
                                                     splits_room<DIM, EIGHTS, WARPS, SLOTS> *room)
{
    const uint32_t ring = tsr_shared_at(room->ring[warp_of()]);
    const int32_t own = c.position / UNIT; /* unit of positions */
    held_heads<DIM, EIGHTS> heads;
    split_sums<DIM, EIGHTS> sums;

    hold_heads(&heads, tsr_shared_at(room->query));
    clear(&sums);
#pragma unroll 1
    for (int32_t n = 0; tile_of<WARPS>(n) < c.tiles; n++) {
        const int32_t tile = tile_of<WARPS>(n);
        float s[TILE_UNITS][EIGHTS][4];
        uint32_t weight[TILE_UNITS][EIGHTS][2];
#pragma unroll
        for (int i = 0; i < TILE_UNITS; i++) {
            const uint32_t keys = take<DIM, WARPS, SLOTS>(a, c, n * FETCHES + i, source, ring);
            if (tile * TILE_UNITS + i == own)
                put_fresh<DIM>(c, fresh.of[0], keys);
            score(&heads, keys, s[i]);
        }
        mask<EIGHTS>(c, tile, s);
        weigh_tile(s, a.score_scale, &sums, weight);
#pragma unroll
        for (int i = 0; i < TILE_UNITS; i++) {
            const uint32_t values =
                take<DIM, WARPS, SLOTS>(a, c, n * FETCHES + TILE_UNITS + i, source, ring);
            if (tile * TILE_UNITS + i == own)
                put_fresh<DIM>(c, fresh.of[1], values);
            add_values(weight[i], values, &sums);
        }
        const bool last = tile + 1 == c.tiles;
        if (!last && n % TSR_SPLIT_TILES != TSR_SPLIT_TILES - 1)
            continue;
        const int32_t split = tile / TSR_SPLIT_TILES;
        join_all(split, room->total, &sums);
        if (last)
            finish_row(a, c, sums);
        else
            pass_on(split, &room->total, sums);
        clear(&sums);
    }
}

template <int DIM, int EIGHTS, int WARPS, int SLOTS>
static __device__ __forceinline__ bool attend_row(const tsr_attend_job &a, const item &c,
                                                  tsr_cuda_faults faults,
                                                  splits_room<DIM, EIGHTS, WARPS, SLOTS> *room)
{
    const bool own = c.position / TSR_ATTEND_SPLIT % WARPS == warp_of();
    split_source source = {};
    fresh_row fresh = {};

    source.head = (uint32_t)(c.kv_head * a.cache.block_tokens) * a.row_pieces;
    look_up(a, c, tile_of<WARPS>(0), &source);
    const int32_t block = c.table[tsr_block_at(a, c.position)];
#pragma unroll 1
    for (int32_t u = 0; u < SLOTS - 1; u++)
        fetch<DIM, WARPS>(a, c, u, &source, tsr_shared_at(room->ring[warp_of()][u]));
    stage<DIM, EIGHTS, WARPS>(a, c.position, &room->before, room->query);
    __syncthreads();
    tsr_await_kernel();
    const bool is_faulty = tsr_is_faulty(faults);
    bring_queries<DIM, EIGHTS, WARPS>(a, c, &room->before, room->query);
    if (own && !is_faulty)
        fresh = bring_fresh<DIM, WARPS>(a, c, block, &room->before, &source.wrong);
    if (__syncthreads_or(is_faulty))
        return false;
    attend_splits(a, c, fresh, &source, room);
    if (__any_sync(TSR_ALL_LANES, source.wrong))
        tsr_leave_lowest(a, c.sequence, faults);
    return true;
}

template <int DIM, int EIGHTS, int WARPS, int SLOTS, int CTAS>
static __global__ void __launch_bounds__(WARPS *TSR_CUDA_LANES, CTAS)
    splits_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char memory[];
    splits_room<DIM, EIGHTS, WARPS, SLOTS> *room = (splits_room<DIM, EIGHTS, WARPS, SLOTS> *)memory;
    const tsr_attention_sequence seq = a.sequence[blockIdx.y];
    item c = {};

    tsr_admit_kernel();
    c.sequence = (int32_t)blockIdx.y;
    c.kv_head = (int32_t)blockIdx.x;
    if (!tsr_sequence_fits(a, seq)) {
        tsr_await_kernel();
        if (c.kv_head == 0 && threadIdx.x < TSR_CUDA_LANES)
            tsr_leave_lowest(a, c.sequence, faults);
        return;
    }
    c.table = a.blocks + seq.first_block;
    /* Zero rows here and more there make as many rows as sequences too: one after the other. */
#pragma unroll 1
    for (int32_t r = 0; r < seq.rows; r++) {
        c.row = seq.first_row + r;
        c.position = seq.first_position + r;
        c.tiles = c.position / TSR_TILE + 1;
        if (!attend_row(a, c, faults, room) || r + 1 == seq.rows)
            return;
        __threadfence(); /* this row's key and value are there when the next one fetches */
        __syncthreads();
    }
}

/* ---- launches ---- */

template <int DIM, int EIGHTS, int WARPS, int SLOTS, int CTAS>
static tsr_status launch(tsr_device *device, const tsr_attend_job *a, tsr_stream s)
{
    const tsr_cuda_launch_shape at = {
        dim3((unsigned)a->cache.kv_heads, (unsigned)a->sequences),
        WARPS * TSR_CUDA_LANES,
        sizeof(splits_room<DIM, EIGHTS, WARPS, SLOTS>),
        tsr_cuda_stream(device, s),
        0,
    };
    return tsr_launch_behind(at, splits_kernel<DIM, EIGHTS, WARPS, SLOTS, CTAS>, *a,
                             tsr_cuda(device)->faults);
}

/* Four CTAs a processor, two larger ones or one that has most room, by how many there are. */
template <int DIM, int EIGHTS>
static tsr_status launch_heads(tsr_device *device, const tsr_attend_job *a, tsr_stream s)
{
    /* Warps of more heads take more registers. */
    constexpr int warps = EIGHTS == 1 ? 8 : 4;
    constexpr int slots = EIGHTS == 1 ? FEW_SLOTS : MORE_SLOTS;
    constexpr int most = EIGHTS == 1 ? 4 : 3;
    const int64_t items = (int64_t)a->sequences * a->cache.kv_heads;
    const int32_t processors = tsr_cuda(device)->gemm.processors;

    if (items <= processors)
        return launch<DIM, EIGHTS, 8, MORE_SLOTS, 1>(device, a, s);
    if (items <= 2 * (int64_t)processors)
        return launch<DIM, EIGHTS, warps, slots, 2>(device, a, s);
    return launch<DIM, EIGHTS, 4, FEW_SLOTS, most>(device, a, s);
}

bool tsr_attend_takes_splits(tsr_device *device, const tsr_attend_job *job)
{
    return job->cache.format == TSR_KV_BF16 && job->cache.head_dim <= 128 &&
           job->shared <= 2 * EIGHT &&
           (int64_t)job->sequences * job->cache.kv_heads >= LEAST_ITEMS &&
           tsr_cuda(device)->gemm.shared >= sizeof(splits_room<128, 2, 8, MORE_SLOTS>);
}

tsr_status tsr_attend_rows_splits(tsr_device *device, const tsr_attend_job *job, tsr_stream s)
{
    const bool narrow = job->cache.head_dim <= 64;

    if (job->shared <= EIGHT)
        return narrow ? launch_heads<64, 1>(device, job, s) : launch_heads<128, 1>(device, job, s);
    return narrow ? launch_heads<64, 2>(device, job, s) : launch_heads<128, 2>(device, job, s);
}
