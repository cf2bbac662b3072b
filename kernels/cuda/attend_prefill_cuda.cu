/*
 * Rows of any number a sequence: a kernel that turns keys and puts them and the values into the
 * cache, then one that attends. A CTA of eight warps takes 128 query rows of one kv head
 * (attend_span_cuda.cuh): 16 a warp; of heads wider than 128 two warps share 16 rows, and each has
 * half of the dims of the values. Tiles of keys and of values take turns in a ring.
 */
#include "kernels/cuda/attend_hopper_cuda.cuh"

/* How a width is dealt out. */
template <int DIM, bool FP8> struct shape_of {
    static constexpr int halves = DIM > 128 ? 2 : 1;
    static constexpr int dims = DIM / halves; /* of the values, for a warp */
    static constexpr int pieces = dims / 8;
    static constexpr int groups = WARPS / halves;
    static constexpr int rows = groups * TSR_QUERY_ROWS;
    static constexpr int tiles = DIM > 128 ? 2 : 4; /* of the ring */
};

/* Shared memory of a CTA. */
template <int DIM, bool FP8> struct prefill_room {
    unsigned char ring[shape_of<DIM, FP8>::tiles][tsr_stored<DIM, FP8>::tile];
    unsigned char wide[FP8 ? TSR_TILE * DIM * 2 : TSR_PIECE]; /* FP8: the tile in BF16 */
    unsigned char query[shape_of<DIM, FP8>::rows * DIM * 2];
};

/* ---- keys and values into the cache ---- */

/* The sequence of a row, for the whole CTA; -1: none. */
static __device__ int32_t sequence_of(const tsr_attend_job &a, int32_t row)
{
    __shared__ int32_t found;

    if (threadIdx.x == 0)
        found = -1;
    __syncthreads();
    for (int32_t s = (int32_t)threadIdx.x; s < a.sequences; s += THREADS) {
        const int32_t first = a.sequence[s].first_row;
        if (row >= first && row < first + a.sequence[s].rows)
            found = s;
    }
    __syncthreads();
    return found;
}

/* Four dims of a key or value. */
static __device__ __forceinline__ void put_span(const tsr_attend_job &a, void *memory, int64_t at,
                                                float4 x, float scale)
{
    if (a.cache.format == TSR_KV_FP8)
        *(uint32_t *)((unsigned char *)memory + at) = tsr_e4m3_span(x, scale);
    else
        *(uint2 *)((unsigned char *)memory + 2 * at) = tsr_bf16_span(x);
}

enum { SPANS = TSR_CUDA_HEAD_DIM / TSR_TURN_DIMS };

static __global__ void __launch_bounds__(THREADS)
    write_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
    __shared__ __align__(16) float room[WARPS][TSR_CUDA_HEAD_DIM];
    const int32_t row = (int32_t)blockIdx.x;
    const int32_t lane = (int32_t)threadIdx.x % TSR_CUDA_LANES;
    const int32_t warp = (int32_t)threadIdx.x / TSR_CUDA_LANES;
    const int32_t dim = a.cache.head_dim;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    const int32_t s = sequence_of(a, row);
    if (s < 0)
        return;
    const tsr_attention_sequence seq = a.sequence[s];
    const int32_t position = seq.first_position + row - seq.first_row;
    tsr_turn turn = a.k_turn;
    if (turn.half > 0) {
        turn.cos += (int64_t)a.position[row] * turn.half;
        turn.sin += (int64_t)a.position[row] * turn.half;
    }
    if (warp == 0)
        tsr_put_zeros(a, row);
#pragma unroll 1
    for (int32_t i = warp; i < 2 * a.cache.kv_heads; i += WARPS) {
        const bool is_key = i < a.cache.kv_heads;
        const int32_t head = i % a.cache.kv_heads;
        const int64_t from = ((int64_t)row * a.cache.kv_heads + head) * dim;
        const int64_t at = tsr_cache_at(a, a.blocks + seq.first_block, position, head);
        tsr_head<SPANS> h = tsr_load_head<SPANS>((is_key ? a.k : a.v) + from, dim);
        if (is_key)
            tsr_turn_head(turn, &h, room[warp]);
#pragma unroll
        for (int n = 0; n < SPANS; n++) {
            const int32_t d = TSR_TURN_SPAN * lane + TSR_TURN_DIMS * n;
            if (d < dim)
                put_span(a, is_key ? a.cache.keys : a.cache.values, at + d, h.span[n],
                         is_key ? a.cache.key_scale : a.cache.value_scale);
        }
    }
}

/* ---- attention ---- */

/* Fetches the u-th tile: keys and values in turn. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void fetch(const tsr_attend_job &a, const span &c, int32_t u,
                                             tsr_tile_source *source, prefill_room<DIM, FP8> *room)
{
    const int32_t tile = u / 2;
    const bool keys = u % 2 == 0;

    if (tile < c.tiles) {
        if (keys)
            tsr_find_rows<DIM, FP8, TSR_TILE, THREADS>(a, source, tile * TSR_TILE);
        tsr_fetch_rows<DIM, FP8, TSR_TILE, THREADS>(
            a, *source, keys ? a.cache.keys : a.cache.values,
            tsr_shared_at(room->ring[u % shape_of<DIM, FP8>::tiles]));
        if (keys)
            tsr_look_up<DIM, FP8, TSR_TILE, THREADS>(a, source, (tile + 1) * TSR_TILE);
    }
    tsr_copies_end();
}

/* Waits for the u-th tile; the slot of the one before it gets the next. Gives where it lies. */
template <int DIM, bool FP8>
static __device__ __forceinline__ uint32_t arrive(const tsr_attend_job &a, const span &c, int32_t u,
                                                  tsr_tile_source *source,
                                                  prefill_room<DIM, FP8> *room)
{
    constexpr int tiles = shape_of<DIM, FP8>::tiles;

    tsr_copies_wait<tiles - 2>();
    __syncthreads();
    fetch<DIM, FP8>(a, c, u + tiles - 1, source, room);
    if (!FP8)
        return tsr_shared_at(room->ring[u % tiles]);
    tsr_widen_rows<DIM, TSR_TILE, THREADS>(room->ring[u % tiles], room->wide);
    __syncthreads();
    return tsr_shared_at(room->wide);
}

/* Queries stay in registers where a head is narrow enough. */
template <int DIM> struct held_queries {
    static constexpr int steps = DIM > 128 ? 1 : DIM / TSR_STEP;
    uint32_t step[steps][4];
    uint32_t at; /* in shared memory, this warp's 16 rows */
};

template <int DIM>
static __device__ __forceinline__ void score(held_queries<DIM> *query, uint32_t keys,
                                             float s[TSR_TILE / 8][4])
{
#pragma unroll
    for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++)
            s[i][n] = 0.0F;
    }
#pragma unroll
    for (int step = 0; step < DIM / TSR_STEP; step++) {
        constexpr int held = held_queries<DIM>::steps;
        if (held == 1)
            tsr_load_rows<TSR_QUERY_ROWS>(query->step[0], query->at, 0, step);
#pragma unroll
        for (int i = 0; i < TSR_TILE / 8; i += 2) {
            uint32_t b[4];
            tsr_load_keys(b, keys, 8 * i, step);
            tsr_mma(s[i], query->step[step % held], b[0], b[1]);
            tsr_mma(s[i + 1], query->step[step % held], b[2], b[3]);
        }
    }
}

template <int PIECES>
static __device__ __forceinline__ void add_values(const uint32_t weight[TSR_TILE / TSR_STEP][4],
                                                  uint32_t values, int first,
                                                  tsr_sums<PIECES> *sums)
{
    constexpr uint32_t ones = 0x3f803f80U;

#pragma unroll
    for (int step = 0; step < TSR_TILE / TSR_STEP; step++) {
#pragma unroll
        for (int i = 0; i < PIECES; i += 2) {
            uint32_t b[4];
            tsr_load_values(b, values, step, first + i);
            tsr_mma(sums->value[i], weight[step], b[0], b[1]);
            tsr_mma(sums->value[i + 1], weight[step], b[2], b[3]);
        }
        tsr_mma(sums->weight, weight[step], ones, ones);
    }
}

template <int DIM, bool FP8>
static __device__ void attend_span(const tsr_attend_job &a, const span &c, tsr_tile_source *source,
                                   prefill_room<DIM, FP8> *room)
{
    typedef shape_of<DIM, FP8> shape;
    const int32_t warp = (int32_t)threadIdx.x / TSR_CUDA_LANES;
    const int32_t lane = (int32_t)threadIdx.x % TSR_CUDA_LANES;
    const int32_t group = warp / shape::halves;
    const int32_t first_piece = warp % shape::halves * shape::pieces;
    const int32_t first = c.first + group * TSR_QUERY_ROWS;
    const int32_t query[2] = {first + lane / 4, first + lane / 4 + 8};
    const int32_t least = c.first_position + min(first, c.end - 1) / c.shared;
    const int32_t sees[2] = {c.first_position + min(query[0], c.end - 1) / c.shared,
                             c.first_position + min(query[1], c.end - 1) / c.shared};
    tsr_sums<shape::pieces> split;
    tsr_sums<shape::pieces> total;
    held_queries<DIM> held;

    held.at = tsr_shared_at(room->query) + (uint32_t)(group * TSR_QUERY_ROWS * DIM * 2);
    if (DIM <= 128) {
#pragma unroll
        for (int step = 0; step < held_queries<DIM>::steps; step++)
            tsr_load_rows<TSR_QUERY_ROWS>(held.step[step], held.at, 0, step);
    }
    tsr_sums_clear(&split);
    tsr_sums_clear(&total);
    for (int32_t tile = 0; tile < c.tiles; tile++) {
        float s[TSR_TILE / 8][4];
        uint32_t weight[TSR_TILE / TSR_STEP][4];
        float peak[2];
        score<DIM>(&held, arrive<DIM, FP8>(a, c, 2 * tile, source, room), s);
        if ((tile + 1) * TSR_TILE - 1 > least)
            mask(s, tile * TSR_TILE, sees);
        find_peak(s, peak);
        const tsr_rise rise = tsr_rise_of(split.most, peak, a.score_scale);
        tsr_sums_rise(&split, rise);
        weigh(s, a.score_scale, rise.base, weight);
        const uint32_t values = arrive<DIM, FP8>(a, c, 2 * tile + 1, source, room);
        add_values(weight, values, first_piece, &split);
        if ((tile + 1) % TSR_SPLIT_TILES != 0 && tile + 1 != c.tiles)
            continue;
        tsr_sums_add(&total, split);
        tsr_sums_clear(&split);
    }
    finish(a, c, query, first_piece * 8, total);
}

/* A span from its queries on; the whole CTA. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void attend(const tsr_attend_job &a, const span &c,
                                              prefill_room<DIM, FP8> *room)
{
    constexpr int count = TSR_QUERY_ROWS / shape_of<DIM, FP8>::halves;
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    tsr_tile_source source = {
        c.table, c.positions, (uint32_t)(c.kv_head * a.cache.block_tokens) * a.row_pieces, 0, 0,
    };

    tsr_look_up<DIM, FP8, TSR_TILE, THREADS>(a, &source, 0);
    /* The ring is empty yet: a warp's head in hand has room there. */
    bring_queries<DIM, TSR_QUERY_ROWS, count>(
        a, c, warp * count, (float *)(void *)room->ring[0] + warp * DIM, room->query);
    __syncthreads();
#pragma unroll 1
    for (int32_t u = 0; u < shape_of<DIM, FP8>::tiles - 1; u++)
        fetch<DIM, FP8>(a, c, u, &source, room);
    attend_span<DIM, FP8>(a, c, &source, room);
}

template <int DIM, bool FP8>
static __global__ void __launch_bounds__(THREADS, 1)
    attend_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    __shared__ span_search search;
    span c = {};

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    c.kv_head = (int32_t)blockIdx.x % a.cache.kv_heads;
    c.shared = a.q_heads / a.cache.kv_heads;
    if (!find_span(a, (int32_t)blockIdx.x / a.cache.kv_heads, shape_of<DIM, FP8>::rows, &search,
                   &c))
        return;
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    if constexpr (DIM <= 128)
        wide_attend<DIM, FP8>(a, c, (hopper_room<DIM, FP8> *)memory);
    else
#endif
        attend<DIM, FP8>(a, c, (prefill_room<DIM, FP8> *)memory);
}

template <int DIM, bool FP8>
static tsr_status launch(tsr_device *device, const tsr_attend_job *job, tsr_stream s)
{
    const int64_t queries = (int64_t)job->tokens * (job->q_heads / job->cache.kv_heads);
    const int64_t spans = queries / shape_of<DIM, FP8>::rows + min(job->sequences, job->tokens);
    const bool wide = DIM <= 128 && tsr_is_hopper(device);
    const cudaStream_t stream = tsr_cuda_stream(device, s);
    const size_t room = wide ? max(sizeof(hopper_room<DIM, FP8>), sizeof(prefill_room<DIM, FP8>))
                             : sizeof(prefill_room<DIM, FP8>);
    const tsr_cuda_launch_shape write = {dim3((unsigned)job->tokens), THREADS, 0, stream, 0};
    const tsr_cuda_launch_shape attend = {dim3((unsigned)(spans * job->cache.kv_heads)), THREADS,
                                          room, stream, 0};
    const tsr_cuda_faults faults = tsr_cuda(device)->faults;
    tsr_status st = tsr_launch_behind(write, write_kernel, *job, faults);

    if (st == TSR_OK)
        st = tsr_launch_behind(attend, attend_kernel<DIM, FP8>, *job, faults);
    return st;
}

tsr_status tsr_attend_rows_prefill(tsr_device *device, const tsr_attend_job *job, tsr_stream s)
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
