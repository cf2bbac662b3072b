/*
 * Linears over few rows: a CTA takes 16 of them and goes through tiles of the weight, a warp for
 * each slice of a tile (product_cuda.cuh):
 *
 *   shared memory   | operand rows | scales | sums of each warp |
 *   warps           tile 0: slice 0, 1, .. | tile 1: slice 0, 1, .. |     beside each other
 *
 * More rows take more CTAs. Weights in F32 have a plain kernel, a warp a sum.
 */
#include "kernels/cuda/linear_cuda.cuh"

#include "kernels/cuda/gemm_cuda.cuh"
#include "kernels/cuda/stage_cuda.cuh"

enum {
    LINEAR_WARPS = 4,     /* of a CTA, where a tile has fewer slices */
    LINEAR_THREADS = 512, /* most of a CTA, unless a tile has more slices */
    LINEAR_MOST_THREADS = TSR_CUDA_SLICES * 32,
};

typedef struct linear_args {
    tsr_cuda_product p;
    product_cut cut;
    int32_t tile_end[TSR_MAX_LINEARS]; /* tiles of all linears up to this one */
    int32_t beside;   /* tiles that a CTA has at once */
    int32_t together; /* rows that a CTA takes */
    int32_t rows_bytes;
} linear_args;

/* Which linear a tile belongs to, and which of its tiles it is. */
typedef struct linear_tile {
    int32_t linear;
    int32_t tile; /* -1: none */
} linear_tile;

static __device__ __forceinline__ linear_tile tile_of(const linear_args &a, int32_t index)
{
    linear_tile t = {0, index};

    for (int32_t i = 0; i + 1 < a.p.count && index >= a.tile_end[i]; i++) {
        t.linear = i + 1;
        t.tile = index - a.tile_end[i];
    }
    if (index >= a.tile_end[a.p.count - 1])
        t.tile = -1;
    return t;
}

static __device__ __forceinline__ product_run run_at(const linear_args &a, int32_t index,
                                                     int32_t slice)
{
    const linear_tile t = tile_of(a, index);
    product_run run = {NULL, NULL, 0};

    if (t.tile >= 0)
        run = product_run_of(a.p.linear[t.linear], a.cut, t.tile, slice);
    return run;
}

/* The finished sums of `beside` tiles, a thread each. */
template <int SPANS>
static __device__ __forceinline__ void store_tiles(const linear_args &a, int32_t first_tile,
                                                   int32_t first_row, int32_t count,
                                                   const float *scale,
                                                   const product_token_sums *sums)
{
    const int32_t tokens = SPANS * PRODUCT_COLUMNS; /* of a warp's sums */
    const int32_t each = count * TSR_CUDA_TILE;

    for (int32_t i = (int32_t)threadIdx.x; i < a.beside * each; i += (int32_t)blockDim.x) {
        const int32_t which = i / each;
        const int32_t token = i % each / TSR_CUDA_TILE;
        const int32_t row = i % TSR_CUDA_TILE;
        const linear_tile t = tile_of(a, first_tile + which);
        if (t.tile < 0)
            break;
        const tsr_linear &l = a.p.linear[t.linear];
        if (t.tile * TSR_CUDA_TILE + row >= l.out)
            continue;
        const int64_t at =
            (first_row + token) * a.p.y_stride[t.linear] + t.tile * TSR_CUDA_TILE + row;
        float y = product_finish(l, sums + which * a.cut.slices * tokens + token, tokens,
                                 a.cut.slices, t.tile, row, scale[token]);
        if (a.p.add != NULL)
            y = __fadd_rn(y, __ldcg(a.p.add + at));
        a.p.y[t.linear][at] = y;
    }
}

template <tsr_weight_format FORMAT, int SPANS, bool SCALED, int THREADS>
static __global__ void __launch_bounds__(THREADS)
    linear_kernel(const __grid_constant__ linear_args a, tsr_cuda_faults faults)
{
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ float scale[PRODUCT_TOKENS];
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t first_row = (int32_t)blockIdx.y * a.together;
    const int32_t tiles = a.tile_end[a.p.count - 1];
    const int32_t stride = (int32_t)gridDim.x * a.beside;
    const int32_t tokens = SPANS * PRODUCT_COLUMNS; /* of a warp's sums */
    product_token_sums *sums = (product_token_sums *)(void *)(memory + a.rows_bytes);
    int32_t half = 0; /* of the sums: the other one may still be read */
    stage_source from = {NULL, NULL, 0, a.p.x};
    stage_rows to = {(uint16_t *)(void *)memory, scale, a.cut.padded + PRODUCT_PAD};
    product_operand o;
    product_task task;
    packed_unit ring[product_depth(FORMAT)];
    int32_t index = (int32_t)blockIdx.x * a.beside + warp / a.cut.slices;

    task.slice = warp % a.cut.slices;
    task.run = run_at(a, index, task.slice);
    product_begin<FORMAT>(task.run, ring);
    product_expect<FORMAT>(task.run);
    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults))
        return;
    o.rows = to.rows;
    o.count = min(a.p.rows - first_row, a.together);
    o.pitch = to.pitch;
    o.group_scale = tsr_cuda_has_groups(FORMAT, a.p.linear[0].activation)
                        ? a.p.x.group_scale + (int64_t)first_row * a.cut.groups
                        : NULL;
    stage_copy(a.p.linear[0], from, first_row, o.count, to);
    __syncthreads();
    for (int32_t first = (int32_t)blockIdx.x * a.beside; first < tiles; first += stride) {
        const linear_tile t = tile_of(a, index);
        product_token_sums *mine = sums + half * a.beside * a.cut.slices * tokens;
        task.tile = t.tile;
        task.next = run_at(a, index + stride, task.slice);
        product_multiply<FORMAT, SPANS, SCALED>(a.p.linear[t.linear], a.cut, o, task, ring,
                                                mine + warp * tokens);
        __syncthreads();
        store_tiles<SPANS>(a, first, first_row, o.count, scale, mine);
        task.run = task.next;
        index += stride;
        half ^= 1;
    }
}

/* An unquantized weight as it is: a warp a sum, in f32, over a row in F16. */
static __global__ void plain_kernel(tsr_cuda_product p, tsr_cuda_faults faults)
{
    const tsr_linear &l = p.linear[0];
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int64_t row = (int64_t)blockIdx.x * TSR_CUDA_WARPS + threadIdx.x / TSR_CUDA_LANES;
    const int64_t token = blockIdx.y;
    const uint16_t *x = p.x.rows + token * tsr_cuda_padded(l.in);
    float sum = 0.0F;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults) || row >= l.out)
        return;
    for (int32_t k = lane; k < l.in; k += TSR_CUDA_LANES) {
        sum = fmaf(tsr_from_f16(x[k]), ((const float *)l.weight)[row * l.in + k], sum);
    }
    sum = tsr_warp_sum(sum) * p.x.scale[token];
    if (l.bias != NULL)
        sum += l.bias[row];
    if (lane != 0)
        return;
    if (p.add != NULL)
        sum += p.add[token * p.y_stride[0] + row];
    p.y[0][token * p.y_stride[0] + row] = sum;
}

static tsr_status multiply_plainly(tsr_cuda_device *cuda, const tsr_cuda_product *p,
                                   cudaStream_t stream)
{
    const dim3 grid(tsr_cuda_ceil(p->linear[0].out, TSR_CUDA_WARPS), (unsigned)p->rows);
    const tsr_cuda_launch_shape at = {grid, TSR_CUDA_THREADS, 0, stream, 0};

    return tsr_cuda_launch(at, plain_kernel, *p, cuda->faults);
}

typedef void (*linear_kernel_of)(const linear_args a, tsr_cuda_faults faults);

template <tsr_weight_format FORMAT, bool SCALED>
static linear_kernel_of kernel_for(int32_t rows, bool wide)
{
    if (wide)
        return linear_kernel<FORMAT, 2, SCALED, LINEAR_MOST_THREADS>;
    return rows <= PRODUCT_COLUMNS ? linear_kernel<FORMAT, 1, SCALED, LINEAR_THREADS>
                                   : linear_kernel<FORMAT, 2, SCALED, LINEAR_THREADS>;
}

static linear_kernel_of find_kernel(tsr_weight_format format, bool scaled, int32_t rows, bool wide)
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
        const linear_kernel_of kernel =
            find_kernel(format, scaled, i == 0 ? 1 : PRODUCT_TOKENS, i == 2);
        st = TSR_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           TSR_CUDA_SHARED));
    }
    return st;
}

tsr_status tsr_cuda_prepare_linears(void)
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

static linear_args args_of(const tsr_cuda_product *p)
{
    const int32_t in = p->linear[0].in;
    linear_args a = {};
    int32_t tiles = 0;

    a.p = *p;
    for (int32_t i = 0; i < p->count; i++) {
        tiles += (p->linear[i].out + TSR_CUDA_TILE - 1) / TSR_CUDA_TILE;
        a.tile_end[i] = tiles;
    }
    a.cut = product_cut_of(p->linear[0].format, in);
    a.together = product_together(in, p->rows);
    a.beside = a.cut.slices < LINEAR_WARPS ? LINEAR_WARPS / a.cut.slices : 1;
    if (a.together > PRODUCT_COLUMNS &&
        a.beside * a.cut.slices * 2 * TSR_CUDA_LANES <= LINEAR_THREADS)
        a.beside *= 2;
    a.rows_bytes = a.together * (tsr_cuda_padded(in) + PRODUCT_PAD) * (int32_t)sizeof(uint16_t);
    return a;
}

tsr_status tsr_cuda_multiply(tsr_cuda_device *cuda, const tsr_cuda_product *p, cudaStream_t stream)
{
    const tsr_linear *l = &p->linear[0];
    const linear_args a = args_of(p);
    const int32_t warps = a.beside * a.cut.slices;
    const bool wide = warps * TSR_CUDA_LANES > LINEAR_THREADS;
    const bool scaled = product_is_scaled(l->format, l->activation);
    tsr_cuda_launch_shape at = {};

    if (!tsr_cuda_is_packed(l->format))
        return multiply_plainly(cuda, p, stream);
    if (p->rows > PRODUCT_TOKENS)
        return tsr_gemm_dense(&cuda->gemm, p, stream);
    at.threads = (unsigned)(warps * TSR_CUDA_LANES);
    at.shared = (size_t)a.rows_bytes + 2 * (size_t)warps * product_sums_bytes(a.together);
    at.stream = stream;
    at.grid.x = tsr_cuda_ceil(a.tile_end[p->count - 1], a.beside);
    at.grid.y = tsr_cuda_ceil(p->rows, a.together);
    if (at.grid.x > PRODUCT_GRID)
        at.grid.x = PRODUCT_GRID;
    return tsr_cuda_launch(at, find_kernel(l->format, scaled, a.together, wide), a, cuda->faults);
}

/* Linears that follow linear `first` and go with it in one launch. */
static int32_t run_length(const tsr_cuda_linears *a, int32_t first)
{
    int32_t count = 1;

    if (!tsr_cuda_is_packed(a->linear[first]->format))
        return 1;
    while (first + count < a->count &&
           a->linear[first + count]->format == a->linear[first]->format &&
           tsr_cuda_share_rows(a->linear[first + count], a->linear[first]))
        count++;
    return count;
}

tsr_status tsr_cuda_run_linears(tsr_cuda_device *cuda, const tsr_cuda_linears *a,
                                cudaStream_t stream)
{
    tsr_status st = TSR_OK;

    for (int32_t i = 0; st == TSR_OK && i < a->count;) {
        const bool stands = i > 0 && tsr_cuda_share_rows(a->linear[i], a->linear[i - 1]);
        tsr_cuda_product p = {};
        p.add = a->add;
        p.x = tsr_cuda_operand_of(cuda);
        p.rows = a->rows;
        p.count = run_length(a, i);
        for (int32_t j = 0; j < p.count; j++) {
            p.linear[j] = *a->linear[i + j];
            p.y[j] = a->y[i + j];
            p.y_stride[j] = a->linear[i + j]->out;
        }
        if (a->made)
            p.x.scale = cuda->work.ones;
        else if (!stands)
            st = tsr_cuda_make_rows(cuda, a->linear[i], &a->from, &p.x, a->rows, stream);
        if (st == TSR_OK)
            st = tsr_cuda_multiply(cuda, &p, stream);
        i += p.count;
    }
    return st;
}

tsr_status tsr_linears_cuda(tsr_device *device, const tsr_linears_args *a, tsr_stream s)
{
    tsr_cuda_linears l = {};

    if (a->tokens == 0)
        return TSR_OK;
    l.from.x = (const float *)a->x;
    l.from.x_stride = a->linear[0]->in;
    l.count = a->count;
    l.rows = a->tokens;
    for (int32_t i = 0; i < a->count; i++) {
        l.linear[i] = a->linear[i];
        l.y[i] = (float *)a->out[i];
    }
    return tsr_cuda_run_linears(tsr_cuda(device), &l, tsr_cuda_stream(device, s));
}

tsr_status tsr_head_cuda(tsr_device *device, const tsr_head_args *a, tsr_stream s)
{
    tsr_cuda_linears l = {};

    if (a->rows == 0)
        return TSR_OK;
    l.from.x = (const float *)a->x;
    l.from.x_stride = a->head->in;
    l.count = 1;
    l.rows = a->rows;
    l.linear[0] = a->head;
    l.y[0] = a->logits;
    return tsr_cuda_run_linears(tsr_cuda(device), &l, tsr_cuda_stream(device, s));
}
