/*
 * What the kernels that go by tiles of pairs have in common: where a CTA stands, its operand rows, and
 * the linears it needs next.
 */
#ifndef TSR_KERNELS_CUDA_TILES_PARTS_CUDA_CUH
#define TSR_KERNELS_CUDA_TILES_PARTS_CUDA_CUH

#include "kernels/cuda/stage_cuda.cuh"
#include "kernels/cuda/tiles_cuda.cuh"

typedef struct tiles_args {
    tsr_cuda_tiles t;
    const tsr_cuda_tile *tile;
    const int32_t *tiles;
    const int32_t *target;
    product_cut cut;
    int32_t beside; /* tiles of the weight that a CTA has at once */
    int32_t groups; /* of so many make the weight */
    int32_t sides;  /* 2: gate and up */
    int32_t together;
    int32_t rows_bytes; /* of one side */
} tiles_args;

static __device__ __forceinline__ int32_t count_tiles(const tiles_args &a)
{
    return a.t.mlps != NULL ? *a.tiles : (a.t.rows + a.together - 1) / a.together;
}

static __device__ __forceinline__ tsr_cuda_tile pairs_of(const tiles_args &a, int32_t index)
{
    tsr_cuda_tile tile = {0, index * a.together, 0};

    if (a.t.mlps != NULL)
        return a.tile[index];
    tile.count = min(a.t.rows - tile.first, a.together);
    return tile;
}

static __device__ __forceinline__ const tsr_linear &linear_of(const tiles_args &a, int32_t expert,
                                                              int32_t side)
{
    if (a.t.mode == TSR_CUDA_TILES_DOWN)
        return a.t.mlps[expert].down;
    if (side == 0 && a.t.mode != TSR_CUDA_TILES_UP)
        return a.t.mlps != NULL ? a.t.mlps[expert].gate : a.t.gate;
    return a.t.mlps != NULL ? a.t.mlps[expert].up : a.t.up;
}

/* What a CTA keeps beside operand rows and sums. Linears of a tile of pairs and of the one after it,
 * since global memory is far: those of tile i are at i % 2. */
typedef struct tiles_memory {
    tsr_linear linear[2][2]; /* [tile % 2][side] */
    float scale[2 * PRODUCT_TOKENS];
    int32_t target[PRODUCT_TOKENS];
    stage_peaks peaks;
} tiles_memory;

/* The linears of a tile of pairs, word by word. */
static __device__ __forceinline__ void fetch_linears(const tiles_args &a, int32_t index,
                                                     int32_t tiles, tiles_memory *m)
{
    const int32_t words = (int32_t)(sizeof(tsr_linear) / sizeof(uint32_t));
    const int32_t i = (int32_t)threadIdx.x;

    if (index >= tiles || i >= a.sides * words)
        return;
    const int32_t expert = a.t.mlps != NULL ? a.tile[index].expert : 0;
    const uint32_t *from = (const uint32_t *)(const void *)&linear_of(a, expert, i / words);
    ((uint32_t *)(void *)&m->linear[index % 2][i / words])[i % words] = from[i % words];
}

/* Where a CTA stands: a group of tiles of the weights, for a tile of pairs. */
typedef struct tiles_item {
    int32_t index; /* of the tile of pairs */
    int32_t group;
} tiles_item;

static __device__ __forceinline__ tiles_item after(const tiles_args &a, tiles_item i)
{
    i.group++;
    if (i.group == a.groups) {
        i.group = 0;
        i.index++;
    }
    return i;
}

/* The operand rows of a tile of pairs, for both sides, and where its answers go. */
static __device__ __forceinline__ void stage_pairs(const tiles_args &a, const tsr_cuda_tile &pairs,
                                                   const tsr_linear *linear, unsigned char *rows,
                                                   tiles_memory *m)
{
    stage_rows to = {(uint16_t *)(void *)rows, m->scale, a.cut.padded + PRODUCT_PAD};
    stage_source from = {a.t.x, a.t.source, a.t.x_stride, a.t.made};

    if (a.t.mode == TSR_CUDA_TILES_DOWN && (int32_t)threadIdx.x < pairs.count)
        m->target[threadIdx.x] = a.target[pairs.first + (int32_t)threadIdx.x];
    stage_fill(linear[0], from, pairs.first, pairs.count, to, m->peaks);
    if (a.sides == 2 && !a.t.shares) {
        __syncthreads();
        to.rows = (uint16_t *)(void *)(rows + a.rows_bytes);
        to.scale = m->scale + PRODUCT_TOKENS;
        from.made = a.t.made_up;
        stage_fill(linear[1], from, pairs.first, pairs.count, to, m->peaks);
    }
}

static __device__ __forceinline__ product_operand operand_of(const tiles_args &a,
                                                             const tsr_cuda_tile &pairs,
                                                             int32_t side,
                                                             const unsigned char *rows)
{
    const bool second = side == 1 && !a.t.shares;
    const tsr_cuda_operand &made = second ? a.t.made_up : a.t.made;
    product_operand o;

    o.rows = (const uint16_t *)(const void *)(second ? rows + a.rows_bytes : rows);
    o.count = pairs.count;
    o.pitch = a.cut.padded + PRODUCT_PAD;
    o.group_scale =
        a.t.grouped ? made.group_scale + (int64_t)pairs.first * a.cut.groups : NULL;
    return o;
}

/* This CTA's share of all items: first .. first + count. */
static __device__ __forceinline__ tiles_item share_of(const tiles_args &a, int32_t tiles,
                                                      int32_t *count)
{
    const int32_t items = tiles * a.groups;
    const int32_t each = (items + (int32_t)gridDim.x - 1) / (int32_t)gridDim.x;
    const int32_t first = (int32_t)blockIdx.x * each;
    tiles_item item = {first / a.groups, first % a.groups};

    *count = min(each, items - first);
    return item;
}

/* Where there are tiles enough (tiles_whole_cuda.cu). */
tsr_status tsr_cuda_multiply_whole(tsr_cuda_device *cuda, const tiles_args *usual,
                                   cudaStream_t stream);

#endif
