/*
 * The tile of a product of many rows, by a CTA of warpgroups: 128 rows of weights, 64 for each of the
 * first two, with up to 128 tokens that the third one brings; the fourth stores what comes of it:
 *
 *   slot     | codes of 8 tiles of 16 rows | their scales | tokens [<= 128] 64 columns, swizzled |
 *   ring     | slot | slot | .. |   full: copies have arrived      empty: all warps have read it
 *
 *   item     what a CTA multiplies next and what its sums need at the end; a few, as a ring of their own
 *   sums     [token][128 rows], a round of tokens at a time
 *
 *   warps 0..3, 4..7   wgmma of a slot's tokens with registers goes on, the next slot's codes become
 *                      registers, the codes of the one behind it are read; sums are put down
 *   warps 8..11        16 bytes of a token a thread, and each warp two tiles of the weights in bulk
 *   warps 12..15       sums become values and go to memory, while the next item is multiplied
 *
 * Sums are those of product_cuda.cuh: a slice of K is a chain of steps of 16 columns from zero; slices
 * are added in order.
 */
#ifndef TSR_KERNELS_CUDA_GEMM_TILE_CUDA_CUH
#define TSR_KERNELS_CUDA_GEMM_TILE_CUDA_CUH

#include "kernels/cuda/async_cuda.cuh"
#include "kernels/cuda/number_cuda.cuh"
#include "kernels/cuda/packed_cuda.cuh"
#include "kernels/cuda/product_cuda.cuh"
#include "kernels/cuda/wgmma_cuda.cuh"

enum {
    GEMM_TOKENS = 128,
    GEMM_FEWER_TOKENS = 64, /* without wgmma */
    GEMM_WIDE_MAJOR = 9,    /* of cards with it */
    GEMM_KERNEL_TOKENS = WGMMA_HARDWARE ? GEMM_TOKENS : GEMM_FEWER_TOKENS,
    GEMM_SCALED_TOKENS = 64,
    GEMM_HALF = 64, /* rows of a warpgroup */
    GEMM_ROWS = 2 * GEMM_HALF,
    GEMM_COLUMNS = 64, /* of a slot */
    GEMM_TILES = GEMM_ROWS / TSR_CUDA_TILE,
    GEMM_HALF_TILES = GEMM_HALF / TSR_CUDA_TILE,
    GEMM_TOKEN_BYTES = GEMM_COLUMNS * 2,
    GEMM_PIECES = GEMM_TOKEN_BYTES / 16, /* copies of a token */
    GEMM_GROUP = 128,                    /* threads of a warpgroup */
    GEMM_THREADS = 3 * GEMM_GROUP,
    GEMM_ALL_THREADS = 4 * GEMM_GROUP,
    GEMM_READERS = 8, /* warps that read a slot */
    GEMM_WRITERS = 4, /* and that fill it */
    GEMM_STORERS = 4, /* and that store what comes of it */
    GEMM_WRITER_TILES = GEMM_TILES / GEMM_WRITERS,
    GEMM_PASSES = GEMM_TOKENS / (GEMM_GROUP / GEMM_PIECES),
    GEMM_PASS_TOKENS = GEMM_TOKENS / GEMM_PASSES,
    GEMM_MAX_SLOTS = 16,
    GEMM_ITEMS = 4,
    GEMM_SUMS = GEMM_MAX_SLOTS + GEMM_ITEMS, /* the barriers of a tile's sums, as those of a slot */
    GEMM_BARRIER_BYTES = (GEMM_SUMS + 1) * 16,
    GEMM_ALIGNMENT = 1024,
    GEMM_SUMS_PITCH = GEMM_ROWS + 4, /* words of a token's sums: no bank conflicts */
    GEMM_FEW_SUMS = 64,
    GEMM_PRODUCER_REGISTERS = 56,
    GEMM_CONSUMER_REGISTERS = 200,
    GEMM_STORER_REGISTERS = 56,
};

/* Of a tile; `scaled`: where 128 columns share a scale. */
static __host__ __device__ __forceinline__ constexpr int32_t gemm_most_tokens(bool scaled)
{
    return scaled ? GEMM_SCALED_TOKENS : GEMM_TOKENS;
}

/* Bytes of the codes of a tile in a slot, and of its scales. */
static __host__ __device__ __forceinline__ constexpr uint32_t gemm_code_bytes(tsr_weight_format f)
{
    return (uint32_t)(GEMM_COLUMNS / tsr_packed_columns(f)) * PACKED_UNIT;
}

static __host__ __device__ __forceinline__ constexpr uint32_t gemm_scale_bytes(tsr_weight_format f)
{
    return f == TSR_WEIGHT_NVFP4 ? PACKED_SCALES : 0;
}

/* Where its tokens begin. */
static __host__ __device__ __forceinline__ constexpr uint32_t gemm_tokens_at(tsr_weight_format f)
{
    const uint32_t used = GEMM_TILES * (gemm_code_bytes(f) + gemm_scale_bytes(f));

    return (used + GEMM_ALIGNMENT - 1) / GEMM_ALIGNMENT * GEMM_ALIGNMENT;
}

/* What a CTA multiplies: rows of a weight with tokens. count 0: nothing, and nothing comes after. */
typedef struct gemm_item {
    float scale[GEMM_TOKENS]; /* of the operand rows */
    int32_t to[GEMM_TOKENS];  /* rows of the output */
    int32_t row[GEMM_TOKENS]; /* operand rows */
    float channel[GEMM_ROWS]; /* of the rows of the weight, half after half */
    float bias[GEMM_ROWS];
    int32_t count;
    int32_t linear;
    int32_t block;          /* its first row */
    const float *blocks[2]; /* of each half: scales of the weight, where they are FP8_BLOCK's */
    float weight_scale[2];
    bool biased[2];
} gemm_item;

static_assert(sizeof(gemm_item) % 16 == 0, "what stands behind items is read by 16 bytes");

typedef struct gemm_ring {
    gemm_item *item; /* [GEMM_ITEMS] */
    uint32_t sums;   /* [token][GEMM_SUMS_PITCH], where a kernel leaves room for them */
    uint32_t base;   /* of slot 0 */
    uint32_t barriers;
    uint32_t slot_bytes;
    uint32_t scales_at; /* in a slot */
    uint32_t tokens_at;
    int32_t slots;
    int32_t slot;
    uint32_t phase;
    uint32_t items;  /* that were filled, or read */
    uint32_t rounds; /* of sums that were put down, or stored */
    uint32_t tile;   /* of a slot: the one that this warp reads */
    bool boxed;      /* no thread copies tokens */
} gemm_ring;

static __device__ __forceinline__ uint32_t gemm_full(const gemm_ring &r, int32_t slot)
{
    return r.barriers + (uint32_t)slot * 16;
}

static __device__ __forceinline__ uint32_t gemm_empty(const gemm_ring &r, int32_t slot)
{
    return r.barriers + (uint32_t)slot * 16 + 8;
}

/* Of the ring's next item, as `slot` of gemm_full and gemm_empty. */
static __device__ __forceinline__ int32_t gemm_item_slot(const gemm_ring &r)
{
    return GEMM_MAX_SLOTS + (int32_t)(r.items % GEMM_ITEMS);
}

static __device__ __forceinline__ uint32_t gemm_item_phase(const gemm_ring &r)
{
    return r.items / GEMM_ITEMS % 2;
}

static __device__ __forceinline__ uint32_t gemm_slot_at(const gemm_ring &r, int32_t slot)
{
    return r.base + (uint32_t)slot * r.slot_bytes;
}

static __device__ __forceinline__ void gemm_advance(gemm_ring *r)
{
    if (++r->slot == r->slots) {
        r->slot = 0;
        r->phase ^= 1;
    }
}

/* How the shared memory of a kernel is cut: | items | before | barriers | slots |. */
typedef struct gemm_shape {
    uint32_t before; /* bytes of the kernel's own, items included */
    uint32_t slot_bytes;
    uint32_t scales_at; /* in a slot */
    uint32_t tokens_at;
    int32_t slots;
    uint32_t bytes; /* in all */
} gemm_shape;

/* As many slots for so many tokens as there is room for. */
static inline gemm_shape gemm_shape_of(tsr_weight_format format, int32_t tokens, size_t before,
                                       size_t room)
{
    const size_t front =
        GEMM_ITEMS * sizeof(gemm_item) + before + GEMM_BARRIER_BYTES + GEMM_ALIGNMENT;
    gemm_shape shape;

    shape.before = (uint32_t)(GEMM_ITEMS * sizeof(gemm_item) + before);
    shape.scales_at = GEMM_TILES * gemm_code_bytes(format);
    shape.tokens_at = gemm_tokens_at(format);
    shape.slot_bytes = shape.tokens_at + (uint32_t)tokens * GEMM_TOKEN_BYTES;
    shape.slots = (int32_t)((room - front) / shape.slot_bytes);
    if (shape.slots > GEMM_MAX_SLOTS)
        shape.slots = GEMM_MAX_SLOTS;
    shape.bytes = (uint32_t)front + (uint32_t)shape.slots * shape.slot_bytes;
    return shape;
}

/* Tokens whose sums are put down at once: fewer where slots are large. */
static __host__ __device__ __forceinline__ constexpr int32_t gemm_round(tsr_weight_format f)
{
    return f == TSR_WEIGHT_BF16 || f == TSR_WEIGHT_F16 ? GEMM_FEW_SUMS : GEMM_TOKENS;
}

/* Slots that a warp may be in at once (gemm_sums_cuda.cuh). */
static inline int32_t gemm_least_slots(tsr_weight_format f)
{
    return f == TSR_WEIGHT_BF16 || f == TSR_WEIGHT_F16 ? 3 : 4;
}

/* Of a kernel that stores beside: fewer tokens where there is no room for as many. */
static inline gemm_shape gemm_storing_shape_of(tsr_weight_format format, int32_t *tokens,
                                               size_t room)
{
    for (;;) {
        const int32_t round = *tokens < gemm_round(format) ? *tokens : gemm_round(format);
        const gemm_shape shape =
            gemm_shape_of(format, *tokens, (size_t)round * GEMM_SUMS_PITCH * 4, room);
        if (shape.slots >= gemm_least_slots(format) || *tokens <= 16)
            return shape;
        *tokens /= 2;
    }
}

/* By all threads of the CTA. `shared` is aligned to 16 bytes. */
static __device__ __forceinline__ gemm_ring gemm_ring_open(unsigned char *shared,
                                                           const gemm_shape &shape)
{
    gemm_ring r;

    r.item = (gemm_item *)(void *)shared;
    r.sums = async_address(shared) + GEMM_ITEMS * (uint32_t)sizeof(gemm_item);
    r.barriers = async_address(shared) + shape.before;
    r.base =
        (r.barriers + GEMM_BARRIER_BYTES + GEMM_ALIGNMENT - 1) / GEMM_ALIGNMENT * GEMM_ALIGNMENT;
    r.slot_bytes = shape.slot_bytes;
    r.scales_at = shape.scales_at;
    r.tokens_at = shape.tokens_at;
    r.slots = shape.slots;
    r.slot = 0;
    r.phase = 0;
    r.items = 0;
    r.rounds = 0;
    r.tile = threadIdx.x / TSR_CUDA_LANES;
    r.boxed = false;
    if (threadIdx.x == 0) {
        for (int32_t i = 0; i < shape.slots; i++) {
            barrier_open(gemm_full(r, i), GEMM_GROUP + GEMM_WRITERS);
            barrier_open(gemm_empty(r, i), GEMM_READERS);
        }
        for (int32_t i = GEMM_MAX_SLOTS; i < GEMM_MAX_SLOTS + GEMM_ITEMS; i++) {
            barrier_open(gemm_full(r, i), 2 * GEMM_GROUP);
            barrier_open(gemm_empty(r, i), GEMM_READERS + GEMM_STORERS);
        }
        barrier_open(gemm_full(r, GEMM_SUMS), GEMM_READERS);
        barrier_open(gemm_empty(r, GEMM_SUMS), GEMM_STORERS);
        barriers_opened();
    }
    __syncthreads();
    return r;
}

/* How wide what a CTA multiplies is, in slots. */
typedef struct gemm_width {
    int32_t slots;
    int32_t slice; /* slots of a slice */
    int32_t row;   /* slots of a whole row */
} gemm_width;

static __device__ __forceinline__ gemm_width gemm_width_of(int32_t in)
{
    gemm_width w;

    w.row = tsr_cuda_padded(in) / GEMM_COLUMNS;
    w.slots = w.row;
    w.slice = tsr_slice_columns(in) / GEMM_COLUMNS;
    return w;
}

/* ---- bringing ---- */

/* The tile of 16 rows that a lane below GEMM_WRITER_TILES brings. */
typedef struct gemm_weights {
    const unsigned char *codes;
    const unsigned char *scales;
    bool there;
} gemm_weights;

/* Which of a slot's tiles that is. */
static __device__ __forceinline__ int32_t gemm_my_tile(void)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES) % GEMM_WRITERS;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);

    return warp * GEMM_WRITER_TILES + lane % GEMM_WRITER_TILES;
}

/* It is `tile` of a weight of `out` rows. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ gemm_weights gemm_weights_at(const void *codes,
                                                               const void *scales, int32_t tile,
                                                               int32_t out, const gemm_width &w)
{
    const int64_t slot = (int64_t)tile * w.row;
    gemm_weights g;

    g.codes = (const unsigned char *)codes + slot * gemm_code_bytes(FORMAT);
    g.scales = (const unsigned char *)scales + slot * gemm_scale_bytes(FORMAT);
    g.there = threadIdx.x % TSR_CUDA_LANES < GEMM_WRITER_TILES && tile * TSR_CUDA_TILE < out;
    return g;
}

/* A whole warp. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_put_weights(const gemm_ring &r, int32_t slot,
                                                        const gemm_weights &g, int32_t column_slot)
{
    const uint32_t tile = (uint32_t)gemm_my_tile();
    const uint32_t all = (uint32_t)__popc(__ballot_sync(TSR_ALL_LANES, g.there));
    const uint32_t code_bytes = gemm_code_bytes(FORMAT);
    const uint32_t scale_bytes = gemm_scale_bytes(FORMAT);
    const uint32_t at = gemm_slot_at(r, slot);
    const uint32_t full = gemm_full(r, slot);

    if (threadIdx.x % TSR_CUDA_LANES == 0)
        barrier_expect(full, all * (code_bytes + scale_bytes));
    __syncwarp();
    if (!g.there)
        return;
    copy_bulk(at + tile * code_bytes, g.codes + (int64_t)column_slot * code_bytes, code_bytes,
              full);
    if (scale_bytes > 0)
        copy_bulk(at + GEMM_TILES * code_bytes + tile * scale_bytes,
                  g.scales + (int64_t)column_slot * scale_bytes, scale_bytes, full);
}

/* What an item is made of; each thread of the third warpgroup brings its own. */
typedef struct gemm_source {
    const float *scale;   /* [operand row] */
    const int32_t *to;    /* row of the output of the thread's token, or NULL: it is `pair` */
    const float *channel; /* of the thread's row of the weight; NULL: none, or no such row */
    const float *bias;
    const float *blocks; /* of its half */
    int32_t pair;        /* the thread's token */
    int32_t row;         /* its operand row */
    int32_t count;       /* tokens of the item */
    int32_t linear;
    int32_t block;
    float weight_scale;
    bool biased;
} gemm_source;

/* Fills the next item; returns it when every thread's row is seen by all. */
static __device__ __forceinline__ const gemm_item *gemm_put_item(gemm_ring *r, const gemm_source &s)
{
    const int32_t thread = (int32_t)threadIdx.x % GEMM_GROUP;
    const int32_t slot = gemm_item_slot(*r);
    gemm_item *item = &r->item[slot - GEMM_MAX_SLOTS];

    barrier_wait(gemm_empty(*r, slot), gemm_item_phase(*r) ^ 1);
    item->row[thread] = s.row;
    if (thread < s.count) {
        copy_4(async_address(&item->scale[thread]), s.scale + s.row);
        if (s.to != NULL)
            copy_4(async_address(&item->to[thread]), s.to);
        else
            item->to[thread] = s.pair;
    }
    if (s.channel != NULL)
        copy_4(async_address(&item->channel[thread]), s.channel);
    if (s.bias != NULL)
        copy_4(async_address(&item->bias[thread]), s.bias);
    if (thread == 0) {
        item->count = s.count;
        item->linear = s.linear;
        item->block = s.block;
    }
    if (thread % GEMM_HALF == 0) {
        const int32_t half = thread / GEMM_HALF;
        item->weight_scale[half] = s.weight_scale;
        item->blocks[half] = s.blocks;
        item->biased[half] = s.biased;
    }
    copies_arrive(gemm_full(*r, slot));
    barrier_arrive(gemm_full(*r, slot));
    r->items++;
    asm volatile("barrier.sync 2, %0;" ::"n"(1 * GEMM_GROUP) : "memory");
    return item;
}

/* Nothing comes any more. */
static __device__ __forceinline__ void gemm_put_end(gemm_ring *r)
{
    const gemm_source none = {};

    (void)gemm_put_item(r, none);
}

/* The operand row of a thread's own token; beyond the last the last's. */
static __device__ __forceinline__ int32_t gemm_row_of(const int32_t *source, int32_t first,
                                                      int32_t count)
{
    const int32_t pair = first + min((int32_t)threadIdx.x % GEMM_GROUP, count - 1);

    return source != NULL ? source[pair] : pair;
}

/* An item whose slots are not filled yet. */
typedef struct gemm_order {
    gemm_weights weights;
    const gemm_item *item; /* NULL: there is none */
    int32_t count;         /* tokens */
    int32_t ahead;         /* slots whose weights are under way */
} gemm_order;

/* How a thread fills slots: with pieces of so many tokens. */
typedef struct gemm_pieces {
    const unsigned char *from[GEMM_PASSES];
    uint32_t to; /* in a slot */
    int32_t passes;
} gemm_pieces;

/* Slot first + BEHIND: its weights, where they are not under way, and its tokens, from that far behind
 * where pieces come from. */
template <tsr_weight_format FORMAT, int BEHIND>
static __device__ __forceinline__ void gemm_fill(gemm_ring *r, const gemm_width &w,
                                                 const gemm_order &order, const gemm_pieces &pieces,
                                                 int32_t first)
{
    const int32_t k = first + BEHIND;

    if (k >= w.slots)
        return;
    const uint32_t at = gemm_slot_at(*r, r->slot) + pieces.to;
    barrier_wait(gemm_empty(*r, r->slot), r->phase ^ 1);
    if (k >= order.ahead)
        gemm_put_weights<FORMAT>(*r, r->slot, order.weights, k);
#pragma unroll
    for (int i = 0; i < GEMM_PASSES; i++) {
        if (i < pieces.passes)
            copy_16_behind<BEHIND * GEMM_TOKEN_BYTES>(at + i * GEMM_PASS_TOKENS * GEMM_TOKEN_BYTES,
                                                      pieces.from[i]);
    }
    copies_arrive(gemm_full(*r, r->slot));
    gemm_advance(r);
}

/* By all threads of the third warpgroup. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void
gemm_produce(gemm_ring *r, const gemm_width &w, const uint16_t *operand, const gemm_order &order)
{
    enum { AT_ONCE = 4 }; /* slots whose pieces are found by the same addresses */
    const uint32_t thread = threadIdx.x % GEMM_GROUP;
    const uint32_t token = thread / GEMM_PIECES;
    const uint32_t piece = thread % GEMM_PIECES;
    gemm_pieces p;

    p.to = gemm_tokens_at(FORMAT) + token * GEMM_TOKEN_BYTES + (piece ^ token % 8) * 16;
    p.passes = (order.count + GEMM_PASS_TOKENS - 1) / GEMM_PASS_TOKENS;
#pragma unroll
    for (int i = 0; i < GEMM_PASSES; i++) {
        const int32_t row = order.item->row[token + i * GEMM_PASS_TOKENS];
        p.from[i] =
            (const unsigned char *)operand + (int64_t)row * w.row * GEMM_TOKEN_BYTES + piece * 16;
    }
    for (int32_t k = 0; k < w.slots; k += AT_ONCE) {
        gemm_fill<FORMAT, 0>(r, w, order, p, k);
        gemm_fill<FORMAT, 1>(r, w, order, p, k);
        gemm_fill<FORMAT, 2>(r, w, order, p, k);
        gemm_fill<FORMAT, 3>(r, w, order, p, k);
#pragma unroll
        for (int i = 0; i < GEMM_PASSES; i++)
            p.from[i] += AT_ONCE * GEMM_TOKEN_BYTES;
    }
}

/* Fills the slots of the item before, since what an item says takes a while to arrive. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void gemm_produce_last(gemm_ring *r, const gemm_width &w,
                                                         const uint16_t *operand, gemm_order *last,
                                                         const gemm_order &next)
{
    if (last->item != NULL)
        gemm_produce<FORMAT>(r, w, operand, *last);
    *last = next;
}

#endif
