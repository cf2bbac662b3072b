/*
 * Rows of any number a sequence: a kernel that turns keys and puts them and the values into the
 * cache, then one that attends. A CTA of eight warps takes 128 query rows of one kv head, which are
 * the heads that share it, position after position:
 *
 *   query rows   | p: head 0 1 2 .. | p + 1: head 0 1 2 .. | ..      16 a warp
 *
 *   heads wider than 128: two warps share 16 rows, each has half of the dims of the values
 *
 * Tiles of keys and of values take turns in a ring. CTAs with the longest way come first.
 */
#include "kernels/cuda/attend_cuda.cuh"

enum { WARPS = 8, THREADS = WARPS * TSR_CUDA_LANES };

#ifndef ATTEND_PREFILL_TILES
#define ATTEND_PREFILL_TILES 4
#endif

/* How a width is dealt out. */
template <int DIM, bool FP8> struct shape_of {
    static constexpr int halves = DIM > 128 ? 2 : 1;
    static constexpr int dims = DIM / halves; /* of the values, for a warp */
    static constexpr int pieces = dims / 8;
    static constexpr int groups = WARPS / halves;
    static constexpr int rows = groups * TSR_QUERY_ROWS;
    static constexpr int tiles = DIM > 128 ? 2 : ATTEND_PREFILL_TILES;
};

/* Shared memory of a CTA. */
template <int DIM, bool FP8> struct prefill_room {
    unsigned char ring[shape_of<DIM, FP8>::tiles][tsr_stored<DIM, FP8>::tile];
    unsigned char wide[FP8 ? TSR_TILE * DIM * 2 : TSR_PIECE]; /* FP8: the tile in BF16 */
    unsigned char query[shape_of<DIM, FP8>::rows * DIM * 2];
    int32_t found[4];
    int32_t sum[WARPS];
};

/* A CTA's query rows. */
typedef struct span {
    const int32_t *table;
    int32_t first_row; /* of the sequence in the step */
    int32_t first_position;
    int32_t kv_head;
    int32_t shared; /* query heads of the kv head */
    int32_t first;  /* query row of the sequence */
    int32_t end;    /* of its query rows */
    int32_t tiles;  /* of positions */
    int32_t positions; /* of the sequence, from the first on */
} span;

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

/* A head of a key or value by a warp. */
static __device__ __forceinline__ void put_head(const tsr_attend_job &a, void *memory, int64_t at,
                                                float4 x, float scale)
{
    if (a.cache.format == TSR_KV_FP8)
        *(uint32_t *)((unsigned char *)memory + at) = tsr_e4m3_span(x, scale);
    else
        *(uint2 *)((unsigned char *)memory + 2 * at) = tsr_bf16_span(x);
}

static __global__ void __launch_bounds__(THREADS) write_kernel(const __grid_constant__ tsr_attend_job a,
                                    tsr_cuda_faults faults)
{
    __shared__ __align__(16) float room[WARPS][TSR_CUDA_HEAD_DIM];
    const int32_t row = (int32_t)blockIdx.x;
    const int32_t lane = (int32_t)threadIdx.x % TSR_CUDA_LANES;
    const int32_t warp = (int32_t)threadIdx.x / TSR_CUDA_LANES;
    const int32_t dim = a.cache.head_dim;

    tsr_let_next_kernel_begin();
    tsr_wait_for_kernel_in_front();
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
        const tsr_head_spans h = tsr_load_head((is_key ? a.k : a.v) + from, dim);
        const int64_t at = tsr_cache_at(a, a.blocks + seq.first_block, position, head);
        if (is_key)
            tsr_turn_head(turn, h, room[warp]);
#pragma unroll
        for (int n = 0; n < TSR_TURN_SPANS; n++) {
            const int32_t d = TSR_TURN_SPAN * (lane + TSR_CUDA_LANES * n);
            if (d < dim)
                put_head(a, is_key ? a.cache.keys : a.cache.values, at + d,
                         is_key ? *(const float4 *)(room[warp] + d) : h.span[n],
                         is_key ? a.cache.key_scale : a.cache.value_scale);
        }
        __syncwarp();
    }
}

/* ---- who takes which rows ---- */

static __device__ __forceinline__ int32_t spans_of(const tsr_attend_job &a, int32_t s, int32_t rows)
{
    return s < a.sequences ? (a.sequence[s].rows * (a.q_heads / a.cache.kv_heads) + rows - 1) / rows
                           : 0;
}

/* Sum over the CTA of what the threads up to this one have; *ret_all of all threads. */
static __device__ int32_t sum_up_to(int32_t x, int32_t sum[WARPS], int32_t *ret_all)
{
    const int32_t lane = (int32_t)threadIdx.x % TSR_CUDA_LANES;
    const int32_t warp = (int32_t)threadIdx.x / TSR_CUDA_LANES;
    int32_t before = 0;
    int32_t all = 0;

#pragma unroll
    for (int apart = 1; apart < TSR_CUDA_LANES; apart *= 2) {
        const int32_t other = __shfl_up_sync(TSR_ALL_LANES, x, (unsigned)apart);
        x += lane >= apart ? other : 0;
    }
    __syncthreads();
    if (lane == TSR_CUDA_LANES - 1)
        sum[warp] = x;
    __syncthreads();
    for (int w = 0; w < WARPS; w++) {
        before += w < warp ? sum[w] : 0;
        all += sum[w];
    }
    *ret_all = all;
    return before + x;
}

/* The CTA's span, counted from the last one of all sequences; false: there is none. */
static __device__ bool find_span(const tsr_attend_job &a, int32_t index, int32_t rows,
                                 int32_t found[4], int32_t sum[WARPS], span *ret_span)
{
    int32_t all = 0;
    int32_t before = 0;

    for (int32_t s = 0; s < a.sequences; s += THREADS) {
        int32_t here;
        (void)sum_up_to(spans_of(a, s + (int32_t)threadIdx.x, rows), sum, &here);
        all += here;
    }
    const int32_t wanted = all - 1 - index;
    if (wanted < 0)
        return false;
    for (int32_t s = 0; s < a.sequences; s += THREADS) {
        const int32_t mine = spans_of(a, s + (int32_t)threadIdx.x, rows);
        int32_t here;
        const int32_t end = before + sum_up_to(mine, sum, &here);
        if (wanted < end && wanted >= end - mine) {
            found[0] = s + (int32_t)threadIdx.x;
            found[1] = wanted - (end - mine);
        }
        before += here;
    }
    __syncthreads();
    const tsr_attention_sequence seq = a.sequence[found[0]];
    ret_span->table = a.blocks + seq.first_block;
    ret_span->first_row = seq.first_row;
    ret_span->first_position = seq.first_position;
    ret_span->first = found[1] * rows;
    ret_span->end = seq.rows * ret_span->shared;
    ret_span->positions = seq.first_position + seq.rows;
    const int32_t last = min(ret_span->first + rows, ret_span->end) - 1;
    ret_span->tiles = (seq.first_position + last / ret_span->shared) / TSR_TILE + 1;
    return true;
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
            tsr_find_rows<DIM, FP8, THREADS>(a, source, tile * TSR_TILE);
        tsr_fetch_tile<DIM, FP8, THREADS>(a, *source, keys ? a.cache.keys : a.cache.values,
                                          tsr_shared_at(room->ring[u % shape_of<DIM, FP8>::tiles]));
        if (keys)
            tsr_look_up<DIM, FP8, THREADS>(a, source, (tile + 1) * TSR_TILE);
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
    tsr_widen_tile<DIM, THREADS>(room->ring[u % tiles], room->wide);
    __syncthreads();
    return tsr_shared_at(room->wide);
}

/* Turns this warp's share of its group's 16 rows and puts them down as the A operand. The ring is
 * not in use yet: its front holds the head that a warp has in hand. */
template <int DIM, bool FP8>
static __device__ void bring_queries(const tsr_attend_job &a, const span &c,
                                     prefill_room<DIM, FP8> *room)
{
    typedef shape_of<DIM, FP8> shape;
    constexpr int count = TSR_QUERY_ROWS / shape::halves;
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;
    const int32_t dim = a.cache.head_dim;
    float *head = (float *)(void *)room->ring[0] + warp * DIM;
    tsr_turn turn = a.q_turn;

#pragma unroll 1
    for (int r = warp * count; r < (warp + 1) * count; r++) {
        const int32_t query = c.first + r;
        const bool is = query < c.end;
        if (is) {
            const int32_t row = c.first_row + query / c.shared;
            const int64_t at = (int64_t)row * a.q_heads + c.kv_head * c.shared + query % c.shared;
            if (turn.half > 0) {
                turn.cos = a.q_turn.cos + (int64_t)a.position[row] * turn.half;
                turn.sin = a.q_turn.sin + (int64_t)a.position[row] * turn.half;
            }
            tsr_turn_head(turn, tsr_load_head(a.q + at * dim, dim), head);
        }
        for (int d = TSR_TURN_SPAN * lane; d < DIM; d += TSR_TURN_SPAN * TSR_CUDA_LANES) {
            uint2 codes = make_uint2(0, 0);
            if (is && d < dim)
                codes = tsr_bf16_span(*(const float4 *)(head + d));
            *(uint2 *)(room->query + tsr_piece_at<DIM>(r, d / 8) + d % 8 * 2) = codes;
        }
    }
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
            tsr_load_rows<DIM>(query->step[0], query->at, step);
#pragma unroll
        for (int i = 0; i < TSR_TILE / 8; i += 2) {
            uint32_t b[4];
            tsr_load_keys<DIM>(b, keys, 8 * i, step);
            tsr_mma(s[i], query->step[step % held], b[0], b[1]);
            tsr_mma(s[i + 1], query->step[step % held], b[2], b[3]);
        }
    }
}

/* Positions that a row does not see count for nothing; `sees` is the last that it does. */
static __device__ __forceinline__ void mask(float s[TSR_TILE / 8][4], int32_t first,
                                            const int32_t sees[2])
{
    const int32_t column = first + 2 * (int32_t)(threadIdx.x % 4);

#pragma unroll
    for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
        for (int n = 0; n < 4; n++) {
            if (column + 8 * i + n % 2 > sees[n / 2])
                s[i][n] = -INFINITY;
        }
    }
}

static __device__ __forceinline__ void find_peak(const float s[TSR_TILE / 8][4], float ret_peak[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most = fmaxf(s[0][2 * r], s[0][2 * r + 1]);
#pragma unroll
        for (int i = 1; i < TSR_TILE / 8; i++)
            most = fmaxf(most, fmaxf(s[i][2 * r], s[i][2 * r + 1]));
        most = fmaxf(most, __shfl_xor_sync(TSR_ALL_LANES, most, 1));
        ret_peak[r] = fmaxf(most, __shfl_xor_sync(TSR_ALL_LANES, most, 2));
    }
}

/* Scores to the A operand of the values. */
static __device__ __forceinline__ void weigh(const float s[TSR_TILE / 8][4], float scale,
                                             const float base[2],
                                             uint32_t ret_weight[TSR_TILE / TSR_STEP][4])
{
#pragma unroll
    for (int i = 0; i < TSR_TILE / 8; i++) {
#pragma unroll
        for (int r = 0; r < 2; r++)
            ret_weight[i / 2][i % 2 * 2 + r] =
                tsr_to_bf16_pair(tsr_weight_of(s[i][2 * r], scale, base[r]),
                                 tsr_weight_of(s[i][2 * r + 1], scale, base[r]));
    }
}

template <int DIM, int PIECES>
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
            tsr_load_values<DIM>(b, values, step, first + i);
            tsr_mma(sums->value[i], weight[step], b[0], b[1]);
            tsr_mma(sums->value[i + 1], weight[step], b[2], b[3]);
        }
        tsr_mma(sums->weight, weight[step], ones, ones);
    }
}

template <int PIECES>
static __device__ __forceinline__ void finish(const tsr_attend_job &a, const span &c,
                                              const int32_t query[2], int32_t first_dim,
                                              const tsr_sums<PIECES> &sums)
{
    const int32_t lane = (int32_t)threadIdx.x % TSR_CUDA_LANES;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float share = a.value_scale / sums.weight[2 * r];
        if (query[r] >= c.end)
            continue;
        const int32_t row = c.first_row + query[r] / c.shared;
        const int32_t head = c.kv_head * c.shared + query[r] % c.shared;
#pragma unroll
        for (int i = 0; i < PIECES; i++)
            tsr_put_pair(a, row, head, first_dim + 8 * i + 2 * (lane % 4),
                         sums.value[i][2 * r] * share, sums.value[i][2 * r + 1] * share);
    }
}

template <int DIM, bool FP8>
static __device__ void attend_span(const tsr_attend_job &a, const span &c,
                                   tsr_tile_source *source, prefill_room<DIM, FP8> *room)
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
            tsr_load_rows<DIM>(held.step[step], held.at, step);
    }
    tsr_sums_clear(&split);
    tsr_sums_clear(&total);
    for (int32_t tile = 0; tile < c.tiles; tile++) {
        float s[TSR_TILE / 8][4];
        uint32_t weight[TSR_TILE / TSR_STEP][4];
        float peak[2];
        float base[2];
        score<DIM>(&held, arrive<DIM, FP8>(a, c, 2 * tile, source, room), s);
        if ((tile + 1) * TSR_TILE - 1 > least)
            mask(s, tile * TSR_TILE, sees);
        find_peak(s, peak);
        tsr_sums_rise(&split, peak, a.score_scale, base);
        weigh(s, a.score_scale, base, weight);
        const uint32_t values = arrive<DIM, FP8>(a, c, 2 * tile + 1, source, room);
        add_values<DIM, shape::pieces>(weight, values, first_piece, &split);
        if ((tile + 1) % TSR_SPLIT_TILES != 0 && tile + 1 != c.tiles)
            continue;
        tsr_sums_add(&total, split);
        tsr_sums_clear(&split);
    }
    finish(a, c, query, first_piece * 8, total);
}

template <int DIM, bool FP8>
static __global__ void __launch_bounds__(THREADS, 1)
    attend_kernel(const __grid_constant__ tsr_attend_job a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(128) unsigned char memory[];
    prefill_room<DIM, FP8> *room = (prefill_room<DIM, FP8> *)memory;
    const int32_t index = (int32_t)blockIdx.x / a.cache.kv_heads;
    span c = {};

    tsr_let_next_kernel_begin();
    tsr_wait_for_kernel_in_front();
    if (tsr_is_faulty(faults))
        return;
    c.kv_head = (int32_t)blockIdx.x % a.cache.kv_heads;
    c.shared = a.q_heads / a.cache.kv_heads;
    if (!find_span(a, index, shape_of<DIM, FP8>::rows, room->found, room->sum, &c))
        return;
    tsr_tile_source source = {
        c.table, c.positions, (uint32_t)(c.kv_head * a.cache.block_tokens) * a.row_pieces, 0, 0,
    };
    tsr_look_up<DIM, FP8, THREADS>(a, &source, 0);
    bring_queries<DIM, FP8>(a, c, room);
    __syncthreads();
#pragma unroll 1
    for (int32_t u = 0; u < shape_of<DIM, FP8>::tiles - 1; u++)
        fetch<DIM, FP8>(a, c, u, &source, room);
    attend_span<DIM, FP8>(a, c, &source, room);
}

template <int DIM, bool FP8>
static tsr_status launch(tsr_device *device, const tsr_attend_job *job, tsr_stream s)
{
    const int64_t queries = (int64_t)job->tokens * (job->q_heads / job->cache.kv_heads);
    const int64_t spans = queries / shape_of<DIM, FP8>::rows + min(job->sequences, job->tokens);
    const tsr_launch l = {
        dim3((unsigned)(spans * job->cache.kv_heads)),
        dim3(THREADS),
        sizeof(prefill_room<DIM, FP8>),
    };
    const tsr_launch write = {dim3((unsigned)job->tokens), dim3(THREADS), 0};
    const tsr_cuda_faults faults = tsr_cuda(device)->faults;
    tsr_status st = tsr_launch_behind(device, write, s, write_kernel, *job, faults);

    if (st == TSR_OK)
        st = tsr_launch_behind(device, l, s, attend_kernel<DIM, FP8>, *job, faults);
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
