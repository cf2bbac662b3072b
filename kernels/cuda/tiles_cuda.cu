/*
 * Products of an MLP over few rows, or of experts over tiles of up to 16 pairs. A CTA goes through a
 * run of neighbouring (tile of pairs, rows of the weights); its warps share the operand rows:
 *
 *   warps    gate: slice 0, 1, .. | up: slice 0, 1, ..     of the same rows of both weights
 *   items    | pairs 0: rows 0..15 | 16..31 | .. | pairs 1: rows 0..15 | .. |
 *               '---- CTA 0 ----'   '---- CTA 1 ----'
 *
 *   GATED   wide = silu(gate) * up                     gate and up in one format
 *   GATE    wide = gate, then UP: wide = silu(wide) * up     in two
 *   DOWN    answers[target] = down
 */
#include "kernels/cuda/tiles_cuda.cuh"

#include "kernels/cuda/stage_cuda.cuh"

enum {
    TILES_WARPS = 8,
    TILES_THREADS = 512, /* most of a CTA, unless a weight has more slices */
    TILES_MOST_THREADS = 1024,
    TILES_PLAIN_GRID = 64,
};

typedef struct tiles_args {
    tsr_cuda_tiles t;
    const tsr_cuda_tile *tile;
    const int32_t *tiles;
    const int32_t *target;
    int32_t slices;
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

/* Which part of the CTA's work a warp does. */
typedef struct warp_place {
    int32_t side;
    int32_t which; /* of the tiles beside each other */
    int32_t slice;
} warp_place;

static __device__ __forceinline__ warp_place place_of(const tiles_args &a)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    warp_place p;

    p.slice = warp % a.slices;
    p.which = warp / a.slices % a.beside;
    p.side = warp / (a.slices * a.beside);
    return p;
}

/* What a warp reads for an item. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ product_run run_at(const tiles_args &a, int32_t item, int32_t end)
{
    const warp_place p = place_of(a);
    const int32_t tile = item % a.groups * a.beside + p.which;
    product_run run = {NULL, NULL, 0};

    if (item >= end || tile * TSR_CUDA_TILE >= a.t.out)
        return run;
    return product_run_of<FORMAT>(linear_of(a, pairs_of(a, item / a.groups).expert, p.side), tile,
                                  p.slice);
}

/* One finished number to where it goes. */
static __device__ __forceinline__ void store_one(const tiles_args &a, const tsr_cuda_tile &pairs,
                                                 int32_t tile, int32_t token, int32_t row,
                                                 const product_sums *sums, const float *scale)
{
    const int32_t slices = a.slices;
    const int32_t column = tile * TSR_CUDA_TILE + row;
    const int64_t pair = pairs.first + token;
    const tsr_linear &first = linear_of(a, pairs.expert, 0);
    float y = product_finish(first, sums, slices, tile, token, row, scale[token]);
    float *to = a.t.y + pair * a.t.out + column;

    if (a.t.mode == TSR_CUDA_TILES_GATED) {
        const float up =
            product_finish(linear_of(a, pairs.expert, 1), sums + a.beside * slices, slices, tile,
                           token, row, scale[a.t.shares ? token : PRODUCT_TOKENS + token]);
        y = tsr_silu(y) * up;
    } else if (a.t.mode == TSR_CUDA_TILES_UP) {
        y = tsr_silu(*to) * y;
    } else if (a.t.mode == TSR_CUDA_TILES_DOWN) {
        to = a.t.y + (int64_t)a.target[pair] * a.t.out + column;
    }
    *to = y;
}

static __device__ __forceinline__ void store_item(const tiles_args &a, const tsr_cuda_tile &pairs,
                                                  int32_t first_tile, const product_sums *sums,
                                                  const float *scale)
{
    const int32_t each = pairs.count * TSR_CUDA_TILE;

    for (int32_t i = (int32_t)threadIdx.x; i < a.beside * each; i += (int32_t)blockDim.x) {
        const int32_t which = i / each;
        const int32_t tile = first_tile + which;
        if (tile * TSR_CUDA_TILE + i % TSR_CUDA_TILE < a.t.out)
            store_one(a, pairs, tile, i % each / TSR_CUDA_TILE, i % TSR_CUDA_TILE,
                      sums + which * a.slices, scale);
    }
}

/* The operand rows of a tile of pairs, for both sides. */
static __device__ __forceinline__ void stage_pairs(const tiles_args &a, const tsr_cuda_tile &pairs,
                                                   unsigned char *memory, float *scale,
                                                   stage_peaks peaks)
{
    stage_rows to = {(uint16_t *)(void *)memory, scale, tsr_cuda_padded(a.t.in) + PRODUCT_PAD};
    stage_source from = {a.t.x, a.t.source, a.t.x_stride, a.t.made};

    stage_fill(linear_of(a, pairs.expert, 0), from, pairs.first, pairs.count, to, peaks);
    if (a.sides == 2 && !a.t.shares) {
        __syncthreads();
        to.rows = (uint16_t *)(void *)(memory + a.rows_bytes);
        to.scale = scale + PRODUCT_TOKENS;
        from.made = a.t.made_up;
        stage_fill(linear_of(a, pairs.expert, 1), from, pairs.first, pairs.count, to, peaks);
    }
}

static __device__ __forceinline__ product_operand operand_of(const tiles_args &a,
                                                             const tsr_cuda_tile &pairs,
                                                             const unsigned char *memory)
{
    const bool second = place_of(a).side == 1 && !a.t.shares;
    const tsr_cuda_operand &made = second ? a.t.made_up : a.t.made;
    product_operand o;

    o.rows = (const uint16_t *)(const void *)(second ? memory + a.rows_bytes : memory);
    o.count = pairs.count;
    o.pitch = tsr_cuda_padded(a.t.in) + PRODUCT_PAD;
    o.groups = (a.t.in + TSR_CUDA_GROUP - 1) / TSR_CUDA_GROUP;
    o.group_scale = a.t.x == NULL && a.t.grouped
                        ? made.group_scale + (int64_t)pairs.first * o.groups
                        : NULL;
    return o;
}

template <tsr_weight_format FORMAT, int SPANS, bool SCALED, int THREADS>
static __global__ void __launch_bounds__(THREADS)
    tiles_kernel(const __grid_constant__ tiles_args a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ float scale[2 * PRODUCT_TOKENS];
    __shared__ stage_peaks peaks;
    const warp_place place = place_of(a);
    const int32_t operands = a.sides == 2 && !a.t.shares ? 2 : 1;
    product_sums *sums = (product_sums *)(void *)(memory + operands * a.rows_bytes);
    packed_unit ring[PRODUCT_DEPTH];
    tsr_cuda_tile pairs = {};
    int32_t staged = -1;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    const int32_t items = count_tiles(a) * a.groups;
    const int32_t each = (items + (int32_t)gridDim.x - 1) / (int32_t)gridDim.x;
    const int32_t end = min(items, ((int32_t)blockIdx.x + 1) * each);
    product_run run = run_at<FORMAT>(a, (int32_t)blockIdx.x * each, end);
    product_begin<FORMAT>(run, ring);
    for (int32_t item = (int32_t)blockIdx.x * each; item < end; item++) {
        if (staged != item / a.groups) {
            staged = item / a.groups;
            pairs = pairs_of(a, staged);
            stage_pairs(a, pairs, memory, scale, peaks);
            __syncthreads();
        }
        const product_run next = run_at<FORMAT>(a, item + 1, end);
        const int32_t first_tile = item % a.groups * a.beside;
        product_multiply<FORMAT, SPANS, SCALED>(
            linear_of(a, pairs.expert, place.side), operand_of(a, pairs, memory),
            first_tile + place.which, place.slice, run, next, ring,
            sums[threadIdx.x / TSR_CUDA_LANES]);
        __syncthreads();
        store_item(a, pairs, first_tile, sums, scale);
        __syncthreads();
        run = next;
    }
}

/* Unquantized weights as they are: a warp a sum, in f32, over rows in F16. */
static __global__ void plain_kernel(const __grid_constant__ tiles_args a, tsr_cuda_faults faults)
{
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int32_t column = (int32_t)(blockIdx.x * TSR_CUDA_WARPS + threadIdx.x / TSR_CUDA_LANES);

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults) || column >= a.t.out)
        return;
    for (int32_t i = (int32_t)blockIdx.y; i < count_tiles(a); i += (int32_t)gridDim.y) {
        const tsr_cuda_tile pairs = pairs_of(a, i);
        const tsr_linear &l = linear_of(a, pairs.expert, 0);
        const float *weight = (const float *)l.weight + (int64_t)column * l.in;
        for (int32_t pair = pairs.first; pair < pairs.first + pairs.count; pair++) {
            const uint16_t *x = a.t.made.rows + (int64_t)pair * tsr_cuda_padded(l.in);
            float *to = a.t.y + (int64_t)pair * a.t.out + column;
            float sum = 0.0F;
            for (int32_t k = lane; k < l.in; k += TSR_CUDA_LANES)
                sum = fmaf(tsr_from_f16(x[k]), weight[k], sum);
            sum = tsr_warp_sum(sum) * a.t.made.scale[pair];
            if (l.bias != NULL)
                sum += l.bias[column];
            if (a.t.mode == TSR_CUDA_TILES_DOWN)
                to = a.t.y + (int64_t)a.target[pair] * a.t.out + column;
            if (lane == 0)
                *to = a.t.mode == TSR_CUDA_TILES_UP ? tsr_silu(*to) * sum : sum;
        }
    }
}

static tsr_status multiply_plainly(tsr_cuda_device *cuda, const tiles_args &a, cudaStream_t stream)
{
    const dim3 grid(tsr_cuda_ceil(a.t.out, TSR_CUDA_WARPS), TILES_PLAIN_GRID);
    const tsr_cuda_launch_shape at = {grid, TSR_CUDA_THREADS, 0, stream, 0};

    return tsr_cuda_launch(at, plain_kernel, a, cuda->faults);
}

typedef void (*tiles_kernel_of)(const tiles_args a, tsr_cuda_faults faults);

template <tsr_weight_format FORMAT, bool SCALED>
static tiles_kernel_of kernel_for(int32_t rows, bool wide)
{
    if (wide)
        return tiles_kernel<FORMAT, 2, SCALED, TILES_MOST_THREADS>;
    return rows <= PRODUCT_COLUMNS ? tiles_kernel<FORMAT, 1, SCALED, TILES_THREADS>
                                   : tiles_kernel<FORMAT, 2, SCALED, TILES_THREADS>;
}

static tiles_kernel_of find_kernel(tsr_weight_format format, bool scaled, int32_t rows, bool wide)
{
    if (format == TSR_WEIGHT_BF16)
        return kernel_for<TSR_WEIGHT_BF16, false>(rows, wide);
    if (format == TSR_WEIGHT_F16)
        return kernel_for<TSR_WEIGHT_F16, false>(rows, wide);
    if (format == TSR_WEIGHT_NVFP4)
        return kernel_for<TSR_WEIGHT_NVFP4, false>(rows, wide);
    return scaled ? kernel_for<TSR_WEIGHT_FP8, true>(rows, wide)
                  : kernel_for<TSR_WEIGHT_FP8, false>(rows, wide);
}

static tsr_status allow_shared(tsr_weight_format format, bool scaled)
{
    tsr_status st = TSR_OK;

    for (int i = 0; i < 3 && st == TSR_OK; i++) {
        const tiles_kernel_of kernel =
            find_kernel(format, scaled, i == 0 ? 1 : PRODUCT_TOKENS, i == 2);
        st = TSR_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           TSR_CUDA_SHARED));
    }
    return st;
}

tsr_status tsr_cuda_prepare_tiles(void)
{
    tsr_status st = allow_shared(TSR_WEIGHT_BF16, false);

    if (st == TSR_OK)
        st = allow_shared(TSR_WEIGHT_F16, false);
    if (st == TSR_OK)
        st = allow_shared(TSR_WEIGHT_NVFP4, false);
    if (st == TSR_OK)
        st = allow_shared(TSR_WEIGHT_FP8, false);
    return st == TSR_OK ? allow_shared(TSR_WEIGHT_FP8, true) : st;
}

int32_t tsr_cuda_pairs_together(int32_t in, bool shares)
{
    return product_together(shares ? in : 2 * in, PRODUCT_TOKENS);
}

static tiles_args args_of(const tsr_cuda_device *cuda, const tsr_cuda_tiles *t)
{
    tiles_args a = {};

    a.t = *t;
    a.tile = cuda->work.tile;
    a.tiles = cuda->work.tiles;
    a.target = cuda->work.target;
    a.slices = tsr_slices_of(t->in);
    a.sides = t->mode == TSR_CUDA_TILES_GATED ? 2 : 1;
    a.together = t->rows < t->together ? t->rows : t->together;
    a.beside = 1;
    while (2 * a.beside * a.sides * a.slices <= TILES_WARPS)
        a.beside *= 2;
    a.groups = ((t->out + TSR_CUDA_TILE - 1) / TSR_CUDA_TILE + a.beside - 1) / a.beside;
    a.rows_bytes = a.together * (tsr_cuda_padded(t->in) + PRODUCT_PAD) * (int32_t)sizeof(uint16_t);
    return a;
}

tsr_status tsr_cuda_multiply_tiles(tsr_cuda_device *cuda, const tsr_cuda_tiles *t,
                                   cudaStream_t stream)
{
    const tiles_args a = args_of(cuda, t);
    const int32_t warps = a.sides * a.beside * a.slices;
    const bool wide = warps * TSR_CUDA_LANES > TILES_THREADS;
    const size_t operands = a.sides == 2 && !t->shares ? 2 : 1;
    tsr_cuda_launch_shape at = {};

    if (!tsr_cuda_is_packed(t->format))
        return multiply_plainly(cuda, a, stream);
    at.grid.x = PRODUCT_GRID;
    at.threads = (unsigned)(warps * TSR_CUDA_LANES);
    at.shared = operands * (size_t)a.rows_bytes + (size_t)warps * sizeof(product_sums);
    at.stream = stream;
    return tsr_cuda_launch(
        at, find_kernel(t->format, product_is_scaled(t->format, t->activation), a.together, wide), a,
        cuda->faults);
}
