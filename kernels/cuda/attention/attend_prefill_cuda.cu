/*
 * Rows of any number a sequence: a kernel that turns keys and puts them and the values into the
 * cache, and looks for faults, then one that attends. A CTA of eight warps takes 128 query rows of
 * one kv head (attend_span_cuda.cuh): 16 a warp; of heads wider than 128 two warps share 16 rows, and
 * each has half of the dims of the values. Tiles of keys and of values take turns in a ring.
 */
#include "kernels/cuda/attention/attend_hopper_cuda.cuh"

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

/* Where the key and value of a row go. */
typedef struct written_row {
    int32_t position;
    int32_t block;
    bool is_there; /* it is of a sequence that fits, and its block is one */
} written_row;

/* Finds a row's sequence, for a whole warp. */
static __device__ __forceinline__ written_row find_row(const tsr_attend_job &a, int32_t row)
{
    const int32_t lane = (int32_t)threadIdx.x % TSR_CUDA_LANES;
    written_row w = {};

    for (int32_t first = 0; first < a.sequences; first += TSR_CUDA_LANES) {
        const int32_t s = first + lane;
        const tsr_attention_sequence seq = a.sequence[min(s, a.sequences - 1)];
        const bool has = s < a.sequences && row >= seq.first_row &&
                         row - seq.first_row < seq.rows && tsr_sequence_fits(a, seq);
        const uint32_t found = __ballot_sync(TSR_ALL_LANES, has);
        if (found == 0)
            continue;
        const int from = __ffs((int)found) - 1;
        const int32_t table = __shfl_sync(TSR_ALL_LANES, seq.first_block, from);
        w.position = row + __shfl_sync(TSR_ALL_LANES, seq.first_position - seq.first_row, from);
        w.block = a.blocks[table + tsr_block_at(a, w.position)];
        w.is_there = w.block >= 0 && w.block < a.cache.blocks;
        break;
    }
    return w;
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

/* A warp's row: several heads, keys before values, come before the first of them is turned. */
template <int SPANS>
static __device__ __forceinline__ void write_row(const tsr_attend_job &a, int32_t row, float *room)
{
    enum { AT_ONCE = 8 / SPANS };
    const int32_t lane = (int32_t)threadIdx.x % TSR_CUDA_LANES;
    const int32_t heads = a.cache.kv_heads;
    const int32_t dim = a.cache.head_dim;
    const int64_t from = (int64_t)row * heads * dim;
    tsr_head<SPANS> head[AT_ONCE];
    written_row w = {};

#pragma unroll 1
    for (int32_t first = 0; first < 2 * heads; first += AT_ONCE) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int32_t h = min(first + i, 2 * heads - 1);
            head[i] = tsr_load_head<SPANS>(
                h < heads ? a.k + from + h * dim : a.v + from + (h - heads) * dim, dim);
        }
        if (first == 0)
            w = find_row(a, row);
        if (!w.is_there)
            return;
        const tsr_turn turn = tsr_turn_at(a.k_turn, w.position);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int32_t h = first + i;
            const bool is_key = h < heads;
            if (h >= 2 * heads)
                break;
            if (is_key)
                tsr_turn_head(turn, &head[i], room);
            const int64_t at = tsr_block_row(a, w.block, w.position, is_key ? h : h - heads);
#pragma unroll
            for (int n = 0; n < SPANS; n++) {
                const int32_t d = TSR_TURN_SPAN * lane + TSR_TURN_DIMS * n;
                if (d < dim)
                    put_span(a, is_key ? a.cache.keys : a.cache.values, at + d, head[i].span[n],
                             is_key ? a.cache.key_scale : a.cache.value_scale);
            }
        }
    }
}

/* A warp takes a row; behind those of all rows, warps look for what is wrong with a sequence. */
template <int SPANS>
static __global__ void __launch_bounds__(THREADS)
    write_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
    __shared__ __align__(16) float room[WARPS][SPANS * TSR_TURN_DIMS];
    const int32_t warp = (int32_t)threadIdx.x / TSR_CUDA_LANES;
    const int32_t row = (int32_t)blockIdx.x * WARPS + warp;
    const int32_t rows = (a.tokens + WARPS - 1) / WARPS * WARPS;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    if (row >= rows) {
        tsr_check_sequence(a, row - rows, faults);
    } else if (row < a.tokens) {
        tsr_put_zeros(a, row);
        write_row<SPANS>(a, row, room[warp]);
    }
}

template <int SPANS>
static tsr_status launch_write(tsr_device *device, const tsr_attend_job *job, tsr_stream s)
{
    const unsigned grid = tsr_cuda_ceil(job->tokens, WARPS) + tsr_cuda_ceil(job->sequences, WARPS);
    const tsr_cuda_launch_shape at = {dim3(grid), THREADS, 0, tsr_cuda_stream(device, s), 0};

    return tsr_launch_behind(at, write_kernel<SPANS>, *job, tsr_cuda(device)->faults);
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
    tsr_tile_source source = {};

    source.table = c.table;
    source.end = c.positions;
    source.head = (uint32_t)(c.kv_head * a.cache.block_tokens) * a.row_pieces;

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

/* The CTA's span; false: there is nothing to do. */
template <int COUNT>
static __device__ __forceinline__ bool begin(const tsr_attend_job &a, tsr_cuda_faults faults,
                                             int32_t rows, span *ret_span)
{
    __shared__ span_search search;
    span c = {};

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return false;
    c.kv_head = (int32_t)blockIdx.x % a.cache.kv_heads;
    c.shared = a.shared;
    if (!find_span<COUNT>(a, (int32_t)blockIdx.x / a.cache.kv_heads, rows, &search, &c))
        return false;
    *ret_span = c;
    return true;
}

template <int DIM, bool FP8>
static __global__ void __launch_bounds__(THREADS, 1)
    attend_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    span c;

    if (begin<THREADS>(a, faults, shape_of<DIM, FP8>::rows, &c))
        attend<DIM, FP8>(a, c, (prefill_room<DIM, FP8> *)memory);
}

/* On Hopper. */
template <int DIM, bool FP8>
static __global__ void __launch_bounds__(WIDE_THREADS, 1)
    wide_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) unsigned char memory[];
    hopper_room<DIM, FP8> *room = (hopper_room<DIM, FP8> *)memory;
    span c;

    wide_open(room);
    if (!begin<WIDE_THREADS>(a, faults, GROUPS * GROUP_ROWS, &c))
        return;
    if (threadIdx.x < GROUP_THREADS) {
        wgmma_fewer_registers<56>();
        bring_splits<DIM, FP8>(a, c, room);
    } else {
        wgmma_more_registers<224>();
        wide_attend<DIM, FP8>(a, c, room);
    }
#endif
}

/* Launches the kernel that is built for a width. */
template <int DIM, bool FP8>
static tsr_status launch_attend(tsr_device *device, const tsr_attend_job *job, tsr_stream s)
{
    const bool wide = DIM <= 128 && tsr_is_hopper(device);
    const int32_t rows = wide ? GROUPS * GROUP_ROWS : shape_of<DIM, FP8>::rows;
    const int64_t spans =
        (int64_t)job->tokens * job->shared / rows + min(job->sequences, job->tokens);
    tsr_cuda_launch_shape at = {};

    at.grid = dim3((unsigned)(spans * job->cache.kv_heads));
    at.stream = tsr_cuda_stream(device, s);
    if constexpr (DIM <= 128) {
        at.threads = WIDE_THREADS;
        at.shared = sizeof(hopper_room<DIM, FP8>);
        if (wide)
            return tsr_launch_behind(at, wide_kernel<DIM, FP8>, *job, tsr_cuda(device)->faults);
    }
    at.threads = THREADS;
    at.shared = sizeof(prefill_room<DIM, FP8>);
    return tsr_launch_behind(at, attend_kernel<DIM, FP8>, *job, tsr_cuda(device)->faults);
}

template <int DIM, bool FP8>
static tsr_status launch(tsr_device *device, const tsr_attend_job *job, tsr_stream s)
{
    constexpr int spans = (DIM + TSR_TURN_DIMS - 1) / TSR_TURN_DIMS;
    const tsr_status st = launch_write<spans>(device, job, s);

    return st == TSR_OK ? launch_attend<DIM, FP8>(device, job, s) : st;
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
