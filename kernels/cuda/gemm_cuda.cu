/*
 * Products of many rows with linears that share them: CTAs walk over tiles of 128 rows of a weight
 * and 128 tokens, those that run together close to each other:
 *
 *   tokens ->   8 tiles | 8 tiles | ..      within 8: all rows of all linears, the next 8 after them
 *
 * Where a product has too few tiles to fill the card, the slices of K go to the CTAs of a cluster,
 * which add them up in order over each other's shared memory:
 *
 *   cluster    | slice 0 | slice 1 | .. |   each adds up, and finishes, its share of the tokens
 */
#include "kernels/cuda/gemm_cuda.cuh"

#include "kernels/cuda/gemm_store_cuda.cuh"

enum {
    ORDER_TILES = 8,
    SPLIT_MAX_SLICES = 8,        /* CTAs of a cluster that every card has */
    SPLIT_PITCH = GEMM_ROWS + 4, /* words of a token's sums: no bank conflicts */
    SPLIT_COST = 3,
    SPLIT_SMALL = 64,              /* tokens of which two CTAs share a processor .. */
    SPLIT_PRODUCER_REGISTERS = 40, /* .. and its registers */
    SPLIT_CONSUMER_REGISTERS = 96,
};

typedef struct dense_args {
    tsr_cuda_product p;
    gemm_shape shape;
    int32_t end[TSR_MAX_LINEARS]; /* blocks of rows up to and with each linear */
    int32_t tiles;                /* of tokens */
    int32_t tokens;               /* of a tile */
} dense_args;

/* A block of rows of one linear. */
typedef struct dense_block {
    int32_t linear;
    int32_t row;
} dense_block;

static __device__ __forceinline__ dense_block dense_block_of(const dense_args &a, int32_t block)
{
    dense_block b;
    int32_t before = 0;

    b.linear = 0;
    while (block >= a.end[b.linear])
        before = a.end[b.linear++];
    b.row = (block - before) * GEMM_ROWS;
    return b;
}

typedef struct dense_place {
    dense_block block;
    int32_t first; /* token */
    int32_t count;
} dense_place;

static __device__ __forceinline__ dense_place dense_place_of(const dense_args &a, int32_t item)
{
    const int32_t blocks = a.end[a.p.count - 1];
    const int32_t part = item / (blocks * ORDER_TILES);
    const int32_t within = item - part * blocks * ORDER_TILES;
    const int32_t across = min((int32_t)ORDER_TILES, a.tiles - part * ORDER_TILES);
    dense_place at;

    at.block = dense_block_of(a, within / across);
    at.first = (part * ORDER_TILES + within % across) * a.tokens;
    at.count = min(a.p.rows - at.first, a.tokens);
    return at;
}

static __host__ __device__ __forceinline__ int32_t dense_items(const dense_args &a)
{
    return a.end[a.p.count - 1] * a.tiles;
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ gemm_weights dense_weights(const tsr_linear &l, int32_t row,
                                                             const gemm_width &w)
{
    const int32_t tile = row / TSR_CUDA_TILE + gemm_my_tile();

    return gemm_weights_at<FORMAT>(l.weight, l.scales, tile, l.out, w);
}

/* The weights of the first slots, which no kernel before this one writes. Returns how many. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ int32_t dense_begin(const gemm_ring &r, const gemm_width &w,
                                                      const gemm_weights &weights)
{
    const int32_t ahead = min(r.slots, w.slots);

    for (int32_t k = 0; k < ahead; k++)
        gemm_put_weights<FORMAT>(r, k, weights, k);
    tsr_await_kernel();
    return ahead;
}

/* What the sums of a place need. */
static __device__ __forceinline__ gemm_source dense_source(const dense_args &a,
                                                           const dense_place &at)
{
    const tsr_linear &l = a.p.linear[at.block.linear];
    const int32_t row = at.block.row + (int32_t)threadIdx.x % GEMM_GROUP;
    const bool there = row < l.out;
    gemm_source s = {};

    s.scale = a.p.x.scale;
    s.channel = there && l.format == TSR_WEIGHT_FP8_CHANNEL ? (const float *)l.scales + row : NULL;
    s.bias = there && l.bias != NULL ? l.bias + row : NULL;
    s.blocks = l.format == TSR_WEIGHT_FP8_BLOCK ? (const float *)l.scales : NULL;
    s.pair = at.first + (int32_t)threadIdx.x % GEMM_GROUP;
    s.row = gemm_row_of(NULL, at.first, at.count);
    s.count = at.count;
    s.linear = at.block.linear;
    s.block = at.block.row;
    s.weight_scale = l.weight_scale * packed_left(l.format);
    s.biased = l.bias != NULL;
    return s;
}

/* The third warpgroup. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void dense_bring(const dense_args &a, gemm_ring *r)
{
    const gemm_width w = gemm_width_of(a.p.linear[0].in);
    const int32_t items = dense_items(a);
    const int32_t first = (int32_t)blockIdx.x;
    gemm_order last = {};

    for (int32_t i = first; i < items || last.item != NULL; i += (int32_t)gridDim.x) {
        gemm_order next = {};
        if (i < items) {
            const dense_place at = dense_place_of(a, i);
            next.weights = dense_weights<FORMAT>(a.p.linear[at.block.linear], at.block.row, w);
            next.ahead = i == first ? dense_begin<FORMAT>(*r, w, next.weights) : 0;
            next.item = gemm_put_item(r, dense_source(a, at));
            next.count = at.count;
        }
        gemm_produce_last<FORMAT>(r, w, a.p.x.rows, &last, next);
    }
    gemm_put_end(r);
}

/* Of an activation that has them. */
static __device__ __forceinline__ const float *dense_group(const dense_args &a)
{
    const tsr_linear &l = a.p.linear[0];

    return tsr_cuda_has_groups(l.format, l.activation) ? a.p.x.group_scale : NULL;
}

/* The first two warpgroups. */
template <tsr_weight_format FORMAT, bool SCALED>
static __device__ __forceinline__ void dense_multiply(const dense_args &a, gemm_ring *r)
{
    const gemm_width w = gemm_width_of(a.p.linear[0].in);

    if constexpr (!SCALED) {
        gemm_consume<FORMAT>(r, w);
    } else {
        for (;;) {
            const gemm_item *item = gemm_take_item(*r);
            if (item->count == 0)
                break;
            const int32_t row = item->block + (int32_t)threadIdx.x / GEMM_GROUP * GEMM_HALF;
            gemm_leave_scaled<FORMAT>(
                r, w, gemm_scales_of(item, dense_group(a), a.p.linear[0].in, row), item);
        }
    }
}

/* The fourth. */
template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void dense_store(const dense_args &a, gemm_ring *r)
{
    for (;;) {
        const gemm_item *item = gemm_take_item(*r);
        if (item->count == 0)
            break;
        const tsr_linear &l = a.p.linear[item->linear];
        const gemm_output out =
            gemm_output_of(a.p.y[item->linear], item->linear == 0 ? a.p.add : NULL,
                           a.p.y_stride[item->linear], l.out);
        gemm_store<FORMAT>(r, item, l.format == TSR_WEIGHT_FP8_CHANNEL, out);
    }
}

template <tsr_weight_format FORMAT, bool SCALED>
static __global__ void __launch_bounds__(GEMM_ALL_THREADS, 1)
    dense_kernel(const __grid_constant__ dense_args a)
{
    extern __shared__ unsigned char shared[];
    gemm_ring r = gemm_ring_open(shared, a.shape);

    tsr_admit_kernel();
    if (threadIdx.x / GEMM_GROUP == 2) {
        wgmma_fewer_registers<GEMM_PRODUCER_REGISTERS>();
        dense_bring<FORMAT>(a, &r);
    } else if (threadIdx.x / GEMM_GROUP == 3) {
        wgmma_fewer_registers<GEMM_STORER_REGISTERS>();
        tsr_await_kernel();
        dense_store<FORMAT>(a, &r);
    } else {
        wgmma_more_registers<GEMM_CONSUMER_REGISTERS>();
        tsr_await_kernel();
        dense_multiply<FORMAT, SCALED>(a, &r);
    }
}

/* ---- split ---- */

/* A CTA's slice as a width of its own. */
static __device__ __forceinline__ gemm_width split_width(int32_t in)
{
    gemm_width w = gemm_width_of(in);

    w.slots = min(w.slice, w.row - (int32_t)blockIdx.x * w.slice);
    return w;
}

template <tsr_weight_format FORMAT>
static __device__ __forceinline__ void split_bring(const dense_args &a, gemm_ring *r,
                                                   const dense_place &at, const gemm_width &w)
{
    const int32_t skipped = (int32_t)blockIdx.x * w.slice;
    gemm_weights weights = dense_weights<FORMAT>(a.p.linear[at.block.linear], at.block.row, w);

    weights.codes += (int64_t)skipped * gemm_code_bytes(FORMAT);
    weights.scales += (int64_t)skipped * gemm_scale_bytes(FORMAT);
    const int32_t ahead = dense_begin<FORMAT>(*r, w, weights);
    const gemm_item *item = gemm_put_item(r, dense_source(a, at));
    gemm_produce<FORMAT>(r, w, weights, a.p.x.rows + skipped * GEMM_COLUMNS, item, at.count, ahead);
}

/* The sums of the slice: [token][row] where the ring was. */
template <tsr_weight_format FORMAT, bool SCALED, int TOKENS>
static __device__ __forceinline__ void split_multiply(const dense_args &a, gemm_ring *r,
                                                      const dense_place &at, const gemm_width &w)
{
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const uint32_t to =
        r->base + 4 * (2 * (lane % 4) * SPLIT_PITCH + warp * TSR_CUDA_TILE + lane / 4);
    float sum[TOKENS / 2];

    tsr_await_kernel();
    if constexpr (SCALED) {
        const gemm_item *item = gemm_take_item(*r);
        gemm_scales scales = gemm_scales_of(item, dense_group(a), a.p.linear[0].in, at.block.row);
        scales.first = (int32_t)blockIdx.x * w.slice * GEMM_COLUMNS / TSR_CUDA_GROUP;
        gemm_consume_scaled<FORMAT, TOKENS>(r, w, scales, item, sum);
    } else {
        gemm_reader<FORMAT> reader;
        gemm_operand operand[2];
        gemm_open<FORMAT>(r, &reader, w.slots, at.count, operand[0]);
        gemm_chain<FORMAT, TOKENS>(r, &reader, sum, operand, w.slots);
    }
    gemm_consumers_meet();
#pragma unroll
    for (int i = 0; i < TOKENS / 2; i++) {
        const int token = i / 4 * 8 + i % 2;
        if (token < at.count)
            shared_store(to + 4 * (token * SPLIT_PITCH + i / 2 % 2 * 8), sum[i]);
    }
}

/* Four rows of a token, over all slices of the cluster in order. */
static __device__ __forceinline__ float4 split_sum(uint32_t from, int32_t slices)
{
    float4 slice[SPLIT_MAX_SLICES];

#pragma unroll
    for (int s = 0; s < SPLIT_MAX_SLICES; s++) {
        if (s < slices)
            slice[s] = cluster_load_16(from, (uint32_t)s);
    }
    float4 y = slice[0];
#pragma unroll
    for (int s = 1; s < SPLIT_MAX_SLICES; s++) {
        if (s < slices) {
            y.x = __fadd_rn(y.x, slice[s].x);
            y.y = __fadd_rn(y.y, slice[s].y);
            y.z = __fadd_rn(y.z, slice[s].z);
            y.w = __fadd_rn(y.w, slice[s].w);
        }
    }
    return y;
}

/* The tile's values, of this CTA's share of the tokens, by the first two warpgroups: a warp a token,
 * a lane four rows. */
static __device__ __forceinline__ void split_finish(const dense_args &a, const gemm_ring &r,
                                                    const dense_place &at)
{
    const int32_t linear = at.block.linear;
    const tsr_linear &l = a.p.linear[linear];
    const gemm_output out =
        gemm_output_of(a.p.y[linear], linear == 0 ? a.p.add : NULL, a.p.y_stride[linear], l.out);
    const int32_t slices = (int32_t)gridDim.x;
    const int32_t share = (at.count + slices - 1) / slices;
    const int32_t last = min(((int32_t)blockIdx.x + 1) * share, at.count);
    const int32_t within = (int32_t)(threadIdx.x % TSR_CUDA_LANES) * 4;
    const int32_t row = at.block.row + within;
    const int32_t warp = (int32_t)(threadIdx.x / TSR_CUDA_LANES);

    if (row >= l.out)
        return;
    for (int32_t t = (int32_t)blockIdx.x * share + warp; t < last; t += GEMM_READERS) {
        const float of_token = a.p.x.scale[at.first + t];
        const float4 sum = split_sum(r.base + 4 * (uint32_t)(t * SPLIT_PITCH + within), slices);
        float v[4] = {sum.x, sum.y, sum.z, sum.w};
        for (int i = 0; i < 4; i++) {
            const int32_t o = min(row + i, l.out - 1);
            v[i] = __fmul_rn(v[i], __fmul_rn(of_token, product_row_scale(l, o)));
            v[i] = l.bias != NULL ? __fadd_rn(v[i], l.bias[o]) : v[i];
        }
        gemm_put(out, (at.first + t) * out.stride + row, l.out - row, v);
    }
}

static __host__ __device__ __forceinline__ constexpr int split_ctas(bool scaled, int32_t width)
{
    return !scaled && width <= SPLIT_SMALL ? 2 : 1;
}

template <tsr_weight_format FORMAT, bool SCALED, int TOKENS>
static __global__ void __launch_bounds__(GEMM_THREADS, split_ctas(SCALED, TOKENS))
    split_kernel(const __grid_constant__ dense_args a)
{
    extern __shared__ unsigned char shared[];
    gemm_ring r = gemm_ring_open(shared, a.shape);
    const gemm_width w = split_width(a.p.linear[0].in);
    dense_place at;

    at.block = dense_block_of(a, (int32_t)blockIdx.y);
    at.first = (int32_t)blockIdx.z * a.tokens;
    at.count = min(a.p.rows - at.first, a.tokens);
    tsr_admit_kernel();
    if (threadIdx.x / GEMM_GROUP == 2) {
        if (split_ctas(SCALED, TOKENS) == 2)
            wgmma_fewer_registers<SPLIT_PRODUCER_REGISTERS>();
        split_bring<FORMAT>(a, &r, at, w);
        cluster_meet();
    } else {
        if (split_ctas(SCALED, TOKENS) == 2)
            wgmma_more_registers<SPLIT_CONSUMER_REGISTERS>();
        split_multiply<FORMAT, SCALED, TOKENS>(a, &r, at, w);
        cluster_meet();
        split_finish(a, r, at);
    }
    cluster_meet(); /* nobody leaves whom others still read from */
}

/* ---- launches ---- */

typedef void (*dense_function)(dense_args);

/* A kernel and its form. */
typedef struct dense_launch {
    dense_function kernel;
    dim3 grid;
    unsigned threads;
    unsigned cluster;
} dense_launch;

static tsr_status launch(const dense_launch *d, const dense_args *a, cudaStream_t stream)
{
    const tsr_cuda_launch_shape at = {d->grid, d->threads, a->shape.bytes, stream, d->cluster};

    return tsr_cuda_launch(at, d->kernel, *a);
}

enum { DENSE_ROWS = GEMM_KINDS, SPLIT_WIDTHS = 2 };

static const dense_function dense_kernels[DENSE_ROWS] = {
    dense_kernel<TSR_WEIGHT_BF16, false>, dense_kernel<TSR_WEIGHT_FP8, false>,
    dense_kernel<TSR_WEIGHT_FP8, true>,   dense_kernel<TSR_WEIGHT_NVFP4, false>,
    dense_kernel<TSR_WEIGHT_F16, false>,
};

/* Up to 64 tokens, and up to 128. */
static const dense_function split_kernels[DENSE_ROWS][SPLIT_WIDTHS] = {
    {split_kernel<TSR_WEIGHT_BF16, false, 64>, split_kernel<TSR_WEIGHT_BF16, false, 128>},
    {split_kernel<TSR_WEIGHT_FP8, false, 64>, split_kernel<TSR_WEIGHT_FP8, false, 128>},
    {split_kernel<TSR_WEIGHT_FP8, true, 64>, NULL},
    {split_kernel<TSR_WEIGHT_NVFP4, false, 64>, split_kernel<TSR_WEIGHT_NVFP4, false, 128>},
    {split_kernel<TSR_WEIGHT_F16, false, 64>, split_kernel<TSR_WEIGHT_F16, false, 128>},
};

static tsr_status allow_shared(const void *kernel, size_t bytes)
{
    return TSR_CUDA(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

tsr_status tsr_gemm_prepare(int32_t ordinal, tsr_gemm_card *ret_card)
{
    cudaDeviceProp properties;
    tsr_status st = TSR_CUDA(cudaGetDeviceProperties(&properties, ordinal));

    for (int i = 0; st == TSR_OK && i < DENSE_ROWS; i++) {
        st = allow_shared((const void *)dense_kernels[i], properties.sharedMemPerBlockOptin);
        for (int n = 0; st == TSR_OK && n < SPLIT_WIDTHS; n++) {
            if (split_kernels[i][n] != NULL)
                st = allow_shared((const void *)split_kernels[i][n],
                                  properties.sharedMemPerBlockOptin);
        }
    }
    if (st != TSR_OK)
        return st;
    ret_card->processors = properties.multiProcessorCount;
    ret_card->tokens = properties.major == GEMM_WIDE_MAJOR ? GEMM_TOKENS : GEMM_FEWER_TOKENS;
    ret_card->shared = properties.sharedMemPerBlockOptin;
    ret_card->shared_all = properties.sharedMemPerMultiprocessor;
    return TSR_OK;
}

/* Slices go apart where tiles alone leave much of the card idle: a cluster takes three times as long
 * over a slot as a CTA that goes on and on. */
static bool is_split(const tsr_gemm_card *card, const tsr_cuda_product *p, int32_t items)
{
    const int32_t slices = tsr_slices_of(p->linear[0].in);

    return slices > 1 && slices <= SPLIT_MAX_SLICES && items * SPLIT_COST < card->processors;
}

static tsr_status run_split(const tsr_gemm_card *card, dense_args *a, int row, cudaStream_t stream)
{
    const tsr_linear *l = &a->p.linear[0];
    const int32_t width = (a->tokens + 31) / 32 * 32;
    const bool scaled = product_is_scaled(l->format, l->activation);
    const size_t shared_half =
        card->shared_all / 2 - GEMM_ALIGNMENT; /* 1 KiB of a CTA is the system's */
    const size_t room = split_ctas(scaled, width) == 2 ? shared_half : card->shared;
    dense_launch d;

    a->shape = gemm_shape_of(l->format, width, 0, room < card->shared ? room : card->shared);
    d.kernel = split_kernels[row][width <= SPLIT_SMALL ? 0 : 1];
    d.threads = GEMM_THREADS;
    d.cluster = (unsigned)tsr_slices_of(l->in);
    d.grid = dim3(d.cluster, (unsigned)a->end[a->p.count - 1], (unsigned)a->tiles);
    return launch(&d, a, stream);
}

static tsr_status run_dense(const tsr_gemm_card *card, dense_args *a, int row, cudaStream_t stream)
{
    dense_launch d;

    a->tokens = tsr_smaller(a->tokens, card->tokens);
    a->shape = gemm_storing_shape_of(a->p.linear[0].format, &a->tokens, card->shared);
    a->tiles = (int32_t)tsr_cuda_ceil(a->p.rows, a->tokens);
    const int32_t items = dense_items(*a);
    d.kernel = dense_kernels[row];
    d.threads = GEMM_ALL_THREADS;
    d.cluster = 1;
    d.grid = dim3((unsigned)(items < card->processors ? items : card->processors));
    return launch(&d, a, stream);
}

tsr_status tsr_gemm_dense(const tsr_gemm_card *card, const tsr_cuda_product *p, cudaStream_t stream)
{
    const tsr_linear *l = &p->linear[0];
    const bool scaled = product_is_scaled(l->format, l->activation);
    const int row = tsr_gemm_kind(l->format, scaled);
    const int32_t most = gemm_most_tokens(scaled);
    dense_args a = {};
    int32_t blocks = 0;

    if (p->rows == 0)
        return TSR_OK;
    a.p = *p;
    for (int32_t i = 0; i < p->count; i++)
        a.end[i] = blocks += (int32_t)tsr_cuda_ceil(p->linear[i].out, GEMM_ROWS);
    a.tiles = (int32_t)tsr_cuda_ceil(p->rows, most);
    a.tokens = most;
    if (!is_split(card, p, dense_items(a)))
        return run_dense(card, &a, row, stream);
    a.tokens = (int32_t)tsr_cuda_ceil(p->rows, a.tiles);
    return run_split(card, &a, row, stream);
}
