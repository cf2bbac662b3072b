/*
 * Up to where sums of a split begin (attend_splits_cuda.cu): what a warp has of its row, and how keys,
 * values, query heads and the row's own key and value come.
 */
#ifndef TSR_KERNELS_CUDA_ATTENTION_ATTEND_UNIT_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTENTION_ATTEND_UNIT_CUDA_CUH

#include "kernels/cuda/attention/attend_sums_cuda.cuh"

enum {
    UNIT = 16, /* positions */
    TILE_UNITS = TSR_TILE / UNIT,
    FETCHES = 2 * TILE_UNITS, /* of a tile */
    EIGHT = 8,                /* query heads that stand together */
    FEW_SLOTS = 3,            /* of a ring, where CTAs share a processor */
    MORE_SLOTS = 6,
};

template <int DIM> struct unit_of {
    static constexpr int bytes = UNIT * DIM * 2;
    static constexpr int pieces = DIM * 2 / TSR_PIECE;
    static constexpr int rows = TSR_CUDA_LANES / pieces; /* that a warp copies at once */
    static constexpr int steps = DIM / TSR_STEP;
    static constexpr int blocks = DIM / 16; /* of dims */
};

/* What stands in shared memory until queries are there. */
template <int DIM, int WARPS> struct turn_room {
    float turn[4][DIM]; /* q norm, k norm, cos, sin */
    float head[WARPS][DIM];
};

/* The sums of the row's splits so far, a lane's own but for what heads have. */
template <int DIM, int EIGHTS> struct total_room {
    float4 value[unit_of<DIM>::blocks][EIGHTS][TSR_CUDA_LANES];
    float weight[EIGHTS][EIGHT];
    float most[EIGHTS][EIGHT];
};

template <int DIM, int EIGHTS, int WARPS, int SLOTS> struct splits_room {
    unsigned char ring[WARPS][SLOTS][unit_of<DIM>::bytes];
    unsigned char query[EIGHTS * EIGHT * DIM * 2];
    union {
        turn_room<DIM, WARPS> before;
        total_room<DIM, EIGHTS> total;
    };
};

/* A CTA's row. */
typedef struct item {
    const int32_t *table;
    int32_t sequence;
    int32_t row;
    int32_t position; /* the row's own, the last that it sees */
    int32_t kv_head;
    int32_t tiles;
} item;

/* What a warp fetches: where rows of 64 positions lie, two a lane. */
typedef struct split_source {
    uint32_t block[2]; /* of the next tile's rows */
    uint32_t at[2];    /* pieces before this tile's rows; TSR_NOWHERE: zeros */
    uint32_t head;     /* pieces before the kv head in a block */
    bool wrong;        /* a block is none */
} split_source;

/* The row's own key or value, four dims a lane, as stored. */
typedef struct fresh_row {
    uint2 of[2];
} fresh_row;

static __device__ __forceinline__ int lane_of(void)
{
    return (int)threadIdx.x % TSR_CUDA_LANES;
}

static __device__ __forceinline__ int warp_of(void)
{
    return (int)threadIdx.x / TSR_CUDA_LANES;
}

/* The n-th tile of a warp. */
template <int WARPS> static __device__ __forceinline__ int32_t tile_of(int32_t n)
{
    return (warp_of() + n / TSR_SPLIT_TILES * WARPS) * TSR_SPLIT_TILES + n % TSR_SPLIT_TILES;
}

/* Where a piece lies that is `by` pieces, or rows, from another that none of these bits are in. */
static __device__ __forceinline__ uint32_t swapped(uint32_t at, int by)
{
    return at ^ (uint32_t)(by % 8 * TSR_PIECE);
}

/* ---- what comes from the cache ---- */

static __device__ __forceinline__ void look_up(const tsr_attend_job &a, const item &c, int32_t tile,
                                               split_source *source)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t position = tile * TSR_TILE + i * TSR_CUDA_LANES + lane_of();
        if (position < c.position)
            source->block[i] = (uint32_t)c.table[tsr_block_at(a, position)];
    }
}

static __device__ __forceinline__ void find_rows(const tsr_attend_job &a, const item &c,
                                                 int32_t tile, split_source *source)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t position = tile * TSR_TILE + i * TSR_CUDA_LANES + lane_of();
        const int32_t slot = position - tsr_block_at(a, position) * a.cache.block_tokens;
        source->at[i] =
            source->block[i] * a.block_pieces + source->head + (uint32_t)slot * a.row_pieces;
        if (position >= c.position) {
            source->at[i] = TSR_NOWHERE;
        } else if (source->block[i] >= (uint32_t)a.cache.blocks) {
            source->at[i] = TSR_NOWHERE;
            source->wrong = true;
        }
    }
}

/* The u-th unit of a warp. */
template <int DIM, int WARPS>
static __device__ __forceinline__ void fetch(const tsr_attend_job &a, const item &c, int32_t u,
                                             split_source *source, uint32_t to)
{
    typedef unit_of<DIM> unit;
    const int32_t tile = tile_of<WARPS>(u / FETCHES);
    const int32_t f = u % FETCHES;
    const int piece = lane_of() % unit::pieces;
    const bool used = (uint32_t)piece < a.row_pieces;
    const void *memory = f < TILE_UNITS ? a.cache.keys : a.cache.values;
    const unsigned char *from = (const unsigned char *)memory + piece * TSR_PIECE;

    if (tile < c.tiles) {
        if (f == 0) {
            find_rows(a, c, tile, source);
            look_up(a, c, tile_of<WARPS>(u / FETCHES + 1), source);
        }
        const uint32_t mine = f % TILE_UNITS < 2 ? source->at[0] : source->at[1];
        const int first = lane_of() / unit::pieces;
        const uint32_t at = to + tsr_piece_at<UNIT>(first, piece);
#pragma unroll
        for (int i = 0; i < UNIT / unit::rows; i++) {
            const uint32_t row =
                __shfl_sync(TSR_ALL_LANES, mine, f % 2 * UNIT + i * unit::rows + first);
            const bool there = used && row != TSR_NOWHERE;
            tsr_copy_piece(swapped(at, i * unit::rows) + (uint32_t)(i * unit::rows * TSR_LINE),
                           there ? from + (uint64_t)row * TSR_PIECE : from, there);
        }
    }
    tsr_copies_end();
}

/* Waits for the u-th unit; the slot of the one before it gets another. Gives where it lies. */
template <int DIM, int WARPS, int SLOTS>
static __device__ __forceinline__ uint32_t take(const tsr_attend_job &a, const item &c, int32_t u,
                                                split_source *source, uint32_t ring)
{
    tsr_copies_wait<SLOTS - 2>();
    __syncwarp();
    fetch<DIM, WARPS>(a, c, u + SLOTS - 1, source,
                      ring + (uint32_t)((u + SLOTS - 1) % SLOTS * unit_of<DIM>::bytes));
    return ring + (uint32_t)(u % SLOTS * unit_of<DIM>::bytes);
}

/* ---- the row's own key and value, and query heads ---- */

/* cos, sin and norms of a dim, which are there before the step begins. */
template <int DIM, int EIGHTS, int WARPS>
static __device__ __forceinline__ void stage(const tsr_attend_job &a, int32_t position,
                                             turn_room<DIM, WARPS> *before, unsigned char *query)
{
    const tsr_turn &t = a.q_turn;
    const int64_t at = (int64_t)position * t.half;

    for (int i = (int)threadIdx.x; i < DIM; i += WARPS * TSR_CUDA_LANES) {
        before->turn[0][i] = i < t.dim && t.norm != NULL ? t.norm[i] : 0.0F;
        before->turn[1][i] = i < t.dim && a.k_turn.norm != NULL ? a.k_turn.norm[i] : 0.0F;
        before->turn[2][i] = i < t.half ? t.cos[at + i] : 0.0F;
        before->turn[3][i] = i < t.half ? t.sin[at + i] : 0.0F;
    }
    for (int i = (int)threadIdx.x; i < EIGHTS * EIGHT * unit_of<DIM>::pieces;
         i += WARPS * TSR_CUDA_LANES)
        *(uint4 *)(query + i * TSR_PIECE) = make_uint4(0, 0, 0, 0);
}

template <int DIM, int EIGHTS, int WARPS>
static __device__ __forceinline__ void bring_queries(const tsr_attend_job &a, const item &c,
                                                     turn_room<DIM, WARPS> *before,
                                                     unsigned char *query)
{
    const float *q = a.q + ((int64_t)c.row * a.q_heads + c.kv_head * a.shared) * a.cache.head_dim;
    const tsr_turn turn = tsr_turn_staged(a.q_turn, 0, before->turn);
    const int d = TSR_TURN_SPAN * lane_of();

#pragma unroll 1
    for (int r = warp_of(); r < a.shared; r += WARPS) {
        tsr_head<1> head = tsr_load_head<1>(q + (int64_t)r * a.cache.head_dim, a.cache.head_dim);
        tsr_turn_head(turn, &head, before->head[warp_of()]);
        if (d < DIM)
            *(uint2 *)(query + tsr_piece_at<EIGHTS * EIGHT>(r, d / 8) + d % 8 * 2) =
                tsr_bf16_span(head.span[0]);
    }
}

/* Both into the cache too, to a block that was looked up before. */
template <int DIM, int WARPS>
static __device__ __forceinline__ fresh_row bring_fresh(const tsr_attend_job &a, const item &c,
                                                        int32_t block,
                                                        turn_room<DIM, WARPS> *before, bool *wrong)
{
    const int64_t from = ((int64_t)c.row * a.cache.kv_heads + c.kv_head) * a.cache.head_dim;
    const int d = TSR_TURN_SPAN * lane_of();
    tsr_head<1> key = tsr_load_head<1>(a.k + from, a.cache.head_dim);
    const tsr_head<1> value = tsr_load_head<1>(a.v + from, a.cache.head_dim);
    fresh_row fresh;

    tsr_turn_head(tsr_turn_staged(a.k_turn, 1, before->turn), &key, before->head[warp_of()]);
    fresh.of[0] = tsr_bf16_span(key.span[0]);
    fresh.of[1] = tsr_bf16_span(value.span[0]);
    if ((uint32_t)block >= (uint32_t)a.cache.blocks) {
        *wrong = true;
        return fresh;
    }
    if (d < a.cache.head_dim) {
        const int64_t at = tsr_block_row(a, block, c.position, c.kv_head) + d;
        *(uint2 *)((uint16_t *)a.cache.keys + at) = fresh.of[0];
        *(uint2 *)((uint16_t *)a.cache.values + at) = fresh.of[1];
    }
    return fresh;
}

/* Into the unit that has its position. */
template <int DIM>
static __device__ __forceinline__ void put_fresh(const item &c, uint2 span, uint32_t unit)
{
    const int d = TSR_TURN_SPAN * lane_of();

    if (d < DIM)
        asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(
                         unit + tsr_piece_at<UNIT>(c.position % UNIT, d / 8) + d % 8 * 2),
                     "r"(span.x), "r"(span.y)
                     : "memory");
    __syncwarp();
}

#endif
