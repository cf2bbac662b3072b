/*
 * A CTA's chunk in decode, up to where its sums begin: which splits it has, and how keys, values,
 * query heads and the row's own key and value come into its shared memory.
 */
#ifndef TSR_KERNELS_CUDA_ATTENTION_ATTEND_CHUNK_CUDA_CUH
#define TSR_KERNELS_CUDA_ATTENTION_ATTEND_CHUNK_CUDA_CUH

#include "kernels/cuda/attention/attend_sums_cuda.cuh"
#include "kernels/cuda/operands/attend_left_cuda.cuh"

#include <stddef.h>

enum {
    WARPS = 8,
    THREADS = WARPS * TSR_CUDA_LANES,
    PAIR = 2 * TSR_TILE, /* positions that are attended to at once: a split */
    WARP_KEYS = PAIR / WARPS,
    VALUE_WARP = WARPS - 2, /* has the row's own value in hand, beside query heads */
    KEY_WARP = WARPS - 1,
    SLOTS = 3,                /* of the ring */
    NARROW_SLOTS = SLOTS - 1, /* where shared memory is small */
    FETCHED = 2,              /* units before the kernel in front has ended: the first pair */
};

static_assert(WARPS == 8, "a warp turns a head of an eight");
static_assert((int)PAIR == (int)TSR_ATTEND_SPLIT, "two tiles are a split");

static constexpr __host__ __device__ __forceinline__ int32_t ceil_of(int32_t count, int32_t by)
{
    return (count + by - 1) / by;
}

/* Spans of a head that a lane holds. */
static constexpr __host__ __device__ __forceinline__ int spans_of(int dim)
{
    return ceil_of(dim, TSR_TURN_DIMS);
}

/*
 * Shared memory of a CTA; the ring's slots are what it ends with. EIGHTS is how many eights of query
 * heads there are: what stands in rows of heads that are none is anything.
 */
template <int DIM, bool FP8, int EIGHTS> struct decode_room {
    unsigned char query[8 * EIGHTS * DIM * 2];
    unsigned char weight[2][8 * EIGHTS * TSR_TILE * 2];
    unsigned char fresh[2][DIM * 2]; /* the row's own key and value, as stored */
    float head[WARPS][DIM];
    float peak[2][8 * EIGHTS][WARPS / 2]; /* of a tile */
    int32_t last;
    __align__(TSR_LINE) unsigned char wide[FP8 ? PAIR * DIM * 2 : TSR_LINE]; /* FP8 in BF16 */
    unsigned char ring[SLOTS][2 * tsr_stored<DIM, FP8>::tile];
};

/* Bytes of a room whose ring has fewer slots. */
template <int DIM, bool FP8, int EIGHTS> static size_t room_bytes(int32_t slots)
{
    return sizeof(decode_room<DIM, FP8, EIGHTS>) -
           (size_t)(SLOTS - slots) * 2 * tsr_stored<DIM, FP8>::tile;
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
    c->first = first;
    c->end = min(end, pairs);
}

/* Whether the chunk's part of the block table, a share of each thread, has a block that is none. */
static __device__ __forceinline__ bool is_astray(const tsr_attend_job &a, const chunk &c)
{
    const int32_t last = tsr_block_at(a, min(c.end * PAIR - 1, c.position));
    bool astray = false;

#pragma unroll 1
    for (int32_t b = tsr_block_at(a, c.first * PAIR) + (int32_t)threadIdx.x; b <= last;
         b += THREADS)
        astray |= (uint32_t)c.table[b] >= (uint32_t)a.cache.blocks;
    return astray;
}

/* Keys and values of the chunk's pairs in turn: units, each in the slot behind that of the one before
 * it. */
typedef struct decode_ring {
    int32_t pair;   /* that is looked at */
    int32_t slot;   /* of its keys or values */
    int32_t before; /* the slot that was looked at before it, which is free; -1: there was none */
    int32_t unit;   /* that is fetched next */
    tsr_tile_source source;
} decode_ring;

/* Fetches a unit into a slot. The row's own key or value comes otherwise. */
template <int DIM, bool FP8, int EIGHTS>
static __device__ __forceinline__ void fetch(const tsr_attend_job &a, const chunk &c, int32_t unit,
                                             tsr_tile_source *source, int32_t slot,
                                             decode_room<DIM, FP8, EIGHTS> *room)
{
    const int32_t pair = c.first + unit / 2;
    const bool keys = unit % 2 == 0;

    if (pair >= c.end)
        return;
    if (keys)
        tsr_find_rows<DIM, FP8, PAIR, THREADS>(a, source, pair * PAIR);
    tsr_fetch_rows<DIM, FP8, PAIR, THREADS, true>(a, *source, keys ? a.cache.keys : a.cache.values,
                                                  tsr_shared_at(room->ring[slot]),
                                                  c.position - pair * PAIR);
    if (keys)
        tsr_look_up<DIM, FP8, PAIR, THREADS>(a, source, (pair + 1) * PAIR);
}

/* Lets the slot before the one that is looked at have the next unit, while others work. */
template <int DIM, bool FP8, int EIGHTS>
static __device__ __forceinline__ void refill(const tsr_attend_job &a, const chunk &c,
                                              decode_ring *ring,
                                              decode_room<DIM, FP8, EIGHTS> *room)
{
    const int32_t pair = c.first + ring->unit / 2;
    const int32_t which = ring->unit % 2;
    const int piece = (int)threadIdx.x;

    if (ring->before >= 0) {
        fetch(a, c, ring->unit, &ring->source, ring->before, room);
        if (pair == c.position / PAIR && piece < tsr_stored<DIM, FP8>::pieces)
            *(uint4 *)(room->ring[ring->before] +
                       tsr_stored_at<DIM, FP8>(c.position % PAIR, piece)) =
                *(const uint4 *)(room->fresh[which] + piece * TSR_PIECE);
        ring->unit++;
    }
    tsr_copies_end();
}

/* Looks at the next unit, when it is there for the whole CTA. A group of nothing stands for the slot
 * that a narrow ring lacks. */
static __device__ __forceinline__ void turn_ring(const tsr_attend_job &a, decode_ring *ring)
{
    if (a.ring < SLOTS)
        tsr_copies_end();
    tsr_copies_wait<SLOTS - 2>();
    __syncthreads();
    ring->before = ring->slot;
    ring->slot = ring->slot + 1 == a.ring ? 0 : ring->slot + 1;
}

/* How far from slot 0 what is looked at lies, as BF16. By the whole CTA. */
template <int DIM, bool FP8, int EIGHTS>
static __device__ __forceinline__ uint32_t look_at(int32_t slot,
                                                   decode_room<DIM, FP8, EIGHTS> *room)
{
    if (!FP8)
        return (uint32_t)(slot * 2 * tsr_stored<DIM, FP8>::tile);
    tsr_widen_rows<DIM, PAIR, THREADS>(room->ring[slot], room->wide);
    __syncthreads();
    return 0;
}

/*
 * Where a lane finds and puts what goes through shared memory: bytes from the room's first, of step 0 and
 * slot 0. Steps are 16 columns, two pieces, which the row's last bits swap.
 */
typedef struct decode_lane {
    uint32_t query;    /* rows of the A operand */
    uint32_t keys;     /* of the warp's positions */
    uint32_t weight;   /* rows of the A operand, of the first tile */
    uint32_t values;   /* of the warp's dims */
    uint32_t put;      /* this lane's weights */
    uint32_t put_peak; /* and peaks */
    uint32_t peak;     /* those of its rows, of the first tile */
} decode_lane;

template <int DIM, bool FP8, int EIGHTS> static __device__ __forceinline__ decode_lane lane_of(void)
{
    typedef decode_room<DIM, FP8, EIGHTS> place;
    constexpr int rows = 8 * EIGHTS;
    constexpr int pieces = DIM / WARPS / 8;
    const int warp = (int)(threadIdx.x / TSR_CUDA_LANES);
    const int lane = (int)(threadIdx.x % TSR_CUDA_LANES);
    const uint32_t from = FP8 ? offsetof(place, wide) : offsetof(place, ring);
    decode_lane at;

    at.query = offsetof(place, query) + tsr_piece_at<rows>(lane % rows, lane / 16);
    at.keys =
        from + tsr_stored_at<DIM, false>(warp * WARP_KEYS + lane / 16 * 8 + lane % 8, lane / 8 % 2);
    at.weight = offsetof(place, weight) + tsr_piece_at<rows>(lane % rows, lane / 16);
    at.values = from + (pieces == 1 ? tsr_piece_at<TSR_TILE>(lane, warp)
                                    : tsr_piece_at<TSR_TILE>(lane % 16, pieces * warp + lane / 16));
    at.put = offsetof(place, weight) + (uint32_t)(warp / 4 * rows * TSR_TILE * 2) +
             tsr_piece_at<rows>(lane / 4, 2 * (warp % 4)) + (uint32_t)(lane % 4 * 4);
    at.put_peak = offsetof(place, peak) +
                  (uint32_t)(((warp / 4 * rows + lane / 4) * (WARPS / 2) + warp % 4) * 4);
    at.peak = offsetof(place, peak) + (uint32_t)(lane / 4 * (WARPS / 2) * 4);
    tsr_hold(&at.query);
    tsr_hold(&at.keys);
    tsr_hold(&at.weight);
    tsr_hold(&at.values);
    tsr_hold(&at.put);
    tsr_hold(&at.put_peak);
    tsr_hold(&at.peak);
    return at;
}

/* A later step of a matrix of ROWS, from where its first is. */
template <int ROWS> static __device__ __forceinline__ uint32_t step_at(uint32_t first, int step)
{
    return (first ^ (uint32_t)(step % 4 * 2 * TSR_PIECE)) + (uint32_t)(step / 4 * ROWS * TSR_LINE);
}

/* What turns heads, brought before they come. */
template <int DIM> struct held_norm {
    tsr_head<spans_of(DIM)> weight;
    bool is;
};

template <int DIM> struct held_turn {
    held_norm<DIM> query;
    held_norm<DIM> key;
    tsr_span_turn span;
};

template <int DIM> static __device__ __forceinline__ held_norm<DIM> load_norm(const tsr_turn &t)
{
    held_norm<DIM> norm = {};

    norm.is = t.norm != NULL;
    if (norm.is)
        norm.weight = tsr_load_norm<spans_of(DIM)>(t);
    return norm;
}

template <int DIM>
static __device__ __forceinline__ held_turn<DIM> load_turn(const tsr_attend_job &a, const chunk &c)
{
    held_turn<DIM> held = {};

    held.query = load_norm<DIM>(a.q_turn);
    held.key = load_norm<DIM>(a.k_turn);
    if (a.q_turn.half > 0 && tsr_turns_in_lanes(a.q_turn))
        held.span = tsr_load_span_turn(tsr_turn_at(a.q_turn, c.position));
    return held;
}

/* As tsr_turn_head. */
template <int DIM>
static __device__ __forceinline__ void
turn_head(const tsr_attend_job &a, const chunk &c, const tsr_span_turn &span,
          const held_norm<DIM> &norm, tsr_head<spans_of(DIM)> *head, float *room)
{
    const tsr_turn &t = a.q_turn; /* that of keys has another norm, no more */

    if (norm.is)
        tsr_norm_head_by(t, norm.weight, head);
    if (!tsr_turns_in_lanes(t))
        tsr_turn_in_room(tsr_turn_at(t, c.position), head, room);
    else if (t.half > 0)
        tsr_turn_span_by(span, &head->span[0]);
}

/* A head that a warp will turn: a lane has four dims of each span. */
typedef struct head_row {
    const float *from; /* the lane's first */
    int32_t dims;      /* from there on; none or less: zeros */
    uint32_t put;      /* bytes from the room's first */
} head_row;

template <int DIM>
static __device__ __forceinline__ tsr_head<spans_of(DIM)> load_head(const float *from, int32_t dims)
{
    tsr_head<spans_of(DIM)> h;

#pragma unroll
    for (int i = 0; i < spans_of(DIM); i++)
        h.span[i] = TSR_TURN_DIMS * i < dims
                        ? __ldcg((const float4 *)(const void *)(from + TSR_TURN_DIMS * i))
                        : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    return h;
}

/* The warp's first query head. */
template <int DIM, bool FP8, int EIGHTS>
static __device__ __forceinline__ head_row find_query(const tsr_attend_job &a, const chunk &c)
{
    typedef decode_room<DIM, FP8, EIGHTS> place;
    const int warp = (int)(threadIdx.x / TSR_CUDA_LANES);
    const int d = TSR_TURN_SPAN * (int)(threadIdx.x % TSR_CUDA_LANES);
    head_row h;

    h.from = a.q + ((int64_t)c.row * a.q_heads + c.first_head + warp) * a.cache.head_dim + d;
    h.dims = warp < c.heads ? a.cache.head_dim - d : 0;
    h.put = (uint32_t)offsetof(place, query) + tsr_piece_at<8 * EIGHTS>(warp, d / 8) +
            (uint32_t)(d % 8 * 2);
    tsr_hold(&h.from);
    tsr_hold(&h.dims);
    tsr_hold(&h.put);
    return h;
}

template <int DIM, bool FP8, int EIGHTS>
static __device__ __forceinline__ void put_query(const tsr_head<spans_of(DIM)> &head, uint32_t put,
                                                 decode_room<DIM, FP8, EIGHTS> *room)
{
#pragma unroll
    for (int i = 0; i < spans_of(DIM); i++) {
        if (DIM % TSR_TURN_DIMS == 0 || threadIdx.x % TSR_CUDA_LANES < DIM / TSR_TURN_SPAN)
            *(uint2 *)((unsigned char *)room + put +
                       tsr_piece_at<8 * EIGHTS>(0, TSR_TURN_DIMS / 8 * i)) =
                tsr_bf16_span(head.span[i]);
    }
}

/* The row's own key or value: the last warp has the key in hand, the one before it the value. Among the
 * keys or values in the room, if the first slots hold its position. */
typedef struct fresh_row {
    head_row row;
    uint32_t apart; /* bytes between spans */
    unsigned char
        *memory; /* in the cache, by the CTA of the kv head's first query heads; or NULL */
    bool is;     /* of this warp */
} fresh_row;

template <int DIM, bool FP8, int EIGHTS>
static __device__ __forceinline__ fresh_row find_fresh(const tsr_attend_job &a, const chunk &c)
{
    typedef decode_room<DIM, FP8, EIGHTS> place;
    constexpr int element = tsr_stored<DIM, FP8>::element;
    constexpr uint32_t slot = 2 * tsr_stored<DIM, FP8>::tile;
    const int warp = (int)(threadIdx.x / TSR_CUDA_LANES);
    const int d = TSR_TURN_SPAN * (int)(threadIdx.x % TSR_CUDA_LANES);
    const int piece = d * element / TSR_PIECE;
    const uint32_t which = warp == KEY_WARP ? 0 : 1;
    const int32_t block = c.table[tsr_block_at(a, c.position)];
    unsigned char *memory = (unsigned char *)(which == 0 ? a.cache.keys : a.cache.values);
    fresh_row f;

    f.is = warp >= VALUE_WARP && c.end * PAIR > c.position;
    f.row.from = (which == 0 ? a.k : a.v) +
                 ((int64_t)c.row * a.cache.kv_heads + c.kv_head) * a.cache.head_dim + d;
    f.row.dims = f.is ? a.cache.head_dim - d : 0;
    f.row.put = (uint32_t)offsetof(place, fresh) + which * DIM * 2 + (uint32_t)(d * element);
    f.apart = TSR_TURN_DIMS * element;
    if (c.position / PAIR == c.first) {
        f.row.put = (uint32_t)offsetof(place, ring) + which * slot +
                    tsr_stored_at<DIM, FP8>(c.position % PAIR, piece) +
                    (uint32_t)(d * element % TSR_PIECE);
        f.apart = tsr_stored_at<DIM, FP8>(0, (int)f.apart / TSR_PIECE);
    }
    f.memory = NULL;
    if (c.first_head == c.kv_head * c.shared)
        f.memory = memory + (tsr_block_row(a, block, c.position, c.kv_head) + d) * element;
    tsr_hold(&f.row.from);
    tsr_hold(&f.row.dims);
    tsr_hold(&f.row.put);
    tsr_hold(&f.apart);
    tsr_hold(&f.memory);
    return f;
}

/* What a lane holds of a key or value as it is stored: up to eight bytes of each span. */
template <int DIM> struct stored_head {
    uint2 span[spans_of(DIM)];
};

template <int DIM, bool FP8, int EIGHTS>
static __device__ __forceinline__ stored_head<DIM>
put_fresh(const tsr_attend_job &a, const fresh_row &f, const tsr_head<spans_of(DIM)> &head,
          decode_room<DIM, FP8, EIGHTS> *room)
{
    const bool is_key = threadIdx.x / TSR_CUDA_LANES == KEY_WARP;
    stored_head<DIM> stored;

#pragma unroll
    for (int i = 0; i < spans_of(DIM); i++) {
        unsigned char *at = (unsigned char *)room + f.row.put + (uint32_t)i * f.apart;
        if (FP8)
            stored.span[i].x =
                tsr_e4m3_span(head.span[i], is_key ? a.cache.key_scale : a.cache.value_scale);
        else
            stored.span[i] = tsr_bf16_span(head.span[i]);
        if (DIM % TSR_TURN_DIMS != 0 && threadIdx.x % TSR_CUDA_LANES >= DIM / TSR_TURN_SPAN)
            continue;
        if (FP8)
            *(uint32_t *)at = stored.span[i].x;
        else
            *(uint2 *)at = stored.span[i];
    }
    return stored;
}

/* Into the cache. */
template <int DIM, bool FP8>
static __device__ __forceinline__ void store_fresh(const fresh_row &f,
                                                   const stored_head<DIM> &stored)
{
    if (f.memory == NULL)
        return;
#pragma unroll
    for (int i = 0; i < spans_of(DIM); i++) {
        if (TSR_TURN_DIMS * i >= f.row.dims)
            continue;
        if (FP8)
            __stcg((uint32_t *)(void *)(f.memory + TSR_TURN_DIMS * i), stored.span[i].x);
        else
            __stcg((uint2 *)(void *)(f.memory + 2 * TSR_TURN_DIMS * i), stored.span[i]);
    }
}

/* Query heads to the A operand's rows; then the row's own key and value where they are looked for. All
 * are turned by the same code, which comes from far. Gives what goes into the cache. */
template <int DIM, bool FP8, int EIGHTS>
static __device__ __forceinline__ stored_head<DIM>
bring_heads(const tsr_attend_job &a, const chunk &c, const held_turn<DIM> &held,
            const head_row &query, const fresh_row &f, decode_room<DIM, FP8, EIGHTS> *room)
{
    const int warp = (int)(threadIdx.x / TSR_CUDA_LANES);
    tsr_head<spans_of(DIM)> head = load_head<DIM>(query.from, query.dims);
    tsr_head<spans_of(DIM)> fresh = load_head<DIM>(f.row.from, f.row.dims);
    held_norm<DIM> norm = held.query;
    stored_head<DIM> stored = {};

#pragma unroll 1
    for (int eight = 0;; eight++) {
        turn_head(a, c, held.span, norm, &head, room->head[warp]);
        if (eight >= EIGHTS)
            break;
        put_query<DIM>(head, query.put + (uint32_t)(8 * eight * TSR_LINE), room);
        if (EIGHTS > 1 && 8 * (eight + 1) + warp < c.heads) {
            head = load_head<DIM>(query.from + 8 * (eight + 1) * a.cache.head_dim, query.dims);
            continue;
        }
        if (!f.is || warp != KEY_WARP)
            break;
        head = fresh;
        norm = held.key;
        eight = EIGHTS - 1;
    }
    if (!f.is)
        return stored;
    if (warp == KEY_WARP)
        fresh = head;
    return put_fresh(a, f, fresh, room);
}

#endif
