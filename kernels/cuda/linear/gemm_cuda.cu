/*
 * Products of many rows with linears that share them: CTAs walk over tiles of 128 rows of a weight
 * and 128 tokens, those that run together close to each other:
 *
 *   tokens ->   8 tiles | 8 tiles | ..      within 8: all rows of all linears, the next 8 after them
 *
 * On Hopper the two CTAs of a cluster have the same tokens, and rows that follow each other: where the
 * number of blocks is odd, the last one's neighbour has none.
 *
 * Where a product has too few tiles to fill the card, slices of K go apart (split_cuda.cu).
 */
#include "kernels/cuda/linear/gemm_cuda.cuh"

#include "kernels/cuda/linear/gemm_bring_cuda.cuh"
#include "kernels/cuda/linear/gemm_store_cuda.cuh"

enum { ORDER_TILES = 8 };

/* Of the device's code: on Hopper two CTAs go together. */
static constexpr bool DENSE_PAIRED = WGMMA_HARDWARE != 0;

typedef struct dense_args {
    tsr_cuda_product p;
    gemm_shape shape;
    int32_t end[TSR_MAX_LINEARS]; /* blocks of rows up to and with each linear */
    int32_t tiles;                /* of tokens */
    int32_t tokens;               /* of a tile */
    int32_t together;             /* blocks of rows, one for each CTA of a cluster */
    CUtensorMap rows;             /* operand rows */
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
    while (b.linear < a.p.count - 1 && block >= a.end[b.linear])
        before = a.end[b.linear++];
    b.row = (block - before) * GEMM_ROWS;
    return b;
}

typedef struct dense_place {
    dense_block block;
    int32_t first; /* token */
    int32_t count;
} dense_place;

/* Blocks of rows, or pairs of them. */
static __host__ __device__ __forceinline__ int32_t dense_pairs(const dense_args &a)
{
    return (a.end[a.p.count - 1] + a.together - 1) / a.together;
}

static __device__ __forceinline__ dense_place dense_place_of(const dense_args &a, int32_t item)
{
    const int32_t pairs = dense_pairs(a);
    const int32_t part = item / (pairs * ORDER_TILES);
    const int32_t within = item - part * pairs * ORDER_TILES;
    const int32_t across = min((int32_t)ORDER_TILES, a.tiles - part * ORDER_TILES);
    dense_place at;

    at.block = dense_block_of(a, within / across * a.together + (int32_t)blockIdx.x % a.together);
    at.first = (part * ORDER_TILES + within % across) * a.tokens;
    at.count = min(a.p.rows - at.first, a.tokens);
    return at;
}

/* Of a cluster. */
static __host__ __device__ __forceinline__ int32_t dense_items(const dense_args &a)
{
    return dense_pairs(a) * a.tiles;
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

    gemm_put_ahead<FORMAT>(r, weights, ahead);
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
    const int32_t first = (int32_t)blockIdx.x / a.together;
    const int32_t stride = (int32_t)gridDim.x / a.together;
    const gemm_boxes boxes = {&a.rows, a.tokens / GEMM_PAIR};
    gemm_order last = {};

    for (int32_t i = first; i < items || last.item != NULL; i += stride) {
        gemm_order next = {};
        if (i < items) {
            const dense_place at = dense_place_of(a, i);
            next.weights = dense_weights<FORMAT>(a.p.linear[at.block.linear], at.block.row, w);
            next.ahead = i == first ? dense_begin<FORMAT>(*r, w, next.weights) : 0;
            next.item = gemm_put_item(r, dense_source(a, at));
            next.count = at.count;
            next.first = at.first;
        }
        if constexpr (DENSE_PAIRED)
            gemm_produce_last_boxes<FORMAT>(r, w, boxes, &last, next);
        else
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
    const gemm_width w = gemm_width_of(a.p.linear[0].in);

    for (;;) {
        const gemm_item *item = gemm_take_item(*r);
        if (item->count == 0)
            break;
        const tsr_linear &l = a.p.linear[item->linear];
        const gemm_output out =
            gemm_output_of(a.p.y[item->linear], item->linear == 0 ? a.p.add : NULL,
                           a.p.y_stride[item->linear], l.out);
        gemm_store<FORMAT>(r, item, w, l.format == TSR_WEIGHT_FP8_CHANNEL, out);
    }
}

template <tsr_weight_format FORMAT, bool SCALED>
static __global__ void __launch_bounds__(GEMM_ALL_THREADS, 1)
    dense_kernel(const __grid_constant__ dense_args a)
{
    extern __shared__ unsigned char shared[];
    gemm_ring r = gemm_ring_open(shared, a.shape, DENSE_PAIRED);

    tsr_admit_kernel();
    if (threadIdx.x / GEMM_GROUP == 2) {
        wgmma_fewer_registers<GEMM_PRODUCER_REGISTERS>();
        dense_bring<FORMAT>(a, &r);
    } else if (threadIdx.x / GEMM_GROUP == 3) {
        wgmma_fewer_registers<gemm_storer_registers(FORMAT, false)>();
        tsr_await_kernel();
        dense_store<FORMAT>(a, &r);
    } else {
        wgmma_more_registers<gemm_consumer_registers(FORMAT, false)>();
        tsr_await_kernel();
        dense_multiply<FORMAT, SCALED>(a, &r);
    }
    gemm_ring_close(r);
}

/* ---- launches ---- */

typedef void (*dense_function)(dense_args);

static const dense_function dense_kernels[GEMM_KINDS] = {
    dense_kernel<TSR_WEIGHT_BF16, false>, dense_kernel<TSR_WEIGHT_FP8, false>,
    dense_kernel<TSR_WEIGHT_FP8, true>,   dense_kernel<TSR_WEIGHT_NVFP4, false>,
    dense_kernel<TSR_WEIGHT_F16, false>,
};

tsr_status tsr_gemm_prepare(int32_t ordinal, tsr_gemm_card *ret_card)
{
    cudaDeviceProp properties;
    tsr_status st = TSR_CUDA(cudaGetDeviceProperties(&properties, ordinal));

    for (int i = 0; st == TSR_OK && i < GEMM_KINDS; i++)
        st = TSR_CUDA(cudaFuncSetAttribute(dense_kernels[i],
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)properties.sharedMemPerBlockOptin));
    if (st != TSR_OK)
        return st;
    ret_card->processors = properties.multiProcessorCount;
    ret_card->tokens = properties.major == GEMM_WIDE_MAJOR ? GEMM_TOKENS : GEMM_FEWER_TOKENS;
    ret_card->shared = properties.sharedMemPerBlockOptin;
    ret_card->shared_all = properties.sharedMemPerMultiprocessor;
    return TSR_OK;
}

tsr_status tsr_gemm_describe(const tsr_gemm_card *card, const uint16_t *rows, int32_t padded,
                             int32_t count, int32_t together, CUtensorMap *ret_map)
{
    const cuuint64_t size[2] = {(cuuint64_t)padded, (cuuint64_t)count};
    const cuuint64_t stride[1] = {(cuuint64_t)padded * 2};
    const cuuint32_t box[2] = {GEMM_COLUMNS, (cuuint32_t)together};
    const cuuint32_t step[2] = {1, 1};

    const CUresult result =
        card->encode(ret_map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, (void *)rows, size, stride, box,
                     step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result == CUDA_SUCCESS)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "cuda: describing operand rows: error %d", (int)result);
    return TSR_ERR_DEVICE;
}

tsr_status tsr_gemm_dense(const tsr_gemm_card *card, const tsr_cuda_product *p, cudaStream_t stream)
{
    const tsr_linear *l = &p->linear[0];
    const bool scaled = product_is_scaled(l->format, l->activation);
    dense_args a = {};
    int32_t blocks = 0;

    if (p->rows == 0)
        return TSR_OK;
    a.p = *p;
    for (int32_t i = 0; i < p->count; i++)
        a.end[i] = blocks += (int32_t)tsr_cuda_ceil(p->linear[i].out, GEMM_ROWS);
    a.tokens = tsr_smaller(gemm_most_tokens(scaled), card->tokens);
    a.shape = gemm_storing_shape_of(l->format, &a.tokens, card->shared);
    a.tiles = (int32_t)tsr_cuda_ceil(p->rows, a.tokens);
    a.together = card->tokens == GEMM_TOKENS ? GEMM_PAIR : 1;
    const tsr_status st = tsr_gemm_describe(card, p->x.rows, tsr_cuda_padded(l->in), p->rows,
                                            a.tokens / GEMM_PAIR, &a.rows);
    if (st != TSR_OK)
        return st;
    const int32_t clusters = tsr_smaller(dense_items(a), card->processors / a.together);
    const tsr_cuda_launch_shape at = {
        dim3((unsigned)(clusters * a.together)),    GEMM_ALL_THREADS, a.shape.bytes, stream,
        a.together > 1 ? (unsigned)a.together : 0U,
    };
    return tsr_cuda_launch(at, dense_kernels[tsr_gemm_kind(l->format, scaled)], a);
}
