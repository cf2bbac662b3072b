/*
 * The tile of a product of many rows, by a CTA of warpgroups: 128 rows of weights, 64 for each of the
 * first two, with up to 128 tokens that the third one brings; the fourth stores what comes of it:
 *
 *   slot     | codes of 8 tiles of 16 rows | their scales | tokens [<= 128] 64 columns, swizzled |
 *   ring     | slot | slot | .. |   full: copies have arrived      empty: all warps have read it
 *
 *   item     what a CTA multiplies next and what its sums need at the end; a few, as a ring of their own
 *   sums     [token][128 rows], a round of tokens at a time; where slots are large, in slots that the
 *            ring lends at the end of an item; four rows of a token stand at row ^ 8 (token / 2 % 4)
 *
 *   warps 0..3, 4..7   wgmma of a slot's tokens with registers goes on, the next slot's codes become
 *                      registers, the codes of the one behind it are read; sums are put down
 *   warps 8..11        each two tiles of the weights in bulk; tokens in boxes, or 16 bytes a thread
 *   warps 12..15       sums become values and go to memory, while the next item is multiplied
 *
 * Where the operand rows of tokens follow each other, two CTAs of a cluster have the same tokens and
 * neighbouring blocks of rows: each brings every other box of tokens, to both, when both have read
 * what stands there.
 *
 * Sums are those of product_cuda.cuh: a slice of K is a chain of steps of 16 columns from zero; slices
 * are added in order.
 */
#ifndef TSR_KERNELS_CUDA_LINEAR_GEMM_TILE_CUDA_CUH
#define TSR_KERNELS_CUDA_LINEAR_GEMM_TILE_CUDA_CUH

#include "kernels/cuda/device/async_cuda.cuh"
#include "kernels/cuda/device/number_cuda.cuh"
#include "kernels/cuda/device/wgmma_cuda.cuh"
#include "kernels/cuda/operands/packed_cuda.cuh"
#include "kernels/cuda/operands/product_cuda.cuh"

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
    GEMM_BARRIER_BYTES = (GEMM_SUMS + 2) * 16,
    GEMM_ALIGNMENT = 1024,
    GEMM_PAIR = 2,                   /* CTAs that share tokens */
    GEMM_SUMS_BYTES = GEMM_ROWS * 4, /* of a token */
    GEMM_PRODUCER_REGISTERS = 56,
};

/* Of a tile; `scaled`: where 128 columns share a scale. */
static __host__ __device__ __forceinline__ constexpr int32_t gemm_most_tokens(bool scaled)
{
    return scaled ? GEMM_SCALED_TOKENS : GEMM_TOKENS;
}

/* Whether codes have to become operands; 16-bit ones are. */
static __host__ __device__ __forceinline__ constexpr bool gemm_converts(tsr_weight_format f)
{
    return f != TSR_WEIGHT_BF16 && f != TSR_WEIGHT_F16;
}

/* Registers of a thread that multiplies and of one that stores, gate and up together if `gated`: with
 * those that bring, all there are. */
static __host__ __device__ __forceinline__ constexpr int
gemm_consumer_registers(tsr_weight_format f, bool gated)
{
    return !gemm_converts(f) ? 184 : gated ? 200 : 192;
}

static __host__ __device__ __forceinline__ constexpr int gemm_storer_registers(tsr_weight_format f,
                                                                               bool gated)
{
    return 2 * (256 - GEMM_PRODUCER_REGISTERS / 2 - gemm_consumer_registers(f, gated));
}

/* Tokens whose sums are put down at once, of `most` of a tile: of 16 bits, as many as a slot holds. */
static __host__ __device__ __forceinline__ constexpr int32_t gemm_round(tsr_weight_format f,
                                                                        int32_t most)
{
    return gemm_converts(f) ? most : most / 2;
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
    uint32_t sums; /* of a round, where a kernel leaves room for them, or the slot that has them */
    uint32_t base; /* of slot 0 */
    uint32_t barriers;
    uint32_t slot_bytes;
    uint32_t scales_at; /* in a slot */
    uint32_t tokens_at;
    int32_t slots;
    int32_t slot;
    uint32_t at; /* where that is */
    uint32_t phase;
    uint32_t items;  /* that were filled, or read */
    uint32_t rounds; /* of sums that were put down, or stored */
    uint32_t tile;   /* of a slot: the one that this warp reads */
    bool boxed;      /* no thread copies tokens */
    bool paired;     /* tokens come in boxes, to both CTAs of the cluster */
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
    r->at += r->slot_bytes;
    if (++r->slot == r->slots) {
        r->slot = 0;
        r->at = r->base;
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

/* Slots that a warp may be in at once (gemm_sums_cuda.cuh). */
static inline int32_t gemm_least_slots(tsr_weight_format f)
{
    return gemm_converts(f) ? 4 : 3;
}

/* Of a kernel that stores beside: fewer tokens where there is no room for as many. */
static inline gemm_shape gemm_storing_shape_of(tsr_weight_format format, int32_t *tokens,
                                               size_t room)
{
    for (;;) {
        const size_t sums = gemm_converts(format) ? (size_t)*tokens * GEMM_SUMS_BYTES : 0;
        const gemm_shape shape = gemm_shape_of(format, *tokens, sums, room);
        if (shape.slots >= gemm_least_slots(format) || *tokens <= 16)
            return shape;
        *tokens /= 2;
    }
}

/* By all threads of the CTA, of both if `paired`. `shared` is aligned to 16 bytes. */
static __device__ __forceinline__ gemm_ring gemm_ring_open(unsigned char *shared,
                                                           const gemm_shape &shape, bool paired)
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
    r.at = r.base;
    r.phase = 0;
    r.items = 0;
    r.rounds = 0;
    r.tile = threadIdx.x / TSR_CUDA_LANES;
    r.boxed = paired;
    r.paired = paired;
    if (threadIdx.x == 0) {
        for (int32_t i = 0; i < shape.slots; i++) {
            barrier_open(gemm_full(r, i), GEMM_WRITERS + (paired ? 0 : GEMM_GROUP));
            barrier_open(gemm_empty(r, i), (paired ? GEMM_PAIR : 1) * GEMM_READERS);
        }
        for (int32_t i = GEMM_MAX_SLOTS; i < GEMM_MAX_SLOTS + GEMM_ITEMS; i++) {
            barrier_open(gemm_full(r, i), 2 * GEMM_GROUP);
            barrier_open(gemm_empty(r, i), GEMM_READERS + GEMM_STORERS);
        }
        for (int32_t i = GEMM_SUMS; i < GEMM_SUMS + 2; i++) {
            barrier_open(gemm_full(r, i), GEMM_READERS);
            barrier_open(gemm_empty(r, i), GEMM_STORERS);
        }
        barriers_opened();
    }
    if (paired)
        cluster_meet();
    else
        __syncthreads();
    return r;
}

/* The last that a CTA does: the other one brings tokens here, and tells what it has read. */
static __device__ __forceinline__ void gemm_ring_close(const gemm_ring &r)
{
    if (!r.paired)
        return;
    cluster_arrive();
    cluster_await();
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

#endif
