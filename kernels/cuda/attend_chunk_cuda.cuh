/*
 * A CTA's chunk in decode, up to where its sums begin: which splits it has, and how keys, values,
 * query heads and the row's own key and value come into its shared memory.
 */
#ifndef TSR_KERNELS_CUDA_ATTEND_CHUNK_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTEND_CHUNK_CUDA_CUH

#include "kernels/cuda/attend_left_cuda.cuh"
#include "kernels/cuda/attend_sums_cuda.cuh"

enum {
    WARPS = 8,
    THREADS = WARPS * TSR_CUDA_LANES,
    PAIR = 2 * TSR_TILE, /* positions that are attended to at once */
    WARP_KEYS = PAIR / WARPS,
    SPLIT_PAIRS = TSR_ATTEND_SPLIT / PAIR,
    VALUE_WARP = WARPS - 2, /* has the row's own value in hand, beside query heads */
    KEY_WARP = WARPS - 1,
    SLOTS = 3,        /* of the ring */
    NARROW_SLOTS = 2, /* where shared memory is small */
};

static constexpr __host__ __device__ __forceinline__ int32_t ceil_of(int32_t count, int32_t by)
{
    return (count + by - 1) / by;
}

/* Spans of a head that a lane holds. */
static constexpr __host__ __device__ __forceinline__ int spans_of(int dim)
{
    return ceil_of(dim, TSR_TURN_DIMS);
}

/* Shared memory of a CTA; the ring's slots are what it ends with. */
template <int DIM, bool FP8> struct decode_room {
    unsigned char query[TSR_QUERY_ROWS * DIM * 2];
    unsigned char weight[2][TSR_QUERY_ROWS * TSR_TILE * 2];
    unsigned char fresh[2][DIM * 2]; /* the row's own key and value, as stored */
    float head[WARPS][DIM];
    float turn[4][DIM]; /* q norm, k norm, cos, sin */
    float peak[WARPS][TSR_QUERY_ROWS];
    int32_t last;
    __align__(TSR_LINE) unsigned char wide[FP8 ? PAIR * DIM * 2 : TSR_LINE]; /* FP8 in BF16 */
    unsigned char ring[SLOTS][2 * tsr_stored<DIM, FP8>::tile];
};

/* Bytes of a room whose ring has fewer slots. */
template <int DIM, bool FP8> static size_t room_bytes(int32_t slots)
{
    return sizeof(decode_room<DIM, FP8>) - (size_t)(SLOTS - slots) * 2 * tsr_stored<DIM, FP8>::tile;
}

/* A CTA's share of one row. */
typedef struct chunk {
    const int32_t *table;
    int32_t sequence;
    int32_t row;
    int32_t position; /* the row's own, the last that it sees */
    int32_t kv_head;
    int32_t shared;     /* query heads of the kv head */
    int32_t first_head; /* query head */
    int32_t heads;
    int32_t pair;    /* of all (sequence, kv head, tile of heads) */
    int32_t index;   /* of the chunk */
    int32_t chunks;  /* of the row */
    int32_t splits;  /* of the row */
    int32_t leading; /* splits of chunk 0 */
    int32_t first;   /* pair of tiles */
    int32_t end;     /* pair of tiles */
} chunk;

/* Its splits, as tsr_cut_row shares them out. */
static __device__ __forceinline__ void cut_row(const tsr_attend_job &a, int32_t chunks, chunk *c)
{
    const tsr_row_cut cut = tsr_cut_row(c->position, chunks, a.slots);
    const int32_t pairs = c->position / PAIR + 1;

    c->splits = cut.splits;
    c->leading = cut.leading;
    c->chunks = 1 + ceil_of(c->splits - c->leading, cut.each);
    const int32_t first = c->index == 0 ? 0 : c->leading + (c->index - 1) * cut.each;
    const int32_t end = c->index == 0 ? c->leading : first + cut.each;
    c->first = first * SPLIT_PAIRS;
    c->end = min(end * SPLIT_PAIRS, pairs);
}

/* Fetches the u-th of a chunk's pairs: keys and values in turn. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void fetch(const tsr_attend_job &a, const chunk &c, int32_t u,
                                             tsr_tile_source *source, decode_room<DIM, FP8> *room)
{
    const int32_t pair = c.first + u / 2;
    const bool keys = u % 2 == 0;

    if (pair < c.end) {
        if (keys)
            tsr_find_rows<DIM, FP8, PAIR, THREADS>(a, source, pair * PAIR);
        tsr_fetch_rows<DIM, FP8, PAIR, THREADS>(a, *source, keys ? a.cache.keys : a.cache.values,
                                                tsr_shared_at(room->ring[u % a.ring]));
        if (keys)
            tsr_look_up<DIM, FP8, PAIR, THREADS>(a, source, (pair + 1) * PAIR);
    }
    tsr_copies_end();
}

/* Puts the row's own key or value into the u-th pair, which has its position. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void put_fresh(const tsr_attend_job &a, const chunk &c, int32_t u,
                                                 decode_room<DIM, FP8> *room)
{
    const int piece = (int)threadIdx.x;

    if (piece < tsr_stored<DIM, FP8>::pieces)
        *(uint4 *)(room->ring[u % a.ring] + tsr_stored_at<DIM, FP8>(c.position % PAIR, piece)) =
            *(const uint4 *)(room->fresh[u % 2] + piece * TSR_PIECE);
    __syncthreads();
}

/* Waits for the u-th pair; the slot of the one before it gets the next. Gives where it lies. */
template <int DIM, bool FP8>
static __device__ __forceinline__ uint32_t arrive(const tsr_attend_job &a, const chunk &c,
                                                  int32_t u, tsr_tile_source *source,
                                                  decode_room<DIM, FP8> *room)
{
    if (a.ring == SLOTS)
        tsr_copies_wait<SLOTS - 2>();
    else
        tsr_copies_wait<NARROW_SLOTS - 2>();
    __syncthreads();
    fetch<DIM, FP8>(a, c, u + a.ring - 1, source, room);
    if (c.first + u / 2 == c.position / PAIR)
        put_fresh<DIM, FP8>(a, c, u, room);
    if (!FP8)
        return tsr_shared_at(room->ring[u % a.ring]);
    tsr_widen_rows<DIM, PAIR, THREADS>(room->ring[u % a.ring], room->wide);
    __syncthreads();
    return tsr_shared_at(room->wide);
}

/* Four dims of the row's own key or value, as the cache stores them. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void put_span(const tsr_attend_job &a, int which, float4 x,
                                                int32_t d, decode_room<DIM, FP8> *room)
{
    if (FP8)
        *(uint32_t *)(room->fresh[which] + d) =
            tsr_e4m3_span(x, which == 0 ? a.cache.key_scale : a.cache.value_scale);
    else
        *(uint2 *)(room->fresh[which] + 2 * d) = tsr_bf16_span(x);
}

/* Both into the cache, by the CTA of the kv head's first query heads, to a block that was looked up
 * before. False: it is none. */
template <int DIM, bool FP8>
static __device__ __forceinline__ bool store_fresh(const tsr_attend_job &a, const chunk &c,
                                                   int32_t block, const decode_room<DIM, FP8> *room)
{
    const int which = (int)threadIdx.x / TSR_CUDA_LANES;
    const int piece = (int)threadIdx.x % TSR_CUDA_LANES;
    unsigned char *memory = (unsigned char *)(which == 0 ? a.cache.keys : a.cache.values);

    if (which > 1 || (uint32_t)piece >= a.row_pieces || c.first_head != c.kv_head * c.shared)
        return true;
    if ((uint32_t)block >= (uint32_t)a.cache.blocks)
        return false;
    const int64_t at = tsr_block_row(a, block, c.position, c.kv_head);
    *(uint4 *)(memory + at * tsr_stored<DIM, FP8>::element + piece * TSR_PIECE) =
        *(const uint4 *)(room->fresh[which] + piece * TSR_PIECE);
    return true;
}

/* cos, sin and norms, which are there before the step begins: a dim a thread. */
typedef struct turn_dim {
    float of[4];
} turn_dim;

static __device__ __forceinline__ turn_dim load_turn(const tsr_attend_job &a, int32_t position)
{
    const tsr_turn &t = a.q_turn;
    const int32_t i = (int32_t)threadIdx.x;
    const int64_t at = (int64_t)position * t.half + i;
    turn_dim d = {};

    if (i < t.dim && t.norm != NULL)
        d.of[0] = t.norm[i];
    if (i < t.dim && a.k_turn.norm != NULL)
        d.of[1] = a.k_turn.norm[i];
    if (i < t.half) {
        d.of[2] = t.cos[at];
        d.of[3] = t.sin[at];
    }
    return d;
}

/* Puts them down, and zeros where query heads will come. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void stage(const turn_dim &d, decode_room<DIM, FP8> *room)
{
    constexpr int pieces = TSR_QUERY_ROWS * DIM * 2 / TSR_PIECE;
    const int i = (int)threadIdx.x;

#pragma unroll
    for (int n = 0; n < 4; n++) {
        if (i < DIM)
            room->turn[n][i] = d.of[n];
    }
#pragma unroll
    for (int n = 0; n < ceil_of(pieces, THREADS); n++) {
        if (i + n * THREADS < pieces)
            *(uint4 *)(room->query + (i + n * THREADS) * TSR_PIECE) = make_uint4(0, 0, 0, 0);
    }
}

/* The row's own key by the last warp, value by the one before it. */
template <int DIM>
static __device__ __forceinline__ tsr_head<spans_of(DIM)> load_fresh(const tsr_attend_job &a,
                                                                     const chunk &c)
{
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int64_t at = ((int64_t)c.row * a.cache.kv_heads + c.kv_head) * a.cache.head_dim;

    return tsr_load_head<spans_of(DIM)>((warp == KEY_WARP ? a.k : a.v) + at,
                                        warp >= VALUE_WARP ? a.cache.head_dim : 0);
}

template <int DIM, bool FP8>
static __device__ __forceinline__ void
bring_fresh(const tsr_attend_job &a, tsr_head<spans_of(DIM)> *head, decode_room<DIM, FP8> *room)
{
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;

    if (warp < VALUE_WARP)
        return;
    if (warp == KEY_WARP)
        tsr_turn_head(tsr_turn_staged(a.k_turn, 1, room->turn), head, room->head[warp]);
#pragma unroll
    for (int i = 0; i < spans_of(DIM); i++) {
        const int32_t d = TSR_TURN_SPAN * lane + TSR_TURN_DIMS * i;
        if (d < DIM)
            put_span<DIM, FP8>(a, warp == KEY_WARP ? 0 : 1, head->span[i], d, room);
    }
}

/* Query heads to the A operand's rows, where zeros stand. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void bring_queries(const tsr_attend_job &a, const chunk &c,
                                                     decode_room<DIM, FP8> *room)
{
    constexpr int spans = spans_of(DIM);
    const int warp = (int)threadIdx.x / TSR_CUDA_LANES;
    const int lane = (int)threadIdx.x % TSR_CUDA_LANES;
    const float *q = a.q + ((int64_t)c.row * a.q_heads + c.first_head) * a.cache.head_dim;
    const tsr_turn turn = tsr_turn_staged(a.q_turn, 0, room->turn);

#pragma unroll 1
    for (int r = warp; r < c.heads; r += WARPS) {
        tsr_head<spans> head =
            tsr_load_head<spans>(q + (int64_t)r * a.cache.head_dim, a.cache.head_dim);
        tsr_turn_head(turn, &head, room->head[warp]);
#pragma unroll
        for (int i = 0; i < spans; i++) {
            const int d = TSR_TURN_SPAN * lane + TSR_TURN_DIMS * i;
            if (d < DIM)
                *(uint2 *)(room->query + tsr_piece_at<TSR_QUERY_ROWS>(r, d / 8) + d % 8 * 2) =
                    tsr_bf16_span(head.span[i]);
        }
    }
}

#endif
