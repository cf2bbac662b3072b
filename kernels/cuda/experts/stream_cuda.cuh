/*
 * Weights that stream past few operand rows through shared memory. Each warp has a ring of its own
 * and orders what it multiplies a few steps later, across the ends of items and of tiles of pairs,
 * so that memory is never without work.
 *
 *   ring of a warp   | block | block | .. |     block   codes 0 | codes 1 | scales 0 | scales 1
 *
 * A warp has two tiles of 16 rows at once (sides): of gate and of up where they are one product, else
 * neighbours. A block is 64 columns of both.
 */
#ifndef TSR_KERNELS_CUDA_EXPERTS_STREAM_CUDA_CUH
#define TSR_KERNELS_CUDA_EXPERTS_STREAM_CUDA_CUH

#include "kernels/cuda/device/async_cuda.cuh"
#include "kernels/cuda/experts/tiles_cuda.cuh"
#include "kernels/cuda/operands/stage_cuda.cuh"

enum {
    STREAM_SIDES = 2,
    STREAM_DOWN = STREAM_SIDES, /* behind gate and up: what comes next */
    STREAM_BLOCK = 64,          /* columns */
    STREAM_RING = 8192,         /* bytes of codes of a ring */
    STREAM_WARPS = 16,          /* most of a CTA */
    STREAM_TILES = 64, /* of pairs, that a CTA looks at before it knows how many there are */
};

typedef struct stream_args {
    tsr_cuda_tiles t;
    const tsr_cuda_tile *tile;
    const int32_t *tiles;
    int32_t near; /* of them, STREAM_TILES at most, that there is memory for */
    const int32_t *target;
    product_cut cut;
    int32_t groups;       /* items of a tile of pairs */
    int32_t teams;        /* of a CTA; warps beyond them make rows and no more */
    int32_t rounds;       /* of them for a tile of pairs */
    int32_t slice_blocks; /* of a slice, but for the last */
    int32_t blocks;       /* of a row */
    int32_t rows_bytes;
    /* Where CTAs go on to down (tiles_stream_cuda.cu). */
    int32_t down_groups;
    int32_t down_blocks;
    int32_t down_tiles; /* of 16 rows */
    bool skips;         /* where they have */
} stream_args;

/* What a CTA keeps beside operand rows, rings and sums. */
typedef struct stream_memory {
    /* [tile % 2]: of a tile of pairs and of the one after it */
    tsr_linear linear[2][STREAM_SIDES + 1];
    int32_t source[2][PRODUCT_TOKENS]; /* rows of x */
    tsr_cuda_tile tile[STREAM_TILES];
    float scale[PRODUCT_TOKENS];
    int32_t target[PRODUCT_TOKENS]; /* rows of y, of a tile of pairs */
    stage_peaks peaks;
} stream_memory;

/* Bytes of a block's codes, of one side. */
static __host__ __device__ __forceinline__ constexpr int32_t stream_codes(tsr_weight_format format)
{
    return STREAM_BLOCK / tsr_packed_columns(format) * PACKED_UNIT;
}

static __host__ __device__ __forceinline__ constexpr int32_t stream_scales(tsr_weight_format format)
{
    return format == TSR_WEIGHT_NVFP4 ? PACKED_SCALES : 0;
}

/* Blocks that are ordered together: more would leave too few on their way. */
static __host__ __device__ __forceinline__ constexpr int32_t
stream_together(tsr_weight_format format)
{
    return format == TSR_WEIGHT_NVFP4 ? 2 : 1;
}

/* Bytes of a place of a ring. */
static __host__ __device__ __forceinline__ constexpr int32_t stream_place(tsr_weight_format format)
{
    return STREAM_SIDES * stream_together(format) * (stream_codes(format) + stream_scales(format));
}

/* Places of a ring: a power of two. */
static __host__ __device__ __forceinline__ constexpr int32_t stream_depth(tsr_weight_format format)
{
    return STREAM_RING / (STREAM_SIDES * stream_together(format) * stream_codes(format));
}

/* The CTA's share of all items, and which of them are this team's. */
typedef struct stream_share {
    int32_t first;
    int32_t end;
    int32_t team;
    int32_t slice; /* first of the warp's */
    int32_t slices;
} stream_share;

/* Rows of the weights, for a tile of pairs. */
typedef struct stream_item {
    int32_t index; /* of the tile of pairs */
    int32_t group;
} stream_item;

/* What a warp orders next; addresses are the lane's. */
typedef struct stream_cursor {
    const unsigned char *codes[STREAM_SIDES];
    const unsigned char *scales; /* of the first lanes: eight a side */
    stream_item item;
    int32_t left; /* blocks of the item */
} stream_cursor;

/* A warp: what it orders, what it reads, and the item it is at. */
typedef struct stream_warp {
    stream_memory *m;
    stream_share share;
    stream_cursor cursor;
    uint32_t ring;
    uint32_t ordered; /* blocks */
    uint32_t read;
    bool late;                /* an order came too late to be counted on */
    bool narrows;             /* orders are of down */
    const tsr_linear *linear; /* of the sides */
    product_operand o;
    stream_item item;
    uint32_t operand; /* where the lane reads operand rows, of column 0 */
    int32_t known;    /* last tile of pairs whose linears are */
} stream_warp;

static __device__ __forceinline__ bool stream_is_down(const stream_args &a)
{
    return a.t.mode == TSR_CUDA_TILES_DOWN;
}

/* Where the items with a tile of pairs end. */
static __device__ __forceinline__ int32_t stream_groups(const stream_args &a, const stream_share &s,
                                                        int32_t index)
{
    return min(a.groups, s.end - index * a.groups);
}

/* A side's tile of the weight. A neighbour that is not there is the last: nobody looks at it. */
static __device__ __forceinline__ int32_t stream_tile(const stream_args &a, int32_t group,
                                                      int32_t side)
{
    const int32_t last = (a.t.out - 1) / TSR_CUDA_TILE;

    return stream_is_down(a) ? min(STREAM_SIDES * group + side, last) : group;
}

/* ---- orders ---- */

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void stream_aim(const stream_args &a, stream_warp *w)
{
    stream_cursor *c = &w->cursor;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t first = w->share.slice * a.slice_blocks;

#pragma unroll
    for (int side = 0; side < STREAM_SIDES; side++) {
        const tsr_linear &l = w->m->linear[c->item.index % 2][stream_is_down(a) ? 0 : side];
        const int64_t block = (int64_t)stream_tile(a, c->item.group, side) * a.blocks + first;
        c->codes[side] = (const unsigned char *)l.weight + block * stream_codes(FORMAT) + lane * 16;
        if (FORMAT == TSR_WEIGHT_NVFP4 && lane / 8 == side)
            c->scales =
                (const unsigned char *)l.scales + block * stream_scales(FORMAT) + lane % 8 * 16;
    }
    c->left = min(w->share.slices * a.slice_blocks, a.blocks - first);
}

/* To the team's next item, which may be beyond the end. */
static __device__ __forceinline__ void stream_advance(const stream_args &a, stream_warp *w)
{
    stream_item *i = &w->cursor.item;

    i->group += a.teams;
    while (i->index * a.groups < w->share.end && i->group >= stream_groups(a, w->share, i->index)) {
        i->index++;
        i->group = w->share.team;
    }
}

/* The same where a tile of pairs is all the CTA's: down comes behind gate and up. False: nothing does. */
static __device__ __forceinline__ bool stream_advance_own(const stream_args &a, stream_warp *w)
{
    stream_item *i = &w->cursor.item;

    i->group += a.teams;
    if (!w->narrows && i->group >= a.groups) {
        w->narrows = true;
        i->group = w->share.team;
    }
    return !w->narrows || i->group < a.down_groups;
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void stream_aim_own(const stream_args &a, stream_warp *w)
{
    stream_cursor *c = &w->cursor;
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t blocks = w->narrows ? a.down_blocks : a.blocks;

#pragma unroll
    for (int side = 0; side < STREAM_SIDES; side++) {
        const tsr_linear &l = w->m->linear[c->item.index % 2][w->narrows ? STREAM_DOWN : side];
        const int32_t tile =
            w->narrows ? min(STREAM_SIDES * c->item.group + side, a.down_tiles - 1) : c->item.group;
        const int64_t block = (int64_t)tile * blocks;
        c->codes[side] = (const unsigned char *)l.weight + block * stream_codes(FORMAT) + lane * 16;
        if (FORMAT == TSR_WEIGHT_NVFP4 && lane / 8 == side)
            c->scales =
                (const unsigned char *)l.scales + block * stream_scales(FORMAT) + lane % 8 * 16;
    }
    c->left = blocks;
}

/* The next blocks into the ring, if there are any whose linear is known. Slices are even, so that
 * only a row can end with fewer than go together. */
template <tsr_weight_format FORMAT, bool OWNS>
static __device__ __forceinline__ bool stream_order(const stream_args &a, stream_warp *w)
{
    stream_cursor *c = &w->cursor;
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;
    const uint32_t to =
        w->ring + lane * 16 + w->ordered % stream_depth(FORMAT) * stream_place(FORMAT);
    const int32_t codes = stream_together(FORMAT) * stream_codes(FORMAT); /* of a side */
    const int32_t scales = stream_together(FORMAT) * stream_scales(FORMAT);

    if (c->left <= 0) {
        if constexpr (OWNS) {
            if (!stream_advance_own(a, w))
                return false;
            stream_aim_own<FORMAT>(a, w);
        } else {
            if (c->item.index > w->known || c->item.index * a.groups >= w->share.end ||
                w->share.team >= a.teams)
                return false;
            stream_aim<FORMAT>(a, w);
            stream_advance(a, w);
        }
    }
#pragma unroll
    for (int side = 0; side < STREAM_SIDES; side++) {
#pragma unroll
        for (int at = 0; at < codes; at += PACKED_UNIT) {
            if (at < stream_codes(FORMAT) || c->left > 1)
                copy_16_once(to + side * codes + at, c->codes[side] + at);
        }
        c->codes[side] += codes;
    }
    if (FORMAT == TSR_WEIGHT_NVFP4) {
        if (lane < 16 && (lane % 8 < 4 || c->left > 1))
            copy_16_once(to + STREAM_SIDES * codes, c->scales);
        c->scales += scales;
    }
    c->left -= stream_together(FORMAT);
    w->ordered++;
    return true;
}

/* As many blocks as the ring is to have on their way. What comes after it has begun is late. */
template <tsr_weight_format FORMAT, bool OWNS>
static __device__ __forceinline__ void stream_fill(const stream_args &a, stream_warp *w)
{
    while (w->ordered - w->read < stream_depth(FORMAT) - 1 && stream_order<FORMAT, OWNS>(a, w)) {
        copies_end();
        w->late = w->late || w->read > 0;
    }
    for (uint32_t i = w->ordered; w->read == 0 && i < stream_depth(FORMAT) - 1; i++)
        copies_end(); /* stream_take counts on so many */
}

/* Until the next block is there; another is ordered into the place of the one before it. */
template <tsr_weight_format FORMAT, bool OWNS>
static __device__ __forceinline__ uint32_t stream_take(const stream_args &a, stream_warp *w)
{
    const uint32_t at = w->ring + w->read % stream_depth(FORMAT) * stream_place(FORMAT);

    if (w->late)
        copies_wait<0>();
    else
        copies_wait<stream_depth(FORMAT) - 2>();
    __syncwarp();
    const bool behind = w->ordered - w->read < stream_depth(FORMAT) - 1;
    if (stream_order<FORMAT, OWNS>(a, w))
        w->late = w->late || behind;
    copies_end();
    w->read++;
    return at;
}

/* ---- sums ---- */

/* 64 columns of both sides, of which side 0 stands at `codes` and `scales`. */
template <tsr_weight_format FORMAT, int SPANS>
static __device__ __forceinline__ void
stream_block(uint32_t codes, uint32_t scales, uint32_t operand, float sum[STREAM_SIDES][SPANS][4])
{
    const int steps = tsr_packed_columns(FORMAT) / TSR_CUDA_STEP; /* of a unit */
    const int units = STREAM_BLOCK / tsr_packed_columns(FORMAT);
    const int together = stream_together(FORMAT);
    const uint32_t lane = threadIdx.x % TSR_CUDA_LANES;
    packed_unit unit[STREAM_SIDES][units];

#pragma unroll
    for (int side = 0; side < STREAM_SIDES; side++) {
#pragma unroll
        for (int u = 0; u < units; u++)
            unit[side][u].codes = shared_load_16(
                codes + lane * 16 + side * together * stream_codes(FORMAT) + u * PACKED_UNIT);
        if (FORMAT == TSR_WEIGHT_NVFP4)
            unit[side][0].scales =
                shared_load_8(scales + lane / 4 * 8 + side * together * PACKED_SCALES);
    }
#pragma unroll
    for (int step = 0; step < STREAM_BLOCK / TSR_CUDA_STEP; step++) {
        uint32_t b[4];
        product_rows(operand + (uint32_t)(step * TSR_CUDA_STEP * 2), SPANS, b);
#pragma unroll
        for (int side = 0; side < STREAM_SIDES; side++) {
            uint32_t of_weight[4];
            packed_operand<FORMAT>(unit[side][step / steps], step % steps, of_weight);
#pragma unroll
            for (int j = 0; j < SPANS; j++)
                packed_multiply<FORMAT>(sum[side][j], of_weight, b[2 * j], b[2 * j + 1]);
        }
    }
}

/* 128 columns end: their sums times their scales join those of the slice. */
template <int SPANS>
static __device__ __forceinline__ void
stream_join(const stream_args &a, const stream_warp *w, int32_t group,
            float part[STREAM_SIDES][SPANS][4], float sum[STREAM_SIDES][SPANS][4])
{
#pragma unroll
    for (int side = 0; side < STREAM_SIDES; side++)
        product_join<SPANS>(w->linear[stream_is_down(a) ? 0 : side], a.cut, w->o,
                            stream_tile(a, w->item.group, side), group, part[side], sum[side]);
}

/* One slice out of the ring. */
template <tsr_weight_format FORMAT, int SPANS, bool SCALED, bool OWNS>
static __device__ __forceinline__ void
stream_slice(const stream_args &a, stream_warp *w, int32_t slice, float sum[STREAM_SIDES][SPANS][4])
{
    const int group_blocks = TSR_CUDA_GROUP / STREAM_BLOCK;
    const int together = stream_together(FORMAT);
    const int32_t blocks = min(a.slice_blocks, a.blocks - slice * a.slice_blocks);
    const int32_t first_group = slice * a.cut.columns / TSR_CUDA_GROUP;
    uint32_t operand = w->operand + (uint32_t)(slice * a.cut.columns) * 2;
    float part[STREAM_SIDES][SPANS][4] = {};

#pragma unroll
    for (int i = 0; i < STREAM_SIDES * SPANS * 4; i++)
        sum[i / (SPANS * 4)][i / 4 % SPANS][i % 4] = 0.0F;
    for (int32_t i = 0; i < blocks; i += together) {
        uint32_t codes = stream_take<FORMAT, OWNS>(a, w);
        uint32_t scales = codes + STREAM_SIDES * together * stream_codes(FORMAT);
        const int32_t end = min(blocks - i, together);
#pragma unroll 1
        for (int32_t k = 0; k < end; k++) {
            stream_block<FORMAT, SPANS>(codes, scales, operand, SCALED ? part : sum);
            codes += stream_codes(FORMAT);
            scales += stream_scales(FORMAT);
            operand += STREAM_BLOCK * 2;
        }
        if (SCALED && ((i + 1) % group_blocks == 0 || i + 1 == blocks))
            stream_join<SPANS>(a, w, first_group + i / group_blocks, part, sum);
    }
}

#endif
