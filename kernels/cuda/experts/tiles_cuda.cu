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
#include "kernels/cuda/experts/tiles_cuda.cuh"

#include "kernels/cuda/operands/stage_cuda.cuh"

enum {
    TILES_WARPS = 8,
    TILES_THREADS = TILES_WARPS * TSR_CUDA_LANES, /* of a CTA, where slices allow */
    TILES_MORE_THREADS = 512,
    TILES_MOST_THREADS = 1024,
    TILES_CTAS = 3, /* of usual size on a multiprocessor: what registers are cut for */
    TILES_PLAIN_GRID = 64,
};

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
    o.group_scale = a.t.grouped ? made.group_scale + (int64_t)pairs.first * a.cut.groups : NULL;
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

    p.slice = warp % a.cut.slices;
    p.which = warp / a.cut.slices % a.beside;
    p.side = warp / (a.cut.slices * a.beside);
    return p;
}

static __device__ __forceinline__ product_run run_at(const tiles_args &a, const tiles_memory *m,
                                                     tiles_item i, const warp_place &p)
{
    const int32_t tile = i.group * a.beside + p.which;
    product_run run = {NULL, NULL, 0};

    if (tile * TSR_CUDA_TILE < a.t.out)
        run = product_run_of(m->linear[i.index % 2][p.side], a.cut, tile, p.slice);
    return run;
}

/* One finished number to where it goes. */
template <int SPANS>
static __device__ __forceinline__ void
store_one(const tiles_args &a, const tiles_memory *m, const tsr_cuda_tile &pairs, tiles_item item,
          int32_t which, int32_t token, int32_t row, const product_token_sums *sums)
{
    const tsr_linear *l = m->linear[item.index % 2];
    const int32_t slices = a.cut.slices;
    const int32_t tokens = SPANS * PRODUCT_COLUMNS; /* of a warp's sums */
    const int32_t tile = item.group * a.beside + which;
    const int32_t column = tile * TSR_CUDA_TILE + row;
    float *to = a.t.y + (int64_t)(pairs.first + token) * a.t.out + column;
    float y = product_finish(l[0], sums + which * slices * tokens + token, tokens, slices, tile,
                             row, m->scale[token]);

    if (a.t.mode == TSR_CUDA_TILES_GATED) {
        const float scale = m->scale[a.t.shares ? token : PRODUCT_TOKENS + token];
        const float up = product_finish(l[1], sums + (a.beside + which) * slices * tokens + token,
                                        tokens, slices, tile, row, scale);
        y = tsr_silu(y) * up;
    } else if (a.t.mode == TSR_CUDA_TILES_UP) {
        y = tsr_silu(*to) * y;
    } else if (a.t.mode == TSR_CUDA_TILES_DOWN) {
        to = tsr_cuda_row(a.t.pairs.into, a.t.y, m->target[token], a.t.out) + column;
    }
    *to = y;
}

template <int SPANS>
static __device__ __forceinline__ void store_item(const tiles_args &a, const tiles_memory *m,
                                                  const tsr_cuda_tile &pairs, tiles_item item,
                                                  const product_token_sums *sums)
{
    const int32_t columns = a.beside * TSR_CUDA_TILE;
    const int32_t first = item.group * columns;

    for (int32_t i = (int32_t)threadIdx.x; i < columns * pairs.count; i += (int32_t)blockDim.x) {
        const int32_t column = i & (columns - 1); /* beside is a power of two */
        if (first + column < a.t.out)
            store_one<SPANS>(a, m, pairs, item, column / TSR_CUDA_TILE, i / columns,
                             column % TSR_CUDA_TILE, sums);
    }
}

template <tsr_weight_format FORMAT, int SPANS, bool SCALED, int THREADS>
static __global__ void __launch_bounds__(THREADS, THREADS == TILES_THREADS ? TILES_CTAS : 1)
    tiles_kernel(const __grid_constant__ tiles_args a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(16) unsigned char rows[];
    __shared__ tiles_memory m;
    const warp_place place = place_of(a);
    const int32_t operands = a.sides == 2 && !a.t.shares ? 2 : 1;
    const int32_t warps = (int32_t)(blockDim.x / TSR_CUDA_LANES);
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    product_token_sums *sums = (product_token_sums *)(void *)(rows + operands * a.rows_bytes);
    packed_unit ring[product_depth(FORMAT)];
    float sum[SPANS][4];
    product_operand o = {};
    product_task task = {};
    tsr_cuda_tile pairs = {};
    int32_t staged = -1;
    int32_t left;

    tsr_admit_kernel();
    tsr_await_kernel();
    const bool is_faulty = tsr_is_faulty(faults);
    const int32_t tiles = count_tiles(a);
    if (is_faulty)
        return;
    tiles_item item = share_of(a, tiles, &left);
    if (left <= 0)
        return;
    fetch_linears(a, item.index, tiles, &m);
    __syncthreads();
    task.slice = place.slice;
    task.run = run_at(a, &m, item, place);
    product_begin<FORMAT>(task.run, ring);
    for (; left > 0; left--) {
        if (staged != item.index) {
            staged = item.index;
            pairs = pairs_of(a, staged);
            __syncthreads(); /* nobody looks at the tile before any more */
            fetch_linears(a, staged + 1, tiles, &m);
            stage_pairs(a, pairs, m.linear[staged % 2], rows, &m);
            o = operand_of(a, pairs, place.side, rows);
            __syncthreads();
        }
        /* the other half may still be read */
        product_token_sums *mine = sums + left % 2 * warps * SPANS * PRODUCT_COLUMNS;
        task.tile = item.group * a.beside + place.which;
        task.next.units = 0;
        if (left > 1)
            task.next = run_at(a, &m, after(a, item), place);
        product_chain<FORMAT, SPANS, SCALED>(m.linear[staged % 2][place.side], a.cut, o, task, ring,
                                             sum);
        product_keep<SPANS>(sum, mine + warp * SPANS * PRODUCT_COLUMNS);
        __syncthreads();
        store_item<SPANS>(a, &m, pairs, item, mine);
        task.run = task.next;
        item = after(a, item);
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
                to = tsr_cuda_row(a.t.pairs.into, a.t.y, a.target[pair], a.t.out) + column;
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
static tiles_kernel_of kernel_for(int32_t rows, int32_t threads)
{
    if (threads > TILES_MORE_THREADS)
        return tiles_kernel<FORMAT, 2, SCALED, TILES_MOST_THREADS>;
    if (threads > TILES_THREADS)
        return tiles_kernel<FORMAT, 2, SCALED, TILES_MORE_THREADS>;
    return rows <= PRODUCT_COLUMNS ? tiles_kernel<FORMAT, 1, SCALED, TILES_THREADS>
                                   : tiles_kernel<FORMAT, 2, SCALED, TILES_THREADS>;
}

static tiles_kernel_of find_kernel(tsr_weight_format format, bool scaled, int32_t rows,
                                   int32_t threads)
{
    if (format == TSR_WEIGHT_BF16)
        return kernel_for<TSR_WEIGHT_BF16, false>(rows, threads);
    if (format == TSR_WEIGHT_F16)
        return kernel_for<TSR_WEIGHT_F16, false>(rows, threads);
    if (format == TSR_WEIGHT_NVFP4)
        return kernel_for<TSR_WEIGHT_NVFP4, false>(rows, threads);
    return scaled ? kernel_for<TSR_WEIGHT_FP8, true>(rows, threads)
                  : kernel_for<TSR_WEIGHT_FP8, false>(rows, threads);
}

static tsr_status allow_shared(tsr_weight_format format, bool scaled)
{
    static const int32_t threads[] = {TILES_THREADS, TILES_MORE_THREADS, TILES_MOST_THREADS};
    tsr_status st = TSR_OK;

    for (int i = 0; i < 6 && st == TSR_OK; i++) {
        const tiles_kernel_of kernel =
            find_kernel(format, scaled, i % 2 == 0 ? 1 : PRODUCT_TOKENS, threads[i / 2]);
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
    a.cut = product_cut_of(t->format, t->in);
    a.sides = t->mode == TSR_CUDA_TILES_GATED ? 2 : 1;
    a.together = t->rows < t->together ? t->rows : t->together;
    a.beside = 1;
    while (2 * a.beside * a.sides * a.cut.slices <= TILES_WARPS)
        a.beside *= 2;
    a.groups = ((t->out + TSR_CUDA_TILE - 1) / TSR_CUDA_TILE + a.beside - 1) / a.beside;
    a.rows_bytes = a.together * (tsr_cuda_padded(t->in) + PRODUCT_PAD) * (int32_t)sizeof(uint16_t);
    return a;
}

tsr_status tsr_cuda_multiply_tiles(tsr_cuda_device *cuda, const tsr_cuda_tiles *t,
                                   cudaStream_t stream)
{
    const tiles_args a = args_of(cuda, t);
    const int32_t warps = a.sides * a.beside * a.cut.slices;
    const size_t operands = a.sides == 2 && !t->shares ? 2 : 1;
    tsr_cuda_launch_shape at = {};

    if (!tsr_cuda_is_packed(t->format))
        return multiply_plainly(cuda, a, stream);
    at.threads = (unsigned)(warps * TSR_CUDA_LANES);
    /* kernels of more threads than usual keep sums of all rows, however few there are */
    const int32_t kept = at.threads > TILES_THREADS ? PRODUCT_TOKENS : a.together;
    at.shared = operands * (size_t)a.rows_bytes + 2 * (size_t)warps * product_sums_bytes(kept);
    at.stream = stream;
    const bool scaled = product_is_scaled(t->format, t->activation);
    const tiles_kernel_of kernel = find_kernel(t->format, scaled, a.together, (int32_t)at.threads);
    int resident = 1;
    const tsr_status st = TSR_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &resident, kernel, (int)at.threads, at.shared));
    if (st != TSR_OK)
        return st;
    at.grid.x = (unsigned)(tsr_larger(resident, 1) * cuda->gemm.processors);
    return tsr_cuda_launch(at, kernel, a, cuda->faults);
}
